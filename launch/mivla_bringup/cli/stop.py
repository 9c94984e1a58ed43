"""``mivla stop``: brake and hold, every robot that can be found."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mivla_bringup.cli import Parser

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """Stop; exit code 0 if and only if every driver found has confirmed, and one was found."""
    parser = Parser(prog=f'mivla {verb}', description='Brake and hold, latched until "mivla '
                    'reset". A software stop: it does not replace a hardware emergency stop.')
    parser.add_argument('robots', nargs='*', metavar='robot',
                        help='name in the graph; default: all that are found')
    parser.add_argument('--reason', default='mivla stop', help='written into the log')
    parser.add_argument('--timeout', type=float, default=4.0, metavar='S',
                        help='how long to look and wait (default %(default)s s)')
    args = parser.parse_args(argv)

    from mivla_bringup.session import session
    from mivla_bringup.stopping import stop_all
    with session('mivla_stop') as node:
        report = stop_all(node, args.robots, 'console', args.reason, args.timeout)
    for name, answer in report.drivers.items():
        verdict = 'NO ANSWER' if answer is None else (
            'NOT CONFIRMED' if name in report.refused else 'confirmed')
        print(f'{name}: {verdict}{f": {answer}" if answer else ""}')
    if report.confirmed:
        return 0
    found = 'not every driver confirmed' if report.drivers else 'no driver was found'
    print(f'mivla {verb}: {found}; the stop was published on '
          f'{", ".join(report.topics) or "no topic"}. Use the hardware emergency stop if a robot '
          'moves', file=sys.stderr)
    return 1
