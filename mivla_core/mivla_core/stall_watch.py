"""
Whether the machine itself stood still while something was measured or tested.

A process that asks for nothing but to be woken every few milliseconds. Where it is woken late the
machine gave it no time (a busy one, or a virtual one whose host is busy), and what a robot's
driver did meanwhile tells nothing about the driver.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time

from mivla_core.realtime import ask_fifo

__all__ = ['StallWatch']

_PERIOD_S = 0.005


class StallWatch:
    """
    The longest that a process of its own was woken late, from one question to the next.

    :param priority: of that process under SCHED_FIFO, where it is permitted. Above the control
        loops' it sees nothing but the machine; 0 (none): what an ordinary process sees, such as
        one that runs tests.
    """

    def __init__(self, priority: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, '-m', __name__, str(priority)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        # It takes a while to start, which is nobody's stall.
        self.worst()

    @property
    def pid(self) -> int:
        """The process that is woken."""
        return self._process.pid

    def worst(self) -> float:
        """Return the longest delay [s] since the last question."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _watch(priority: int) -> None:
    ask_fifo(priority)
    worst, last = 0.0, time.monotonic()
    while True:
        asked = select.select([sys.stdin], [], [], _PERIOD_S)[0]
        now = time.monotonic()
        worst, last = max(worst, now - last - _PERIOD_S), now
        if asked:
            if not sys.stdin.readline():
                return
            print(worst, flush=True)
            worst = 0.0


if __name__ == '__main__':
    _watch(int(sys.argv[1]))
