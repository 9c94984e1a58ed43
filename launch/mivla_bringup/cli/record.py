"""``mivla record``: record episodes of a running robot, one after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mivla_bringup.cli import Parser
from mivla_bringup.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from mivla_bringup.operate import RobotClient

__all__ = ['main']

_ANSWERS = {'': 'success', 's': 'success', 'f': 'failure', 'd': 'discard'}


def main(verb: str, argv: Sequence[str]) -> int:
    """Record; an episode under way when Ctrl-C comes is kept and marked as a failure."""
    parser = Parser(prog=f'mivla {verb}', description='Record episodes of a running robot '
                    '(started with record:=true).')
    parser.add_argument('robot', nargs='?', default='',
                        help='name in the graph; default: the only one that runs')
    parser.add_argument('--task', required=True, help='task name, the folder of its episodes')
    parser.add_argument('--instruction', default='', help='what is done, one sentence')
    parser.add_argument('--operator', default='', help='who demonstrates')
    parser.add_argument('--metadata', default='', help='YAML mapping stored with each episode')
    parser.add_argument('--episodes', type=int, default=0, metavar='N',
                        help='how many; default: until q or the end of input')
    parser.add_argument('--seconds', type=float, metavar='S',
                        help='record one episode of this length without asking')
    parser.add_argument('--outcome', choices=('success', 'failure', 'discard'),
                        default='success', help='of an episode recorded with --seconds')
    args = parser.parse_args(argv)
    if args.seconds is not None and args.seconds <= 0.0:
        raise UsageError(f'--seconds {args.seconds:g} must be above 0')

    from mivla_bringup.operate import RobotClient, pick_robot
    from mivla_bringup.session import session
    with session('mivla_record') as node:
        client = RobotClient(node, pick_robot(node, args.robot))
        if args.seconds is not None:
            _start(client, args)
            try:
                time.sleep(args.seconds)
            except KeyboardInterrupt:
                _finish(client, 'failure', 'interrupted')
                raise
            _finish(client, args.outcome, '')
            return 0
        return _ask(client, args)


def _ask(client: RobotClient, args: Namespace) -> int:
    """Record episode after episode, as the demonstrator says."""
    done = 0
    while not args.episodes or done < args.episodes:
        if _line(f'episode {done + 1}: Enter starts, q ends: ', 'q') == 'q':
            return 0
        _start(client, args)
        try:
            answer = 'x'
            while answer not in _ANSWERS:
                answer = _line('recording; Enter or s: success, f: failure, d: discard: ', 'f')
        except KeyboardInterrupt:
            _finish(client, 'failure', 'interrupted')
            raise
        _finish(client, _ANSWERS[answer], '')
        done += 1
    return 0


def _line(prompt: str, at_end: str) -> str:
    try:
        return input(prompt).strip().lower()
    except EOFError:
        return at_end


def _start(client: RobotClient, args: Namespace) -> None:
    folder = client.start_episode(args.task, args.instruction, args.operator, args.metadata)
    print(f'{client.robot}: recording {folder}', flush=True)


def _finish(client: RobotClient, outcome: str, note: str) -> None:
    episode = client.finish_episode(outcome, note)
    reasons = f': NOT FIT FOR TRAINING: {"; ".join(episode.reasons)}' if episode.rejected else ''
    print(f'{client.robot}: {outcome}, {episode.folder}{reasons}', flush=True)
