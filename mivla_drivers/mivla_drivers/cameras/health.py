"""
Whether a camera delivers: rate, age, and a picture that has frozen.

Pure: instants come in as arguments. A frozen picture is one whose digest has not changed for
longer than a limit while frames keep coming, which no sensor with noise does.
"""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Optional, Union

import numpy as np

from mivla_core.timing import NowNs

__all__ = ['FrameHealth', 'Health', 'Level', 'picture_digest']

WINDOW_NS = 2_000_000_000
FROZEN_NS = 500_000_000
SUBSAMPLE = 8


class Level(IntEnum):
    """Severity, with the values of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Health:
    """
    One camera at one instant.

    :param rate: frames per second over the last two seconds.
    :param age: s since the last frame; NaN before the first.
    :param frozen: s for which the picture has been the same.
    """

    level: Level
    message: str
    rate: float
    age: float
    frozen: float
    frames: int


def picture_digest(data: Union[bytes, np.ndarray]) -> int:
    """Return a cheap digest: of all bytes of a JPEG, of every 8th pixel of a raw picture."""
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data[::SUBSAMPLE, ::SUBSAMPLE]).tobytes()
    return zlib.crc32(data)


class FrameHealth:
    """Statistics of one camera."""

    def __init__(self, fps: float, frozen_ns: int = FROZEN_NS) -> None:
        """
        Start without frames.

        :param fps: what the camera is to deliver.
        :param frozen_ns: for how long a picture may stay identical.
        """
        self._fps = fps
        self._frozen_ns = frozen_ns
        self._stale_ns = max(round(5e9 / fps), 500_000_000)
        self._times: deque[NowNs] = deque()
        self._digest: Optional[int] = None
        self._changed: Optional[NowNs] = None
        self._frames = 0
        self._fault = ''

    def frame(self, now: NowNs, digest: int) -> None:
        """Count a frame received at ``now``."""
        self._fault = ''
        self._frames += 1
        if digest != self._digest or self._changed is None:
            self._digest, self._changed = digest, now
        self._times.append(now)
        while now - self._times[0] > WINDOW_NS:
            self._times.popleft()

    def lost(self, reason: str) -> None:
        """Note that the camera is gone, until its next frame; ``reason`` is for an operator."""
        self._fault = reason
        self._times.clear()
        self._changed = None

    def report(self, now: NowNs) -> Health:
        """Judge the camera at ``now``."""
        times = [instant for instant in self._times if now - instant <= WINDOW_NS]
        span = times[-1] - times[0] if len(times) > 1 else 0
        rate = (len(times) - 1) * 1e9 / span if span else 0.0
        age_ns = now - self._times[-1] if self._times else None
        frozen_ns = (self._times[-1] - self._changed
                     if self._times and self._changed is not None else 0)
        level, message = self._judge(rate, age_ns, frozen_ns)
        age = float('nan') if age_ns is None else age_ns * 1e-9
        return Health(level, message, rate, age, frozen_ns * 1e-9, self._frames)

    def _judge(self, rate: float, age_ns: Optional[int], frozen_ns: int) -> tuple[Level, str]:
        if self._fault:
            return Level.ERROR, self._fault
        if age_ns is None:
            return Level.WARN, 'no frame yet'
        if age_ns > self._stale_ns:
            return Level.ERROR, f'no frame for {age_ns * 1e-9:.1f} s'
        if frozen_ns > self._frozen_ns:
            return Level.ERROR, f'picture has been identical for {frozen_ns * 1e-9:.1f} s'
        if rate < 0.8 * self._fps:
            return Level.WARN, f'{rate:.1f} frames/s, expected {self._fps:g}'
        return Level.OK, f'{rate:.1f} frames/s'
