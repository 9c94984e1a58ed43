"""
What a page may ask for, and the checks that every word of it has to pass.

A request is one JSON object: ``{"id": 7, "robot": "piper", "do": "home"}`` and the fields of what
is to be done. Everything is bounded: size, nesting (none but what stands here), lengths, ranges.
Unknown fields are refused, so that a misspelt ``force`` is not taken for ``false``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mivla_teleop.console.errors import RequestError
from mivla_teleop.recording.episode import check_task
from mivla_teleop.recording.errors import RecordingError

__all__ = ['ALL_ROBOTS', 'LONGEST', 'MODES', 'OUTCOMES', 'POSES', 'Request', 'parse']

LONGEST = 8192            # bytes of one message of a page
ALL_ROBOTS = '*'          # a stop of every robot at once
MODES = ('idle', 'teleop', 'policy')
OUTCOMES = ('success', 'failure', 'discard')
POSES = ('home', 'rest')
_NAME = re.compile(r'[a-z][a-z0-9_]{0,63}')
_ARM = re.compile(rf'({_NAME.pattern})?')      # the only one needs no name
_NO_CONTROL = re.compile(r'[^\x00-\x1f\x7f]*')
_MOST_JOINTS = 64

Check = Callable[[Any], Any]


@dataclass(frozen=True)
class Request:
    """
    One checked request.

    :param id: the page's own number, repeated in the answer.
    :param robot: which robot; '' where it concerns none, '*' where all.
    :param do: what is asked, a key of the table below.
    :param values: its fields, checked.
    """

    id: int
    robot: str
    do: str
    values: Mapping[str, Any] = field(default_factory=dict)


def _text(longest: int, pattern: re.Pattern[str] = _NO_CONTROL) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > longest:
            raise RequestError(f'must be text of at most {longest} characters')
        if not pattern.fullmatch(value):
            raise RequestError(f'{value!r} has characters that are not allowed here')
        return value
    return check


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> str:
        if value not in choices or not isinstance(value, str):
            raise RequestError(f'must be one of {", ".join(choices)}')
        return value
    return check


def _task(value: Any) -> str:
    try:
        return check_task(_text(64)(value))
    except RecordingError as err:
        raise RequestError(str(err)) from err


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError('must be true or false')
    return value


def _whole(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise RequestError(f'must be a whole number from {low} to {high}')
        return value
    return check


def _share(value: Any) -> float:
    """Check a deflection of a stick or button: -1 to 1 of the jog speed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError('must be a number')
    if not -1 <= value <= 1:     # false for NaN, too
        raise RequestError('must be from -1 to 1')
    return float(value)


def _shares(count: int) -> Check:
    def check(value: Any) -> tuple[float, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise RequestError(f'must be a list of {count} numbers')
        return tuple(_share(item) for item in value)
    return check


def _by_joint(value: Any) -> dict[str, float]:
    name = _text(64, _NAME)
    if not isinstance(value, dict) or not 1 <= len(value) <= _MOST_JOINTS:
        raise RequestError(f'must map 1 to {_MOST_JOINTS} joints to numbers')
    return {name(joint): _share(share) for joint, share in value.items()}


def _roles(value: Any) -> tuple[str, ...]:
    name = _text(64, _NAME)
    if not isinstance(value, list) or len(value) > 16:
        raise RequestError('must be a list of at most 16 cameras')
    return tuple(name(role) for role in value)


@dataclass(frozen=True)
class _Form:
    """
    Fields of one kind of request.

    :param needed: fields that must be there.
    :param optional: fields with what they are without being given.
    :param robot: whether it is for one robot.
    """

    needed: Mapping[str, Check] = field(default_factory=dict)
    optional: Mapping[str, tuple[Check, Any]] = field(default_factory=dict)
    robot: bool = True


_FORMS: Mapping[str, _Form] = {
    'stop': _Form({}, {'reason': (_text(200), '')}),
    'enable': _Form(),
    'disable': _Form({'force': _flag}),
    'reset': _Form(),
    'pose': _Form({'pose': _one_of(*POSES)}),
    'posture': _Form({'posture': _text(64, _NAME)}),
    'mode': _Form({'mode': _one_of(*MODES)}),
    'instruction': _Form({'text': _text(500)}),
    'desk': _Form({'task': _task, 'operator': _text(80), 'target': _whole(1, 9999)}),
    'start': _Form(),
    'finish': _Form({'outcome': _one_of(*OUTCOMES)}, {'note': (_text(500), '')}),
    'undo': _Form(),
    'discard_last': _Form(),
    'trial': _Form({'number': _whole(1, 2**53), 'answer': _text(500)}),
    'engage': _Form(),
    'pause': _Form(),
    # Streamed while something is held down; answered only when refused.
    'jog': _Form({}, {'joints': (_by_joint, None), 'twist': (_shares(6), None),
                      'base': (_shares(3), None), 'arm': (_text(64, _ARM), '')}),
    'hold': _Form({'on': _flag}),
    'see': _Form({'cameras': _roles}),
}


def parse(message: str, robots: Collection[str]) -> Request:
    """
    Check one message of a page.

    :param robots: names of the robots that the console serves.
    :raises RequestError: says which field is wrong and what it must be.
    """
    if len(message) > LONGEST:
        raise RequestError(f'a request of {len(message)} characters; at most {LONGEST}')
    try:
        data = json.loads(message, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise RequestError(f'not JSON: {err}') from err
    if not isinstance(data, dict):
        raise RequestError('a request must be a JSON object')
    number = _field(data, 'id', _whole(0, 2**53))
    do = data.get('do')
    if not isinstance(do, str) or do not in _FORMS:
        raise RequestError(f'do: must be one of {", ".join(_FORMS)}')
    form = _FORMS[do]
    unknown = sorted(set(data) - {'id', 'do', 'robot', *form.needed, *form.optional})
    if unknown:
        raise RequestError(f'{do}: unknown field {unknown[0][:64]!r}')
    choices = (*sorted(robots), ALL_ROBOTS) if do == 'stop' else tuple(sorted(robots))
    robot = _field(data, 'robot', _one_of(*choices))
    values = {name: _field(data, name, check) for name, check in form.needed.items()}
    for name, (check, otherwise) in form.optional.items():
        values[name] = _field(data, name, check) if name in data else otherwise
    if do == 'jog' and sum(values[kind] is not None for kind in ('joints', 'twist', 'base')) != 1:
        raise RequestError('jog: give one of joints, twist and base')
    return Request(number, robot, do, values)


def _field(data: Mapping[str, Any], name: str, check: Check) -> Any:
    if name not in data:
        raise RequestError(f'{name}: is missing')
    try:
        return check(data[name])
    except RequestError as err:
        raise RequestError(f'{name}: {err}') from err


def _no_constant(word: str) -> Any:
    raise ValueError(f'{word} is not JSON')
