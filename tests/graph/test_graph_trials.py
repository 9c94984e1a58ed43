"""
Trials with an operator on the simulated graph: two policies, one hidden from the other.

Pictures of the page while it asks are made where MIVLA_TRIAL_PICTURES names a folder.
"""

import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import Browser, find_chromium

from mivla_bringup.evaluation.page_desk import desk_at
from mivla_bringup.evaluation.policies import policy_ref
from mivla_bringup.evaluation.real import run_trials
from mivla_bringup.evaluation.realtime import stack_words
from mivla_bringup.evaluation.trials import Plan, TrialLog
from mivla_core.profile import config_dir
from mivla_drivers.sim.scenario import EVAL_SEEDS
from mivla_teleop.recording.store import EpisodeStore

pytestmark = pytest.mark.timeout(180)


class Operator:
    """Looks at the simulated bell and says what is true."""

    def __init__(self, rig, patience=float('inf')):
        self.rig, self.said, self.cards, self.patience = rig, [], [], patience

    def say(self, text):
        self.said.append(text)

    def choose(self, question, choices):
        self.said.append(question)
        for key in ('g', 'e', 'r', 'y', 'd', 'f', '1'):
            if key in choices:
                return key
        raise AssertionError(f'{question}: {choices}')

    def show(self, card):
        self.cards.append(card)

    def ask(self, question, offers=None):
        assert not offers or '33' in offers, 'of the bell\'s three stages the first is 33'
        return '40' if '100' in question else ''

    def forget(self):
        pass

    def watch(self, question, choices, over, limit_s):
        waited = 0.0
        while waited < limit_s and not over():
            if self.rig.newest('sim/state').success:
                return 's'
            if waited > self.patience:
                return ' '
            self.rig.pause(0.05)
            waited += 0.05
        return ''


def test_an_operator_who_is_kept_blind_tries_both_and_each_bag_is_linked(stack, tmp_path):
    shipped = policy_ref(str(config_dir() / 'policies' / 'piper_click_bell'))
    hold = policy_ref('hold', ['horizon=16'])
    plan = Plan('click_bell', 'press the bell', 'piper', (shipped.name, 'hold'),
                (shipped.digest, hold.digest), (f'{EVAL_SEEDS[0]} easy',), 1, 3, True, 6.0)
    log, people = TrialLog(tmp_path / 'trials', plan), []

    @contextmanager
    def desk_of(rig):
        people.append(Operator(rig))
        yield people[0]

    words = {**stack_words(shipped), 'bags': str(tmp_path / 'trials' / 'bags')}
    assert run_trials(stack(**words), (shipped, hold), log, desk_of)
    assert log.next is None and len(log.answers) == 2
    (ours,), (theirs,) = log.of(0), log.of(1)
    # The one presses the bell, the other stands still: so the server was exchanged.
    assert ours.success and 0.5 < ours.seconds < 6.0
    assert not theirs.success and theirs.failure == 'missed' and theirs.score == 0.4
    assert [(card.number, card.done) for card in people[0].cards] == [(1, 0), (2, 1)]
    told = ' '.join([*people[0].said, *map(repr, people[0].cards)])
    assert 'hold' not in told and shipped.name not in told
    for answer in log.answers:
        assert (log.folder / answer.folder / 'metadata.yaml').is_file()
    records = EpisodeStore(tmp_path / 'trials' / 'bags').episodes()
    assert len(records) == 2


def test_a_trial_that_is_stopped_counts_and_the_next_one_begins_after_a_reset(stack, tmp_path):
    hold = policy_ref('hold', ['horizon=16'])
    plan = Plan('click_bell', 'press the bell', 'piper', ('hold',), (hold.digest,),
                (f'{EVAL_SEEDS[0]} easy',), 2, 0, False, 6.0)
    log, people = TrialLog(tmp_path / 'trials', plan), []

    @contextmanager
    def desk_of(rig):
        people.append(Operator(rig, patience=0.5))
        yield people[0]

    words = {**stack_words(hold), 'bags': str(tmp_path / 'trials' / 'bags')}
    assert run_trials(stack(**words), (hold,), log, desk_of)
    assert [answer.failure for answer in log.answers] == ['operator', 'operator']
    assert all(0.5 <= answer.seconds < 3.0 for answer in log.answers)
    assert sum('has stopped' in words for words in people[0].said) == 1


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


class Hand:
    """Works the page as a person does: reads what is asked, presses a button."""

    def __init__(self, url, pictures):
        self._url, self._pictures = url, pictures
        self.told, self.failure = [], None
        self._thread = threading.Thread(target=self._guarded, daemon=True)

    def start(self):
        self._thread.start()

    def join(self):
        self._thread.join(30.0)
        assert not self._thread.is_alive() and self.failure is None, self.failure

    def _guarded(self):
        try:
            with Browser() as browser:
                self._work(browser)
        except BaseException as err:
            self.failure = err

    def asks(self, page, words, timeout=60.0):
        page.wait(f'document.getElementById("trial-question")?.textContent.includes({words!r}) && '
                  'document.getElementById("trial-question").dataset.open === "true"', words,
                  timeout)
        self.told.append(page.run('document.body.innerText'))

    def press(self, page, answer):
        page.click(f'#trial-choices [data-answer="{answer}"]')

    def picture(self, page, name):
        if self._pictures:
            page.picture(Path(self._pictures) / f'trials-{name}.png')

    def _work(self, browser):
        page = self.page = browser.open(self._url)
        self.asks(page, 'driver is not enabled')
        self.picture(page, 'enable')
        self.press(page, 'e')
        # The first trial is a failure in words of its own, the second is stopped on the page.
        self.asks(page, 'Scene')
        self.picture(page, 'placed')
        self.press(page, 'g')
        self.asks(page, 'running')
        self.picture(page, 'running')
        self.press(page, 'f')
        self.asks(page, 'What went wrong?')
        self.picture(page, 'failure')
        self.press(page, '2')
        self.asks(page, 'How much')
        self.picture(page, 'score')
        self.press(page, '67')
        self.asks(page, 'A note')
        page.click('#trial-line')
        page.type('slipped off')
        page.click('#trial-form button')
        self.asks(page, 'Scene')
        page.key('KeyG')
        self.asks(page, 'running')
        page.click('#stop')
        self.asks(page, 'What went wrong?')
        self.press(page, 'd')
        self.asks(page, 'How much')
        page.click('#trial-line')
        page.type('10')
        page.click('#trial-form button')
        self.asks(page, 'A note')
        page.click('#trial-form button')
        page.wait('document.getElementById("trial-panel").hidden', 'the end', 30.0)
        assert page.complaints == []


@pytest.mark.skipif(find_chromium() is None, reason='no Chromium on this machine')
def test_what_is_pressed_on_the_page_is_in_the_journal(stack, tmp_path, monkeypatch):
    # No terminal: the page is enough.
    monkeypatch.setattr('sys.stdin', open(os.devnull))  # noqa: SIM115
    shipped = policy_ref(str(config_dir() / 'policies' / 'piper_click_bell'))
    hold = policy_ref('hold', ['horizon=16'])
    plan = Plan('click_bell', 'press the bell', 'piper', (shipped.name, 'hold'),
                (shipped.digest, hold.digest), (f'{EVAL_SEEDS[0]} easy',), 1, 3, True, 60.0)
    log, port = TrialLog(tmp_path / 'trials', plan), free_port()
    hand = Hand(f'http://127.0.0.1:{port}/', os.environ.get('MIVLA_TRIAL_PICTURES'))
    description = stack(**{**stack_words(shipped), 'bags': str(tmp_path / 'trials' / 'bags')},
                        console=True, console_port=port)

    @contextmanager
    def desk_of(rig):
        with desk_at(rig, description.options) as desk:
            wait_for(port)
            hand.start()
            yield desk

    assert run_trials(description, (shipped, hold), log, desk_of)
    hand.join()
    first, second = TrialLog(tmp_path / 'trials', plan).answers
    assert (first.success, first.failure, first.score, first.note) == (
        False, 'dropped', 0.67, 'slipped off')
    assert (second.success, second.failure, second.score, second.note) == (
        False, 'operator', 0.1, '')
    # Nothing on the page says which policy it was, in the first trial or in the second.
    told = ' '.join(hand.told)
    assert 'hold' not in told.replace('holding', '').replace('while\nheld', '')
    assert shipped.name not in told and 'not told' in told


def wait_for(port):
    deadline = time.monotonic() + 30.0
    while True:
        try:
            socket.create_connection(('127.0.0.1', port), 1.0).close()
            return
        except OSError:
            assert time.monotonic() < deadline, 'no console'
            time.sleep(0.1)
