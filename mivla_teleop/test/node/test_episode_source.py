"""A recorded episode as a command source, beside a driver made of publishers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')
msgs = pytest.importorskip('mivla_msgs.msg', reason='mivla_msgs is not built or not sourced')
if not hasattr(msgs, 'JointCommand'):     # the source folder of the same name
    pytest.skip('mivla_msgs is not built or not sourced', allow_module_level=True)

import rclpy  # noqa: E402

from mivla_core.profile import load_profile  # noqa: E402
from mivla_core.ros.qos import LATCHED, stream  # noqa: E402
from mivla_core.ros.spinning import Spinning  # noqa: E402
from mivla_msgs.msg import DriverState, JointCommand  # noqa: E402
from mivla_teleop.core.episode_plan import PlanError  # noqa: E402
from mivla_teleop.ros.episode_source import EpisodeSource  # noqa: E402

PROFILE = load_profile('piper')
TIMES = np.arange(100) * 0.01
POSITIONS = PROFILE.home + np.outer(0.1 * np.sin(3.0 * TIMES), np.eye(len(PROFILE.home))[0])


class Driver:
    """Applies what comes and says so, as a driver whose guard never limits."""

    def __init__(self, context: rclpy.Context) -> None:
        self.node = rclpy.create_node('driver', namespace='piper', context=context)
        self.commands: list[np.ndarray] = []
        self.pose = PROFILE.home + 0.05
        self._state = self.node.create_publisher(DriverState, 'driver/state', LATCHED)
        self._applied = self.node.create_publisher(JointCommand, 'command/applied', stream(200))
        self.node.create_subscription(JointCommand, 'command/teleop', self._take, stream(200))
        self.node.create_timer(0.005, self._tick)

    def say(self, mode: int, state: int = DriverState.HOLDING) -> None:
        """Publish a state."""
        self._state.publish(DriverState(robot='piper', mode=mode, state=state))

    def _take(self, message: JointCommand) -> None:
        assert message.source == JointCommand.SOURCE_TELEOP
        assert message.profile_hash == PROFILE.hash
        self.pose = np.array(message.position)
        self.commands.append(self.pose)

    def _tick(self) -> None:
        message = JointCommand(name=list(PROFILE.joint_names), position=self.pose.tolist())
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._applied.publish(message)


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[rclpy.Context]:
    """Return a ROS context in a domain of its own."""
    monkeypatch.setenv('ROS_DOMAIN_ID', str(60 + os.getpid() % 40))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.try_shutdown(context=context)


def test_it_waits_for_the_mode_goes_to_the_start_and_repeats(context: rclpy.Context) -> None:
    driver = Driver(context)
    source = EpisodeSource(PROFILE, TIMES, POSITIONS, 0.5, 1.0, context=context,
                           namespace='piper')
    spinning = Spinning(driver.node, source, context=context, threads=2)
    try:
        assert source.bring_up(), source.failure
        driver.say(DriverState.MODE_IDLE)
        time.sleep(0.5)
        assert not driver.commands and not source.begun.is_set()
        driver.say(DriverState.MODE_TELEOP)
        assert source.done.wait(30.0) and source.plan is not None
        driver.say(DriverState.MODE_IDLE)
        commands = np.array(driver.commands)
        assert commands[0] == pytest.approx(PROFILE.home + 0.05, abs=1e-3)    # from where it is
        assert commands[-1] == pytest.approx(POSITIONS[-1], abs=2e-3)
        nearest = np.abs(commands[:, 0] - (PROFILE.home[0] + 0.1)).min()
        assert nearest < 2e-3                                    # the crest of the recorded wave
        step = np.abs(np.diff(commands, axis=0)).max(axis=0)
        assert (step <= PROFILE.velocity * 0.1).all()            # nowhere a jump
    finally:
        source.bring_down()
        spinning.stop()
        source.destroy_node()
        driver.node.destroy_node()


def test_what_cannot_be_played_is_refused_before_anything_moves(context: rclpy.Context) -> None:
    with pytest.raises(PlanError, match='at most 1'):
        EpisodeSource(PROFILE, TIMES, POSITIONS, 0.15, 3.0, context=context, namespace='piper')
