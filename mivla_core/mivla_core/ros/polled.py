"""
Subscriptions that nobody wakes up for: read when their content is needed.

A callback per message costs an rclpy process several per cent of a core at 200 Hz, most of it for
messages that a newer one replaces. Here the middleware keeps the newest few as serialized bytes,
and ``drain`` takes them out.
"""

from __future__ import annotations

import struct
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from mivla_core.timing import NS_PER_S, StampNs

__all__ = ['PolledSubscription', 'stamp_of']

_LITTLE, _BIG = struct.Struct('<iI'), struct.Struct('>iI')


def stamp_of(serialized: bytes) -> StampNs:
    """
    Read the header stamp of a serialized message whose first field is a std_msgs/Header.

    Four bytes of encapsulation (the second tells the byte order), then sec and nanosec.
    """
    sec, nanosec = (_LITTLE if serialized[1] & 1 else _BIG).unpack_from(serialized, 4)
    return StampNs(sec * NS_PER_S + nanosec)


class _NeverReady(CallbackGroup):
    """A group whose entities the executor leaves alone."""

    def can_execute(self, entity: Any) -> bool:
        """Return False: the executor does not wait for it."""
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Return False: there is nothing to begin."""
        return False

    def ending_execution(self, entity: Any) -> None:
        """Do nothing."""


class PolledSubscription:
    """A best-effort subscription of the newest ``depth`` messages, read by ``drain``."""

    def __init__(self, node: Node, message_type: Any, topic: str, depth: int) -> None:
        self._node, self._type = node, message_type
        self._group = _NeverReady()
        self._subscription = node.create_subscription(
            message_type, topic, _unused,
            QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth,
                       reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=self._group, raw=True)

    def drain(self) -> list[bytes]:
        """Take what has arrived since the last call, serialized, oldest first."""
        return [serialized for serialized, _ in self.drain_numbered()]

    def drain_numbered(self) -> list[tuple[bytes, int]]:
        """Do as ``drain``, with each message's publication sequence number."""
        out = []
        handle = self._subscription.handle
        with handle:
            while (taken := handle.take_message(self._type, True)) is not None:
                out.append((taken[0], int(taken[1]['publication_sequence_number'])))
        return out

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)


def _unused(message: Any) -> None:
    """Stand in for a callback: the executor never calls it."""
