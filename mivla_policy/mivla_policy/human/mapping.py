"""
The mapping between hands and robots, in both directions.

The thumb's knuckle stands for the end effector. From hand to robot its displacement since the
first frame is turned into the robot's base and taken to joints by inverse kinematics; from robot
to hand the end effector's pose is the knuckle's, and wrist and fingertips follow by offsets from
an average hand. The gripper's opening is the distance of thumb and index. The form is MiVLA's
(arXiv 2512.15411), the numbers are ``MappingSettings``.

Frames: B the robot's base; G a gripper, x along its fingers, y across, origin between their tips;
K the knuckle in hand axes (x to the fingertips, y left of a hand held palm down, z out of its
back). Poses are (4, 4), many of them (N, 4, 4); lengths in metres, angles in radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mivla_core.inverse import tip_error
from mivla_core.kinematics import Chain, rotation
from mivla_core.poses import pose_of
from mivla_core.profile import RobotProfile
from mivla_core.pursuit import Pursuit
from mivla_core.robot_parts import Arm
from mivla_policy.errors import ConfigError, EpisodeError
from mivla_policy.formats.egodex import SIDES, HandTrack
from mivla_policy.human.settings import MappingSettings

__all__ = ['HandMapping', 'RobotMotion', 'arms_by_side', 'gripper_axes']

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RobotMotion:
    """
    What a robot does instead of hands, over N frames.

    :param joints: (N, J) in profile order, within the limits.
    :param position_error: (N,) how far the tip stays from where it should be, the worst arm's [m].
    :param turn_error: (N,) likewise [rad].
    :param reached: bool (N,), both within the tolerances of ``Inverse``.
    """

    joints: Array
    position_error: Array
    turn_error: Array
    reached: NDArray[np.bool_]


def arms_by_side(profile: RobotProfile) -> dict[str, Arm]:
    """
    Return the arm that stands for each hand.

    A single arm stands for the hand whose half of the action space it fills.

    :raises ConfigError: two arms that are not called left and right.
    """
    if len(profile.arms) == 1:
        return {'left' if profile.packing.side == 'left' else 'right': profile.arms[0]}
    found = {arm.name: arm for arm in profile.arms if arm.name in SIDES}
    if len(found) != len(profile.arms):
        raise ConfigError(f'{profile.name}: arms {[arm.name for arm in profile.arms]}; hands '
                          'know left and right')
    return found


def gripper_axes(profile: RobotProfile, arm: Arm) -> Array:
    """
    Return the axes of G as columns (3, 3) in the frame of the arm's tip.

    The fingers point along the tip's offset from the flange and open along its y. A gripper is
    the same upside down: of both ways to hold it, the one whose back is up in the home pose.

    :raises ConfigError: a tip without an offset, or along y.
    """
    reach = float(np.linalg.norm(arm.kinematics.tip))
    if reach < 1e-6:
        raise ConfigError(f'{profile.name}: the tip of {arm.name} is its last joint: which way '
                          'its fingers point is not known, and hands cannot stand for it')
    along = np.asarray(arm.kinematics.tip) / reach
    across = np.array([0.0, 1.0, 0.0])
    if abs(float(along @ across)) > 1e-6:
        raise ConfigError(f'{profile.name}: the tip of {arm.name} lies along y, its fingers open '
                          'there too')
    place = profile.place_of(arm)
    home = rotation(*arm.rpy) @ Chain(arm.kinematics).tip(profile.home[place])[:3, :3]
    back = np.cross(along, across)
    if float((home @ back)[2]) < 0.0:
        across, back = -across, -back
    return np.column_stack([along, across, back])


class _Side:
    """One hand and its arm."""

    def __init__(self, profile: RobotProfile, side: str, arm: Arm,
                 settings: MappingSettings) -> None:
        self.place = profile.place_of(arm)
        chain = Chain(arm.kinematics)
        self.joints = slice(self.place.start, self.place.start + chain.joints)
        self.gripper = self.place.stop - 1 if arm.gripper is not None else None
        self.chain, self._inverse = chain, settings.inverse
        self._lower, self._upper = profile.lower[self.joints], profile.upper[self.joints]
        self._velocity = profile.velocity[self.joints]
        self._pursuit = Pursuit(chain, self._lower, self._upper, settings.inverse.turning)
        self._home = profile.home[self.joints]
        self.base = pose_of(rotation(*arm.rpy), np.array(arm.origin))
        self._axes = pose_of(gripper_axes(profile, arm), np.zeros(3))
        mirror = np.diag([1.0, 1.0 if side == 'right' else -1.0, 1.0])
        turn = mirror @ rotation(*settings.anchor.rpy) @ mirror
        self._anchor = pose_of(turn, mirror @ np.array(settings.anchor.position))
        self._from_anchor = np.linalg.inv(self._axes @ self._anchor)

    def knuckle(self, q: Array) -> Array:
        """Return K (4, 4) in the base, of the arm's joints (n,)."""
        return self.base @ self.chain.tip(q) @ self._axes @ self._anchor

    def follow(self, knuckles: Array, rate: float) -> tuple[Array, Array]:
        """
        Return joints (N, n) and what is left of the error (N, 6) for K (N, 4, 4).

        No joint turns faster than it can: where a wrist would have to flip over within a frame,
        the turn lags behind and is counted as an error.
        """
        tips, step = np.linalg.inv(self.base) @ knuckles @ self._from_anchor, self._velocity / rate
        q, joints, errors = self._first(tips[0]), [], []
        for tip in tips:
            q = q + np.clip(self._pursuit.towards(tip, q, self._inverse.rounds) - q, -step, step)
            joints.append(q)
            errors.append(tip_error(self.chain, q, tip[:3, 3], tip[:3, :3]))
        return np.array(joints), np.array(errors)

    def _first(self, tip: Array) -> Array:
        """Return joints for the first frame: of several searches the best, near home if equal."""
        rng = np.random.default_rng(0)
        starts = [self._home, *rng.uniform(self._lower, self._upper, (
            self._inverse.starts - 1, len(self._home)))]
        found = [self._pursuit.towards(tip, start, 3 * self._inverse.rounds) for start in starts]

        def cost(q: Array) -> float:
            error = tip_error(self.chain, q, tip[:3, 3], tip[:3, :3])
            weighted = np.linalg.norm(error * np.repeat([1.0, self._inverse.turning], 3))
            # A millimetre is worth a radian on the way from home.
            return float(weighted + 1e-3 * np.abs(q - self._home).max())
        return min(found, key=cost)


class HandMapping:
    """
    Between the hands of a person and one robot.

    :param profile: of the robot; a base that moves stays at its home.
    """

    def __init__(self, profile: RobotProfile, settings: MappingSettings) -> None:
        self.profile, self.settings = profile, settings
        self._sides = {side: _Side(profile, side, arm, settings)
                       for side, arm in arms_by_side(profile).items()}
        base = [j for j, joint in enumerate(profile.joints) if joint.role == 'base']
        self._trunk = slice(base[0], base[0] + 6) if base else None

    @property
    def sides(self) -> tuple[str, ...]:
        """The hands that the robot's arms stand for."""
        return tuple(self._sides)

    def to_robot(self, hands: Mapping[str, HandTrack], camera: Array | None = None,
                 rate: float = 30.0) -> RobotMotion:
        """
        Return what the robot does instead of these hands.

        :param hands: of N frames each; those that no arm stands for are not looked at.
        :param camera: pose of the first picture's camera in the file's world; for 'camera'.
        :param rate: of the frames [Hz].
        :raises EpisodeError: a hand that an arm stands for is missing.
        """
        missing = [side for side in self._sides if side not in hands]
        if missing:
            raise EpisodeError(f'no {missing[0]} hand: {self.profile.name} needs '
                               f'{" and ".join(self._sides)}')
        count = len(next(iter(hands.values())).wrist)
        joints = np.tile(self.profile.home, (count, 1))
        worst = np.zeros((count, 2))
        for side, arm in self._sides.items():
            hand = hands[side]
            joints[:, arm.joints], error = arm.follow(
                self._targets(side, arm, hand, camera), rate)
            worst = np.maximum(worst, np.linalg.norm(error.reshape(count, 2, 3), axis=2))
            if arm.gripper is not None:
                low, high = (limit[arm.gripper] for limit in (self.profile.lower,
                                                              self.profile.upper))
                joints[:, arm.gripper] = low + self.opening(hand) * (high - low)
        inverse = self.settings.inverse
        return RobotMotion(joints, worst[:, 0], worst[:, 1],
                           (worst[:, 0] <= inverse.position_tolerance)
                           & (worst[:, 1] <= inverse.turn_tolerance))

    def to_hands(self, joints: Array) -> dict[str, HandTrack]:
        """Return what hands do instead of the robot, whose joints are (N, J)."""
        values = np.asarray(joints, dtype=np.float64)
        return {side: self._hand(side, arm, values) for side, arm in self._sides.items()}

    def opening(self, hand: HandTrack) -> Array:
        """Return how open (N,) 0..1 a gripper is for a hand's thumb and index."""
        aperture = self.settings.aperture
        distance = np.linalg.norm(hand.tips[:, 0] - hand.tips[:, 1], axis=1)
        return np.clip((distance - aperture.closed) / (aperture.open - aperture.closed), 0.0, 1.0)

    def _targets(self, side: str, arm: _Side, hand: HandTrack, camera: Array | None) -> Array:
        """Return K (N, 4, 4) in the robot's base."""
        world, out = self._world(side, camera), np.tile(np.eye(4), (len(hand.wrist), 1, 1))
        turns = world @ hand.thumb_knuckle[:, :3, :3] @ self.settings.joint_axes.of(side)
        places = self.settings.scale * hand.thumb_knuckle[:, :3, 3] @ world.T
        if self.settings.start == 'home':
            home = arm.knuckle(self.profile.home[arm.joints])
            turns = turns @ turns[0].T @ home[:3, :3]
            places = places - places[0] + home[:3, 3]
        out[:, :3, :3], out[:, :3, 3] = turns, places
        return out

    def _world(self, side: str, camera: Array | None) -> Array:
        """Return R_h of a hand (3, 3)."""
        world = self.settings.world.of(side)
        if self.settings.heading == 'stored':
            return world
        if camera is None:
            raise EpisodeError('heading "camera" needs the pose of the camera, and the file has '
                               'none; use heading "stored"')
        view = world @ camera[:3, :3] @ np.array(self.settings.camera_forward)
        return rotation(0.0, 0.0, -float(np.arctan2(view[1], view[0]))) @ world

    def _hand(self, side: str, arm: _Side, joints: Array) -> HandTrack:
        """Return one hand over the frames of (N, J) joints."""
        anatomy, mirror = self.settings.anatomy, np.diag([1.0, -1.0, 1.0])
        mirror = np.eye(3) if side == 'right' else mirror
        knuckles = np.stack([self._base(row) @ arm.knuckle(row[arm.joints]) for row in joints])
        turn = mirror @ rotation(*anatomy.wrist_rpy) @ mirror
        wrists = knuckles @ pose_of(turn, mirror @ np.array(anatomy.wrist))
        share = np.zeros((len(joints), 1, 1))
        if arm.gripper is not None:
            low, high = (limit[arm.gripper] for limit in (self.profile.lower, self.profile.upper))
            share[:, 0, 0] = np.clip((joints[:, arm.gripper] - low) / (high - low), 0.0, 1.0)
        closed, wide = (np.array(tips) @ mirror for tips in (anatomy.closed, anatomy.open))
        tips = closed + share * (wide - closed)                              # (N, 5, 3)
        tips = tips @ knuckles[:, :3, :3].swapaxes(1, 2) + knuckles[:, None, :3, 3]
        return HandTrack.certain(self._out(side, wrists), self._out(side, knuckles),
                                 tips @ self.settings.world.of(side) / self.settings.scale)

    def _base(self, row: Array) -> Array:
        """Return the pose of the robot's base: the trunk's, where it has one."""
        if self._trunk is None:
            return np.eye(4)
        base = row[self._trunk]
        return pose_of(rotation(*(float(angle) for angle in base[3:])), base[:3])

    def _out(self, side: str, poses: Array) -> Array:
        """Return poses (N, 4, 4) in hand axes in the base as a file has them."""
        world, out = self.settings.world.of(side), poses.copy()
        out[:, :3, :3] = world.T @ poses[:, :3, :3] @ self.settings.joint_axes.of(side).T
        out[:, :3, 3] = poses[:, :3, 3] @ world / self.settings.scale
        return out
