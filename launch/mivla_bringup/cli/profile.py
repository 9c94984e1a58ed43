"""``mivla profile show|diff|validate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mivla_bringup.cli import Parser
from mivla_bringup.stack import load_robot
from mivla_core.errors import MivlaError
from mivla_core.profile import RobotProfile, diff_profiles, load_profile

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """Run one of the three; ``diff`` ends with 1 when the profiles mean different things."""
    parser = Parser(prog=f'mivla {verb}', description='Show, compare or validate robot profiles.')
    actions = parser.add_subparsers(dest='action', required=True, parser_class=Parser)
    show = actions.add_parser('show', help='print the profile as it was understood')
    show.add_argument('robot', help='name or path')
    diff = actions.add_parser('diff', help='how the meaning of states and actions differs')
    diff.add_argument('ours', help='name or path')
    diff.add_argument('theirs', help='name or path')
    validate = actions.add_parser('validate', help='check profiles')
    validate.add_argument('robots', nargs='+', metavar='robot', help='name or path')
    args = parser.parse_args(argv)
    if args.action == 'show':
        profile = load_robot(args.robot)
        print(f'# hash {profile.hash}\n{profile.text}', end='')
        return 0
    if args.action == 'diff':
        return _diff(load_robot(args.ours), load_robot(args.theirs))
    return _validate(verb, args.robots)


def _diff(ours: RobotProfile, theirs: RobotProfile) -> int:
    lines = diff_profiles(ours, theirs)
    if not lines:
        print(f'same meaning: hash {ours.hash}')
        return 0
    print(f'{ours.hash} -> {theirs.hash}')
    for line in lines:
        print(f'  {line}')
    return 1


def _validate(verb: str, robots: Sequence[str]) -> int:
    bad = 0
    for robot in robots:
        try:
            profile = load_profile(robot)
            print(f'{robot}: valid, hash {profile.hash}')
        except MivlaError as err:
            print(f'mivla {verb}: {err}', file=sys.stderr)
            bad += 1
    return 1 if bad else 0
