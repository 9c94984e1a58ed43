"""
Stop every robot that can be found: needs no profile, no supervisor and no configuration.

A stop message goes to every topic of type Stop, and every driver's stop service is called, as soon
as either is discovered; repeated until the drivers have confirmed or the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node

from mivla_core.ros.qos import COMMAND
from mivla_msgs.msg import Stop
from mivla_msgs.srv import StopRobot

__all__ = ['StopReport', 'stop_all']

_STOP_TYPE = 'mivla_msgs/msg/Stop'
_SERVICE_TYPE = 'mivla_msgs/srv/StopRobot'
_REPEAT = 0.2     # s between repeated messages
_SETTLE = 1.0     # s to look for further robots after the first has confirmed


@dataclass
class StopReport:
    """
    What a stop achieved.

    :param topics: stop topics that a message was published on.
    :param drivers: stop service to the driver's answer; None: no answer yet.
    :param refused: stop services that answered, but did not confirm.
    """

    topics: list[str] = field(default_factory=list)
    drivers: dict[str, str | None] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    @property
    def confirmed(self) -> bool:
        """Whether at least one driver was found and every one found has confirmed."""
        return bool(self.drivers) and not self.refused and None not in self.drivers.values()


class _Stopper:
    """Publishers and clients of one stop, made as robots are discovered."""

    def __init__(self, node: Node, robots: Sequence[str], source: str, reason: str) -> None:
        self._node = node
        self._robots = robots
        self._source = source
        self._reason = reason
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}
        self.report = StopReport()
        for robot in robots:    # named robots are not waited for
            self._add_topic(f'/{robot}/stop')
            self._add_service(f'/{robot}/driver/stop')

    def look(self) -> None:
        """Add what the graph shows by now."""
        for name, types in self._node.get_topic_names_and_types():
            if _STOP_TYPE in types and self._wanted(name):
                self._add_topic(name)
        for name, types in self._node.get_service_names_and_types():
            if _SERVICE_TYPE in types and self._wanted(name):
                self._add_service(name)

    def publish(self) -> None:
        """Publish a stop on every known topic."""
        message = Stop(source=self._source, reason=self._reason)
        message.header.stamp = self._node.get_clock().now().to_msg()
        for publisher in self._publishers.values():
            publisher.publish(message)

    def call(self) -> None:
        """Call the services that are there, collect the answers that have come."""
        for name, client in self._clients.items():
            future = self._asked.get(name)
            if future is None and client.service_is_ready():
                self.report.drivers.setdefault(name, None)
                self._asked[name] = client.call_async(StopRobot.Request(reason=self._reason))
            elif future is not None and future.done() and self.report.drivers[name] is None:
                answer = future.result()
                self.report.drivers[name] = answer.message
                if not answer.ok:
                    self.report.refused.append(name)

    def _wanted(self, name: str) -> bool:
        return not self._robots or name.split('/')[1] in self._robots

    def _add_topic(self, name: str) -> None:
        if name not in self._publishers:
            self._publishers[name] = self._node.create_publisher(Stop, name, COMMAND)
            self.report.topics.append(name)

    def _add_service(self, name: str) -> None:
        if name not in self._clients:
            self._clients[name] = self._node.create_client(StopRobot, name)


def stop_all(node: Node, robots: Sequence[str], source: str, reason: str,
             timeout: float = 4.0) -> StopReport:
    """
    Stop robots, all or the named ones.

    :param robots: () for all that can be found.
    :param timeout: s after which unanswered services are given up.
    """
    stopper = _Stopper(node, robots, source, reason)
    started = time.monotonic()
    published = float('-inf')
    topics = 0
    while (now := time.monotonic()) - started < timeout:
        stopper.look()
        if now - published > _REPEAT or len(stopper.report.topics) > topics:
            stopper.publish()
            published, topics = now, len(stopper.report.topics)
        stopper.call()
        enough = len(stopper.report.drivers) >= len(robots) > 0 or now - started > _SETTLE
        if stopper.report.confirmed and enough:
            break
        time.sleep(0.01)
    return stopper.report
