"""
A short-lived ROS node for the command line: own context, spun by a thread of its own.

    with session() as node:
        RobotClient(node, 'piper').stop('console', 'asked')
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

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
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), name='ros', daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown(timeout_sec=0.0)
        context.try_shutdown()
        thread.join(1.0)
        node.destroy_node()


def _spin(executor: SingleThreadedExecutor) -> None:
    while True:
        try:
            executor.spin()
            return
        except ExternalShutdownException:
            return    # the session is over
        except InvalidHandle:
            # Another thread destroyed a client or subscription while rclpy was building the list
            # of what to wait for; the next list is without it.
            continue


def robots_in_graph(node: Node) -> tuple[str, ...]:
    """Return the robots whose driver is known to this node by now."""
    return tuple(sorted(topic.removesuffix(_STATE_TOPIC).lstrip('/')
                        for topic, types in node.get_topic_names_and_types()
                        if _STATE_TYPE in types and topic.endswith(_STATE_TOPIC)))
