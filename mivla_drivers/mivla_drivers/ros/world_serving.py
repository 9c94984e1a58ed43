"""The two threads of a simulated world's process: its loop, and ROS beside it."""

from __future__ import annotations

import signal
import sys
from typing import Protocol

from rclpy.node import Node

from mivla_core.realtime import ask_fifo
from mivla_core.ros.spinning import Spinning

__all__ = ['ServedLoop', 'serve_world']

_PRIORITY = 40


class ServedLoop(Protocol):
    """
    A world that keeps to the clock.

    :ivar stopping: set from outside: ``run`` returns soon.
    """

    stopping: bool

    @property
    def lost_s(self) -> float:
        """Wall time that the world did not follow [s]."""
        ...

    def run(self) -> None:
        """Tick until ``stopping`` is set."""
        ...


def serve_world(node: Node, loop: ServedLoop, realtime: bool) -> None:
    """
    Run the loop in this thread, and what the node has to say in another, until a signal comes.

    :param realtime: ask for SCHED_FIFO.
    """
    def stop(_signum: int, _frame: object) -> None:
        loop.stopping = True

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    # A long turn of the other thread would make this one late by the default 5 ms.
    sys.setswitchinterval(0.0002)
    refused = ask_fifo(_PRIORITY) if realtime else ''
    if refused:
        node.get_logger().warning(f'SCHED_FIFO refused: the emulated robot may answer late: '
                                  f'{refused}')
    # Begun after that, it has the same priority: a thread that is put aside while it holds the
    # interpreter stops the world with it.
    with Spinning(node):
        loop.run()
    if loop.lost_s > 0.0:
        node.get_logger().warning(f'{loop.lost_s:.3f} s of wall time were not simulated: the '
                                  'machine is too slow')
