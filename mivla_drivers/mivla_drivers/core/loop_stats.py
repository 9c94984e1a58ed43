"""Interval statistics of a control loop, in fixed memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ['LoopStats', 'LoopSummary']


@dataclass(frozen=True)
class LoopSummary:
    """
    Statistics of the last window; intervals and times in seconds, NaN before the first.

    :param ticks: since the start.
    :param missed: periods that passed without a tick, since the start.
    """

    ticks: int
    missed: int
    p50: float
    p95: float
    p99: float
    max: float
    busy_p99: float


class LoopStats:
    """
    Ring buffers of the last ``window`` intervals and working times.

    One thread adds, any thread may summarize: a value that is written meanwhile belongs to the
    window before or after.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError(f'window {window} must be positive')
        self._intervals = np.full(window, np.nan)
        self._busy = np.full(window, np.nan)
        self._ticks = 0
        self._missed = 0

    def add(self, interval_ns: int, busy_ns: int) -> None:
        """Add one tick: the time since the tick before, and the work inside it [ns]."""
        slot = self._ticks % len(self._intervals)
        self._intervals[slot] = interval_ns * 1e-9
        self._busy[slot] = busy_ns * 1e-9
        self._ticks += 1

    def miss(self, periods: int) -> None:
        """Count periods that passed without a tick."""
        self._missed += periods

    def summary(self) -> LoopSummary:
        """Summarize the window."""
        filled = min(self._ticks, len(self._intervals))
        if not filled:
            nan = float('nan')
            return LoopSummary(0, self._missed, nan, nan, nan, nan, nan)
        p50, p95, p99, top = np.percentile(self._intervals[:filled], (50, 95, 99, 100))
        return LoopSummary(self._ticks, self._missed, float(p50), float(p95), float(p99),
                           float(top), float(np.percentile(self._busy[:filled], 99)))
