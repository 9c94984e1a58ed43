"""
The forbidden space of a robot whose profile gives its chain as bodies.

The same proof as ``Envelope``; only the walk along the chain differs. Each body frame is turned
once so that its joint's axis is z, which leaves one turn per joint to be computed per pose.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, dist, hypot, inf, sin

import numpy as np

from mivla_core.kinematics import rotation
from mivla_core.robot_parts import Arm, BodyKinematics, Workspace
from mivla_drivers.core.envelope import Envelope, Unsafe

__all__ = ['BodyEnvelope']


class BodyEnvelope(Envelope):
    """``Envelope`` over a chain of bodies."""

    def __init__(self, arm: Arm, workspace: Workspace) -> None:
        kinematics = arm.kinematics
        assert isinstance(kinematics, BodyKinematics)
        self._bodies = []
        before = np.eye(3)      # the parent's frame, turned, in the parent's frame
        for k, body in enumerate(kinematics.bodies):
            turned = _turn(np.array(body.axis))
            fixed = before.T @ rotation(*body.rpy) @ turned
            origin = before.T @ np.array(body.origin)
            points = tuple((i, *(turned.T @ np.array(p.offset)).tolist(), p.radius)
                           for i, p in enumerate(workspace.points) if p.frame == k + 1)
            self._bodies.append((*origin.tolist(), *fixed.T.ravel().tolist(), points))
            before = turned
        self._surround(arm, workspace, [hypot(*body.origin) for body in kinematics.bodies])

    def clearance(self, position: Sequence[float]) -> float:
        """Return the least distance [m] to anything forbidden; see ``Envelope.clearance``."""
        xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz = self.start
        low_x, low_y, low_z = self._low
        high_x, high_y, high_z = self._high
        mid_x, mid_y, mid_z = low_x + high_x, low_y + high_y, low_z + high_z
        table = box = inf
        centres = self.centres = list(self._fixed)
        for (tx, ty, tz, ax, ay, az, bx, by, bz, cx, cy, cz, points), angle in zip(
                self._bodies, position):
            c, s = cos(angle), sin(angle)
            px += tx * xx + ty * yx + tz * zx
            py += tx * xy + ty * yy + tz * zy
            pz += tx * xz + ty * yz + tz * zz
            # The columns of R F, then of R F Rz(angle).
            ux, uy, uz = (ax * xx + ay * yx + az * zx, ax * xy + ay * yy + az * zy,
                          ax * xz + ay * yz + az * zz)
            vx, vy, vz = (bx * xx + by * yx + bz * zx, bx * xy + by * yy + bz * zy,
                          bx * xz + by * yz + bz * zz)
            zx, zy, zz = (cx * xx + cy * yx + cz * zx, cx * xy + cy * yy + cz * zy,
                          cx * xz + cy * yz + cz * zz)
            xx, xy, xz = c * ux + s * vx, c * uy + s * vy, c * uz + s * vz
            yx, yy, yz = c * vx - s * ux, c * vy - s * uy, c * vz - s * uz
            for index, ox, oy, oz, radius in points:
                x = px + ox * xx + oy * yx + oz * zx
                y = py + ox * xy + oy * yy + oz * zy
                z = pz + ox * xz + oy * yz + oz * zz
                centres[index] = (x, y, z)
                if z - radius < table:
                    table = z - radius
                # Comparisons, because a call of min() costs more than all of this.
                side = x - low_x if x + x < mid_x else high_x - x
                other = y - low_y if y + y < mid_y else high_y - y
                side = other if other < side else side
                other = z - low_z if z + z < mid_z else high_z - z
                side = (other if other < side else side) - radius
                if side < box:
                    box = side
        least, self.what = table - self._table, Unsafe.BELOW_TABLE
        if box < least:
            least, self.what = box, Unsafe.OUTSIDE_BOX
        for i, j, apart in self._pairs:
            gap = dist(centres[i], centres[j]) - apart
            if gap < least:
                least, self.what = gap, Unsafe.SELF_COLLISION
        return least


def _turn(axis: np.ndarray) -> np.ndarray:
    """Return a rotation (3, 3) that takes z to ``axis``."""
    other = np.eye(3)[int(np.argmin(np.abs(axis)))]
    first = np.cross(other, axis)
    first /= np.linalg.norm(first)
    return np.column_stack([first, np.cross(axis, first), axis])
