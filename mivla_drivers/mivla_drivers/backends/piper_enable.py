"""The enabling sequence of a PiPER, one step per control tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

import numpy as np

from mivla_core.timing import NowNs, to_ns
from mivla_drivers.backends.piper_state import PiperState
from mivla_drivers.codec import piper as codec
from mivla_drivers.core.piper_units import JOINTS
from mivla_drivers.errors import DriverError

__all__ = ['EnableSequence', 'refuse_state']

RETRY_NS = to_ns(0.1)
TIMEOUT_NS = to_ns(10.0)
# Confirmation needs frames sent after the sequence began: the first may have been under way.
_FRESH = 2
_CLEAR_AFTER = 5        # tries of the gripper before its errors are cleared


def refuse_state(status: codec.ArmStatus) -> None:
    """
    Raise DriverError when the arm is in a state that must not be left by enabling it.

    Forcing CAN mode on an arm in teaching makes some firmware jump to its zero pose.
    """
    if status.arm_state == codec.ArmState.EMERGENCY_STOP:
        raise DriverError('the arm\'s emergency stop is latched: support the arm, reset it (it '
                          'falls), then enable it')
    if status.ctrl_mode not in (codec.CtrlMode.STANDBY, codec.CtrlMode.CAN):
        words = codec.control_words(status.ctrl_mode, status.arm_state, status.move_mode, 0)[0]
        raise DriverError(f'the arm is not under CAN control ({words}): leave teaching or leader '
                          'mode at the arm; if it stays there, support the arm and reset it (it '
                          'falls)')


class EnableSequence:
    """
    Joints 1 to 6 one by one, each confirmed by its driver; then CAN control with the measured
    positions as targets, and the gripper; then confirmation of mode and gripper.

    :param state: feedback, kept up to date by the caller.
    :param targets: builds the target frames of a position (J,).
    :param gripper: builds the gripper frame of (stroke, action), or None without a gripper.
    """

    def __init__(self, state: PiperState, now: NowNs, speed_percent: int,
                 targets: Callable[[np.ndarray], list[Any]],
                 gripper: Optional[Callable[[float, int], Any]]) -> None:
        self._state = state
        self._started = now
        self._speed = speed_percent
        self._targets = targets
        self._gripper = gripper
        self._slow_from = list(state.slow_count)
        self._status_from = state.status_count
        self._grip_from = state.grip_count
        self._stage = -1            # joint under way; JOINTS: mode and gripper
        self._sent: Optional[NowNs] = None
        self._tries = 0
        self.hold = state.position()    # (J,); a joint's entry freezes when its power is confirmed

    def _joint_on(self, index: int) -> bool:
        fresh = self._state.slow_count[index] >= self._slow_from[index] + _FRESH
        return fresh and self._state.power[index] is True

    def _mode_on(self) -> bool:
        status = self._state.status
        return (status is not None and self._state.status_count >= self._status_from + _FRESH
                and status.ctrl_mode == codec.CtrlMode.CAN
                and status.move_mode == codec.MoveMode.JOINT)

    def _gripper_on(self) -> bool:
        grip = self._state.grip
        return self._gripper is None or (
            grip is not None and self._state.grip_count >= self._grip_from + _FRESH
            and bool(grip.status & codec.DRIVER_ENABLED))

    def step(self, now: NowNs) -> tuple[bool, list[Any]]:
        """
        Return (done, frames to send now).

        :raises DriverError: the arm refuses, or 10 s are over; says what is not confirmed.
        """
        if self._state.status is not None:
            refuse_state(self._state.status)
        measured = self._state.position()
        on = [self._joint_on(index) for index in range(JOINTS)]
        stage = on.index(False) if False in on else JOINTS
        for index, confirmed in enumerate(on):
            if not confirmed:
                self.hold[index] = measured[index]
        if self._gripper is not None and not self._gripper_on():
            self.hold[JOINTS] = measured[JOINTS]
        if stage == JOINTS and self._stage == JOINTS and self._mode_on() and self._gripper_on():
            return True, []
        if now - self._started > TIMEOUT_NS:
            raise DriverError('enabling was not confirmed within 10 s: '
                              + ', '.join(self._unconfirmed(on))
                              + '; read the arm\'s state and faults, then reset it (it falls) or '
                              'power-cycle it')
        if stage == self._stage and self._sent is not None and now - self._sent < RETRY_NS:
            return False, []
        self._tries = self._tries + 1 if stage == self._stage else 0
        self._stage, self._sent = stage, now
        return False, self._frames(stage)

    def _frames(self, stage: int) -> list[Any]:
        status = self._state.status
        if stage < JOINTS:
            frames: list[Any] = [codec.MotorPower(stage + 1, True)]
            if status is not None and status.ctrl_mode == codec.CtrlMode.CAN:
                # Already listening to targets: an old one must not be waiting for the power.
                frames = [*self._targets(self.hold), *frames]
            return frames
        frames = [codec.ModeCommand(codec.CtrlMode.CAN, codec.MoveMode.JOINT, self._speed),
                  *self._targets(self.hold)]
        if self._gripper is not None:
            stroke = float(self.hold[JOINTS])
            if self._tries >= _CLEAR_AFTER and self._tries % 2 and not self._gripper_on():
                frames.append(self._gripper(stroke, codec.GripperAction.DISABLE_CLEAR))
            else:
                frames.append(self._gripper(stroke, codec.GripperAction.ENABLE))
        return frames

    def _unconfirmed(self, on: list[bool]) -> list[str]:
        names = [f'joint{index + 1} has no power' for index, state in enumerate(on) if not state]
        if not names and not self._mode_on():
            status = self._state.status
            names.append('the arm stays in ' + (codec.control_words(
                status.ctrl_mode, status.arm_state, status.move_mode, 0)[0] if status else '?'))
        if not names and not self._gripper_on():
            names.append('the gripper has no power')
        return names
