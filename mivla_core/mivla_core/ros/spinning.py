"""Nodes that are spun beside the thread that made them."""

from __future__ import annotations

import threading
from typing import Optional

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node

__all__ = ['Spinning']


class Spinning:
    """
    A thread in which callbacks run until ``stop``; usable as a context.

    ``Executor.shutdown`` of Jazzy does not wait for the callback that runs: it takes the executor
    apart under it, and the next task that this one makes raises there. Here the callback returns
    first, and only then the executor goes down; destroy the nodes after that.
    """

    def __init__(self, *nodes: Node, context: Optional[Context] = None, threads: int = 1) -> None:
        """
        Begin to spin.

        :param context: of the nodes; None: the default one.
        :param threads: for callbacks. A pool costs each a hand-over, and ``stop`` cannot wait for
            it: more than one only where a callback waits for another.
        """
        self._executor: Executor = (
            SingleThreadedExecutor(context=context) if threads == 1
            else MultiThreadedExecutor(threads, context=context))
        for node in nodes:
            self._executor.add_node(node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, name='ros', daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Let the callback that runs return, and end; False where it did not in that time."""
        if not self._ended.is_set():
            self._ended.set()
            self._executor.create_task(lambda: None)    # wakes the thread
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._executor.shutdown(timeout_sec=timeout_s)
        return True

    def __enter__(self) -> Spinning:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spin(self) -> None:
        while not self._ended.is_set() and self._executor.context.ok():
            try:
                self._executor.spin_once()
            except InvalidHandle:
                # Another thread destroyed a client or subscription while rclpy was building the
                # list of what to wait for; the next list is without it.
                continue
            except Exception:
                if self._executor.context.ok():
                    raise
                return    # rclpy has several words for a context that ended meanwhile
