"""
Whether a child that died is started again, and when. Knows no clock: time comes in.

A program that ends by itself with an error code in its first seconds has refused to start (a
camera is absent, a checkpoint is damaged): starting it again would only hide its message.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Optional

__all__ = ['RespawnRule', 'Respawner', 'describe_exit']

_SIGNAL_NAMES = {1: 'SIGHUP', 2: 'SIGINT', 3: 'SIGQUIT', 4: 'SIGILL', 6: 'SIGABRT', 7: 'SIGBUS',
                 8: 'SIGFPE', 9: 'SIGKILL', 11: 'SIGSEGV', 13: 'SIGPIPE', 14: 'SIGALRM',
                 15: 'SIGTERM'}


@dataclass(frozen=True)
class RespawnRule:
    """
    The numbers of the rule.

    :param delay: s before the first respawn; doubles with every death within ``window``.
    :param limit: deaths within ``window`` that are forgiven.
    :param window: s.
    :param settle: s within which an error code in the first life is a refusal to start.
    """

    delay: float = 1.0
    limit: int = 3
    window: float = 60.0
    settle: float = 20.0


class Respawner:
    """Judges the deaths of one child."""

    def __init__(self, rule: RespawnRule, allowed: bool) -> None:
        self._rule = rule
        self._allowed = allowed
        self._deaths: deque[float] = deque()
        self._lives = 0
        self.refused = False    # the last death was a refusal to start

    def died(self, returncode: int, started: float, now: float) -> Optional[float]:
        """
        Return the delay [s] before the next start, or None when the child is given up.

        :param returncode: exit code, or minus the signal's number.
        :param started: start of the life that has ended [s].
        :param now: s, on the same clock.
        """
        self._lives += 1
        self.refused = (self._lives == 1 and returncode > 0
                        and now - started < self._rule.settle)
        if self.refused or not self._allowed:
            return None
        while self._deaths and now - self._deaths[0] > self._rule.window:
            self._deaths.popleft()
        if len(self._deaths) >= self._rule.limit:
            return None
        self._deaths.append(now)
        return self._rule.delay * 2.0 ** (len(self._deaths) - 1)


def describe_exit(returncode: int) -> str:
    """Say how a process ended."""
    if returncode < 0:
        return f'killed by {_SIGNAL_NAMES.get(-returncode, f"signal {-returncode}")}'
    return 'ended by itself (exit code 0)' if returncode == 0 else f'exit code {returncode}'
