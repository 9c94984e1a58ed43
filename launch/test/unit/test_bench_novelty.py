"""``bench novelty``: what it makes of the signs that a policy tells, and of their alarms."""

import math
from pathlib import Path

import pytest

from mivla_bringup.bench.novelty import BOTH, _Listening, _result
from mivla_policy.serve.port import Inference


class Told:
    """A policy that tells two signs, one of which says something."""

    specs = ()

    def __init__(self, loud):
        self._loud = loud

    def infer(self, queries):
        distance, doubt = (1.5, 0.2) if self._loud else (math.nan, 0.2)
        return Inference([None], {'denoise': 0.010, 'disagreement': 0.020}, [''],
                         [max(distance, doubt) if self._loud else doubt],
                         {'distance': [distance], 'disagreement': [doubt]})


def heard(loud, chunks):
    listening = _Listening(Told(loud))
    listening.reset()
    for _ in range(chunks):
        listening.infer([None])
    return listening


def outcome(seed, loud, chunks, success):
    signs = heard(loud, chunks).signs
    return {'seed': seed, 'success': success,
            'raised': {name: sign.raised for name, sign in signs.items()},
            'novelty': {name: sign.values for name, sign in signs.items()}}


def test_an_alarm_is_what_the_operator_would_have_seen():
    assert not any(sign.raised for sign in heard(True, 2).signs.values())
    signs = heard(True, 3).signs
    assert {name: sign.raised for name, sign in signs.items()} == {
        BOTH: True, 'distance': True, 'disagreement': False}
    # What a policy does not know it does not tell.
    assert set(heard(False, 3).signs) == {BOTH, 'disagreement'}


def test_rates_are_told_for_each_sign_and_for_both_and_what_they_cost():
    # The second of four episodes is too short for an alarm.
    found = {level: [outcome(k, True, 2 if k == 1 else 5, success=k != 3) for k in range(4)]
             for level in ('hard', 'novel_object')}
    listening = heard(True, 5)
    result = _result(Path('runs/bell'), 'click_bell', found, listening.seconds)
    values = {name: metric.value for name, metric in result.metrics.items()}
    assert values['false_alarms_hard'] == values['false_alarms_hard_distance'] == 0.75
    assert values['detected_novel_object'] == 0.75
    assert values['detected_novel_object_disagreement'] == 0.0
    assert values['disagreement_ms'] == pytest.approx(20.0)
    assert any('novel_object: of 4 episodes (1 failures)' in note for note in result.notes)
    assert result.samples == 8
