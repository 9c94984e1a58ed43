"""
What a person's head and hands mean for the joints of a robot, since the clutch closed.

Each hand moves the tip of an arm by as much as it moves itself and turns it about the same axes of
the person's own forward, left and up, which are the robot's; grippers follow thumb and index. On a
robot with a trunk the head's turns become the trunk's. Which of this a robot does depends on its
posture. The joints that nobody moves are left where the driver has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mivla_core.kinematics import Chain, rotation
from mivla_core.poses import pose_of, yaw_turn
from mivla_core.profile import RobotProfile
from mivla_core.pursuit import Pursuit
from mivla_core.robot_parts import Arm
from mivla_teleop.core.gestures import Backlash, opening_of

__all__ = ['HandsToRobot', 'HeadsetPoses', 'Roles', 'roles_of']

_GRIP_WIDTH = 0.06      # backlash of the gripper, as a share of its opening


@dataclass(frozen=True)
class HeadsetPoses:
    """
    Tracked poses (4, 4) in the headset's world; a hand that is not tracked is missing.

    :param pinch: distances of thumb and index by hand [m].
    """

    head: np.ndarray
    wrists: Mapping[str, np.ndarray]
    pinch: Mapping[str, float]


@dataclass(frozen=True)
class Roles:
    """
    Who moves what.

    :param hands: arm by the hand that moves it.
    :param trunk: the head turns the trunk.
    :param drives: the head drives the base.
    """

    hands: Mapping[str, str]
    trunk: bool = False
    drives: bool = False


def roles_of(profile: RobotProfile, posture: str) -> Roles:
    """Return who moves what in a posture; '' for robots without postures."""
    names = [arm.name for arm in profile.arms]
    if not any(joint.role == 'base' for joint in profile.joints):
        if len(names) == 1:
            return Roles({'right': names[0]})
        return Roles({side: side for side in ('right', 'left') if side in names})
    # LocoMan's postures; one that is not known moves nothing.
    return {'manipulate_right': Roles({'right': 'right'}, trunk=True),
            'manipulate_left': Roles({'left': 'left'}, trunk=True),
            'bimanual': Roles({'right': 'right', 'left': 'left'}),
            'stance': Roles({}, trunk=True),
            'locomotion': Roles({}, drives=True)}.get(posture, Roles({}))


class _ArmHand:
    """One hand and its arm."""

    def __init__(self, profile: RobotProfile, arm: Arm) -> None:
        place = profile.place_of(arm)
        chain = Chain(arm.kinematics)
        self.joints = slice(place.start, place.start + chain.joints)
        self.gripper = place.stop - 1 if arm.gripper is not None else None
        self._pursuit = Pursuit(chain, profile.lower[self.joints], profile.upper[self.joints])
        self._base = pose_of(rotation(*arm.rpy), np.array(arm.origin))
        self._lower, self._upper = profile.lower, profile.upper
        self._hand = self._tip = np.eye(4)
        self._opening = Backlash(_GRIP_WIDTH)

    def engage(self, hand: np.ndarray, trunk: np.ndarray, q: np.ndarray) -> None:
        """Take hand and tip as they are now for zero."""
        self._hand = hand.copy()
        self._tip = trunk @ self._base @ self._pursuit.chain.tip(q[self.joints])
        self._opening = Backlash(_GRIP_WIDTH)

    def target(self, hand: np.ndarray, yaw: float, scale: float, trunk: np.ndarray,
               near: np.ndarray) -> np.ndarray:
        """Return the joints (n,) that bring the tip where the hand has it."""
        turn = yaw_turn(-yaw)
        moved = turn @ (hand[:3, 3] - self._hand[:3, 3])
        turned = turn @ hand[:3, :3] @ self._hand[:3, :3].T @ turn.T
        goal = pose_of(turned @ self._tip[:3, :3], self._tip[:3, 3] + scale * moved)
        in_base = np.linalg.inv(trunk @ self._base) @ goal
        return self._pursuit.towards(in_base, near[self.joints])

    def grip(self, pinch: float) -> float:
        """Return the gripper's position for a distance of thumb and index [m]."""
        assert self.gripper is not None
        low, high = self._lower[self.gripper], self._upper[self.gripper]
        return float(low + self._opening.follow(opening_of(pinch)) * (high - low))


class HandsToRobot:
    """
    Targets (J,) of a robot.

    :param scale: metres of the robot for each of the hand.
    """

    def __init__(self, profile: RobotProfile, roles: Roles, scale: float = 1.0) -> None:
        self._profile, self._roles, self._scale = profile, roles, scale
        self._arms = {side: _ArmHand(profile, profile.arm(name))
                      for side, name in roles.hands.items()}
        base = [j for j, joint in enumerate(profile.joints) if joint.role == 'base']
        self._base = slice(base[0], base[0] + 6) if base else None
        self.free = np.zeros(len(profile.joints), dtype=bool)
        for arm in self._arms.values():
            self.free[arm.joints] = True
            if arm.gripper is not None:
                self.free[arm.gripper] = True
        if roles.trunk and self._base is not None:
            self.free[self._base.start + 3:self._base.stop] = True
        self._yaw = 0.0
        self._head: np.ndarray = np.eye(3)
        self._turns: np.ndarray = np.zeros(3)

    @property
    def hands(self) -> tuple[str, ...]:
        """The hands that move an arm."""
        return tuple(self._arms)

    def engage(self, poses: HeadsetPoses, yaw: float, q: np.ndarray) -> None:
        """
        Begin: the person as they stand, the robot as it stands (J,).

        :param yaw: where the person looks [rad]; the robot's forward from now on.
        """
        self._yaw, self._head = yaw, poses.head[:3, :3].copy()
        if self._base is not None:
            self._turns = q[self._base][3:].copy()
        for side, arm in self._arms.items():
            arm.engage(poses.wrists[side], self._trunk(q), q)

    def target(self, poses: HeadsetPoses, near: np.ndarray) -> np.ndarray:
        """
        Return where the robot is to be (J,).

        :param near: where it was asked to be last (J,).
        """
        out = np.array(near, dtype=np.float64)
        if self._roles.trunk and self._base is not None:
            turns = slice(self._base.start + 3, self._base.stop)
            out[turns] = np.clip(self._turns + self._turned(poses.head),
                                 self._profile.lower[turns], self._profile.upper[turns])
        trunk = self._trunk(near)
        for side, arm in self._arms.items():
            hand = poses.wrists.get(side)
            if hand is None:
                continue
            out[arm.joints] = arm.target(hand, self._yaw, self._scale, trunk, near)
            if arm.gripper is not None and side in poses.pinch:
                out[arm.gripper] = arm.grip(poses.pinch[side])
        return out

    def _trunk(self, q: np.ndarray) -> np.ndarray:
        """Return the pose of the robot's base: the trunk's, where it has one."""
        if self._base is None:
            return np.eye(4)
        base = q[self._base]
        return pose_of(rotation(*(float(angle) for angle in base[3:])), base[:3])

    def _turned(self, head: np.ndarray) -> np.ndarray:
        """Return how the head has turned (3,): roll, pitch, yaw in the person's own frame."""
        turn = yaw_turn(-self._yaw)
        m = turn @ head[:3, :3] @ self._head.T @ turn.T
        return np.array([math.atan2(m[2, 1], m[2, 2]),
                         math.asin(min(max(-m[2, 0], -1.0), 1.0)),
                         math.atan2(m[1, 0], m[0, 0])])
