"""
Which simulated arm belongs to which driver backend: its body, its emulated device, its rate.

The one place to add an arm to the simulated bench.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm
from mivla_core.timing import NowNs
from mivla_drivers.devices.arx5_device import EmulatedArx
from mivla_drivers.devices.piper_device import EmulatedPiper, PiperOptions
from mivla_drivers.sim.arm_model import ArmModel, SimError
from mivla_drivers.sim.arx_body import arx_body
from mivla_drivers.sim.piper_body import piper_body

__all__ = ['ArmKind', 'Device', 'Frame', 'arm_body', 'arm_kind', 'arm_profile']

Frame = tuple[int, bytes]


class Device(Protocol):
    """An emulated device: takes frames from the bus, moves the plant, answers with frames."""

    def handle(self, can_id: int, data: bytes, now: NowNs) -> list[Frame]:
        """Take one frame; return what the device answers at once."""
        ...

    def tick(self, now: NowNs) -> list[Frame]:
        """Run one cycle and return the frames that are due."""
        ...


@dataclass(frozen=True)
class ArmKind:
    """
    What the simulation needs to know of one kind of arm.

    :param body: shapes, masses and motors of the arm of a profile with one arm.
    :param device: makes the emulated device: (profile, plant, instant of its first tick).
    :param tick_ns: period of the device's cycle; a device that answers at once measures as often.
    """

    body: Callable[[RobotProfile], ArmModel]
    device: Callable[[RobotProfile, Any, NowNs], Device]
    tick_ns: int


def _piper(profile: RobotProfile, plant: Any, start: NowNs) -> Device:
    del profile
    return EmulatedPiper(plant, PiperOptions(), start)


def _arx(profile: RobotProfile, plant: Any, start: NowNs) -> Device:
    del start
    return EmulatedArx(plant, profile.driver.parameters['model'])


_KINDS: Mapping[str, ArmKind] = {
    # The arm's own cycle, 200 Hz as on the real one.
    'piper': ArmKind(piper_body, _piper, 5_000_000),
    # It has none: a motor answers what it is asked, with what it measures then.
    'arx5': ArmKind(arx_body, _arx, 1_000_000),
}


def arm_profile(profile: RobotProfile, arm: Arm) -> RobotProfile:
    """Return the profile of one arm alone."""
    return profile if len(profile.arms) == 1 else profile.of_arm(arm.name)


def arm_kind(profile: RobotProfile, arm: Arm) -> ArmKind:
    """
    Return the kind of one arm of a robot.

    :raises SimError: none is known for its driver backend.
    """
    backend = arm_profile(profile, arm).driver.backend
    kind = _KINDS.get(backend)
    if kind is None:
        raise SimError(f'no simulated arm for driver backend {backend!r}; known: '
                       f'{", ".join(sorted(_KINDS))}. Run with sim:=false')
    return kind


def arm_body(profile: RobotProfile, arm: Arm) -> ArmModel:
    """
    Return the simulated body of one arm of a robot.

    :raises SimError: see :func:`arm_kind`.
    """
    return arm_kind(profile, arm).body(arm_profile(profile, arm))
