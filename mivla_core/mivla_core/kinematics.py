"""
Forward kinematics of a serial arm from its modified-DH rows.

Frames are right-handed, lengths in metres, angles in radians; the base frame is the robot's
``base_link``. Joint k turns about the local z axis of frame k (k = 1 .. J).
"""

from __future__ import annotations

import math

import numpy as np

from mivla_core.profile import Kinematics

__all__ = ['Chain']


class Chain:
    """
    A serial chain of revolute joints.

    Only the arm joints are read: a longer vector (with a gripper) is accepted and cut.
    """

    def __init__(self, kinematics: Kinematics) -> None:
        self.joints = len(kinematics.rows)
        self._offset = np.array([row.offset for row in kinematics.rows])
        # Rx(alpha) Tx(a) is constant; only Rz(theta + offset) Tz(d) follows the joint.
        self._fixed = []
        for row in kinematics.rows:
            ca, sa = math.cos(row.alpha), math.sin(row.alpha)
            self._fixed.append((ca, sa, row.a, row.d))
        self._tip = np.eye(4)
        self._tip[:3, 3] = kinematics.tip

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
            ca, sa, a, d = self._fixed[k]
            angle = float(q[k]) + self._offset[k]
            c, s = math.cos(angle), math.sin(angle)
            local[0] = (c, -s, 0.0, a)
            local[1] = (s * ca, c * ca, -sa, -sa * d)
            local[2] = (s * sa, c * sa, ca, ca * d)
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
        axes = frames[1:, :3, 2]
        origins = frames[1:, :3, 3]
        return np.vstack([np.cross(axes, point - origins).T, axes.T])
