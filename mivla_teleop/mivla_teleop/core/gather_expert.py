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

import numpy as np

from mivla_core.inverse import tip_angles
from mivla_core.kinematics import Chain, rotation
from mivla_core.profile import RobotProfile
from mivla_teleop.core.expert_motion import (
    SPEED,
    ExpertError,
    Hold,
    Segment,
    Trajectory,
    check_pose,
    end_of,
    line,
    move,
    reached,
    rng_of,
)

__all__ = ['ARM', 'GatherVariation', 'HandSolver', 'plan_gather', 'ready_pose']

ARM = 'right'
REACH_SPEED = 0.10      # of the tool, mean, m/s
CARRY_SPEED = 0.70      # of joints, rad/s
DWELL = 0.25            # after closing and opening

# Of the gripper: how far the fingers lean out from straight down, and to the right of straight
# ahead at the blocks, which stand there.
_TILT, _HEADING = 0.90, -0.15
_OPENED, _SQUEEZE = 1.10, 0.10      # rad; a block stops the jaw at about 0.45
# From the tool's axis to that of a block, towards the jaw that moves: the other one is fixed.
_ASIDE = 0.0155
_GRASP, _BEYOND = 0.032, 0.002      # over the block's foot, and past its axis along the fingers
_BACK, _LIFT, _RELEASE, _OFF = 0.055, 0.032, 0.004, 0.007
# Where in the tray: the first block behind, the next ones in front of it.
_ROWS = (0.022, -0.022)
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


class HandSolver:
    """
    Inverse kinematics of a leg's hand under a trunk that stays, from one solution to the next.

    :param start: joint positions (J,): the trunk's pose is taken from it, and all other joints.
    :param tilt: of the fingers from straight down [rad].
    :param heading: of the fingers about the vertical [rad].
    """

    def __init__(self, profile: RobotProfile, start: np.ndarray, tilt: float,
                 heading: float) -> None:
        arm = profile.arm(ARM)
        place = profile.place_of(arm)
        self._profile, self._chain = profile, Chain(arm.kinematics)
        self._joints = slice(place.start, place.start + self._chain.joints)
        self._gripper = place.stop - 1
        self._whole = np.array(start, dtype=float)
        base = self._whole[[joint.role == 'base' for joint in profile.joints]]
        if base.size != 6:
            raise ExpertError(f'{profile.name} has no trunk; this expert is one of robots on legs')
        self._origin, self._turn = base[:3], rotation(*base[3:])
        out = np.array([np.cos(heading), np.sin(heading), 0.0])
        # The fingers point along the hand's -z, and the jaw moves towards its +x: to the left.
        self.fingers = np.sin(tilt) * out - np.cos(tilt) * np.array([0.0, 0.0, 1.0])
        self.opens = np.array([-out[1], out[0], 0.0])
        hand = np.column_stack([self.opens, np.cross(-self.fingers, self.opens), -self.fingers])
        self._rotation = self._turn.T @ hand
        self._pose = np.array(_BEFORE)

    def solve(self, position: np.ndarray, gripper: float) -> np.ndarray:
        """
        Return the joint positions (J,) with the tool at ``position`` (3,).

        :param gripper: its position.
        :raises ExpertError: out of reach.
        """
        q = tip_angles(self._chain, self._turn.T @ (position - self._origin), self._rotation,
                       self._pose)
        whole = self._whole.copy()
        whole[self._joints] = reached(self._profile, self._joints, q, position)
        whole[self._gripper] = gripper
        self._pose = whole[self._joints].copy()
        return whole


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
    here, segments = np.asarray(start, float), list[Segment]()
    last = len(places) - 2
    for number, row in zip(range(last + 1), _ROWS, strict=True):
        into = places[-1, :3] + (row, 0.0, 0.0)
        parts = _transfer(profile, here, places[number, :3], into, variation, number < last)
        segments += parts
        here = end_of(parts[-1])
    return Trajectory(segments)


def _transfer(profile: RobotProfile, start: np.ndarray, block: np.ndarray, into: np.ndarray,
              variation: GatherVariation, onwards: bool) -> list[Segment]:
    """
    Plan how one block is taken and laid down.

    :param into: where its foot goes (3,).
    :param onwards: the hand goes up afterwards.
    """
    tilt, speed = _TILT + variation.tilt, SPEED * variation.speed
    reach, carry = REACH_SPEED * variation.speed, CARRY_SPEED * variation.speed
    there, over_tray = (HandSolver(profile, start, tilt, heading) for heading in (_HEADING, 0.0))
    along, high = _BEYOND + variation.grasp[0], _GRASP + variation.grasp[1]
    up = np.array([0.0, 0.0, _LIFT + variation.lift])
    pick = block + (0.0, 0.0, high) + along * there.fingers - _ASIDE * there.opens
    put = (into + (*variation.put, high + _RELEASE) + along * over_tray.fingers
           - _ASIDE * over_tray.opens)
    approach = line(profile, there, pick - (_BACK + variation.back) * there.fingers, pick,
                    _OPENED, speed=speed, tip_speed=reach)
    lift = line(profile, there, pick, pick + up, _SQUEEZE, speed=speed, tip_speed=reach)
    lower = line(profile, over_tray, put + up, put, _SQUEEZE, speed=speed, tip_speed=reach)
    held = lift.state(0.0)[0]
    # One jaw stays where it is: the hand moves it off the block.
    off = put - _OFF * over_tray.opens
    free = over_tray.solve(off, _OPENED)
    segments: list[Segment] = [
        move(profile, start, approach.state(0.0)[0], speed),
        approach,
        move(profile, end_of(approach), held, speed),
        Hold(held, DWELL),
        lift,
        move(profile, end_of(lift), lower.state(0.0)[0], carry),
        lower,
        move(profile, end_of(lower), free, speed),
        Hold(free, DWELL)]
    if onwards:
        segments.append(line(profile, over_tray, off, off + up, _OPENED, speed=speed,
                             tip_speed=reach))
    return segments
