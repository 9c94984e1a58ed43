"""
Torques that hold an ARX-5 against gravity, by MuJoCo's inverse dynamics.

Only mass times centre of mass of each link matters at rest, so that is all the table holds; the
rotational inertias below are placeholders that a static pose does not feel.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from mivla_core.kinematics import rotation
from mivla_core.robot_parts import BodyKinematics
from mivla_drivers.errors import DriverError

__all__ = ['GravityModel']

_ANY_INERTIA = 1e-4     # kg·m²


class GravityModel:
    """
    Gravity torques of a chain of bodies.

    :param links: per body its mass [kg] and centre of mass x, y, z [m] in the body's frame, the
        gripper and what it carries included in the last one.
    :param gravity: in the robot's base frame [m/s²]; not straight down where that is tilted.
    :param rpy: how the arm's base is turned in the robot's base frame [rad].
    :raises DriverError: the table does not fit the chain.
    """

    def __init__(self, kinematics: BodyKinematics, links: Sequence[Sequence[float]],
                 gravity: Sequence[float] = (0.0, 0.0, -9.81),
                 rpy: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
        if len(links) != kinematics.size or len(gravity) != 3 or any(
                len(row) != 4 or not np.isfinite(row).all() or row[0] <= 0.0 for row in links):
            raise DriverError(f'driver.parameters.links needs {kinematics.size} rows of mass [kg] '
                              'and centre of mass x, y, z [m]; gravity three numbers')
        spec = mujoco.MjSpec()
        spec.option.gravity = (rotation(*rpy).T @ np.array(gravity, dtype=float)).tolist()
        body = spec.worldbody
        for row, (mass, *centre) in zip(kinematics.bodies, links):
            body = body.add_body(pos=row.origin, quat=_quaternion(row.rpy), mass=mass,
                                 ipos=centre, inertia=[_ANY_INERTIA] * 3, explicitinertial=True)
            body.add_joint(type=mujoco.mjtJoint.mjJNT_HINGE, axis=row.axis)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._torque = np.zeros(kinematics.size)

    def torque(self, q: np.ndarray) -> np.ndarray:
        """Return the torques (J,) [N·m] that balance gravity at the angles ``q`` (>= J,) [rad]."""
        data = self._data
        data.qpos[:] = q[:len(data.qpos)]
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_comPos(self._model, data)
        mujoco.mj_comVel(self._model, data)
        mujoco.mj_rne(self._model, data, 0, self._torque)
        return self._torque.copy()


def _quaternion(rpy: Sequence[float]) -> np.ndarray:
    quat = np.zeros(4)
    # MuJoCo's lower case is intrinsic; z, then y, then x is URDF's Rz Ry Rx.
    mujoco.mju_euler2Quat(quat, np.array([rpy[2], rpy[1], rpy[0]]), 'zyx')
    return quat
