"""
The thread of the control loop: absolute deadlines, real-time priority, nothing beside its work.

The instant of a tick is its deadline. The interval statistics measure when the thread really ran.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable

from mivla_core.timing import NowNs, StampNs
from mivla_drivers.core.loop_stats import LoopStats

__all__ = ['PRIORITY', 'ControlThread']

# A tick begins this long before its deadline, decides, waits for the deadline and writes:
# set-points reach the bus at even intervals, whatever the deciding took.
LEAD_NS = 1_000_000
# SCHED_FIFO priority of the control loop; the sources' streams are below it.
PRIORITY = 50
# Of the other threads of the process: one that holds the interpreter while a busy machine has
# taken its core away would make the control loop wait for it.
COMPANION_PRIORITY = 48
STATS_WINDOW_S = 10.0


Work = Callable[[NowNs, StampNs, Callable[[], None]], None]


class ControlThread:
    """
    Calls ``work(now, stamp, pace)`` at a fixed rate until it is stopped.

    :param work: one tick: scheduled monotonic instant, the same instant in ROS time, and a
        function that waits for it, to be called right before the set-point is written.
    :param crashed: called with the exception when ``work`` raises; the loop has then ended.
    :ivar realtime: whether the thread runs under SCHED_FIFO.
    """

    def __init__(self, rate_hz: float, work: Work, realtime: bool,
                 tell: Callable[[str], None], crashed: Callable[[Exception], None]) -> None:
        self._period_ns = round(1e9 / rate_hz)
        self._work, self._ask, self._tell, self._crashed = work, realtime, tell, crashed
        self.stats = LoopStats(round(STATS_WINDOW_S * rate_hz))
        self.realtime = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name='control')

    @property
    def running(self) -> bool:
        """Whether ticks happen."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to tick; garbage is from now on collected only where ``collect`` is called."""
        # A waiting thread gets the interpreter within 0.2 ms instead of 5.
        sys.setswitchinterval(2e-4)
        gc.collect()
        gc.freeze()
        gc.disable()
        self._thread.start()

    def stop(self) -> bool:
        """End the loop after its present tick; False when it hangs."""
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join(3.0)
        gc.enable()
        gc.unfreeze()
        return not self._thread.is_alive()

    @staticmethod
    def collect() -> None:
        """Collect young garbage; for a thread that is in no hurry."""
        gc.collect(1)

    def _run(self) -> None:
        self._ask_for_realtime()
        period = self._period_ns
        deadline = time.monotonic_ns() + period
        before = 0

        def pace() -> None:
            time.sleep(max(0, deadline - time.monotonic_ns()) * 1e-9)

        try:
            while not self._end.is_set():
                time.sleep(max(0, deadline - LEAD_NS - time.monotonic_ns()) * 1e-9)
                awake = time.monotonic_ns()
                late = (awake - deadline) // period
                if late > 0:
                    # What was missed is over: the next ticks do not come faster.
                    self.stats.miss(late)
                    deadline += late * period
                stamp = time.time_ns() - (time.monotonic_ns() - deadline)
                self._work(NowNs(deadline), StampNs(stamp), pace)
                if before:
                    self.stats.add(awake - before, time.monotonic_ns() - awake)
                before = awake
                deadline += period
        except Exception as err:
            self._crashed(err)

    def _ask_for_realtime(self) -> None:
        if not self._ask:
            return
        own = threading.get_native_id()
        try:
            os.sched_setscheduler(own, os.SCHED_FIFO, os.sched_param(PRIORITY))
            self.realtime = True
            for thread in set(map(int, os.listdir('/proc/self/task'))) - {own}:
                with contextlib.suppress(ProcessLookupError):   # it may have ended meanwhile
                    os.sched_setscheduler(thread, os.SCHED_FIFO,
                                          os.sched_param(COMPANION_PRIORITY))
        except (AttributeError, OSError) as err:
            self._tell(f'the control loop runs without SCHED_FIFO ({err}): expect more jitter; '
                       'grant an rtprio limit or run as root')
