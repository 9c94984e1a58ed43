"""
Cameras of one robot: pictures as JPEG, raw ones on demand, and their health.

Threads: one per lane reads its sources and hands frames over; one more encodes and publishes, so
that one picture is compressed while the next is being rendered or received.
"""

from __future__ import annotations

import array
import os
import queue
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any, Optional, Union

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from pydantic import ValidationError
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mivla_core.calibration import CameraCalibration, camera_calibration
from mivla_core.errors import ImageError
from mivla_core.images import numpy_to_image
from mivla_core.profile import load_profile
from mivla_core.realtime import PICTURES, ask_fifo, leave_fifo, own_threads
from mivla_core.robot_parts import Camera
from mivla_core.ros.lifecycle import ManagedNode, run_node
from mivla_core.ros.params import declare, param
from mivla_core.ros.qos import stream
from mivla_core.timing import monotonic_now
from mivla_drivers.cameras.appetite import Appetite
from mivla_drivers.cameras.health import FrameHealth, Health, picture_digest
from mivla_drivers.cameras.lane import LaneThread
from mivla_drivers.cameras.source import (
    CameraError,
    CameraSource,
    Frame,
    Pinhole,
    SourceContext,
    make_lanes,
)

__all__ = ['CameraNode', 'CameraParams', 'main']


@dataclass(frozen=True)
class CameraParams:
    """Parameters of the camera node."""

    robot: str = param('piper', 'Robot profile: a name or a path.')
    source: str = param('', 'Camera plug-in for all roles; empty: as the profile says.')
    devices: list[str] = param([''], "Devices by role, 'role=device'; else as the profile says.")
    width: int = param(0, 'Width of all pictures [px]; 0: as the profile says.', low=0, high=8192)
    height: int = param(0, 'Height of all pictures [px]; 0: as the profile says.', low=0,
                        high=8192)
    fps: float = param(0.0, 'Rate of all cameras [1/s]; 0: as the profile says.', low=0.0,
                       high=1000.0)
    open_timeout: float = param(30.0, 'Longest time until all cameras are open [s].',
                                low=1.0, high=300.0)
    reopen_limit: int = param(100, 'Attempts to bring a lost camera back.', low=0, high=1_000_000)
    realtime_priority: int = param(PICTURES, 'SCHED_FIFO priority; 0: do not ask.', low=0,
                                   high=39)


class _Output:
    """One camera's publishers, fixed messages and health."""

    def __init__(self, node: CameraNode, source: CameraSource,
                 calibration: Optional[CameraCalibration]) -> None:
        camera = source.camera
        qos = stream(camera.fps)
        self.source = source
        self.frame_id = f'{camera.role}_optical_frame'
        self.health = FrameHealth(camera.fps)
        self.dropped = 0
        self.failed = 0
        self.compressed = node.create_lifecycle_publisher(
            CompressedImage, f'{camera.role}/image_raw/compressed', qos)
        self.raw = node.create_lifecycle_publisher(Image, f'{camera.role}/image_raw', qos)
        self.info_publisher = node.create_lifecycle_publisher(
            CameraInfo, f'{camera.role}/camera_info', qos)
        self.info = _camera_info(source, self.frame_id, calibration)


class CameraNode(ManagedNode):
    """Lifecycle node of one rig; executable ``cameras``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('cameras', **kwargs)
        self.params = declare(self, CameraParams)
        self._lanes: list[LaneThread] = []
        self._outputs: dict[str, _Output] = {}
        self._frames: queue.Queue[Optional[tuple[_Output, Frame]]] = queue.Queue()
        self._publisher: Optional[threading.Thread] = None
        self._live = False
        self._urgent = False
        self._appetite = Appetite(os.cpu_count() or 1)
        self._lock = threading.Lock()
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._timer = self.create_timer(1.0, self._publish_health)

    def setup(self) -> None:
        """
        Open every camera.

        :raises CameraError: one is absent; names role and device.
        :raises CalibrationError: a calibration that the profile names is absent or does not fit.
        """
        profile = load_profile(self.params.robot)
        robot = self.get_namespace().strip('/').replace('/', '_') or profile.name
        domain = int(os.environ.get('ROS_DOMAIN_ID') or 0)
        own = tuple(camera for camera in profile.cameras if not camera.shared)
        lanes = make_lanes(self._cameras(own), SourceContext(profile, robot, domain))
        sources = [source for lane in lanes for source in lane]
        self._outputs = {
            source.camera.role: _Output(self, source,
                                        camera_calibration(profile, source.camera.role))
            for source in sources}
        # As many frames as can be under way; more than that would only make pictures old.
        self._frames = queue.Queue(maxsize=2 * len(sources))
        self._ask_for_realtime()   # the threads below inherit it
        self._publisher = threading.Thread(target=self._publish_frames, daemon=True,
                                           name='camera publisher')
        self._publisher.start()
        self._lanes = [LaneThread(lane, self._deliver, self._lose, self.params.reopen_limit)
                       for lane in lanes]
        for lane in self._lanes:
            lane.start()
        for lane in self._lanes:
            lane.wait_open(self.params.open_timeout)

    def start(self) -> None:
        """Begin to publish."""
        self._live = True

    def halt(self) -> None:
        """Stop publishing; the cameras stay open."""
        self._live = False

    def teardown(self) -> None:
        """Stop the threads and let go of every camera."""
        self._live = False
        for lane in self._lanes:
            if not lane.stop():
                self.get_logger().warning(
                    f'camera {lane.sources[0].camera.role} hangs in its device; left behind')
        self._lanes = []
        if self._publisher is not None:
            self._frames.put(None)
            self._publisher.join(5.0)
            self._publisher = None
        for output in self._outputs.values():
            for publisher in (output.compressed, output.raw, output.info_publisher):
                self.destroy_publisher(publisher)
        self._outputs = {}

    def _cameras(self, cameras: tuple[Camera, ...]) -> list[Camera]:
        given = {}
        for text in filter(None, self.params.devices):
            role, found, device = text.partition('=')
            if not found or role not in {camera.role for camera in cameras}:
                raise CameraError(f"parameter devices has {text!r}; expected 'role=device' with a "
                                  f'role of {[camera.role for camera in cameras]}')
            given[role] = device
        if not cameras:
            raise CameraError(f'robot {self.params.robot} has no cameras of its own')
        params = self.params
        try:
            return [Camera(**{
                **camera.model_dump(), 'source': params.source or camera.source,
                'device': given.get(camera.role, camera.device),
                'width': params.width or camera.width, 'height': params.height or camera.height,
                'fps': params.fps or camera.fps}) for camera in cameras]
        except ValidationError as err:
            raise CameraError('parameters width, height, fps: '
                              f'{" ".join(str(err).split())}') from err

    def _deliver(self, source: CameraSource, frame: Frame) -> None:
        """Hand a frame to the publishing thread; called in the lane's thread."""
        output = self._outputs[source.camera.role]
        if self._live:
            try:
                self._frames.put_nowait((output, frame))
            except queue.Full:
                output.dropped += 1
        digest = picture_digest(frame.data)
        with self._lock:
            output.health.frame(monotonic_now(), digest)

    def _lose(self, source: CameraSource, reason: str) -> None:
        """Note the loss of a camera; called in the lane's thread."""
        self.get_logger().error(reason)
        with self._lock:
            self._outputs[source.camera.role].health.lost(reason)

    def _publish_frames(self) -> None:
        while (item := self._frames.get()) is not None:
            output, frame = item
            try:
                self._publish(output, frame)
            except ImageError as err:
                output.failed += 1
                self.get_logger().error(f'camera {output.source.camera.role}: {err}',
                                        throttle_duration_sec=5.0)
            except Exception:  # the thread must outlive a bug, and the bug must be seen
                output.failed += 1
                self.get_logger().error(traceback.format_exc(), throttle_duration_sec=5.0)

    def _publish(self, output: _Output, frame: Frame) -> None:
        camera = output.source.camera
        if frame.encoding != '16UC1':
            message = CompressedImage()
            frame.stamp.fill(message.header.stamp)
            message.header.frame_id = output.frame_id
            message.format = 'jpeg'
            data = array.array('B')
            data.frombytes(frame.as_jpeg(camera.jpeg_quality))
            message.data = data
            output.compressed.publish(message)
        info = output.info
        frame.stamp.fill(info.header.stamp)
        output.info_publisher.publish(info)
        if output.raw.get_subscription_count():
            image = Image()
            frame.stamp.fill(image.header.stamp)
            image.header.frame_id = output.frame_id
            numpy_to_image(*frame.as_array(), image)
            output.raw.publish(image)

    def _ask_for_realtime(self) -> None:
        refused = ask_fifo(self.params.realtime_priority, own_threads())
        self._urgent = self.params.realtime_priority > 0 and not refused
        if refused:
            self.get_logger().warning(f'no SCHED_FIFO ({refused}): pictures may come later')

    def _restrain(self) -> None:
        """Give precedence back where pictures take too much of the machine."""
        large = self._appetite.too_large(time.monotonic(), time.process_time())
        if self._urgent and self._live and large:
            self._urgent = False
            leave_fifo(own_threads())
            self.get_logger().warning(
                f'pictures take {self._appetite.share:.0%} of this machine: no SCHED_FIFO for '
                'them from now on; choose smaller pictures or a lower rate')

    def _publish_health(self) -> None:
        self._restrain()
        now = monotonic_now()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        for role, output in self._outputs.items():
            with self._lock:
                health = output.health.report(now)
            message.status.append(_diagnostic(
                f'{self.get_fully_qualified_name()}: {role}', output, health))
        if message.status:
            self._diagnostics.publish(message)


def _camera_info(source: CameraSource, frame_id: str,
                 calibration: Optional[CameraCalibration]) -> CameraInfo:
    """
    Return the fixed part of a camera's CameraInfo; all zero where it is not calibrated.

    A source that knows its intrinsics, a simulated one, is believed before a file.
    """
    info = CameraInfo()
    info.header.frame_id = frame_id
    info.width, info.height = source.camera.width, source.camera.height
    known: Union[Pinhole, CameraCalibration, None] = source.intrinsics()
    if known is None and calibration is not None:
        known = calibration.at(info.width, info.height)
    if known is not None:
        info.distortion_model = 'plumb_bob'
        info.d = list(known.distortion) if isinstance(known, CameraCalibration) else [0.0] * 5
        info.k = [known.fx, 0.0, known.cx, 0.0, known.fy, known.cy, 0.0, 0.0, 1.0]
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [known.fx, 0.0, known.cx, 0.0, 0.0, known.fy, known.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def _diagnostic(name: str, output: _Output, health: Health) -> DiagnosticStatus:
    values = {
        'rate [1/s]': f'{health.rate:.2f}',
        'expected rate [1/s]': f'{output.source.camera.fps:g}',
        'age [s]': f'{health.age:.3f}',
        'identical for [s]': f'{health.frozen:.2f}',
        'frames': str(health.frames),
        'dropped before publishing': str(output.dropped),
        'failed to publish': str(output.failed),
    }
    return DiagnosticStatus(
        level=bytes([health.level]), name=name, message=health.message,
        hardware_id=output.source.device,
        values=[KeyValue(key=key, value=value) for key, value in values.items()])


def main(args: Optional[list[str]] = None) -> int:
    """Run the camera node."""
    # Pictures are small: OpenCV's pool costs more than it gains beside a control loop.
    cv2.setNumThreads(1)
    sys.setswitchinterval(5e-4)
    # A late picture is a late action.
    return run_node(CameraNode, args, nice=-10)


if __name__ == '__main__':
    raise SystemExit(main())
