"""
The two wires of an emulated LocoMan inside one process and one thread, in simulated time.

For lockstep evaluation, as ``can.memory`` is for arms: nothing sleeps. A datagram is answered at
once; what the servos answer arrives a while later, as over a serial adapter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Optional

from mivla_core.timing import NowNs, StampNs
from mivla_drivers.backends.go1_link import Datagram
from mivla_drivers.sim.locoman_runtime import LocomanRuntime

__all__ = ['MemoryDatagrams', 'MemorySerial']

_SERIAL_NS = 2_000_000


class MemoryDatagrams:
    """
    The host's end of the link to the Go1: a ``DatagramPort``.

    :param robot: address that answers bear.
    :param clock: present instant.
    """

    def __init__(self, runtime: LocomanRuntime, robot: tuple[str, int],
                 clock: Callable[[], NowNs]) -> None:
        self._runtime, self._robot, self._clock = runtime, robot, clock
        self._inbox: deque[Datagram] = deque()

    def send(self, data: bytes) -> None:
        """Deliver a datagram to the robot."""
        now = self._clock()
        answer = self._runtime.deliver(data, now)
        if answer is not None:
            self._inbox.append(Datagram(answer, self._robot, StampNs(int(now))))

    def receive(self) -> Optional[Datagram]:
        """Return the next answer."""
        return self._inbox.popleft() if self._inbox else None

    def close(self) -> None:
        """Nothing to close."""


class MemorySerial:
    """The host's end of the servo bus: a ``BytePort``."""

    def __init__(self, runtime: LocomanRuntime, clock: Callable[[], NowNs]) -> None:
        self._runtime, self._clock = runtime, clock
        self._coming: deque[tuple[int, bytes]] = deque()

    def write(self, data: bytes) -> None:
        """Deliver bytes to the servos."""
        now = self._clock()
        answer = self._runtime.deliver_bytes(data, now)
        if answer:
            self._coming.append((int(now) + _SERIAL_NS, answer))

    def read(self) -> bytes:
        """Return what has arrived."""
        now, found = int(self._clock()), b''
        while self._coming and self._coming[0][0] <= now:
            found += self._coming.popleft()[1]
        return found

    def close(self) -> None:
        """Nothing to close."""
