"""Motors and encoders of a simulated arm, as its emulated device sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.disturbance import Disturbance, TargetNoise
from mivla_drivers.sim.kinds import arm_body
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.scene import prefix

__all__ = ['PLANT_MODES', 'ArmPlant', 'MotorPlant', 'Plant', 'make_plant']

PLANT_MODES = ('position', 'damped_descent', 'off')


class Plant:
    """
    What all arms have in common: joints, fingers, sensors; arm's order and profile units.

    :param arm: which of the profile's arms; J below counts its joints and its gripper.
    """

    def __init__(self, profile: RobotProfile, arm: Arm, model: mujoco.MjModel,
                 data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        self._arm = len(arm.joints)
        self._count = len(arm.all_joints)
        self._gripper = arm.gripper is not None
        ahead = prefix(profile, arm)
        joints = names(model, mujoco.mjtObj.mjOBJ_JOINT, arm.joints)
        self._qpos = model.jnt_qposadr[joints].copy()
        self._dof = model.jnt_dofadr[joints].copy()
        self._actuators = names(model, mujoco.mjtObj.mjOBJ_ACTUATOR, arm.all_joints)
        self._fingers_q = self._fingers_dof = np.zeros(0, dtype=int)
        if self._gripper:
            fingers = names(model, mujoco.mjtObj.mjOBJ_JOINT,
                            (f'{ahead}finger_left', f'{ahead}finger_right'))
            self._fingers_q = model.jnt_qposadr[fingers].copy()
            self._fingers_dof = model.jnt_dofadr[fingers].copy()
        self._tip = f'{ahead}tip'
        self._noise: TargetNoise | None = None
        # How far the arm with its tip at (3,) is from spoiling the task [m]; the world sets it.
        self.room: Callable[[np.ndarray], float] = lambda tip: math.inf

    def position(self) -> np.ndarray:
        """Return measured positions (J,): rad; the gripper's total stroke in m."""
        arm = self._data.qpos[self._qpos]
        return np.append(arm, self._data.qpos[self._fingers_q].sum()) if self._gripper else arm

    def velocity(self) -> np.ndarray:
        """Return measured velocities (J,): rad/s, m/s."""
        arm = self._data.qvel[self._dof]
        return np.append(arm, self._data.qvel[self._fingers_dof].sum()) if self._gripper else arm

    def set_disturbance(self, noise: TargetNoise | None) -> None:
        """Add noise to the arm's targets from now on, or stop adding it."""
        self._noise = noise

    def noise(self, settings: Disturbance) -> TargetNoise:
        """Return noise of these settings for this arm, for :meth:`set_disturbance`."""
        return TargetNoise(settings, self._arm, self._model, self._data,
                           lambda tip: self.room(tip), self._tip)

    def restart_disturbance(self, seed: int) -> None:
        """Begin the noise of an episode anew, if there is any."""
        if self._noise is not None:
            self._noise.restart(seed)

    def place(self, positions: np.ndarray) -> None:
        """
        Put the arm somewhere at rest; only between runs, never while it moves.

        :raises SimError: ``positions`` is not (J,) or not finite.
        """
        positions = np.asarray(positions, dtype=float)
        if positions.shape != (self._count,) or not np.isfinite(positions).all():
            raise SimError(
                f'cannot place the arm at {positions}: need {self._count} finite numbers'
            )
        self._data.qpos[self._qpos] = positions[: self._arm]
        self._data.qpos[self._fingers_q] = positions[-1] / 2.0
        self._data.qvel[self._dof] = 0.0
        self._data.qvel[self._fingers_dof] = 0.0
        self._data.qfrc_applied[self._dof] = 0.0

    @property
    def stepwise(self) -> bool:
        """Whether :meth:`prepare` has to be called before every step of the physics."""
        return False

    def prepare(self) -> None:
        """Set what the next step of the physics needs."""


class ArmPlant(Plant):
    """
    An arm that moves by torque-limited position servos which carry its weight themselves.

    A joint that is not enabled has no torque and no gravity compensation: it falls.
    ``damped_descent`` keeps the servo's damping and nothing else.
    """

    def __init__(self, profile: RobotProfile, arm: Arm, model: mujoco.MjModel,
                 data: mujoco.MjData) -> None:
        super().__init__(profile, arm, model, data)
        self._gain = model.actuator_gainprm[self._actuators].copy()
        self._bias = model.actuator_biasprm[self._actuators].copy()
        self._lever = arm_body(profile, arm).gripper.arm_m
        self._enabled = np.zeros(self._count, dtype=bool)
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

    def effort(self) -> np.ndarray:
        """Return motor torques (J,) [N m], gravity compensation included."""
        arm = self._data.qfrc_actuator[self._dof] + self._data.qfrc_applied[self._dof]
        if not self._gripper:
            return arm
        return np.append(arm, self._lever * self._data.actuator_force[self._actuators[-1]])

    def set_target(self, target: np.ndarray) -> None:
        """
        Set the position targets (J,); enabled motors pull towards them, MuJoCo clips them to the
        limits.
        """
        self._data.ctrl[self._actuators] = target
        if self._noise is not None:
            self._data.ctrl[self._actuators[: self._arm]] += self._noise.offset()

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
        """Put the arm somewhere, with its targets there; see :meth:`Plant.place`."""
        super().place(positions)
        self._data.ctrl[self._actuators] = positions

    @property
    def stepwise(self) -> bool:
        """Whether a joint is without power and falls."""
        return self._falling.size > 0

    def prepare(self) -> None:
        """Take the gravity compensation from the joints without power."""
        # The compensation is part of the compiled bodies; motors without it get its opposite,
        # one step old, which 1 ms of motion makes no difference to.
        self._data.qfrc_applied[self._falling] = -self._data.qfrc_gravcomp[self._falling]

    def _apply(self) -> None:
        """Bring gains and gravity compensation in line with mode and mask."""
        servo = self._enabled & (self._mode == 'position')
        damped = self._enabled & (self._mode == 'damped_descent')
        self._model.actuator_gainprm[self._actuators] = np.where(servo[:, None], self._gain, 0.0)
        bias = np.where(servo[:, None], self._bias, 0.0)
        bias[damped, 2] = self._bias[damped, 2]
        self._model.actuator_biasprm[self._actuators] = bias
        self._falling = self._dof[~servo[: self._arm]]
        self._data.qfrc_applied[self._dof] = 0.0


class MotorPlant(Plant):
    """
    An arm whose device gives every motor a law: stiffness, damping, and a torque besides.

    The law holds from one command to the next and is evaluated in every step of the physics, as a
    motor's own controller does it many times faster than commands come. Angles here are the
    motors': rad, of the gripper's motor too. Nothing carries the arm but what is commanded.
    """

    def __init__(self, profile: RobotProfile, arm: Arm, model: mujoco.MjModel,
                 data: mujoco.MjData) -> None:
        super().__init__(profile, arm, model, data)
        self._gear = arm_body(profile, arm).gripper.gear
        self._laws: list[tuple[float, float, float]] = [(0.0, 0.0, 0.0)] * self._count

    def angle(self, index: int) -> float:
        """Return one motor's measured angle [rad]."""
        if index < self._arm:
            return float(self._data.qpos[self._qpos[index]])
        return self._gear * float(self._data.qpos[self._fingers_q].sum())

    def rate(self, index: int) -> float:
        """Return one motor's measured speed [rad/s]."""
        if index < self._arm:
            return float(self._data.qvel[self._dof[index]])
        return self._gear * float(self._data.qvel[self._fingers_dof].sum())

    def torque(self, index: int) -> float:
        """Return the torque [N m] that one motor exerted in the last step."""
        return float(self._data.actuator_force[self._actuators[index]])

    def effort(self) -> np.ndarray:
        """Return the motors' torques (J,) [N m]."""
        return self._data.actuator_force[self._actuators]

    def drive(self, index: int, stiffness: float, damping: float, torque: float) -> None:
        """
        Give one motor its law: torque - stiffness * angle - damping * rate, within its limit.

        :param stiffness: [N m/rad].
        :param damping: [N m s/rad].
        :param torque: of the motor at angle and rate zero [N m].
        """
        self._laws[index] = (torque, -stiffness, -damping)
        row = self._model.actuator_biasprm[self._actuators[index]]
        row[0], row[1], row[2] = torque, -stiffness, -damping

    @property
    def stepwise(self) -> bool:
        """Whether noise moves the targets."""
        return self._noise is not None

    def prepare(self) -> None:
        """Move the targets of the motors that hold some by the noise."""
        if self._noise is None:
            return
        for index, offset in enumerate(self._noise.offset()):
            torque, stiffness, _ = self._laws[index]
            self._model.actuator_biasprm[self._actuators[index], 0] = torque - stiffness * offset


def make_plant(profile: RobotProfile, arm: Arm, model: mujoco.MjModel,
               data: mujoco.MjData) -> ArmPlant | MotorPlant:
    """Return the plant of one arm of a scene, of the kind that its body has."""
    kind = ArmPlant if arm_body(profile, arm).actuation == 'servo' else MotorPlant
    return kind(profile, arm, model, data)
