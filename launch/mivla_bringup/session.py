"""
A short-lived ROS node for the command line: own context, spun by a thread of its own.

    with session() as node:
        RobotClient(node, 'piper').stop('console', 'asked')
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from mivla_core.ros.spinning import Spinning

__all__ = ['adopt', 'robots_in_graph', 'session']

_STATE_TYPE = 'mivla_msgs/msg/DriverState'
_STATE_TOPIC = '/driver/state'


def adopt(environment: Mapping[str, str]) -> None:
    """Take over the discovery settings of a stack, so that this process sees its graph."""
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_STATIC_PEERS'):
        if name in environment:
            os.environ[name] = environment[name]
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')


@contextmanager
def session(name: str = 'mivla') -> Iterator[Node]:
    """Give a node that is being spun; everything is taken down at the end of the block."""
    adopt({})
    context = Context()
    # Signals stay with Python: Ctrl-C must end a command at once.
    # No words of our own command line: 'sim:=true' would be taken for a remapping.
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f'{name}_{os.getpid()}', context=context, enable_rosout=False,
                             start_parameter_services=False)
    spinning = Spinning(node, context=context)
    try:
        yield node
    finally:
        spinning.stop()
        context.try_shutdown()
        node.destroy_node()


def robots_in_graph(node: Node) -> tuple[str, ...]:
    """Return the robots whose driver is known to this node by now."""
    return tuple(sorted(topic.removesuffix(_STATE_TOPIC).lstrip('/')
                        for topic, types in node.get_topic_names_and_types()
                        if _STATE_TYPE in types and topic.endswith(_STATE_TOPIC)))
