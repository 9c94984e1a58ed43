"""``mivla episodes``: list recorded episodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from mivla_bringup.arguments import ARGUMENTS
from mivla_bringup.cli import Parser
from mivla_bringup.errors import BringupError

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """Print one line per episode and the sums."""
    default = next(argument.default for argument in ARGUMENTS if argument.name == 'bags')
    parser = Parser(prog=f'mivla {verb}', description='List recorded episodes.')
    parser.add_argument('folder', nargs='?', default=default, help='default: %(default)s')
    parser.add_argument('--task', help='only this task')
    args = parser.parse_args(argv)
    folder = Path(args.folder).expanduser()
    if not folder.is_dir():
        raise BringupError(f'{folder}: no such folder; give the one that episodes were recorded '
                           'into (bags:= of "mivla up")')

    from mivla_teleop.recording.store import EpisodeStore
    store = EpisodeStore(folder)
    records = store.episodes(args.task)
    for record in records:
        began = time.strftime('%Y-%m-%d %H:%M', time.localtime(record.started / 1e9))
        reasons = f' ({"; ".join(record.reasons)})' if record.reasons else ''
        print(f'{record.task}/{record.episode}  {began}  {record.robot:<10} '
              f'{record.duration:6.1f} s  {record.bytes / 1e6:7.1f} MB  lost {record.lost}  '
              f'{record.outcome}, {record.verdict}{reasons}')
    accepted = sum(record.accepted for record in records)
    print(f'{len(records)} episodes, {accepted} fit for training, '
          f'{sum(record.duration for record in records) / 60:.1f} min, '
          f'{sum(record.bytes for record in records) / 1e6:.0f} MB in {store.root}')
    for path in store.unfinished():
        print(f'unfinished: {path} (repaired when the recorder starts)')
    return 0
