"""
Goals of the action ``policy/run``: one runs, at most one waits for its end.

A goal stays in the action state ACCEPTED while it runs and is executed when its result is known:
an execute callback that waits keeps rclpy's executor spinning. Feedback tells where it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node

from mivla_msgs.action import RunPolicy
from mivla_policy.core.session import Outcome

__all__ = ['GoalServer']

MAX_TIMEOUT_S = 86_400.0


class GoalServer:
    """The action's server; used in the executor's thread."""

    def __init__(self, node: Node, refuse: Callable[[RunPolicy.Goal], str],
                 begin: Callable[[RunPolicy.Goal], None],
                 cancel: Callable[[str], None]) -> None:
        """
        Offer the action.

        :param refuse: says what is wrong with a goal, in words; empty accepts it.
        :param begin: called when a goal's run is to begin.
        :param cancel: called with the reason when the run is to end; ``conclude`` must follow.
        """
        self._node, self._refuse, self._begin, self._cancel = node, refuse, begin, cancel
        self._current: Any = None
        self._next: Any = None
        self._server = ActionServer(
            node, RunPolicy, 'policy/run', execute_callback=_never_called,
            goal_callback=self._on_goal, handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel)

    def destroy(self) -> None:
        """Withdraw the action."""
        self._server.destroy()

    def feedback(self, elapsed_s: float, chunks: int, detail: str) -> None:
        """Tell the current goal's client where it stands."""
        if self._current is not None:
            self._current.publish_feedback(
                RunPolicy.Feedback(elapsed=elapsed_s, chunks=chunks, detail=detail))

    def conclude(self, outcome: Outcome, message: str, chunks: int) -> None:
        """End the current goal, if there is one, and begin the one that waits."""
        handle, self._current = self._current, None
        if handle is not None:
            self._end(handle, outcome, message, chunks)
        following, self._next = self._next, None
        if following is None:
            return
        if following.is_cancel_requested:
            self._end(following, Outcome.CANCELLED, 'cancelled before it began', 0)
            return
        self._current = following
        self._begin(following.request)

    def _on_goal(self, goal: RunPolicy.Goal) -> GoalResponse:
        problem = self._refuse(goal)
        if not (math.isfinite(goal.timeout) and 0.0 < goal.timeout <= MAX_TIMEOUT_S):
            problem = f'timeout {goal.timeout} s; expected more than 0, at most {MAX_TIMEOUT_S:g}'
        if problem:
            self._node.get_logger().warning(f'goal refused: {problem}')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: Any) -> None:
        if self._current is None:
            self._current = handle
            self._begin(handle.request)
            return
        if self._next is not None:
            self._end(self._next, Outcome.CANCELLED, 'replaced by a newer goal', 0)
        self._next = handle
        self._cancel('replaced by a newer goal')

    def _on_cancel(self, handle: Any) -> CancelResponse:
        # A goal that still waits for its predecessor is concluded when its turn comes.
        if self._current is not None and handle == self._current:
            self._cancel('cancelled')
        return CancelResponse.ACCEPT

    def _end(self, handle: Any, outcome: Outcome, message: str, chunks: int) -> None:
        self._node.get_logger().info(f'run ended, {outcome.name}: {message} ({chunks} chunks)')

        def result(goal: Any) -> RunPolicy.Result:
            if goal.is_cancel_requested:
                goal.canceled()
            elif outcome is Outcome.DONE:
                goal.succeed()
            else:
                goal.abort()
            return RunPolicy.Result(code=int(outcome), message=message, chunks=chunks)

        handle.execute(result)


def _never_called(goal: Any) -> RunPolicy.Result:
    raise AssertionError('goals are executed with the result of their run')
