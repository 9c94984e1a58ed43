"""
The scripted experts by the name of their task.

The one place to add one. They share their names with the tasks of the simulated bench, which tell
them where things are: poses in the base frame, in the order that the task's judge gives them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mivla_core.profile import RobotProfile
from mivla_teleop.core.click_bell_expert import Variation, plan_press
from mivla_teleop.core.expert_motion import ExpertError, Trajectory, start_pose
from mivla_teleop.core.gather_expert import GatherVariation, plan_gather, ready_pose
from mivla_teleop.core.transfer_expert import (
    BOTTLE,
    UMBRELLA,
    TransferStyle,
    TransferVariation,
    plan_transfer,
)

__all__ = ['EXPERTS', 'plan_task', 'task_start']

Planner = Callable[[RobotProfile, np.ndarray, np.ndarray, int], Trajectory]


def _click_bell(profile: RobotProfile, start: np.ndarray, places: np.ndarray,
                seed: int) -> Trajectory:
    return plan_press(profile, start, places[0, :3].tolist(), Variation.draw(seed))


def _transfer(style: TransferStyle) -> Planner:
    def plan(profile: RobotProfile, start: np.ndarray, places: np.ndarray,
             seed: int) -> Trajectory:
        return plan_transfer(profile, start, places[0], places[1], style,
                             TransferVariation.draw(seed))
    return plan


def _gather(profile: RobotProfile, start: np.ndarray, places: np.ndarray,
            seed: int) -> Trajectory:
    return plan_gather(profile, start, places, GatherVariation.draw(seed))


# Task -> its planner and how many poses it is told.
EXPERTS: dict[str, tuple[Planner, int]] = {
    'click_bell': (_click_bell, 1),
    'bottle_on_pad': (_transfer(BOTTLE), 2),
    'umbrella_rack': (_transfer(UMBRELLA), 2),
    'gather_objects': (_gather, 3),
}
# Tasks that begin about a posture of the robot, not about its home pose.
_FROM_POSTURE = ('gather_objects',)


def task_start(task: str, profile: RobotProfile, here: np.ndarray, seed: int) -> np.ndarray:
    """
    Return the pose (J,) in which a demonstration or trial of a task begins.

    :param here: pose (J,) of the posture that the robot has assumed; one without has no use of
        it.
    :param seed: of the scene.
    """
    if task in _FROM_POSTURE:
        return ready_pose(profile, here, seed)
    return start_pose(profile, seed)


def plan_task(task: str, profile: RobotProfile, start: np.ndarray, places: np.ndarray,
              seed: int) -> Trajectory:
    """
    Plan one demonstration of a task.

    :param start: joint positions (J,) that the command now stands at.
    :param places: poses (N, 7) of the task's things in the base frame: xyz, wxyz.
    :param seed: of the scene; decides how this demonstration differs from the next.
    :raises ExpertError: no expert for the task, or it cannot plan this.
    """
    if task not in EXPERTS:
        raise ExpertError(f'no scripted expert for task {task!r}; there are '
                          f'{", ".join(sorted(EXPERTS))}')
    planner, count = EXPERTS[task]
    places = np.asarray(places, dtype=float)
    if places.shape != (count, 7) or not np.isfinite(places).all():
        raise ExpertError(f'{task}: poses {places.shape}, expected ({count}, 7), all finite')
    return planner(profile, start, places, seed)
