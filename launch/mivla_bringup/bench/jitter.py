"""
``bench jitter``: intervals of the joint frames at the bus, against a bare loop beside them.

The whole stack runs, with the policy commanding. The times are those at which the emulated device
received the frames. A bare 200 Hz loop of the same real-time priority runs in a process of its own
at the same time; five paired blocks are compared, because a virtual machine's own lateness must
not be charged to the driver.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mivla_bringup.bench.graph import JOINT_FRAMES, bench_stack, load_frames, run_policy_mode
from mivla_bringup.bench.result import Metric, Result
from mivla_bringup.demo import demo_checkpoint
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_core.profile import load_profile
from mivla_drivers.ros.driver_node import PRIORITY

__all__ = ['run']

BLOCKS = 5


def run(seconds: float, domain: str) -> Result:
    """Measure five blocks of ``seconds``."""
    rate = load_profile('piper').rates.control
    with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
        folder = Path(text)
        log, bare = folder / 'frames.npy', folder / 'bare.npy'
        stack = bench_stack(str(demo_checkpoint()), domain, folder / 'bags',
                            {'world': {'frame_log': str(log)}})

        def job(rig: Rig) -> tuple[list[tuple[int, int]], int]:
            run_policy_mode(rig)
            process = subprocess.Popen([sys.executable, '-m', 'mivla_bringup.bench.bare_loop',
                                        str(rate), str(PRIORITY), str(bare)])
            try:
                rig.pause(2.0)
                blocks = []
                missed = int(rig.newest('guard/status').loop.missed)
                for number in range(BLOCKS):
                    print(f'block {number + 1} of {BLOCKS}: {seconds:g} s', flush=True)
                    begin = time.monotonic_ns()
                    rig.pause(seconds)
                    blocks.append((begin, time.monotonic_ns()))
                missed = int(rig.newest('guard/status').loop.missed) - missed
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(10.0)
            return blocks, missed

        (blocks, missed), _ = with_stack(stack, job, on_event=warnings_to())
        frames, stamps = load_frames(log, JOINT_FRAMES), np.load(bare, allow_pickle=False)
    return _result(blocks, missed, frames, stamps, 1e3 / rate)


def _result(blocks: list[tuple[int, int]], missed: int, frames: np.ndarray, bare: np.ndarray,
            period_ms: float) -> Result:
    ours, theirs = ([_intervals(times, block) for block in blocks] for times in (frames, bare))
    excess = [float(np.percentile(a, 99) - np.percentile(b, 99)) for a, b in zip(ours, theirs)]
    deviation = np.abs(np.concatenate(ours) - period_ms)
    return Result(
        'jitter', int(sum(map(len, ours))),
        {'excess_p99_ms': Metric(float(np.median(excess)), 'ms', '<=1'),
         'deviation_p99_ms': Metric(float(np.percentile(deviation, 99)), 'ms'),
         'missed_ticks': Metric(float(missed), '', '=0')},
        {'driver at the bus': (np.concatenate(ours).tolist(), 'ms'),
         'bare loop': (np.concatenate(theirs).tolist(), 'ms')},
        {'excess_p99_ms_by_block': excess, 'seconds_per_block':
         [(end - begin) * 1e-9 for begin, end in blocks]},
        [f'median of {len(blocks)} paired differences of p99; a missed tick is a control period '
         'in which the driver did not run'])


def _intervals(times: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    inside = times[(times >= block[0]) & (times < block[1])]
    return np.diff(inside) * 1e-6
