"""Dead shared-memory segments: told from living ones by their lock, removed with their files."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from mivla_bringup.segments import MIN_AGE, clean, dead_segments

OLD = MIN_AGE + 60.0


def make(folder: Path, name: str, age: float = OLD) -> Path:
    for path in (folder / name, folder / f'{name}_el'):
        path.write_bytes(b'x' * 100)
        os.utime(path, (time.time() - age,) * 2)
    return folder / f'{name}_el'


def test_dead_segments_go_with_their_locks_and_nothing_else_does(tmp_path: Path) -> None:
    make(tmp_path, 'fastrtps_0123456789abcdef')
    make(tmp_path, 'fastrtps_fedcba9876543210')
    make(tmp_path, 'fastrtps_port7000')
    (tmp_path / 'mine').write_text('not ours to touch')
    done = clean(tmp_path)
    assert (done.segments, done.bytes) == (2, 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'fastrtps_port7000', 'fastrtps_port7000_el', 'mine']


def test_a_living_segment_stays(tmp_path: Path) -> None:
    lock = make(tmp_path, 'fastrtps_0123456789abcdef')
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert clean(tmp_path).segments == 0
        assert lock.exists()
    assert dead_segments(tmp_path) == [lock]


def test_a_segment_that_is_just_being_made_stays(tmp_path: Path) -> None:
    make(tmp_path, 'fastrtps_0123456789abcdef', age=0.0)
    assert clean(tmp_path).segments == 0


def test_a_segment_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, 'fastrtps_0123456789abcdef')
    monkeypatch.setattr(os, 'geteuid', lambda: os.getuid() + 1)
    assert clean(tmp_path).segments == 0


def test_a_lock_without_its_segment_is_removed(tmp_path: Path) -> None:
    lock = make(tmp_path, 'fastrtps_0123456789abcdef')
    (tmp_path / 'fastrtps_0123456789abcdef').unlink()
    assert clean(tmp_path).bytes == 0
    assert not lock.exists()
