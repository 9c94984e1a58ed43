"""Things on the table that have nothing to do with the task, out of its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import numpy as np

from mivla_drivers.sim.tasks.base import Place
from mivla_drivers.sim.tasks.look import Rgb, colour

__all__ = ['CLUTTER_XML', 'SURROUND', 'draw_clutter', 'no_clutter']

SURROUND = 'contype="2" conaffinity="1"'

# (shape, size [m], height of its centre [m])
_SHAPES = (
    ('box', '0.030 0.022 0.040', 0.040),
    ('box', '0.045 0.035 0.014', 0.014),
    ('cylinder', '0.028 0.045', 0.045),
    ('cylinder', '0.040 0.010', 0.010),
    ('sphere', '0.030', 0.030),
    ('ellipsoid', '0.034 0.024 0.020', 0.020),
)
CLUTTER_XML = ''.join(
    f'<body name="clutter_{index}" pos="6 0 -3"><geom name="clutter_{index}" type="{kind}" '
    f'size="{size}" pos="0 0 {height}" rgba="0.5 0.5 0.5 1" {SURROUND}/></body>'
    for index, (kind, size, height) in enumerate(_SHAPES))

# Both sides of where a task happens, in reach of the head camera's view [m].
_X, _Y = (0.12, 0.50), (0.29, 0.40)
_APART = 0.10

Where = Callable[[np.random.Generator], tuple[float, float]]


def draw_clutter(rng: np.random.Generator, where: Optional[Where] = None,
                 ) -> tuple[tuple[Place, ...], dict[str, Rgb]]:
    """
    Draw two to six things: where they stand, and their colours.

    :param where: draws a spot (x, y) out of the task's way; default: beside an arm's work area.
    """
    count = int(rng.integers(2, len(_SHAPES) + 1))
    chosen = set(rng.permutation(len(_SHAPES))[:count].tolist())
    places: list[Place] = []
    tints: dict[str, Rgb] = {}
    for index in range(len(_SHAPES)):
        spot = _free_spot(rng, places, where or _beside)
        yaw, tint = float(rng.uniform(-np.pi, np.pi)), colour(rng, (0.2, 0.9), (0.3, 0.95))
        places.append(Place(f'clutter_{index}', spot if index in chosen else None, yaw))
        tints[f'clutter_{index}'] = tint
    return tuple(places), tints


def no_clutter() -> tuple[tuple[Place, ...], dict[str, Rgb]]:
    """Return a table that is clear."""
    names = [f'clutter_{index}' for index in range(len(_SHAPES))]
    return tuple(Place(name, None) for name in names), dict.fromkeys(names, (0.5, 0.5, 0.5))


def _beside(rng: np.random.Generator) -> tuple[float, float]:
    x = float(rng.uniform(*_X))
    return x, float(rng.uniform(*_Y)) * (1.0 if rng.uniform() < 0.5 else -1.0)


def _free_spot(rng: np.random.Generator, taken: list[Place], where: Where) -> tuple[float, float]:
    """Draw a spot apart from those taken; the last of ten tries is as good as can be had."""
    for _ in range(10):
        spot = where(rng)
        if all(other.at is None or np.hypot(spot[0] - other.at[0], spot[1] - other.at[1]) > _APART
               for other in taken):
            break
    return spot
