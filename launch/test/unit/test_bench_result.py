"""Metrics, intervals and the object that benchmarks print."""

import json
import math

import pytest

from mivla_bringup.bench.result import Metric, Result, percentiles, wilson


@pytest.mark.parametrize('value, aim, met', [
    (19.9, '<20', True), (20.0, '<20', False), (1.0, '<=1', True), (0.95, '>=0.95', True),
    (0.0, '=0', True), (1.0, '=0', False), (5.0, '', None), (math.nan, '<20', False),
])
def test_an_aim_is_met_or_not(value, aim, met):
    assert Metric(value, 'ms', aim).met is met


def test_an_aim_without_a_sign_is_a_mistake():
    with pytest.raises(ValueError, match='20'):
        _ = Metric(1.0, 'ms', '20').met


@pytest.mark.parametrize('wins, trials, low, high', [
    (100, 100, 0.963, 1.0), (46, 50, 0.812, 0.968), (0, 50, 0.0, 0.071), (0, 0, 0.0, 1.0)])
def test_wilson_interval(wins, trials, low, high):
    assert wilson(wins, trials) == pytest.approx((low, high), abs=1e-3)


def test_percentiles_of_nothing_are_not_numbers():
    assert all(math.isnan(value) for value in percentiles([]).values())


def test_the_summary_is_one_json_object_and_the_raw_data_are_kept(tmp_path):
    result = Result('latency', 3, {'p50_ms': Metric(1.5, 'ms', '<20'),
                                   'absent': Metric(math.nan, 'ms', '<1')},
                    {'overhead': ([1.0, 1.5, 2.0], 'ms')}, {'chunks': 3})
    raw = result.save(tmp_path)
    summary = json.loads(json.dumps(result.summary(raw), allow_nan=False))
    assert summary['metrics']['p50_ms'] == {'value': 1.5, 'unit': 'ms', 'aim': '<20', 'met': True}
    assert summary['metrics']['absent']['met'] is False
    assert set(summary) == {'benchmark', 'revision', 'hardware', 'samples', 'metrics', 'raw'}
    kept = json.loads(raw.read_text())
    assert kept['series']['overhead']['values'] == [1.0, 1.5, 2.0]
    table = result.table()
    assert 'p99' in table and 'NOT MET' in table and 'met' in table
