"""The chunk player: continuity, the skip rule, and an end without extrapolation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivla_core.timing import StampNs
from mivla_policy.core.chunk import Chunk, ChunkPlayer
from mivla_policy.errors import ChunkRefused

MS = 1_000_000
T0 = StampNs(1_700_000_000_000_000_000)
DT = 66_666_667
BLEND = 80 * MS
TICK = 5 * MS


def chunk(rows: object, chunk_id: int = 1, observation: StampNs = T0, dt_ns: int = DT) -> Chunk:
    return Chunk(chunk_id, observation, dt_ns, np.asarray(rows, dtype=np.float64))


def ramp(rows: int = 16, joints: int = 2, slope: float = 0.02, base: float = 0.0) -> np.ndarray:
    return base + slope * np.arange(1, rows + 1)[:, None] * np.ones(joints)


def play(player: ChunkPlayer, begin: StampNs, end: StampNs, tick: int = TICK) -> np.ndarray:
    """Return the positions at the control rate, until the player has nothing."""
    out = []
    now = begin
    while now <= end:
        point = player.sample(now)
        if point is None:
            break
        out.append(point.position)
        now = now + tick
    return np.array(out)


def test_rows_are_due_at_observation_plus_i_plus_one_dt() -> None:
    player = ChunkPlayer(2, BLEND)
    rows = np.cumsum(np.random.default_rng(0).normal(size=(16, 2)), axis=0)
    player.accept(chunk(rows), T0, start=np.zeros(2))
    for i in range(2, 16):    # rows 0 and 1 may lie within the join
        point = player.sample(T0 + (i + 1) * DT)
        assert point is not None
        np.testing.assert_allclose(point.position, rows[i], atol=1e-12)
        assert point.chunk_id == 1 and point.observation == T0


def test_first_set_point_of_a_join_is_the_start_at_rest() -> None:
    player = ChunkPlayer(2, BLEND)
    start = np.array([0.3, -0.2])
    player.accept(chunk(ramp()), T0 + 20 * MS, start)
    point = player.sample(T0 + 20 * MS)
    assert point is not None
    np.testing.assert_array_equal(point.position, start)
    np.testing.assert_array_equal(point.velocity, np.zeros(2))


def test_without_start_a_chunk_is_refused() -> None:
    player = ChunkPlayer(2, BLEND)
    with pytest.raises(ChunkRefused, match='command/applied'):
        player.accept(chunk(ramp()), T0)
    assert player.sample(T0) is None


def test_passed_rows_are_skipped_and_counted() -> None:
    player = ChunkPlayer(1, BLEND)
    rows = np.array([[9.0], [9.0], [9.0], [1.0], [1.0], [1.0], [1.0], [1.0]])
    now = T0 + 3 * DT + 1
    join = player.accept(chunk(rows), now, start=np.array([1.0]))
    assert join.skipped == 3
    positions = play(player, now + BLEND, T0 + 8 * DT)
    assert len(positions) and (positions <= 1.0 + 1e-12).all()


def test_ends_at_rest_in_the_last_row_and_gives_nothing_after() -> None:
    player = ChunkPlayer(2, BLEND)
    rows = ramp()
    player.accept(chunk(rows), T0, start=np.zeros(2))
    end = T0 + 16 * DT
    last = player.sample(end)
    assert last is not None
    np.testing.assert_array_equal(last.position, rows[-1])
    np.testing.assert_array_equal(last.velocity, np.zeros(2))
    assert player.sample(end + 1) is None
    assert not player.playing(end + 1)
    assert player.remaining_ns(end + 1) == -1


def test_remaining_and_prefix() -> None:
    player = ChunkPlayer(2, BLEND)
    assert player.remaining_ns(T0) == 0
    assert player.prefix(T0, 4).shape == (0, 2)
    rows = ramp()
    player.accept(chunk(rows), T0, start=np.zeros(2))
    now = T0 + 5 * DT
    assert player.executed_rows(now) == 5
    assert player.executed_rows(now - 1) == 4
    assert player.remaining_ns(now) == 11 * DT
    np.testing.assert_array_equal(player.prefix(now, 3), rows[5:8])
    assert player.prefix(T0 + 15 * DT, 5).shape == (1, 2)


def test_seam_is_the_disagreement_of_the_chunks() -> None:
    player = ChunkPlayer(2, BLEND)
    first = player.accept(chunk(ramp()), T0, start=np.zeros(2))
    assert np.isnan(first.seam)
    # The same motion, seen 8 rows later, shifted by 0.01 on joint 1.
    later = ramp(base=8 * 0.02) + np.array([0.0, 0.01])
    join = player.accept(chunk(later, 2, T0 + 8 * DT), T0 + 10 * DT)
    assert join.seam == pytest.approx(0.01, abs=1e-9)
    assert join.skipped == 2


def test_an_agreeing_chunk_leaves_no_trace() -> None:
    """Two chunks of one straight motion play as one: no bump at the join."""
    player = ChunkPlayer(1, BLEND)
    player.accept(chunk(ramp(joints=1)), T0, start=np.zeros(1))
    now = T0 + 9 * DT
    player.accept(chunk(ramp(joints=1, base=8 * 0.02), 2, T0 + 8 * DT), now)
    positions = play(player, now, T0 + 20 * DT)[:, 0]
    expected = 0.02 * 9 + 0.02 / DT * TICK * np.arange(len(positions))
    np.testing.assert_allclose(positions, expected, atol=1e-9)


def test_a_chunk_in_the_future_older_or_late_is_refused_and_changes_nothing() -> None:
    player = ChunkPlayer(2, BLEND)
    player.accept(chunk(ramp(), 1, T0), T0, start=np.zeros(2))
    before = player.sample(T0 + 3 * DT)
    with pytest.raises(ChunkRefused, match='future'):
        player.accept(chunk(ramp(), 2, T0 + DT), T0)
    with pytest.raises(ChunkRefused, match='not newer'):
        player.accept(chunk(ramp(), 2, T0), T0 + DT)
    with pytest.raises(ChunkRefused, match='too late'):
        player.accept(chunk(ramp(), 2, T0 + 1), T0 + 16 * DT + 1)
    with pytest.raises(ChunkRefused, match='joints'):
        player.accept(chunk(ramp(joints=3), 2, T0 + 1), T0 + DT)
    after = player.sample(T0 + 3 * DT)
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.position, after.position)
    assert player.chunk is not None and player.chunk.chunk_id == 1


@pytest.mark.parametrize('rows', [
    np.zeros((0, 2)), np.zeros((3, 0)), np.zeros(3), np.full((2, 2), np.nan),
    np.array([[0.0, np.inf]])])
def test_malformed_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ChunkRefused):
        chunk(rows)


def test_clear_forgets() -> None:
    player = ChunkPlayer(2, BLEND)
    player.accept(chunk(ramp()), T0, start=np.zeros(2))
    player.clear()
    assert player.sample(T0 + DT) is None and player.chunk is None
    # An older chunk would be refused if the old one were remembered.
    player.accept(chunk(ramp(), 2, T0 - DT), T0, start=np.zeros(2))


def test_single_row_is_approached_and_ends() -> None:
    player = ChunkPlayer(1, BLEND)
    player.accept(chunk([[0.1]]), T0 + 30 * MS, start=np.zeros(1))
    positions = play(player, T0 + 30 * MS, T0 + DT, tick=MS)
    assert positions[0] == 0.0
    assert (np.diff(positions[:, 0]) >= 0).all() and positions[-1] <= 0.1
    assert player.sample(T0 + DT + 1) is None


values = st.floats(-3.0, 3.0, allow_nan=False)


@st.composite
def chunk_sequences(draw: st.DrawFn) -> list[tuple[int, int, np.ndarray]]:
    """Draw (observation offset, delay until accepted, rows) of chunks in order of arrival."""
    out = []
    observation = 0
    arrival = 0
    for _ in range(draw(st.integers(1, 4))):
        delay = draw(st.integers(0, 200 * MS))
        arrival = max(arrival + 1, observation + delay)
        rows = draw(st.lists(st.tuples(values, values), min_size=8, max_size=16))
        out.append((observation, arrival - observation, np.array(rows)))
        observation += draw(st.integers(30 * MS, 500 * MS))
    return out


@given(chunk_sequences())
@settings(max_examples=150, deadline=None)
def test_position_and_velocity_are_continuous_across_joins(sequence: list) -> None:
    player = ChunkPlayer(2, BLEND)
    for number, (offset, delay, rows) in enumerate(sequence, 1):
        observation, now = T0 + offset, T0 + offset + delay
        before = player.sample(now) if player.playing(now) else None
        try:
            player.accept(chunk(rows, number, observation), now, start=np.zeros(2))
        except ChunkRefused:
            continue
        after = player.sample(now)
        assert after is not None
        if before is not None:
            np.testing.assert_allclose(after.position, before.position, atol=1e-9)
            np.testing.assert_allclose(after.velocity, before.velocity, atol=1e-6)


@given(chunk_sequences())
@settings(max_examples=100, deadline=None)
def test_velocity_is_the_derivative_of_position(sequence: list) -> None:
    player = ChunkPlayer(2, BLEND)
    for number, (offset, delay, rows) in enumerate(sequence, 1):
        now = T0 + offset + delay
        try:
            player.accept(chunk(rows, number, T0 + offset), now, start=np.zeros(2))
        except ChunkRefused:
            continue
        instant = now + 1000
        while player.playing(instant + 1000):
            a, b, c = (player.sample(instant + d) for d in (-1000, 0, 1000))
            assert a is not None and b is not None and c is not None
            slope = (c.position - a.position) / 2e-6
            # Second derivatives of these cubics stay below 6 |Δp| / h² + 4 |v| / h.
            np.testing.assert_allclose(b.velocity, slope, atol=0.2)
            instant = instant + 17 * MS


@given(st.lists(st.tuples(values, values), min_size=2, max_size=16), st.integers(0, 900 * MS))
@settings(max_examples=150, deadline=None)
def test_behind_the_join_it_stays_between_neighbouring_rows_and_within_its_time(
        rows: list, delay: int) -> None:
    array = np.array(rows)
    player = ChunkPlayer(2, BLEND)
    now = T0 + delay
    the_chunk = chunk(array)
    try:
        player.accept(the_chunk, now, start=np.zeros(2))
    except ChunkRefused:
        assert the_chunk.end - now < BLEND // 4 or the_chunk.end <= now
        return
    instant = max(now + BLEND, the_chunk.start)
    while instant <= the_chunk.end + 3 * TICK:
        point = player.sample(instant)
        if instant > the_chunk.end:
            assert point is None
        else:
            assert point is not None
            left = (instant - T0) // DT - 1
            pair = array[left:left + 2]
            assert (point.position >= pair.min(axis=0) - 1e-9).all()
            assert (point.position <= pair.max(axis=0) + 1e-9).all()
        instant = instant + TICK
