"""Trials on the console: what a page is shown, what it may answer, and when it is told so."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mivla_core.profile import load_profile
from mivla_core.timing import NowNs, StampNs
from mivla_teleop.console.core.commands import parse
from mivla_teleop.console.core.trial import Slip, TrialAnswers, answer_text, read_answer
from mivla_teleop.console.core.view import TRIAL_SILENT_NS, RobotView
from mivla_teleop.console.errors import ConsoleError, RequestError

SLIP = Slip(7, 'choose', 'Well?', (('s', 'success'), ('f', 'failure')), trial=3, most=40, done=2,
            text='round 2 of 20', scene='bottle left', hidden=True, said=('one', 'two'),
            answered=6, answer='g', by='page')


def test_a_slip_survives_its_way_and_anything_else_is_refused():
    assert Slip.from_text(SLIP.to_text()) == SLIP
    ask = Slip(1, 'ask', 'How much?', offers=(('40', 'lifted'),))
    assert Slip.from_text(ask.to_text()) == ask
    good = json.loads(SLIP.to_text())
    for wrong in ({'number': '7'}, {'number': True}, {'kind': 'shout'}, {'choices': 'sf'},
                  {'choices': [['s']]}, {'choices': [['s', 1]]}, {'said': [1]},
                  {'hidden': 'yes'}, {'scene': None}):
        with pytest.raises(RequestError):
            Slip.from_text(json.dumps({**good, **wrong}))
    for text in ('', '[]', '{', 'x' * 40_000):
        with pytest.raises(RequestError):
            Slip.from_text(text)


def test_an_answer_survives_its_way():
    assert read_answer(answer_text(7, 'ein „Hinweis“')) == (7, 'ein „Hinweis“')
    for text in ('{}', '{"number": 1}', '{"number": true, "answer": ""}', '7',
                 json.dumps({'number': 1, 'answer': 'x' * 501})):
        with pytest.raises(RequestError):
            read_answer(text)


def test_a_page_is_told_when_its_answer_was_taken_and_not_before():
    answers, told = TrialAnswers(), []
    answers.ask(SLIP, 7, 's', lambda ok, message: told.append((ok, message)))
    answers.settle(SLIP)
    answers.settle(replace(SLIP, said=('three',)))
    assert told == []
    answers.settle(replace(SLIP, answered=7, answer='s', by='page'))
    assert told == [(True, 'taken')]
    answers.settle(replace(SLIP, number=8, answered=7, answer='s'))
    assert len(told) == 1


def test_a_page_is_told_when_somebody_else_was_faster():
    answers, told = TrialAnswers(), []
    for slip in (replace(SLIP, answered=7, answer='f', by='terminal'),
                 replace(SLIP, number=9, answered=8, answer='x')):
        answers.ask(SLIP, 7, 's', lambda ok, message: told.append((ok, message)))
        answers.settle(slip)
    assert [ok for ok, _ in told] == [False, False] and 'faster: f' in told[0][1]


def test_of_two_pages_both_are_told():
    answers, told = TrialAnswers(), {}
    for answer in 'sf':
        answers.ask(SLIP, 7, answer, lambda ok, _, answer=answer: told.update({answer: ok}))
    answers.settle(replace(SLIP, answered=7, answer='f'))
    assert told == {'s': False, 'f': True}


def test_what_is_not_asked_cannot_be_answered():
    answers = TrialAnswers()
    for slip, number, answer, why in (
            (None, 7, 's', 'no trials'), (replace(SLIP, over=True), 7, 's', 'no trials'),
            (SLIP, 6, 's', 'has been answered'), (SLIP, 8, 's', 'has been answered'),
            (replace(SLIP, answered=7, answer='f'), 7, 's', 'answered: f'),
            (SLIP, 7, 'x', 'none of s, f')):
        with pytest.raises(ConsoleError, match=why):
            answers.ask(slip, number, answer, lambda ok, message: None)
    told = []
    sent = answers.ask(SLIP, 7, 's', lambda ok, message: told.append(ok))
    answers.forget(sent)
    answers.settle(replace(SLIP, answered=7, answer='s'))
    assert told == []


def test_the_request_of_a_page():
    request = parse('{"id": 1, "robot": "piper", "do": "trial", "number": 7, "answer": "s"}',
                    ['piper'])
    assert (request.do, dict(request.values)) == ('trial', {'number': 7, 'answer': 's'})
    for wrong in ('"number": 0, "answer": "s"', '"answer": "s"', '"number": 7, "answer": 1'):
        with pytest.raises(RequestError):
            parse('{"id": 1, "robot": "piper", "do": "trial", ' + wrong + '}', ['piper'])


def view():
    robot = RobotView(load_profile('piper'))
    robot.measured = np.zeros(7)
    robot.action_age = 0.2
    robot.policy = {
        'state': 'running', 'detail': 'theirs is asked', 'instruction': 'press the bell',
        'policy': 'theirs', 'chunks': 3, 'chunk_seconds': 0.3, 'novelty': 0.4,
        'warning': 'what the policy sees is unlike its demonstrations'}
    return robot


def test_a_page_of_an_operator_who_is_kept_blind_does_not_tell_policies_apart():
    robot, now, stamp = view(), NowNs(10**12), StampNs(10**18)
    assert robot.snapshot(now, stamp)['policy']['policy'] == 'theirs'
    robot.slip, robot.slip_heard = SLIP, now
    shown = robot.snapshot(now, stamp)
    assert 'theirs' not in json.dumps(shown) and shown['action_age'] is None
    policy = shown['policy']
    assert policy['state'] == 'running' and policy['warning'], 'a warning is for the robot'
    assert policy['novelty'] is None and policy['chunk_seconds'] is None
    assert shown['trial']['scene'] == 'bottle left'
    robot.slip = replace(SLIP, hidden=False)
    assert robot.snapshot(now, stamp)['policy']['policy'] == 'theirs'


def test_trials_that_are_over_or_silent_are_not_shown():
    robot, now, stamp = view(), NowNs(10**12), StampNs(10**18)
    robot.slip, robot.slip_heard = SLIP, now
    later = NowNs(now + TRIAL_SILENT_NS + 1)
    assert robot.snapshot(later, stamp)['trial'] is None
    robot.slip = replace(SLIP, over=True)
    assert robot.snapshot(now, stamp)['trial'] is None
