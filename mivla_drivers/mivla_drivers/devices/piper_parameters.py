"""What a PiPER stores across power cycles, and how it answers questions about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mivla_drivers.codec import piper as codec
from mivla_drivers.core.piper_units import JOINTS

__all__ = ['FACTORY_LIMITS', 'PiperOptions', 'StoredParameters']

# (lower, upper) [rad] as the arm leaves the factory, in its own zero convention.
FACTORY_LIMITS = tuple((math.radians(low), math.radians(high)) for low, high in (
    (-150.0, 150.0), (0.0, 180.0), (-170.0, 0.0), (-100.0, 100.0), (-70.0, 70.0),
    (-120.0, 120.0)))


@dataclass(frozen=True)
class PiperOptions:
    """
    What the emulated arm is.

    :param firmware: decides zero convention, current scale and MIT form.
    :param limits: stored (lower, upper) [rad] per joint, in the firmware's convention.
    :param top_speed: stored speed limit of every joint [rad/s]; 0x151's percentage scales it.
    :param max_stroke: configured gripper stroke [m]; 0 is a gripper never configured.
    :param gripper_speed: assumed [m/s]; the vendor documents none.
    :param stale_target: True (worst case; unknown for real arms): a target given before power
        went off comes alive when power returns under CAN control.
    """

    firmware: str = 'S-V1.8-8'
    limits: tuple[tuple[float, float], ...] = FACTORY_LIMITS
    top_speed: float = 3.0
    acceleration: float = 5.0
    max_stroke: float = 0.07
    gripper_speed: float = 0.15
    stale_target: bool = True


class StoredParameters:
    """The arm's parameter memory; angles in the firmware's own convention."""

    def __init__(self, options: PiperOptions) -> None:
        self._options = options
        self._reset_joints()
        self._reset_end()
        self.crash_levels = (0,) * JOINTS
        self.teach = codec.TeachCommand(100, options.max_stroke, 1)
        self.zero = np.zeros(JOINTS)    # rad subtracted from the angles since the last 0x475

    def _reset_joints(self) -> None:
        self.lower = np.array([low for low, _ in self._options.limits])
        self.upper = np.array([high for _, high in self._options.limits])
        self.speed = np.full(JOINTS, self._options.top_speed)
        self.acceleration = np.full(JOINTS, self._options.acceleration)

    def _reset_end(self) -> None:
        self.end = codec.EndLimitsCommand(1.0, 3.0, 1.0, 5.0)

    def over_limit(self, angles: np.ndarray) -> bool:
        """Whether any of the (6,) target angles is beyond its stored limit."""
        return bool(((angles < self.lower - 1e-9) | (angles > self.upper + 1e-9)).any())

    def beyond(self, angles: np.ndarray) -> int:
        """Return bit i for every measured angle (6,) outside its limits."""
        outside = (angles < self.lower) | (angles > self.upper)
        return sum(1 << int(i) for i in np.flatnonzero(outside))

    def answer(self, frame: Any, angles: np.ndarray) -> list[Any]:
        """
        Take a parameter frame and return the replies.

        :param angles: (6,) rad the arm measures now, for setting zero.
        """
        if isinstance(frame, codec.LimitQuery):
            i = frame.joint - 1
            if frame.content == 2:
                return [codec.AccelerationReply(frame.joint, float(self.acceleration[i]))]
            return [codec.LimitReply(frame.joint, float(self.upper[i]), float(self.lower[i]),
                                     float(self.speed[i]))]
        if isinstance(frame, codec.ParameterCommand):
            return self._parameters(frame)
        zero_ok = 0
        if isinstance(frame, codec.LimitCommand):
            self._store_limits(frame)
            low_byte = 0x74
        elif isinstance(frame, codec.JointConfig):
            zero_ok = self._configure(frame, angles)
            low_byte = 0x75
        elif isinstance(frame, codec.EndLimitsCommand):
            self.end, low_byte = frame, 0x79
        elif isinstance(frame, codec.CrashLevelsCommand):
            self.crash_levels, low_byte = frame.levels, 0x7A
        elif isinstance(frame, codec.TeachCommand):
            self.teach, low_byte = frame, 0x7D
        else:
            raise TypeError(f'{type(frame).__name__} is no parameter frame')
        return [codec.SetReply(low_byte, zero_ok)]

    def _store_limits(self, frame: codec.LimitCommand) -> None:
        i = frame.joint - 1
        for array, value in ((self.upper, frame.upper), (self.lower, frame.lower),
                             (self.speed, frame.speed)):
            if value is not None:
                array[i] = value

    def _configure(self, frame: codec.JointConfig, angles: np.ndarray) -> int:
        which = range(JOINTS) if frame.joint == 7 else (frame.joint - 1,)
        for i in which:
            if frame.set_zero:
                self.zero[i] += angles[i]
            if frame.acceleration is not None:
                self.acceleration[i] = frame.acceleration
        return int(frame.set_zero)

    def _parameters(self, frame: codec.ParameterCommand) -> list[Any]:
        if frame.query == 1:
            end = self.end
            return [codec.EndLimitsReply(end.linear_speed, end.angular_speed,
                                         end.linear_acceleration, end.angular_acceleration)]
        if frame.query == 2:
            return [codec.CrashLevelsReply(self.crash_levels)]
        if frame.query == 4:
            return [codec.TeachReply(self.teach.range_percent, self.teach.max_stroke,
                                     self.teach.friction)]
        if frame.restore == 1:
            self._reset_end()
        elif frame.restore == 2:
            self._reset_joints()
        return [codec.SetReply(0x77, 0)]
