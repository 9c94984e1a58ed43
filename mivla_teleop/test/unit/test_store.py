"""The folder of episodes, its manifest and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recording_samples import START, samples, start, topics

from mivla_teleop.recording import (
    BagError,
    EpisodeResult,
    EpisodeStore,
    EpisodeWriter,
    RecordingError,
    Required,
    Thresholds,
    TopicLossCount,
    WriterOptions,
    judge,
)
from mivla_teleop.recording.metadata import TopicSpan

STATES = '/piper/joint_states'


def record(store: EpisodeStore, task: str = 'click_bell', outcome: str = 'success',
           verdict: str = 'accepted') -> Path:
    """Record a short episode."""
    folder, number = store.allocate(task)
    writer = EpisodeWriter(folder, number, start(task=task), topics(),
                           WriterOptions(free_floor=0, reserve=4096, sync=False))
    writer.write(samples(0.1))
    path = writer.commit(EpisodeResult(outcome=outcome, verdict=verdict,
                                       loss={STATES: TopicLossCount(20, 1, 2)}))
    store.add(path)
    return path


def test_episodes_are_numbered_per_task_and_listed(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / 'new' / 'root')
    paths = [record(store), record(store, 'other', 'failure'), record(store)]
    assert [path.name for path in paths] == ['episode_000001', 'episode_000001', 'episode_000002']
    records = store.episodes()
    assert [(r.task, r.episode) for r in records] == [
        ('click_bell', 'episode_000001'), ('click_bell', 'episode_000002'),
        ('other', 'episode_000001')]
    first = records[0]
    assert first.accepted and not records[2].accepted and first.lost == 3
    assert (first.started, first.messages, first.instruction) == (START + 100, 63,
                                                                  'press the bell')
    assert first.duration == pytest.approx(0.095, abs=1e-3) and first.extra == start().extra
    assert store.path(first) == paths[0] and len(store.episodes('other')) == 1


def test_a_number_is_never_used_twice(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    recording, number = store.allocate('click_bell')
    assert store.allocate('click_bell')[1] == number + 1
    store.release(recording)
    store.discard(record(store))
    assert record(store).name == 'episode_000004'


def test_manifest_is_mended_from_the_bags(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    record(store)
    record(store)
    listed = store.episodes()
    manifest = tmp_path / 'manifest.jsonl'
    manifest.write_text(manifest.read_text().splitlines()[0][:50] + '\n{"torn": ')
    assert store.episodes() == listed
    manifest.unlink()
    assert store.episodes() == listed and store.rebuild() == listed
    assert [json.loads(line)['episode'] for line in manifest.read_text().splitlines()] == [
        'episode_000001', 'episode_000002']
    store.discard(store.path(listed[0]))
    assert store.episodes() == listed[1:]


def test_discard_can_be_undone_until_pruned(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    hidden = store.discard(record(store))
    assert hidden.name == '.discarded-000001' and store.episodes() == []
    assert store.discarded() == [hidden] and store.prune(keep=1) == 0
    assert store.restore(hidden).name == 'episode_000001' and len(store.episodes()) == 1
    store.discard(tmp_path / 'click_bell' / 'episode_000001')
    assert store.prune(keep=0) == 1 and store.discarded() == []


def test_an_unreadable_episode_is_named(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    path = record(store)
    (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: [')
    (tmp_path / 'manifest.jsonl').unlink()
    with pytest.raises(BagError, match='episode_000001/metadata.yaml'):
        store.episodes()


def test_a_root_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(RecordingError, match='no folder for episodes'):
        EpisodeStore(tmp_path / 'file' / 'root')


def spans(seconds: float, rate: float) -> dict[str, TopicSpan]:
    """Return what was written of one topic of an episode."""
    return {STATES: TopicSpan(round(seconds * rate), 1, 0, round(seconds * 1e9)),
            '/clock': TopicSpan(2, 1, 0, round(seconds * 1e9))}


@pytest.mark.parametrize(('changes', 'reason'), [
    ({}, None),
    ({'rate': 150.0}, 'joint_states: 150.0 Hz, below 90% of 200 Hz'),
    ({'seconds': 0.5}, 'shorter than 1 s'),
    ({'lost': 1}, 'joint_states: 1 messages lost'),
    ({'dropped': 2}, 'joint_states: 2 messages lost'),
    ({'state': 'interrupted'}, 'the recording was ended: interrupted'),
    ({'topic': '/piper/head'}, '/piper/head: not one message'),
])
def test_verdict(changes: dict, reason: str | None) -> None:
    verdict, reasons = judge(
        [Required(changes.get('topic', STATES), 200.0)],
        spans(changes.get('seconds', 10.0), changes.get('rate', 200.0)),
        {STATES: TopicLossCount(1, changes.get('lost', 0), changes.get('dropped', 0))},
        changes.get('state', 'finished'), Thresholds())
    if reason is None:
        assert (verdict, reasons) == ('accepted', ())
    else:
        assert verdict == 'rejected' and len(reasons) == 1 and reason in reasons[0]


def test_losses_of_other_topics_do_not_reject() -> None:
    assert judge([Required(STATES)], spans(10.0, 200.0),
                 {'/stop': TopicLossCount(1, 5)}, 'finished')[0] == 'accepted'
