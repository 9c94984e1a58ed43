"""
Episodes of a simulated task on a running rig: one by the policy, one by the scripted expert.

Both are what an operator would do by hand with ``mivla``: place the scene, bring the arm to its
start, name the source, record, take the mode back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mivla_bringup.operate import OperateError
from mivla_bringup.rig import Interrupted, Rig
from mivla_drivers.sim.scenario import INSTRUCTIONS
from mivla_drivers.sim.tasks import task_of
from mivla_msgs.msg import DriverState, RecorderStatus

__all__ = ['EpisodeResult', 'PICTURES', 'bring_up', 'expert_episode', 'policy_episode']

# Pictures of the simulated demo: what two cores carry at 30 Hz beside everything else. Recording,
# training, evaluation and demo use the same, so that none is easier than the other.
PICTURES: Mapping[str, Any] = {'camera_width': 320, 'camera_height': 240, 'camera_fps': 30.0}

_STILL = (DriverState.HOLDING, DriverState.MOVING)


@dataclass(frozen=True)
class EpisodeResult:
    """
    One episode on a running rig.

    :param seconds: from the scene's reset to success; NaN without success.
    :param folder: of the recorded episode; None when nothing was recorded.
    :param realtime_factor: lowest of the episode.
    :param rejected: reasons for which the recorder rejected the episode.
    :param stopped: what ended the episode early; '' when nothing did.
    """

    seed: int
    success: bool
    seconds: float
    progress: float
    folder: Path | None
    realtime_factor: float
    rejected: tuple[str, ...]
    stopped: str


def bring_up(rig: Rig, say: Callable[[str], None], timeout: float = 60.0) -> None:
    """
    Wait until every part of the rig is there, then enable the driver.

    :raises OperateError: a part did not come up; says which.
    """
    say('waiting for the simulated world')
    rig.wait('sim/state', lambda message: True, timeout, 'the simulated world')
    say('waiting for the driver')
    rig.wait('driver/state', lambda message: True, timeout, 'the driver')
    say('waiting for the recorder')
    rig.wait('recorder/status', lambda m: m.state == RecorderStatus.IDLE, timeout, 'the recorder')
    state = rig.newest('driver/state')
    if state.state in (DriverState.STOPPED, DriverState.FAULT):
        rig.client.reset()
    if rig.newest('driver/state').state == DriverState.DISABLED:
        say('enabling the arm')
        rig.client.enable()


def place(rig: Rig, task: str, seed: int, level: str) -> None:
    """Bring the robot home, or into the task's posture from there, and place a seed's scene."""
    rig.client.set_mode('idle')
    rig.client.home()
    if posture := task_of(task).posture:
        rig.client.set_posture(posture)
    before = rig.newest('sim/state').episode
    rig.client.reset_scene(task, seed, level)
    rig.wait('sim/state', lambda m: m.episode > before and m.seed == seed, 5.0,
             f'the scene of seed {seed}')


def prepare(rig: Rig) -> None:
    """Have the scripted expert bring the arm to the scene's seeded start pose."""
    rig.client.set_mode('teleop')
    rig.client.trigger('expert/prepare', 30.0)


def release(rig: Rig) -> None:
    """Take the mode from the expert and end its stream, whose last pose would be stale later."""
    if rig.newest('driver/state').state in _STILL:
        rig.client.set_mode('idle')
    rig.client.trigger('expert/stop', 5.0)


def expert_episode(rig: Rig, task: str, seed: int, level: str) -> EpisodeResult:
    """
    Let the scripted expert demonstrate the task once through the teleop input, recorded.

    A demonstration that misses is discarded.

    :raises OperateError: a part of the rig did not answer or refused.
    """
    place(rig, task, seed, level)
    prepare(rig)
    rig.client.start_episode(task, INSTRUCTIONS[task], 'scripted expert',
                             json.dumps({'seed': seed, 'level': level}))
    stopped, success = '', False
    try:
        rig.client.trigger('expert/perform', 30.0)
        success = bool(rig.wait('sim/state', lambda m: m.seed == seed, 1.0, 'the scene').success)
        state = rig.newest('driver/state')
        if state.state not in _STILL:
            stopped = f'the driver stopped: {state.detail}'
    finally:
        finished = rig.client.finish_episode('success' if success else 'discard', stopped)
        release(rig)
    state = rig.newest('sim/state')
    return EpisodeResult(seed, success, float(state.success_seconds), float(state.progress),
                         Path(finished.folder), float(state.realtime_factor_min),
                         finished.reasons if finished.rejected else (), stopped)


def policy_episode(rig: Rig, task: str, seed: int, level: str, limit_s: float,
                   operator: str = 'mivla', varied_start: bool = False) -> EpisodeResult:
    """
    Let the policy do the task once, recorded.

    :param varied_start: from the scene's seeded start pose instead of home; needs the expert.
    :raises OperateError: a part of the rig did not answer or refused.
    """
    place(rig, task, seed, level)
    if varied_start:
        prepare(rig)
        release(rig)
    rig.client.set_instruction(INSTRUCTIONS[task])
    rig.client.start_episode(task, INSTRUCTIONS[task], operator,
                             json.dumps({'seed': seed, 'level': level}))
    stopped, success = '', False
    try:
        rig.client.set_mode('policy')
        success, stopped = _until_success(rig, limit_s)
    except Interrupted:
        stopped = 'interrupted by the operator'
        raise
    finally:
        # Whatever happened, the recorder closes its episode and the policy lets go.
        if rig.newest('driver/state').state in _STILL:
            rig.client.set_mode('idle')
        finished = rig.client.finish_episode('success' if success else 'failure', stopped)
    state = rig.newest('sim/state')
    return EpisodeResult(seed, success, float(state.success_seconds), float(state.progress),
                         Path(finished.folder), float(state.realtime_factor_min),
                         finished.reasons if finished.rejected else (), stopped)


def _until_success(rig: Rig, limit_s: float) -> tuple[bool, str]:
    """Wait for success, the time limit or a driver that stopped; return (success, why)."""

    def over(message: object) -> bool:
        return bool(message.success) or rig.newest(  # type: ignore[attr-defined]
            'driver/state').state not in _STILL

    try:
        rig.wait('sim/state', over, limit_s, 'success')
    except OperateError:
        return False, ''
    state = rig.newest('driver/state')
    if state.state not in _STILL:
        return False, f'the driver stopped: {state.detail}'
    # A little longer: the picture of the press belongs to the episode.
    rig.pause(0.3)
    return True, ''
