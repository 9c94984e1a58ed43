"""
What the scripted expert streams: a plan from its beginning, then its last pose.

Pure: instants come in. Not thread-safe.
"""

from __future__ import annotations

from typing import Optional, Protocol

import numpy as np

from mivla_core.timing import StampNs, to_ns

__all__ = ['ExpertPlayer', 'Plan']


class Plan(Protocol):
    """A timed joint trajectory; times in s from its start."""

    @property
    def duration(self) -> float:
        """Length [s]."""
        ...

    def position(self, t: float) -> np.ndarray:
        """Return positions (J,); at rest outside the plan."""
        ...

    def velocity(self, t: float) -> np.ndarray:
        """Return velocities (J,)."""
        ...


class ExpertPlayer:
    """Plays one plan after the other; holds the end of the last."""

    def __init__(self) -> None:
        """Begin without anything to stream."""
        self._plan: Optional[Plan] = None
        self._hold: Optional[np.ndarray] = None
        self._begin: Optional[StampNs] = None

    def hold(self, pose: np.ndarray) -> None:
        """Hold a pose (J,)."""
        self._plan, self._hold = None, np.array(pose, dtype=np.float64)

    def play(self, plan: Plan, now: StampNs) -> None:
        """Begin a plan."""
        self._plan, self._hold, self._begin = plan, plan.position(plan.duration), now

    def clear(self) -> None:
        """Forget everything."""
        self._plan = self._hold = self._begin = None

    def finished(self, now: StampNs) -> bool:
        """Whether no plan is being played."""
        return self._plan is None or self._begin is None or (
            now - self._begin >= to_ns(self._plan.duration))

    @property
    def end(self) -> Optional[np.ndarray]:
        """The pose (J,) that is held, now or after the plan."""
        return self._hold

    def sample(self, now: StampNs) -> Optional[tuple[np.ndarray, np.ndarray]]:
        """Return position and velocity (J,) due at ``now``; None without anything to hold."""
        if self._hold is None:
            return None
        if self._plan is None or self._begin is None:
            return self._hold, np.zeros_like(self._hold)
        t = (now - self._begin) * 1e-9
        return self._plan.position(t), self._plan.velocity(t)
