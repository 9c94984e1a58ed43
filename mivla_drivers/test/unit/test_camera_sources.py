"""Sources by name, replay, V4L2 behind a stand-in, and the lane thread."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import cv2
import numpy as np
import pytest

from mivla_core.images import decode_jpeg, encode_jpeg
from mivla_core.profile import load_profile
from mivla_core.robot_parts import Camera
from mivla_core.timing import NowNs, StampNs
from mivla_drivers.cameras.lane import LaneThread
from mivla_drivers.cameras.pace import Pace
from mivla_drivers.cameras.source import CameraError, Frame, SourceContext, make_lanes
from mivla_drivers.cameras.v4l2 import V4l2Camera, resolve_device


def camera(role: str = 'head', **changes: Any) -> Camera:
    values = {'role': role, 'width': 64, 'height': 48, 'fps': 200.0, 'source': 'replay',
              'device': '', **changes}
    return Camera(**values)


@pytest.fixture
def context() -> SourceContext:
    return SourceContext(load_profile('piper'), 'piper', 7)


def picture(value: int) -> np.ndarray:
    image = np.full((48, 64, 3), value, np.uint8)
    image[:, :32, 0] = 200
    return image


def folder(path: Path, count: int = 3) -> Path:
    path.mkdir(exist_ok=True)
    for i in range(count):
        (path / f'{i:03}.jpg').write_bytes(encode_jpeg(picture(40 * i)))
    return path


def test_unknown_source_lists_the_known_ones(context: SourceContext) -> None:
    with pytest.raises(CameraError, match=r"'webcam' \(camera head\).*replay.*sim.*v4l2"):
        make_lanes([camera(source='webcam')], context)


def test_folder_replay_passes_jpeg_on_and_starts_again(
        tmp_path: Path, context: SourceContext) -> None:
    directory = folder(tmp_path / 'images')
    (lane,) = make_lanes([camera(device=str(directory))], context)
    source = lane[0]
    source.open()
    frames = [source.grab() for _ in range(4)]
    source.close()
    assert [frame.encoding for frame in frames] == ['jpeg'] * 4
    assert frames[0].data == (directory / '000.jpg').read_bytes() == frames[3].data
    assert frames[0].data != frames[1].data
    stamps = [frame.stamp for frame in frames]
    assert stamps == sorted(stamps) and abs(StampNs.wall() - stamps[-1]) < 10**9
    assert frames[0].as_jpeg(50) is frames[0].data
    array, encoding = frames[1].as_array()
    assert encoding == 'rgb8' and array.shape == (48, 64, 3)


def test_video_replay(tmp_path: Path, context: SourceContext) -> None:
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 100.0, (64, 48))
    for i in range(3):
        writer.write(cv2.cvtColor(picture(60 * i), cv2.COLOR_RGB2BGR))
    writer.release()
    ((source,),) = make_lanes([camera(device=str(path))], context)
    source.open()
    frames = [source.grab() for _ in range(4)]
    source.close()
    assert {frame.encoding for frame in frames} == {'bgr8'}
    np.testing.assert_array_equal(frames[0].data, frames[3].data)
    # BGR in memory, true colours in the JPEG: the left half of the first frame is red.
    red = decode_jpeg(frames[0].as_jpeg(95))[24, 10]
    assert red[0] > 150 and red[2] < 60


@pytest.mark.parametrize('device', ['nowhere/images', 'nowhere/clip.avi', ''])
def test_absent_replay_names_role_and_device(
        device: str, tmp_path: Path, context: SourceContext) -> None:
    with pytest.raises(CameraError, match='camera head') as refused:
        ((source,),) = make_lanes(
            [camera(device=str(tmp_path / device) if device else '')], context)
        source.open()
    assert device in str(refused.value)


def test_replay_of_another_size_is_refused(tmp_path: Path, context: SourceContext) -> None:
    ((source,),) = make_lanes([camera(device=str(folder(tmp_path / 'a')), width=32)], context)
    with pytest.raises(CameraError, match='64x48.*32x48'):
        source.open()


def devices(root: Path) -> Path:
    (root / 'by-id').mkdir(parents=True)
    (root / 'by-path').mkdir()
    (root / 'video0').touch()
    for name in ('by-id/usb-ACME_Cam_A1B2-video-index0', 'by-id/usb-ACME_Cam_A1B2-video-index1',
                 'by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0'):
        (root / name).symlink_to(root / 'video0')
    return root


def test_v4l2_accepts_by_id_by_path_and_serial(tmp_path: Path) -> None:
    root = devices(tmp_path)
    by_id = root / 'by-id/usb-ACME_Cam_A1B2-video-index0'
    assert resolve_device(camera(device=str(by_id)), root) == by_id
    assert resolve_device(camera(device='serial:A1B2'), root) == by_id
    by_path = root / 'by-path/pci-0000:00:14.0-usb-0:2:1.0-video-index0'
    assert resolve_device(camera(device=str(by_path)), root) == by_path


@pytest.mark.parametrize('device', ['0', '/dev/video0', '', 'serial:XYZ', 'serial:'])
def test_v4l2_refuses_an_index_and_lists_what_is_there(device: str, tmp_path: Path) -> None:
    with pytest.raises(CameraError, match='camera head.*usb-ACME_Cam_A1B2-video-index0'):
        resolve_device(camera(device=device), devices(tmp_path))


def test_v4l2_absent_device_lists_what_is_there(tmp_path: Path) -> None:
    root = devices(tmp_path)
    with pytest.raises(CameraError, match='camera wrist.*gone.*is absent; present: .*A1B2'):
        resolve_device(camera('wrist', device=str(root / 'by-id/gone')), root)
    with pytest.raises(CameraError, match='nothing in'):
        resolve_device(camera(device='serial:1'), tmp_path / 'none')


class FakeCapture:
    """Stands in for cv2.VideoCapture; keeps what is set."""

    def __init__(self, frames: list[Optional[np.ndarray]], mjpeg: bool = True) -> None:
        self.frames, self.mjpeg = list(frames), mjpeg
        self.properties: dict[int, float] = {}
        self.released = False

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> None:
        self.properties[key] = value

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_FOURCC and not self.mjpeg:
            return cv2.VideoWriter.fourcc(*'YUYV')
        if key == cv2.CAP_PROP_POS_MSEC:
            return time.monotonic() * 1e3 - 7.0
        return self.properties.get(key, 0.0)

    def read(self) -> tuple[bool, Optional[np.ndarray]]:
        frame = self.frames.pop(0) if self.frames else None
        return frame is not None, frame

    def release(self) -> None:
        self.released = True


def v4l2(root: Path, capture: FakeCapture) -> V4l2Camera:
    return V4l2Camera(camera(device='serial:A1B2', source='v4l2'), devices(root),
                      lambda _: capture)


def test_v4l2_passes_mjpeg_on_without_padding_and_stamps_at_acquisition(tmp_path: Path) -> None:
    jpeg = encode_jpeg(picture(90))
    padded = np.frombuffer(jpeg + bytes(100), np.uint8)[None]
    capture = FakeCapture([padded, padded])
    source = v4l2(tmp_path, capture)
    source.open()
    assert capture.properties[cv2.CAP_PROP_CONVERT_RGB] == 0
    frame = source.grab()
    assert frame.encoding == 'jpeg' and frame.data == jpeg
    assert 6 * 10**6 < StampNs.wall() - frame.stamp < 10**9
    with pytest.raises(CameraError, match='unplugged'):
        source.grab()
    source.close()
    source.close()
    assert capture.released


def test_v4l2_without_mjpeg_gives_bgr(tmp_path: Path) -> None:
    capture = FakeCapture([picture(1), picture(2)], mjpeg=False)
    source = v4l2(tmp_path, capture)
    source.open()
    assert capture.properties[cv2.CAP_PROP_CONVERT_RGB] == 1
    assert source.grab().encoding == 'bgr8'


def test_v4l2_other_size_and_nonsense_are_refused(tmp_path: Path) -> None:
    class Stubborn(FakeCapture):
        def get(self, key: int) -> float:
            return 32.0 if key == cv2.CAP_PROP_FRAME_WIDTH else super().get(key)

    capture = Stubborn([picture(0)])
    with pytest.raises(CameraError, match='32x48'):
        v4l2(tmp_path / 'a', capture).open()
    assert capture.released
    with pytest.raises(CameraError, match='neither BGR nor JPEG'):
        v4l2(tmp_path / 'b', FakeCapture([np.zeros((1, 50), np.uint8)])).open()


def test_pace_keeps_absolute_deadlines_and_does_not_catch_up() -> None:
    clock = SimpleNamespace(now=NowNs(1000))
    slept: list[float] = []

    def sleep(duration: float) -> None:
        slept.append(duration)
        clock.now = clock.now + round(duration * 1e9)

    pace = Pace(100.0, lambda: clock.now, sleep)
    pace.wait()
    assert slept == []
    clock.now = clock.now + 4_000_000
    pace.wait()
    assert slept[-1] == pytest.approx(0.006)
    clock.now = clock.now + 50_000_000    # a gap of five periods
    pace.wait()
    pace.wait()
    assert slept[1:] == [pytest.approx(0.01)]


class FakeSource:
    """A source that follows a script: a Frame, or an error to raise."""

    def __init__(self, role: str, script: list[Any],
                 open_errors: Optional[list[Any]] = None) -> None:
        self.camera = camera(role)
        self.device = f'/dev/{role}'
        self.script, self.open_errors = script, open_errors or []
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1
        if self.open_errors and (error := self.open_errors.pop(0)) is not None:
            raise error

    def grab(self) -> Frame:
        time.sleep(0.001)
        step = self.script.pop(0) if self.script else Frame(StampNs(1), 'jpeg', b'')
        if isinstance(step, Exception):
            raise step
        return step

    def intrinsics(self) -> None:
        return None

    def close(self) -> None:
        self.closed += 1


def run_lane(*sources: FakeSource,
             limit: int = 3) -> tuple[LaneThread, list, list, threading.Event]:
    frames: list = []
    losses: list = []
    event = threading.Event()

    def deliver(source: FakeSource, frame: Frame) -> None:
        frames.append(source.camera.role)
        if len(frames) >= 6:
            event.set()

    lane = LaneThread(sources, deliver, lambda s, why: losses.append((s.camera.role, why)), limit)
    lane.start()
    return lane, frames, losses, event


def test_lane_reads_its_sources_in_turn() -> None:
    lane, frames, losses, event = run_lane(FakeSource('head', []), FakeSource('wrist', []))
    lane.wait_open(1.0)
    assert event.wait(2.0) and lane.stop()
    assert frames[:4] == ['head', 'wrist', 'head', 'wrist'] and not losses


def test_lane_refuses_a_start_without_its_camera() -> None:
    source = FakeSource('head', [], [CameraError('camera head: /dev/head is absent')])
    lane, frames, _, _ = run_lane(source)
    with pytest.raises(CameraError, match='/dev/head is absent'):
        lane.wait_open(1.0)
    assert lane.stop() and source.closed == 1 and not frames


def test_lane_brings_a_lost_camera_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mivla_drivers.cameras.lane.FIRST_PAUSE_S', 0.01)
    source = FakeSource('head', [CameraError('unplugged')],
                        [None, CameraError('still absent'), None])
    lane, frames, losses, event = run_lane(source)
    lane.wait_open(1.0)
    assert event.wait(3.0) and lane.stop()
    assert source.opened == 3
    assert 'unplugged; attempt 1 of 3' in losses[0][1] and 'still absent' in losses[1][1]


def test_lane_gives_up_after_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mivla_drivers.cameras.lane.FIRST_PAUSE_S', 0.01)
    source = FakeSource('head', [CameraError('unplugged')], [None, *[CameraError('absent')] * 9])
    lane, _, losses, _ = run_lane(source, limit=2)
    lane.wait_open(1.0)
    deadline = time.monotonic() + 3.0
    while len(losses) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lane.stop()
    assert 'given up after 2 attempts' in losses[-1][1] and source.opened == 3
