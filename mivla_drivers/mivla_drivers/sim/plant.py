"""Motors and encoders of the simulated arm, as an emulated device sees them."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.arm_model import SimError, arm_model
from mivla_drivers.sim.disturbance import Disturbance, TargetNoise
from mivla_drivers.sim.scene import names

__all__ = ['PLANT_MODES', 'ArmPlant']

PLANT_MODES = ('position', 'damped_descent', 'off')


class ArmPlant:
    """
    Motors and encoders of the arm, as the emulated device sees them; profile order and units.

    Moves by torque-limited position servos only. A joint that is not enabled has no torque and no
    gravity compensation: it falls. ``damped_descent`` keeps the servo's damping and nothing else.
    """

    def __init__(self, profile: RobotProfile, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        self._arm = profile.arm_joints
        self._gripper = profile.gripper_index is not None
        count = len(profile.joints)
        joints = names(model, mujoco.mjtObj.mjOBJ_JOINT, profile.joint_names[: self._arm])
        self._qpos = model.jnt_qposadr[joints].copy()
        self._dof = model.jnt_dofadr[joints].copy()
        self._fingers_q = self._fingers_dof = np.zeros(0, dtype=int)
        if self._gripper:
            fingers = names(model, mujoco.mjtObj.mjOBJ_JOINT, ('finger_left', 'finger_right'))
            self._fingers_q = model.jnt_qposadr[fingers].copy()
            self._fingers_dof = model.jnt_dofadr[fingers].copy()
        self._gain = model.actuator_gainprm[:count].copy()
        self._bias = model.actuator_biasprm[:count].copy()
        self._lever = arm_model(profile.driver.backend).gripper.arm_m
        self._enabled = np.zeros(count, dtype=bool)
        self._noise: TargetNoise | None = None
        self._mode = 'position'
        self._falling = np.zeros(0, dtype=int)
        self._apply()

    @property
    def mode(self) -> str:
        """One of :data:`PLANT_MODES`."""
        return self._mode

    @property
    def enabled(self) -> np.ndarray:
        """Which motors are enabled (J,); a copy."""
        return self._enabled.copy()

    def position(self) -> np.ndarray:
        """Return measured positions (J,): rad; the gripper's total stroke in m."""
        arm = self._data.qpos[self._qpos]
        return np.append(arm, self._data.qpos[self._fingers_q].sum()) if self._gripper else arm

    def velocity(self) -> np.ndarray:
        """Return measured velocities (J,): rad/s, m/s."""
        arm = self._data.qvel[self._dof]
        return np.append(arm, self._data.qvel[self._fingers_dof].sum()) if self._gripper else arm

    def effort(self) -> np.ndarray:
        """Return motor torques (J,) [N m], gravity compensation included."""
        arm = self._data.qfrc_actuator[self._dof] + self._data.qfrc_applied[self._dof]
        if not self._gripper:
            return arm
        return np.append(arm, self._lever * self._data.actuator_force[self._arm])

    def set_target(self, target: np.ndarray) -> None:
        """
        Set the position targets (J,); enabled motors pull towards them, MuJoCo clips them to the
        limits.
        """
        self._data.ctrl[:] = target
        if self._noise is not None:
            self._data.ctrl[: self._arm] += self._noise.offset()

    def set_disturbance(self, noise: TargetNoise | None) -> None:
        """Add noise to the arm's targets from now on, or stop adding it."""
        self._noise = noise

    def noise(self, settings: Disturbance) -> TargetNoise:
        """Return noise of these settings for this arm, for :meth:`set_disturbance`."""
        return TargetNoise(settings, self._arm, self._model, self._data)

    def restart_disturbance(self, seed: int) -> None:
        """Begin the noise of an episode anew, if there is any."""
        if self._noise is not None:
            self._noise.restart(seed)

    def set_enabled(self, mask: Sequence[bool] | np.ndarray) -> None:
        """Switch motors on and off (J,); takes effect in ``position`` and ``damped_descent``."""
        wanted = np.asarray(mask, dtype=bool)
        if not np.array_equal(wanted, self._enabled):
            self._enabled[:] = wanted
            self._apply()

    def set_mode(self, mode: str) -> None:
        """
        Choose how enabled motors behave.

        :param mode: 'position' (servo), 'damped_descent' (sinks slowly, damping only) or 'off'
            (falls).
        :raises SimError: unknown mode.
        """
        if mode not in PLANT_MODES:
            raise SimError(f'unknown plant mode {mode!r}; known: {", ".join(PLANT_MODES)}')
        if mode != self._mode:
            self._mode = mode
            self._apply()

    def place(self, positions: np.ndarray) -> None:
        """
        Put the arm somewhere at rest with its targets there; only between runs, never while it
        moves.

        :raises SimError: ``positions`` is not (J,) or not finite.
        """
        positions = np.asarray(positions, dtype=float)
        if positions.shape != self._enabled.shape or not np.isfinite(positions).all():
            raise SimError(
                f'cannot place the arm at {positions}: need {self._enabled.size} finite numbers'
            )
        self._data.qpos[self._qpos] = positions[: self._arm]
        self._data.qpos[self._fingers_q] = positions[-1] / 2.0
        self._data.qvel[self._dof] = 0.0
        self._data.qvel[self._fingers_dof] = 0.0
        self._data.ctrl[:] = positions
        self._data.qfrc_applied[:] = 0.0

    def advance(self, count: int) -> None:
        """Run ``count`` physics steps."""
        if not self._falling.size:
            mujoco.mj_step(self._model, self._data, nstep=count)
            return
        for _ in range(count):
            # The compensation is part of the compiled bodies; motors without it get its opposite,
            # one step old, which 1 ms of motion makes no difference to.
            self._data.qfrc_applied[self._falling] = -self._data.qfrc_gravcomp[self._falling]
            mujoco.mj_step(self._model, self._data)

    def _apply(self) -> None:
        """Bring gains and gravity compensation in line with mode and mask."""
        servo = self._enabled & (self._mode == 'position')
        damped = self._enabled & (self._mode == 'damped_descent')
        self._model.actuator_gainprm[:] = np.where(servo[:, None], self._gain, 0.0)
        bias = np.where(servo[:, None], self._bias, 0.0)
        bias[damped, 2] = self._bias[damped, 2]
        self._model.actuator_biasprm[:] = bias
        self._falling = self._dof[~servo[: self._arm]]
        self._data.qfrc_applied[self._dof] = 0.0
