"""
A trial at a real robot as pages show it, and what a page says to it.

``mivla evaluate --real`` writes a slip: which trial it is, how things are to be placed, what is
asked. A page answers a question by its number, once; the slip that follows says what was taken.
Until then nobody tells the page that its answer has arrived. Slips and answers travel as JSON on
two topics of the robot, latched and reliable.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Optional

from mivla_teleop.console.errors import ConsoleError, RequestError

__all__ = ['ANSWER_TOPIC', 'Answered', 'DESK_TOPIC', 'KINDS', 'Slip', 'TrialAnswers',
           'answer_text', 'read_answer']

DESK_TOPIC, ANSWER_TOPIC = 'trials/desk', 'trials/answer'
LONGEST = 32768           # characters of a slip
LONGEST_ANSWER = 500
# '': nothing is asked; 'choose' and 'watch': one of the choices, the latter while the robot moves;
# 'ask': a line of text.
KINDS = ('', 'choose', 'watch', 'ask')

# Called with (ok, message).
Told = Callable[[bool, str], None]


@dataclass(frozen=True)
class Slip:
    """
    What an operator is shown.

    :param number: of the question; rises with each, 0 before the first.
    :param kind: one of ``KINDS``.
    :param choices: key and words of each answer, in order.
    :param offers: lines that are likely answers to an 'ask', with words for each.
    :param trial: number from 1; 0 before the first.
    :param most: trials that there are at most.
    :param done: trials that count so far.
    :param text: what the stopping rule says.
    :param scene: how things are to be placed.
    :param policy: name of the one that is tried; '' where the operator is not told.
    :param hidden: the operator is kept from knowing which policy it is.
    :param said: the newest lines that were told, oldest first.
    :param answered: number of the newest question that has an answer.
    :param answer: that one.
    :param by: who gave it, 'page' or 'terminal'.
    :param over: no trial is going on any more.
    """

    number: int = 0
    kind: str = ''
    question: str = ''
    choices: tuple[tuple[str, str], ...] = ()
    offers: tuple[tuple[str, str], ...] = ()
    trial: int = 0
    most: int = 0
    done: int = 0
    text: str = ''
    scene: str = ''
    policy: str = ''
    hidden: bool = False
    said: tuple[str, ...] = ()
    answered: int = 0
    answer: str = ''
    by: str = ''
    over: bool = False

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.plain(), separators=(',', ':'))

    @classmethod
    def from_text(cls, text: str) -> Slip:
        """
        Read what ``to_text`` gave.

        :raises RequestError: something else.
        """
        data = _mapping(text, LONGEST)
        values: dict[str, Any] = {}
        for field in fields(cls):
            value, usual = data.get(field.name, field.default), field.default
            if isinstance(usual, tuple):
                value = _rows(value, field.name)
            elif type(value) is not type(usual):
                raise RequestError(f'{field.name}: {value!r} is no {type(usual).__name__}')
            values[field.name] = value
        if values['kind'] not in KINDS:
            raise RequestError(f'kind: {values["kind"]!r} is none of {", ".join(KINDS)}')
        return cls(**values)


def answer_text(number: int, answer: str) -> str:
    """Return the JSON of an answer."""
    return json.dumps({'number': number, 'answer': answer})


def read_answer(text: str) -> tuple[int, str]:
    """
    Return number and words of an answer.

    :raises RequestError: something else.
    """
    data = _mapping(text, 4 * LONGEST_ANSWER)
    number, answer = data.get('number'), data.get('answer')
    if type(number) is not int or not isinstance(answer, str) or len(answer) > LONGEST_ANSWER:
        raise RequestError(f'no answer: {text[:100]!r}')
    return number, answer


@dataclass(frozen=True)
class Answered:
    """A page's answer that waits for the slip that says what became of it."""

    number: int
    answer: str
    told: Told


class TrialAnswers:
    """
    What pages have answered on one robot, until it is known to have arrived. Any thread.

    Two pages may answer the same question; both are told which answer was taken.
    """

    def __init__(self) -> None:
        self._waiting: list[Answered] = []
        self._lock = threading.Lock()

    def ask(self, slip: Optional[Slip], number: int, answer: str, told: Told) -> Answered:
        """
        Take an answer in that is about to be sent.

        :param slip: the newest; None where there are no trials.
        :raises ConsoleError: nothing is asked, or something else is by now.
        """
        if slip is None or slip.over:
            raise ConsoleError('no trials are going on')
        if number != slip.number or slip.answered >= number:
            raise ConsoleError('this question has been answered'
                               + (f': {slip.answer}' if slip.answered == number else ''))
        if slip.kind in ('choose', 'watch') and answer not in dict(slip.choices):
            raise ConsoleError(f'{answer!r} is none of {", ".join(dict(slip.choices))}')
        answered = Answered(number, answer, told)
        with self._lock:
            self._waiting.append(answered)
        return answered

    def forget(self, answered: Answered) -> None:
        """Nobody waits for this one any more."""
        with self._lock:
            self._waiting = [one for one in self._waiting if one is not answered]

    def settle(self, slip: Slip) -> None:
        """Look at a new slip, and tell who waits what it says of their answer."""
        with self._lock:
            settled = [one for one in self._waiting if one.number <= slip.answered]
            self._waiting = [one for one in self._waiting if one.number > slip.answered]
        for one in settled:
            if (slip.answered, slip.answer) == (one.number, one.answer):
                one.told(True, 'taken')
            else:
                one.told(False, 'somebody else was faster: '
                         + (slip.answer if slip.answered == one.number else 'it went on'))


def _mapping(text: str, longest: int) -> Mapping[str, Any]:
    if len(text) > longest:
        raise RequestError(f'{len(text)} characters; at most {longest}')
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise RequestError(f'not JSON: {err}') from err
    if not isinstance(data, dict):
        raise RequestError('expected a JSON object')
    return data


def _rows(value: Any, name: str) -> tuple[Any, ...]:
    """Return lines of text, or pairs of them, as tuples."""
    rows = tuple(tuple(row) if isinstance(row, (list, tuple)) else row for row in value) \
        if isinstance(value, (list, tuple)) else None
    wanted = str if name == 'said' else tuple
    if rows is None or not all(isinstance(row, wanted) for row in rows) or (
            wanted is tuple and not all(
                len(row) == 2 and all(isinstance(word, str) for word in row) for row in rows)):
        raise RequestError(f'{name}: {str(value)[:100]!r} is no list of texts')
    return rows
