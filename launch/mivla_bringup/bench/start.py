"""``bench start``: a second ``mivla up`` to the first command of a real chunk."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from mivla_bringup.bench.graph import bench_stack, run_policy_mode
from mivla_bringup.bench.result import Metric, Result
from mivla_bringup.demo import demo_checkpoint
from mivla_bringup.errors import BringupError
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_core.ros.qos import stream
from mivla_msgs.msg import JointCommand

__all__ = ['run']

STARTS = 3


def run(seconds: float, domain: str) -> Result:
    """Start the stack once to warm the caches, then three times; each at most ``seconds``."""
    del seconds    # the bounds of the bring-up itself hold
    times = []
    for number in range(STARTS + 1):
        with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
            times.append(_start(Path(text), domain))
        print(f'start {number} of {STARTS}: {times[-1]:.1f} s'
              f'{" (warms up, not counted)" if number == 0 else ""}', flush=True)
    counted = times[1:]
    return Result('start', len(counted), {'start_s': Metric(sorted(counted)[len(counted) // 2],
                                                            's', '<15')},
                  {'start': (counted, 's')}, {'first': times[0]},
                  ['median of the counted starts; enabling, homing (the arm starts in its rest '
                   'pose) and the first forward pass are included'])


def _start(folder: Path, domain: str) -> float:
    begun = time.monotonic()
    stack = bench_stack(str(demo_checkpoint()), domain, folder, {}, record=True)

    def job(rig: Rig) -> float:
        commanded = threading.Event()

        def applied(message: JointCommand) -> None:
            if message.chunk_id:
                commanded.set()

        rig.node.create_subscription(JointCommand, f'/{rig.robot}/command/applied', applied,
                                     stream(200))
        run_policy_mode(rig)
        if not commanded.wait(20.0):
            raise BringupError('no command of a chunk reached the bus within 20 s')
        return time.monotonic() - begun

    taken, _ = with_stack(stack, job, on_event=warnings_to())
    return taken
