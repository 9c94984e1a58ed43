"""``mivla calibrate`` at a robot that publishes: pictures kept, joints read, power refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Header

from mivla_bringup.calibrate.live import RobotWatch
from mivla_bringup.cli import main
from mivla_bringup.session import session
from mivla_core.calibration import (
    ArmCalibration,
    CalibrationError,
    calibration_file,
    load_calibration,
)
from mivla_core.profile import load_profile
from mivla_core.ros.qos import LATCHED, stream
from mivla_core.timing import StampNs, to_ns
from mivla_drivers.calibration.board import Board
from mivla_msgs.msg import DriverState

ROBOT = 'arx5_x5'
PROFILE = load_profile(ROBOT)


class Robot:
    """Publishes what a driver and a camera do, with values that a test sets."""

    def __init__(self) -> None:
        self.joints = np.zeros(len(PROFILE.joints))
        self.shake = 0.0
        self.powered = False
        self.late = 0                           # ns that stamps lie behind
        self.picture = np.full((480, 640), 120, np.uint8)
        self._over = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10.0)

    def _run(self) -> None:
        with session('robot') as node:
            states = node.create_publisher(JointState, f'/{ROBOT}/joint_states', stream(100))
            driver = node.create_publisher(DriverState, f'/{ROBOT}/driver/state', LATCHED)
            pictures = node.create_publisher(
                CompressedImage, f'/{ROBOT}/head/image_raw/compressed', stream(30))
            self._ready.set()
            count = 0
            while not self._over.wait(0.01):
                count += 1
                position = self.joints + self.shake * (-1) ** count
                states.publish(JointState(
                    header=Header(stamp=StampNs(StampNs.wall() - self.late).fill(Time())),
                    name=list(PROFILE.joint_names), position=position.tolist()))
                if count % 5 == 0:
                    driver.publish(DriverState(powered=self.powered))
                    data = cv2.imencode('.jpg', self.picture)[1].tobytes()
                    pictures.publish(CompressedImage(format='jpeg', data=data))

    def close(self) -> None:
        self._over.set()
        self._thread.join(10.0)


@pytest.fixture
def robot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Robot]:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(10 + os.getpid() % 80))
    monkeypatch.setenv('MIVLA_CALIBRATION_DIR', str(tmp_path))
    robot = Robot()
    yield robot
    robot.close()


def answers(monkeypatch: pytest.MonkeyPatch, robot: Robot, *steps: tuple[str, object]) -> None:
    """Answer prompts one after the other; each answer may first move the robot."""
    left = list(steps)

    def answer(prompt: str) -> str:
        text, change = left.pop(0)
        if callable(change):
            change()
        return text
    monkeypatch.setattr('builtins.input', answer)


def test_a_gripper_moved_by_hand(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    def move(opening: float) -> None:
        robot.joints[6] = opening
    # With 5.03 rad for 0.088 m, a motor at -3.4 rad reads so:
    answers(monkeypatch, robot, ('', lambda: move(0.0)),
            ('', lambda: move(-3.4 / 5.03 * 0.088)), ('82', None))
    assert main(['calibrate', 'gripper', f'robot:={ROBOT}']) == 0
    found = load_calibration(calibration_file(ROBOT, PROFILE.arms[0].name), ArmCalibration)
    assert found.parameters == {'gripper_open': pytest.approx(-3.4, abs=1e-3),
                                'gripper_width': 0.082}


def test_power_is_refused(robot: Robot, capsys: pytest.CaptureFixture[str]) -> None:
    robot.powered = True
    assert main(['calibrate', 'gripper', f'robot:={ROBOT}']) == 1
    assert 'has torque' in capsys.readouterr().err


def test_a_robot_that_moves_is_waited_for(robot: Robot) -> None:
    with session('watch') as node:
        watch = RobotWatch(node, ROBOT)
        robot.joints[2] = 0.5
        watch.readings(1.0)
        assert watch.joints()[PROFILE.joint_names[2]] == pytest.approx(0.5)
        robot.shake = 0.05
        with pytest.raises(CalibrationError, match='moves'):
            watch.joints()


def test_the_end_of_a_movement_is_waited_out(robot: Robot) -> None:
    with session('watch') as node:
        watch = RobotWatch(node, ROBOT)
        robot.shake = 0.05
        calm = threading.Timer(0.2, lambda: setattr(robot, 'shake', 0.0))
        calm.start()
        robot.joints[2] = 0.5
        assert watch.joints()[PROFILE.joint_names[2]] == pytest.approx(0.5)
        calm.join()


def test_what_was_measured_before_does_not_count(robot: Robot) -> None:
    robot.late = to_ns(2.0)
    late = pytest.raises(CalibrationError, match=r'measured \d\.\d\d s ago.*another time')
    with session('watch') as node, late:
        RobotWatch(node, ROBOT).joints()


def test_nobody_there_is_said(robot: Robot) -> None:
    with session('watch') as node:
        watch = RobotWatch(node, 'nobody', 'head')
        for ask in (watch.picture, watch.joints, watch.refuse_power):
            with pytest.raises(CalibrationError, match='mivla up robot:=nobody'):
                ask()


def test_pictures_without_a_board_are_not_kept(
        robot: Robot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    board = cv2.copyMakeBorder(Board().picture(2000.0), 60, 60, 60, 60, cv2.BORDER_CONSTANT,
                               value=255)
    answers(monkeypatch, robot, ('', None),
            ('', lambda: setattr(robot, 'picture', board)), ('', None), ('q', None))
    keep = tmp_path / 'kept'
    assert main(['calibrate', 'camera', f'robot:={ROBOT}', '--camera', 'head', '--keep',
                 str(keep)]) == 1
    said = capsys.readouterr()
    assert '0 corners of the board in it: not kept' in said.out
    assert 1 <= len(list(keep.glob('*.jpg'))) <= 2
    assert 'pictures can be used' in said.err
