"""``mivla up``: start the stack, watch it, take it down in order."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence

from mivla_bringup.arguments import ARGUMENTS, split_assignments
from mivla_bringup.cli import Parser

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """Run the stack until Ctrl-C; the exit code is the supervisor's."""
    parser = Parser(prog=f'mivla {verb}', formatter_class=argparse.RawDescriptionHelpFormatter,
                    usage='%(prog)s [name:=value ...] [--verbose]',
                    description='Start the stack. Space bar: stop the robot. Ctrl-C: brake, '
                    'hold, leave it powered, end everything in order.', epilog=_table())
    parser.add_argument('words', nargs='*', metavar='name:=value', help='see below')
    parser.add_argument('--verbose', action='store_true', help='show all output of all nodes')
    parser.add_argument('--print', action='store_true', dest='show',
                        help='print what would be started, and start nothing')
    args = parser.parse_args(argv)

    from mivla_bringup.stack import StackOptions, build
    stack = build(StackOptions.parse(split_assignments(args.words)))
    if args.show:
        import shlex

        from mivla_bringup.process import command
        for node in stack.nodes:
            print(f'{node.full_name}: {shlex.join(command(node))}')
        return 0
    from mivla_bringup.runner import run_stack
    return run_stack(stack, verbose=args.verbose)


def _table() -> str:
    lines = ['arguments (name:=value):']
    for argument in ARGUMENTS:
        choices = f' One of: {", ".join(argument.choices)}.' if argument.choices else ''
        default = f' Default: {argument.default}.' if argument.default else ''
        lines += [f'  {argument.name}', *textwrap.wrap(
            f'{argument.description}{choices}{default}', 92, initial_indent='      ',
            subsequent_indent='      ')]
    lines += ['', 'example: mivla up robot:=piper sim:=true teleop:=expert record:=true']
    return '\n'.join(lines)
