"""The thread that ticks a controller at the control rate, and measures how well it does."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable

from mivla_core.timing import NowNs, StampNs
from mivla_drivers.core.loop_stats import LoopStats

__all__ = ['ControlThread']

WINDOW_S = 10.0


class ControlThread:
    """
    Calls ``tick(now, stamp)`` at absolute deadlines.

    ``now`` and ``stamp`` are the scheduled instant, so the set-points of a loop that wakes a
    little late are still evenly spaced. Periods that passed without a tick are counted, never
    made up for.

    :param tick: raises nothing that it does not want to end the loop.
    :param priority: of SCHED_FIFO; 0 does not ask for it.
    :param tell: called with words for the log when the priority is refused.
    :param died: called with the error that ended the loop.
    """

    def __init__(self, rate_hz: float, tick: Callable[[NowNs, StampNs], None], priority: int,
                 tell: Callable[[str], None], died: Callable[[BaseException], None]) -> None:
        self._period = round(1e9 / rate_hz)
        self._tick, self._priority, self._tell, self._died = tick, priority, tell, died
        self._running = False
        self._thread: threading.Thread | None = None
        self.stats = LoopStats(round(WINDOW_S * rate_hz))
        self.realtime = False

    def start(self) -> None:
        """Begin to tick."""
        self._running = True
        self._thread = threading.Thread(target=self._run, name='control', daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """End the loop; False when it hangs."""
        self._running = False
        thread = self._thread
        if thread is None:
            return True
        thread.join(2.0)
        return not thread.is_alive()

    def _run(self) -> None:
        self._ask_for_realtime()
        # A collection in the middle of a tick costs milliseconds; the node collects elsewhere.
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._loop()
        except BaseException as error:  # the node must learn that nothing commands the arm now
            self._died(error)

    def _loop(self) -> None:
        due = time.monotonic_ns() + self._period
        last = 0
        while self._running:
            time.sleep(max(0, due - time.monotonic_ns()) * 1e-9)
            woke = time.monotonic_ns()
            late = (woke - due) // self._period
            if late > 0:
                self.stats.miss(late)
                due += late * self._period
            self._tick(NowNs(due), StampNs(time.time_ns() - (time.monotonic_ns() - due)))
            if last:
                self.stats.add(woke - last, time.monotonic_ns() - woke)
            last = woke
            due += self._period

    def _ask_for_realtime(self) -> None:
        if self._priority <= 0:
            return
        try:
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO,
                                  os.sched_param(self._priority))
            self.realtime = True
        except (AttributeError, OSError) as err:
            self._tell(f'the control loop runs without SCHED_FIFO ({err}): expect jitter; grant an '
                       'rtprio limit (see "mivla doctor")')
