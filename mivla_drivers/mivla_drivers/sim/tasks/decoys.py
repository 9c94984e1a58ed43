"""Things that look like a task's and are not meant, apart from it and from each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mivla_drivers.sim.tasks.base import Place

__all__ = ['DECOYS', 'draw_decoys', 'no_decoys']

DECOYS = ('decoy_0', 'decoy_1')     # their bodies, of every task


def draw_decoys(rng: np.random.Generator, x: tuple[float, float], y: tuple[float, float],
                apart: float, taken: Sequence[tuple[float, float]],
                turned: bool = False) -> list[Place]:
    """
    Draw where they stand; the order of the draws is part of what a seed means.

    :param x: range in the base frame [m]; ``y`` too.
    :param apart: so far at least from each other and from what is there [m].
    :param taken: (x, y) of what is there.
    :param turned: turned at random about the vertical.
    """
    there, places = list(taken), []
    for name in DECOYS:
        while True:
            spot = float(rng.uniform(*x)), float(rng.uniform(*y))
            if all(np.hypot(spot[0] - other[0], spot[1] - other[1]) > apart for other in there):
                break
        there.append(spot)
        yaw = float(rng.uniform(-np.pi, np.pi)) if turned else 0.0
        places.append(Place(name, spot, yaw))
    return places


def no_decoys() -> list[Place]:
    """Return a table without any."""
    return [Place(name, None) for name in DECOYS]
