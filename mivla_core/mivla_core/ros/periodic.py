"""
A thread that does something at a fixed rate, for nodes that stream set-points.

It sleeps towards absolute deadlines, asks for SCHED_FIFO, does not make up for what it missed, and
sleeps without waking while it is switched off.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from mivla_core.timing import StampNs

__all__ = ['PeriodicThread']


class PeriodicThread:
    """Calls ``work(now)`` once per period while it is switched on."""

    def __init__(self, name: str, rate_hz: float, work: Callable[[StampNs], None], priority: int,
                 tell: Callable[[str], None]) -> None:
        """
        Prepare the thread; ``start`` runs it, switched off.

        :param work: called in the thread with the instant of the tick.
        :param priority: of SCHED_FIFO; 0 does not ask for it.
        :param tell: called with words for the log when it is refused.
        """
        self.missed = 0
        self._period_ns = round(1e9 / rate_hz)
        self._work, self._priority, self._tell = work, priority, tell
        self._on = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)

    @property
    def on(self) -> bool:
        """Whether it is switched on."""
        return self._on.is_set() and not self._stop.is_set()

    def start(self) -> None:
        """Begin, switched off."""
        self._thread.start()

    def switch(self, on: bool) -> None:
        """Switch on or off; after switching off at most the tick in work ends."""
        if on:
            self._on.set()
        else:
            self._on.clear()

    def stop(self) -> bool:
        """End the thread; False when it hangs."""
        self._stop.set()
        self._on.set()
        if self._thread.ident is not None:
            self._thread.join(2.0)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._ask_for_realtime()
        while not self._stop.is_set():
            self._on.wait()
            deadline = time.monotonic_ns()
            while self.on:
                self._work(StampNs.wall())
                deadline += self._period_ns
                late = time.monotonic_ns() - deadline
                if late >= self._period_ns:
                    # A burst of set-points that were due earlier would help nobody.
                    self.missed += late // self._period_ns
                    deadline += late // self._period_ns * self._period_ns
                time.sleep(max(0, deadline - time.monotonic_ns()) * 1e-9)

    def _ask_for_realtime(self) -> None:
        if self._priority <= 0:
            return
        try:
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO,
                                  os.sched_param(self._priority))
        except (AttributeError, OSError) as err:
            self._tell(f'set-points are streamed without SCHED_FIFO ({err}): expect more jitter; '
                       'grant an rtprio limit')
