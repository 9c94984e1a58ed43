"""An emulated leader on a loopback bus, moved by a hand, and the node that reads it."""

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
from sensor_msgs.msg import JointState  # noqa: E402

from mivla_core.profile import load_profile  # noqa: E402
from mivla_core.ros.qos import stream  # noqa: E402
from mivla_core.ros.spinning import Spinning  # noqa: E402
from mivla_core.timing import StampNs  # noqa: E402
from mivla_drivers.can.loopback import INTERFACE  # noqa: E402
from mivla_drivers.ros.emulated_leader import EmulatedLeaderNode  # noqa: E402
from mivla_drivers.ros.leader_node import LeaderReaderNode  # noqa: E402
from mivla_msgs.msg import JointCommand  # noqa: E402

DOMAIN = 83


def until(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'timed out'
        time.sleep(0.005)
    return value


@pytest.mark.parametrize('robot', ['piper', 'arx5_x5', 'piper_dual'])
def test_what_the_hand_does_is_read_on_the_bus(robot: str, tmp_path: Any,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    profile, context = load_profile(robot), rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    bus = {'leader': robot, 'interface': INTERFACE, 'realtime_priority': 0,
           'channel': ','.join(f'test_{arm.name}_{os.getpid()}' for arm in profile.arms)}
    log = tmp_path / 'frames.npy'
    nodes: list[Any] = [cls(context=context, namespace='robot', parameter_overrides=[
        Parameter(name, value=value) for name, value in {**bus, **more}.items()])
        for cls, more in ((EmulatedLeaderNode, {'frame_log': str(log)}), (LeaderReaderNode, {}))]
    watcher = rclpy.create_node('watcher', namespace='robot', context=context)
    seen: list[JointState] = []
    watcher.create_subscription(JointState, 'leader/joint_states', seen.append, stream(500))
    hand = watcher.create_publisher(JointCommand, 'hand/target', stream(200))

    def now() -> Any:
        """Return the newest of every joint (J,); arms say theirs apart."""
        known = {name: value for message in seen[-50:]
                 for name, value in zip(message.name, message.position)}
        return np.array([known.get(name, np.nan) for name in profile.joint_names])

    spinning = [Spinning(node, context=context) for node in (*nodes, watcher)]
    try:
        assert all(node.bring_up() for node in nodes), [node.failure for node in nodes]
        until(lambda: np.isfinite(now()).all())
        np.testing.assert_allclose(now(), profile.home, atol=2e-3)
        goal = np.clip(profile.home + 0.05, profile.lower, profile.upper)
        command = JointCommand(name=list(profile.joint_names), position=array.array('d', goal))
        StampNs.wall().fill(command.header.stamp)
        until(hand.get_subscription_count)
        hand.publish(command)
        until(lambda: np.abs(now() - goal).max() < 2e-3)
        stamps = [StampNs.from_msg(message.header.stamp) for message in seen
                  if message.name[0] == profile.joint_names[0]]
        assert all(a <= b for a, b in zip(stamps, stamps[1:]))
        nodes.pop(0).bring_down()       # the cable is pulled
        until(lambda: StampNs.wall() - StampNs.from_msg(seen[-1].header.stamp) > 200_000_000)
        assert log.is_file()
    finally:
        for node in nodes:
            node.bring_down()
        for thread in spinning:
            thread.stop()
        for node in (*nodes, watcher):
            node.destroy_node()
        rclpy.try_shutdown(context=context)
