"""Rows of one rate, schemas and statistics: what holds for any episode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mivla_policy.core.align import due_times, pick_sources, sample_at
from mivla_policy.core.episode import Commanded, Episode, FrameTrack, Measured
from mivla_policy.errors import FormatError
from mivla_policy.formats.rows import from_rows, to_rows
from mivla_policy.formats.schema import Column, Schema, load_schema, own_schema
from mivla_policy.formats.statistics import histogram, of_histograms, of_vectors, sampled

BEGIN = 1_700_000_000_000_000_000
RATES = st.sampled_from([1, 7, 10, 15, 30, 50, 60])


@given(st.integers(2, 90), RATES, st.integers(0, 2**32 - 1))
def test_rows_of_an_episode_of_rows_are_those_rows(count: int, fps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    states, actions = rng.normal(size=(2, count, 3))
    pictures = {'head': [bytes([k]) for k in range(count)]}
    episode = from_rows('x', 'y', fps, ('a', 'b', 'c'), states, actions, pictures)
    rows = to_rows(episode, fps, ('head',))
    assert np.array_equal(rows.states, states) and np.array_equal(rows.actions, actions)
    assert rows.frames['head'].tolist() == list(range(count))
    # A stamp is a whole nanosecond, so a step is not everywhere as long as a row.
    assert np.allclose(rows.targets[1:], actions[:-1], atol=1e-6)


@given(RATES.filter(lambda fps: fps <= 30), st.integers(0, 2**32 - 1))
def test_a_row_is_what_live_inference_would_have_been_asked(fps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = BEGIN + np.cumsum(rng.integers(4_000_000, 6_000_000, 400))
    frames = {role: BEGIN + 33_000_000 * np.arange(1, 50) + rng.integers(-3_000_000, 3_000_000, 49)
              for role in ('head', 'wrist')}
    episode = Episode('x', 'y', {role: FrameTrack(stamps, (b'',) * 49)
                                 for role, stamps in frames.items()},
                      Measured(states, rng.normal(size=(400, 2))),
                      Commanded(states + 5_000_000, rng.normal(size=(400, 2))), ('a', 'b'))
    rows = to_rows(episode, fps, ('head', 'wrist'))
    first = int(frames['head'][0]) + int(np.median(np.diff(frames['head']))) // 2
    instants = [first + k * 1_000_000_000 // fps for k in range(len(rows) + 10)]
    asked = [found for at in instants if (found := pick_sources(
        list(frames.values()), states, at)) is not None]
    for row, (chosen, state, stamp) in enumerate(asked[:len(rows)]):
        assert rows.stamps_ns[row] == stamp
        assert (rows.frames['head'][row], rows.frames['wrist'][row]) == chosen
        assert np.array_equal(rows.states[row], episode.states.values[state])
        due = due_times(stamp, round(1e9 / fps), 1)
        assert np.array_equal(rows.actions[row], sample_at(
            episode.commands.stamps_ns, episode.commands.values, due)[0][0])


@given(st.permutations(['a', 'b', 'c']), st.floats(-50, 50), st.integers(0, 2**32 - 1),
       st.floats(0.01, 1e4))
def test_a_schema_undoes_itself(order: list[str], offset: float, seed: int, scale: float) -> None:
    schema = Schema((*(Column(f'their {name}', name, scale, offset) for name in order),
                     Column('spare', constant=3.0)), {'head': 'cam'})
    values = np.random.default_rng(seed).normal(size=(5, 3))
    there = schema.outward(values, ('a', 'b', 'c'))
    assert (there[:, 3] == 3.0).all()
    back = schema.inward(there, ('a', 'b', 'c'))
    assert np.allclose(back, values, atol=1e-9 * (1 + abs(offset)) / scale + 1e-12)
    # In another order of the data set's own, told by names.
    turned = schema.inward(there[:, ::-1], ('c', 'a'), schema.names[::-1])
    assert np.array_equal(turned, back[:, [2, 0]])


@pytest.mark.parametrize('text, message', [
    ('columns: [{joint: j}]\ncameras: {}\nspeed: 3', 'speed'),
    ('columns: {joint: j}\ncameras: {}', 'expected a list "columns"'),
    ('columns: [{joint: j, unit: inch}]\ncameras: {}', 'unit of rad'),
    ('columns: [{joint: j, constant: 1}]\ncameras: {}', 'either a joint, or the constant'),
    ('columns: [{name: j}]\ncameras: {}', 'either a joint, or the constant'),
    ('columns: [{joint: j}, {joint: j, name: k}]\ncameras: {}', 'joint j occurs more than once'),
    ('columns: [{joint: j, scale: 0}]\ncameras: {}', 'scale other than 0'),
    ('columns: [{joint: j}]\ncameras: {}\nmissing: {x: yes}', 'True: expected a number'),
    ('columns: [\n', 'schema.yaml: cannot be read as a schema: while parsing'),
])
def test_a_wrong_schema_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'schema.yaml').write_text(text)
    with pytest.raises(FormatError, match=message):
        load_schema(tmp_path / 'schema.yaml')


def test_a_schema_fits_a_robot_or_says_why_not(profile) -> None:
    own = own_schema(profile)
    assert own.check(profile) is own
    with pytest.raises(FormatError, match='piper has no joint joint9; it has joint1'):
        replace(own, columns=(*own.columns, Column('joint9', 'joint9'))).check(profile)
    with pytest.raises(FormatError, match='piper has no camera tail'):
        replace(own, cameras={'tail': 'x'}).check(profile)
    less = replace(own, columns=own.columns[:-1])
    values = np.zeros((2, 6))
    with pytest.raises(FormatError, match='no column for joint gripper; .* under "missing"'):
        less.inward(values, profile.joint_names)
    filled = replace(less, missing={'gripper': 0.03}).inward(values, profile.joint_names)
    assert (filled[:, -1] == 0.03).all()


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_statistics_of_pictures_are_exact(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, rng.integers(2, 256), (count, 12, 16, 3)).astype(np.uint8)
    found = of_histograms(sum(histogram(p) for p in pictures), count)
    values = pictures.reshape(-1, 3) / 255.0
    for name, wanted in (('min', values.min(0)), ('max', values.max(0)), ('mean', values.mean(0)),
                         ('std', values.std(0))):
        assert np.allclose(found[name].ravel(), wanted), name
    for name, part in (('q01', 0.01), ('q50', 0.5), ('q99', 0.99)):
        assert np.array_equal(found[name].ravel(), np.quantile(
            values, part, axis=0, method='inverted_cdf')), name


def test_statistics_of_several_episodes_are_those_of_their_rows() -> None:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(n, 4)) for n in (3, 50, 7)]
    found = of_vectors(parts)
    rows = np.concatenate(parts)
    assert np.allclose(found['q90'], np.quantile(rows, 0.9, axis=0))
    assert np.allclose(found['std'], rows.std(axis=0)) and found['count'].tolist() == [60]
    assert sampled(7) == frozenset(range(7)) and len(sampled(10_000)) == 1000
