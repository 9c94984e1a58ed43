"""
The one lifecycle idiom of the suite.

A node implements ``setup`` (connect, allocate), ``start`` (begin to publish), ``halt`` (the
opposite of start) and ``teardown`` (release everything; idempotent, never raises). This base turns
them into lifecycle transitions, logs what went wrong (rclpy on Jazzy swallows an exception in a
transition callback without a word), and brings the node up by itself when ``autostart`` is set.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from typing import Any, Callable, Optional

import rclpy
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from mivla_core.errors import MivlaError

__all__ = ['ManagedNode', 'run_node']


class ManagedNode(LifecycleNode):
    """Lifecycle node with a shared teardown and honest error reports."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.failure: Optional[str] = None
        self.broken = False    # set by a node that cannot go on: ``run_node`` ends with code 1
        self.autostart: bool = self.declare_parameter('autostart', True).value

    def setup(self) -> None:
        """Connect and allocate (unconfigured -> inactive); raises MivlaError to refuse."""

    def start(self) -> None:
        """Begin to work (inactive -> active)."""

    def halt(self) -> None:
        """Stop working (active -> inactive); the opposite of ``start``."""

    def teardown(self) -> None:
        """Release everything that ``setup`` took; idempotent."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``setup``; on refusal tear down and stay unconfigured."""
        if self._guarded('configure', self.setup):
            return TransitionCallbackReturn.SUCCESS
        self._guarded('teardown', self.teardown)
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Enable the lifecycle publishers, then run ``start``."""
        super().on_activate(state)
        if self._guarded('activate', self.start):
            return TransitionCallbackReturn.SUCCESS
        return TransitionCallbackReturn.FAILURE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``halt``, then disable the lifecycle publishers."""
        ok = self._guarded('deactivate', self.halt)
        super().on_deactivate(state)
        return TransitionCallbackReturn.SUCCESS if ok else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``teardown``."""
        self._guarded('teardown', self.teardown)
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Run ``halt`` where it is active, then ``teardown``."""
        if state.label == 'active':
            self._guarded('deactivate', self.halt)
        self._guarded('teardown', self.teardown)
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Tear down and return to unconfigured."""
        self._guarded('teardown', self.teardown)
        return TransitionCallbackReturn.SUCCESS

    def bring_up(self) -> bool:
        """Configure and activate; returns False, with ``failure`` set, when either refuses."""
        for step in (self.trigger_configure, self.trigger_activate):
            if step() != TransitionCallbackReturn.SUCCESS:
                return False
        return True

    def bring_down(self) -> None:
        """Shut down from whichever state the node is in."""
        self._guarded('shutdown', self.trigger_shutdown)

    def _guarded(self, step: str, action: Callable[[], Any]) -> bool:
        try:
            action()
            return True
        except MivlaError as err:
            self.failure = f'{step}: {err}'
            self.get_logger().error(self.failure)
        except Exception as err:  # a bug: rclpy on Jazzy would drop it silently
            self.failure = f'{step}: {type(err).__name__}: {err}'
            self.get_logger().fatal(f'{step} failed\n{traceback.format_exc()}')
        return False


def run_node(make: Callable[[], ManagedNode], args: Optional[list[str]] = None,
             threads: int = 1, nice: int = 0) -> int:
    """
    Run one managed node until Ctrl-C or SIGTERM, then bring it down; returns the exit code.

    The exit code is 0 after a clean end and 1 when the node refused to come up (the reason is the
    last line on standard error). The signals only end the spinning: ``halt`` and ``teardown`` run
    in the main thread with ROS still alive, so a last state can be published.

    :param threads: executor threads; services that must be answered while a callback works need
        a callback group of their own and a thread to run in.
    :param nice: scheduling priority to ask for, -20 (urgent) to 19, before any thread starts. A
        refusal is no error: the node works as well, until the machine is so busy that it waits.
    """
    if nice:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    ended: list[int] = []

    def end(signum: int, _frame: Any) -> None:
        ended.append(signum)
        executor.wake()

    # A pool costs each callback a hand-over between threads: take one only where it is needed.
    executor: Executor = (SingleThreadedExecutor() if threads == 1
                          else MultiThreadedExecutor(num_threads=threads))
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, end)
    code = 0
    node: Optional[ManagedNode] = None
    try:
        node = make()
        executor.add_node(node)
        if node.autostart and not ended and not node.bring_up():
            print(f'{node.get_name()}: {node.failure}', file=sys.stderr, flush=True)
            code = 1
        while code == 0 and not ended and rclpy.ok():
            executor.spin_once(timeout_sec=0.25)
            if node.broken:
                print(f'{node.get_name()}: {node.failure}', file=sys.stderr, flush=True)
                code = 1
    except MivlaError as err:
        print(str(err), file=sys.stderr, flush=True)
        code = 1
    except (ExternalShutdownException, KeyboardInterrupt):
        pass
    finally:
        if node is not None:
            node.bring_down()
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
        rclpy.try_shutdown()
    return code
