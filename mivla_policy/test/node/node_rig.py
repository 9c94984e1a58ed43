"""Nodes in a graph of their own, and a robot without a runner that asks the policy server."""

from __future__ import annotations

import array
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')
msgs = pytest.importorskip('mivla_msgs.msg', reason='mivla_msgs is not built or not sourced')
if not hasattr(msgs, 'JointCommand'):     # the source folder of the same name
    pytest.skip('mivla_msgs is not built or not sourced', allow_module_level=True)

import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from mivla_core.images import encode_jpeg  # noqa: E402
from mivla_core.profile import load_profile  # noqa: E402
from mivla_core.ros.qos import COMMAND  # noqa: E402
from mivla_core.ros.spinning import Spinning  # noqa: E402
from mivla_msgs.msg import ActionChunk, CameraImage, PolicyRequest  # noqa: E402

PROFILE = load_profile('piper')
JPEG = encode_jpeg(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
POSE = PROFILE.home + 0.01


class Graph:
    """A context of its own; everything is spun in one background thread per node."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=10 + os.getpid() % 80)
        self._spinning: list[Spinning] = []
        self.nodes: list[Any] = []

    def spin(self, node: Any) -> Any:
        self._spinning.append(Spinning(node, context=self.context))
        self.nodes.append(node)
        return node

    def close(self) -> None:
        # As run_node does: nobody spins any more when a node goes down.
        for spinning in self._spinning:
            spinning.stop()
        for node in self.nodes:
            if hasattr(node, 'bring_down'):
                node.bring_down()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)


def until(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    """Wait; the time is of use only where what is waited for never comes."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'timed out'
        time.sleep(0.005)
    return value


def up(graph: Graph, kind: type, **parameters: Any) -> Any:
    node = kind(context=graph.context, namespace=parameters.pop('namespace', ''),
                parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])
    assert node.bring_up(), node.failure
    return graph.spin(node)


def request_message(request_id: int, **changes: Any) -> PolicyRequest:
    message = PolicyRequest(
        robot='piper', request_id=request_id, profile_hash=PROFILE.hash,
        instruction='press the bell', joint_names=list(PROFILE.joint_names),
        state=array.array('d', POSE), prefix_dt=float('nan'))
    message.header.stamp.sec = 1000 + request_id
    for camera in PROFILE.cameras:
        image = CompressedImage(format='jpeg', data=array.array('B', JPEG))
        image.header.stamp.sec = 1000 + request_id
        message.images.append(CameraImage(role=camera.role, image=image))
    for key, value in changes.items():
        setattr(message, key, value)
    return message


class Asker:
    """A robot without a runner."""

    def __init__(self, graph: Graph) -> None:
        self.node = rclpy.create_node('asker', context=graph.context)
        self.answers: dict[int, ActionChunk] = {}
        self.publisher = self.node.create_publisher(PolicyRequest, '/policy_server/request',
                                                    COMMAND)
        self.node.create_subscription(ActionChunk, '/policy_server/chunk', self._on_chunk, COMMAND)
        graph.spin(self.node)
        until(lambda: self.publisher.get_subscription_count() and
              self.node.count_publishers('/policy_server/chunk'))
        time.sleep(0.1)

    def _on_chunk(self, chunk: ActionChunk) -> None:
        self.answers[chunk.request_id] = chunk

    def ask(self, message: PolicyRequest) -> ActionChunk:
        self.publisher.publish(message)
        return until(lambda: self.answers.get(message.request_id))
