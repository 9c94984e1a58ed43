"""
Cameras of the Linux video interface, by OpenCV.

A device is named by its link in /dev/v4l/by-id or /dev/v4l/by-path, or as ``serial:TEXT``: an
index or /dev/videoN may be another camera after the next boot, so these are refused. Where the
camera compresses by itself its bytes are passed on untouched. Not run on hardware yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from mivla_core.robot_parts import Camera
from mivla_core.timing import StampNs
from mivla_drivers.cameras.source import CameraError, CameraSource, Frame, Pinhole, SourceContext

__all__ = ['V4l2Camera', 'resolve_device', 'v4l2_lanes']

FOLDER = Path('/dev/v4l')
OPEN_TIMEOUT_S = 5.0
FIRST_FRAME_TIMEOUT_S = 3.0
MAX_STAMP_AGE_NS = 1_000_000_000


def resolve_device(camera: Camera, folder: Path = FOLDER) -> Path:
    """
    Return the link that names a camera for good.

    :raises CameraError: named by index, absent or ambiguous; lists what is present.
    """
    by_id = sorted((folder / 'by-id').glob('*-video-index0'))
    links = [*by_id, *sorted((folder / 'by-path').glob('*-video-index0'))]
    present = ', '.join(map(str, links)) or f'nothing in {folder}'
    who, device = f'camera {camera.role}', camera.device
    if device.startswith('serial:'):
        serial = device.removeprefix('serial:')
        found = [link for link in by_id
                 if serial and link.name.removesuffix('-video-index0').endswith(f'_{serial}')]
        if len(found) != 1:
            raise CameraError(f'{who}: {len(found)} cameras have the serial {serial!r}; '
                              f'present: {present}')
        return found[0]
    path = Path(device)
    if path.parent not in (folder / 'by-id', folder / 'by-path'):
        raise CameraError(f'{who}: device {device!r} does not name a camera for good; give a '
                          f'path in {folder}/by-id or by-path, or serial:TEXT; present: {present}')
    if not path.exists():
        raise CameraError(f'{who}: {device} is absent; present: {present}')
    return path


def _open_capture(path: str) -> Any:
    return cv2.VideoCapture(path, cv2.CAP_V4L2)


class V4l2Camera:
    """One video device; see ``CameraSource``."""

    def __init__(self, camera: Camera, folder: Path = FOLDER,
                 opener: Callable[[str], Any] = _open_capture) -> None:
        """
        Open nothing yet.

        :param opener: makes a cv2.VideoCapture-like object of a path; a test passes its own.
        """
        self.camera = camera
        self.device = camera.device
        self._folder, self._opener = folder, opener
        self._capture: Any = None

    def open(self) -> None:
        """Connect, ask for size, rate and MJPEG, and wait for a first frame."""
        path = resolve_device(self.camera, self._folder)
        capture = self._open_bounded(str(path.resolve()))
        if capture is None or not capture.isOpened():
            raise CameraError(f'camera {self.camera.role}: {path} cannot be opened; is it in use '
                              'by another program, or not readable (group video)?')
        self._capture = capture
        try:
            self._configure(path)
        except CameraError:
            self.close()
            raise

    def grab(self) -> Frame:
        """Wait for the next frame, as long as the interface waits for its device."""
        if self._capture is None:
            raise CameraError(f'camera {self.camera.role}: not open')
        ok, data = self._capture.read()
        if not ok:
            raise CameraError(f'camera {self.camera.role}: {self.device} gave no frame; '
                              'was it unplugged?')
        return self._frame(np.asarray(data))

    def intrinsics(self) -> Optional[Pinhole]:
        """Return None: not calibrated."""
        return None

    def close(self) -> None:
        """Let go of the device; idempotent."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open_bounded(self, path: str) -> Any:
        """Open in a thread of its own, because a hung device blocks open() without end."""
        result: list[Any] = []
        abandoned = threading.Event()

        def work() -> None:
            capture = self._opener(path)
            result.append(capture)
            if abandoned.is_set():
                capture.release()

        thread = threading.Thread(target=work, daemon=True, name=f'open {path}')
        thread.start()
        thread.join(OPEN_TIMEOUT_S)
        if thread.is_alive():
            abandoned.set()
            raise CameraError(f'camera {self.camera.role}: {self.device} did not open within '
                              f'{OPEN_TIMEOUT_S:g} s; unplug it and plug it in again')
        return result[0] if result else None

    def _configure(self, path: Path) -> None:
        capture, camera = self._capture, self.camera
        mjpeg = cv2.VideoWriter.fourcc(*'MJPG')
        capture.set(cv2.CAP_PROP_FOURCC, mjpeg)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, camera.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, camera.height)
        capture.set(cv2.CAP_PROP_FPS, camera.fps)
        # A deeper queue only makes pictures old.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        compressed = int(capture.get(cv2.CAP_PROP_FOURCC)) == mjpeg
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0 if compressed else 1)
        size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
                int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        if size != (camera.width, camera.height):
            raise CameraError(f'camera {camera.role}: {path} gives {size[0]}x{size[1]}, not '
                              f'{camera.width}x{camera.height}; choose a size that it has')
        deadline = time.monotonic() + FIRST_FRAME_TIMEOUT_S
        while True:
            ok, data = capture.read()
            if ok:
                self._frame(np.asarray(data))
                return
            if time.monotonic() > deadline:
                raise CameraError(f'camera {camera.role}: {path} opened but gave no frame within '
                                  f'{FIRST_FRAME_TIMEOUT_S:g} s')

    def _frame(self, data: np.ndarray) -> Frame:
        stamp = self._stamp()
        if data.ndim == 3 and data.shape[2] == 3:
            return Frame(stamp, 'bgr8', data)
        raw = data.tobytes()
        end = raw.rfind(b'\xff\xd9')
        if not raw.startswith(b'\xff\xd8') or end < 0:
            raise CameraError(f'camera {self.camera.role}: {self.device} gave {len(raw)} bytes '
                              f'that are neither BGR nor JPEG (shape {data.shape})')
        # Drivers hand the whole buffer over; what lies behind the end marker is padding.
        return Frame(stamp, 'jpeg', raw[:end + 2])

    def _stamp(self) -> StampNs:
        """Return the acquisition: the driver's own monotonic stamp where it gives one."""
        now = StampNs.wall()
        taken_ns = round(float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) * 1e6)
        age_ns = time.monotonic_ns() - taken_ns
        return now - age_ns if 0 <= age_ns < MAX_STAMP_AGE_NS else now


def v4l2_lanes(cameras: Sequence[Camera],
               context: SourceContext) -> list[tuple[CameraSource, ...]]:
    """Make one lane per camera; entry point ``v4l2`` of ``mivla.cameras``."""
    del context
    return [(V4l2Camera(camera),) for camera in cameras]
