"""
Forward kinematics of a serial arm from its modified-DH rows or its chain of bodies.

Frames are right-handed, lengths in metres, angles in radians; the base frame is the robot's
``base_link``. Joint k turns about an axis of frame k (k = 1 .. J): with modified DH its z axis,
with bodies the one that stands in the profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Union

import numpy as np

from mivla_core.robot_parts import BodyKinematics, MdhKinematics

__all__ = ['Chain', 'rotation']


def rotation(roll: float, pitch: float, yaw: float) -> np.ndarray:
    """Return the matrix (3, 3) of Rz(yaw) Ry(pitch) Rx(roll), URDF's rpy."""
    cr, sr = math.cos(roll), math.sin(roll)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    return np.array([[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                     [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                     [-sp, cp * sr, cp * cr]])


class Chain:
    """
    A serial chain of revolute joints.

    Only the arm joints are read: a longer vector (with a gripper) is accepted and cut.
    """

    def __init__(self, kinematics: Union[MdhKinematics, BodyKinematics]) -> None:
        self.joints = kinematics.size
        self._tip = np.eye(4)
        self._tip[:3, 3] = kinematics.tip
        self._step: Callable[[int, float, np.ndarray], None]
        if isinstance(kinematics, MdhKinematics):
            self._step = self._mdh_rows(kinematics)
            self._axes = np.tile((0.0, 0.0, 1.0), (self.joints, 1))
        else:
            self._step = self._body_rows(kinematics)
            self._axes = np.array([body.axis for body in kinematics.bodies])

    @staticmethod
    def _mdh_rows(kinematics: MdhKinematics) -> Callable[[int, float, np.ndarray], None]:
        """Return what writes joint k's transform at an angle into a (4, 4)."""
        # Rx(alpha) Tx(a) is constant; only Rz(theta + offset) Tz(d) follows the joint.
        rows = [(math.cos(row.alpha), math.sin(row.alpha), row.a, row.d, row.offset)
                for row in kinematics.rows]

        def step(k: int, q: float, local: np.ndarray) -> None:
            ca, sa, a, d, offset = rows[k]
            angle = q + offset
            c, s = math.cos(angle), math.sin(angle)
            local[0] = (c, -s, 0.0, a)
            local[1] = (s * ca, c * ca, -sa, -sa * d)
            local[2] = (s * sa, c * sa, ca, ca * d)

        return step

    @staticmethod
    def _body_rows(kinematics: BodyKinematics) -> Callable[[int, float, np.ndarray], None]:
        """Return what writes joint k's transform at an angle into a (4, 4)."""
        rows = []
        for body in kinematics.bodies:
            # Rodrigues: R(axis, q) = 1 + sin(q) K + (1 - cos(q)) K K, K the axis' cross product.
            x, y, z = body.axis
            cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
            fixed = rotation(*body.rpy)
            rows.append((fixed, fixed @ cross, fixed @ cross @ cross, body.origin))

        def step(k: int, q: float, local: np.ndarray) -> None:
            fixed, first, second, origin = rows[k]
            local[:3, :3] = fixed + math.sin(q) * first + (1.0 - math.cos(q)) * second
            local[:3, 3] = origin

        return step

    def frames(self, q: np.ndarray) -> np.ndarray:
        """
        Return the poses of the base frame and of every joint frame.

        :param q: joint angles (>= J,) [rad].
        :returns: (J + 1, 4, 4); row 0 is the identity, row J the flange.
        """
        out = np.empty((self.joints + 1, 4, 4))
        out[0] = np.eye(4)
        local = np.zeros((4, 4))
        local[3, 3] = 1.0
        for k in range(self.joints):
            self._step(k, float(q[k]), local)
            out[k + 1] = out[k] @ local
        return out

    def tip(self, q: np.ndarray) -> np.ndarray:
        """Return the pose (4, 4) of the tool tip in the base frame."""
        return self.frames(q)[-1] @ self._tip

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """
        Return the geometric Jacobian (6, J) of the tool tip in the base frame.

        Rows 0..2: linear velocity [m/rad], rows 3..5: angular velocity [rad/rad].
        """
        frames = self.frames(q)
        point = (frames[-1] @ self._tip)[:3, 3]
        axes = np.einsum('kij,kj->ki', frames[1:, :3, :3], self._axes)
        origins = frames[1:, :3, 3]
        return np.vstack([np.cross(axes, point - origins).T, axes.T])
