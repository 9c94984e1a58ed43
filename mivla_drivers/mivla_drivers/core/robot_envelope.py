"""
The forbidden space of a whole robot: its arms, their distance to each other, a base that moves.

The proof of a braking trajectory is that of one arm (``Envelope.blocked``) over all joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, dist, hypot, inf, sin, sqrt

import numpy as np

from mivla_core.kinematics import rotation
from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm, BodyKinematics, Workspace
from mivla_drivers.core.body_envelope import BodyEnvelope
from mivla_drivers.core.envelope import MARGIN, Envelope, Frame, Unsafe, followed, placed

__all__ = ['RobotEnvelope', 'arm_envelope', 'envelope_of']

BASE_JOINTS = 6     # x, y, z, roll, pitch, yaw


def envelope_of(profile: RobotProfile) -> Envelope:
    """Return the envelope of a robot."""
    if len(profile.arms) == 1 and profile.joints[-1].role != 'base':
        return arm_envelope(profile.arms[0], profile.workspace)
    return RobotEnvelope(profile)


def arm_envelope(arm: Arm, workspace: Workspace) -> Envelope:
    """
    Return the envelope of one chain of either convention.

    :param workspace: its points belong to this arm alone.
    """
    if isinstance(arm.kinematics, BodyKinematics):
        return BodyEnvelope(arm, workspace)
    return Envelope(arm, workspace)


class RobotEnvelope(Envelope):
    """
    ``Envelope`` over several arms, and over a base whose pose is six joints.

    Table and box stand in the frame in which the base's pose is given; an arm's own place is
    relative to the base. With a base that moves, the spheres of frame 0 move as well, so they are
    kept above the table and inside the box too.
    """

    def __init__(self, profile: RobotProfile) -> None:
        space = profile.workspace
        owner = [next(k for k, arm in enumerate(profile.arms) if point.arm in ('', arm.name))
                 for point in space.points]
        mine = [[i for i, k in enumerate(owner) if k == arm] for arm in range(len(profile.arms))]
        self._parts = [
            (arm_envelope(arm, _part(space, mine[k])), profile.place_of(arm))
            for k, arm in enumerate(profile.arms)]
        self._widest = [max((space.points[i].radius for i in points), default=0.0)
                        for points in mine]
        self._across = [(a, b, _across(space, mine, a, b, names)) for a, b, names in
                        _pairs_of_arms(profile)]
        self._places = []
        for arm in profile.arms:
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = rotation(*arm.rpy), arm.origin
            self._places.append(placed(pose))
        self._base = next((i for i, joint in enumerate(profile.joints) if joint.role == 'base'),
                          None)
        self._borne = [
            [(k, space.points[i].radius) for k, i in enumerate(points)
             if space.points[i].frame == 0] if self._base is not None else []
            for points in mine]
        self._enclose(space)
        self._reach = self._reaches(profile)
        self.what = Unsafe.UNPROVEN

    def _reaches(self, profile: RobotProfile) -> tuple[float, ...]:
        reach = [0.0] * len(profile.joints)
        widest = 0.0
        for arm, (part, place) in zip(profile.arms, self._parts):
            for j, value in enumerate(part.reach):
                reach[place.start + j] = value
            # Where the first joint stands, and as far as anything can be from it.
            first = (arm.kinematics.bodies[0].origin if isinstance(arm.kinematics, BodyKinematics)
                     else (arm.kinematics.rows[0].a, 0.0, arm.kinematics.rows[0].d))
            fixed = max((hypot(*point.offset) for point in profile.workspace.points
                         if point.frame == 0 and point.arm in ('', arm.name)), default=0.0)
            widest = max(widest, hypot(*arm.origin)
                         + max(fixed, hypot(*first) + max(part.reach, default=0.0)))
        if self._base is not None:
            reach[self._base:self._base + BASE_JOINTS] = [1.0] * 3 + [widest] * 3
        return tuple(reach)

    def clearance(self, position: Sequence[float]) -> float:
        """Return the least distance [m] to anything forbidden; see ``Envelope.clearance``."""
        if self._base is not None:
            x, y, z, roll, pitch, yaw = position[self._base:self._base + BASE_JOINTS]
            base = _pose(x, y, z, roll, pitch, yaw)
            for (part, _), place in zip(self._parts, self._places):
                part.stand(followed(base, place))
        least = inf
        for (part, joints), carried in zip(self._parts, self._borne):
            clear = part.clearance(position[joints])
            if clear < least:
                least, self.what = clear, part.what
            for index, radius in carried:
                clear, what = self._outside(part.centres[index], radius)
                if clear < least:
                    least, self.what = clear, what
        for a, b, pairs in self._across:
            if self._between(a, b) >= least:
                continue
            ours, theirs = self._parts[a][0].centres, self._parts[b][0].centres
            for i, j, apart in pairs:
                gap = dist(ours[i], theirs[j]) - apart
                if gap < least:
                    least, self.what = gap, Unsafe.SELF_COLLISION
        return least

    def _between(self, a: int, b: int) -> float:
        """Return a distance [m] that no pair of spheres of two arms is closer than."""
        apart = 0.0
        # The boxes around their centres, axis by axis.
        for ours, theirs in zip(zip(*self._parts[a][0].centres),
                                zip(*self._parts[b][0].centres)):
            gap = min(ours) - max(theirs)
            if gap < 0.0:
                gap = min(theirs) - max(ours)
            if gap > 0.0:
                apart += gap * gap
        return sqrt(apart) - self._widest[a] - self._widest[b] - MARGIN


def _pose(x: float, y: float, z: float, roll: float, pitch: float, yaw: float) -> Frame:
    """Return the frame of a base: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    cr, sr, cp, sp, cy, sy = cos(roll), sin(roll), cos(pitch), sin(pitch), cos(yaw), sin(yaw)
    return (cy * cp, sy * cp, -sp, cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, cp * sr,
            cy * sp * cr + sy * sr, sy * sp * cr - cy * sr, cp * cr, x, y, z)


def _pairs_of_arms(profile: RobotProfile) -> list[tuple[int, int, bool]]:
    """Return the pairs of arms that are checked, and whether with all their points."""
    names = [arm.name for arm in profile.arms]
    whole = {tuple(sorted((names.index(a), names.index(b))))
             for a, b in profile.workspace.apart}
    points = profile.workspace.points
    some = {tuple(sorted((names.index(points[i].arm), names.index(points[j].arm))))
            for i, j in profile.workspace.self_pairs if points[i].arm != points[j].arm}
    return [(a, b, (a, b) in whole) for a, b in sorted(whole | some)]


def _across(space: Workspace, mine: Sequence[Sequence[int]], a: int, b: int,
            whole: bool) -> list[tuple[int, int, float]]:
    """Return the pairs of points of two arms, numbered arm by arm, with their least distance."""
    pairs = ([(i, j) for i in mine[a] for j in mine[b]] if whole else
             [(i, j) if i in mine[a] else (j, i) for i, j in space.self_pairs
              if {i in mine[a], j in mine[a]} == {True, False}
              and (i in mine[b] or j in mine[b])])
    points = space.points
    # Two spheres that stand on the base cannot meet: where the arms stand is nobody's motion.
    return [(mine[a].index(i), mine[b].index(j), points[i].radius + points[j].radius + MARGIN)
            for i, j in pairs if points[i].frame or points[j].frame]


def _part(space: Workspace, mine: Sequence[int]) -> Workspace:
    """Return the workspace with one arm's points."""
    return space.model_copy(update={
        'points': tuple(space.points[i] for i in mine),
        'self_pairs': tuple((mine.index(i), mine.index(j)) for i, j in space.self_pairs
                            if i in mine and j in mine)})
