"""Losses are counted from sequence numbers, per publisher, exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mivla_teleop.recording import LossCounter, PublisherGuess

TOPIC = '/piper/joint_states'


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[int, list[int]]]:
    """Draw publishers' lives: (first number received, which of the following arrive)."""
    return draw(st.lists(st.tuples(
        st.integers(1, 50),
        st.lists(st.booleans(), max_size=60)), min_size=1, max_size=4))


def numbers(first: int, arrive: list[bool]) -> list[int]:
    """Return the received numbers; the first one always arrives."""
    return [first, *(first + 1 + k for k, here in enumerate(arrive) if here)]


def truth(received: list[int]) -> int:
    """Return how many are missing between the first and the last."""
    return received[-1] - received[0] + 1 - len(received)


@given(lives())
def test_every_gap_of_every_publisher_is_counted(lives: list[tuple[int, list[bool]]]) -> None:
    counter = LossCounter()
    counter.begin([TOPIC])
    expected = total = 0
    for gid, (first, arrive) in enumerate(lives):
        received = numbers(first, arrive)
        found = sum(counter.observe(TOPIC, gid, number) for number in received)
        assert found == truth(received)
        expected += found
        total += len(received)
    count = counter.report()[TOPIC]
    assert (count.lost, count.received, count.publishers) == (expected, total, len(lives))


@given(lives())
def test_restarts_are_told_apart_without_gids(lives: list[tuple[int, list[bool]]]) -> None:
    """One publisher after the other, discovery naming each: exact, gids or not."""
    counter, guess = LossCounter(), PublisherGuess()
    counter.begin([TOPIC])
    expected = 0
    for gid, (first, arrive) in enumerate(lives):
        guess.matched([bytes([gid])])
        received = numbers(first, arrive)
        expected += truth(received)
        for number in received:
            counter.observe(TOPIC, guess.assign(number), number)
    assert counter.report()[TOPIC].lost == expected
    assert counter.report()[TOPIC].publishers == len(lives)
    assert len(guess.keys) == 1


@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_restart_seen_by_the_numbers_alone(arrive: list[bool]) -> None:
    counter, guess = LossCounter(), PublisherGuess()
    counter.begin([TOPIC])
    for number in (500, 501, 502, *numbers(1, arrive)):
        counter.observe(TOPIC, guess.assign(number), number)
    assert counter.report()[TOPIC].lost == truth(numbers(1, arrive))


@given(st.lists(st.integers(0, 2), max_size=200), st.lists(
    st.integers(1, 1000), min_size=3, max_size=3))
def test_publishers_at_once_without_loss_give_no_loss(
        order: list[int], firsts: list[int]) -> None:
    counter, guess = LossCounter(), PublisherGuess(max_gap=0)
    guess.matched([b'a', b'b', b'c'])
    assert guess.shared
    counter.begin([TOPIC])
    for turn in order:
        number = firsts[turn]
        firsts[turn] += 1
        counter.observe(TOPIC, guess.assign(number), number)
    assert counter.report()[TOPIC].lost == 0


def test_loss_between_episodes_last_message_and_start_is_counted() -> None:
    counter = LossCounter()
    counter.observe(TOPIC, 1, 10)
    counter.begin([TOPIC])
    assert counter.report()[TOPIC].received == 0
    assert counter.observe(TOPIC, 1, 13) == 2       # heard before the episode: 11 and 12 are lost
    counter.begin([TOPIC, '/other'])
    assert counter.report()[TOPIC].lost == 0
    assert counter.observe('/other', 1, 13) == 0    # never heard before: nothing is claimed


def test_a_far_jump_among_several_is_another_publisher() -> None:
    guess = PublisherGuess(max_gap=2000)
    guess.matched([b'a', b'b'])
    near, far = guess.assign(10), guess.assign(50_000)
    assert near != far and guess.assign(11) == near and guess.assign(50_002) == far
    alone = PublisherGuess(max_gap=2000)
    alone.matched([b'a'])
    assert alone.assign(10) == alone.assign(50_000)     # one publisher: however far, a loss


def test_forgetting_keeps_the_counts() -> None:
    counter = LossCounter()
    counter.begin([TOPIC])
    for number in (1, 3):
        counter.observe(TOPIC, 'old', number)
    counter.forget(TOPIC, ['new'])
    assert counter.report()[TOPIC].lost == 1
    assert counter.observe(TOPIC, 'old', 9) == 0
