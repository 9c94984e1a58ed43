"""The driver node on an ideal arm in memory: topics, services, stop, and how it goes down."""

from __future__ import annotations

import array
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'unit'))

import rclpy
from driver_rig import PROFILE, FakeArm
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from mivla_core.ros.qos import COMMAND, LATCHED, stream
from mivla_core.ros.spinning import Spinning
from mivla_core.timing import NowNs, StampNs
from mivla_drivers.core.port import DeviceInfo
from mivla_drivers.errors import DriverError
from mivla_drivers.ros import driver_node
from mivla_drivers.ros.driver_node import DriverNode
from mivla_msgs.msg import (
    DriverState,
    GuardStatus,
    JointCommand,
    ProfileText,
    Stop,
)
from mivla_msgs.srv import Disable, Enable, Home, Reset, SetMode, StopRobot

SERVICES = {'enable': Enable, 'disable': Disable, 'reset': Reset, 'home': Home,
            'set_mode': SetMode, 'stop': StopRobot}
START = PROFILE.home + [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02]


def until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'timed out'
        time.sleep(0.005)
    return value


class Bench:
    """A driver node, a node that uses it, and the executor of both."""

    def __init__(self, context: rclpy.Context) -> None:
        self.context = context
        self.arm = FakeArm(START)
        self.states: list[DriverState] = []
        self.guard: list[GuardStatus] = []
        self.applied: list[JointCommand] = []
        self.measured: list[JointState] = []
        self.user = rclpy.create_node('user', namespace='piper', context=context)
        listen = self.user.create_subscription
        listen(DriverState, 'driver/state', self.states.append, LATCHED)
        listen(GuardStatus, 'guard/status', self.guard.append, stream(10))
        listen(JointCommand, 'command/applied', self.applied.append, stream(200))
        listen(JointState, 'joint_states', self.measured.append, stream(200))
        self.clients = {name: self.user.create_client(kind, f'driver/{name}')
                        for name, kind in SERVICES.items()}
        self.policy = [self.user.create_publisher(JointCommand, 'command/policy', stream(200))
                       for _ in range(2)]
        self.stops = self.user.create_publisher(Stop, 'stop', COMMAND)
        self.node = DriverNode(context=context, namespace='piper', parameter_overrides=[
            Parameter('realtime', value=False), Parameter('connect_timeout', value=0.0)])
        self._spinning = Spinning(self.user, self.node, context=context, threads=4)
        self._sequence = [0, 0]

    def up(self) -> Bench:
        assert self.node.bring_up(), self.node.failure
        until(lambda: self.states)
        return self

    def call(self, name: str, timeout: float = 10.0, **fields: Any) -> Any:
        client = self.clients[name]
        assert client.wait_for_service(10.0)
        future = client.call_async(SERVICES[name].Request(**fields))
        until(future.done, timeout)
        return future.result()

    def send(self, position: np.ndarray, publisher: int = 0) -> None:
        self._sequence[publisher] += 1
        message = JointCommand(name=list(PROFILE.joint_names), profile_hash=PROFILE.hash,
                               source=JointCommand.SOURCE_POLICY, chunk_id=7,
                               sequence=self._sequence[publisher],
                               position=array.array('d', position),
                               velocity=array.array('d', [0.0] * 7))
        StampNs.wall().fill(message.header.stamp)
        self.policy[publisher].publish(message)

    def flow(self, goal: np.ndarray, condition: Callable[[], Any]) -> Any:
        """Stream a pose until something is so."""
        def step() -> Any:
            self.send(goal)
            return condition()
        return until(step)

    def count(self, kind: str) -> int:
        counts = self.guard[-1].verdicts if self.guard else ()
        return next((count.count for count in counts if count.name == kind), 0)

    def close(self) -> None:
        self.node.bring_down()
        self._spinning.stop()
        self.node.destroy_node()
        self.user.destroy_node()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=10 + os.getpid() % 80)
    made = Bench(context)
    monkeypatch.setattr(driver_node, 'make_backend', lambda *_: made.arm)
    yield made
    made.close()
    rclpy.try_shutdown(context=context)


def test_enable_engage_follow_stop_reset_and_what_is_published(bench: Bench) -> None:
    bench.up()
    assert bench.states[-1].state == DriverState.DISABLED and not bench.arm.written
    answer = bench.call('enable')
    assert answer.ok and 'holds' in answer.message
    assert bench.call('set_mode', mode=DriverState.MODE_POLICY).ok
    goal = START + [0.1, 0, 0, 0, 0, 0, 0]
    bench.flow(goal, lambda: bench.applied and abs(bench.applied[-1].position[0] - 0.1) < 1e-9)
    last = bench.applied[-1]
    assert (last.source, last.chunk_id) == (JointCommand.SOURCE_POLICY, 7)
    assert list(last.name) == list(PROFILE.joint_names) and last.profile_hash == PROFILE.hash
    assert np.allclose(last.position, goal)
    until(lambda: bench.measured and np.allclose(bench.measured[-1].position, goal))
    assert list(bench.measured[-1].name) == list(PROFILE.joint_names)
    bench.flow(goal, lambda: bench.count('passed') and bench.guard[-1].loop.ticks > 0)
    assert bench.guard[-1].loop.target_hz == PROFILE.rates.control
    assert list(bench.guard[-1].distance_to_target) == pytest.approx([0.0] * 7, abs=1e-6)

    bench.stops.publish(Stop(source='pedal', reason='test'))
    until(lambda: bench.states[-1].state == DriverState.STOPPED)
    assert bench.states[-1].detail == 'stopped: pedal: test' and bench.states[-1].powered
    assert bench.states[-1].mode == DriverState.MODE_IDLE
    answer = bench.call('set_mode', mode=DriverState.MODE_POLICY)
    assert not answer.ok and 'STOPPED' in answer.message
    assert bench.call('reset').ok
    until(lambda: bench.states[-1].state == DriverState.HOLDING)
    assert bench.call('home').ok
    until(lambda: np.allclose(bench.arm.position, PROFILE.home))
    answer = bench.call('disable')
    assert not answer.ok and 'fall' in answer.message
    assert bench.call('disable', force=True).ok and not bench.arm.powered


def test_the_rest_pose_is_gone_to_on_request_and_a_pose_of_no_name_is_not(bench: Bench) -> None:
    bench.up()
    assert bench.call('enable').ok
    answer = bench.call('home', pose=7)
    assert not answer.ok and 'pose 7 is neither' in answer.message
    assert np.allclose(bench.arm.position, START)
    assert bench.call('home', pose=Home.Request.REST).ok
    until(lambda: np.allclose(bench.arm.position, PROFILE.rest)
          and bench.states[-1].state == DriverState.HOLDING, 20.0)
    answer = bench.call('disable')
    assert answer.ok and 'falls' not in answer.message and not bench.arm.powered


def test_profile_and_description_are_latched(bench: Bench) -> None:
    texts: list[ProfileText] = []
    robots: list[String] = []
    bench.user.create_subscription(ProfileText, 'profile', texts.append, LATCHED)
    bench.user.create_subscription(String, 'robot_description', robots.append, LATCHED)
    until(lambda: texts and robots)
    assert texts[0].hash == PROFILE.hash and texts[0].text == PROFILE.text
    assert robots[0].data.startswith('<') and 'joint6' in robots[0].data


def test_a_second_publisher_is_refused_and_counted(bench: Bench) -> None:
    bench.up()
    bench.call('enable')
    bench.call('set_mode', mode=DriverState.MODE_POLICY)
    for _ in range(150):
        bench.send(START)
        time.sleep(0.002)
    until(lambda: bench.count('passed'))

    def both() -> int:
        bench.send(START)
        bench.send(START + [0.3, 0, 0, 0, 0, 0, 0], publisher=1)
        return bench.count('second_publisher')

    until(both)
    assert {tuple(q) for q in bench.arm.written} == {tuple(START)}


def test_stop_is_served_while_enable_still_waits(bench: Bench) -> None:
    bench.up()
    bench.arm.slow_torque = True
    waiting = bench.clients['enable'].call_async(Enable.Request())
    until(lambda: bench.arm.calls)
    begin = time.monotonic()
    assert bench.call('stop', reason='test').ok
    assert time.monotonic() - begin < 2.0
    until(waiting.done)
    assert not waiting.result().ok and 'stopped: test' in waiting.result().message


def test_going_down_in_mid_motion_brakes_holds_and_leaves_the_power_on(bench: Bench) -> None:
    bench.up()
    bench.call('enable')
    bench.call('set_mode', mode=DriverState.MODE_POLICY)
    goal = START + [1.0, 0, 0, 0, 0, 0, 0]
    bench.flow(goal, lambda: bench.arm.position[0] > 0.2)
    bench.node.trigger_deactivate()
    stopped = np.array(bench.arm.written)
    assert np.array_equal(stopped[-1], stopped[-2]) and stopped[-1][0] < 0.6
    steps = np.diff(stopped[:, 0])
    assert (steps >= 0.0).all() and 0.0 < steps[-3] < steps.max()
    assert bench.arm.powered and 'disable' not in bench.arm.calls
    until(lambda: bench.states[-1].state == DriverState.STOPPED)
    count = len(bench.arm.written)
    answer = bench.call('enable')
    assert not answer.ok and 'not active' in answer.message
    assert len(bench.arm.written) == count


def test_an_absent_device_is_a_refusal_in_one_line(bench: Bench,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(now: NowNs) -> DeviceInfo:
        raise DriverError('can0: no such device; plug it in')

    monkeypatch.setattr(bench.arm, 'connect', absent)
    assert not bench.node.bring_up()
    assert bench.node.failure == 'configure: can0: no such device; plug it in'


def test_a_bug_in_the_loop_ends_the_process_and_is_told(bench: Bench,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(driver_node.os, 'kill', lambda *words: killed.append(words))
    bench.up()

    def broken(now: NowNs) -> None:
        raise RuntimeError('a bug')

    monkeypatch.setattr(bench.arm, 'read', broken)
    until(lambda: killed)
    assert bench.node.crashed and killed[0][0] == os.getpid()
