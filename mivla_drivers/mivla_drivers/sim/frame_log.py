"""
A bounded log of the frames that the emulated device received, for the jitter and latency
benchmarks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mivla_core.timing import NowNs
from mivla_drivers.sim.arm_model import SimError

__all__ = ['FRAME_DTYPE', 'FrameLog']

# Receive time on CLOCK_MONOTONIC [ns], CAN id, and the eight data bytes (padded with zeros).
FRAME_DTYPE = np.dtype([('now_ns', '<i8'), ('can_id', '<u4'), ('data', 'V8')])


class FrameLog:
    """
    Frames in the order of their arrival; keeps the first ``capacity`` and counts the rest.

    :param path: file that :meth:`save` writes, in NumPy's .npy format without pickles.
    :raises SimError: the folder of ``path`` does not exist.
    """

    def __init__(self, path: Path, *, capacity: int = 2_000_000) -> None:
        if not path.parent.is_dir():
            raise SimError(f'frame log {path}: no such folder')
        self._path = path
        self._rows = np.zeros(capacity, dtype=FRAME_DTYPE)
        self.count = 0
        self.dropped = 0

    def add(self, now: NowNs, can_id: int, data: bytes) -> None:
        """Note one frame."""
        if self.count == len(self._rows):
            self.dropped += 1
            return
        self._rows[self.count] = (int(now), can_id, bytes(data).ljust(8, b'\0'))
        self.count += 1

    def save(self) -> None:
        """
        Write the file.

        :raises SimError: the file cannot be written.
        """
        try:
            with self._path.open('wb') as file:
                np.save(file, self._rows[: self.count], allow_pickle=False)
        except OSError as error:
            raise SimError(f'cannot write the frame log {self._path}: {error}') from error
