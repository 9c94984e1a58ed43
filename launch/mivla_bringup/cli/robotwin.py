"""``mivla robotwin``: put a policy into a checkout of RoboTwin, run its tasks, write the table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mivla_bringup.arguments import listed
from mivla_bringup.cli import Parser
from mivla_bringup.errors import UsageError

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """Call the function behind the second word."""
    parser = Parser(prog=f'mivla {verb}', description='RoboTwin 2.0: its tasks with our policies.')
    words = parser.add_subparsers(dest='what', metavar='install|run|table', required=True)
    for name, text in (('install', 'write the policy folder that RoboTwin looks for'),
                       ('run', 'run what has no result yet by RoboTwin\'s own script'),
                       ('table', 'write the table of what there is')):
        one = words.add_parser(name, help=text)
        one.add_argument('checkout', type=Path, help='folder of RoboTwin (or of XPolicyLab)')
        one.add_argument('--policy', required=True, help='checkpoint folder or plug-in')
        if name == 'install':
            one.add_argument('--xpolicylab', action='store_true',
                             help='for the stack since August 2026; the folder is XPolicyLab')
            continue
        one.add_argument('--out', type=Path, default=Path('runs/robotwin'))
        one.add_argument('--tasks', default='', help='with commas; default: all 50')
        if name == 'run':
            one.add_argument('--python', default='python',
                             help='interpreter of RoboTwin\'s environment')
            one.add_argument('--seed', type=int, default=0)
            one.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                             help='of the deploy file, such as rows=8')
    args = parser.parse_args(argv)
    if args.what == 'install':
        return _install(args.checkout, args.policy, args.xpolicylab)
    from mivla_bringup.evaluation.policies import policy_ref
    from mivla_bringup.robotwin_runs import TASKS, collect, run_all, setting_of, write_tables
    root, policy = args.checkout.expanduser().absolute(), policy_ref(args.policy)
    tasks = listed(args.tasks) or TASKS
    unknown = sorted(set(tasks) - set(TASKS))
    if unknown:
        raise UsageError(f'RoboTwin 2.0 has no task {", ".join(unknown)}')
    failed: list[str] = []
    if args.what == 'run':
        extra = [word for pair in args.set for word in (f'--{pair.partition("=")[0]}',
                                                        pair.partition('=')[2])]
        failed = run_all(root, policy, args.python, collect(root, setting_of(policy), tasks),
                         args.seed, args.out.absolute() / 'logs', extra)
    table, page = write_tables(collect(root, setting_of(policy), tasks), policy.name, args.out)
    print(f'table: {page} and {table}')
    for sentence in failed:
        print(f'failed: {sentence}', file=sys.stderr)
    return 1 if failed else 0


def _install(checkout: Path, policy: str, xpolicylab: bool) -> int:
    from mivla_policy.robotwin.folders import write_classic, write_xpolicylab
    path = Path(policy).expanduser()
    named = str(path.absolute()) if path.is_dir() else policy
    write = write_xpolicylab if xpolicylab else write_classic
    print(f'written: {write(checkout.expanduser(), named)}')
    return 0
