"""
Does a robot on legs get its tools where they are sent, through the whole graph?

As ``reach``, for LocoMan in a posture of manipulation: joint goals about the posture's own pose, a
source that streams them, and the error of the tool in the simulated world, seen from the feet.
"""

from __future__ import annotations

import os
from typing import Optional

import numpy as np

from mivla_bringup.operate import OperateError
from mivla_bringup.reach import Goal, Reached, Source, base_of, error_at, still_driven
from mivla_bringup.rig import Rig
from mivla_core.kinematics import Chain, rotation
from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm
from mivla_drivers.core.envelope import Envelope
from mivla_drivers.core.locoman_checks import refusal
from mivla_drivers.core.locoman_postures import (
    BASE,
    NOMINAL,
    POSTURES,
    Posture,
    consistent,
    route,
)
from mivla_drivers.core.robot_envelope import envelope_of
from mivla_drivers.sim.tips import ToolWatch

__all__ = ['SIDES', 'goals_of_side', 'reach_with']

# Which posture frees which arm.
SIDES = {'right': Posture.MANIPULATE_RIGHT, 'left': Posture.MANIPULATE_LEFT}

# How far from the posture's own pose [rad]: leg, arm, trunk.
_SPAN = np.array((0.3, 0.4, 0.3, 0.5, 0.4, 0.6))
_LEAN = 0.08
_MARGIN, _CLEARANCE = 0.05, 0.015
_APART = 0.05       # m between the tool's poses that follow on each other
_POINTS = 12        # of a way that are looked at
_TRIES = 2000
_SPEED = 1.0        # rad/s


def goals_of_side(profile: RobotProfile, arm: Arm, count: int, seed: int = 0) -> list[Goal]:
    """
    Choose poses of one side, and ways to them, that driver and body allow with room to spare.

    :returns: goals whose ``tips`` hold the one tool (1, 4, 4) in the frame of nominal stance.
    :raises OperateError: there are not so many.
    """
    rng, envelope, goals = np.random.default_rng(seed), envelope_of(profile), []
    posture = SIDES[arm.name]
    ready = np.array(route(Posture.STANCE, posture, NOMINAL)[-1].goal)
    last = Goal(_tool(profile, arm, ready)[None], ready)
    for _ in range(_TRIES):
        goal = _draw(profile, arm, ready, rng)
        if goal is not None and np.linalg.norm(
                goal.tips[0, :3, 3] - last.tips[0, :3, 3]) > _APART and _allowed(
                envelope, posture, last.joints, goal.joints):
            goals.append(goal)
            last = goal
        if len(goals) == count:
            return goals
    raise OperateError(f'{profile.name}: only {len(goals)} of {count} poses of the {arm.name} '
                       'side are allowed')


def _draw(profile: RobotProfile, arm: Arm, ready: np.ndarray,
          rng: np.random.Generator) -> Optional[Goal]:
    joints, first = ready.copy(), profile.place_of(arm).start
    mine = slice(first, first + len(_SPAN))
    joints[mine] += rng.uniform(-1.0, 1.0, len(_SPAN)) * _SPAN
    joints[BASE][3:] += rng.uniform(-_LEAN, _LEAN, 3)
    joints = np.array(consistent(joints.tolist(), SIDES[arm.name]))
    if (joints[mine] < profile.lower[mine] + _MARGIN).any() or (
            joints[mine] > profile.upper[mine] - _MARGIN).any():
        return None
    return Goal(_tool(profile, arm, joints)[None], joints)


def _tool(profile: RobotProfile, arm: Arm, joints: np.ndarray) -> np.ndarray:
    """Return the pose (4, 4) of a tool in the frame that the trunk has in nominal stance."""
    chain, first = Chain(arm.kinematics), profile.place_of(arm).start
    trunk = np.eye(4)
    trunk[:3, 3], trunk[:3, :3] = joints[BASE][:3], rotation(*joints[BASE][3:])
    return trunk @ base_of(arm) @ chain.tip(joints[first:first + chain.joints])


def _allowed(envelope: Envelope, posture: Posture, start: np.ndarray,
             goal: np.ndarray) -> bool:
    """Whether all of the way to a goal is."""
    way = (start + (goal - start) * share for share in np.linspace(0.0, 1.0, _POINTS))
    return all(not refusal(point, posture) and envelope.clearance(point) > _CLEARANCE
               for point in (consistent(each.tolist(), posture) for each in way))


def reach_with(rig: Rig, profile: RobotProfile, side: str, count: int = 5,
               seed: int = 0) -> list[Reached]:
    """
    Bring a robot that stands into the posture of a side, and its tool to some poses.

    Afterwards the mode is idle and the posture stays.

    :raises OperateError: the driver refused or stopped.
    """
    arm, posture = profile.arm(side), SIDES[side]
    goals, index = goals_of_side(profile, arm, count, seed), tuple(SIDES).index(side)
    rig.client.set_posture(posture.value)
    watch = ToolWatch(profile, int(os.environ.get('ROS_DOMAIN_ID') or 0), rig.robot)
    results = []
    try:
        with Source(rig, profile, _SPEED).running() as source:
            rig.client.set_mode('teleop')
            for goal in goals:
                source.go(goal.joints)
                still_driven(rig)
                results.append(error_at(
                    rig, lambda: watch.tools(POSTURES[posture].support)[index], side,
                    goal.tips[0]))
            rig.client.set_mode('idle')
    finally:
        watch.close()
    return results
