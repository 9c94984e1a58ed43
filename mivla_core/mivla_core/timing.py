"""
Two kinds of time that cannot be mixed, both integer nanoseconds.

``StampNs`` is ROS time: it stands in messages, orders data and measures latency. ``NowNs`` is
CLOCK_MONOTONIC: every watchdog judges by it. Subtracting two of a kind gives a plain ``int`` of
nanoseconds; mixing kinds raises ``TypeError`` instead of giving a number that means nothing.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn, TypeVar

__all__ = ['NS_PER_S', 'NowNs', 'StampNs', 'monotonic_now', 'seconds', 'to_ns']

NS_PER_S = 1_000_000_000

_T = TypeVar('_T', bound='_Instant')


class _Instant(int):
    """An instant on one clock [ns]; arithmetic keeps to that clock."""

    __slots__ = ()

    def _refuse(self, other: object, operation: str) -> NoReturn:
        raise TypeError(
            f'cannot {operation} {type(self).__name__} and {type(other).__name__}: '
            'they belong to different clocks')

    def _same(self, other: object, operation: str) -> None:
        if isinstance(other, _Instant) and type(other) is not type(self):
            self._refuse(other, operation)

    def _integer(self, other: object) -> None:
        if not isinstance(other, int):
            raise TypeError(f'{type(self).__name__} moves by whole ns, not by {other!r}; '
                            'round with to_ns()')

    def __add__(self: _T, other: int) -> _T:
        """Return the instant ``other`` ns later."""
        if isinstance(other, _Instant):
            self._refuse(other, 'add')
        self._integer(other)
        return type(self)(int.__add__(self, other))

    __radd__ = __add__

    def __sub__(self, other: int) -> Any:
        """Return ns between two instants of one clock, or the instant ``other`` ns earlier."""
        if isinstance(other, _Instant):
            self._same(other, 'subtract')
            return int.__sub__(self, other)
        self._integer(other)
        return type(self)(int.__sub__(self, other))

    def __rsub__(self, other: object) -> NoReturn:
        self._refuse(other, 'subtract')

    def __lt__(self, other: int) -> bool:
        self._same(other, 'compare')
        return int.__lt__(self, other)

    def __le__(self, other: int) -> bool:
        self._same(other, 'compare')
        return int.__le__(self, other)

    def __gt__(self, other: int) -> bool:
        self._same(other, 'compare')
        return int.__gt__(self, other)

    def __ge__(self, other: int) -> bool:
        self._same(other, 'compare')
        return int.__ge__(self, other)

    def __eq__(self, other: object) -> bool:
        self._same(other, 'compare')
        return int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __repr__(self) -> str:
        return f'{type(self).__name__}({int(self)})'


class StampNs(_Instant):
    """ROS time [ns since the epoch], as in message headers."""

    __slots__ = ()

    @classmethod
    def from_msg(cls, stamp: Any) -> StampNs:
        """Read a ``builtin_interfaces/Time``-like object (``sec``, ``nanosec``)."""
        return cls(stamp.sec * NS_PER_S + stamp.nanosec)

    def fill(self, stamp: Any) -> Any:
        """Write into a ``builtin_interfaces/Time``-like object and return it."""
        stamp.sec, stamp.nanosec = divmod(int(self), NS_PER_S)
        return stamp

    @classmethod
    def wall(cls) -> StampNs:
        """Read the system clock, which is ROS time while ``use_sim_time`` is false."""
        return cls(time.time_ns())


class NowNs(_Instant):
    """CLOCK_MONOTONIC [ns]; comparable within one machine and boot only."""

    __slots__ = ()


def monotonic_now() -> NowNs:
    """Read CLOCK_MONOTONIC."""
    return NowNs(time.monotonic_ns())


def to_ns(duration_s: float) -> int:
    """Convert seconds to integer nanoseconds, rounding to nearest."""
    return round(duration_s * NS_PER_S)


def seconds(duration_ns: int) -> float:
    """Convert a duration in ns to seconds."""
    if isinstance(duration_ns, _Instant):
        raise TypeError(f'{duration_ns!r} is an instant, not a duration')
    return duration_ns / NS_PER_S
