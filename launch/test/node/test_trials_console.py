"""An operator's answers from a page through the real console to who does trials, none lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')
msgs = pytest.importorskip('mivla_msgs.msg', reason='mivla_msgs is not built or not sourced')
if not hasattr(msgs, 'JointCommand'):     # the source folder of the same name
    pytest.skip('mivla_msgs is not built or not sourced', allow_module_level=True)

import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from mivla_bringup.bench.pages import Page  # noqa: E402
from mivla_bringup.errors import BringupError  # noqa: E402
from mivla_bringup.evaluation.desk import Card, TerminalDesk  # noqa: E402
from mivla_bringup.evaluation.page_desk import PageLink, SharedDesk  # noqa: E402
from mivla_core.ros.spinning import Spinning  # noqa: E402
from mivla_teleop.console.ros.console_node import ConsoleNode  # noqa: E402

TOKEN = 'a-token-of-some-length'
CARD = Card(3, 40, 2, 'round 2 of 20', 'bottle left', '', True)
CHOICES = {'s': 'success', 'f': 'failure', ' ': 'STOP'}


class Place:
    """A console, a page that looks at it, and a desk that somebody asks at."""

    def __init__(self, context: rclpy.Context, folder: Path) -> None:
        token = folder / 'token'
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        self.console = ConsoleNode(context=context, parameter_overrides=[
            Parameter('port', value=0), Parameter('token_file', value=str(token)),
            Parameter('bags', value=str(folder))])
        self.node = rclpy.create_node('trials', context=context)
        self._spinning = Spinning(self.console, self.node, context=context, threads=2)
        assert self.console.bring_up(), self.console.failure
        self.page = Page(f'127.0.0.1:{self.console.port}', TOKEN)
        self.link = PageLink(self.node, 'piper')
        self.desk = SharedDesk(TerminalDesk(lambda: None), self.link.sheet, lambda: None)
        self.linked = True

    def unlink(self) -> None:
        if self.linked:
            self.link.close()
            self.linked = False

    def close(self) -> None:
        self.page.close()
        self.unlink()
        self.console.bring_down()
        self._spinning.stop()
        for node in (self.console, self.node):
            node.destroy_node()

    def question(self, after: int = 0) -> dict:
        """Return the page's next open question."""
        return self.page.wait(
            'piper', lambda state: state['trial'] and state['trial']['number'] > after
            and state['trial']['answered'] < state['trial']['number'], 15.0, 'a question')['trial']

    def answer(self, number: int, answer: str) -> str:
        return self.page.ask('piper', 'trial', number=number, answer=answer)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(60 + os.getpid() % 40))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context)
    out, held = os.pipe()
    monkeypatch.setattr('sys.stdin', os.fdopen(out))
    made = Place(context, tmp_path)
    yield made
    made.close()
    os.close(held)
    rclpy.try_shutdown(context=context)


def test_every_answer_of_the_page_arrives_and_is_confirmed(place: Place) -> None:
    said: list[str] = []

    def trial() -> None:
        place.desk.show(CARD)
        said.append(place.desk.choose('Scene: bottle left', {'g': 'go', 'q': 'leave'}))
        said.append(place.desk.watch('running', CHOICES, lambda: False, 20.0))
        said.append(place.desk.choose('What went wrong?', {'1': 'missed', '2': 'dropped'}))
        said.append(place.desk.ask('How much?', {'40': 'grasped'}))
        said.append(place.desk.ask('A note:'))
    work = threading.Thread(target=trial, daemon=True)
    work.start()
    number, shown = 0, []
    for answer in ('g', 'f', '2', '40', 'slipped at the „cap“'):
        question = place.question(number)
        number = question['number']
        shown.append(question)
        assert place.answer(number, answer) == 'taken'
    work.join(5.0)
    assert said == ['g', 'f', '2', '40', 'slipped at the „cap“']
    assert shown[0]['scene'] == 'bottle left' and shown[0]['hidden'] and shown[0]['done'] == 2
    assert shown[3]['offers'] == [['40', 'grasped']]
    # A second page that was slower, and a press that came twice, change nothing.
    for late in ((number, 'other'), (number - 1, '1')):
        with pytest.raises(BringupError, match='has been answered'):
            place.answer(*late)


def test_an_answer_that_nobody_takes_is_not_confirmed(place: Place) -> None:
    place.link.sheet.put('choose', 'Does it count?', {'y': 'yes', 'v': 'void'})
    number = place.question()['number']
    with pytest.raises(BringupError, match='none of y, v'):
        place.answer(number, 'x')
    # Who asked has gone without a word: the page must not believe that it was heard.
    place.node.destroy_subscription(place.link._answers)
    with pytest.raises(BringupError, match='no answer within'):
        place.answer(number, 'y')
    assert place.question()['number'] == number, 'the question is still there'
    place.unlink()
    place.page.wait('piper', lambda state: state['trial'] is None, 10.0, 'the end of the trials')
    with pytest.raises(BringupError, match='no trials are going on'):
        place.answer(number, 'y')


def test_the_terminal_is_shown_on_the_page(place: Place) -> None:
    place.link.sheet.put('choose', 'Does it count?', {'y': 'yes', 'v': 'void'})
    number = place.question()['number']
    assert place.link.sheet.settle('v', 'terminal')
    trial = place.page.wait('piper', lambda state: state['trial']['answered'] == number, 5.0,
                            'the answer')['trial']
    assert (trial['answer'], trial['by']) == ('v', 'terminal')
    began = time.monotonic()
    with pytest.raises(BringupError, match='has been answered: v'):
        place.answer(number, 'y')
    assert time.monotonic() - began < 3.0
