"""Absolute deadlines for sources that make their own pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Optional

from mivla_core.timing import NowNs, monotonic_now

__all__ = ['Pace']


class Pace:
    """
    Waits from one deadline to the next; after a gap it does not catch up.

    :param now: the clock, and :param sleep: how to wait; a test passes its own.
    """

    def __init__(self, fps: float, now: Callable[[], NowNs] = monotonic_now,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        self.period_ns = round(1e9 / fps)
        self._now, self._sleep = now, sleep
        self._next: Optional[NowNs] = None

    def wait(self) -> None:
        """Sleep until the next deadline; the first is at once."""
        now = self._now()
        if self._next is None or now - self._next > self.period_ns:
            self._next = now
        elif self._next > now:
            self._sleep((self._next - now) * 1e-9)
        self._next = self._next + self.period_ns
