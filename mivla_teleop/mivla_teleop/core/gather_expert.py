"""
The scripted expert of a robot on legs that gathers blocks with one arm.

It is told where blocks and tray are and takes the blocks in their order: the open gripper comes
from behind, closes, lifts, carries, lowers into the tray, opens; then up and to the next. The
trunk stays where it is. It ends with the jaws open about the last block: a policy without history
could not tell a retreat from the approach. Times are seconds, angles radians, lengths metres in
the frame that the trunk has in nominal stance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from mivla_core.kinematics import rotation
from mivla_core.profile import RobotProfile
from mivla_teleop.core.expert_motion import (
    SPEED,
    ArmSolver,
    ExpertError,
    Hold,
    Segment,
    Trajectory,
    check_pose,
    end_of,
    line,
    move,
    rng_of,
)

__all__ = ['ARM', 'GatherVariation', 'HandSolver', 'plan_gather', 'ready_pose']

ARM = 'right'
REACH_SPEED, CARRY_SPEED = 0.10, 0.15       # of the tool, mean, m/s
# A gripper follows its goal by a fifth of a radian at most, and so takes up to a second to close.
CLOSING, DWELL = 0.8, 0.3

# Of the gripper, throughout: how far the fingers lean out from straight down, and to the right of
# straight ahead.
_TILT, _HEADING = 0.90, -0.10
_OPENED, _SQUEEZE = 1.10, 0.10      # rad; a block stops the jaw at about 0.23
# From the tool's axis to that of a block, towards the jaw that moves: the other one is fixed.
_ASIDE = 0.0155
_GRASP, _BEYOND = 0.032, 0.002      # over the block's foot, and past its axis along the fingers
_BACK, _LIFT, _RELEASE, _OFF = 0.055, 0.032, 0.004, 0.011
# Where in the tray: the near block in front, the far one behind it; so neither is carried over
# the other.
_ROWS = (-0.028, 0.028)
# A pose of the arm before the stand, from which the solver finds all others.
_BEFORE = (-0.12, 0.90, -2.00, 0.10, 0.0, -1.57)
_VARIED = slice(3, 6)               # of an arm's joints, at the start: those that carry nothing


@dataclass(frozen=True)
class GatherVariation:
    """
    How one demonstration differs from the next.

    :param grasp: offset of the grasps along the fingers and in height [m].
    :param back: offset of where the reach begins [m].
    :param lift: offset of the height that blocks are carried at [m].
    :param put: offset of where blocks are put (x, y) [m].
    :param speed: factor on all speeds.
    :param tilt: offset of the gripper's lean [rad].
    """

    grasp: tuple[float, float] = (0.0, 0.0)
    back: float = 0.0
    lift: float = 0.0
    put: tuple[float, float] = (0.0, 0.0)
    speed: float = 1.0
    tilt: float = 0.0

    @classmethod
    def draw(cls, seed: int) -> GatherVariation:
        """Return the variation of a seed: some millimetres, 12 % of speed, 0.03 rad."""
        rng = rng_of(seed, 'gather_objects')
        along, height, back, lift, x, y = rng.uniform(-1.0, 1.0, size=6).tolist()
        return cls(grasp=(0.002 * along, 0.002 * height), back=0.006 * back, lift=0.004 * lift,
                   put=(0.003 * x, 0.004 * y), speed=float(rng.uniform(0.88, 1.12)),
                   tilt=float(rng.uniform(-0.03, 0.03)))


class HandSolver(ArmSolver):
    """
    Inverse kinematics of a leg's hand under a trunk that stays, from one solution to the next.

    :param start: joint positions (J,): the trunk's pose is taken from it, and all other joints.
    :param tilt: of the fingers from straight down [rad].
    :param heading: of the fingers about the vertical [rad].
    """

    def __init__(self, profile: RobotProfile, start: np.ndarray, tilt: float,
                 heading: float) -> None:
        base = np.array(start, float)[[joint.role == 'base' for joint in profile.joints]]
        if base.size != 6:
            raise ExpertError(f'{profile.name} has no trunk; this expert is one of robots on legs')
        super().__init__(profile, profile.arm(ARM), start, base[:3], rotation(*base[3:]))
        out = np.array([np.cos(heading), np.sin(heading), 0.0])
        # The fingers point along the hand's -z, and the jaw moves towards its +x: to the left.
        self.fingers = np.sin(tilt) * out - np.cos(tilt) * np.array([0.0, 0.0, 1.0])
        self.opens = np.array([-out[1], out[0], 0.0])
        hand = np.column_stack([self.opens, np.cross(-self.fingers, self.opens), -self.fingers])
        self._rotation = self._turn.T @ hand
        self._pose = np.array(_BEFORE)


def ready_pose(profile: RobotProfile, home: np.ndarray, seed: int, *,
               sigma: float = 0.05) -> np.ndarray:
    """
    Return a start pose (J,) near the posture's own: normal noise on the arm's servos.

    The leg that bears the arm is as the posture has it: a few hundredths of a radian there would
    take the tool to the floor.

    :param home: pose (J,) of the posture.
    :param sigma: standard deviation [rad]; cut at two of them.
    """
    pose, place = np.array(home, dtype=float), profile.place_of(profile.arm(ARM))
    servos = np.arange(place.start, place.stop)[_VARIED]
    pose[servos] += np.clip(rng_of(seed, 'start').normal(size=len(servos)), -2.0, 2.0) * sigma
    return np.clip(pose, profile.lower, profile.upper)


def plan_gather(profile: RobotProfile, start: np.ndarray, places: np.ndarray,
                variation: GatherVariation = GatherVariation()) -> Trajectory:
    """
    Plan the gathering of all blocks.

    :param start: joint positions (J,) that the command now stands at, with a leg lifted.
    :param places: poses (N + 1, 7) of N blocks and the tray: xyz, wxyz.
    :raises ExpertError: out of reach, or ``start`` is no valid pose.
    """
    check_pose(profile, start, 'start')
    tilt, speed = _TILT + variation.tilt, SPEED * variation.speed
    hand = HandSolver(profile, np.asarray(start, float), tilt, _HEADING)
    reach, carry = REACH_SPEED * variation.speed, CARRY_SPEED * variation.speed
    along, high = _BEYOND + variation.grasp[0], _GRASP + variation.grasp[1]
    grip = np.array([0.0, 0.0, high]) + along * hand.fingers - _ASIDE * hand.opens
    up = np.array([0.0, 0.0, _LIFT + variation.lift])
    segments = list[Segment]()
    left: Optional[np.ndarray] = None       # where the hand went up from the last block
    for block, row in zip(places[:-1, :3], _ROWS, strict=True):
        pick = block + grip
        put = places[-1, :3] + grip + (row + variation.put[0], variation.put[1], _RELEASE)
        # One jaw stays where it is: the hand moves it off the block.
        off = put - _OFF * hand.opens
        begin = pick - (_BACK + variation.back) * hand.fingers

        def leg(a: np.ndarray, b: np.ndarray, gripper: float, tip_speed: float) -> Segment:
            return line(profile, hand, a, b, gripper, speed=speed, tip_speed=tip_speed)

        if left is None:
            segments.append(move(profile, np.asarray(start, float),
                                 hand.solve(begin, _OPENED), speed))
        else:
            segments += [leg(left, left + up, _OPENED, reach),
                         leg(left + up, begin, _OPENED, carry)]
        approach = leg(begin, pick, _OPENED, reach)
        lift = leg(pick, pick + up, _SQUEEZE, reach)
        lower = leg(put + up, put, _SQUEEZE, reach)
        held, free = lift.state(0.0)[0], hand.solve(off, _OPENED)
        # Straight over what stands there: between two poses, the joints' own way dips by 2 cm.
        segments += [approach, move(profile, end_of(approach), held, speed), Hold(held, CLOSING),
                     lift, leg(pick + up, put + up, _SQUEEZE, carry), lower,
                     move(profile, end_of(lower), free, speed), Hold(free, DWELL)]
        left = off
    return Trajectory(segments)
