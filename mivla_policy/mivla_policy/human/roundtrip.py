"""
What the mapping loses: there and back again, from either side.

Lengths in metres, angles in radians; every array is one value per frame unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mivla_core.kinematics import Chain
from mivla_core.poses import rotation_vector
from mivla_policy.formats.egodex import HandTrack
from mivla_policy.human.mapping import HandMapping, arms_by_side

__all__ = ['HandLoss', 'RobotLoss', 'hand_loss', 'robot_loss']

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RobotLoss:
    """
    Robot to hands to robot.

    :param tip: distance of the tips, the worst arm's.
    :param turn: angle between them, the worst arm's.
    :param joints: largest difference of an arm joint. Inverse kinematics may find another way to
        hold the same tip.
    :param gripper: largest difference of a gripper.
    """

    tip: Array
    turn: Array
    joints: Array
    gripper: Array


@dataclass(frozen=True)
class HandLoss:
    """
    Hands to robot to hands.

    :param knuckle: distance of the thumb's knuckles, the worst hand's.
    :param turn: angle between them.
    :param wrist: distance of the wrists.
    :param thumb_index: distance of thumb and index fingertips, their mean.
    :param fingers: the same of the other three, which a gripper knows nothing of.
    :param reached: bool; the robot came within the tolerances.
    """

    knuckle: Array
    turn: Array
    wrist: Array
    thumb_index: Array
    fingers: Array
    reached: NDArray[np.bool_]


def robot_loss(mapping: HandMapping, joints: Array, rate: float = 30.0) -> RobotLoss:
    """
    Return what is lost of a robot's motion (N, J) on its way through hands.

    :param rate: of the frames [Hz].
    """
    profile = mapping.profile
    back = mapping.to_robot(mapping.to_hands(joints), rate=rate).joints
    tip, turn, angle = (np.zeros(len(joints)) for _ in range(3))
    for arm in arms_by_side(profile).values():
        chain, place = Chain(arm.kinematics), profile.place_of(arm)
        for i, (before, after) in enumerate(zip(joints[:, place], back[:, place])):
            a, b = chain.tip(before), chain.tip(after)
            tip[i] = max(tip[i], float(np.linalg.norm(a[:3, 3] - b[:3, 3])))
            turn[i] = max(turn[i], float(np.linalg.norm(rotation_vector(a[:3, :3].T @ b[:3, :3]))))
        arm_joints = slice(place.start, place.start + chain.joints)
        angle = np.maximum(angle, np.abs(joints - back)[:, arm_joints].max(axis=1))
    grippers = list(profile.gripper_indices)
    return RobotLoss(tip, turn, angle, np.abs(joints - back)[:, grippers].max(axis=1, initial=0.0))


def hand_loss(mapping: HandMapping, hands: Mapping[str, HandTrack], camera: Array | None = None,
              rate: float = 30.0) -> HandLoss:
    """
    Return what is lost of hands on their way through the robot.

    With ``start: home`` the robot is somewhere else, and so are the hands that come back.

    :param camera: see ``HandMapping.to_robot``.
    """
    motion = mapping.to_robot(hands, camera, rate)
    back = mapping.to_hands(motion.joints)
    parts: list[Array] = []
    for side in mapping.sides:
        mine, theirs = hands[side], back[side]
        turns = mine.thumb_knuckle[:, :3, :3].swapaxes(1, 2) @ theirs.thumb_knuckle[:, :3, :3]
        tips = np.linalg.norm(mine.tips - theirs.tips, axis=2)
        parts.append(np.array([
            np.linalg.norm(mine.thumb_knuckle[:, :3, 3] - theirs.thumb_knuckle[:, :3, 3], axis=1),
            [float(np.linalg.norm(rotation_vector(turn))) for turn in turns],
            np.linalg.norm(mine.wrist[:, :3, 3] - theirs.wrist[:, :3, 3], axis=1),
            tips[:, :2].mean(axis=1), tips[:, 2:].mean(axis=1)]))
    knuckle, turn, wrist, thumb_index, fingers = np.max(parts, axis=0)
    return HandLoss(knuckle, turn, wrist, thumb_index, fingers, motion.reached)
