"""
``bench latency``: from the stamp of the oldest picture to the first bus frame of its chunk.

Two cameras 640x480 at 30 Hz, a request on every set of frames, a policy plug-in that computes for
1 ms. Taken off is the model's forward pass alone: rendering, encoding, queues, decoding and
scaling count. A chunk's first bus frame is the first joint frame that the emulated device received
at or after the tick that first applied a set-point of that chunk.
"""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mivla_bringup.bench.graph import JOINT_FRAMES, bench_stack, load_frames, run_policy_mode
from mivla_bringup.bench.result import Metric, Result, percentiles
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_core.ros.qos import stream
from mivla_core.timing import StampNs
from mivla_msgs.msg import ActionChunk, JointCommand

__all__ = ['run']


@dataclass(frozen=True)
class _Tick:
    """The tick that first applied a chunk; ROS times [ns]."""

    observation: int
    stamp: int


def run(seconds: float, domain: str) -> Result:
    """Measure for ``seconds``; 30 chunks a second."""
    with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
        folder = Path(text)
        log = folder / 'frames.npy'
        stack = bench_stack('constant_time', domain, folder / 'bags', {
            'world': {'frame_log': str(log)},
            'policy_runner': {'request_on_frame': True},
            'policy_server': {'policy_parameters': ['sway=0.2']},
        }, camera_width=640, camera_height=480, camera_fps=30.0)
        # ROS stamps are wall time, the frame log is monotonic; both were read on this machine.
        offset = time.time_ns() - time.monotonic_ns()
        ticks: dict[int, _Tick] = {}
        forward: dict[int, float] = {}

        def job(rig: Rig) -> None:
            run_policy_mode(rig)
            lock = threading.Lock()

            def applied(message: JointCommand) -> None:
                if message.chunk_id and message.chunk_id not in ticks:
                    with lock:
                        ticks[message.chunk_id] = _Tick(
                            int(StampNs.from_msg(message.observation_stamp)),
                            int(StampNs.from_msg(message.header.stamp)))

            def chunk(message: ActionChunk) -> None:
                if message.code == ActionChunk.OK:
                    forward[message.chunk_id] = message.forward_seconds

            rig.node.create_subscription(JointCommand, f'/{rig.robot}/command/applied', applied,
                                         stream(200))
            rig.node.create_subscription(ActionChunk, '/policy_server/chunk', chunk, stream(60))
            rig.pause(seconds)

        with_stack(stack, job, on_event=warnings_to())
        frames = load_frames(log, JOINT_FRAMES) + offset
    return _result(ticks, forward, frames)


def _result(ticks: dict[int, _Tick], forward: dict[int, float], frames: np.ndarray) -> Result:
    overhead, total = [], []
    for chunk_id, tick in sorted(ticks.items()):
        if chunk_id not in forward:
            continue
        index = int(np.searchsorted(frames, tick.stamp))
        if index == len(frames):
            continue
        seconds = (int(frames[index]) - tick.observation) * 1e-9
        total.append(seconds * 1e3)
        overhead.append((seconds - forward[chunk_id]) * 1e3)
    row = percentiles(overhead)
    return Result(
        'latency', len(overhead),
        {'overhead_p50_ms': Metric(row['p50'], 'ms', '<20'),
         'overhead_p99_ms': Metric(row['p99'], 'ms', '<40')},
        {'overhead': (overhead, 'ms'), 'with forward pass': (total, 'ms')}, {},
        ['simulated cameras: the stamp is taken before rendering, so two renderings on the CPU '
         'count as overhead', f'{len(ticks)} chunks were applied'])
