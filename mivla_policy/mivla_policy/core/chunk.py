"""
Playing action chunks: from a few rows per second to set-points at the control rate.

Row i of a chunk is due at ``observation + (i + 1) * dt``. Between rows the player interpolates by
a cubic with continuous velocity, whose tangents are limited so that it never leaves the interval
between its two rows (Fritsch and Carlson, SIAM J. Numer. Anal. 17, 1980). It comes to rest in the
last row and gives nothing behind it: what then happens is the guard's business.

A new chunk is joined by one cubic that starts with the position and velocity of the set-point
that is due at that instant and ends on the new chunk, ``blend`` later. So neither position nor
velocity jumps, wherever the two chunks disagree.

The player is not thread-safe and has no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from mivla_core.timing import StampNs
from mivla_policy.errors import ChunkRefused

__all__ = ['Chunk', 'ChunkPlayer', 'Join', 'SetPoint']

Array = NDArray[np.float64]

MAX_ROWS = 4096


@dataclass(frozen=True)
class Chunk:
    """
    What a policy wants to do next.

    :param chunk_id: of the server that made it, from 1.
    :param observation: stamp of the oldest source behind it.
    :param dt_ns: between rows.
    :param position: (T, J) [rad, m]; row i is due at ``observation + (i + 1) * dt_ns``.
    """

    chunk_id: int
    observation: StampNs
    dt_ns: int
    position: Array

    def __post_init__(self) -> None:
        """Raise ChunkRefused for rows that cannot be played."""
        position = np.array(self.position, dtype=np.float64)
        if position.ndim != 2 or not 1 <= len(position) <= MAX_ROWS or not position.shape[1]:
            raise ChunkRefused(f'chunk {self.chunk_id} has rows of shape {position.shape}; '
                               f'expected (T, J) with T from 1 to {MAX_ROWS}')
        if not np.isfinite(position).all():
            row = int(np.argwhere(~np.isfinite(position))[0][0])
            raise ChunkRefused(f'chunk {self.chunk_id}: row {row} is not finite')
        if not 1_000_000 <= self.dt_ns <= 10_000_000_000:
            raise ChunkRefused(f'chunk {self.chunk_id}: dt of {self.dt_ns} ns; expected '
                               '1 ms to 10 s')
        position.setflags(write=False)
        object.__setattr__(self, 'position', position)

    @property
    def start(self) -> StampNs:
        """When the first row is due."""
        return self.observation + self.dt_ns

    @property
    def end(self) -> StampNs:
        """When the last row is due."""
        return self.observation + len(self.position) * self.dt_ns


@dataclass(frozen=True)
class SetPoint:
    """What is due at one instant: position and velocity (J,), and the chunk it came from."""

    position: Array
    velocity: Array
    chunk_id: int
    observation: StampNs


@dataclass(frozen=True)
class Join:
    """
    How a chunk was taken over.

    :param skipped: rows that had passed already.
    :param seam: largest disagreement of the two chunks where the new one begins [rad, m]; NaN
        when nothing was being played there.
    """

    skipped: int
    seam: float


class ChunkPlayer:
    """Plays the newest chunk, joined smoothly to what was being played."""

    def __init__(self, joints: int, blend_ns: int) -> None:
        """
        Make an empty player.

        :param joints: J.
        :param blend_ns: duration of a join.
        """
        self.joints = joints
        self.blend_ns = blend_ns
        self._chunk: Optional[Chunk] = None
        self._curve: Optional[_Curve] = None

    @property
    def chunk(self) -> Optional[Chunk]:
        """The chunk accepted last, played out or not."""
        return self._chunk

    def clear(self) -> None:
        """Forget everything."""
        self._chunk = self._curve = None

    def playing(self, now: StampNs) -> bool:
        """Whether there is a set-point for ``now``."""
        return self._curve is not None and now <= self._curve.end

    def remaining_ns(self, now: StampNs) -> int:
        """Return ns until the set-points run out: < 0 when they have, 0 without a chunk."""
        return 0 if self._chunk is None else self._chunk.end - now

    def executed_rows(self, now: StampNs) -> int:
        """Return how many rows of the newest chunk have been due by ``now``; 0 without one."""
        if self._chunk is None:
            return 0
        rows = (now - self._chunk.observation) // self._chunk.dt_ns
        return min(max(rows, 0), len(self._chunk.position))

    def prefix(self, now: StampNs, steps: int) -> Array:
        """Return the next ``steps`` rows (n <= steps, J) that are still to be executed."""
        if self._chunk is None or steps <= 0:
            return np.empty((0, self.joints))
        begin = self.executed_rows(now)
        return self._chunk.position[begin:begin + steps]

    def accept(self, chunk: Chunk, now: StampNs, start: Optional[Array] = None) -> Join:
        """
        Take a chunk over from ``now`` on.

        :param start: (J,) where the robot rests, used when nothing is being played: the last
            applied set-point.
        :raises ChunkRefused: wrong joints, older than the one being played, from the future,
            too late to be joined, or no start.
        """
        self._check(chunk, now)
        if self.playing(now):
            assert self._curve is not None
            position, velocity = self._curve.at(now)
        elif start is not None:
            position = np.asarray(start, dtype=np.float64)
            velocity = np.zeros(self.joints)
            if position.shape != (self.joints,) or not np.isfinite(position).all():
                raise ChunkRefused(f'start {position} is not {self.joints} finite numbers')
        else:
            raise ChunkRefused(f'chunk {chunk.chunk_id}: nothing is being played and the last '
                               'applied set-point is not known; is the driver publishing '
                               'command/applied?')
        target = _Curve.through(chunk)
        seam = self._seam(target, now)
        self._curve = target.entered(now, position, velocity, self.blend_ns)
        self._chunk = chunk
        return Join(skipped=self.executed_rows(now), seam=seam)

    def sample(self, now: StampNs) -> Optional[SetPoint]:
        """
        Return the set-point due at ``now``, or None when there is none.

        An instant before the last join counts as the instant of the join.
        """
        if self._curve is None or self._chunk is None or now > self._curve.end:
            return None
        position, velocity = self._curve.at(now)
        return SetPoint(position, velocity, self._chunk.chunk_id, self._chunk.observation)

    def _check(self, chunk: Chunk, now: StampNs) -> None:
        name = f'chunk {chunk.chunk_id}'
        if chunk.position.shape[1] != self.joints:
            raise ChunkRefused(f'{name} is for {chunk.position.shape[1]} joints, not '
                               f'{self.joints}')
        if chunk.observation > now:
            raise ChunkRefused(f'{name}: its observation is {(chunk.observation - now) / 1e6:.1f} '
                               'ms in the future; do the hosts share a clock?')
        if self._chunk is not None and chunk.observation <= self._chunk.observation:
            raise ChunkRefused(f'{name}: its observation is not newer than that of chunk '
                               f'{self._chunk.chunk_id}')
        # A join squeezed into less would ask for speeds that only the guard could tame.
        left = chunk.end - now
        if left < self.blend_ns // 4 or left <= 0:
            raise ChunkRefused(f'{name} came too late: {left / 1e6:.1f} ms are left of it')

    def _seam(self, target: _Curve, now: StampNs) -> float:
        at = max(now, target.begin)
        if self._curve is None or at > self._curve.end:
            return float('nan')
        return float(np.abs(target.at(at)[0] - self._curve.at(at)[0]).max())


class _Curve:
    """A piecewise cubic (Hermite) curve through K knots; times in ns after ``begin``."""

    def __init__(self, begin: StampNs, times: NDArray[np.int64], position: Array,
                 velocity: Array) -> None:
        self.begin = begin
        self.end = begin + int(times[-1])
        self._times = times
        self._position = position
        self._velocity = velocity

    @classmethod
    def through(cls, chunk: Chunk) -> _Curve:
        """Return the curve through the rows of a chunk, at rest in the last one."""
        rows = chunk.position
        times = chunk.dt_ns * np.arange(len(rows), dtype=np.int64)
        return cls(chunk.start, times, rows, _tangents(rows, chunk.dt_ns * 1e-9))

    def at(self, instant: StampNs) -> tuple[Array, Array]:
        """Return position and velocity (J,); an instant outside counts as the nearer end."""
        times = self._times
        offset = min(max(instant - self.begin, 0), int(times[-1]))
        right = int(np.searchsorted(times, offset, side='left'))
        if right == 0 or offset == times[right]:
            return self._position[right].copy(), self._velocity[right].copy()
        left = right - 1
        width_ns = int(times[right] - times[left])
        h = width_ns * 1e-9
        s = (offset - int(times[left])) / width_ns
        p0, p1 = self._position[left], self._position[right]
        m0, m1 = self._velocity[left] * h, self._velocity[right] * h
        # Written in differences: as exact with knots a nanosecond apart as with whole seconds.
        step = p1 - p0
        a, b = m0 - step, step - m1
        position = p0 + s * step + s * (1.0 - s) * ((1.0 - s) * a + s * b)
        velocity = (step + (1.0 - s) * (1.0 - 3.0 * s) * a + s * (2.0 - 3.0 * s) * b) / h
        return position, velocity

    def entered(self, now: StampNs, position: Array, velocity: Array, blend_ns: int) -> _Curve:
        """Return this curve from ``now`` on, reached by one cubic from (position, velocity)."""
        reach = min(max(now + blend_ns, self.begin), self.end)
        reached = self.at(reach)
        knots = self._times + (self.begin - now)
        later = knots > reach - now
        times = np.concatenate(([0, reach - now], knots[later])).astype(np.int64)
        return _Curve(
            now, times, np.vstack((position, reached[0], self._position[later])),
            np.vstack((velocity, reached[1], self._velocity[later])))


def _tangents(rows: Array, dt: float) -> Array:
    """Return velocities (T, J) at rows ``dt`` s apart; Catmull-Rom, limited to be monotone."""
    tangents = np.zeros_like(rows)
    if len(rows) < 2:
        return tangents
    slopes = np.diff(rows, axis=0) / dt
    tangents[0] = slopes[0]
    before, after = slopes[:-1], slopes[1:]
    limit = 3.0 * np.minimum(np.abs(before), np.abs(after))
    # Signs, not a product: the product of two tiny slopes underflows to zero.
    same_way = np.sign(before) == np.sign(after)
    tangents[1:-1] = np.where(same_way, np.clip((before + after) / 2.0, -limit, limit), 0.0)
    return tangents
