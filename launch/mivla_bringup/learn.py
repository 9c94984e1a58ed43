"""
Demonstrations of the scripted expert as bags (``mivla demonstrate``), and from nothing to the
demo's checkpoint and its evaluation (``mivla train-demo``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mivla_bringup.cli import Parser
from mivla_bringup.demonstrations import episode_folders
from mivla_bringup.errors import BringupError
from mivla_bringup.finetune import finetune_from
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_bringup.stack import StackOptions, build
from mivla_bringup.task_episodes import PICTURES, bring_up, expert_episode
from mivla_core.profile import config_dir
from mivla_drivers.sim.scenario import INSTRUCTIONS, PLACES, POOL, demonstration_seeds
from mivla_drivers.sim.tasks import task_of
from mivla_teleop.recording.store import describe

__all__ = ['demonstrate_main', 'record_demonstrations', 'train_demo_main']

DEMO_TASK = 'click_bell'
LEVEL = 'hard'
DEMONSTRATIONS = 30
ATTEMPTS = 3
# DART: spread of the noise that the emulated arm adds to its motor targets while a demonstration
# is recorded, so that the clean command always shows the way back.
DISTURBANCE = 0.03    # rad
TRAIN_DOMAIN = '43'


def record_demonstrations(bags: Path, seeds: Sequence[int], domain: str,
                          task: str = DEMO_TASK) -> list[Path]:
    """
    Record one demonstration of the scripted expert per scene through the graph, one bag each.

    By the robot that its expert is tested with first. A demonstration that misses, or that the
    recorder rejects, is done again.

    :returns: the folders of the good episodes, in the order of ``seeds``.
    :raises BringupError: a scene was not demonstrated in three attempts.
    """
    stack = build(StackOptions(robots=(task_of(task).robots[0],), sim=True, teleop='expert',
                               record=True, bags=str(bags), task=task, seed=seeds[0],
                               level=LEVEL, domain=domain,
                               extra={'world': {'disturbance_sigma': DISTURBANCE}},
                               **PICTURES))

    def job(rig: Rig) -> list[Path]:
        bring_up(rig, lambda text: print(f'bring-up: {text}', flush=True))
        good: list[Path] = []
        for number, seed in enumerate(seeds, 1):
            for _ in range(ATTEMPTS):
                result = expert_episode(rig, task, seed, LEVEL)
                if result.success and not result.rejected and result.folder is not None:
                    good.append(result.folder)
                    print(f'demonstration {number} of {len(seeds)} (seed {seed}): '
                          f'{result.seconds:.1f} s', flush=True)
                    break
                why = result.stopped or '; '.join(result.rejected) or 'missed'
                print(f'demonstration {number} of {len(seeds)} (seed {seed}): again: {why}',
                      flush=True)
            else:
                raise BringupError(f'scene {seed} was not demonstrated in {ATTEMPTS} attempts: '
                                   f'{why}')
        rig.client.home()
        return good

    folders, outcome = with_stack(stack, job, on_event=warnings_to())
    if outcome.unclean:
        print(f'recording: {"; ".join(outcome.unclean)}', file=sys.stderr)
    return folders


def demonstrate_main(argv: Sequence[str]) -> int:
    """Record demonstrations of the scripted expert; returns the exit code."""
    parser = Parser(prog='mivla demonstrate',
                    description='Record demonstrations of a task by its scripted expert in the '
                                'simulated world, hard scenes; goes on where it was stopped.')
    parser.add_argument('--task', default=DEMO_TASK, choices=sorted(INSTRUCTIONS))
    parser.add_argument('--out', required=True, help='folder of the bags')
    parser.add_argument('--count', type=int, default=DEMONSTRATIONS,
                        help=f'at most {DEMONSTRATIONS}, which cover the table')
    parser.add_argument('--domain', default=os.environ.get('ROS_DOMAIN_ID', TRAIN_DOMAIN))
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.count <= DEMONSTRATIONS:
        parser.error(f'--count {arguments.count}: expected 1 to {DEMONSTRATIONS}')
    out = Path(arguments.out).expanduser().absolute()
    # Scenes are recorded in order, one good episode each: as many are done as there are good ones.
    found = episode_folders([out]) if any(out.rglob('metadata.yaml')) else []
    done = sum(describe(folder).accepted for folder in found)
    seeds = demonstration_seeds(arguments.task, DEMONSTRATIONS)[done:arguments.count]
    if done:
        print(f'{done} demonstrations are in {out} already', flush=True)
    if seeds:
        record_demonstrations(out / time.strftime('%Y%m%d-%H%M%S'), seeds, arguments.domain,
                              arguments.task)
    print(f'demonstrations: {out}')
    return 0


def train_demo_main(argv: Sequence[str]) -> int:
    """Make the demo policy: record, train, evaluate; returns the exit code."""
    parser = Parser(prog='mivla train-demo',
                    description='Record 30 demonstrations, train a policy, evaluate it.')
    parser.add_argument('--task', default=DEMO_TASK, choices=sorted(INSTRUCTIONS))
    parser.add_argument('--out', default='',
                        help='checkpoint (default: the one shipped for the task)')
    parser.add_argument('--bags', default='runs/train-demo', help='folder of the demonstrations')
    parser.add_argument('--demonstrations', type=int, default=DEMONSTRATIONS)
    parser.add_argument('--reuse', action='store_true', help='train from the bags that are there')
    parser.add_argument('--steps', type=int, default=None, help='steps (default: the preset)')
    parser.add_argument('--seed', type=int, default=1, help='seed of the training')
    parser.add_argument('--episodes', type=int, default=100, help='episodes of the evaluation')
    parser.add_argument('--threads', type=int, default=max(1, min(8, os.cpu_count() or 1)))
    parser.add_argument('--domain', default=os.environ.get('ROS_DOMAIN_ID', TRAIN_DOMAIN))
    arguments = parser.parse_args(argv)
    from mivla_bringup.evaluate import evaluate_lockstep

    begun = time.monotonic()
    task, robot = arguments.task, task_of(arguments.task).robots[0]
    name = f'{robot}_{task}'
    out = Path(arguments.out) if arguments.out else config_dir() / 'policies' / name
    bags = Path(arguments.bags).absolute()
    if arguments.reuse:
        folders = episode_folders([bags])
    else:
        bags = bags / time.strftime('%Y%m%d-%H%M%S')
        seeds = demonstration_seeds(task, DEMONSTRATIONS)
        folders = record_demonstrations(bags, seeds[:arguments.demonstrations], arguments.domain,
                                        task)
    recorded = time.monotonic()
    print(f'recorded {len(folders)} demonstrations in {recorded - begun:.0f} s', flush=True)
    path = finetune_from(folders, robot, 'tiny', out, name=name,
                         seed=arguments.seed, steps=arguments.steps, minutes=None,
                         threads=arguments.threads, accept=False, overwrite=True, events=False,
                         provenance={'task': task, 'level': LEVEL, 'disturbance': DISTURBANCE,
                                     'places': PLACES[DEMONSTRATIONS], 'pool': POOL,
                                     'instruction': INSTRUCTIONS[task]})
    trained = time.monotonic()
    print(f'trained in {trained - recorded:.0f} s: {path}', flush=True)
    result = evaluate_lockstep(path, task, LEVEL, arguments.episodes)
    (path / 'evaluation.json').write_text(json.dumps(result.summary(None), indent=2) + '\n')
    print(result.table())
    print(f'recording {recorded - begun:.0f} s, training {trained - recorded:.0f} s, evaluation '
          f'{time.monotonic() - trained:.0f} s, in all {time.monotonic() - begun:.0f} s')
    return 0
