"""
What every camera source promises, and how a source is found by name.

A source is a plug-in of the entry-point group ``mivla.cameras``: a callable
``(cameras, context) -> lanes``. A lane is a tuple of sources that one thread has to read, one
after another: a device of its own for real cameras, a whole rig where pictures come out of one
graphics context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Optional, Protocol, Union

import cv2
import numpy as np

from mivla_core.images import decode_jpeg, encode_jpeg
from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Camera
from mivla_core.timing import StampNs
from mivla_drivers.errors import DriverError

__all__ = ['GROUP', 'CameraError', 'CameraSource', 'Frame', 'LaneFactory', 'Pinhole',
           'SourceContext', 'available_sources', 'make_lanes']

GROUP = 'mivla.cameras'


class CameraError(DriverError):
    """A camera is absent, lost, silent or not what the profile says."""


@dataclass(frozen=True)
class Frame:
    """
    One picture.

    :param stamp: its acquisition.
    :param encoding: 'jpeg', or a name of sensor_msgs/image_encodings: rgb8, bgr8, mono8, 16UC1.
    :param data: JPEG bytes; else (H, W, 3) uint8, (H, W) uint8 or uint16. Given away: the source
        does not touch it again.
    """

    stamp: StampNs
    encoding: str
    data: Union[bytes, np.ndarray]

    def as_jpeg(self, quality: int) -> bytes:
        """
        Return the picture as JPEG; bytes that the camera compressed by itself stay as they are.

        :raises ImageError: an encoding that JPEG cannot carry.
        """
        if isinstance(self.data, bytes):
            return self.data
        if self.encoding == 'bgr8':
            return encode_jpeg(cv2.cvtColor(self.data, cv2.COLOR_BGR2RGB), quality)
        return encode_jpeg(self.data, quality)

    def as_array(self) -> tuple[np.ndarray, str]:
        """
        Return the picture uncompressed, with its encoding.

        :raises ImageError: the camera's JPEG cannot be decoded.
        """
        if isinstance(self.data, bytes):
            return decode_jpeg(self.data), 'rgb8'
        return self.data, self.encoding


@dataclass(frozen=True)
class Pinhole:
    """Intrinsics of a camera without distortion [px]."""

    fx: float
    fy: float
    cx: float
    cy: float


class CameraSource(Protocol):
    """One camera. Opened, read and closed by one and the same thread."""

    @property
    def camera(self) -> Camera:
        """Role, size and rate that the profile asks for."""
        ...

    @property
    def device(self) -> str:
        """Which device it is, for an operator."""
        ...

    def open(self) -> None:
        """
        Connect, in bounded time.

        :raises MivlaError: absent, or not what the profile says; names role and device.
        """
        ...

    def grab(self) -> Frame:
        """
        Wait for the next picture, in bounded time.

        :raises MivlaError: lost or silent; ``close`` and ``open`` may bring it back.
        """
        ...

    def intrinsics(self) -> Optional[Pinhole]:
        """Return the intrinsics, or None for a camera that is not calibrated."""
        ...

    def close(self) -> None:
        """Let go of the device; idempotent, never raises."""
        ...


@dataclass(frozen=True)
class SourceContext:
    """
    What a source may need besides its cameras.

    :param robot: name of the robot in the graph.
    :param domain: ROS_DOMAIN_ID.
    """

    profile: RobotProfile
    robot: str
    domain: int


Lane = tuple[CameraSource, ...]
LaneFactory = Callable[[Sequence[Camera], SourceContext], Sequence[Lane]]


def available_sources() -> tuple[str, ...]:
    """Return the names of the known sources."""
    return tuple(sorted(point.name for point in entry_points(group=GROUP)))


def make_lanes(cameras: Sequence[Camera], context: SourceContext) -> list[Lane]:
    """
    Make the sources of a rig; opens nothing.

    :raises CameraError: unknown source (lists the known ones), or a device that cannot be named
        like that.
    """
    lanes: list[Lane] = []
    for name in dict.fromkeys(camera.source for camera in cameras):
        members = [camera for camera in cameras if camera.source == name]
        lanes.extend(tuple(lane) for lane in _factory(name, members)(members, context))
    return lanes


def _factory(name: str, members: Sequence[Camera]) -> LaneFactory:
    points = {point.name: point for point in entry_points(group=GROUP)}
    try:
        if name in points:
            return points[name].load()
    except (ImportError, AttributeError) as err:
        raise CameraError(f'camera source {name!r} cannot be loaded: {err}') from err
    roles = ', '.join(camera.role for camera in members)
    raise CameraError(f'unknown camera source {name!r} (camera {roles}); '
                      f'known: {", ".join(available_sources())}')
