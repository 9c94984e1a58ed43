"""``mivla finetune`` and ``mivla train-demo``: from bags to a checkpoint."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mivla_bringup.cli import Parser
from mivla_bringup.clickbell import PICTURES, bring_up, expert_episode
from mivla_bringup.demonstrations import episode_folders, load_demonstrations
from mivla_bringup.errors import BringupError
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_bringup.stack import StackOptions, build
from mivla_core.profile import config_dir, load_profile
from mivla_drivers.sim.scenario import INSTRUCTIONS, TRAIN_SEEDS, covering_seeds

__all__ = ['finetune_main', 'record_demonstrations', 'train_demo_main']

TASK = 'click_bell'
LEVEL = 'hard'
# Thirty scenes, the bell on six by five places from edge to edge of its range.
PLACES = (6, 5)
DEMONSTRATIONS = PLACES[0] * PLACES[1]
POOL = 3000       # training seeds to choose the scenes from
ATTEMPTS = 3
# DART: spread of the noise that the emulated arm adds to its motor targets while a demonstration
# is recorded, so that the clean command always shows the way back.
DISTURBANCE = 0.03    # rad
TRAIN_DOMAIN = '43'


def finetune_main(argv: Sequence[str]) -> int:
    """Train a policy from recorded episodes; returns the exit code."""
    parser = Parser(prog='mivla finetune', description='Train a policy from recorded episodes.')
    parser.add_argument('bags', nargs='+', help='folders with episodes, searched below')
    parser.add_argument('--robot', default='piper', help='robot profile: a name or a path')
    parser.add_argument('--preset', default='tiny', help='preset: a name in config/policies')
    parser.add_argument('--out', required=True, help='folder of the new checkpoint')
    parser.add_argument('--name', default='', help='name of the policy (default: the folder)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the training')
    parser.add_argument('--steps', type=int, default=None, help='steps (default: the preset)')
    parser.add_argument('--minutes', type=float, default=None,
                        help='follow the clock instead of steps; not reproducible')
    parser.add_argument('--threads', type=int, default=max(1, min(8, os.cpu_count() or 1)),
                        help='threads of torch')
    parser.add_argument('--accept-profile-difference', action='store_true',
                        help='learn from episodes of another robot profile; is recorded')
    arguments = parser.parse_args(argv)
    folders = episode_folders([Path(text).expanduser() for text in arguments.bags])
    path = finetune_from(
        folders, arguments.robot, arguments.preset, Path(arguments.out).expanduser(),
        name=arguments.name, seed=arguments.seed, steps=arguments.steps,
        minutes=arguments.minutes, threads=arguments.threads,
        accept=arguments.accept_profile_difference, overwrite=False, provenance={})
    print(f'checkpoint: {path}')
    return 0


def finetune_from(folders: Sequence[Path], robot: str, preset: str, out: Path, *, name: str,
                  seed: int, steps: int | None, minutes: float | None, threads: int,
                  accept: bool, overwrite: bool, provenance: dict[str, object]) -> Path:
    """Read episodes and train; see ``mivla_policy.learn.train.finetune``."""
    # torch takes seconds to import, and ``--help`` must not.
    from mivla_policy.learn.train import Progress, finetune
    from mivla_policy.model.config import load_preset

    profile = load_profile(robot)
    print(f'reading {len(folders)} episodes', flush=True)
    episodes = load_demonstrations(folders, profile, accept_profile_difference=accept)
    shown = [0.0]

    def progress(state: Progress) -> None:
        now = time.monotonic()
        if now - shown[0] >= (0.5 if sys.stderr.isatty() else 15.0) or state.done >= 1.0:
            shown[0] = now
            end = '' if sys.stderr.isatty() and state.done < 1.0 else '\n'
            start = '\r' if sys.stderr.isatty() else ''
            print(f'{start}{state}', end=end, file=sys.stderr, flush=True)

    return finetune(episodes, profile, load_preset(preset), out, name=name or out.name, seed=seed,
                    steps=steps, time_budget_s=None if minutes is None else 60.0 * minutes,
                    threads=threads, progress=progress, overwrite=overwrite,
                    provenance={'accepted_profile_difference': accept, **provenance})


def record_demonstrations(bags: Path, seeds: Sequence[int], domain: str) -> list[Path]:
    """
    Record one demonstration of the scripted expert per scene through the graph, one bag each.

    A demonstration that misses, or that the recorder rejects, is done again.

    :returns: the folders of the good episodes, in the order of ``seeds``.
    :raises BringupError: a scene was not demonstrated in three attempts.
    """
    stack = build(StackOptions(sim=True, teleop='expert', record=True, bags=str(bags), task=TASK,
                               seed=seeds[0], level=LEVEL, domain=domain,
                               extra={'world': {'disturbance_sigma': DISTURBANCE}},
                               **PICTURES))

    def job(rig: Rig) -> list[Path]:
        bring_up(rig, lambda text: print(f'bring-up: {text}', flush=True))
        good: list[Path] = []
        for number, seed in enumerate(seeds, 1):
            for _ in range(ATTEMPTS):
                result = expert_episode(rig, TASK, seed, LEVEL)
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


def train_demo_main(argv: Sequence[str]) -> int:
    """Make the demo policy: record, train, evaluate; returns the exit code."""
    parser = Parser(prog='mivla train-demo',
                    description='Record 30 demonstrations, train the demo policy, evaluate it.')
    parser.add_argument('--out', default='', help='checkpoint (default: the shipped one)')
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
    out = Path(arguments.out) if arguments.out else config_dir() / 'policies' / 'piper_click_bell'
    bags = Path(arguments.bags).absolute()
    if arguments.reuse:
        folders = episode_folders([bags])
    else:
        bags = bags / time.strftime('%Y%m%d-%H%M%S')
        seeds = covering_seeds(TASK, TRAIN_SEEDS[:POOL], *PLACES)
        folders = record_demonstrations(bags, seeds[:arguments.demonstrations], arguments.domain)
    recorded = time.monotonic()
    print(f'recorded {len(folders)} demonstrations in {recorded - begun:.0f} s', flush=True)
    path = finetune_from(folders, 'piper', 'tiny', out, name='piper_click_bell',
                         seed=arguments.seed, steps=arguments.steps, minutes=None,
                         threads=arguments.threads, accept=False, overwrite=True,
                         provenance={'task': TASK, 'level': LEVEL, 'disturbance': DISTURBANCE,
                                     'places': PLACES, 'pool': POOL,
                                     'instruction': INSTRUCTIONS[TASK]})
    trained = time.monotonic()
    print(f'trained in {trained - recorded:.0f} s: {path}', flush=True)
    result = evaluate_lockstep(path, TASK, LEVEL, arguments.episodes)
    (path / 'evaluation.json').write_text(json.dumps(result.summary(None), indent=2) + '\n')
    print(result.table())
    print(f'recording {recorded - begun:.0f} s, training {trained - recorded:.0f} s, evaluation '
          f'{time.monotonic() - trained:.0f} s, in all {time.monotonic() - begun:.0f} s')
    return 0
