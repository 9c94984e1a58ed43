"""
The hardware port: what the guard's loop needs from an arm, whatever bus it hangs on.

One thread owns a backend and calls it once per control tick: ``read``, then ``write`` (or
``enable`` until it returns True). Nothing here blocks except ``connect`` and ``reconnect``.
A backend never decides to move: it sends the set-point it is given, or refuses with a reason.

Torque is not lifecycle. ``connect`` and ``close`` never change it; ``enable`` switches it on,
``disable`` and ``reset_device`` switch it off and the arm falls.

Backends are found by the entry-point group ``mivla.backends``; each entry is a class called as
``cls(profile, interface, channel, parameters)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mivla_core.timing import NowNs, StampNs
from mivla_drivers.errors import DriverError

if TYPE_CHECKING:
    from mivla_core.profile import RobotProfile

__all__ = ['ArmBackend', 'BackendFactory', 'DeviceInfo', 'JointSample', 'Measurement',
           'backend_class']

BACKEND_GROUP = 'mivla.backends'


@dataclass(frozen=True)
class DeviceInfo:
    """
    What the device said about itself when it was connected.

    :param kind: backend name, e.g. 'piper'.
    :param firmware: version text as the device writes it; '' where it has none.
    :param details: further facts for the log and ``driver/state``, name to text.
    """

    kind: str
    firmware: str
    details: Mapping[str, str]


@dataclass(frozen=True)
class JointSample:
    """
    One complete set of measured values; arrays are float64 (J,) in profile order.

    :param stamp_ns: ROS time of the set.
    """

    stamp_ns: StampNs
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


@dataclass(frozen=True)
class Measurement:
    """
    The newest complete set of measured values; arrays are float64 (J,) in profile order.

    :param position: rad, metres for prismatic joints.
    :param velocity: rad/s, m/s.
    :param effort: N·m; for a gripper in the unit its device reports.
    :param stamp_ns: ROS time of the newest complete position set.
    :param received: monotonic time of the ``read`` that completed it; a watchdog uses this.
    :param enabled: power per joint as the device confirms it, profile order.
    :param status: words for the operator, e.g. 'control can', 'arm ok'.
    :param faults: what must latch the guard, in words; () when there is none.
    :param foreign: ids of command frames somebody else put on the bus since the last read.
    :param earlier: sets that were complete since the last read, before this one, oldest first:
        the device's clock is not the host's, so now and then two arrive between two reads.
    """

    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    stamp_ns: StampNs
    received: NowNs
    enabled: tuple[bool, ...]
    status: tuple[str, ...]
    faults: tuple[str, ...]
    foreign: tuple[int, ...]
    earlier: tuple[JointSample, ...] = ()

    @property
    def powered(self) -> bool:
        """Whether every joint has torque."""
        return all(self.enabled)


class ArmBackend(Protocol):
    """
    One arm with its gripper, used by a single thread.

    ``holds_when_silent``: True when the device keeps its last target under power while the host
    is silent (PiPER); False when the host must stream without a gap for as long as torque is on
    (ARX), so the driver keeps writing the held set-point and damps before it lets go.
    """

    holds_when_silent: bool

    def connect(self, now: NowNs) -> DeviceInfo:
        """
        Open the bus, identify the device and wait for a first measurement (at most ~2 s).

        Never changes torque or targets.

        :raises DriverError: absent, silent, or not the device the profile describes.
        """
        ...

    def read(self, now: NowNs) -> Measurement:
        """
        Drain the bus without blocking and return the newest measurement.

        A silent device is not an error here: ``received`` stays behind.

        :raises DriverError: the bus failed; ``reconnect`` is needed.
        """
        ...

    def enable(self, now: NowNs) -> bool:
        """
        Take one step of the enabling sequence; call every tick until it returns True.

        Targets sent on the way are the measured positions.

        :raises DriverError: refused, or not confirmed within 10 s; the next call starts anew.
        """
        ...

    def write(self, position: np.ndarray, now: NowNs) -> None:
        """
        Send one set-point (J,) [rad, m]; call at the control rate while enabled.

        :raises DriverError: not enabled, not finite, outside the device's limits, or bus failure.
        """
        ...

    def disable(self) -> None:
        """Switch torque off: THE ARM FALLS unless it rests."""
        ...

    def stop_device(self) -> None:
        """Ask the device for its own stop (PiPER: a damped descent to the table)."""
        ...

    def reset_device(self) -> None:
        """Reset the device and clear its errors: power goes off at once, THE ARM FALLS."""
        ...

    def reconnect(self, now: NowNs) -> DeviceInfo:
        """Close and connect again; the arm is left as it is and must be enabled anew."""
        ...

    def close(self) -> None:
        """Let go of the bus; torque stays as it is. Idempotent, never raises."""
        ...


class BackendFactory(Protocol):
    """How a backend class is called."""

    def __call__(self, profile: RobotProfile, interface: str, channel: str,
                 parameters: Mapping[str, Any]) -> ArmBackend:
        """Build a backend; touches no hardware before ``connect``."""
        ...


def backend_class(name: str) -> BackendFactory:
    """
    Look a backend up by its profile name.

    :raises DriverError: unknown name (lists the known ones) or the plug-in does not import.
    """
    points = {point.name: point for point in entry_points(group=BACKEND_GROUP)}
    try:
        if name in points:
            return points[name].load()
    except (ImportError, AttributeError) as err:
        raise DriverError(f'backend {name!r} cannot be loaded: {err}; install what it needs '
                          'or correct driver.backend in the profile') from err
    known = ', '.join(sorted(points))
    raise DriverError(f'unknown backend {name!r} in the profile\'s driver.backend; known: {known}')
