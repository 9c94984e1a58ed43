"""
What came of every episode, one JSON object a line: an evaluation goes on where it was left.

A row is known by the policy's digest, what was asked of it, and how; so several policies, tasks
and levels share a journal, and no row of other weights or other conditions is taken for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Optional, TextIO

from mivla_bringup.errors import BringupError

__all__ = ['Job', 'Journal', 'JournalError', 'KINDS', 'Row', 'WITHOUT']

# The policy in lockstep, the two controls that must fail, and the policy through the graph.
KINDS = ('policy', 'blind', 'replay', 'realtime')
# And before the role of a camera: the policy in lockstep without its pictures.
WITHOUT = 'without_'
# A new number makes the rows before it other episodes; raise it when what is simulated changes.
PROTOCOL = 1


class JournalError(BringupError):
    """A journal cannot be read or written."""


@dataclass(frozen=True, order=True)
class Job:
    """
    One episode to run.

    :param policy: digest, see ``policies.PolicyRef``.
    :param kind: one of ``KINDS``, or ``WITHOUT`` and a camera's role.
    :param robot: hash of its profile.
    :param limit_s: that the policy is given [s].
    """

    policy: str
    kind: str
    robot: str
    task: str
    level: str
    seed: int
    limit_s: float
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Row:
    """
    What came of an episode.

    :param seconds: to success, else to the end [s], simulated or real time as it was run.
    :param score: partial success, 0 to 1.
    :param stage: the last that was reached.
    :param verdicts: of the guard, by kind.
    :param stopped: why it ended before its time; '' where it did not.
    :param wall_s: that it took here.
    :param cpu_s: of processor time that it took here, all threads.
    :param revision: of the software that ran it.
    :param folder: of its bag; '' where nothing was recorded.
    """

    job: Job
    success: bool
    seconds: float
    score: float
    stage: str = ''
    progress: float = 0.0
    chunks: int = 0
    dry_ticks: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    stopped: str = ''
    wall_s: float = 0.0
    cpu_s: float = 0.0
    revision: str = ''
    folder: str = ''
    realtime_factor: float = 0.0


class Journal:
    """
    The rows of a file, and its end to write at; use it as a context manager.

    :param path: is made when the first row comes.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there; raise JournalError when it is no journal."""
        self.path = path
        self.rows: dict[Job, Row] = {}
        self._file: Optional[TextIO] = None
        self._whole = 0     # bytes of complete lines
        if path.is_file():
            self._whole = self._read(path.read_bytes())

    def _read(self, data: bytes) -> int:
        end = data.rfind(b'\n') + 1     # what follows was being written when the power went
        for number, line in enumerate(data[:end].decode('utf-8', 'replace').splitlines(), 1):
            try:
                row = row_of(json.loads(line))
            except (ValueError, TypeError, KeyError) as err:
                raise JournalError(f'{self.path} line {number} is not an episode: {err}; move '
                                   'the file away to begin anew') from err
            self.rows[row.job] = row
        return end

    def add(self, row: Row) -> None:
        """
        Keep a row; it is on its way to the disk when this returns.

        :raises JournalError: the file cannot be written.
        """
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch()
                with self.path.open('r+b') as file:
                    file.truncate(self._whole)
                self._file = self.path.open('a', encoding='utf-8')
            self._file.write(json.dumps({**asdict(row), 'job': asdict(row.job)}) + '\n')
            self._file.flush()
        except OSError as err:
            raise JournalError(f'{self.path} cannot be written: {err}') from err
        self.rows[row.job] = row

    def of(self, policy: str, kind: str, task: str, level: str) -> Iterator[Row]:
        """Return the rows of one policy under one condition, by seed."""
        for job in sorted(self.rows):
            if (job.policy, job.kind, job.task, job.level, job.protocol) == (
                    policy, kind, task, level, PROTOCOL):
                yield self.rows[job]

    def __enter__(self) -> Journal:
        """Return the journal, which the block closes at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def row_of(data: dict[str, Any]) -> Row:
    """Return a line's row; raises TypeError, KeyError or ValueError when it is none."""
    known = {each.name for each in fields(Row)}
    if not isinstance(data, dict) or set(data) - known:
        raise ValueError(f'unknown {", ".join(sorted(set(data) - known))}' if isinstance(
            data, dict) else 'not an object')
    return Row(**{**data, 'job': Job(**data['job'])})
