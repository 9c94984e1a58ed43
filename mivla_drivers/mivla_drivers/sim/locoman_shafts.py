"""The mechanics of LocoMan's eight servos, as the emulated bus sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np

from mivla_drivers.core.locoman_servos import to_real, to_real_velocity, to_sim
from mivla_drivers.sim.locoman_model import SERVO_JOINTS

__all__ = ['LocomanServos', 'SERVO_STIFFNESS', 'SERVO_TORQUE']

SERVO_STIFFNESS = 6.0           # N m/rad: P gain 8 x 128 and the full 1.0 N m at 885 counts of PWM
SERVO_TORQUE = 1.0 / 0.88       # N m/A: stall torque over stall current
_SERVO_IDLE = 0.02              # A that a servo takes when it does nothing
_NO_TURNS = np.zeros(8)


class LocomanServos:
    """The eight servos' mechanics behind the emulated bus: a ``ServoPlant``."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        joints = [model.joint(name) for name in SERVO_JOINTS]
        self._q = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._act = np.arange(12, 20)
        self._powered = True
        self._aside = np.zeros(8)       # by which the shafts miss their targets [rad]
        self._targets: tuple[np.ndarray, np.ndarray] = (np.full(8, math.nan), np.zeros(8))

    def position(self) -> np.ndarray:
        """Shaft angles (8,) [rad], not folded."""
        return to_real(self.angles(), _NO_TURNS)

    def velocity(self) -> np.ndarray:
        """Shaft velocities (8,) [rad/s]."""
        return to_real_velocity(self._data.qvel[self._dof])

    def current(self) -> np.ndarray:
        """Supply currents (8,) [A], with the sign of the torque."""
        torque = self._data.actuator_force[self._act]
        return to_real_velocity(torque) / SERVO_TORQUE + _SERVO_IDLE * np.isfinite(
            self._targets[0])

    def set_targets(self, position: np.ndarray, current: np.ndarray) -> None:
        """Take targets (8,) [rad], NaN where the shaft is free, and current limits (8,) [A]."""
        old = self._targets
        if np.array_equal(position, old[0], equal_nan=True) and np.array_equal(current, old[1]):
            return
        self._targets = (np.array(position, float), np.array(current, float))
        self._apply()

    def disturb(self, offset: np.ndarray) -> None:
        """Let the right arm's joints (3,) miss their targets by so much, in the model's sense."""
        self._aside[:3] = offset
        self._apply()

    def angles(self) -> np.ndarray:
        """Return the joints' angles (8,) in the model's convention [rad]."""
        return self._data.qpos[self._q]

    def set_power(self, on: bool) -> None:
        """Give the bus its supply, or take it."""
        self._powered = on
        self._apply()

    def place(self, angles: Sequence[float]) -> None:
        """Put the joints (8,) somewhere, at rest, in the model's convention."""
        self._data.qpos[self._q] = angles
        self._data.qvel[self._dof] = 0.0

    def _apply(self) -> None:
        position, current = self._targets
        driven = np.isfinite(position) & self._powered
        stiffness = np.where(driven, SERVO_STIFFNESS, 0.0)
        limit = np.maximum(np.abs(current) * SERVO_TORQUE, 1e-6)
        target = to_sim(np.where(driven, position, 0.0), _NO_TURNS) + self._aside
        self._data.ctrl[self._act] = stiffness * target
        self._model.actuator_biasprm[self._act, 1] = -stiffness
        self._model.actuator_forcerange[self._act, 0] = -limit
        self._model.actuator_forcerange[self._act, 1] = limit
