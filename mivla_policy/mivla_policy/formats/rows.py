"""
An episode as rows of one rate, chosen as live inference would have chosen them.

Row k is what the policy would have been asked at ``t0 + k / fps``: the newest picture of every
camera, the newest measured state that is not newer than they are. Its action is the first row of
the answer: the command that is due one step after the observation. So row k + i of a data set is
row i of the chunk that row k asks for, in every format that is written from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from mivla_policy.core.align import due_times, pick_sources, sample_at
from mivla_policy.core.episode import Commanded, Episode, FrameTrack, Measured
from mivla_policy.errors import EpisodeError, FormatError

__all__ = ['Rows', 'from_rows', 'to_rows']

# A picture that is older shows another scene than the state beside it.
OLDEST_NS = 500_000_000
MAX_FPS = 1000


@dataclass(frozen=True)
class Rows:
    """
    N rows of an episode.

    :param fps: rows per second.
    :param stamps_ns: int64 (N,), of the observations: the oldest source of each.
    :param states: float64 (N, J), measured [rad, m].
    :param actions: float64 (N, J), commanded [rad, m], due one step after the observation.
    :param targets: float64 (N, J), commanded [rad, m], due at the observation itself.
    :param velocities: float64 (N, J) [rad/s, m/s], slope of the measured positions.
    :param frames: camera role -> int64 (N,), which of the episode's pictures.
    :param interventions: bool (N,), whose action a person gave in an episode that a policy
        commanded too.
    """

    fps: int
    stamps_ns: NDArray[np.int64]
    states: NDArray[np.float64]
    actions: NDArray[np.float64]
    targets: NDArray[np.float64]
    velocities: NDArray[np.float64]
    frames: Mapping[str, NDArray[np.int64]]
    interventions: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return N."""
        return len(self.stamps_ns)


def to_rows(episode: Episode, fps: int, cameras: Sequence[str]) -> Rows:
    """
    Resample an episode.

    :param cameras: roles whose pictures the rows have.
    :raises EpisodeError: a camera is missing or stood still, or there is no row at all.
    :raises FormatError: the rate is out of range.
    """
    if not 1 <= fps <= MAX_FPS:
        raise FormatError(f'{fps} rows per second; expected 1 to {MAX_FPS}')
    if missing := [role for role in cameras if role not in episode.cameras]:
        raise EpisodeError(f'{episode.source}: no pictures of camera {", ".join(missing)}; '
                           f'recorded: {", ".join(sorted(episode.cameras))}')
    if not cameras:
        raise FormatError('no camera is chosen; a data set of these formats has pictures')
    tracks = [episode.cameras[role].stamps_ns for role in cameras]
    states, commands = episode.states, episode.commands
    chosen, stamps = [], []
    for instant in _instants(tracks[0], commands.stamps_ns, fps):
        picked = pick_sources(tracks, states.stamps_ns, int(instant))
        if picked is None:
            continue
        frames, row, stamp = picked
        if instant - stamp > OLDEST_NS:
            raise EpisodeError(
                f'{episode.source}: a picture or state is missing for '
                f'{(instant - stamp) * 1e-9:.2f} s before '
                f'{(instant - tracks[0][0]) * 1e-9:.2f} s; cut the episode there')
        chosen.append((row, *frames))
        stamps.append(stamp)
    due = np.array([due_times(stamp, _step(fps), 1)[0] for stamp in stamps], dtype=np.int64)
    keep = np.flatnonzero(due >= commands.stamps_ns[0])
    if not len(keep):
        raise EpisodeError(
            f'{episode.source}: no instant with pictures of all cameras, a joint state before '
            'them and a command after them')
    picked_rows = np.array(chosen, dtype=np.int64)[keep]
    actions, _ = sample_at(commands.stamps_ns, commands.values, due[keep])
    own = np.array(stamps, dtype=np.int64)[keep]
    targets, _ = sample_at(commands.stamps_ns, commands.values, own)
    slopes = _slopes(states.stamps_ns, states.values)
    at = picked_rows[:, 0]
    # Of the command that the action is, or that it lies behind.
    given = np.searchsorted(commands.stamps_ns, due[keep], side='right') - 1
    return Rows(fps, own, states.values[at], actions, targets, slopes[at],
                {role: picked_rows[:, 1 + i] for i, role in enumerate(cameras)},
                episode.intervention[given])


def from_rows(source: str, instruction: str, fps: float, joint_names: Sequence[str],
              states: NDArray[np.float64], actions: NDArray[np.float64],
              pictures: Mapping[str, Sequence[bytes]], profile_hash: str = '',
              assumed: str = '', lead: int = 1,
              sources: Optional[NDArray[np.uint8]] = None) -> Episode:
    """
    Return the episode whose rows these are: what ``to_rows`` gives of it again.

    :param fps: rows per second; data sets have no clock, so the first stamp is 0.
    :param states: (N, J) [rad, m].
    :param actions: (N, J) [rad, m].
    :param pictures: camera role -> N pictures.
    :param assumed: why the states are no measurements; '' where they are.
    :param lead: steps from a row's observation to the instant at which its action is due.
    :param sources: uint8 (N,), who gave each action; None where one and the same gave all.
    :raises EpisodeError: the parts do not fit together.
    """
    stamps = (np.arange(len(states), dtype=np.int64) * 1_000_000_000 / fps).astype(np.int64)
    measured = Measured(stamps, states)
    return Episode(
        source=source, instruction=instruction,
        cameras={role: FrameTrack(stamps, tuple(frames)) for role, frames in pictures.items()},
        states=Measured.assume(measured, assumed) if assumed else measured,
        commands=Commanded(stamps + lead * _step(fps), actions), joint_names=tuple(joint_names),
        profile_hash=profile_hash, sources=sources)


def _step(fps: float) -> int:
    """Return a row's length [ns]."""
    return round(1_000_000_000 / fps)


def _instants(frames: NDArray[np.int64], commands: NDArray[np.int64],
              fps: int) -> NDArray[np.int64]:
    """
    Return the instants at which a row is taken, evenly spaced, until the commands end.

    They begin half a frame after the first picture: jitter of a camera then never makes two rows
    of one picture, or passes one over.
    """
    period = int(np.median(np.diff(frames))) if len(frames) > 1 else 0
    first = int(frames[0]) + period // 2
    count = max(0, (int(commands[-1]) - first) * fps // 1_000_000_000 + 1)
    # From the index, not by adding a rounded step: a long episode must not drift from its rate.
    steps = np.arange(count, dtype=np.int64)
    return first + (steps * 1_000_000_000) // fps


def _slopes(stamps: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the slope (N, J) of a track, per second; 0 where it has one row."""
    if len(stamps) < 2:
        return np.zeros_like(values)
    slopes: NDArray[np.float64] = np.gradient(values, (stamps - stamps[0]) * 1e-9, axis=0)
    return slopes
