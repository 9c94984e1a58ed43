"""
Where an arm may be: above the table, inside the workspace box, clear of itself.

The arm is a set of spheres fixed to the frames of its chain. ``clearance`` is the least distance
of any of them to anything forbidden; ``blocked`` proves a whole braking trajectory by conservative
advancement: from a pose with clearance c, nothing can be touched before some point of the arm has
travelled c, and the speed of every point is bounded by the joint speeds times their reach.

Forward kinematics is written out in floats: an order of magnitude faster than with NumPy, at
several poses per control tick. A test compares it with ``mivla_core.kinematics.Chain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import cos, dist, hypot, inf, sin

import numpy as np

from mivla_core.kinematics import rotation
from mivla_core.robot_parts import Arm, MdhKinematics, Workspace

__all__ = ['Envelope', 'Frame', 'Unsafe', 'followed', 'placed']

# A pose in floats: the columns of its rotation, then its origin [m].
Frame = tuple[float, float, float, float, float, float, float, float, float, float, float, float]

# Smallest advance of a proof [m]. Half of it is kept as a margin, so that nothing lies between
# two samples; it also bounds the work near a surface.
RESOLUTION = 0.003
MARGIN = RESOLUTION / 2.0
MAX_SAMPLES = 48


class Unsafe(Enum):
    """Why a pose or a braking trajectory is refused."""

    BELOW_TABLE = 'below_table'
    OUTSIDE_BOX = 'outside_box'
    SELF_COLLISION = 'self_collision'
    UNPROVEN = 'unproven'


def followed(a: Frame, b: Frame) -> Frame:
    """Return the frame ``b``, given in frame ``a``, in what ``a`` is given in."""
    xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz = a
    out = []
    for x, y, z in (b[0:3], b[3:6], b[6:9]):
        out += [x * xx + y * yx + z * zx, x * xy + y * yy + z * zy, x * xz + y * yz + z * zz]
    x, y, z = b[9:12]
    out += [px + x * xx + y * yx + z * zx, py + x * xy + y * yy + z * zy,
            pz + x * xz + y * yz + z * zz]
    return tuple(out)  # type: ignore[return-value]


def placed(matrix: np.ndarray) -> Frame:
    """Return a pose (4, 4) as a frame."""
    return (*matrix[:3, :3].T.ravel().tolist(), *matrix[:3, 3].tolist())


class Envelope:
    """
    The forbidden space of one arm in the robot's base frame, metres.

    Spheres of frame 0 do not move with the arm, so they only take part in self-collision.

    :param workspace: its points belong to this arm alone.
    :ivar start: where the base of the chain stands.
    :ivar centres: where the points were at the last clearance.
    """

    def __init__(self, arm: Arm, workspace: Workspace) -> None:
        kinematics = arm.kinematics
        assert isinstance(kinematics, MdhKinematics)
        points = workspace.points
        self._rows = [
            (cos(row.alpha), sin(row.alpha), row.a, row.d, row.offset,
             tuple((i, *p.offset, p.radius) for i, p in enumerate(points) if p.frame == k + 1))
            for k, row in enumerate(kinematics.rows)]
        self._surround(arm, workspace, [hypot(row.a, row.d) for row in kinematics.rows])

    def _surround(self, arm: Arm, workspace: Workspace, lengths: Sequence[float]) -> None:
        """Take what is forbidden; ``lengths`` [m] lie between the joints, base first."""
        points = workspace.points
        self._enclose(workspace)
        self._carried = [(i, p.offset) for i, p in enumerate(points) if p.frame == 0]
        self._fixed = [(0.0, 0.0, 0.0)] * len(points)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation(*arm.rpy), arm.origin
        self.centres: list[tuple[float, float, float]] = []
        self.stand(placed(pose))
        self._pairs = [(i, j, points[i].radius + points[j].radius + MARGIN)
                       for i, j in workspace.self_pairs]
        # Both spheres of a pair may move; their distance then changes twice as fast.
        both = any(points[i].frame and points[j].frame for i, j in workspace.self_pairs)
        self._reach = tuple(
            (2.0 if both else 1.0) * max(
                (sum(lengths[j + 1:p.frame]) + hypot(*p.offset) for p in points if p.frame > j),
                default=0.0)
            for j in range(len(lengths)))
        self.what = Unsafe.UNPROVEN   # the nearest thing of the last clearance

    def _enclose(self, workspace: Workspace) -> None:
        self._table = workspace.table_z + workspace.table_margin + MARGIN
        self._low = tuple(value + MARGIN for value in workspace.box_lower)
        self._high = tuple(value - MARGIN for value in workspace.box_upper)

    @property
    def reach(self) -> tuple[float, ...]:
        """By how much a joint can move a point, or a pair of points apart, at most [m/rad]."""
        return self._reach

    def stand(self, start: Frame) -> None:
        """Put the base of the chain somewhere in the robot's base frame."""
        self.start = start
        xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz = start
        # The places of the points of frame 0; the others are written at every pose.
        for index, (x, y, z) in self._carried:
            self._fixed[index] = (px + x * xx + y * yx + z * zx, py + x * xy + y * yy + z * zy,
                                  pz + x * xz + y * yz + z * zz)

    def clearance(self, position: Sequence[float]) -> float:
        """
        Return the least distance [m] to anything forbidden at the joint angles ``position``.

        Negative inside it. ``what`` then names the nearest thing. Needs the joints of the chain;
        further ones are ignored.
        """
        xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz = self.start
        low_x, low_y, low_z = self._low
        high_x, high_y, high_z = self._high
        mid_x, mid_y, mid_z = low_x + high_x, low_y + high_y, low_z + high_z
        table = box = inf
        centres = self.centres = list(self._fixed)
        for (ca, sa, a, d, offset, points), angle in zip(self._rows, position):
            c, s = cos(angle + offset), sin(angle + offset)
            px += a * xx
            py += a * xy
            pz += a * xz
            ux, uy, uz = ca * yx + sa * zx, ca * yy + sa * zy, ca * yz + sa * zz
            zx, zy, zz = ca * zx - sa * yx, ca * zy - sa * yy, ca * zz - sa * yz
            xx, xy, xz, yx, yy, yz = (c * xx + s * ux, c * xy + s * uy, c * xz + s * uz,
                                      c * ux - s * xx, c * uy - s * xy, c * uz - s * xz)
            px += d * zx
            py += d * zy
            pz += d * zz
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

    def _outside(self, centre: tuple[float, float, float],
                 radius: float) -> tuple[float, Unsafe]:
        """Return the least distance [m] of a sphere to table or box, and which of them it is."""
        table = centre[2] - radius - self._table
        box = min(min(c - low, high - c) - radius
                  for c, low, high in zip(centre, self._low, self._high))
        return (box, Unsafe.OUTSIDE_BOX) if box < table else (table, Unsafe.BELOW_TABLE)

    def blocked(self, position: Sequence[float], velocity: Sequence[float],
                times: Sequence[float], floor: float = 0.0) -> tuple[Unsafe | None, float]:
        """
        Prove the braking trajectory q + v (t - t^2 / (2 T)).

        :param velocity: v per joint at its start, and ``times``: T per joint [s]; both from
            ``brake_motion``.
        :param floor: clearance that must be kept [m]; below zero for an arm that starts outside.
        :returns: None when it is safe, else why not; and the clearance at ``position``.
        """
        moving = [(j, v, T, reach * abs(v)) for j, (v, T, reach)
                  in enumerate(zip(velocity, times, self._reach)) if v != 0.0]
        pose = list(position)
        end = max((T for _, _, T, _ in moving), default=0.0)
        first = None
        t = 0.0
        for _ in range(MAX_SAMPLES):
            for j, v, T, _ in moving:
                pose[j] = position[j] + (v * (t - t * t / (2.0 * T)) if t < T else 0.5 * v * T)
            clear = self.clearance(pose)
            if first is None:
                first = clear
            if clear < floor:
                return self.what, first
            if t >= end:
                return None, first
            rate = travel = 0.0
            for _, _, T, speed in moving:
                if t < T:
                    share = 1.0 - t / T
                    rate += speed * share
                    travel += 0.5 * speed * share * (T - t)
            if travel <= clear - floor:
                return None, first
            t = min(t + max(clear - floor, RESOLUTION) / rate, end)
        return Unsafe.UNPROVEN, first if first is not None else -inf
