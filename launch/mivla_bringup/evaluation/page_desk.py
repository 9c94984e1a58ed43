"""
An operator who answers at the terminal or on the console's page, whichever is nearer.

Every question is on both at once, and the first answer counts. The console has the door, the
token and the sessions: this end speaks to it over two topics of the robot (``console.core.trial``)
and listens nowhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Optional

from rclpy.node import Node
from std_msgs.msg import String

from mivla_bringup.evaluation.desk import POLL, Card, Desk, InputEnded, TerminalDesk
from mivla_bringup.rig import Rig
from mivla_bringup.stack import StackOptions
from mivla_core.ros.qos import COMMAND, LATCHED
from mivla_teleop.console.core.trial import ANSWER_TOPIC, DESK_TOPIC, Slip, read_answer
from mivla_teleop.console.errors import RequestError

__all__ = ['PageLink', 'SharedDesk', 'Sheet', 'desk_at']

SAID = 6           # lines that a page still shows
PERIOD = 1.0       # s between two slips: a console knows by them that somebody is there
STOP = ' '         # the page has a larger button for it


class Sheet:
    """
    The question that lies on the desk, for two who may answer it. Any thread.

    :param changed: called with every new slip.
    """

    def __init__(self, changed: Callable[[Slip], None] = lambda slip: None) -> None:
        self._slip, self._changed = Slip(), changed
        self._lock = threading.RLock()

    @property
    def slip(self) -> Slip:
        """What the page shows now."""
        return self._slip

    def _write(self, slip: Slip) -> None:
        self._slip = slip
        self._changed(slip)

    def show(self, card: Card) -> None:
        """Show which trial comes."""
        with self._lock:
            self._write(replace(
                self._slip, trial=card.number, most=card.most, done=card.done, text=card.text,
                scene=card.scene, policy=card.policy, hidden=card.hidden, said=()))

    def say(self, text: str) -> None:
        """Show a line below the earlier ones."""
        with self._lock:
            self._write(replace(self._slip, said=(*self._slip.said, text.strip())[-SAID:]))

    def put(self, kind: str, question: str, choices: Mapping[str, str] | None = None,
            offers: Mapping[str, str] | None = None) -> None:
        """Ask; what was asked before cannot be answered any more."""
        with self._lock:
            self._write(replace(
                self._slip, number=self._slip.number + 1, kind=kind, question=question,
                choices=tuple((choices or {}).items()), offers=tuple((offers or {}).items())))

    def settle(self, answer: str, by: str, number: Optional[int] = None) -> bool:
        """
        Take an answer, unless there is one already; returns whether it was taken.

        :param number: of the question it is meant for; None: the one that lies there.
        """
        with self._lock:
            slip = self._slip
            if slip.answered == slip.number or number not in (None, slip.number) or (
                    by == 'page' and slip.kind != 'ask' and answer not in dict(slip.choices)):
                return False
            self._write(replace(slip, answered=slip.number, answer=answer, by=by))
            return True

    def answered(self) -> bool:
        """Whether the question has an answer."""
        return self._slip.answered == self._slip.number

    def end(self) -> None:
        """Say that no trials go on any more."""
        with self._lock:
            self._write(replace(self._slip, kind='', over=True))


class PageLink:
    """
    A sheet, shown by the consoles of a robot and answered by their pages.

    :param node: that is spun by somebody.
    """

    def __init__(self, node: Node, robot: str) -> None:
        self._node = node
        self._slips = node.create_publisher(String, f'/{robot}/{DESK_TOPIC}', LATCHED)
        self.sheet = Sheet(self._publish)
        self._answers = node.create_subscription(
            String, f'/{robot}/{ANSWER_TOPIC}', self._on_answer, COMMAND)
        self._timer = node.create_timer(PERIOD, lambda: self._publish(self.sheet.slip))

    def close(self) -> None:
        """Tell the consoles that it is over."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._answers)
        self.sheet.end()

    def _publish(self, slip: Slip) -> None:
        self._slips.publish(String(data=slip.to_text()))

    def _on_answer(self, message: String) -> None:
        try:
            number, answer = read_answer(message.data)
        except RequestError as err:
            self._node.get_logger().warning(f'{ANSWER_TOPIC}: {err}')
            return
        if not self.sheet.settle(answer, 'page', number):
            # Who is late learns from the slip what was taken.
            self._publish(self.sheet.slip)


class SharedDesk:
    """
    A terminal and a page.

    :param check: called while it waits for the page alone; what it raises ends the wait.
    """

    def __init__(self, terminal: TerminalDesk, sheet: Sheet, check: Callable[[], None]) -> None:
        self._terminal, self._sheet, self._check = terminal, sheet, check
        self._deaf = False     # the terminal's input has ended; the page is enough

    def show(self, card: Card) -> None:
        """Tell which trial comes."""
        self._terminal.show(card)
        self._sheet.show(card)

    def say(self, text: str) -> None:
        """Tell something."""
        self._terminal.say(text)
        self._sheet.say(text)

    def choose(self, question: str, choices: Mapping[str, str]) -> str:
        """Wait for a key from either."""
        self._sheet.put('choose', question, choices)
        self._terminal.pose(question, choices)
        while not (key := self._key(choices, lambda: False, float('inf'))):
            pass
        return key

    def watch(self, question: str, choices: Mapping[str, str], over: Callable[[], bool],
              limit_s: float) -> str:
        """Wait for a key from either while the robot moves."""
        self._sheet.put('watch', question, {
            key: words for key, words in choices.items() if key != STOP})
        self._terminal.pose(question, choices)
        return self._key(choices, over, limit_s)

    def ask(self, question: str, offers: Mapping[str, str] | None = None) -> str:
        """Wait for a line from either."""
        self._sheet.put('ask', question, offers=offers)
        try:
            line = None if self._deaf else self._terminal.line(
                question, offers or {}, self._sheet.answered)
        except InputEnded:
            line, self._deaf = None, True
        if line is None:
            self._wait(lambda: False, float('inf'))
        return self._taken(line or '').strip()

    def forget(self) -> None:
        """Drop what was typed before anybody asked."""
        if not self._deaf:
            self._terminal.forget()

    def _key(self, choices: Mapping[str, str], over: Callable[[], bool], limit_s: float) -> str:
        """Return a key from either; '' when it is over, or after the limit."""
        begun, key = time.monotonic(), ''
        if not self._deaf:
            try:
                key = self._terminal.key(
                    choices, lambda: over() or self._sheet.answered(), limit_s)
            except InputEnded:
                self._deaf = True
        if self._deaf:
            self._wait(over, limit_s - (time.monotonic() - begun))
        return self._taken(key)

    def _wait(self, over: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not (self._sheet.answered() or over()) and time.monotonic() < deadline:
            self._check()
            time.sleep(POLL)

    def _taken(self, said: str) -> str:
        """Return the answer that counts: what was said here, unless a page was faster."""
        if not self._sheet.settle(said, 'terminal'):
            said = self._sheet.slip.answer
            self._terminal.say(f'answered on the page: {said or "(nothing)"}')
            self.forget()
        return said


@contextmanager
def desk_at(rig: Rig, options: StackOptions) -> Iterator[Desk]:
    """Yield the terminal, shared with the console's page where the stack has one; a context."""
    terminal = TerminalDesk(rig.check)
    if not options.console:
        yield terminal
        return
    link = PageLink(rig.node, rig.robot)
    try:
        desk = SharedDesk(terminal, link.sheet, rig.check)
        desk.say(f'on the page, too: http://{options.console_host}:'
                 f'{options.console_port}/')
        yield desk
    finally:
        link.close()
