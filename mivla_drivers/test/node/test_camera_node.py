"""The camera node with replayed pictures: topics, stamps, loss, and a refusal to start."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mivla_core.images import decode_jpeg, encode_jpeg, image_to_numpy
from mivla_core.profile import load_profile
from mivla_core.ros.qos import stream
from mivla_core.ros.spinning import Spinning
from mivla_core.timing import NS_PER_S, StampNs
from mivla_drivers.ros.camera_node import CameraNode

PROFILE = load_profile('piper')
ROLES = [camera.role for camera in PROFILE.cameras]


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[rclpy.Context]:
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=10 + os.getpid() % 80)
    yield context
    rclpy.try_shutdown(context=context)


def folder(path: Path, count: int = 5) -> Path:
    path.mkdir()
    camera = PROFILE.cameras[0]
    for i in range(count):
        picture = np.full((camera.height, camera.width, 3), 40 * i, np.uint8)
        picture[:100, :100] = (250, 10, 10)
        (path / f'{i:03}.jpg').write_bytes(encode_jpeg(picture))
    return path


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {role: folder(tmp_path / role) for role in ROLES}


def make(context: rclpy.Context, folders: dict[str, Path], **parameters: Any) -> CameraNode:
    overrides = {'source': 'replay', 'realtime_priority': 0, **parameters,
                 'devices': [f'{role}={path}' for role, path in folders.items()]}
    return CameraNode(context=context, namespace='piper', parameter_overrides=[
        Parameter(key, value=value) for key, value in overrides.items()])


def until(condition: Callable[[], Any], timeout: float = 5.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, 'timed out'
        time.sleep(0.005)
    return value


class Viewer:
    """Receives everything that the cameras publish."""

    def __init__(self, context: rclpy.Context, node: CameraNode) -> None:
        self.node = rclpy.create_node('viewer', namespace='piper', context=context)
        self.compressed: dict[str, list[CompressedImage]] = {role: [] for role in ROLES}
        self.raw: list[Image] = []
        self.info: list[CameraInfo] = []
        self.health: list[DiagnosticArray] = []
        for role in ROLES:
            self.node.create_subscription(
                CompressedImage, f'{role}/image_raw/compressed', self.compressed[role].append,
                stream(30))
        self.node.create_subscription(CameraInfo, f'{ROLES[0]}/camera_info', self.info.append,
                                      stream(30))
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self.health.append, 10)
        self._spinning = Spinning(self.node, node, context=context)

    def want_raw(self) -> Any:
        return self.node.create_subscription(Image, f'{ROLES[0]}/image_raw', self.raw.append,
                                             stream(30))

    def level(self, role: str) -> Any:
        """Return (level, message) of a camera's newest diagnosis."""
        for status in self.health[-1].status if self.health else ():
            if status.name.endswith(f': {role}'):
                return status.level[0], status.message
        return None

    def close(self) -> None:
        self._spinning.stop()
        self.node.destroy_node()


@pytest.fixture
def rig(context: rclpy.Context, folders: dict[str, Path]) -> Iterator[tuple[CameraNode, Viewer]]:
    node = make(context, folders)
    viewer = Viewer(context, node)
    assert node.bring_up(), node.failure
    yield node, viewer
    node.bring_down()
    viewer.close()
    node.destroy_node()


def test_pictures_info_and_health(rig: tuple[CameraNode, Viewer], folders: dict) -> None:
    _, viewer = rig
    role = ROLES[0]
    until(lambda: all(len(frames) >= 35 for frames in viewer.compressed.values()))
    frames = viewer.compressed[role]
    stamps = [StampNs.from_msg(frame.header.stamp) for frame in frames]
    assert stamps == sorted(set(stamps))
    assert np.median(np.diff([int(s) for s in stamps])) == pytest.approx(1e9 / 30, rel=0.1)
    assert 0 <= StampNs.wall() - stamps[-1] < NS_PER_S
    # The bytes of the file, untouched.
    files = {path.read_bytes() for path in folders[role].iterdir()}
    assert {frame.data.tobytes() for frame in frames} == files
    assert frames[0].format == 'jpeg' and frames[0].header.frame_id == f'{role}_optical_frame'
    info = viewer.info[-1]
    assert (info.width, info.height) == (640, 480) and info.k[0] == 0.0
    assert info.header.stamp in [frame.header.stamp for frame in frames]
    until(lambda: (viewer.level(role) or (2,))[0] == 0)


def test_raw_is_published_only_while_somebody_listens(rig: tuple[CameraNode, Viewer]) -> None:
    node, viewer = rig
    until(lambda: len(viewer.compressed[ROLES[0]]) > 5)
    subscription = viewer.want_raw()
    until(lambda: len(viewer.raw) > 2)
    picture = image_to_numpy(viewer.raw[0])
    assert viewer.raw[0].encoding == 'rgb8' and picture.shape == (480, 640, 3)
    # True colours: the marked corner is red.
    assert picture[50, 50, 0] > 200 and picture[50, 50, 2] < 60
    same = [frame for frame in viewer.compressed[ROLES[0]]
            if frame.header.stamp == viewer.raw[0].header.stamp]
    np.testing.assert_array_equal(decode_jpeg(same[0].data), picture)
    viewer.node.destroy_subscription(subscription)
    until(lambda: not node.count_subscribers(f'/piper/{ROLES[0]}/image_raw'))


def test_lost_camera_is_an_error_while_the_others_go_on(
        rig: tuple[CameraNode, Viewer], folders: dict) -> None:
    _, viewer = rig
    lost, other = ROLES[0], ROLES[1]
    until(lambda: len(viewer.compressed[lost]) > 5)
    aside = folders[lost].with_name('aside')
    folders[lost].rename(aside)
    _, message = until(lambda: (viewer.level(lost) or (0,))[0] == 2 and viewer.level(lost))
    assert 'attempt' in message and lost in message
    count = len(viewer.compressed[other])
    until(lambda: len(viewer.compressed[other]) > count + 10)
    assert viewer.level(other)[0] != 2
    shutil.move(str(aside), str(folders[lost]))
    count = len(viewer.compressed[lost])
    until(lambda: len(viewer.compressed[lost]) > count + 5)


def test_frozen_picture_is_an_error(context: rclpy.Context, tmp_path: Path) -> None:
    folders = {role: folder(tmp_path / role, 1 if role == ROLES[0] else 5) for role in ROLES}
    node = make(context, folders)
    viewer = Viewer(context, node)
    assert node.bring_up(), node.failure
    _, message = until(lambda: (viewer.level(ROLES[0]) or (0,))[0] == 2
                       and viewer.level(ROLES[0]))
    assert 'identical' in message
    assert viewer.level(ROLES[1])[0] != 2
    node.bring_down()
    viewer.close()
    node.destroy_node()


def test_absent_camera_refuses_the_start_with_role_and_device(
        context: rclpy.Context, folders: dict) -> None:
    shutil.rmtree(folders[ROLES[1]])
    node = make(context, folders)
    assert not node.bring_up()
    assert ROLES[1] in node.failure and str(folders[ROLES[1]]) in node.failure
    node.destroy_node()


@pytest.mark.parametrize('parameters, words', [
    ({'source': 'webcam'}, 'known: replay'), ({'source': 'v4l2'}, 'by-id'),
    ({'robot': 'unicorn'}, 'unicorn')])
def test_bad_parameters_refuse_the_start(
        context: rclpy.Context, folders: dict, parameters: dict, words: str) -> None:
    node = make(context, folders, **parameters)
    assert not node.bring_up()
    assert words in node.failure
    node.destroy_node()


def test_deactivated_cameras_are_silent_and_come_back(rig: tuple[CameraNode, Viewer]) -> None:
    node, viewer = rig
    until(lambda: len(viewer.compressed[ROLES[0]]) > 5)
    node.trigger_deactivate()
    time.sleep(0.15)
    count = len(viewer.compressed[ROLES[0]])
    time.sleep(0.2)
    assert len(viewer.compressed[ROLES[0]]) == count
    node.trigger_activate()
    until(lambda: len(viewer.compressed[ROLES[0]]) > count + 3)
