"""
Pictures from a video file or a folder of images, at their own rate, again and again.

A folder plays at the camera's rate in the order of its names; its JPEG files are passed on byte
by byte. A video plays at the rate that it was made with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from mivla_core.images import MAX_IMAGE_PIXELS, decode_jpeg
from mivla_core.robot_parts import Camera
from mivla_core.timing import StampNs
from mivla_drivers.cameras.pace import Pace
from mivla_drivers.cameras.source import CameraError, CameraSource, Frame, Pinhole, SourceContext

__all__ = ['FolderCamera', 'VideoCamera', 'replay_lanes']

JPEG_SUFFIXES = ('.jpg', '.jpeg')
IMAGE_SUFFIXES = (*JPEG_SUFFIXES, '.png')
MAX_FILE_BYTES = 64 << 20


class FolderCamera:
    """A folder of images as a camera; see ``CameraSource``."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.device = camera.device
        self._files: list[Path] = []
        self._next = 0

    def open(self) -> None:
        """List the images and check the size of the first."""
        folder = Path(self.device).expanduser()
        try:
            self._files = sorted(path for path in folder.iterdir()
                                 if path.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as err:
            raise CameraError(f'camera {self.camera.role}: folder {folder}: {err.strerror}; set '
                              'the camera\'s device to a folder of images') from err
        if not self._files:
            raise CameraError(f'camera {self.camera.role}: no image ({", ".join(IMAGE_SUFFIXES)}) '
                              f'in {folder}')
        self._next = 0
        encoding, data = self._load(self._files[0])
        picture = decode_jpeg(data) if isinstance(data, bytes) else data
        _check_size(self.camera, picture, str(self._files[0]))
        self._pace = Pace(self.camera.fps)

    def grab(self) -> Frame:
        """Return the next image; after the last comes the first."""
        if not self._files:
            raise CameraError(f'camera {self.camera.role}: not open')
        self._pace.wait()
        path = self._files[self._next % len(self._files)]
        self._next += 1
        encoding, data = self._load(path)
        return Frame(StampNs.wall(), encoding, data)

    def intrinsics(self) -> Optional[Pinhole]:
        """Return None: nothing is known of the camera that took them."""
        return None

    def close(self) -> None:
        """Forget the list."""
        self._files = []

    def _load(self, path: Path) -> tuple[str, bytes | np.ndarray]:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise CameraError(f'camera {self.camera.role}: {path} is larger than '
                                  f'{MAX_FILE_BYTES} bytes')
            content = path.read_bytes()
        except OSError as err:
            raise CameraError(f'camera {self.camera.role}: {path}: {err.strerror}') from err
        if path.suffix.lower() in JPEG_SUFFIXES:
            return 'jpeg', content
        try:
            picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
        except cv2.error as err:
            raise CameraError(f'camera {self.camera.role}: {path}: '
                              f'{" ".join(str(err).split())}') from err
        if picture is None:
            raise CameraError(f'camera {self.camera.role}: {path} is not an image')
        return 'rgb8', picture


class VideoCamera:
    """A video file as a camera; see ``CameraSource``."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.device = camera.device
        self._video: Optional[cv2.VideoCapture] = None

    def open(self) -> None:
        """Open the file and check its size and rate."""
        path = Path(self.device).expanduser()
        video = cv2.VideoCapture(str(path)) if path.is_file() else None
        if video is None or not video.isOpened():
            raise CameraError(f'camera {self.camera.role}: {path} is not a video file that can '
                              'be read')
        fps = video.get(cv2.CAP_PROP_FPS)
        if not 0.1 <= fps <= 1000.0:
            video.release()
            raise CameraError(f'camera {self.camera.role}: {path} says {fps} frames/s')
        self._video = video
        self._pace = Pace(fps)
        try:
            _check_size(self.camera, self._read(), str(path))
        except CameraError:
            self.close()
            raise
        video.set(cv2.CAP_PROP_POS_FRAMES, 0)

    def grab(self) -> Frame:
        """Return the next frame; after the last comes the first."""
        if self._video is None:
            raise CameraError(f'camera {self.camera.role}: not open')
        self._pace.wait()
        return Frame(StampNs.wall(), 'bgr8', self._read())

    def intrinsics(self) -> Optional[Pinhole]:
        """Return None: nothing is known of the camera that took it."""
        return None

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._video is not None:
            self._video.release()
            self._video = None

    def _read(self) -> np.ndarray:
        assert self._video is not None
        ok, picture = self._video.read()
        if not ok:
            self._video.set(cv2.CAP_PROP_POS_FRAMES, 0)
            ok, picture = self._video.read()
        if not ok:
            raise CameraError(f'camera {self.camera.role}: no frame can be read from '
                              f'{self.device}')
        return np.asarray(picture)


def _check_size(camera: Camera, picture: np.ndarray, where: str) -> None:
    height, width = picture.shape[:2]
    if (width, height) != (camera.width, camera.height) or width * height > MAX_IMAGE_PIXELS:
        raise CameraError(f'camera {camera.role}: {where} is {width}x{height}; the profile says '
                          f'{camera.width}x{camera.height}')


def replay_lanes(cameras: Sequence[Camera],
                 context: SourceContext) -> list[tuple[CameraSource, ...]]:
    """Make one lane per camera; entry point ``replay`` of ``mivla.cameras``."""
    del context
    lanes: list[tuple[CameraSource, ...]] = []
    for camera in cameras:
        if not camera.device:
            raise CameraError(f'camera {camera.role}: source replay needs a device: the path of '
                              'a video or of a folder of images')
        folder = Path(camera.device).expanduser().is_dir() or not Path(camera.device).suffix
        lanes.append((FolderCamera(camera) if folder else VideoCamera(camera),))
    return lanes
