"""What a killed recorder leaves behind becomes an episode again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recording_samples import JOINTS, samples, start, topics

from mivla_teleop.recording import BagError, EpisodeStore, EpisodeWriter, WriterOptions, repair
from mivla_teleop.recording.bag import recording_name
from mivla_teleop.recording.reader import read_episode

CHILD = """
import sys, time
from pathlib import Path
from recording_samples import samples, start, topics
from mivla_teleop.recording import EpisodeWriter, WriterOptions
writer = EpisodeWriter(Path(sys.argv[1]), 3, start(), topics(),
                       WriterOptions(free_floor=0, flush_period=0.05, sync=False))
data = samples(0.5)
writer.write(data)
while writer.progress().messages < len(data):
    time.sleep(0.01)
time.sleep(0.15)                                  # at least one flush after the last of them
print('written', len(data), flush=True)
time.sleep(60)
"""


@pytest.fixture(scope='module')
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a recording whose process was killed with SIGKILL."""
    folder = tmp_path_factory.mktemp('store') / 'click_bell' / recording_name(3)
    folder.mkdir(parents=True)
    child = subprocess.Popen([sys.executable, '-c', CHILD, str(folder)], stdout=subprocess.PIPE,
                             cwd=Path(__file__).parent, text=True,
                             env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
    try:
        assert child.stdout is not None
        assert child.stdout.readline().startswith('written 315')
        with pytest.raises(BagError, match='is being recorded'):
            repair(folder)      # not while its recorder lives
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    return folder


def copy_of(killed: Path, root: Path) -> Path:
    folder = root / 'click_bell' / killed.name
    folder.mkdir(parents=True)
    for path in killed.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_killed_recording_is_recovered(killed: Path, tmp_path: Path) -> None:
    folder = copy_of(killed, tmp_path)
    with pytest.raises(BagError, match='not a finished episode'):
        read_episode(folder)
    store = EpisodeStore(tmp_path)
    assert store.episodes() == [] and store.unfinished() == [folder]
    made, failed = store.recover()
    assert not failed and [path.name for path in made] == ['episode_000003']
    assert not folder.exists()
    assert sorted(path.name for path in made[0].iterdir()) == [
        'episode_000003_0.mcap', 'metadata.yaml']
    data = read_episode(made[0])
    assert data.state == 'repaired' and data.verdict == 'rejected'
    assert data.reasons == ('the recorder was killed while recording',)
    assert data.joint_names == JOINTS and data.profile_text == start().profile_text
    assert len(data.joint_states.stamps) == 100 and len(data.cameras['head'].jpeg) == 15
    record = store.episodes()[0]
    assert record.state == 'repaired' and record.lost == 0 and record.messages == 315
    assert store.recover() == ([], [])


@pytest.mark.parametrize('cut', [1, 40, 3000])
def test_torn_file_keeps_what_is_whole(killed: Path, tmp_path: Path, cut: int) -> None:
    folder = copy_of(killed, tmp_path)
    bag = next(folder.glob('*.mcap'))
    original = bag.read_bytes()
    # whole chunks, then one that ends in the middle
    bag.write_bytes(original + original[200:200 + cut])
    assert len(read_episode(repair(folder)).joint_states.stamps) == 100


def test_zeros_at_the_end_do_not_matter(killed: Path, tmp_path: Path) -> None:
    folder = copy_of(killed, tmp_path)
    bag = next(folder.glob('*.mcap'))
    bag.write_bytes(bag.read_bytes() + bytes(4096))     # a file system after a power cut
    assert len(read_episode(repair(folder)).joint_states.stamps) == 100


def test_damaged_first_chunk_is_an_error_and_keeps_the_file(killed: Path, tmp_path: Path) -> None:
    folder = copy_of(killed, tmp_path)
    bag = next(folder.glob('*.mcap'))
    original = bytearray(bag.read_bytes())
    original[5000] ^= 0xFF
    bag.write_bytes(original)
    with pytest.raises(BagError, match='no complete message'):
        repair(folder)
    assert bag.read_bytes() == original
    made, failed = EpisodeStore(tmp_path).recover()
    assert not made and len(failed) == 1 and folder.exists()


def test_complete_file_that_was_not_published_yet(tmp_path: Path) -> None:
    from mivla_teleop.recording import EpisodeResult
    folder = tmp_path / 'click_bell' / recording_name(3)
    folder.mkdir(parents=True)
    writer = EpisodeWriter(folder, 3, start(), topics(), WriterOptions(free_floor=0))
    data = samples(0.2)
    # one loss on the way
    lost = next(s for s in data if s.topic == 0 and s.sequence == 20)
    writer.write([s for s in data if s is not lost])
    finished = writer.commit(EpisodeResult(outcome='success'))
    finished.rename(folder)
    (folder / 'metadata.yaml').unlink()
    episode = repair(folder)
    assert len(read_episode(episode).joint_states.stamps) == 39
    assert EpisodeStore(tmp_path).episodes()[0].lost == 1


def test_folder_without_a_file_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / 'click_bell' / recording_name(1)
    folder.mkdir(parents=True)
    assert EpisodeStore(tmp_path).recover() == ([], [])
    assert not folder.exists()


def test_flush_is_in_time(tmp_path: Path) -> None:
    """What is older than the flush period is in the file, readable by a second process."""
    folder = tmp_path / recording_name(1)
    folder.mkdir()
    writer = EpisodeWriter(folder, 1, start(), topics(),
                           WriterOptions(free_floor=0, flush_period=0.05, sync=False))
    bag = folder / writer.file_name
    before = bag.stat().st_size
    data = samples(0.05)
    writer.write(data)
    deadline = time.monotonic() + 5.0
    size = sum(len(sample.data) for sample in data)
    while bag.stat().st_size < before + size:
        assert time.monotonic() < deadline, 'nothing was flushed within 5 s'
        time.sleep(0.01)
    writer.stop()
