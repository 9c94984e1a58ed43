"""``mivla status``: all running robots on one screen."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mivla_bringup.cli import Parser

__all__ = ['main']

_PATIENCE = 1.0    # s more for a driver that was found but has not said its state
_CLEAR = '\x1b[H\x1b[2J'


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the status; exit code 1 when no robot is running."""
    parser = Parser(prog=f'mivla {verb}', description='All running robots on one screen.')
    parser.add_argument('--watch', action='store_true', help='again every second, until Ctrl-C')
    parser.add_argument('--seconds', type=float, default=1.5, metavar='S',
                        help='how long to look (default %(default)s s)')
    parser.add_argument('--no-images', action='store_true', help='leave the pictures alone')
    args = parser.parse_args(argv)

    from mivla_bringup.collector import Collector
    from mivla_bringup.session import session
    from mivla_bringup.status import render
    with session('mivla_status') as node:
        collector = Collector(node, images=not args.no_images)
        while True:
            deadline = time.monotonic() + (1.0 if args.watch else args.seconds)
            try:
                while (now := time.monotonic()) < deadline or (
                        not collector.complete and now < deadline + _PATIENCE):
                    collector.look()
                    time.sleep(0.05)
            except KeyboardInterrupt:
                return 0    # the ordinary end of --watch
            snapshot = collector.snapshot()
            print((_CLEAR if args.watch else '') + render(snapshot), flush=True)
            if not args.watch:
                return 0 if snapshot.robots else 1
