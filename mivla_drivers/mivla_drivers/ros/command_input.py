"""Commands of one source on their way from the middleware into the controller."""

from __future__ import annotations

from mivla_core.ros.polled import PolledSubscription
from mivla_core.timing import NowNs, StampNs
from rclpy.node import Node
from rclpy.serialization import deserialize_message

from mivla_drivers.core.controller import Controller
from mivla_drivers.core.setpoint import Command, Source
from mivla_msgs.msg import JointCommand

__all__ = ['CommandInput']

# Commands that may wait for one control tick; more than that is a burst, of which the newest count.
DEPTH = 8
_SOURCES = {source.value: source for source in Source}


class CommandInput:
    """
    Reads a command topic inside the control tick, so that no callback competes with it.

    rclpy does not tell who published a message, only its number in that publisher's own count. A
    number that does not follow the last one therefore counts as another publisher, until the
    source is engaged anew.
    """

    def __init__(self, node: Node, topic: str, controller: Controller) -> None:
        self._subscription = PolledSubscription(node, JointCommand, topic, DEPTH)
        self._controller = controller
        self._number = 0
        self._publisher = 0

    def drain(self, now: NowNs, stamp: StampNs) -> None:
        """Submit what has arrived; ``now`` and ``stamp`` are the instant of this call."""
        for serialized, number in self._subscription.drain_numbered():
            if number <= self._number:
                self._publisher += 1
            self._number = number
            message = deserialize_message(serialized, JointCommand)
            self._controller.submit(_command(message, self._publisher), now, stamp)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._subscription.destroy()


def _command(message: JointCommand, publisher: int) -> Command:
    return Command(
        source=_SOURCES.get(message.source, Source.NONE),
        stamp=StampNs.from_msg(message.header.stamp), names=tuple(message.name),
        position=tuple(message.position), profile_hash=message.profile_hash,
        velocity=tuple(message.velocity), sequence=message.sequence,
        observation_stamp=StampNs.from_msg(message.observation_stamp),
        chunk_id=message.chunk_id, publisher=publisher.to_bytes(8, 'big'))
