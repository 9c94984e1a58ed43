"""
Repeat a recorded episode: on its robot, through the driver and the guard, or offline as topics.

On the robot the episode is one more source of ``command/teleop``: the mode says that it may
command, every stop brakes it, Ctrl-C ends it with the robot holding. What else teleoperates that
robot is switched off meanwhile.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ament_index_python.packages import get_package_share_directory
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mcap.reader import make_reader
from rclpy.node import Node

from mivla_bringup.errors import BringupError
from mivla_bringup.operate import STATES, RobotClient
from mivla_core.errors import MivlaError
from mivla_core.profile import RobotProfile, diff_profiles, parse_profile
from mivla_core.ros.qos import LATCHED, stream
from mivla_core.ros.spinning import Spinning
from mivla_core.timing import NS_PER_S
from mivla_msgs.msg import DriverState, ProfileText
from mivla_teleop.recording.metadata import bag_file
from mivla_teleop.recording.reader import EpisodeData, read_episode
from mivla_teleop.recording.schema import MessageSchemas
from mivla_teleop.ros.episode_source import EpisodeSource

__all__ = ['COMMANDS', 'motion', 'publish', 'repeat']

COMMANDS = ('applied', 'teleop', 'policy')
MOTIONLESS = (DriverState.STOPPED, DriverState.FAULT, DriverState.DISABLED)
DISCOVERY_S = 1.0


def motion(data: EpisodeData, commands: str) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the set-points to repeat: times [s] from the first one (N,) and positions (N, J).

    :param commands: whose: applied, teleop or policy.
    :raises BringupError: they were not recorded.
    """
    series = data.commands.get(commands)
    if series is None or len(series.stamps) < 2:
        raise BringupError(f'{data.path}: no commands of {commands} to repeat; recorded: '
                           f'{", ".join(data.commands) or "none"}')
    rows = np.concatenate(([True], np.diff(series.stamps) > 0))
    stamps = series.stamps[rows]
    return (stamps - stamps[0]) / NS_PER_S, series.position[rows]


def repeat(node: Node, robot: str, episode: Path, commands: str = 'applied', speed: float = 1.0,
           approach: float = 0.15, ask: Callable[[str], bool] = lambda text: True,
           say: Callable[[str], object] = print) -> None:
    """
    Repeat an episode on a running robot; ends with the robot holding, in mode idle.

    :param node: of a ``session``; the source gets a node of its own.
    :param ask: told what is about to move; False gives up.
    :raises BringupError: the robot is another one, is not ready, or stopped on the way.
    """
    client = RobotClient(node, robot)
    try:
        profile = _same_robot(node, robot, episode)
        data = read_episode(episode, profile.joint_names, [])
        times, positions = motion(data, commands)
        state = client.wait_state(lambda item: True, 3.0)
        if state.state != DriverState.HOLDING:
            raise BringupError(f'{robot} is {STATES[state.state]}; "mivla enable" first, and let '
                               'it hold')
        with _quiet(node, robot, say), _source(node, profile, robot, times, positions, approach,
                                               speed) as source:
            if not ask(f'{robot} goes slowly to where {episode.name} began and repeats it '
                       f'({times[-1] / speed:.1f} s, commands: {commands}, speed {speed:g})'):
                say('not repeated')
                return
            _watch(client, source, robot, say)
    finally:
        client.close()


def _watch(client: RobotClient, source: EpisodeSource, robot: str,
           say: Callable[[str], object]) -> None:
    """Hand the robot to the source until it is done; idle whatever happens."""
    client.set_mode('teleop')
    try:
        if not source.begun.wait(5.0):
            raise BringupError(f'{robot}: the driver did not begin to follow; see "mivla status"')
        plan = source.plan
        assert plan is not None
        say(f'{plan.approach_s:.1f} s to the start pose, {plan.duration:.1f} s in all')
        deadline = time.monotonic() + plan.duration + 5.0
        while not source.done.wait(0.05):
            state = client.state
            if state is not None and state.state in MOTIONLESS:
                raise BringupError(f'{robot} is {STATES[state.state]}: {state.detail}')
            if time.monotonic() > deadline:
                raise BringupError(f'{robot}: the episode did not end in time')
        state = client.state
        if state is not None and state.state in MOTIONLESS:
            raise BringupError(f'{robot} is {STATES[state.state]}: {state.detail}')
        say('repeated; the robot holds')
    finally:
        client.set_mode('idle')


def _same_robot(node: Node, robot: str, episode: Path) -> RobotProfile:
    """Return the running robot's profile; raises BringupError when the episode is of another."""
    heard: list[ProfileText] = []
    subscription = node.create_subscription(ProfileText, f'/{robot}/profile', heard.append,
                                            LATCHED)
    deadline = time.monotonic() + 3.0
    while not heard and time.monotonic() < deadline:
        time.sleep(0.02)
    node.destroy_subscription(subscription)
    if not heard:
        raise BringupError(f'{robot} does not tell its profile; is its driver running?')
    profile = parse_profile(heard[-1].text, f'the profile of {robot}')
    recorded = read_episode(episode, None, [])
    if recorded.profile_hash != profile.hash:
        theirs = parse_profile(recorded.profile_text, str(episode))
        raise BringupError(f'{episode} was recorded with another robot: '
                           f'{"; ".join(diff_profiles(profile, theirs)) or "hash differs"}')
    return profile


@contextmanager
def _source(node: Node, profile: RobotProfile, robot: str, times: np.ndarray,
            positions: np.ndarray, approach: float, speed: float) -> Iterator[EpisodeSource]:
    """Run the source in a thread of its own."""
    source = EpisodeSource(profile, times, positions, approach, speed, context=node.context,
                           namespace=robot)
    if not source.bring_up():
        raise BringupError(source.failure or 'the source did not come up')
    spinning = Spinning(source, context=node.context)
    try:
        yield source
    finally:
        source.bring_down()
        spinning.stop()
        source.destroy_node()


@contextmanager
def _quiet(node: Node, robot: str, say: Callable[[str], object]) -> Iterator[None]:
    """Switch off what else teleoperates the robot; on again afterwards."""
    time.sleep(DISCOVERY_S)
    others = sorted({item.node_name for item in node.get_publishers_info_by_topic(
        f'/{robot}/command/teleop')})
    stopped: list[str] = []
    try:
        for name in others:
            _transition(node, f'/{robot}/{name}', Transition.TRANSITION_DEACTIVATE)
            stopped.append(name)
            say(f'{name} is switched off meanwhile')
        yield
    finally:
        for name in stopped:
            _transition(node, f'/{robot}/{name}', Transition.TRANSITION_ACTIVATE)
            say(f'{name} is on again')


def _transition(node: Node, name: str, wanted: int) -> None:
    client = node.create_client(ChangeState, f'{name}/change_state')
    try:
        if not client.wait_for_service(3.0):
            raise BringupError(f'{name} publishes commands and cannot be switched off; end it')
        done = threading.Event()
        request = ChangeState.Request()
        request.transition.id = wanted
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(5.0) or not future.result().success:
            raise BringupError(f'{name} refused to change its state; see "mivla status"')
    finally:
        node.destroy_client(client)


def publish(node: Node, episode: Path, prefix: str, speed: float = 1.0,
            topics: Sequence[str] = (), say: Callable[[str], object] = print) -> int:
    """
    Publish what was recorded, byte for byte and in its rhythm, below a prefix.

    A topic whose message was defined otherwise then is left out, and said.

    :param prefix: put before every topic name, such as '/replay': never a live robot's topics.
    :param speed: of the playback, above 0.
    :param topics: only these; default: all.
    :return: messages published.
    :raises BringupError: nothing is left to publish.
    """
    if not prefix.startswith('/') or len(prefix) < 2:
        raise BringupError(f'prefix {prefix!r} must be a name such as /replay: without one the '
                           'recorded topics would meet those of a live robot')
    schemas = MessageSchemas(get_package_share_directory)
    publishers: dict[int, Any] = {}
    count = 0
    with open(bag_file(episode), 'rb') as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        if summary is None:
            raise BringupError(f'{episode} has no index; see "mivla episodes check"')
        for channel in summary.channels.values():
            schema = summary.schemas[channel.schema_id]
            if topics and channel.topic not in topics:
                continue
            if trouble := _differs(schemas, schema.name, schema.data.decode()):
                say(f'{channel.topic} is left out: {trouble}')
                continue
            package, _, name = schema.name.split('/')
            kind = getattr(importlib.import_module(f'{package}.msg'), name)
            publishers[channel.id] = node.create_publisher(kind, prefix + channel.topic,
                                                           stream(200.0))
        if not publishers:
            raise BringupError(f'{episode}: no topic is left to publish')
        time.sleep(DISCOVERY_S)
        begin, first = time.monotonic(), None
        for _, channel, message in reader.iter_messages():
            if channel.id not in publishers:
                continue
            first = message.log_time if first is None else first
            time.sleep(max(0.0, begin + (message.log_time - first) / NS_PER_S / speed
                           - time.monotonic()))
            publishers[channel.id].publish(message.data)
            count += 1
    for publisher in publishers.values():
        node.destroy_publisher(publisher)
    return count


def _differs(schemas: MessageSchemas, msgtype: str, recorded: str) -> str:
    """Return why today's readers would misread a recorded message; empty when they would not."""
    try:
        return '' if _fields(schemas.text(msgtype)) == _fields(recorded) else (
            f'{msgtype} was defined otherwise when it was recorded')
    except MivlaError as err:
        return str(err)


def _fields(text: str) -> list[str]:
    """Return a definition without comments and blanks: those do not change the bytes."""
    lines = (' '.join(line.split('#')[0].split()) for line in text.splitlines())
    return [line for line in lines if line]
