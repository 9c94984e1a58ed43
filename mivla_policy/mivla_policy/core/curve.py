"""
Motions as polynomials: through the rows of a chunk, and from one motion into another.

Times are ns after the beginning of the curve; positions (J,) in rad or m.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mivla_policy.core.chunk import Array

__all__ = ['Curve', 'Fade', 'FadeTable', 'bend']

# How far rows may be bent, in steps: weight of the second differences against the distance.
_WEIGHTS = (0.02, 0.06, 0.2, 0.6, 2.0)


class Curve:
    """
    A cubic spline: position, velocity and acceleration are continuous, but in its last stretch.

    There it comes to rest in the last row; at its first row it has no acceleration.
    """

    def __init__(self, times: Sequence[int], rows: Array) -> None:
        """
        Lay the curve.

        :param times: (K,) of the rows [ns], ascending; K >= 2.
        :param rows: (K, J).
        """
        self.times, self.rows = [int(time) for time in times], rows
        self.end = self.times[-1]
        widths = np.diff(np.asarray(times, dtype=np.float64)) * 1e-9
        step = np.diff(rows, axis=0)
        tangents = _tangents(widths, step)
        tangents[-1] = 0.0
        h = widths[:, None]
        m0, m1 = tangents[:-1] * h, tangents[1:] * h
        # In powers of the share s of a stretch that has passed; (K - 1, 4, J).
        self._powers = np.stack((rows[:-1], m0, 3.0 * step - 2.0 * m0 - m1, m0 + m1 - 2.0 * step),
                                axis=1)
        self._widths: list[float] = widths.tolist()
        # A cubic lies within its Bezier points.
        inner = np.concatenate((rows, rows[:-1] + m0 / 3.0, rows[1:] - m1 / 3.0))
        self.lowest, self.highest = inner.min(axis=0), inner.max(axis=0)

    def at(self, time: int) -> Array:
        """Return position and velocity (2, J); a time outside counts as the nearer end."""
        time = min(max(time, self.times[0]), self.end)
        i = min(bisect_right(self.times, time), len(self._widths)) - 1
        h = self._widths[i]
        s = (time - self.times[i]) * 1e-9 / h
        basis = np.array(((1.0, s, s * s, s * s * s),
                          (0.0, 1.0 / h, 2.0 * s / h, 3.0 * s * s / h)))
        value: Array = basis @ self._powers[i]
        return value

    def sampled(self, times: NDArray[np.int64]) -> Array:
        """Return position, velocity and acceleration (3, n, J) at times inside the curve."""
        knots = np.asarray(self.times)
        i = np.minimum(np.searchsorted(knots, times, side='right'), len(self._widths)) - 1
        h = np.asarray(self._widths)[i]
        s = (times - knots[i]) * 1e-9 / h
        basis = np.zeros((len(s), 3, 4))
        basis[:, 0, 0] = basis[:, 1, 1] = 1.0
        basis[:, 2, 2] = 2.0
        basis[:, 0, 1] = s
        basis[:, 0, 2] = s * s
        basis[:, 0, 3] = s * s * s
        basis[:, 1, 2] = 2.0 * s
        basis[:, 1, 3] = 3.0 * s * s
        basis[:, 2, 3] = 6.0 * s
        value: Array = (basis @ self._powers[i]).transpose(1, 0, 2)
        value[1] /= h[:, None]
        value[2] /= (h * h)[:, None]
        return value


class Fade:
    """
    A difference of two motions that fades: a quintic from (position, velocity, acceleration) to 0.

    Added to the later motion it leads from the earlier one into it, without a jump in any of
    the three.
    """

    def __init__(self, start: Array, duration_ns: int) -> None:
        """
        Lay the quintic.

        :param start: (3, J).
        """
        self.duration_ns = duration_ns
        self._h = duration_ns * 1e-9
        self._powers = _QUINTIC @ (start * np.array(((1.0,), (self._h,), (self._h ** 2,))))

    def at(self, time: int) -> Array:
        """Return position and velocity (2, J), for times from 0 to the duration."""
        h = self._h
        s = time * 1e-9 / h
        s2 = s * s
        basis = np.array(((1.0, s, s2, s2 * s, s2 * s2, s2 * s2 * s),
                          (0.0, 1.0 / h, 2.0 * s / h, 3.0 * s2 / h, 4.0 * s2 * s / h,
                           5.0 * s2 * s2 / h)))
        value: Array = basis @ self._powers
        return value

    def acceleration(self, time: int) -> Array:
        """Return the acceleration (J,)."""
        s = time * 1e-9 / self._h
        value: Array = np.array((0.0, 0.0, 2.0, 6.0 * s, 12.0 * s * s, 20.0 * s ** 3)
                                ) @ self._powers / self._h ** 2
        return value

    def largest(self) -> Array:
        """Return a bound (J,) of how large the difference becomes."""
        value: Array = np.abs(self._powers[:3]).T @ np.array((1.0, 0.2, 0.04))
        return value


class FadeTable:
    """Quintics of several durations at fixed shares of them, all at once."""

    def __init__(self, shares: Sequence[float]) -> None:
        """
        Prepare the table.

        :param shares: (n,) of each duration that have passed.
        """
        s = np.asarray(shares, dtype=np.float64)
        derived = np.zeros((3, len(s), 6))
        for order in range(3):
            for power in range(order, 6):
                factor = float(np.prod(range(power - order + 1, power + 1)))
                derived[order, :, power] = factor * s ** (power - order)
        self._basis = derived @ _QUINTIC                                  # (3, n, 3)

    def __call__(self, start: Array, durations: Array) -> Array:
        """
        Return position, velocity and acceleration (3, D, n, J).

        :param start: (3, J).
        :param durations: (D,) [s].
        """
        scale = durations[:, None] ** np.arange(3)
        scaled = scale[:, :, None] * start                                # (D, 3, J)
        value: Array = self._basis[:, None] @ scaled / scale.T[:, :, None, None]
        return value


# Powers 0..5 of the quintic that starts with (1, 0, 0), (0, 1, 0), (0, 0, 1) and ends in zeros.
_QUINTIC = np.array(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.5),
                     (-10.0, -6.0, -1.5), (15.0, 8.0, 1.5), (-6.0, -3.0, -0.5)))


def _tangents(widths: Array, step: Array) -> Array:
    """Return velocities (K, J) at the rows of the natural spline with these stretches."""
    if np.ptp(widths) < 1e-12:
        even: Array = _even_tangents(len(widths)) @ (step / widths[0])
        return even
    inverse = 1.0 / widths
    return _solved(_system(inverse), _right(inverse[:, None], step * inverse[:, None]))


@lru_cache(maxsize=8)
def _even_tangents(count: int) -> Array:
    """Return the matrix (K, K - 1) from slopes to tangents of an evenly spaced spline."""
    return _solved(_system(np.ones(count)), _right(np.ones((count, 1)), np.eye(count)))


def _system(inverse: Array) -> Array:
    i = np.arange(len(inverse))
    system = np.zeros((len(i) + 1, len(i) + 1))
    system[i, i + 1] = system[i + 1, i] = inverse
    system[i, i] += 2.0 * inverse
    system[i + 1, i + 1] += 2.0 * inverse
    return system


def _right(inverse: Array, slopes: Array) -> Array:
    scaled = 3.0 * slopes * inverse
    return np.concatenate((scaled[:1], scaled[:-1] + scaled[1:], scaled[-1:]))


def bend(rows: Array, dt: float, acceleration: Array, farthest: Array) -> Array:
    """
    Return rows (T, J) that the joints can follow, as near to the given ones as need be.

    A joint whose rows ask for no more than its acceleration keeps them as they are. Of any other
    the second differences are made smaller (Whittaker 1923), just enough, and no row by more
    than ``farthest``; what is left to be limited is the guard's business.

    :param rows: (T, J), ``dt`` seconds apart.
    :param acceleration: (J,) [rad/s^2, m/s^2].
    :param farthest: (J,) [rad, m].
    """
    if len(rows) < 4:
        return rows
    peaks = _peaks(rows[None], dt)[0]
    wild = peaks > acceleration
    if not wild.any():
        return rows
    choices = np.concatenate((rows[None, :, wild], _benders(len(rows)) @ rows[:, wild]))
    allowed = (np.abs(choices - choices[:1]).max(axis=1) <= farthest[wild])    # (C, w)
    fits = allowed & (_peaks(choices, dt) <= acceleration[wild])
    # The first that fits, else the most that is allowed: with the weight the bending grows.
    chosen = np.where(fits.any(axis=0), fits.argmax(axis=0), allowed.sum(axis=0) - 1)
    bent = rows.copy()
    bent[:, wild] = np.take_along_axis(choices, chosen[None, None, :], axis=0)[0]
    return bent


def _peaks(rows: Array, dt: float) -> Array:
    """Return the largest acceleration (C, J) of the splines through rows (C, T, J)."""
    curves: Array = _curvature(rows.shape[1]) @ rows / (dt * dt)
    value: Array = np.abs(curves).max(axis=1)
    return value


@lru_cache(maxsize=8)
def _curvature(count: int) -> Array:
    """Return the matrix from rows to the accelerations (T - 2, T) of their natural spline."""
    inner = count - 2
    system = 4.0 * np.eye(inner) + np.eye(inner, k=1) + np.eye(inner, k=-1)
    return _solved(system, 6.0 * np.diff(np.eye(count), n=2, axis=0))


def _solved(system: Array, right: Array) -> Array:
    """Return x of ``system`` x = ``right``."""
    return np.linalg.solve(system, right).astype(np.float64, copy=False)


@lru_cache(maxsize=8)
def _benders(count: int) -> Array:
    """Return a smoothing matrix (C, T, T) per weight."""
    difference = np.diff(np.eye(count), n=2, axis=0)
    return np.stack([np.linalg.inv(np.eye(count) + weight * difference.T @ difference)
                     for weight in _WEIGHTS])
