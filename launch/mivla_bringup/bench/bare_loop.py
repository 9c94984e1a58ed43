"""
A bare periodic loop, to know what this machine can do at all: what the driver is judged against.

    python -m mivla_bringup.bench.bare_loop RATE_HZ PRIORITY FILE

Runs until SIGTERM or SIGINT, then writes the wake-up times (CLOCK_MONOTONIC [ns], .npy).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

MAX_TICKS = 4_000_000


def main() -> int:
    """Run the loop; returns the exit code."""
    rate, priority, path = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    stamps = np.zeros(MAX_TICKS, dtype=np.int64)
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as err:
        print(f'bare loop: SCHED_FIFO refused: {err}', file=sys.stderr, flush=True)
    gc.disable()
    period = round(1e9 / rate)
    due, count = time.monotonic_ns() + period, 0
    while running and count < MAX_TICKS:
        left = due - time.monotonic_ns()
        if left > 0:
            time.sleep(left * 1e-9)
        stamps[count] = time.monotonic_ns()
        count += 1
        due += period
    with path.open('wb') as file:
        np.save(file, stamps[:count], allow_pickle=False)
    return 0


if __name__ == '__main__':
    sys.exit(main())
