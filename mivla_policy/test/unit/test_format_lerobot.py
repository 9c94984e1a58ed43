"""LeRobot data sets: written, gone on with, read back, and read by LeRobot itself."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mivla_core.images import decode_jpeg
from mivla_policy.core.episode import POLICY, TELEOP, Episode, FrameTrack
from mivla_policy.errors import EpisodeError, FormatError
from mivla_policy.formats import lerobot
from mivla_policy.formats.export import Source
from mivla_policy.formats.rows import to_rows
from mivla_policy.formats.schema import Column, Schema, own_schema
from mivla_policy.formats.video import VideoSettings

FPS = 15
ROOT = Path(__file__).resolve().parents[3]
WITNESS = ROOT / '.venv-lerobot' / 'bin' / 'python'


class Calls:
    """Sources that count how often they are read."""

    def __init__(self, episodes: list[Episode]) -> None:
        self.episodes, self.reads = episodes, []

    def sources(self, fail: int = -1) -> list[Source]:
        return [Source(f'bag {i}', partial(self._load, i, fail))
                for i in range(len(self.episodes))]

    def _load(self, index: int, fail: int) -> Episode:
        if index == fail:
            raise EpisodeError('the disk is full')
        self.reads.append(index)
        return self.episodes[index]


@pytest.fixture
def episodes(toy_episode) -> list[Episode]:
    made = [toy_episode(i) for i in range(3)]
    return [*made[:2], replace(made[2], instruction='push the box')]


@pytest.mark.parametrize('settings', [
    VideoSettings(), VideoSettings('libsvtav1', 2, 30, '12'),
    VideoSettings('libx264', 30, 20, '')])
def test_what_was_written_is_read_back(tmp_path: Path, profile, episodes, settings) -> None:
    schema = own_schema(profile)
    assert lerobot.write(
        Calls(episodes).sources(), tmp_path / 'set', schema, FPS, settings) == 3
    back = list(lerobot.read(tmp_path / 'set', schema, profile.joint_names))
    roles = tuple(schema.cameras)
    for given, got in zip(episodes, back, strict=True):
        wanted, rows = to_rows(given, FPS, roles), to_rows(got, FPS, roles)
        assert got.instruction == given.instruction and got.source == given.source
        assert got.profile_hash == profile.hash and not got.states.assumed
        assert np.array_equal(wanted.states.astype(np.float32), rows.states)
        assert np.array_equal(wanted.actions.astype(np.float32), rows.actions)
        for role in roles:
            for i, j in zip(wanted.frames[role], rows.frames[role], strict=True):
                a, b = (decode_jpeg(e.cameras[role].frames[k]).astype(int)
                        for e, k in ((given, i), (got, j)))
                # The bright spot is in its place: another frame would differ by far more.
                assert np.abs(a - b).mean() < 6.0
    assert not (tmp_path / 'set' / '.parts').exists()


@pytest.fixture
def corrected(episodes) -> list[Episode]:
    """Return an episode that a policy commanded, with a correction, between demonstrations."""
    sources = np.full(len(episodes[1].commands.stamps_ns), POLICY, dtype=np.uint8)
    sources[40:80] = TELEOP
    return [episodes[0], replace(episodes[1], sources=sources), episodes[2]]


def test_where_a_person_took_over_is_marked_and_read_back(
        tmp_path: Path, profile, corrected) -> None:
    schema = own_schema(profile)
    lerobot.write(Calls(corrected).sources(), tmp_path / 'set', schema, FPS)
    wanted = [to_rows(episode, FPS, tuple(schema.cameras)) for episode in corrected]
    assert 1 < wanted[1].interventions.sum() < len(wanted[1]) - 1
    meta = tmp_path / 'set' / 'meta'
    features = json.loads((meta / 'info.json').read_text())['features']
    assert features['intervention'] == {'dtype': 'bool', 'shape': [1], 'names': None}
    stats = json.loads((meta / 'stats.json').read_text())['intervention']
    marks = np.concatenate([rows.interventions for rows in wanted])
    assert stats['mean'] == pytest.approx([marks.mean()]) and stats['max'] == [1.0]
    back = list(lerobot.read(tmp_path / 'set', schema, profile.joint_names))
    assert np.array_equal(back[1].intervention, wanted[1].interventions)
    assert set(back[1].sources) == {POLICY, TELEOP}
    # What was demonstrated is no correction, nor a policy's.
    assert back[0].sources is None and back[2].sources is None
    # Exported again it is the same.
    lerobot.write(Calls(back).sources(), tmp_path / 'again', schema, FPS)
    (_, once_more, _) = lerobot.read(tmp_path / 'again', schema, profile.joint_names)
    rows = to_rows(once_more, FPS, tuple(schema.cameras))
    assert np.array_equal(rows.interventions, wanted[1].interventions)


def test_demonstrations_alone_have_no_such_column(tmp_path: Path, profile, episodes) -> None:
    teleop = [replace(e, sources=np.full(len(e.commands.stamps_ns), TELEOP)) for e in episodes]
    lerobot.write(Calls(teleop).sources(), tmp_path / 'set', own_schema(profile), FPS)
    info = json.loads((tmp_path / 'set' / 'meta' / 'info.json').read_text())
    assert 'intervention' not in info['features']


@pytest.mark.parametrize('values, message', [
    (lambda marks: [[float(mark)] for mark in marks], ''),     # as a list of one, of others
    (lambda marks: marks.astype(np.float32), ''),
    (lambda marks: [[0.0, 1.0] for _ in marks], '2 numbers a row'),
    (lambda marks: None, 'no column complementary_info.is_intervention')])
def test_the_name_of_others_is_understood(tmp_path: Path, profile, corrected, values,
                                          message) -> None:
    schema, folder = own_schema(profile), tmp_path / 'set'
    lerobot.write(Calls(corrected[1:2]).sources(), folder, schema, FPS)
    name = 'complementary_info.is_intervention'
    (data,) = (folder / 'data').rglob('*.parquet')
    table = pq.read_table(data)
    marks = table['intervention'].to_numpy(zero_copy_only=False)
    table = table.drop_columns(['intervention'])
    made = values(marks)
    if made is not None:
        table = table.append_column(name, pa.array(made))
    pq.write_table(table, data)
    info = folder / 'meta' / 'info.json'
    told = json.loads(info.read_text())
    told['features'][name] = {'dtype': 'float32', 'shape': [1], 'names': ['is_intervention']}
    del told['features']['intervention']
    info.write_text(json.dumps(told))
    (folder / 'meta' / 'mivla.json').unlink()
    if message:
        with pytest.raises(FormatError, match=message):
            list(lerobot.read(folder, schema, profile.joint_names))
        return
    (back,) = lerobot.read(folder, schema, profile.joint_names)
    assert np.array_equal(back.intervention, marks)


def test_an_interrupted_export_goes_on_and_makes_the_same_files(
        tmp_path: Path, profile, episodes) -> None:
    schema, first, second = own_schema(profile), Calls(episodes), Calls(episodes)
    with pytest.raises(EpisodeError, match='disk is full'):
        lerobot.write(first.sources(fail=2), tmp_path / 'a', schema, FPS)
    assert first.reads == [0, 1] and not (tmp_path / 'a' / 'meta').exists()
    lerobot.write(first.sources(), tmp_path / 'a', schema, FPS)
    assert first.reads == [0, 1, 2]
    lerobot.write(second.sources(), tmp_path / 'b', schema, FPS)
    for path in sorted(p for p in (tmp_path / 'b').rglob('*') if p.is_file()):
        other = tmp_path / 'a' / path.relative_to(tmp_path / 'b')
        assert other.read_bytes() == path.read_bytes(), path
    lerobot.write(second.sources(), tmp_path / 'b', schema, FPS)
    assert second.reads == [0, 1, 2], 'a finished export was read again'


def test_processes_make_the_same_data_set(tmp_path: Path, profile, episodes) -> None:
    sources = [Source(e.source, partial(_give, e)) for e in episodes]
    seen = []
    for name, workers in (('one', 1), ('two', 2)):
        lerobot.write(sources, tmp_path / name, own_schema(profile), FPS, workers=workers,
                      progress=lambda done, total, what: seen.append((done, total)))
    assert seen == 2 * [(0, 3), (1, 3), (2, 3), (3, 3)]
    for path in sorted(p for p in (tmp_path / 'one').rglob('*') if p.is_file()):
        other = tmp_path / 'two' / path.relative_to(tmp_path / 'one')
        assert other.read_bytes() == path.read_bytes(), path


def _give(episode: Episode) -> Episode:
    return episode


def test_another_schema_renames_scales_and_reads_back(tmp_path: Path, profile, episodes) -> None:
    names = profile.joint_names
    schema = Schema(
        (*(Column(f'{name}.pos', name, 180 / np.pi) for name in reversed(names[:-1])),
         Column('spare', constant=7.0), Column('grip', names[-1], -10.0, 1.0)),
        {'wrist': 'cam_right'}, robot_type='other')
    lerobot.write(Calls(episodes[:1]).sources(), tmp_path / 'set', schema, FPS)
    info = json.loads((tmp_path / 'set' / 'meta' / 'info.json').read_text())
    assert info['features']['action']['names'] == list(schema.names)
    assert info['robot_type'] == 'other' and 'observation.images.cam_right' in info['features']
    (back,) = lerobot.read(tmp_path / 'set', schema, names)
    wanted = to_rows(episodes[0], FPS, ('wrist',))
    assert np.allclose(back.states.values, wanted.states, atol=1e-6)
    # Read under the robot's own names nothing fits, and the columns are told.
    with pytest.raises(FormatError, match='no camera head; it has observation.images.cam_right'):
        next(lerobot.read(tmp_path / 'set', own_schema(profile), names))
    with pytest.raises(FormatError, match='no column joint1 .* it has joint6.pos'):
        next(lerobot.read(tmp_path / 'set', replace(own_schema(profile), cameras={}), names))


@pytest.mark.parametrize('change, message', [
    ({'codebase_version': 'v2.1'}, 'version v2.1 .* converter'),
    ({'video_path': '../../{video_key}.mp4'}, 'only videos/'),
    ({'data_path': '{chunk_index.__class__}'}, 'only data/'),
    ({'fps': -1}, '-1 rows per second'),
    ({'features': {}}, 'no observation.state'),
])
def test_strangers_are_checked(tmp_path: Path, profile, episodes, change, message) -> None:
    schema = own_schema(profile)
    lerobot.write(Calls(episodes[:1]).sources(), tmp_path / 'set', schema, FPS)
    path = tmp_path / 'set' / 'meta' / 'info.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FormatError, match=message):
        list(lerobot.read(tmp_path / 'set', schema, profile.joint_names))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, profile, episodes) -> None:
    schema, calls = own_schema(profile), Calls(episodes[:2])
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'diary.txt').write_text('mine')
    with pytest.raises(FormatError, match='not empty'):
        lerobot.write(calls.sources(), tmp_path / 'full', schema, FPS)
    lerobot.write(calls.sources(), tmp_path / 'set', schema, FPS)
    with pytest.raises(FormatError, match='begun with settings'):
        lerobot.write(calls.sources(), tmp_path / 'set', schema, FPS + 1)
    with pytest.raises(FormatError, match='other episodes'):
        lerobot.write(calls.sources()[:1], tmp_path / 'set', schema, FPS)
    with pytest.raises(FormatError, match='exported twice'):
        lerobot.write(2 * calls.sources(), tmp_path / 'new', schema, FPS)


def test_a_camera_that_stood_still_is_no_demonstration(tmp_path: Path, profile, episodes) -> None:
    track = episodes[0].cameras['head']
    stood = FrameTrack(track.stamps_ns[:2], track.frames[:2])
    broken = replace(episodes[0], cameras={**episodes[0].cameras, 'wrist': stood})
    with pytest.raises(EpisodeError, match='missing for 0.5'):
        lerobot.write(Calls([broken]).sources(), tmp_path / 'set', own_schema(profile), FPS)


def test_an_encoder_that_is_not_there_is_named() -> None:
    with pytest.raises(FormatError, match="no video encoder 'h2645'"):
        VideoSettings('h2645')


@pytest.mark.timeout(300)
def test_lerobot_itself_reads_it(tmp_path: Path, profile, corrected) -> None:
    episodes = corrected
    if not WITNESS.is_file() or not list(WITNESS.parents[1].glob('lib/*/site-packages/datasets')):
        pytest.skip('no .venv-lerobot with LeRobot and its data sets; "make lerobot-env" makes it')
    schema, out = own_schema(profile), tmp_path / 'read.npz'
    lerobot.write(Calls(episodes).sources(), tmp_path / 'set', schema, FPS)
    done = subprocess.run(
        [str(WITNESS), '-I', str(Path(__file__).with_name('lerobot_witness.py')),
         str(tmp_path / 'set'), str(out)], capture_output=True, text=True, check=False,
        env={**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path / 'home')})
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(out, allow_pickle=False)
    wanted = [to_rows(episode, FPS, tuple(schema.cameras)) for episode in episodes]
    assert (int(found['fps']), int(found['episodes'])) == (FPS, 3)
    assert int(found['rows']) == sum(map(len, wanted))
    states = np.concatenate([rows.states for rows in wanted]).astype(np.float32)
    actions = np.concatenate([rows.actions for rows in wanted]).astype(np.float32)
    assert np.array_equal(found['states'], states)
    assert np.array_equal(found['actions'][:, 0], actions)
    ends = np.cumsum([len(rows) for rows in wanted]) - 1
    inner = np.setdiff1d(np.arange(len(actions)), ends)
    assert np.array_equal(found['actions'][inner, 1], actions[inner + 1])
    assert found['tasks'].tolist() == [
        e.instruction for e, rows in zip(episodes, wanted, strict=True) for _ in range(len(rows))]
    for role, name in schema.cameras.items():
        pictures = found[f'observation.images.{name}']
        truth = np.stack([
            decode_jpeg(episode.cameras[role].frames[k]) for episode, rows in
            zip(episodes, wanted, strict=True) for k in rows.frames[role]]).transpose(0, 3, 1, 2)
        assert np.abs(pictures * 255 - truth).mean(axis=(1, 2, 3)).max() < 6.0
    assert found['intervention'].dtype == bool and np.array_equal(
        found['intervention'], np.concatenate([rows.interventions for rows in wanted]))
    stats = json.loads(str(found['stats']))
    assert np.allclose(stats['action']['mean'], actions.mean(axis=0), atol=1e-6)
    assert np.allclose(stats['observation.images.head']['mean'], [
        [[np.mean([decode_jpeg(e.cameras['head'].frames[k])[..., c] for e, rows in
                   zip(episodes, wanted, strict=True) for k in rows.frames['head']]) / 255]]
        for c in range(3)], atol=1e-3)
