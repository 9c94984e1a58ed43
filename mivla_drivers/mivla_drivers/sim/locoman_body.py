"""
The mechanics of LocoMan as its emulated devices see them: leg motors, servos, IMU, foot forces.

Nothing holds the robot: it stands on its feet or falls. The leg motors' law
``tau = kp (q* - q) + kd (dq* - dq) + tau_ff`` is part of the compiled model, so it is evaluated at
every physics step with what the last command set, as the Go1's motor boards do between commands.
Owned by one thread; no clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from mivla_drivers.codec.go1_frames import NO_POSITION, NO_VELOCITY
from mivla_drivers.codec.go1_words import MotorMode
from mivla_drivers.core.locoman_kinematics import FOOT_RADIUS
from mivla_drivers.core.locoman_postures import BASE, NOMINAL, NOMINAL_FEET, REST, support_angles
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.locoman_model import LEG_JOINTS, SERVO_JOINTS, TIMESTEP
from mivla_drivers.sim.locoman_scene import TASK
from mivla_drivers.sim.locoman_scene import model as scene_model
from mivla_drivers.sim.locoman_shafts import LocomanServos

__all__ = ['DAMPING', 'LocomanPlant', 'PlantState', 'TIMESTEP', 'Truth', 'Variation']

DAMPING = 3.0                   # N m s/rad of a motor that is not driven; chosen
_FOOT_SENSOR, _CARRIES = 10, 5.0     # of the right front leg [N]
_FALLEN_TILT = math.radians(60.0)
# Standard deviations of plausible sensors, at ``Variation.noise`` 1.
_NOISE = {'position': 0.0005, 'velocity': 0.05, 'gyro': 0.01, 'acceleration': 0.1,
          'tilt': 0.003, 'foot': 2.0}


@dataclass(frozen=True)
class Variation:
    """
    By how much this robot and floor differ from the table.

    :param friction: between feet and floor.
    :param trunk_mass: added to the trunk [kg], at ``trunk_shift`` from its origin [m].
    :param noise: scale of the sensors' noise; 0: exact, 1: plausible.
    """

    friction: float = 0.8
    trunk_mass: float = 0.0
    trunk_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PlantState:
    """
    What the robot's sensors say; motors (12,), feet (4,) FR FL RR RL.

    ``acceleration_imu`` [m/s^2] is the specific force: g upwards at rest. ``torque`` [N m].
    """

    time: float
    position: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    torque: np.ndarray
    quaternion: np.ndarray
    gyro: np.ndarray
    acceleration_imu: np.ndarray
    rpy: np.ndarray
    foot_force: np.ndarray


@dataclass(frozen=True, slots=True)
class Truth:
    """
    What only a simulation knows.

    ``position`` (3,) of the trunk in the world [m]; ``velocity`` (3,) in axes turned by its yaw
    [m/s]; ``height`` of the trunk's origin above the floor; ``fallen``: something else than
    the feet is on the floor, or the trunk is tilted by more than 60 degrees.
    """

    position: np.ndarray
    rpy: np.ndarray
    velocity: np.ndarray
    yaw_rate: float
    height: float
    fallen: bool


class LocomanPlant:
    """
    LocoMan on a floor.

    :param variation: friction, load and sensors of this one.
    :param start: 'stance', on straight feet, or 'lying', on folded legs.
    :param task: whose scene it stands in; see ``locoman_scene``.
    :ivar robot_size: so many positions of ``data.qpos`` are the robot's; those of things follow.
    """

    def __init__(self, *, variation: Variation = Variation(),
                 start: Literal['stance', 'lying'] = 'stance', task: str = TASK) -> None:
        self.model = scene_model(task)
        self.data = mujoco.MjData(self.model)
        self._random = np.random.default_rng(variation.seed)
        self._noise = variation.noise
        joints = [self.model.joint(name) for name in LEG_JOINTS]
        self._q = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._act = np.arange(12)
        self._trunk = self.model.body('trunk').id
        self._feet = frozenset(self.model.geom(f'{leg}_foot').id
                               for leg in ('FR', 'FL', 'RR', 'RL'))
        self._floor = self.model.geom('floor').id
        self.robot_size = 7 + len(LEG_JOINTS) + len(SERVO_JOINTS)
        # What may lie on the floor without the robot having fallen.
        self._upright = self._feet | set(np.flatnonzero(
            self.model.body_rootid[self.model.geom_bodyid] != self._trunk).tolist()
            ) - {self._floor}
        self.servos = LocomanServos(self.model, self.data)
        self._vary(variation)
        base = NOMINAL if start == 'stance' else REST
        legs = [q for angles in support_angles(base[BASE], NOMINAL_FEET) for q in angles]
        self.place(legs, (*base[3:7], *base[10:14]))
        self._power = True
        self._aside = np.zeros(12)      # by which the motors miss their targets [rad]
        self.set_motors([0] * 12, *([0.0] * 12 for _ in range(5)))

    def place(self, legs: Sequence[float], servos: Sequence[float], *,
              position: tuple[float, float] = (0.0, 0.0), yaw: float = 0.0,
              drop: float = 0.0) -> None:
        """
        Put the robot level on its lowest foot, at rest; only between runs.

        :param legs: joints (12,) [rad].
        :param servos: joints (8,) of the model [rad].
        :param drop: height above the floor at which it is let go [m].
        """
        if len(legs) != 12 or len(servos) != 8:
            raise SimError(f'cannot place LocoMan with {len(legs)} leg joints and {len(servos)} '
                           'servos; give 12 and 8')
        self.data.qpos[self._q] = legs
        self.servos.place(servos)
        self.data.qvel[:] = 0.0
        self.data.qpos[:3] = (*position, 0.0)
        self.data.qpos[3:7] = (math.cos(yaw / 2.0), 0.0, 0.0, math.sin(yaw / 2.0))
        mujoco.mj_kinematics(self.model, self.data)
        lowest = min(self.data.geom_xpos[foot][2] for foot in self._feet)
        self.data.qpos[2] = FOOT_RADIUS + drop - lowest
        mujoco.mj_forward(self.model, self.data)

    def set_motors(self, mode: Sequence[int], position: Sequence[float],
                   velocity: Sequence[float], torque: Sequence[float], kp: Sequence[float],
                   kd: Sequence[float]) -> None:
        """
        Command the twelve leg motors (FR FL RR RL; hip, thigh, calf); held until the next.

        :param mode: MotorMode.SERVO drives; any other mode only damps.
        :param position: [rad]; NO_POSITION switches the term off, as NO_VELOCITY does.
        """
        servo = np.asarray(mode) == MotorMode.SERVO
        q, dq = np.asarray(position, float), np.asarray(velocity, float)
        stiff = np.where(servo & (np.abs(q) < 0.5 * NO_POSITION), kp, 0.0)
        damp = np.where(servo, np.where(np.abs(dq) < 0.5 * NO_VELOCITY, kd, 0.0), DAMPING)
        self._command = (stiff, damp, np.where(servo, stiff * np.where(stiff > 0.0, q, 0.0)
                         + damp * np.where(damp > 0.0, dq, 0.0) + np.asarray(torque, float), 0.0))
        self._apply()

    def disturb(self, offset: np.ndarray) -> None:
        """
        Let the motors of the right leg and arm (6,) miss their targets by so much [rad].

        While the leg stands only the arm does: a leg that carries would push the robot over.
        """
        lifted = float(self.data.sensordata[_FOOT_SENSOR]) < _CARRIES
        self._aside[:3] = offset[:3] if lifted else 0.0
        self.servos.disturb(offset[3:])
        self._apply()

    def set_power(self, on: bool) -> None:
        """Switch the battery: off, neither legs nor servos have any torque, not even damping."""
        self._power = on
        self.servos.set_power(on)
        if on:
            self.set_motors([0] * 12, *([0.0] * 12 for _ in range(5)))
        self._apply()

    def advance(self, count: int) -> None:
        """Run physics steps of ``TIMESTEP``."""
        mujoco.mj_step(self.model, self.data, nstep=count)

    def push(self, force: Sequence[float], torque: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        """Push the trunk with a force [N] and torque [N m] in the world's axes, until changed."""
        self.data.xfrc_applied[self._trunk] = (*force, *torque)

    def state(self) -> PlantState:
        """Return what the sensors say of the last step."""
        data = self.data
        sensors = data.sensordata
        quaternion, gyro = sensors[0:4].copy(), sensors[4:7].copy()
        acceleration, foot = sensors[7:10].copy(), sensors[10:14].copy()
        position, velocity = data.qpos[self._q], data.qvel[self._dof]
        if self._noise > 0.0:
            draw = self._random.standard_normal(37) * self._noise
            position = position + _NOISE['position'] * draw[:12]
            velocity = velocity + _NOISE['velocity'] * draw[12:24]
            gyro += _NOISE['gyro'] * draw[24:27]
            acceleration += _NOISE['acceleration'] * draw[27:30]
            foot = np.maximum(0.0, foot + _NOISE['foot'] * draw[30:34])
            quaternion[1:] += 0.5 * _NOISE['tilt'] * draw[34:37]
            quaternion /= math.sqrt(float(quaternion @ quaternion))
        return PlantState(float(data.time), position, velocity, data.qacc[self._dof],
                          data.actuator_force[self._act].copy(), quaternion, gyro, acceleration,
                          _rpy(*quaternion.tolist()), foot)

    def truth(self) -> Truth:
        """Return the trunk's pose and motion, and whether the robot has fallen."""
        data = self.data
        rpy = _rpy(*data.qpos[3:7].tolist())
        c, s = math.cos(rpy[2]), math.sin(rpy[2])
        vx, vy, vz = data.qvel[:3].tolist()
        up = data.xmat[self._trunk][8]
        fallen = math.acos(min(1.0, max(-1.0, float(up)))) > _FALLEN_TILT or any(
            self._floor in pair and not self._upright.intersection(pair)
            for pair in data.contact.geom.tolist())
        turn = data.xmat[self._trunk].reshape(3, 3) @ data.qvel[3:6]
        return Truth(data.qpos[:3].copy(), rpy, np.array((c * vx + s * vy, c * vy - s * vx, vz)),
                     float(turn[2]), float(data.qpos[2]), fallen)

    def _vary(self, variation: Variation) -> None:
        for foot in self._feet:
            self.model.geom_friction[foot][0] = variation.friction
        extra = variation.trunk_mass
        if extra:
            old = self.model.body_mass[self._trunk]
            at = self.model.body_ipos[self._trunk]
            self.model.body_ipos[self._trunk] = (
                old * at + extra * np.asarray(variation.trunk_shift)) / (old + extra)
            self.model.body_mass[self._trunk] = old + extra
            self.model.body_inertia[self._trunk] *= (old + extra) / old
            mujoco.mj_setConst(self.model, self.data)

    def _apply(self) -> None:
        stiff, damp, drive = self._command
        on = 1.0 if self._power else 0.0
        drive = drive + stiff * self._aside
        self.model.actuator_biasprm[self._act, 1] = -on * stiff
        self.model.actuator_biasprm[self._act, 2] = -on * damp
        self.data.ctrl[self._act] = on * drive


def _rpy(w: float, x: float, y: float, z: float) -> np.ndarray:
    return np.array((math.atan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y)),
                     math.asin(min(1.0, max(-1.0, 2.0 * (w * y - z * x)))),
                     math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))))
