"""
Raw subscriptions that no executor touches, emptied in batches by one thread.

An rclpy executor rebuilds its wait set for every message it delivers, which costs more than the
message. A recorder need not react to a message: the middleware queues two seconds of each topic
and stamps each message at its reception. So the taps' subscriptions are never ready for an
executor, and a thread takes everything that has come 50 times a second while an episode is
recorded and 5 times a second otherwise.
"""

from __future__ import annotations

import importlib
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from mivla_core.ros.qos import recorded
from mivla_core.timing import monotonic_now, seconds
from mivla_teleop.recording.plan import PlannedTopic
from mivla_teleop.recording.session import Session, Taken

__all__ = ['Taps', 'offered_qos', 'type_hash']

BUSY_PERIOD = 0.02     # s between two takes while recording
IDLE_PERIOD = 0.2      # s otherwise; far below the two seconds that the queues hold
DISCOVERY_PERIOD = 1.0


class _Untouched(CallbackGroup):
    """A callback group whose entities an executor never finds ready."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        """Nothing begins, so nothing ends."""


class Taps:
    """
    The subscriptions of a recorder and the thread that empties them into a session.

    :param names: absolute topic name of each planned topic.
    """

    def __init__(self, node: Node, plan: Sequence[PlannedTopic], names: Sequence[str],
                 session: Session) -> None:
        self._node = node
        self._plan = tuple(plan)
        self._names = tuple(names)
        self._session = session
        self._group = _Untouched()
        self._types = [_message_class(topic.msgtype) for topic in plan]
        self._qos = [_wanted_qos(topic, []) for topic in plan]
        self._subscriptions = [self._subscribe(index) for index in range(len(plan))]
        self._offers: list[list[TopicEndpointInfo]] = [[] for _ in plan]
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name='taps', daemon=True)
        self._drained = monotonic_now()
        self._longest_pause = 0
        self.failure = ''

    def open(self) -> None:
        """Start the thread."""
        self.discover()
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and drop the subscriptions; idempotent."""
        self._ended = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def wake(self) -> None:
        """Let the thread notice at once that recording began."""
        self._wake.set()

    def drain(self) -> None:
        """Hand everything that has come to the session."""
        with self._session.lock:
            now = monotonic_now()
            self._longest_pause = max(self._longest_pause, now - self._drained)
            self._drained = now
            for index, subscription in enumerate(self._subscriptions):
                self._session.receive(index, _take(subscription, self._types[index]), now)

    def longest_pause(self) -> float:
        """
        Return the longest time between two takes since the last call [s].

        A loss with a pause of more than a publisher's depth is this host's fault, one without is
        the transport's.
        """
        longest, self._longest_pause = self._longest_pause, 0
        return seconds(longest)

    def offers(self) -> list[list[TopicEndpointInfo]]:
        """Return the publishers of each topic, as last discovered."""
        return self._offers

    def discover(self) -> None:
        """
        Ask who publishes; while idle, also subscribe anew where the offered QoS asks for it.

        A reliable subscription hears nothing from a best-effort publisher, a latched one nothing
        from a volatile one.
        """
        with self._session.lock:
            for index, name in enumerate(self._names):
                offers = self._node.get_publishers_info_by_topic(name)
                self._offers[index] = offers
                self._session.discovered(index, [bytes(item.endpoint_gid) for item in offers])
                wanted = _wanted_qos(self._plan[index], offers)
                if wanted != self._qos[index] and not self._session.recording:
                    self._node.get_logger().info(
                        f'{name}: listening {wanted.reliability.name.lower()}, '
                        f'{wanted.durability.name.lower()}, as offered')
                    old, self._qos[index] = self._subscriptions[index], wanted
                    self._subscriptions[index] = self._subscribe(index)
                    self._node.destroy_subscription(old)

    def _subscribe(self, index: int) -> Subscription:
        return self._node.create_subscription(
            self._types[index], self._names[index], _never, self._qos[index], raw=True,
            callback_group=self._group)

    def _run(self) -> None:
        next_discovery = time.monotonic() + DISCOVERY_PERIOD
        try:
            while not self._ended:
                self._wake.wait(BUSY_PERIOD if self._session.recording else IDLE_PERIOD)
                if self._ended:
                    return
                self._wake.clear()
                self.drain()
                if time.monotonic() >= next_discovery:
                    self.discover()
                    next_discovery = time.monotonic() + DISCOVERY_PERIOD
        except Exception:  # the node looks at it and closes the episode, marked
            self.failure = traceback.format_exc(limit=-3)


def _never(message: bytes, info: dict[str, Any]) -> None:
    raise AssertionError('the executor must not deliver what the taps take themselves')


def _take(subscription: Subscription, msgtype: Any) -> list[Taken]:
    """Take what has come; at most two queues full, so that it ends."""
    taken = []
    handle = subscription.handle
    with handle:     # it may not be destroyed meanwhile
        for _ in range(2 * subscription.qos_profile.depth):
            item = handle.take_message(msgtype, True)
            if item is None:
                break
            data, info = item
            # Other middlewares may leave the reception stamp out.
            taken.append(Taken(data, info['source_timestamp'],
                               info['received_timestamp'] or time.time_ns(),
                               info['publication_sequence_number'] or 0))
    return taken


def _message_class(msgtype: str) -> Any:
    package, _, name = msgtype.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name)


def _wanted_qos(topic: PlannedTopic, offers: Sequence[TopicEndpointInfo]) -> QoSProfile:
    """Return the most demanding QoS that every publisher offers; without one, the planned."""
    qos = recorded(topic.rate)
    offered = [item.qos_profile for item in offers]
    if any(item.reliability == ReliabilityPolicy.BEST_EFFORT for item in offered):
        qos.reliability = ReliabilityPolicy.BEST_EFFORT
    if topic.latched and all(item.durability == DurabilityPolicy.TRANSIENT_LOCAL
                             for item in offered):
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    else:
        qos.durability = DurabilityPolicy.VOLATILE
    return qos


def offered_qos(offers: Sequence[TopicEndpointInfo]) -> tuple[dict[str, Any], ...]:
    """Return offered QoS as rosbag2 writes it."""
    return tuple({
        'history': item.qos_profile.history.name.lower(),
        'depth': item.qos_profile.depth,
        'reliability': item.qos_profile.reliability.name.lower(),
        'durability': item.qos_profile.durability.name.lower(),
        'deadline': _duration(item.qos_profile.deadline),
        'lifespan': _duration(item.qos_profile.lifespan),
        'liveliness': item.qos_profile.liveliness.name.lower(),
        'liveliness_lease_duration': _duration(item.qos_profile.liveliness_lease_duration),
        'avoid_ros_namespace_conventions': item.qos_profile.avoid_ros_namespace_conventions,
    } for item in offers)


def type_hash(offers: Sequence[TopicEndpointInfo]) -> str:
    """Return the RIHS01 hash that the publishers announce; empty without one."""
    for item in offers:
        text = str(item.topic_type_hash)
        if text.startswith('RIHS01_'):
            return text
    return ''


def _duration(value: Any) -> dict[str, int]:
    sec, nsec = divmod(value.nanoseconds, 1_000_000_000)
    return {'sec': sec, 'nsec': nsec}
