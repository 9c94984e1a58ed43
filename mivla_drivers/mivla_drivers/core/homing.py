"""The operator's motion to a named pose: a smooth straight line in joint space."""

from __future__ import annotations

from collections.abc import Sequence

from mivla_drivers.core.limits import JointLimits

__all__ = ['JointPath']


class JointPath:
    """
    Minimum-jerk motion of all joints together, from rest to rest.

    As fast as ramp velocity and acceleration limits allow: its peak speed is 15/8 of the mean, its
    peak acceleration 10/sqrt(3) times distance over duration squared.
    """

    def __init__(self, start: Sequence[float], goal: Sequence[float],
                 limits: JointLimits) -> None:
        self._start = tuple(start)
        self._delta = tuple(b - a for a, b in zip(start, goal))
        self.duration = max(max(1.875 * abs(d) / ramp, (5.7736 * abs(d) / a) ** 0.5)
                            for d, ramp, a in zip(self._delta, limits.ramp, limits.acceleration))
        self._goal = tuple(goal)
        self._elapsed = 0.0

    @property
    def done(self) -> bool:
        """Whether the goal has been reached."""
        return self._elapsed >= self.duration

    def advance(self, dt: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return position and velocity (J,) ``dt`` seconds further along."""
        self._elapsed += dt
        if self.done:
            return self._goal, (0.0,) * len(self._goal)
        s = self._elapsed / self.duration
        share = s * s * s * (10.0 + s * (6.0 * s - 15.0))
        slope = 30.0 * (s * (1.0 - s)) ** 2 / self.duration
        return (tuple(q + d * share for q, d in zip(self._start, self._delta)),
                tuple(d * slope for d in self._delta))
