"""Trials at a real robot: their order, what is kept of them, and the stopping rule."""

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mivla_bringup.bench.result import wilson
from mivla_bringup.errors import UsageError
from mivla_bringup.evaluate import main as evaluate_main
from mivla_bringup.evaluation.desk import InputEnded, TerminalDesk
from mivla_bringup.evaluation.trial_page import write_trial_page
from mivla_bringup.evaluation.trials import (
    LOOKS,
    Answer,
    Plan,
    TrialError,
    TrialLog,
    judgement,
    trials_for_width,
)

PLAN = Plan('bottle_on_pad', 'put the bottle on the pad', 'piper', ('ours', 'theirs'),
            ('aa', 'bb'), ('left', 'right', 'far'), 10, 7, True, 60.0)


def answer(trial, success, **more):
    return Answer(trial, success, 1.0 if success else 0.4, 12.0,
                  '' if success else 'missed', **more)


def finish(log, outcome):
    """Answer trials until the rule says that it is over; returns how many there were."""
    while (trial := log.next) is not None:
        log.record(answer(trial.number, outcome(trial)))
    return len(log.counted)


def test_every_round_tries_both_on_one_scene_and_each_is_first_as_often():
    for seed in range(20):
        trials = replace(PLAN, seed=seed).order()
        assert [trial.number for trial in trials] == list(range(1, 21))
        rounds = {n: [t for t in trials if t.round == n] for n in range(1, 11)}
        for number, pair in rounds.items():
            assert {t.policy for t in pair} == {0, 1}
            assert {t.scene for t in pair} == {PLAN.scenes[(number - 1) % 3]}
        assert Counter(pair[0].policy for pair in rounds.values()) == {0: 5, 1: 5}
    assert len({replace(PLAN, seed=seed).order() for seed in range(20)}) > 15


def test_the_answers_do_not_say_which_policy_it_was(tmp_path):
    log = TrialLog(tmp_path, PLAN)
    finish(log, lambda trial: trial.policy == 0)
    text = (tmp_path / 'answers.jsonl').read_text()
    assert 'ours' not in text and 'policy' not in text


def test_it_goes_on_where_it_was_left_even_in_the_middle_of_a_line(tmp_path):
    log = TrialLog(tmp_path, PLAN)
    for _ in range(3):
        log.record(answer(log.next.number, True))
    log.record(Answer(4, False, 0.0, 1.0, void='the bottle had fallen over'))
    path = tmp_path / 'answers.jsonl'
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    again = TrialLog(tmp_path, PLAN)
    assert again.next.number == 4 and len(again.counted) == 3 and len(again.answers) == 4
    again.record(answer(4, False))
    assert TrialLog(tmp_path, PLAN).next.number == 5


def test_a_plan_is_kept_to_its_end(tmp_path):
    TrialLog(tmp_path, PLAN)
    for change in ({'rounds': 12}, {'seed': 8}, {'digests': ('aa', 'cc')}, {'blinded': False}):
        with pytest.raises(TrialError, match=next(iter(change))):
            TrialLog(tmp_path, replace(PLAN, **change))
    log = TrialLog(tmp_path, PLAN)
    with pytest.raises(TrialError, match='the next one is 1'):
        log.record(answer(2, True))


def test_what_contradicts_itself_is_refused():
    for wrong in ({'success': True, 'score': 0.5}, {'success': True, 'failure': 'missed'},
                  {'success': False, 'failure': ''}, {'success': False, 'failure': 'bad luck'},
                  {'success': False, 'failure': 'missed', 'score': 1.2}):
        with pytest.raises(UsageError):
            Answer(**{'trial': 1, 'score': 1.0 if wrong['success'] else 0.0, 'seconds': 1.0,
                      **wrong})
    for wrong in ({'rounds': 0}, {'scenes': ()}, {'digests': ('aa', 'aa')},
                  {'policies': ('ours',), 'digests': ('aa',)}):
        with pytest.raises(UsageError):
            replace(PLAN, **wrong)


def test_a_clear_difference_ends_it_half_way_and_a_small_one_does_not(tmp_path):
    plan = replace(PLAN, rounds=20)
    log = TrialLog(tmp_path / 'clear', plan)
    assert finish(log, lambda trial: trial.policy == 0) == 20
    said = log.judgement()
    assert said.found and said.level == LOOKS[0.5] and said.comparison.ahead == 1
    log = TrialLog(tmp_path / 'small', plan)
    assert finish(log, lambda trial: trial.policy == 0 or trial.round % 2 == 0) == 40
    said = log.judgement()
    assert said.found and said.level == LOOKS[1.0] and said.comparison.first == 10
    log = TrialLog(tmp_path / 'none', plan)
    finish(log, lambda trial: trial.round % 3 == 0)
    assert not log.judgement().found


def test_until_it_is_over_nothing_is_said_about_who_is_ahead(tmp_path):
    log = TrialLog(tmp_path, PLAN)
    while (trial := log.next) is not None and trial.number < 9:
        log.record(answer(trial.number, trial.policy == 0))
        said = log.judgement()
        assert said.comparison is None and 'ours' not in said.text


def test_the_rule_takes_chance_for_a_difference_in_no_more_than_five_of_a_hundred():
    rng = np.random.default_rng(3)
    plan = replace(PLAN, rounds=40)
    trials = plan.order()
    found = early = 0
    for _ in range(200):
        wins = rng.random(80) < 0.5
        counted = {}
        for trial in trials:
            counted[trial.number] = answer(trial.number, bool(wins[trial.number - 1]))
            if trial.number in (40, 80):
                said = judgement(plan, trials, counted)
                if said.over:
                    break
        found += said.found
        early += trial.number == 40
    assert found <= 0.05 * 200 + 6      # 2 sigma above 5 %
    assert early < found


def test_one_policy_is_tried_as_often_as_was_planned(tmp_path):
    plan = replace(PLAN, policies=('ours',), digests=('aa',), blinded=False)
    log = TrialLog(tmp_path, plan)
    assert finish(log, lambda trial: True) == 10
    assert log.judgement().comparison is None and len(log.of(0)) == 10


def test_trials_for_a_narrower_interval():
    more = trials_for_width(6, 10)
    low, high = wilson(round(0.6 * (10 + more)), 10 + more)
    assert more > 50 and high - low <= 0.2
    assert trials_for_width(990, 1000) == 0


def test_the_page_names_the_policies_only_when_it_is_over(tmp_path):
    log = TrialLog(tmp_path, PLAN)
    for _ in range(4):
        log.record(answer(log.next.number, True, folder='bags/episode_000000'))
    log.record(Answer(5, False, 0.0, 1.0, void='the <lamp> fell'))
    path = tmp_path / 'report.html'
    text = write_trial_page(log, path).read_text()
    assert '<td>ours</td>' not in text and '&lt;lamp&gt;' in text
    assert 'href="bags/episode_000000"' in text
    finish(log, lambda trial: trial.policy == 0)
    text = write_trial_page(log, path).read_text()
    assert '<td>ours</td>' in text and 'ours is ahead of theirs' in text
    assert '1 trials were void' in text and 'held against' in text


class Piped:
    """Standard input that somebody types into."""

    def __init__(self, monkeypatch):
        out, self._in = os.pipe()
        self._file = os.fdopen(out)
        monkeypatch.setattr('sys.stdin', self._file)

    def type(self, text):
        os.write(self._in, text.encode())

    def end(self):
        os.close(self._in)


def test_an_operator_without_a_terminal_answers_in_lines(monkeypatch, capsys):
    typed, checks = Piped(monkeypatch), []
    desk = TerminalDesk(lambda: checks.append(1))
    typed.type('x\ns\n')
    assert desk.choose('Well?', {'s': 'yes', 'f': 'no'}) == 's'
    typed.type('forty two\n')
    assert desk.ask('How much?') == 'forty two'
    typed.type('\n')
    assert desk.ask('A note:') == ''
    keys = {'s': 'yes', 'f': 'no', ' ': 'STOP'}
    assert desk.watch('running', keys, lambda: True, 10.0) == ''
    assert desk.watch('running', keys, lambda: False, 0.0) == ''
    typed.type(' ')
    assert desk.watch('running', keys, lambda: False, 5.0) == ' '
    assert checks and '[s] yes' in capsys.readouterr().out
    typed.end()
    with pytest.raises(InputEnded):
        desk.choose('Well?', keys)


def test_the_words_of_trials(tmp_path, monkeypatch):
    from mivla_bringup.evaluation import real
    seen = {}

    def run(stack, policies, log, desk_of, operator):
        seen.update(stack=stack, log=log, operator=operator)
        return False

    monkeypatch.setattr(real, 'run_trials', run)
    scenes = tmp_path / 'scenes.txt'
    scenes.write_text('# where the bottle is\nleft\n\nright\n')
    words = ['--real', '--task', 'bottle_on_pad', '--policy', 'hold', '--scenes', str(scenes),
             '--rounds', '4', '--out', str(tmp_path / 'out'), 'interface:=can1']
    assert evaluate_main(words) == 3
    assert seen['log'].plan.scenes == ('left', 'right') and len(seen['log'].trials) == 4
    assert seen['log'].plan.instruction == 'bottle on pad'
    parameters = seen['stack'].node('/piper/driver').parameters
    assert parameters['channel'] == 'can1' and not seen['stack'].options.sim
    assert (tmp_path / 'out' / 'report.html').is_file()
    for wrong, message in ((['--against', 'hold'], 'both policies are the same'),
                           (['--blinded'], 'nothing can be hidden'), (['sim'], 'unrecognized')):
        with pytest.raises(UsageError, match=message):
            evaluate_main([*words[:-2], str(tmp_path / 'other'), *wrong])
