"""
``bench novelty``: how often the warning of an unfamiliar scene is raised, rightly and wrongly.

A policy does its task in lockstep over unseen scenes: of the level that it was trained on (an
alarm is false), and of the three suites that leave it (an alarm is right). Alarms are those the
operator would see (``core.novelty``): of each of its two signs alone, and of both together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mivla_bringup.bench.result import Metric, Result, wilson
from mivla_bringup.demo import demo_checkpoint
from mivla_bringup.errors import BringupError
from mivla_bringup.lockstep import LockstepRig, run_policy
from mivla_bringup.task_episodes import PICTURES
from mivla_core.profile import load_profile
from mivla_drivers.sim.scenario import EVAL_SEEDS
from mivla_policy.core.novelty import NoveltyWatch
from mivla_policy.serve.port import Inference, Policy, PolicySpec, Query, make_policy
from mivla_teleop.core.expert_motion import start_pose

__all__ = ['run']

ROBOT = 'piper'
FAMILIAR = ('hard', 'easy')
SUITES = ('novel_object', 'unseen_pose', 'distractor')
# Those before were looked at when the quantile of the thresholds was chosen.
SEEDS = EVAL_SEEDS[60:]
LIMIT_S = 6.0       # of an episode: the warning has to come while there is something to warn of
MOST = 40           # episodes of each level
BOTH = 'both'       # the name of both signs together, beside their own


class _Sign:
    """What the runner would make of one sign, over an episode."""

    def __init__(self) -> None:
        self._watch, self.values, self.raised = NoveltyWatch(), list[float](), False

    def add(self, value: float) -> None:
        self._watch.add(value)
        self.values.append(value)
        self.raised = self.raised or bool(self._watch.warning)


class _Listening:
    """A policy, and what the runner would make of its novelty."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.signs: dict[str, _Sign] = {}
        self.seconds: dict[str, list[float]] = {}     # of the stages of a forward pass

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        return tuple(self._policy.specs)

    def reset(self) -> None:
        self.signs = {}

    def infer(self, queries: Sequence[Query]) -> Inference:
        answer = self._policy.infer(queries)
        told = {BOTH: answer.novelty, **answer.signs}
        for name, values in told.items():
            for value in values:
                if not math.isnan(value):
                    self.signs.setdefault(name, _Sign()).add(value)
        for stage, seconds in answer.seconds.items():
            self.seconds.setdefault(stage, []).append(1e3 * seconds)
        return answer


def run(seconds: float, domain: str, policy: str = '', episodes: int = 0,
        task: str = 'click_bell') -> Result:
    """
    Measure for about ``seconds``.

    :param domain: not used; nothing of it needs ROS.
    :param policy: checkpoint; default: the demo's.
    :param episodes: of each level; default: as many as there is time for, at most forty.
    :param task: that the policy was trained for.
    :raises BringupError: the checkpoint does not know its demonstrations.
    """
    del domain
    path = Path(policy).expanduser() if policy else demo_checkpoint()
    profile = load_profile(ROBOT)
    listening = _Listening(make_policy('mivla', [profile], {
        'checkpoint': str(path), 'threads': 1, 'disagreement': _measured(path)}))
    size = (PICTURES['camera_width'], PICTURES['camera_height'])
    rig = LockstepRig(profile, {camera.role: size for camera in profile.cameras}, task=task)
    found: dict[str, list[dict[str, Any]]] = {level: [] for level in (*FAMILIAR, *SUITES)}
    begun = time.monotonic()
    try:
        for seed in SEEDS[:episodes or MOST]:
            for level, outcomes in found.items():
                outcome = run_policy(rig, listening, seed, level, task=task, limit_s=LIMIT_S,
                                     arm=start_pose(profile, seed))
                if not listening.signs:
                    raise BringupError(f'{path} does not know its demonstrations (no '
                                       'novelty.safetensors); train it anew')
                outcomes.append({
                    'seed': seed, 'success': outcome.success,
                    'raised': {name: sign.raised for name, sign in listening.signs.items()},
                    'novelty': {name: [round(value, 3) for value in sign.values]
                                for name, sign in listening.signs.items()}})
            if not episodes and time.monotonic() - begun > seconds:
                break
    finally:
        rig.close()
    return _result(path, task, found, listening.seconds)


def _measured(path: Path) -> bool:
    """Return whether a checkpoint knows how far apart its answers usually are."""
    # torch takes seconds to import, and ``--help`` must not.
    from mivla_policy.model.novelty import read_familiar
    return any(one.doubt > 0.0 for one in read_familiar(path).values())


def _result(path: Path, task: str, found: Mapping[str, list[dict[str, Any]]],
            seconds: Mapping[str, list[float]]) -> Result:
    metrics, notes = {}, []
    for level, outcomes in found.items():
        what = 'false_alarms' if level in FAMILIAR else 'detected'
        count, lines = len(outcomes), []
        failed = [outcome for outcome in outcomes if not outcome['success']]
        for name in outcomes[0]['raised']:
            raised = sum(outcome['raised'][name] for outcome in outcomes)
            ending = '' if name == BOTH else f'_{name}'
            metrics[f'{what}_{level}{ending}'] = Metric(raised / count, '')
            low, high = wilson(raised, count)
            told = sum(outcome['raised'][name] for outcome in failed)
            lines.append(f'{name} {raised} [{low:.3f}, {high:.3f}], {told} of the failures')
        notes.append(f'{level}: of {count} episodes ({len(failed)} failures) warned in '
                     + '; '.join(lines))
    for stage, times in seconds.items():
        metrics[f'{stage}_ms'] = Metric(float(np.median(times)), 'ms')
    notes.append(f'checkpoint {path.name}, {task}, lockstep, {LIMIT_S:g} s, 95 % Wilson '
                 'intervals; an alarm is the warning on the console: three of five chunks above '
                 'the threshold')
    if 'disagreement' not in seconds:
        notes.append('by the distance of the pictures alone: how far apart its answers usually '
                     'are was not measured ("mivla policy calibrate")')
    series: dict[str, tuple[Sequence[float], str]] = {
        f'novelty {level}, {name}': ([value for outcome in outcomes
                                      for value in outcome['novelty'][name]], '')
        for level, outcomes in found.items() for name in outcomes[0]['raised']}
    series |= {stage: (times, 'ms') for stage, times in seconds.items()}
    return Result('novelty', sum(map(len, found.values())), metrics, series, dict(found), notes)
