"""The recorder as a process, beside a robot made of publishers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')
msgs = pytest.importorskip('mivla_msgs.msg', reason='mivla_msgs is not built or not sourced')
if not hasattr(msgs, 'JointCommand'):     # the source folder of the same name
    pytest.skip('mivla_msgs is not built or not sourced', allow_module_level=True)

import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from mivla_core.profile import load_profile  # noqa: E402
from mivla_core.ros.qos import LATCHED, stream  # noqa: E402
from mivla_core.ros.spinning import Spinning  # noqa: E402
from mivla_msgs.msg import (  # noqa: E402
    DriverState,
    JointCommand,
    ProfileText,
    RecorderStatus,
)
from mivla_msgs.srv import FinishEpisode, StartEpisode  # noqa: E402
from mivla_teleop.recording.reader import read_episode  # noqa: E402
from mivla_teleop.recording.store import EpisodeStore  # noqa: E402
from mivla_teleop.ros.recorder_node import RecorderNode  # noqa: E402

DOMAIN = str(60 + os.getpid() % 40)
ENV = {**os.environ, 'ROS_DOMAIN_ID': DOMAIN, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
       'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
PROFILE = load_profile('piper')


class Robot:
    """Publishes what a robot would; counts what it sent."""

    def __init__(self, context: rclpy.Context) -> None:
        self.node = rclpy.create_node('robot', namespace='piper', context=context)
        self.sent = {'joint_states': 0, 'command/applied': 0, 'camera': 0}
        self.cameras_on = True
        self._states = self.node.create_publisher(JointState, 'joint_states', stream(200))
        self._applied = self.node.create_publisher(JointCommand, 'command/applied', stream(200))
        # One camera offers best effort only: the recorder must adapt to it.
        qos = [stream(30), QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)]
        self._cameras = [self.node.create_publisher(
            CompressedImage, f'{camera.role}/image_raw/compressed', qos[k % 2])
            for k, camera in enumerate(PROFILE.cameras)]
        self._infos = [self.node.create_publisher(CameraInfo, f'{camera.role}/camera_info',
                                                  stream(30)) for camera in PROFILE.cameras]
        self._driver = self.node.create_publisher(DriverState, 'driver/state', LATCHED)
        self._profile = self.node.create_publisher(ProfileText, 'profile', LATCHED)
        self._profile.publish(ProfileText(name='piper', hash=PROFILE.hash, text=PROFILE.text))
        self._driver.publish(DriverState(robot='piper', detail='said once, before the episode'))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop publishing."""
        self._ended.set()
        self._thread.join()
        self.node.destroy_node()

    def _run(self) -> None:
        tick = 0
        due = time.monotonic()
        jpeg = os.urandom(20_000)
        while not self._ended.is_set():
            stamp = self.node.get_clock().now().to_msg()
            state = JointState(name=list(PROFILE.joint_names),
                               position=(PROFILE.home + 1e-4).tolist())
            command = JointCommand(name=list(PROFILE.joint_names), sequence=tick + 1,
                                   position=PROFILE.home.tolist(), profile_hash=PROFILE.hash)
            state.header.stamp = command.header.stamp = stamp
            self._states.publish(state)
            self._applied.publish(command)
            self.sent['joint_states'] += 1
            self.sent['command/applied'] += 1
            if tick % 7 == 0 and self.cameras_on:
                for camera, info in zip(self._cameras, self._infos, strict=True):
                    image = CompressedImage(format='jpeg', data=jpeg)
                    image.header.stamp = stamp
                    camera.publish(image)
                    info.publish(CameraInfo())
                self.sent['camera'] += 1
            tick += 1
            due += 0.005
            time.sleep(max(0.0, due - time.monotonic()))


class Operator:
    """Calls the recorder's services and hears its status."""

    def __init__(self, context: rclpy.Context) -> None:
        self.node = rclpy.create_node('operator', namespace='piper', context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self.statuses: list[RecorderStatus] = []
        self.node.create_subscription(RecorderStatus, 'recorder/status', self.statuses.append,
                                      LATCHED)
        self._start = self.node.create_client(StartEpisode, 'recorder/start_episode')
        self._finish = self.node.create_client(FinishEpisode, 'recorder/finish_episode')
        self._triggers = {name: self.node.create_client(Trigger, f'recorder/{name}')
                          for name in ('undo_discard', 'discard_last', 'start_or_save')}

    def wait(self, condition: Any, what: str, timeout: float = 20.0) -> None:
        """Spin until ``condition()``."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f'{what} did not happen in {timeout} s'
            self._executor.spin_once(timeout_sec=0.05)

    def _call(self, client: Any, request: Any) -> Any:
        self.wait(client.service_is_ready, f'service {client.srv_name}')
        future = client.call_async(request)
        self.wait(future.done, f'answer of {client.srv_name}')
        return future.result()

    def start(self, **fields: str) -> StartEpisode.Response:
        """Ask for an episode."""
        return self._call(self._start, StartEpisode.Request(**{
            'task': 'click_bell', 'instruction': 'press the bell', 'operator_name': 'test',
            'metadata': 'seed: 5', **fields}))

    def meet(self, recorder: Recorder) -> None:
        """
        Wait until a new recorder is heard.

        A killed one stays in discovery for a while, so that its services look ready.
        """
        def heard() -> bool:
            return any(status.header.stamp.sec * 10**9 + status.header.stamp.nanosec
                       > recorder.started for status in self.statuses)

        self.wait(lambda: heard() or recorder.process.poll() is not None, 'a status')
        assert recorder.process.poll() is None, recorder.process.stderr.read()
        self.pause(0.3)

    def start_when_ready(self) -> StartEpisode.Response:
        """Ask until discovery is through."""
        deadline = time.monotonic() + 20.0
        while not (answer := self.start()).ok:
            assert time.monotonic() < deadline, answer.message
            self.pause(0.3)
        return answer

    def finish(self, outcome: int = 0, note: str = '') -> FinishEpisode.Response:
        """Finish the episode."""
        return self._call(self._finish, FinishEpisode.Request(outcome=outcome, note=note))

    def trigger(self, name: str) -> Trigger.Response:
        """Call one of the services without arguments."""
        return self._call(self._triggers[name], Trigger.Request())

    def pause(self, seconds: float) -> None:
        """Spin for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        """Leave."""
        self._executor.shutdown()
        self.node.destroy_node()


class Recorder:
    """The recorder's process."""

    def __init__(self, root: Path, *parameters: str, shared_memory: bool = True) -> None:
        # A process that is stopped may hold a lock in Fast DDS's shared memory, which
        # delays its peers; with UDP alone it delays nobody.
        env = ENV if shared_memory else {**ENV, 'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'}
        self.started = time.time_ns()
        arguments = [f'root:={root}', 'shortest:=0.5', 'rate_share:=0.5', *parameters]
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'mivla_teleop.ros.recorder_node', '--ros-args', '-r',
             '__ns:=/piper', *(word for item in arguments for word in ('-p', item))],
            env=env, stderr=subprocess.PIPE, text=True)

    def end(self, how: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(how)
        return self.process.wait(20)


@pytest.fixture(scope='module')
def context() -> Iterator[rclpy.Context]:
    """Return a ROS context in a domain of its own."""
    saved = {key: os.environ.get(key) for key in ('ROS_DOMAIN_ID',
                                                  'ROS_AUTOMATIC_DISCOVERY_RANGE')}
    os.environ.update({key: ENV[key] for key in saved})
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.try_shutdown(context=context)
    for key, value in saved.items():
        os.environ.pop(key) if value is None else os.environ.update({key: value})


@pytest.fixture(scope='module')
def robot(context: rclpy.Context) -> Iterator[Robot]:
    """Return a robot that publishes during the whole module."""
    robot = Robot(context)
    yield robot
    robot.close()


@pytest.fixture
def operator(context: rclpy.Context) -> Iterator[Operator]:
    """Return an operator."""
    operator = Operator(context)
    yield operator
    operator.close()


@pytest.fixture
def recorders() -> Iterator[list[Recorder]]:
    """Collect recorders, to end them whatever happens."""
    started: list[Recorder] = []
    yield started
    for recorder in started:
        if recorder.process.poll() is None:
            recorder.process.kill()
            recorder.process.wait(10)


def test_an_episode_through_the_graph(tmp_path: Path, robot: Robot, operator: Operator,
                                      recorders: list[Recorder]) -> None:
    recorders.append(Recorder(tmp_path))
    operator.meet(recorders[0])
    answer = operator.start_when_ready()
    assert Path(answer.episode) == tmp_path / 'click_bell' / 'episode_000001'
    assert operator.start().message.startswith('an episode is being recorded')
    before = dict(robot.sent)
    operator.pause(2.0)
    sent = {key: robot.sent[key] - before[key] for key in before}
    done = operator.finish(note='well done')
    assert done.ok and not done.rejected and list(done.reasons) == [], done.reasons
    data = read_episode(done.episode)
    assert (data.outcome, data.verdict, data.metadata['note']) == (
        'success', 'accepted', 'well done')
    assert data.profile_hash == PROFILE.hash and data.joint_names == PROFILE.joint_names
    assert data.metadata['operator'] == 'test' and data.extra == 'seed: 5'
    # every message between start and finish is there, once and in order
    numbers = data.commands['applied'].sequence.astype(np.int64)
    assert (np.diff(numbers) == 1).all() and len(numbers) >= sent['command/applied']
    assert len(data.joint_states.stamps) >= sent['joint_states']
    assert set(data.cameras) == {camera.role for camera in PROFILE.cameras}
    for series in data.cameras.values():
        assert len(series.jpeg) >= sent['camera'] - 1 and len(series.jpeg[0]) == 20_000
    assert EpisodeStore(tmp_path).episodes()[0].lost == 0
    # what was said once, before the episode, belongs to it
    from rosbags.highlevel import AnyReader
    with AnyReader([Path(done.episode)]) as reader:
        counts = {item.topic: item.msgcount for item in reader.connections}
        assert counts['/piper/driver/state'] == counts['/piper/profile'] == 1
        assert reader.duration < 10e9
        assert all(item.digest for item in reader.connections if item.msgcount)
    operator.wait(lambda: operator.statuses[-1].state == RecorderStatus.IDLE, 'status idle')
    assert operator.statuses[-1].episodes == 1 and 'accepted' in operator.statuses[-1].detail
    assert any(item.state == RecorderStatus.RECORDING for item in operator.statuses)
    assert not operator.finish().ok

    # discarded: kept, hidden
    assert operator.start().ok
    operator.pause(0.3)
    gone = operator.finish(outcome=FinishEpisode.Request.DISCARD)
    assert gone.ok and Path(gone.episode).name == '.discarded-000002'
    assert len(EpisodeStore(tmp_path).episodes()) == 1

    # bad requests start nothing
    for fields, word in (({'task': '../x'}, 'cannot name a folder'),
                         ({'metadata': '['}, 'not YAML')):
        refused = operator.start(**fields)
        assert not refused.ok and word in refused.message

    # a camera that fell silent is named
    robot.cameras_on = False
    try:
        operator.pause(1.0)
        refused = operator.start()
        assert not refused.ok
        for camera in PROFILE.cameras:
            assert f'/piper/{camera.role}/image_raw/compressed is silent' in refused.message
        assert 'joint_states' not in refused.message
    finally:
        robot.cameras_on = True

    # SIGTERM while recording: closed and marked, nothing lost
    operator.pause(0.5)
    assert operator.start_when_ready().ok
    operator.pause(0.7)
    assert recorders[0].end(signal.SIGTERM) == 0
    last = EpisodeStore(tmp_path).episodes()[-1]
    assert (last.state, last.verdict, last.lost) == ('interrupted', 'rejected', 0)
    assert last.messages > 200 and not EpisodeStore(tmp_path).unfinished()


def test_kill_disk_full_and_recovery(tmp_path: Path, robot: Robot, operator: Operator,
                                     recorders: list[Recorder]) -> None:
    recorders.append(Recorder(tmp_path))
    operator.meet(recorders[0])
    operator.start_when_ready()
    operator.pause(2.5)
    recorders[0].end(signal.SIGKILL)
    assert len(EpisodeStore(tmp_path).unfinished()) == 1
    recorders.append(Recorder(tmp_path))
    operator.meet(recorders[1])
    first = EpisodeStore(tmp_path).episodes()[0]
    assert first.state == 'repaired' and first.duration > 1.0 and first.lost == 0
    assert recorders[1].end(signal.SIGINT) == 0
    # a floor above what is free: refused, and said so
    recorders.append(Recorder(tmp_path, 'free_floor_mb:=1000000000'))
    operator.meet(recorders[2])
    deadline = time.monotonic() + 20.0
    while 'must be' not in (message := operator.start().message):
        assert time.monotonic() < deadline, message
        operator.pause(0.3)
    assert recorders[2].end(signal.SIGINT) == 0
    assert len(EpisodeStore(tmp_path).episodes()) == 1


def test_absent_topics_are_listed(tmp_path: Path, robot: Robot, operator: Operator,
                                  recorders: list[Recorder]) -> None:
    recorders.append(Recorder(tmp_path, "required:=['joint_states','command/policy']"))
    operator.meet(recorders[0])
    operator.pause(1.0)
    refused = operator.start()
    assert not refused.ok and '/piper/command/policy has no publisher' in refused.message
    recorders.append(Recorder(tmp_path, "required:=['telepathy']"))
    assert recorders[1].process.wait(20) == 1
    assert "['telepathy'] are not recorded" in recorders[1].process.stderr.read()


def test_a_disk_that_fills_closes_the_episode(tmp_path: Path, context: rclpy.Context,
                                              robot: Robot, operator: Operator) -> None:
    left = [10**12]
    node = RecorderNode(
        free=lambda _: left[0], context=context, namespace='piper', parameter_overrides=[
            Parameter('root', value=str(tmp_path)), Parameter('shortest', value=0.1)])
    assert node.bring_up(), node.failure
    spinning = Spinning(node, context=context)
    try:
        operator.start_when_ready()
        operator.pause(1.0)
        left[0] = 511_000_000
        operator.wait(lambda: operator.statuses and operator.statuses[-1].state
                      == RecorderStatus.FAULT, 'status fault')
        assert 'disk full: 511 MB left' in operator.statuses[-1].detail
        episode = EpisodeStore(tmp_path).episodes()[0]
        assert (episode.state, episode.verdict, episode.outcome) == (
            'disk_full', 'rejected', 'unknown')
        assert episode.messages > 200
        late = operator.finish()
        assert not late.ok and 'disk full' in late.message and 'episode_000001' in late.message
        refused = operator.start()
        assert not refused.ok and '511 MB free' in refused.message
        left[0] = 10**12
        assert operator.start().ok and operator.finish().ok
    finally:
        spinning.stop()
        node.bring_down()
        node.destroy_node()


def test_real_losses_are_counted_exactly(tmp_path: Path, robot: Robot, operator: Operator,
                                         recorders: list[Recorder]) -> None:
    """A recorder that stands still longer than its queues hold loses messages, and says so."""
    recorders.append(Recorder(tmp_path, shared_memory=False))
    operator.meet(recorders[0])
    operator.start_when_ready()
    operator.pause(0.5)
    recorders[0].process.send_signal(signal.SIGSTOP)
    try:
        operator.pause(3.5)
    finally:
        recorders[0].process.send_signal(signal.SIGCONT)
    operator.pause(1.0)
    done = operator.finish()
    assert done.ok and done.rejected
    data = read_episode(done.episode)
    numbers = data.commands['applied'].sequence.astype(np.int64)
    missing = int(numbers[-1] - numbers[0] + 1 - len(numbers))
    reported = json.loads(data.metadata['loss'])['/piper/command/applied']
    assert missing > 0 and reported['lost'] == missing
    assert reported['received'] == len(numbers) and reported['publishers'] == 1
    assert f'/piper/command/applied: {missing} messages lost' in done.reasons
    operator.wait(lambda: operator.statuses[-1].state == RecorderStatus.IDLE, 'status idle')
    counted = {item.topic: item.lost for item in operator.statuses[-1].topics}
    assert counted['/piper/command/applied'] == missing


def test_after_the_end_an_episode_can_be_discarded_brought_back_and_renamed(
        tmp_path: Path, robot: Robot, operator: Operator, recorders: list[Recorder]) -> None:
    recorders.append(Recorder(tmp_path, 'target:=1'))
    operator.meet(recorders[0])
    first = operator.trigger('start_or_save')
    assert not first.success and 'start the first one' in first.message
    operator.start_when_ready()
    operator.pause(1.0)
    done = operator.finish(note='first try')
    # The robot of this test stands still: a hint, no reason; and the target is reached.
    assert done.ok and not done.rejected and 'look at it: the robot did not move' in done.message
    assert done.message.endswith('1 good episodes: the 1 that were wanted are there')
    record = EpisodeStore(tmp_path).episodes()[0]
    assert record.note == 'first try' and 'the robot did not move' in record.hints
    assert record.start_pose == pytest.approx((PROFILE.home + 1e-4).tolist(), abs=1e-6)
    assert operator.trigger('discard_last').success and not EpisodeStore(tmp_path).episodes()
    again = operator.trigger('discard_last')
    assert not again.success and 'no finished episode' in again.message
    back = operator.trigger('undo_discard')
    assert back.success and 'episode_000001 is back as success' in back.message
    renamed = operator.finish(FinishEpisode.Request.FAILURE, 'slipped')
    assert renamed.ok and 'is called failure; 0 of 1 good episodes' in renamed.message
    record = EpisodeStore(tmp_path).episodes()[0]
    assert (record.outcome, record.note) == ('failure', 'slipped')
    refused = operator.finish()
    assert not refused.ok and 'no episode is being recorded' in refused.message
    operator.wait(lambda: 'is called failure' in operator.statuses[-1].detail, 'status')
    status = operator.statuses[-1]
    assert (status.task, status.good, status.target) == ('click_bell', 0, 1)
    # One button: it begins another like the first, and saves it.
    begun = operator.trigger('start_or_save')
    assert begun.success and begun.message == 'recording episode_000002'
    operator.pause(1.2)
    saved = operator.trigger('start_or_save')
    assert saved.success and 'success, accepted' in saved.message
    record = EpisodeStore(tmp_path).episodes()[1]
    assert (record.outcome, record.instruction, record.operator) == (
        'success', 'press the bell', 'test')
