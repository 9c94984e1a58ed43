"""The PiPER backend's end of the CAN bus: open, send, receive, and what else travels there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Optional

import can

from mivla_core.timing import StampNs
from mivla_drivers.codec import piper as codec
from mivla_drivers.errors import CodecError, DriverError

__all__ = ['PiperLink', 'stamp_of']

# Commands that steer or reconfigure an arm; on a bus of ours nobody else may send them.
_FOREIGN = frozenset({*range(0x150, 0x160), 0x191, 0x470, 0x471, 0x474, 0x475, 0x477, 0x479,
                      0x47A, 0x47D})
_ENQUIRY = 0x477                    # with only its first byte set it asks and steers nothing
_ERROR_BUS_OFF = 0x40               # linux/can/error.h
_ERROR_NO_ACK = 0x20


class PiperLink:
    """
    One open bus; every bus error becomes one DriverError that says what to do.

    :param bus: any python-can bus; own frames must not come back on it.
    :param where: names the bus in messages.
    """

    def __init__(self, bus: can.BusABC, where: str) -> None:
        self._bus = bus
        self._where = where
        self.heard: Counter[int] = Counter()    # frames by id
        self.error_frames = 0
        self.malformed = 0
        self._foreign: set[int] = set()
        self._faults: list[str] = []

    @classmethod
    def open(cls, opener: Callable[[], can.BusABC], where: str) -> PiperLink:
        """Open the bus; raises DriverError."""
        try:
            return cls(opener(), where)
        except (can.CanError, OSError, ValueError, ImportError) as err:
            raise DriverError(f'{where}: cannot open the CAN bus: {err}; check interface, channel '
                              'and that the link is up') from err

    def receive(self, timeout: float) -> Optional[can.Message]:
        """Return the next message of any kind, or None after ``timeout`` s."""
        try:
            return self._bus.recv(timeout)
        except (can.CanError, OSError, ValueError) as err:
            raise DriverError(f'{self._where}: the CAN bus failed: {err}; check adapter and '
                              'cable, then reconnect') from err

    def sort(self, message: can.Message) -> Any:
        """Return the arm's frame in a message; None for all else, which is counted or noted."""
        can_id = message.arbitration_id
        if message.is_error_frame:
            self._note_error(can_id)
            return None
        if message.is_extended_id or message.is_remote_frame:
            return None
        self.heard[can_id] += 1
        data = bytes(message.data)
        if can_id in _FOREIGN:
            if can_id != _ENQUIRY or any(data[1:]):
                self._foreign.add(can_id)
            return None
        try:
            return codec.decode(can_id, data)
        except CodecError:
            self.malformed += 1
            return None

    def _note_error(self, bits: int) -> None:
        self.error_frames += 1
        if bits & _ERROR_BUS_OFF:
            self.note(f'{self._where}: bus-off: check cable and termination; reconnect')
        elif bits & _ERROR_NO_ACK:
            self.note(f'{self._where}: nobody acknowledges on the bus: is the arm switched on and '
                      'its cable in?')

    def note(self, fault: str) -> None:
        """Add a fault of the bus to the next measurement, once."""
        if fault not in self._faults:
            self._faults.append(fault)

    def take_faults(self) -> tuple[str, ...]:
        """Return and clear the faults noted since the last call."""
        faults = tuple(self._faults)
        self._faults.clear()
        return faults

    def take_foreign(self) -> tuple[int, ...]:
        """Return and clear the ids of others' command frames since the last call."""
        foreign = tuple(sorted(self._foreign))
        self._foreign.clear()
        return foreign

    def notes(self) -> tuple[str, ...]:
        """Return counts that an operator may want to know of."""
        return tuple(f'{count} {what}' for count, what in (
            (self.error_frames, 'CAN error frames'), (self.malformed, 'malformed frames'))
            if count)

    def send(self, frames: list[Any]) -> None:
        """Encode and send frames in order; raises DriverError."""
        try:
            for frame in frames:
                can_id, data = codec.encode(frame)
                self._bus.send(can.Message(arbitration_id=can_id, data=data,
                                           is_extended_id=False))
        except (can.CanError, OSError, ValueError) as err:
            raise DriverError(f'{self._where}: cannot send: {err}; check adapter and cable, then '
                              'reconnect') from err

    def close(self) -> None:
        """Shut the bus down; raises can.CanError or OSError."""
        self._bus.shutdown()


def stamp_of(message: can.Message) -> StampNs:
    """Return the frame's kernel or sender stamp; adapters without an epoch stamp get arrival."""
    if message.timestamp > 1e9:
        return StampNs(round(message.timestamp * 1e9))
    return StampNs.wall()
