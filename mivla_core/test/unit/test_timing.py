"""The two kinds of time: arithmetic within one, refusal across."""

import operator
from types import SimpleNamespace

import pytest

from mivla_core.timing import NowNs, StampNs, monotonic_now, seconds, to_ns


@pytest.mark.parametrize('kind', [NowNs, StampNs])
def test_difference_is_a_plain_duration(kind):
    gap = kind(500) - kind(200)
    assert gap == 300
    assert type(gap) is int


@pytest.mark.parametrize('kind', [NowNs, StampNs])
def test_shifting_keeps_the_kind(kind):
    for shifted in (kind(5) + 3, 3 + kind(5), kind(11) - 3):
        assert type(shifted) is kind
        assert shifted == 8


@pytest.mark.parametrize('operation', [operator.sub, operator.lt, operator.le, operator.gt,
                                       operator.ge, operator.eq, operator.ne, operator.add])
def test_kinds_do_not_mix(operation):
    with pytest.raises(TypeError, match='different clocks'):
        operation(NowNs(5), StampNs(5))


def test_instants_cannot_be_added_or_subtracted_from_a_number():
    with pytest.raises(TypeError):
        NowNs(1) + NowNs(1)
    with pytest.raises(TypeError):
        5 - NowNs(1)


def test_float_offsets_are_refused():
    with pytest.raises(TypeError):
        NowNs(1) + 0.5


def test_seconds_takes_durations_only():
    assert seconds(1_500_000_000) == 1.5
    with pytest.raises(TypeError, match='instant'):
        seconds(NowNs(5))


def test_to_ns_rounds():
    assert to_ns(0.1) == 100_000_000
    assert to_ns(10.2) - to_ns(10.0) == 200_000_000


def test_stamp_round_trip_through_a_message():
    stamp = StampNs(1_700_000_000_123_456_789)
    msg = stamp.fill(SimpleNamespace(sec=0, nanosec=0))
    assert (msg.sec, msg.nanosec) == (1_700_000_000, 123_456_789)
    assert StampNs.from_msg(msg) == stamp


def test_monotonic_now_advances():
    first = monotonic_now()
    assert monotonic_now() >= first
