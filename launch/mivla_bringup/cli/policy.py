"""``mivla policy``: list the plug-ins, check a policy on an episode, calibrate its warning."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mivla_bringup.cli import Parser

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """Call the function behind the second word."""
    parser = Parser(prog=f'mivla {verb}', description='Policies: what there is, and checks.')
    words = parser.add_subparsers(dest='what', metavar='list|check|calibrate', required=True)
    words.add_parser('list', help='list the installed policy plug-ins')
    checked = words.add_parser('check', help='ask a policy along a recorded episode, and compare')
    checked.add_argument('--bag', required=True, type=Path, help='episode folder')
    checked.add_argument('--policy', default='', help='checkpoint folder or plug-in (default: '
                                                      'the shipped checkpoint)')
    checked.add_argument('--parameter', action='append', default=[], metavar='KEY=VALUE',
                         help='of the plug-in; may be given several times')
    checked.add_argument('--robot', default='piper', help='robot profile: a name or a path')
    checked.add_argument('--plot', type=Path, default=None,
                         help='PNG to write (default: runs/policy-check/EPISODE.png)')
    checked.add_argument('--json', action='store_true', help='print the numbers as JSON')
    unseen = words.add_parser(
        'calibrate', help='set the thresholds of the warning by episodes it has not learned from')
    unseen.add_argument('checkpoint', type=Path, help='folder; its novelty.safetensors is renewed')
    unseen.add_argument('data', nargs='+', help='folders with episodes of the task, or data sets')
    unseen.add_argument('--robot', default='piper', help='robot profile: a name or a path')
    unseen.add_argument('--vision', default='', metavar='DIR',
                        help='folder of both towers, for networks that see their features')
    args = parser.parse_args(argv)
    return {'list': _list, 'check': _check, 'calibrate': _calibrate}[args.what](args)


def _list(args: argparse.Namespace) -> int:
    del args
    from importlib.metadata import entry_points

    from mivla_policy.serve.port import GROUP
    points = {point.name: point for point in entry_points(group=GROUP)}
    width = max(map(len, points), default=0)
    for name, point in sorted(points.items()):
        try:
            # The first sentence of the factory says what it is.
            line = (point.load().__doc__ or '').strip().splitlines()[0].split(';')[0].rstrip('.')
        except (ImportError, AttributeError, IndexError) as err:
            line = f'cannot be loaded: {err}'
        print(f'{name:<{width}}  {line}')
    return 0


def _check(args: argparse.Namespace) -> int:
    name, parameters = _plug_in(args.policy, args.parameter)
    # These import torch and OpenCV, which a list or a typing mistake need not wait for.
    from mivla_bringup.policy_check import check, draw, read_recorded
    from mivla_core.profile import load_profile
    from mivla_policy.serve.port import close_policy, make_policy
    profile = load_profile(args.robot)
    episode = read_recorded(args.bag.expanduser(), profile)
    policy = make_policy(name, [profile], parameters)
    try:
        result = check(policy, profile, episode, policy.specs[0].name)
    finally:
        close_policy(policy)
    bag = args.bag.expanduser().resolve()
    plot = draw(result, args.plot or Path('runs', 'policy-check', f'{bag.name}.png'))
    if args.json:
        print(json.dumps({**result.summary(), 'plot': str(plot)}, indent=2))
    else:
        print(result.table())
        print(f'plot: {plot}')
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from mivla_bringup.episodes_from import open_episodes
    from mivla_core.profile import load_profile
    from mivla_policy.learn.familiar import calibrate
    from mivla_policy.model.checkpoint import read_info
    profile, path = load_profile(args.robot), args.checkpoint.expanduser()
    towers = None
    if args.vision:
        from mivla_policy.learn.features import training_towers
        towers = training_towers(Path(args.vision).expanduser(), read_info(path).model)
    episodes = open_episodes([Path(text).expanduser() for text in args.data], profile)
    made = calibrate(path, profile, episodes, towers)
    doubt = ('it gives one answer to an observation, which cannot disagree'
             if math.isnan(made.doubt) else f'{made.doubt:.3g} of the spread of the actions')
    print(f'{path.name}: {len(episodes)} episodes; thresholds: distance {made.limit:.3g}, '
          f'disagreement: {doubt}')
    return 0


def _plug_in(text: str, given: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the plug-in and its parameters; a folder is a checkpoint of ``mivla``."""
    from mivla_bringup.evaluation.policies import parameters_of
    from mivla_core.profile import config_dir
    from mivla_policy.serve.port import available_policies
    parameters = parameters_of(given)
    name = text or str(config_dir() / 'policies' / 'piper_click_bell')
    if name not in available_policies() and (os.sep in name or Path(name).is_dir()):
        return 'mivla', {'checkpoint': name, **parameters}
    return name, parameters
