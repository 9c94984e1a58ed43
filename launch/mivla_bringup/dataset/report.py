"""``mivla dataset report``: one page about bags, or about a data set of another format."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from mivla_bringup.dataset.findings import findings, grade_counts
from mivla_bringup.dataset.gather import Dataset, DatasetError, of_bags, of_episodes
from mivla_bringup.dataset.page import write_page
from mivla_bringup.errors import UsageError

__all__ = ['arguments', 'run']

PICTURES = 60


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the action."""
    parser.add_argument('folders', nargs='+', metavar='FOLDER',
                        help='of bags, at any depth; or one data set of another format')
    parser.add_argument('--out', default='', metavar='FILE',
                        help='default: dataset-report.html in the first folder')
    parser.add_argument('--pictures', type=int, default=PICTURES, metavar='N',
                        help='episodes of which pictures are shown (default: %(default)s)')
    parser.add_argument('--robot', default='',
                        help='profile, for what are no bags: whose joints its columns are')
    parser.add_argument('--format', default='', metavar='NAME',
                        help='as of "mivla dataset import" (default: what is found)')
    parser.add_argument('--schema', default='', metavar='FILE',
                        help='how columns and cameras of another format map to the robot')
    parser.add_argument('--instruction', default='',
                        help='what was done, where a data set does not say')


def run(args: Namespace) -> int:
    """
    Write the page; print what stands out, and last where the page is.

    :raises DatasetError: the episodes are of several robots, or there is none.
    """
    if not 0 <= args.pictures <= 1000:
        raise UsageError(f'--pictures {args.pictures} is not 0 to 1000')
    folders = [Path(text).expanduser() for text in args.folders]
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f'{folder}: no such folder')
    # Here, because it knows formats that need Arrow and FFmpeg.
    from mivla_bringup.episodes_from import holds_bags
    of_one = bool(args.format) or not any(map(holds_bags, folders))
    data = _foreign(args, folders) if of_one else of_bags(folders, args.pictures, _progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    out = Path(args.out).expanduser() if args.out else folders[0] / 'dataset-report.html'
    grades = grade_counts(data)
    minutes = sum(item.seconds for item in data.episodes) / 60.0
    print(f'{len(data.episodes)} episodes, {minutes:.1f} min; {grades["good"]} to be trained on')
    for sentence in findings(data):
        print(f'worth a look: {sentence}')
    print(write_page(data, out))
    return 0


def _foreign(args: Namespace, folders: list[Path]) -> Dataset:
    """Read a data set of another project."""
    from mivla_core.profile import load_profile
    from mivla_policy.formats.registry import read
    from mivla_policy.formats.schema import load_schema
    if len(folders) > 1:
        raise DatasetError(f'no bags in {", ".join(map(str, folders))}; of another format, one '
                           'data set at a time')
    if not args.robot:
        raise UsageError(f'{folders[0]} holds no bags; of a data set of another format, tell '
                         '--robot whose joints its columns are')
    profile = load_profile(args.robot)
    schema = load_schema(Path(args.schema).expanduser()).check(profile) if args.schema else None
    return of_episodes(
        folders[0].resolve().name,
        read(args.format, folders[0], profile, schema, instruction=args.instruction), profile,
        args.pictures)


def _progress(text: str) -> None:
    """Show how far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f'\r\x1b[K{text}', end='', file=sys.stderr, flush=True)
