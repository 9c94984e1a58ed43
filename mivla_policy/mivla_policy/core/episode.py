"""A recorded demonstration as plain arrays: what learning needs to know of a bag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mivla_policy.errors import EpisodeError

__all__ = ['Episode', 'FrameTrack', 'JointTrack']


@dataclass(frozen=True)
class FrameTrack:
    """
    The pictures of one camera.

    :param stamps_ns: int64 (K,), acquisition, strictly ascending.
    :param frames: K encoded pictures (JPEG bytes), as recorded.
    """

    stamps_ns: NDArray[np.int64]
    frames: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Raise EpisodeError when the parts do not fit together."""
        object.__setattr__(self, 'stamps_ns', _stamps(self.stamps_ns, 'frames'))
        object.__setattr__(self, 'frames', tuple(self.frames))
        if len(self.frames) != len(self.stamps_ns):
            raise EpisodeError(f'{len(self.frames)} frames with {len(self.stamps_ns)} stamps')


@dataclass(frozen=True)
class JointTrack:
    """
    A stream of joint positions, measured or commanded.

    :param stamps_ns: int64 (N,), acquisition of a state or due time of a command, strictly
        ascending.
    :param values: float64 (N, J) [rad, m] in profile order.
    """

    stamps_ns: NDArray[np.int64]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Raise EpisodeError when the parts do not fit together or a value is not finite."""
        stamps = _stamps(self.stamps_ns, 'joint values')
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or len(values) != len(stamps):
            raise EpisodeError(f'joint values {values.shape} with {len(stamps)} stamps')
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise EpisodeError(f'joint values of row {row} are not finite: {values[row].tolist()}')
        object.__setattr__(self, 'stamps_ns', stamps)
        object.__setattr__(self, 'values', values)


@dataclass(frozen=True)
class Episode:
    """
    One demonstration. All stamps are nanoseconds of one clock (ROS time in a bag).

    :param source: where it came from, for errors and provenance (a bag's name and digest).
    :param instruction: what was done, one sentence.
    :param cameras: camera role -> its pictures.
    :param states: measured positions.
    :param commands: the demonstrator's clean commands, before guard and disturbance.
    :param joint_names: order of the J columns; checked against the profile before training.
    :param profile_hash: of the robot profile it was recorded with; '' where unknown.
    """

    source: str
    instruction: str
    cameras: Mapping[str, FrameTrack]
    states: JointTrack
    commands: JointTrack
    joint_names: tuple[str, ...]
    profile_hash: str = ''

    def __post_init__(self) -> None:
        """Raise EpisodeError (naming ``source``) when something is missing or does not fit."""
        object.__setattr__(self, 'joint_names', tuple(self.joint_names))
        joints = len(self.joint_names)
        for name, track in (('states', self.states), ('commands', self.commands)):
            if track.values.shape[1] != joints:
                raise EpisodeError(
                    f'{self.source}: {name} have {track.values.shape[1]} columns, '
                    f'but {joints} joints are named')
        if not self.cameras:
            raise EpisodeError(f'{self.source}: no camera was recorded')
        if not self.instruction.strip():
            raise EpisodeError(f'{self.source}: no instruction was recorded')

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last command."""
        stamps = self.commands.stamps_ns
        return float(stamps[-1] - stamps[0]) * 1e-9


def _stamps(values: ArrayLike, what: str) -> NDArray[np.int64]:
    """Return stamps as int64 (N,), N >= 1, strictly ascending; raise EpisodeError."""
    stamps = np.asarray(values)
    if stamps.ndim != 1 or not len(stamps):
        raise EpisodeError(f'{what}: no stamps')
    if stamps.dtype.kind not in 'iu':
        raise EpisodeError(f'{what}: stamps are {stamps.dtype}, expected integer nanoseconds')
    stamps = stamps.astype(np.int64)
    steps = np.diff(stamps)
    if (steps <= 0).any():
        row = int(np.argmax(steps <= 0)) + 1
        raise EpisodeError(f'{what}: stamp {stamps[row]} of row {row} is not newer than the last')
    return stamps
