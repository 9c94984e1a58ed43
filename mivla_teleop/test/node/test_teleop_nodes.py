"""Leader and headset as nodes, beside a driver made of publishers; the emulated leader's bus."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')
msgs = pytest.importorskip('mivla_msgs.msg', reason='mivla_msgs is not built or not sourced')
if not hasattr(msgs, 'HandTracking'):     # the source folder of the same name, or an old build
    pytest.skip('mivla_msgs is not built or not sourced', allow_module_level=True)
pytest.importorskip('grpc')

import rclpy  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from mivla_core.profile import RobotProfile, load_profile  # noqa: E402
from mivla_core.ros.qos import LATCHED, stream  # noqa: E402
from mivla_core.ros.spinning import Spinning  # noqa: E402
from mivla_core.timing import StampNs  # noqa: E402
from mivla_msgs.msg import DriverState, HandTracking, JointCommand, TeleopStatus  # noqa: E402
from mivla_teleop.core.hand_script import HandScript, hand_points  # noqa: E402
from mivla_teleop.headset.person import serialize  # noqa: E402
from mivla_teleop.headset.server import HeadsetServer  # noqa: E402
from mivla_teleop.ros.headset_node import HeadsetNode  # noqa: E402
from mivla_teleop.ros.leader_node import LeaderNode  # noqa: E402
from mivla_teleop.ros.vision_pro_node import VisionProNode  # noqa: E402

PROFILE = load_profile('piper')
DOMAIN = 84


class Robot:
    """A driver that follows ``command/teleop`` at once while its mode is teleop."""

    def __init__(self, context: rclpy.Context, profile: RobotProfile) -> None:
        node = self.node = rclpy.create_node('robot', namespace=profile.name, context=context)
        self.profile, self.posture = profile, ''
        self.applied = node.create_publisher(JointCommand, 'command/applied', stream(200))
        self.state = node.create_publisher(DriverState, 'driver/state', LATCHED)
        node.create_subscription(JointCommand, 'command/teleop', self._on_command, stream(200))
        node.create_subscription(TeleopStatus, 'teleop/status', self._on_status, LATCHED)
        node.create_timer(0.005, self._publish)
        self.pose = profile.home.copy()
        self.mode = DriverState.MODE_IDLE
        self.commands: list[JointCommand] = []
        self.said: list[TeleopStatus] = []
        self.set_mode(DriverState.MODE_IDLE)

    def set_mode(self, mode: int) -> None:
        self.mode = mode
        self.state.publish(DriverState(mode=mode, state=DriverState.HOLDING,
                                       posture=self.posture))

    def _on_command(self, message: JointCommand) -> None:
        self.commands.append(message)
        if self.mode == DriverState.MODE_TELEOP:
            self.pose = np.array(message.position)

    def _on_status(self, message: TeleopStatus) -> None:
        self.said.append(message)

    def _publish(self) -> None:
        message = JointCommand(name=list(self.profile.joint_names),
                               position=array.array('d', self.pose))
        StampNs.wall().fill(message.header.stamp)
        self.applied.publish(message)

    @property
    def phase(self) -> str:
        return self.said[-1].phase if self.said else ''


class Rig:
    def __init__(self, robot: str) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.robot = Robot(self.context, load_profile(robot))
        self.nodes: list[Any] = []
        self.spinning: list[Spinning] = []
        self.spin(self.robot.node)

    def spin(self, node: Any) -> None:
        self.spinning.append(Spinning(node, context=self.context))

    def bring_up(self, cls: Any, **parameters: Any) -> Any:
        node = cls(context=self.context, namespace=self.robot.profile.name, parameter_overrides=[
            Parameter(name, value=value)
            for name, value in {'realtime_priority': 0, **parameters}.items()])
        self.nodes.append(node)
        self.spin(node)
        assert node.bring_up(), node.failure
        return node

    def close(self) -> None:
        for node in self.nodes:
            node.bring_down()
        for spinning in self.spinning:
            spinning.stop()
        for node in (*self.nodes, self.robot.node):
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    made = Rig(getattr(request, 'param', 'piper'))
    yield made
    made.close()


def until(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'timed out'
        time.sleep(0.005)
    return value


class Leader:
    """Publishes a leader's joints at 200 Hz, from a thread of its own."""

    def __init__(self, rig: Rig) -> None:
        self.pose = PROFILE.home.copy()
        self.on = True
        self._publisher = rig.robot.node.create_publisher(JointState, 'leader/joint_states',
                                                          stream(200))
        self._timer = rig.robot.node.create_timer(0.005, self._publish)

    def _publish(self) -> None:
        if not self.on:
            return
        message = JointState(name=list(PROFILE.joint_names),
                             position=array.array('d', self.pose))
        StampNs.wall().fill(message.header.stamp)
        self._publisher.publish(message)


def test_a_follower_follows_while_the_mode_is_teleop_and_its_leader_speaks(rig: Rig) -> None:
    robot, leader = rig.robot, Leader(rig)
    rig.bring_up(LeaderNode)
    leader.pose[0] += 0.1
    until(lambda: robot.phase == 'waiting')
    assert not robot.commands
    robot.set_mode(DriverState.MODE_TELEOP)
    until(lambda: robot.phase == 'following')
    until(lambda: abs(robot.pose[0] - leader.pose[0]) < 1e-3)
    command = robot.commands[-1]
    assert command.source == JointCommand.SOURCE_TELEOP
    assert command.profile_hash == PROFILE.hash
    assert [c.sequence for c in robot.commands] == list(range(1, len(robot.commands) + 1))
    age = StampNs.from_msg(command.header.stamp) - StampNs.from_msg(command.observation_stamp)
    assert 0 <= age < 200_000_000
    leader.on = False
    until(lambda: robot.phase == 'lost')
    count = len(robot.commands)
    time.sleep(0.1)
    assert len(robot.commands) == count
    leader.on = True
    until(lambda: robot.phase == 'following')
    robot.set_mode(DriverState.MODE_POLICY)
    until(lambda: robot.phase == 'waiting')


def test_a_leader_of_another_kind_needs_no_file(rig: Rig) -> None:
    node = rig.bring_up(LeaderNode, robot='arx5_x5', leader='piper')
    assert node.profile.name == 'arx5_x5'


def test_a_map_that_cannot_be_keeps_the_node_from_coming_up(rig: Rig) -> None:
    with pytest.raises(Exception, match='nowhere'):
        rig.bring_up(LeaderNode, leader_map='/nowhere.yaml')


class Person:
    """Someone whose headset is a server; they do what they are told to."""

    def __init__(self) -> None:
        self.server = HeadsetServer(0)
        self.server.start()
        self.script, self.shift = HandScript(nod=0.0), {'right': 0.0, 'left': 0.0}
        self.finger: dict[str, str] = {}      # that the thumb of a hand touches
        self.hidden: dict[str, np.ndarray] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(1.0 / 90.0):
            moment = self.script.at(0.0)
            for side, shift in self.shift.items():
                moment.wrists[side][1, 3] += shift
            for side, finger in self.finger.items():
                moment.points[side] = hand_points(side, finger, 0.004)
            self.server.show(serialize(moment, self.hidden))

    def close(self) -> None:
        self._ended.set()
        self._thread.join(1.0)
        self.server.stop()


@pytest.fixture
def person() -> Iterator[Person]:
    made = Person()
    yield made
    made.close()


def test_a_headset_is_topics_and_moves_an_arm(rig: Rig, person: Person) -> None:
    robot = rig.robot
    heads: list[PoseStamped] = []
    wrists: list[PoseStamped] = []
    hands: list[HandTracking] = []
    for kind, topic, into in ((PoseStamped, 'headset/head', heads),
                              (PoseStamped, 'headset/right_wrist', wrists),
                              (HandTracking, 'headset/right_hand', hands)):
        robot.node.create_subscription(kind, topic, into.append, stream(120))
    rig.bring_up(HeadsetNode, address=f'127.0.0.1:{person.server.port}')
    rig.bring_up(VisionProNode, smoothing=0.0)
    until(lambda: heads and wrists)
    assert heads[-1].header.frame_id == 'headset_world'
    assert heads[-1].pose.position.z == pytest.approx(1.5, abs=0.01)
    until(lambda: hands[-1].tracked)
    assert len(hands[-1].joints) == 27 and hands[-1].lost == ''
    assert hands[-1].pinch[0] == pytest.approx(0.02, abs=0.005)
    robot.set_mode(DriverState.MODE_TELEOP)
    until(lambda: robot.phase == 'holding')
    assert any('engage' in text for text in robot.said[-1].gestures)
    engage = robot.node.create_client(Trigger, 'teleop/engage')
    assert engage.wait_for_service(5.0)
    engage.call_async(Trigger.Request())
    until(lambda: robot.phase == 'following')
    start = robot.pose.copy()
    person.shift['right'] = 0.05
    until(lambda: robot.pose[0] - start[0] > 0.05)      # to the left
    # The hand is out of sight: its wrist stays as it was, to the bit.
    person.hidden['right'] = np.array([[0.0, 0.0, -1.0, 0.2], [0.0, 1.0, 0.0, 1.0],
                                       [1.0, 0.0, 0.0, -0.4], [0.0, 0.0, 0.0, 1.0]])
    until(lambda: robot.phase == 'holding')
    assert 'lost' in robot.said[-1].detail
    until(lambda: not hands[-1].tracked)
    assert hands[-1].lost in ('frozen', 'jump')
    person.close()
    until(lambda: robot.phase == 'waiting')
    count = len(robot.commands)
    time.sleep(0.1)
    assert len(robot.commands) == count


@pytest.mark.parametrize(('rig', 'posture', 'gesturing', 'finger', 'moving'), [
    ('arx5_x5', '', 'left', 'index', ('right',)),
    ('piper_dual', '', 'left', 'ring', ('right', 'left')),
    ('locoman', 'manipulate_right', 'left', 'index', ('right',)),
    ('locoman', 'manipulate_left', 'right', 'index', ('left',)),
], indirect=['rig'])
def test_hands_move_the_arms_that_a_gesture_engages(
        rig: Rig, person: Person, posture: str, gesturing: str, finger: str,
        moving: tuple[str, ...]) -> None:
    robot, profile = rig.robot, rig.robot.profile
    robot.posture = posture
    for side in moving if posture else ():
        servos = profile.place_of(profile.arm(side)).start + 3
        robot.pose[servos:servos + 3] = (-np.pi / 8, 0.0, 0.0)    # unfolded
    rig.bring_up(HeadsetNode, address=f'127.0.0.1:{person.server.port}')
    rig.bring_up(VisionProNode, smoothing=0.0, robot=profile.name)
    robot.set_mode(DriverState.MODE_TELEOP)
    until(lambda: robot.phase == 'holding')
    told = '; '.join(robot.said[-1].gestures)
    assert f'{gesturing} thumb and {finger}: engage' in told
    assert all(f'{side} hand: ' in told for side in moving)
    person.finger = {gesturing: finger}
    until(lambda: robot.said[-1].gesture == f'{gesturing} thumb and {finger}')
    person.finger.clear()
    until(lambda: robot.phase == 'following')
    before = robot.pose.copy()
    for side in moving:
        person.shift[side] = 0.03
    arms = {arm.name: profile.place_of(arm) for arm in profile.arms}
    led = [arms.get(side, slice(0, 6)) for side in moving]
    until(lambda: all(np.abs(robot.pose - before)[place].max() > 0.02 for place in led))
    others = [place for name, place in arms.items() if len(arms) > 1 and name not in moving]
    assert all(np.abs(robot.pose - before)[place].max() < 1e-9 for place in others)


class Steps:
    """A recorder that is asked to start or save."""

    def __init__(self, rig: Rig) -> None:
        self.asked = 0
        rig.robot.node.create_service(Trigger, 'recorder/start_or_save', self._serve)

    def _serve(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.asked += 1
        response.success, response.message = True, f'answer {self.asked}'
        return response


def test_a_gesture_starts_and_saves_an_episode(rig: Rig, person: Person) -> None:
    robot, steps = rig.robot, Steps(rig)
    rig.bring_up(HeadsetNode, address=f'127.0.0.1:{person.server.port}')
    rig.bring_up(VisionProNode)
    robot.set_mode(DriverState.MODE_TELEOP)
    until(lambda: robot.said and 'left thumb and middle: start or save an episode'
          in robot.said[-1].gestures)
    for count in (1, 2):
        person.finger = {'left': 'middle'}
        until(lambda count=count: f'answer {count}' in robot.said[-1].detail)
        person.finger.clear()
        until(lambda: not robot.said[-1].gesture)
    assert steps.asked == 2      # once for each, however long it was held


def test_a_headset_that_is_not_there_is_waited_for(rig: Rig) -> None:
    node = rig.bring_up(HeadsetNode, address='127.0.0.1:9')
    time.sleep(0.3)
    assert node._client.state == 'connecting' and node._client.updates == 0
