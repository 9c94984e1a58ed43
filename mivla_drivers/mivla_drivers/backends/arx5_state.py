"""Assembling the ARX-5 motors' answers into one measurement, and judging what they report."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from mivla_core.timing import NowNs, StampNs, to_ns
from mivla_drivers.backends.arx5_settings import ArxSettings
from mivla_drivers.codec import damiao, encos
from mivla_drivers.codec.damiao import DmError, DmFeedback
from mivla_drivers.codec.encos import EcFeedback
from mivla_drivers.core.port import JointSample, Measurement

if TYPE_CHECKING:
    from mivla_core.profile import RobotProfile

__all__ = ['ArxState']

MOTORS = 7
_GRIPPER = 6
OVER_TORQUE_NS = to_ns(0.04)        # the vendor's: 20 cycles of 2 ms above the ceiling
_SILENT_NS = to_ns(0.1)
_PAUSE_NS = to_ns(0.03)             # in which nobody answers: the whole bus was silent
_KEPT_SETS = 40
# The vendor's bounds of a sane reading: beyond them a zero mark or the gripper map is wrong.
_SANE_ANGLE = 3.14                  # rad beyond a joint's limit
_SANE_GRIPPER = 0.005               # m


class ArxState:
    """What the motors have said so far, in profile units."""

    def __init__(self, profile: RobotProfile, settings: ArxSettings) -> None:
        self._names = profile.joint_names
        self._settings = settings
        self._motors = settings.motors
        slack = np.array([*[_SANE_ANGLE] * 6, _SANE_GRIPPER])
        self._low, self._high = profile.lower - slack, profile.upper + slack
        self._high[_GRIPPER] = settings.gripper.width + _SANE_GRIPPER
        self._index = {motor.can_id: i for i, motor in enumerate(self._motors)}
        self.position = np.zeros(MOTORS)
        self.velocity = np.zeros(MOTORS)
        self.effort = np.zeros(MOTORS)          # N·m; of the gripper at its motor
        self.errors = [0] * MOTORS
        self.heat = np.zeros((MOTORS, 2))       # °C: driver stage, winding
        self.answers = [0] * MOTORS
        self._heard: list[Optional[NowNs]] = [None] * MOTORS
        self._over: list[Optional[NowNs]] = [None] * MOTORS
        self._fresh: set[int] = set()
        self._sets_before = 0
        self._last: Optional[NowNs] = None      # when any motor was heard
        self._resumed = NowNs(0)                # when the bus was last heard after a pause
        self._newest: Optional[JointSample] = None
        self.received: Optional[NowNs] = None
        self.sets = 0
        self.incomplete = 0         # rounds of commands that not every motor had answered in time
        self._kept: deque[JointSample] = deque(maxlen=_KEPT_SETS)

    def handle(self, frame: Union[DmFeedback, EcFeedback], stamp: StampNs, now: NowNs) -> None:
        """Take one motor's answer; answers of unknown or mistaken motors are ignored."""
        index = self._index.get(frame.motor)
        if index is None:
            return
        motor = self._motors[index]
        if isinstance(frame, DmFeedback) != (motor.type.make == 'DM'):
            return
        if isinstance(frame, DmFeedback):
            torque, self.heat[index] = frame.torque, (frame.mos, frame.rotor)
        else:
            torque, self.heat[index] = frame.current, frame.temperature
        position, velocity = frame.position, frame.velocity
        if index == _GRIPPER:
            position = self._settings.gripper.to_metres(position)
            velocity = self._settings.gripper.to_metres(velocity)
        self.position[index], self.velocity[index] = position, velocity
        self.effort[index] = torque * motor.type.answer
        self.errors[index] = frame.error
        self.answers[index] += 1
        if self._last is None or now - self._last > _PAUSE_NS:
            self._resumed = now
        self._heard[index] = self._last = now
        over = abs(self.effort[index]) > motor.torque
        self._over[index] = (self._over[index] or now) if over else None
        self._fresh.add(index)
        if len(self._fresh) == MOTORS:
            self._fresh.clear()
            self.received = now
            self.sets += 1
            self._newest = JointSample(stamp, self.position.copy(), self.velocity.copy(),
                                       self.effort.copy())
            self._kept.append(self._newest)

    def asked(self) -> None:
        """
        Note that every motor is spoken to again.

        What came after a set was complete is forgotten: an answer too many, as some motors give
        while they are switched, would stay ahead for good, and those joints' values would be one
        period older than their stamp. A set that is not complete is filled up.
        """
        if self.sets > self._sets_before:
            self._fresh.clear()
        elif self._fresh:
            self.incomplete += 1
        self._sets_before = self.sets

    def forget_power(self) -> None:
        """Drop what is known about power, because a command has just changed it."""
        for index, motor in enumerate(self._motors):
            if motor.type.make == 'DM' and self.errors[index] == DmError.ENABLED:
                self.errors[index] = int(DmError.DISABLED)

    def damiao_on(self) -> list[bool]:
        """Return of each Damiao motor whether it says that it is enabled."""
        return [self.errors[i] == DmError.ENABLED for i, motor in enumerate(self._motors)
                if motor.type.make == 'DM']

    def enabled(self, driving: bool) -> tuple[bool, ...]:
        """Return power per joint; an EC motor says nothing of it, so it has what we gave it."""
        return tuple(self.errors[i] == DmError.ENABLED if motor.type.make == 'DM' else driving
                     for i, motor in enumerate(self._motors))

    def missing(self) -> list[str]:
        """Name the motors that have not answered yet."""
        return [f'{name} (id {motor.can_id})' for name, motor, count
                in zip(self._names, self._motors, self.answers) if not count]

    def failed(self) -> set[int]:
        """Return the motors that report an error, by index; they gave up their torque."""
        return {i for i, (motor, error) in enumerate(zip(self._motors, self.errors))
                if (damiao if motor.type.make == 'DM' else encos).error_words(error) is not None}

    def device_errors(self) -> list[str]:
        """Return the errors that motors report, in words."""
        words = []
        for name, motor, error in zip(self._names, self._motors, self.errors):
            text = (damiao if motor.type.make == 'DM' else encos).error_words(error)
            if text is not None:
                words.append(f'{name}: {text}')
        return words

    def faults(self, now: NowNs) -> list[str]:
        """Return everything that must stop the arm, in words."""
        words = self.device_errors()
        hottest = self.heat.max(axis=1)
        for i, (name, motor) in enumerate(zip(self._names, self._motors)):
            since, heard = self._over[i], self._heard[i]
            if since is not None and now - since >= OVER_TORQUE_NS:
                words.append(f'{name}: {self.effort[i]:.1f} N·m, above its {motor.torque:g} N·m: '
                             'find what blocks the joint')
            if hottest[i] >= self._settings.hot:
                words.append(f'{name}: {hottest[i]:.0f} °C, at or above '
                             f'{self._settings.hot:g} °C: rest the arm and let it cool')
            if not self._low[i] <= self.position[i] <= self._high[i]:
                words.append(f'{name}: reads {self.position[i]:.3f}, far outside its range: '
                             + ('calibrate the gripper (gripper_open, gripper_width) and close it '
                                'before power-on' if i == _GRIPPER else 'check its zero mark'))
            # Silence of the whole arm is the age of the measurement; this is one motor's. When the
            # bus comes back within a round of answers, some motors are heard before others.
            if (self._last is not None and heard is not None
                    and self._last - max(heard, self._resumed) > _SILENT_NS):
                words.append(f'{name}: its motor (id {motor.can_id}) is silent while others '
                             'answer: check its cable')
        return words

    def _warm(self) -> tuple[str, ...]:
        return tuple(f'{name} is warm: {heat:.0f} °C' for name, heat
                     in zip(self._names, self.heat.max(axis=1))
                     if self._settings.warm <= heat < self._settings.hot)

    def _notes(self) -> tuple[str, ...]:
        return (f'{self.incomplete} sets of answers were not complete in time',) if (
            self.incomplete) else ()

    def measurement(self, now: NowNs, driving: bool, status: tuple[str, ...],
                    faults: tuple[str, ...], foreign: tuple[int, ...]) -> Measurement:
        """Build the measurement; a set must have been complete."""
        assert self._newest is not None and self.received is not None
        newest, earlier = self._newest, tuple(self._kept)[:-1]
        self._kept.clear()
        return Measurement(
            position=newest.position.copy(), velocity=newest.velocity.copy(),
            effort=newest.effort.copy(), stamp_ns=newest.stamp_ns, received=self.received,
            enabled=self.enabled(driving), status=(*status, *self._warm(), *self._notes()),
            faults=(*dict.fromkeys((*self.faults(now), *faults)),), foreign=foreign,
            earlier=earlier)
