"""
Which measurements belong together: one rule for serving and for learning.

A policy is asked when a frame arrives. Its observation holds the newest frame of every camera,
and the newest joint state that is not newer than the oldest of those frames. The stamp of the
observation is its oldest source. Row i of the answer is due at ``stamp + (i + 1) * dt``.

Stamps are integer nanoseconds of one clock, ascending.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ['due_times', 'newest_not_after', 'pick_sources', 'sample_at']

Stamps = NDArray[np.int64]


def newest_not_after(stamps: Stamps | Sequence[int], instant: int) -> int | None:
    """Return the index of the newest stamp <= instant, or None when all are newer."""
    index = int(np.searchsorted(np.asarray(stamps, dtype=np.int64), instant, side='right')) - 1
    return index if index >= 0 else None


def pick_sources(frames: Sequence[Stamps | Sequence[int]], states: Stamps | Sequence[int],
                 now: int) -> tuple[tuple[int, ...], int, int] | None:
    """
    Choose one frame per camera and one state for an observation made at ``now``.

    :param frames: frame stamps of every camera.
    :param states: stamps of the joint states.
    :param now: the instant of the decision, on the clock of the stamps.
    :return: frame index per camera, state index, stamp of the observation (its oldest source);
        None while a source is missing.
    """
    picked = [newest_not_after(stamps, now) for stamps in frames]
    if not picked or any(index is None for index in picked):
        return None
    chosen = tuple(index for index in picked if index is not None)
    oldest = min(int(stamps[index]) for stamps, index in zip(frames, chosen, strict=True))
    state = newest_not_after(states, oldest)
    if state is None:
        return None
    return chosen, state, min(oldest, int(states[state]))


def due_times(stamp: int, dt_ns: int, horizon: int) -> Stamps:
    """Return the instants (T,) at which the rows of a chunk are due."""
    return stamp + dt_ns * np.arange(1, horizon + 1, dtype=np.int64)


def sample_at(stamps: Stamps, values: NDArray[np.float64],
              instants: Stamps) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """
    Interpolate a stream linearly, and repeat its last value after its end.

    :param stamps: (N,) ascending; values (N, J).
    :param instants: (T,).
    :return: values (T, J) and a mask (T,) that is False where the stream had ended or not begun.
    """
    # Offsets from the first stamp: float64 cannot hold nanoseconds since 1970 exactly.
    x = (instants - stamps[0]).astype(np.float64)
    known = (stamps - stamps[0]).astype(np.float64)
    columns = [np.interp(x, known, values[:, j]) for j in range(values.shape[1])]
    inside = (instants >= stamps[0]) & (instants <= stamps[-1])
    return np.stack(columns, axis=-1), inside
