"""
``bench faults``: every fault of every robot, judged at the emulated device.

The robot is in motion when a case begins. What must happen is said beforehand (``fault_cases``);
whether the run was safe is judged from a log that the simulated world keeps at the device
(``mivla_drivers.sim.witness`` and ``judge``), which knows nothing of the driver.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mivla_bringup.arguments import listed
from mivla_bringup.bench.codec_fuzz import fuzz
from mivla_bringup.bench.fault_acts import Sway, Trot
from mivla_bringup.bench.fault_cases import EXPERT, Case, Mover, cases_of
from mivla_bringup.bench.fault_run import Outcome, recover, run_case
from mivla_bringup.bench.fault_watch import Watch
from mivla_bringup.bench.result import Metric, Result, percentiles
from mivla_bringup.errors import UsageError
from mivla_bringup.operate import OperateError
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_bringup.stack import StackOptions, build
from mivla_bringup.task_episodes import PICTURES, bring_up
from mivla_core.profile import RobotProfile, available_profiles, load_profile
from mivla_core.stall_watch import StallWatch
from mivla_core.timing import NowNs
from mivla_drivers.sim.judge import LOWEST_TRUNK, JudgeLimits, Span, judge, rest_after
from mivla_drivers.sim.scenario import DEMO_SEEDS
from mivla_drivers.sim.witness import TRUNK, load_witness

__all__ = ['judge_outcomes', 'run']

CODECS_ONLY = 'codecs'
# s: where the machine itself stood still for longer, a case says nothing; it is run again.
_STOOD, _TRIES = 0.05, 4
_WATCH_PRIORITY = 60        # of who sees it; the control loops have 50
# A target of the planner is judged from so much before the fault on.
_BEFORE_NS = 500_000_000
# What the fall of a robot on legs brings about; how low it came is published instead.
_OF_A_FALL = frozenset({'trunk too low', 'joint beyond the profile', 'moves after it had stopped',
                        'target far from its joint'})
_OF_A_LEG = ('_hip', '_thigh', '_calf')
# rad: of joints on an arm of which another one falls onto the table; an ARX-5 L5 whose shoulder
# fell shook its elbow by 0.19. Their targets are judged instead.
_SHAKEN, _SHAKEN_LINEAR = 0.3, 0.05
# Where this machine keeps its ports is nobody's business.
_FOLDERS = re.compile(r'(?<![\w.])/(?:[\w.+-]+/)+')
_SETTLE_NS = 100_000_000    # between the last set-point of a stop and the joints' standing


def run(seconds: float, domain: str, robots: str = '', cases: str = '',
        frames: int = 1_000_000) -> Result:
    """
    Run the cases of some robots, and the codecs' fuzz.

    :param seconds: nothing depends on it: each case has its own length.
    :param robots: names, separated by commas; empty: all that have a profile; 'codecs': none,
        the codecs' fuzz alone.
    :param cases: regular expression that a case's name must hold; empty: all.
    :param frames: random frames per codec.
    """
    del seconds
    if robots == CODECS_ONLY:
        return _result({}, fuzz(frames), frames)
    names = listed(robots) or sorted(available_profiles())
    wanted = re.compile(cases)
    outcomes: dict[str, list[Outcome]] = {}
    for name in names:
        profile = load_profile(name)
        chosen = [case for case in cases_of(profile) if wanted.search(case.name)]
        # A robot that walks may fall: each of these cases has a world of its own.
        groups = [*([case for case in chosen if case.mover is not Mover.TROT
                     and case.on_loss == on_loss] for on_loss in ('', 'hold_last')),
                  *([case] for case in chosen if case.mover is Mover.TROT)]
        rows = [outcome for group in groups if group
                for outcome in _robot(name, profile, group, domain)]
        if rows:
            outcomes[profile.name] = rows
    if not outcomes:
        raise UsageError(f'no case of {", ".join(names)} matches {cases!r}')
    escaped = fuzz(frames) if not cases else {}
    return _result(outcomes, escaped, frames)


def _robot(reference: str, profile: RobotProfile, cases: Sequence[Case],
           domain: str) -> list[Outcome]:
    """Run the cases of one robot in one stack, and judge them afterwards."""
    with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
        folder = Path(text)
        log = folder / 'witness.npz'
        movers = {case.mover for case in cases}
        policy = Mover.POLICY in movers
        extra: dict[str, dict[str, Any]] = {'world': {'witness': str(log)}}
        if cases[0].on_loss:
            extra['world']['on_loss'] = cases[0].on_loss
        if policy:
            extra['policy_server'] = {'policy_parameters': ['sway=0.4']}
        stack = build(StackOptions(
            robots=(reference,), sim=True, policy='constant_time' if policy else '',
            teleop=EXPERT if Mover.TELEOP in movers else 'none',
            cameras=policy, record=True, bags=str(folder / 'bags'), seed=DEMO_SEEDS[0],
            domain=domain, **PICTURES, extra=extra))
        # What is broken on purpose is not to push out what a robot of this user has kept.
        os.environ['MIVLA_BLACKBOX_DIR'] = str(folder / 'blackbox')
        offset = time.time_ns() - time.monotonic_ns()
        try:
            outcomes, _ = with_stack(stack, lambda rig: _job(rig, profile, cases),
                                     on_event=warnings_to())
        except OperateError as err:
            # One robot that does not come up must not hide what the others do.
            print(err, flush=True)
            return [_not_run(case, f'not run: {err}') for case in cases]
        judge_outcomes(outcomes, profile, log, offset)
    return outcomes


def _job(rig: Rig, profile: RobotProfile, cases: Sequence[Case]) -> list[Outcome]:
    watch = Watch(rig, profile.rates.control)
    bring_up(rig, lambda text: print(f'bring-up: {text}', flush=True))
    if any(case.mover is Mover.POLICY for case in cases):
        rig.wait('policy/status', lambda message: True, 60.0, 'the policy runner')
    rig.client.home()
    outcomes: list[Outcome] = []
    with closing(StallWatch(_WATCH_PRIORITY)) as machine:
        for number, case in enumerate(cases, 1):
            print(f'{profile.name} {number} of {len(cases)}: {case.name} ...', end=' ', flush=True)
            why = _judgeable(rig, case, watch, profile, machine, outcomes)
            print('; '.join(outcomes[-1].problems) or case.expect.value, flush=True)
            if why:
                # A robot that does not come back must not hide what the cases before it say.
                outcomes += [_not_run(each, f'not run: {case.name} was the last') for each in
                             cases[number:]]
                break
    return outcomes


def _judgeable(rig: Rig, case: Case, watch: Watch, profile: RobotProfile, machine: StallWatch,
               outcomes: list[Outcome]) -> str:
    """
    Run a case, and again where the machine itself stood still, and append its outcome.

    :returns: why the robot did not come back from it; '' when it did.
    """
    for again in range(_TRIES):
        machine.worst()
        outcome = _one(rig, case, watch, profile)
        outcome.stood, outcome.again = machine.worst(), again
        why = '' if case.mover is Mover.TROT else _recovered(rig, case)
        if why or outcome.stood < _STOOD or case.mover is Mover.TROT:
            break
        print(f'(the machine stood still for {outcome.stood * 1e3:.0f} ms: again)', end=' ',
              flush=True)
    if why:
        outcome.problems.append(why)
    outcomes.append(outcome)
    return why


def _recovered(rig: Rig, case: Case) -> str:
    try:
        recover(rig, case)
    except OperateError as err:
        return str(err)
    return ''


def _one(rig: Rig, case: Case, watch: Watch, profile: RobotProfile) -> Outcome:
    """Run a case with what moves the robot in it."""
    try:
        if case.mover is Mover.TROT:
            with Trot(rig) as trot:
                return run_case(rig, case, watch, profile, trot)
        if case.mover is Mover.OWN:
            with Sway(rig, profile, profile.home.copy()) as sway:
                return run_case(rig, case, watch, profile, sway)
        return run_case(rig, case, watch, profile, None)
    except OperateError as err:
        return _not_run(case, str(err))


def _not_run(case: Case, why: str) -> Outcome:
    now = time.time_ns()
    return Outcome(case, now, now, problems=[why])


def judge_outcomes(outcomes: Sequence[Outcome], profile: RobotProfile, path: Path,
                   offset: int) -> None:
    """
    Add what the judge says to every outcome.

    :param path: the witness log that the world wrote.
    :param offset: ROS time less the log's monotonic time [ns].
    """
    log, limits = load_witness(path), JudgeLimits.of(profile)
    for outcome in outcomes:
        begin, end = NowNs(outcome.begun - offset), NowNs(outcome.released - offset)
        standing = (None if outcome.latched is None
                    else NowNs(outcome.latched - offset + _SETTLE_NS))
        span = Span(NowNs(begin - _BEFORE_NS), end, standing, end)
        heights = log.of(TRUNK, begin, end)[1]
        if len(heights):
            outcome.trunk = float(heights[:, 0].min())
        outcome.unsafe = [f'{finding.kind}: {finding.text} at '
                          f'{(finding.at - begin) * 1e-9:+.3f} s'
                          for finding in judge(log, _limits(limits, outcome.case, profile), span)
                          if not (outcome.case.falls and finding.kind in _OF_A_FALL)]
        if outcome.latched is not None and outcome.braking is not None:
            outcome.rest = rest_after(log, NowNs(outcome.braking - offset), end)


def _limits(limits: JudgeLimits, case: Case, profile: RobotProfile) -> JudgeLimits:
    """
    Widen the limits by what no driver can help.

    A joint whose motor gave up its torque sinks and shakes the others; the trunk of a robot that
    walks is told where the feet happen to carry it, and its legs swing as the gait wants it.
    """
    if case.mover is Mover.TROT:
        walks = [joint.role == 'base' or joint.name.endswith(_OF_A_LEG)
                 for joint in profile.joints]
        limits = replace(limits, step=np.where(walks, np.inf, limits.step))
    if not case.limp:
        return limits
    linear = [joint.unit == 'm' for joint in profile.joints]
    led, moved = limits.moved.copy(), np.where(linear, _SHAKEN_LINEAR, _SHAKEN)
    led[case.limp - 1] = moved[case.limp - 1] = np.inf
    return replace(limits, moved=moved, led=led)


def _result(outcomes: dict[str, list[Outcome]], escaped: dict[str, int], frames: int) -> Result:
    every = [outcome for rows in outcomes.values() for outcome in rows]
    metrics = _metrics(outcomes, every) if outcomes else {}
    if escaped:
        metrics['codec_exceptions'] = Metric(float(sum(escaped.values())), '', '=0')
    series: dict[str, tuple[Sequence[float], str]] = {
        'reaction': (_ms(o.react for o in every), 'ms'),
        'reaction over age': (_ms(o.excess for o in every), 'ms'),
        'braking to rest': (_ms(o.rest for o in every), 'ms')} if outcomes else {}
    raw = {'robots': {name: [_row(o) for o in rows] for name, rows in outcomes.items()},
           'codec_frames': frames if escaped else 0, 'codec_exceptions': escaped}
    notes = [_line(name, o) for name, rows in outcomes.items() for o in rows]
    if outcomes:
        notes.append('reaction: from the fault being detectable to the first set-point that '
                     'follows nobody; the age is the profile\'s ride-through or latch age')
        notes.append(f'run_again: runs left out because a bare process of higher priority than '
                     f'every driver was not woken for {_STOOD * 1e3:.0f} ms')
    if escaped:
        notes.append(f'{frames} random frames per codec: {", ".join(escaped)}')
    return Result('faults', len(every) or frames * len(escaped), metrics, series, raw, notes)


def _ms(seconds: Iterable[float | None]) -> list[float]:
    return [value * 1e3 for value in seconds if value is not None]


def _metrics(outcomes: dict[str, list[Outcome]], every: Sequence[Outcome]) -> dict[str, Metric]:
    tick_ms = min(1e3 / load_profile(name).rates.control for name in outcomes)
    return {
        'unsafe_runs': Metric(float(sum(bool(o.unsafe) for o in every)), '', '=0'),
        'unnamed_faults': Metric(float(sum(o.unnamed for o in every)), '', '=0'),
        'wrong_outcomes': Metric(float(sum(bool(o.problems) for o in every)), '', '=0'),
        'falls': Metric(float(sum(o.trunk is not None and o.trunk < LOWEST_TRUNK
                                  for o in every)), ''),
        'run_again': Metric(float(sum(o.again for o in every)), ''),
        'react_p99_ms': Metric(percentiles(_ms(o.react for o in every))['p99'], 'ms'),
        'react_over_age_p99_ms': Metric(percentiles(_ms(o.excess for o in every))['p99'], 'ms',
                                        f'<={tick_ms:g}'),
        'rest_ms': Metric(percentiles(_ms(o.rest for o in every))['max'], 'ms')}


def _plain(text: str) -> str:
    return _FOLDERS.sub('', text)


def _row(outcome: Outcome) -> dict[str, object]:
    return {'case': outcome.case.name, 'expect': outcome.case.expect.value,
            'problems': [_plain(text) for text in outcome.problems], 'unsafe': outcome.unsafe,
            'named': _plain(outcome.named), 'unnamed': outcome.unnamed,
            'react_s': outcome.react, 'over_age_s': outcome.excess, 'rest_s': outcome.rest,
            'lowest_trunk_m': outcome.trunk, 'detail': _plain(outcome.detail),
            'why_unnamed': outcome.case.why, 'machine_stood_s': outcome.stood,
            'run_before': outcome.again}


def _line(robot: str, outcome: Outcome) -> str:
    """Return one line of the table of cases."""
    def number(value: float | None) -> str:
        return '-' if value is None or not np.isfinite(value) else f'{value * 1e3:.0f}'

    case = outcome.case
    said = ('UNNAMED' if outcome.unnamed else 'named' if outcome.named else 'cannot be told')
    fell = ('' if outcome.trunk is None or not (case.falls or case.on_loss) else
            f'trunk down to {outcome.trunk:.2f} m')
    bad = _plain('; '.join(part for part in (fell, *outcome.problems, *outcome.unsafe) if part))
    return (f'{robot:9} {case.name:26} {case.expect.value:14} react {number(outcome.react):>5} '
            f'rest {number(outcome.rest):>5} ms  {said:14} {bad}').rstrip()
