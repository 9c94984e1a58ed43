"""Where an operator is asked: a terminal, or whatever else has these methods."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Optional, Protocol

from mivla_bringup.errors import BringupError
from mivla_bringup.terminal import is_terminal, single_keys

__all__ = ['POLL', 'Card', 'Desk', 'InputEnded', 'TerminalDesk']

POLL = 0.05    # s


class InputEnded(BringupError):
    """Nobody can answer at the terminal any more."""


@dataclass(frozen=True)
class Card:
    """
    What an operator may know of a trial.

    :param number: from 1.
    :param most: trials that there are at most.
    :param done: trials that count so far.
    :param text: what the stopping rule says.
    :param policy: '' where the operator is not told.
    :param hidden: because it is to stay unknown, not because there is but one.
    """

    number: int
    most: int
    done: int
    text: str
    scene: str
    policy: str
    hidden: bool


class Desk(Protocol):
    """What trials need of whoever stands at the robot."""

    def show(self, card: Card) -> None:
        """Tell which trial comes."""
        ...

    def say(self, text: str) -> None:
        """Tell something."""
        ...

    def choose(self, question: str, choices: Mapping[str, str]) -> str:
        """Have one of some keys pressed, whose meanings are shown; return it."""
        ...

    def ask(self, question: str, offers: Mapping[str, str] | None = None) -> str:
        """
        Return a line; '' is an answer.

        :param offers: likely answers, with words for each.
        """
        ...

    def forget(self) -> None:
        """Drop what was typed before anybody asked."""
        ...

    def watch(self, question: str, choices: Mapping[str, str], over: Callable[[], bool],
              limit_s: float) -> str:
        """Return the first key that is pressed; '' when it is over, or after the limit."""
        ...


class TerminalDesk:
    """
    A terminal; where there is none, lines of standard input.

    :param check: called while it waits; what it raises ends the wait.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._keys = is_terminal(sys.stdin)
        self._text = ''

    def show(self, card: Card) -> None:
        """Print which trial comes."""
        self.say(f'\nTrial {card.number} of {card.most} at most ({card.text})'
                 + (f', policy {card.policy}' if card.policy else ''))

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def pose(self, question: str, choices: Mapping[str, str]) -> None:
        """Print a question and the keys that answer it."""
        shown = '  '.join(f'[{key.strip() or "space"}] {words}' for key, words in choices.items())
        self.say(f'{question}\n  {shown}')

    def choose(self, question: str, choices: Mapping[str, str]) -> str:
        """Ask until one of the keys comes."""
        self.pose(question, choices)
        while not (key := self.key(choices, lambda: False, float('inf'))):
            pass
        return key

    def ask(self, question: str, offers: Mapping[str, str] | None = None) -> str:
        """Ask for a line."""
        line = None
        while line is None:
            line = self.line(question, offers or {}, lambda: False)
        return line

    def line(self, question: str, offers: Mapping[str, str],
             over: Callable[[], bool]) -> Optional[str]:
        """Ask for a line; None when it is over."""
        shown = ', '.join(f'{line} {words}' for line, words in offers.items() if words)
        print(question + (f' ({shown})' if shown else ''), end=' ', flush=True)
        while '\n' not in self._text:
            if over():
                print(flush=True)
                return None
            self._more(wait=False)
        line, _, self._text = self._text.partition('\n')
        return line.strip()

    def forget(self) -> None:
        """Drop keys of a terminal; lines that were piped in are meant."""
        if self._keys:
            termios.tcflush(sys.stdin, termios.TCIFLUSH)
            self._text = ''

    def watch(self, question: str, choices: Mapping[str, str], over: Callable[[], bool],
              limit_s: float) -> str:
        """Wait for a key."""
        self.pose(question, choices)
        return self.key(choices, over, limit_s)

    def key(self, choices: Mapping[str, str], over: Callable[[], bool], limit_s: float) -> str:
        """Wait for a key without a word."""
        deadline = time.monotonic() + limit_s
        with ExitStack() as stack:
            if self._keys:
                stack.enter_context(single_keys())
            while time.monotonic() < deadline and not over():
                self._more(wait=False)
                while self._text:
                    key, self._text = self._text[0], self._text[1:]
                    if key in choices:
                        # What was typed before the end of the line meant this key.
                        self._text = self._text.lstrip('\n') if not self._keys else ''
                        return key
        return ''

    def _more(self, wait: bool = True) -> None:
        """Read what there is; with ``wait`` until there is something."""
        while True:
            self._check()
            ready, _, _ = select.select([sys.stdin], [], [], POLL)
            if ready:
                data = os.read(sys.stdin.fileno(), 256)
                if not data:
                    raise InputEnded('standard input has ended, and with it the trials')
                self._text += data.decode('utf-8', 'replace')
                return
            if not wait:
                return
