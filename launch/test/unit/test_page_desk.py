"""An operator who answers at the terminal or on the page: the first counts, none is lost."""

import os
import threading
import time

import pytest

from mivla_bringup.evaluation.desk import Card, TerminalDesk
from mivla_bringup.evaluation.page_desk import SAID, SharedDesk, Sheet
from mivla_bringup.evaluation.real import stage_scores

CARD = Card(3, 40, 2, 'round 2 of 20', 'bottle left', '', True)
CHOICES = {'s': 'success', 'f': 'failure', ' ': 'STOP'}


class Place:
    """A desk whose terminal is a pipe, and the page beside it."""

    def __init__(self, monkeypatch):
        out, self._in = os.pipe()
        monkeypatch.setattr('sys.stdin', os.fdopen(out))
        self.slips, self.checks = [], []
        self.sheet = Sheet(self.slips.append)
        check = lambda: self.checks.append(1)  # noqa: E731
        self.desk = SharedDesk(TerminalDesk(check), self.sheet, check)

    def type(self, text):
        os.write(self._in, text.encode())

    def end_input(self):
        os.close(self._in)

    def page(self, *answers):
        """Answer the next questions on the page, each as soon as it is there."""
        def work():
            seen = begun
            for answer in answers:
                while self.sheet.slip.number <= seen:
                    time.sleep(0.001)
                seen = self.sheet.slip.number
                self.taken.append(self.sheet.settle(answer, 'page', seen))
        begun = self.sheet.slip.number
        self.taken = []
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def place(monkeypatch):
    return Place(monkeypatch)


def test_the_page_answers_every_kind_of_question(place):
    place.page('s', 'f', ' forty  ')
    assert place.desk.choose('Well?', CHOICES) == 's'
    assert place.desk.watch('running', CHOICES, lambda: False, 10.0) == 'f'
    assert place.desk.ask('A note:') == 'forty'
    assert place.taken == [True, True, True]
    assert place.sheet.slip.by == 'page'


def test_the_terminal_answers_and_the_page_is_told(place):
    place.type('f')
    assert place.desk.choose('Well?', CHOICES) == 'f'
    slip = place.sheet.slip
    assert (slip.answered, slip.answer, slip.by) == (slip.number, 'f', 'terminal')
    place.type('\nforty\n')
    assert place.desk.ask('How much?', {'40': 'lifted'}) == ''
    assert place.desk.ask('How much?') == 'forty'
    # What comes too late from the page changes nothing.
    assert not place.sheet.settle('99', 'page', place.sheet.slip.number)
    assert place.sheet.slip.answer == 'forty'


def test_of_two_at_once_one_counts_and_it_is_the_one_that_is_shown(place):
    for _ in range(20):
        place.type('f')
        page = place.page('s')
        said = place.desk.choose('Well?', CHOICES)
        page.join(5.0)
        slip = place.sheet.slip
        assert (slip.answer, slip.by) == ((said, 'page') if place.taken == [True]
                                          else (said, 'terminal'))


def test_an_answer_to_an_earlier_question_is_none_to_this_one(place):
    place.page('s')
    assert place.desk.choose('Is it placed?', CHOICES) == 's'
    before = place.sheet.slip.number
    place.sheet.put('choose', 'Does it count?', CHOICES)
    assert not place.sheet.settle('s', 'page', before)
    assert not place.sheet.settle('x', 'page', before + 1), 'none of the choices'
    assert not place.sheet.answered()
    assert place.sheet.settle('f', 'page', before + 1)


def test_what_nobody_answered_in_time_cannot_be_answered_later(place):
    assert place.desk.watch('running', CHOICES, lambda: False, 0.1) == ''
    assert place.desk.watch('running', CHOICES, lambda: True, 9.0) == ''
    assert not place.sheet.settle('s', 'page', place.sheet.slip.number)
    # The page has a larger button for that.
    assert ' ' not in dict(place.sheet.slip.choices) and 's' in dict(place.sheet.slip.choices)


def test_the_page_is_enough_when_there_is_no_terminal(place):
    place.end_input()
    page = place.page('s', '', 'f')
    assert place.desk.choose('Well?', CHOICES) == 's'
    assert place.desk.ask('A note:') == ''
    place.desk.forget()
    assert place.desk.watch('running', CHOICES, lambda: False, 10.0) == 'f'
    page.join(5.0)
    assert place.desk.watch('running', CHOICES, lambda: True, 10.0) == ''
    assert place.checks


def test_the_page_shows_the_trial_and_the_newest_lines(place, capsys):
    place.desk.show(CARD)
    for number in range(9):
        place.desk.say(f'line {number}')
    slip = place.slips[-1]
    assert (slip.trial, slip.most, slip.done, slip.scene) == (3, 40, 2, 'bottle left')
    assert slip.hidden and slip.policy == ''
    assert slip.said == tuple(f'line {n}' for n in range(9 - SAID, 9))
    printed = capsys.readouterr().out
    assert 'Trial 3 of 40' in printed and 'line 0' in printed
    place.sheet.end()
    assert place.slips[-1].over


def test_scores_of_a_known_task_are_its_stages():
    assert stage_scores('bottle_on_pad') == {
        '0': 'nothing', '20': 'reached', '40': 'grasped', '60': 'lifted', '80': 'over the pad'}
    assert list(stage_scores('fold_a_shirt')) == ['0', '25', '50', '75']
