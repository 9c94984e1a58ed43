"""The scripted expert as a node, beside a driver and a world made of publishers."""

from __future__ import annotations

import array
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')
msgs = pytest.importorskip('mivla_msgs.msg', reason='mivla_msgs is not built or not sourced')
if not hasattr(msgs, 'JointCommand'):     # the source folder of the same name
    pytest.skip('mivla_msgs is not built or not sourced', allow_module_level=True)

import rclpy  # noqa: E402
from geometry_msgs.msg import Pose, PoseArray  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from mivla_core.kinematics import Chain  # noqa: E402
from mivla_core.profile import load_profile  # noqa: E402
from mivla_core.ros.qos import stream  # noqa: E402
from mivla_core.ros.spinning import Spinning  # noqa: E402
from mivla_core.timing import StampNs  # noqa: E402
from mivla_msgs.msg import JointCommand, SimState  # noqa: E402
from mivla_teleop.core.expert_motion import start_pose  # noqa: E402
from mivla_teleop.ros.expert_node import ExpertNode  # noqa: E402

PROFILE = load_profile('piper')
SEED = 100_123
TARGET = (0.33, 0.05, 0.06)


class Robot:
    """A driver that follows ``command/teleop`` at once, and a world with a bell."""

    def __init__(self, context: rclpy.Context) -> None:
        node = self.node = rclpy.create_node('robot', namespace='piper', context=context)
        self.states = node.create_publisher(JointState, 'joint_states', stream(200))
        self.applied = node.create_publisher(JointCommand, 'command/applied', stream(200))
        self.scene = node.create_publisher(SimState, 'sim/state', stream(20))
        self.places = node.create_publisher(PoseArray, 'sim/places', stream(20))
        node.create_subscription(JointCommand, 'command/teleop', self._on_command, stream(200))
        node.create_timer(0.005, self._publish)
        self.pose = PROFILE.home.copy()
        self.following = self.world = True
        self.commands: list[JointCommand] = []
        self._count = 0

    def _on_command(self, message: JointCommand) -> None:
        self.commands.append(message)
        if self.following:
            self.pose = np.array(message.position)

    def _publish(self) -> None:
        stamp = StampNs.wall()
        values = {'name': list(PROFILE.joint_names), 'position': array.array('d', self.pose)}
        for publisher, message in ((self.states, JointState(**values)),
                                   (self.applied, JointCommand(**values))):
            stamp.fill(message.header.stamp)
            publisher.publish(message)
        self._count += 1
        if self.world and self._count % 10 == 0:
            scene = SimState(task='click_bell', seed=SEED, level='easy')
            stamp.fill(scene.header.stamp)
            self.scene.publish(scene)
            bell = Pose()
            bell.position.x, bell.position.y, bell.position.z = TARGET
            self.places.publish(PoseArray(header=scene.header, poses=[bell]))


class Rig:
    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=10 + os.getpid() % 80)
        self.robot = Robot(self.context)
        self.expert = ExpertNode(
            context=self.context, namespace='piper', parameter_overrides=[
                Parameter('realtime_priority', value=0)])
        self.spinning = (Spinning(self.robot.node, context=self.context),
                         Spinning(self.expert, context=self.context, threads=3))
        assert self.expert.bring_up(), self.expert.failure
        self.clients = {name: self.robot.node.create_client(Trigger, f'expert/{name}')
                        for name in ('start', 'stop', 'prepare', 'perform')}
        assert all(client.wait_for_service(5.0) for client in self.clients.values())
        until(lambda: self.robot.scene.get_subscription_count())
        time.sleep(0.2)

    def ask(self, name: str) -> Any:
        return self.clients[name].call_async(Trigger.Request())

    def answer(self, name: str, timeout: float = 15.0) -> Trigger.Response:
        future = self.ask(name)
        until(future.done, timeout)
        return future.result()

    def close(self) -> None:
        self.expert.bring_down()
        for spinning in self.spinning:
            spinning.stop()
        self.expert.destroy_node()
        self.robot.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rig = Rig()
    yield rig
    rig.close()


def until(condition: Callable[[], Any], timeout: float = 5.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'timed out'
        time.sleep(0.005)
    return value


def test_a_whole_demonstration(rig: Rig) -> None:
    robot = rig.robot
    assert not robot.commands
    prepared = rig.answer('prepare')
    assert prepared.success and str(SEED) in prepared.message, prepared.message
    np.testing.assert_allclose(robot.pose, start_pose(PROFILE, SEED), atol=1e-6)
    performed = rig.answer('perform')
    assert performed.success, performed.message
    tip = Chain(PROFILE.kinematics).tip(robot.pose[:PROFILE.arm_joints])[:3, 3]
    assert np.linalg.norm(tip[:2] - TARGET[:2]) < 0.002 and tip[2] < TARGET[2] - 0.01
    # It goes on holding its last set-point.
    count = len(robot.commands)
    until(lambda: len(robot.commands) > count + 20)
    np.testing.assert_allclose(robot.commands[-1].velocity, 0.0)
    commands = robot.commands
    assert [c.sequence for c in commands] == list(range(1, len(commands) + 1))
    assert commands[0].source == JointCommand.SOURCE_TELEOP
    assert commands[0].profile_hash == PROFILE.hash and commands[0].chunk_id == 0
    stamps = np.array([StampNs.from_msg(c.header.stamp) for c in commands], dtype=np.int64)
    assert np.median(np.diff(stamps)) == pytest.approx(5e6, rel=0.2)
    velocity = np.abs([c.velocity for c in commands]).max(axis=0)
    assert (velocity <= PROFILE.velocity).all() and velocity.max() > 0.2
    assert rig.answer('stop').success
    time.sleep(0.05)
    count = len(robot.commands)
    time.sleep(0.1)
    assert len(robot.commands) == count


def test_start_holds_where_the_arm_is(rig: Rig) -> None:
    rig.robot.pose = PROFILE.home + 0.03
    time.sleep(0.05)
    assert rig.answer('start').success
    until(lambda: len(rig.robot.commands) > 10)
    np.testing.assert_allclose(rig.robot.commands[-1].position, PROFILE.home + 0.03)


def test_stop_interrupts_a_motion(rig: Rig) -> None:
    future = rig.ask('perform')
    until(lambda: rig.robot.commands)
    assert rig.answer('stop').success
    until(future.done)
    assert not future.result().success and 'stopped before its end' in future.result().message


def test_says_when_the_driver_does_not_follow(rig: Rig) -> None:
    rig.robot.following = False
    answer = rig.answer('prepare')
    assert not answer.success and 'mode teleop' in answer.message


def test_without_a_world_it_refuses(rig: Rig) -> None:
    rig.robot.world = False
    time.sleep(1.2)
    answer = rig.answer('perform')
    assert not answer.success and 'sim/state' in answer.message and not rig.robot.commands
