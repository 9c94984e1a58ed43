"""
``mivla ablation``: what mutual-imitation pre-training is worth, with few demonstrations.

MiVLA's ablation (arXiv 2512.15411, Table 3) at any scale: scratch, hands alone, one direction,
both. Every arm is fine-tuned with the same network, recipe, steps and robot demonstrations, and
meets the same unseen scenes. The robot's part of pre-training is those same demonstrations: what
an arm has over scratch is the hands and the mapping, and more steps of training; 'longer' is
scratch with as many steps as the others have in all. Goes on where it was left.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mivla_bringup.arguments import listed
from mivla_bringup.bench.result import Metric, Result, results_folder, revision, wilson
from mivla_bringup.cli import Parser
from mivla_bringup.errors import UsageError
from mivla_bringup.evaluate import robot_of
from mivla_bringup.evaluation.episodes import Request, jobs_of, run_job
from mivla_bringup.evaluation.journal import Journal
from mivla_bringup.evaluation.paired import compare
from mivla_bringup.evaluation.policies import policy_ref
from mivla_bringup.finetune import shower
from mivla_bringup.lockstep_demo import demonstrations
from mivla_bringup.task_episodes import PICTURES
from mivla_core.profile import RobotProfile, load_profile
from mivla_drivers.sim.scenario import INSTRUCTIONS, LEVELS, PLACES, demonstration_seeds
from mivla_drivers.sim.tasks import task_of
from mivla_policy.core.episode import Episode

__all__ = ['ARMS', 'main', 'pairs']

ARMS = ('scratch', 'longer', 'human', 'h2r', 'r2h', 'both')
UNTRAINED = ('scratch', 'longer')    # begin with random weights


@dataclass(frozen=True)
class _Setting:
    """What all arms share."""

    profile: RobotProfile
    task: str
    level: str
    count: int
    folder: Path
    preset: str
    recipe: str
    steps: int
    pretraining_steps: int
    seed: int
    threads: int

    def episodes(self) -> list[Episode]:
        """Return the robot's demonstrations; the same ones every time."""
        seeds = demonstration_seeds(self.task, self.count)
        return demonstrations(self.profile, self.task, seeds, self.level,
                              size=(PICTURES['camera_width'], PICTURES['camera_height']),
                              say=lambda line: print(line, flush=True))


def main(argv: Sequence[str]) -> int:
    """Train and measure the arms that are asked for; returns the exit code."""
    arguments = _parser().parse_args(argv)
    arms = tuple(dict.fromkeys(listed(arguments.arms)))
    for arm in arms or ('',):
        if arm not in ARMS:
            raise UsageError(f'--arms {arm}: expected {", ".join(ARMS)}')
    hands = Path(arguments.hands).expanduser() if arguments.hands else None
    if hands is None and set(arms) & {'human', 'h2r', 'both'}:
        raise UsageError('--hands: name a folder; "mivla generate-hands" makes one')
    profile = load_profile(arguments.robot or robot_of(arguments.task))
    setting = _Setting(profile, arguments.task, arguments.level, arguments.demonstrations,
                       Path(arguments.out).expanduser(), arguments.preset, arguments.recipe,
                       arguments.steps, arguments.pretraining_steps, arguments.seed,
                       arguments.threads)
    made = _train(setting, arms, hands, arguments.max_hands)
    result = _measure(setting, made, arguments.episodes)
    result.save(results_folder())
    print(result.table())
    return 0


def _train(setting: _Setting, arms: Sequence[str], hands: Path | None,
           most: int) -> dict[str, Path]:
    """Return the checkpoint of every arm; trains those that are not there."""
    from mivla_policy.formats.egodex import read
    from mivla_policy.human.mapping import HandMapping
    from mivla_policy.human.settings import load_mapping
    from mivla_policy.learn.pretrain import VARIANTS, Material, Plan, pretrain
    from mivla_policy.learn.start import Start
    from mivla_policy.learn.train import finetune, training_folder
    from mivla_policy.model.config import load_preset, load_recipe
    preset = load_preset(setting.preset)
    tuning = load_recipe(setting.recipe) if setting.recipe else preset.training
    preset, tuned = (replace(preset, training={**training, 'save_every': 200})
                     for training in (preset.training, tuning))
    roles = [camera.role for camera in setting.profile.cameras]
    config = preset.config(setting.profile.packing.space, roles)
    found = {arm: setting.folder / f'tuned_{arm}' for arm in arms}
    todo = [arm for arm in arms if not found[arm].exists()]
    if not todo:
        return found
    # Before the demonstrations: not every robot has an arm that a hand can stand for.
    mapping = None if set(todo) <= set(UNTRAINED) else HandMapping(setting.profile, load_mapping())
    episodes, seen = setting.episodes(), None
    for arm in todo:
        start = None
        if mapping is not None and arm not in UNTRAINED:
            trunk = setting.folder / f'pretrained_{arm}'
            if not trunk.exists():
                if seen is None and hands is not None and VARIANTS[arm][0]:
                    seen = list(read(hands))[:most]
                plan = Plan(resume=_resumable(training_folder(trunk)), progress=shower())
                pretrain(Material(setting.profile, mapping, episodes, seen or []), preset, trunk,
                         variant=arm, name=f'pretrained_{arm}', seed=setting.seed,
                         steps=setting.pretraining_steps, threads=setting.threads, plan=plan,
                         events=False)
            start = Start.read(trunk, config.cameras, config.dt_ns, setting.profile.hash)
        steps = setting.steps + (setting.pretraining_steps if arm == 'longer' else 0)
        finetune(episodes, setting.profile, tuned, found[arm], name=f'tuned_{arm}',
                 seed=setting.seed, steps=steps, threads=setting.threads, start=start,
                 plan=Plan(resume=_resumable(training_folder(found[arm]))), progress=shower(),
                 events=False)
    return found


def _resumable(folder: Path) -> bool:
    """Say whether a training left something to go on with; what cannot be is removed."""
    if (folder / 'state.json').is_file():
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _measure(setting: _Setting, made: dict[str, Path], count: int) -> Result:
    """Let every arm meet the same scenes, one after the other in this process."""
    refs = {arm: policy_ref(str(path)) for arm, path in made.items()}
    robot = str(setting.profile.name)
    request = Request(tuple(refs.values()), robot, setting.task, (setting.level,), count, 0,
                      task_of(setting.task).limit_s)
    begun, held = time.monotonic(), dict[str, Any]()
    with Journal(setting.folder / 'episodes.jsonl') as journal:
        jobs = jobs_of(request, setting.profile.hash, {ref.digest: () for ref in refs.values()})
        todo = [job for job in jobs if job not in journal.rows]
        for number, job in enumerate(todo, 1):
            journal.add(run_job(job, request, revision(), held))
            if number % 20 == 0 or number == len(todo):
                print(f'ablation: {number} of {len(todo)} episodes, '
                      f'{time.monotonic() - begun:.0f} s', flush=True)
        rows = {arm: [journal.rows[job] for job in jobs if job.policy == ref.digest]
                for arm, ref in refs.items()}
    return _result(setting, made, rows)


def _result(setting: _Setting, made: dict[str, Path], rows: dict[str, list[Any]]) -> Result:
    metrics, notes, raw = {}, [], {}
    for arm, outcomes in rows.items():
        wins = sum(row.success for row in outcomes)
        low, high = wilson(wins, len(outcomes))
        metrics[f'{arm}_success'] = Metric(wins / len(outcomes), '')
        metrics[f'{arm}_score'] = Metric(sum(row.score for row in outcomes) / len(outcomes), '')
        notes.append(f'{arm}: {wins} of {len(outcomes)}, 95 % Wilson interval '
                     f'[{low:.3f}, {high:.3f}]')
        about = json.loads((made[arm] / 'config.json').read_text())['provenance']
        trunk = made[arm].with_name(f'pretrained_{arm}')
        raw[arm] = {
            'outcomes': [{'seed': row.job.seed, 'success': row.success, 'score': row.score,
                          'seconds': row.seconds, 'stopped': row.stopped} for row in outcomes],
            'training_s': about['seconds'], 'steps': about['steps'], 'start': about.get('start')}
        if trunk.exists():
            before = json.loads((trunk / 'config.json').read_text())['provenance']
            raw[arm]['pretraining'] = {key: before[key] for key in (
                'pretraining', 'steps', 'seconds', 'samples', 'unreached')} | {
                'hand_episodes': len(before['hand_episodes']),
                'robot_episodes': len(before['robot_episodes'])}
    for arm, other in pairs(rows):
        pair = compare([(row.success, row.score) for row in rows[arm]],
                       [(row.success, row.score) for row in rows[other]])
        metrics[f'{arm}_ahead' + ('_of_longer' if other == 'longer' else '')] = Metric(
            pair.difference, '')
        notes.append(f'{arm} less {other}: {pair.difference:+.3f}, 95 % '
                     f'[{pair.interval[0]:+.3f}, {pair.interval[1]:+.3f}], p = {pair.p:.2g}')
    notes.append(
        f'{setting.task}, level {setting.level}, {setting.count} robot demonstrations, preset '
        f'{setting.preset}, recipe {setting.recipe or "of the preset"}, {setting.steps} steps of '
        'fine-tuning after '
        f'{setting.pretraining_steps} of pre-training (scratch: none; longer: of fine-tuning '
        f'instead), training seed {setting.seed}; one training per arm: the intervals are of the '
        f'scenes, not of the training; instruction "{INSTRUCTIONS[setting.task]}"')
    first = next(iter(rows.values()))
    return Result(f'ablation {setting.task}', len(first), metrics, {}, raw, notes)


def pairs(arms: Collection[str]) -> list[tuple[str, str]]:
    """Return which arms are compared with which: all with those that begin at random."""
    return [(arm, other) for other in UNTRAINED if other in arms for arm in arms
            if ARMS.index(arm) > ARMS.index(other)]


def _parser() -> Parser:
    parser = Parser(prog='mivla ablation', description=__doc__.partition('\n\n')[0])
    parser.add_argument('--task', default='click_bell', choices=sorted(INSTRUCTIONS))
    parser.add_argument('--robot', default='',
                        help='robot profile: a name or a path (default: the one of the task)')
    parser.add_argument('--level', default='hard', choices=LEVELS)
    parser.add_argument('--arms', default=','.join(ARMS), help='with commas: ' + ', '.join(ARMS))
    parser.add_argument('--demonstrations', type=int, default=10, choices=sorted(PLACES),
                        help='of the robot, by the scripted expert in lockstep')
    parser.add_argument('--hands', default='', metavar='DIR', help='demonstrations by hand')
    parser.add_argument('--max-hands', type=int, default=100, help='of them, at most')
    parser.add_argument('--episodes', type=int, default=100, help='scenes of the evaluation')
    parser.add_argument('--preset', default='tiny', help='a name in config/policies, or a file')
    parser.add_argument('--recipe', default='', help='of the fine-tuning: a name in '
                        'config/policies/recipes, or a file (default: the preset\'s)')
    parser.add_argument('--steps', type=int, default=1200, help='of fine-tuning')
    parser.add_argument('--pretraining-steps', type=int, default=1200)
    parser.add_argument('--seed', type=int, default=0, help='of the trainings')
    parser.add_argument('--threads', type=int, default=1, help='of torch')
    parser.add_argument('--out', default='runs/ablation', help='folder of checkpoints and journal')
    return parser
