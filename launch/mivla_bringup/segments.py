"""
Dead shared-memory segments of Fast DDS, left in /dev/shm by processes that were killed.

A living process holds a lock on the ``_el`` file beside its segment; a segment whose lock can be
taken belongs to nobody any more. Only data segments are removed, whose names are random: the names
of ports are used again, a living sender may still have a dead port open, and Fast DDS mends them
itself.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ['Cleaning', 'clean', 'dead_segments']

FOLDER = Path('/dev/shm')
# A segment is made a moment before it is locked; one that young is left alone.
MIN_AGE = 5.0    # s


@dataclass(frozen=True)
class Cleaning:
    """What was removed."""

    segments: int
    bytes: int


def dead_segments(folder: Path = FOLDER, now: float | None = None) -> list[Path]:
    """Return the lock files of dead segments that this user may remove."""
    now = time.time() if now is None else now
    found = []
    for lock in sorted(folder.glob(f'fastrtps_{"[0-9a-f]" * 16}_el')):
        try:
            state = lock.stat()
            if state.st_uid != os.geteuid() or now - state.st_mtime < MIN_AGE:
                continue
            descriptor = os.open(lock, os.O_RDONLY)
        except FileNotFoundError:
            continue    # its owner has just left in good order
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(lock)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
    return found


def clean(folder: Path = FOLDER, now: float | None = None) -> Cleaning:
    """Remove dead segments with their locks."""
    count = freed = 0
    for lock in dead_segments(folder, now):
        segment = lock.with_name(lock.name.removesuffix('_el'))
        if segment.exists():
            freed += segment.stat().st_size
        segment.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        count += 1
    return Cleaning(count, freed)
