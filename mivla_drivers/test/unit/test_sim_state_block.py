"""The shared state of a world, within one process and across two."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mivla_core.timing import StampNs
from mivla_drivers.sim.state_block import (
    Snapshot,
    StateBlockError,
    StateReader,
    StateWriter,
    block_path,
)

SCENE, COUNT = 77, 9
SEQUENCE_AT = 24    # offset of the sequence number in the file


def snapshot(value: int) -> Snapshot:
    qpos = np.full(COUNT, float(value))
    return Snapshot(StampNs(value), 3, 'click_bell', 2**63 + 5, 'hard', qpos)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return block_path(5, 'piper', folder=str(tmp_path))


@pytest.fixture
def writer(path: Path) -> Iterator[StateWriter]:
    made = StateWriter(path, scene_id=SCENE, positions=COUNT)
    yield made
    made.close()


def reader(path: Path, **changes: int) -> StateReader:
    return StateReader(path, **{'scene_id': SCENE, 'positions': COUNT, **changes})


def test_round_trip(path: Path, writer: StateWriter) -> None:
    writer.write(snapshot(41))
    writer.write(snapshot(42))
    found = reader(path).read()
    assert found.stamp == StampNs(42) and isinstance(found.stamp, StampNs)
    assert (found.generation, found.task, found.seed, found.level) == (
        3, 'click_bell', 2**63 + 5, 'hard')
    np.testing.assert_array_equal(found.qpos, np.full(COUNT, 42.0))


def test_file_belongs_to_its_user_alone_and_goes_with_the_writer(
        path: Path, writer: StateWriter) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    writer.close()
    writer.close()
    assert not path.exists()
    with pytest.raises(StateBlockError, match='closed'):
        writer.write(snapshot(1))


def test_reader_needs_a_world(path: Path) -> None:
    with pytest.raises(StateBlockError, match='no simulated world.*ROS_DOMAIN_ID'):
        reader(path)


def test_reader_says_that_nothing_was_written_yet(path: Path, writer: StateWriter) -> None:
    with pytest.raises(StateBlockError, match='not written a state yet'):
        reader(path).read()


@pytest.mark.parametrize('changes', [{'scene_id': SCENE + 1}, {'positions': COUNT + 1}])
def test_reader_refuses_another_scene(
        path: Path, writer: StateWriter, changes: dict[str, int]) -> None:
    with pytest.raises(StateBlockError):
        reader(path, **changes)


def test_reader_refuses_links_and_foreign_files(path: Path, tmp_path: Path) -> None:
    (tmp_path / 'other').write_bytes(b'x' * 4096)
    path.symlink_to(tmp_path / 'other')
    with pytest.raises(StateBlockError):
        reader(path)
    path.unlink()
    path.write_bytes(b'y' * 180)
    with pytest.raises(StateBlockError):
        reader(path)


def test_second_writer_is_refused_while_the_first_lives(path: Path, writer: StateWriter) -> None:
    with pytest.raises(StateBlockError, match='still running'):
        StateWriter(path, scene_id=SCENE, positions=COUNT)
    writer.write(snapshot(1))
    assert reader(path).read().stamp == StampNs(1)


def test_writer_takes_over_from_one_that_was_killed(path: Path) -> None:
    code = ('import os, sys; from pathlib import Path; '
            'from mivla_drivers.sim.state_block import StateWriter; '
            f'w = StateWriter(Path(sys.argv[1]), scene_id={SCENE}, positions={COUNT}); '
            'os.kill(os.getpid(), 9)')
    done = subprocess.run([sys.executable, '-c', code, str(path)], check=False, timeout=60)
    assert done.returncode == -9 and path.exists()
    with StateWriterCloser(path) as fresh:
        fresh.write(snapshot(8))
        assert reader(path).read().stamp == StampNs(8)


class StateWriterCloser:
    """A writer for the length of a block."""

    def __init__(self, path: Path) -> None:
        self._writer = StateWriter(path, scene_id=SCENE, positions=COUNT)

    def __enter__(self) -> StateWriter:
        return self._writer

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def test_reader_follows_a_world_that_was_restarted(path: Path) -> None:
    with StateWriterCloser(path) as first:
        first.write(snapshot(1))
        eye = reader(path)
        assert eye.read().stamp == StampNs(1)
    with pytest.raises(StateBlockError, match='ended'):
        eye.read()
    with StateWriterCloser(path) as second:
        second.write(snapshot(2))
        assert eye.read().stamp == StampNs(2)
        second.write(snapshot(3))
        assert eye.read().stamp == StampNs(3)


def test_torn_state_is_never_returned(path: Path, writer: StateWriter) -> None:
    writer.write(snapshot(6))
    pauses: list[float] = []
    eye = StateReader(path, scene_id=SCENE, positions=COUNT, pause=pauses.append)
    with path.open('r+b') as file:
        file.seek(SEQUENCE_AT)
        file.write(struct.pack('<Q', 3))
    with pytest.raises(StateBlockError, match='no complete state'):
        eye.read()
    assert len(pauses) == 50


def test_corrupt_state_is_never_returned(path: Path, writer: StateWriter) -> None:
    writer.write(snapshot(6))
    eye = StateReader(path, scene_id=SCENE, positions=COUNT, pause=lambda _: None)
    with path.open('r+b') as file:
        file.seek(-12, os.SEEK_END)
        file.write(b'\xff')
    with pytest.raises(StateBlockError, match='no complete state'):
        eye.read()


@pytest.mark.parametrize('arguments', [(-1, 'piper'), (233, 'piper'), (0, '../etc'), (0, '')])
def test_path_refuses_what_is_no_file_name(arguments: tuple[int, str]) -> None:
    with pytest.raises(StateBlockError):
        block_path(*arguments)


WRITE_FOR_EVER = f"""
import sys
from pathlib import Path
import numpy as np
from mivla_core.timing import StampNs
from mivla_drivers.sim.state_block import Snapshot, StateWriter
writer = StateWriter(Path(sys.argv[1]), scene_id={SCENE}, positions={COUNT})
value = 1
writer.write(Snapshot(StampNs(value), value, 'click_bell', value, 'hard', np.full({COUNT}, 1.0)))
print('ready', flush=True)
while True:
    value += 1
    qpos = np.full({COUNT}, float(value))
    writer.write(Snapshot(StampNs(value), value, 'click_bell', value, 'hard', qpos))
"""


def test_states_of_another_process_are_whole(path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, '-c', WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline().strip() == 'ready'
        eye = reader(path)
        stamps = []
        for _ in range(3000):
            found = eye.read()
            assert found.generation == found.seed == int(found.stamp)
            np.testing.assert_array_equal(found.qpos, np.full(COUNT, float(int(found.stamp))))
            stamps.append(int(found.stamp))
    finally:
        child.kill()
        child.wait(timeout=10)
    assert stamps == sorted(stamps)
    assert stamps[-1] > stamps[0], 'the writer stood still: nothing was tested'
