"""Scenarios and the sets of seeds: what a seed makes of the bench."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.tasks import LEVELS, TASKS, Scenario, task_of

__all__ = [
    'DEMO_SEEDS',
    'EVAL_SEEDS',
    'INSTRUCTIONS',
    'LEVELS',
    'PLACES',
    'POOL',
    'Scenario',
    'TRAIN_SEEDS',
    'covering_seeds',
    'demonstration_seeds',
    'seed_split',
]

# What the operator would say; the only words of a task that may reach a policy.
INSTRUCTIONS = {name: task.instruction for name, task in TASKS.items()}

# Disjoint by construction; ``seed_split`` names the set of a seed and a test proves them disjoint.
TRAIN_SEEDS = range(100_000, 200_000)
EVAL_SEEDS = range(200_000, 300_000)
DEMO_SEEDS = range(300_000, 300_100)
# Demonstrations: how many, and on how many places along x and y each thing lies in them.
PLACES = {10: (5, 2), 20: (5, 4), 30: (6, 5), 60: (10, 6), 100: (10, 10)}
POOL = 3000                     # training seeds that their scenes are chosen from


def seed_split(seed: int) -> str:
    """Return 'train', 'eval' or 'demo', or 'other' for a seed that belongs to none of them."""
    for split, seeds in (('train', TRAIN_SEEDS), ('eval', EVAL_SEEDS), ('demo', DEMO_SEEDS)):
        if seed in seeds:
            return split
    return 'other'


def demonstration_seeds(task: str, count: int) -> list[int]:
    """Return the training seeds of 10, 20, 30, 60 or 100 demonstrations; the same every time."""
    return covering_seeds(task, TRAIN_SEEDS[:POOL], *PLACES[count])


def covering_seeds(task: str, seeds: Sequence[int], columns: int, rows: int) -> list[int]:
    """
    Choose seeds whose things cover the table evenly, its edges included.

    A demonstrator who is told to cover the table does the same; thirty seeds at random leave
    corners without a demonstration. Where several things are placed, each covers its own range,
    in another order than the first.

    :param seeds: to choose from, at least one per place.
    :param columns: places along x, from edge to edge; at least two.
    :param rows: places along y.
    :returns: ``columns * rows`` distinct seeds, by the first thing column by column.
    :raises SimError: not enough seeds.
    """
    if columns < 2 or rows < 2 or len(seeds) < columns * rows:
        raise SimError(f'{columns} x {rows} places from {len(seeds)} seeds')
    known = task_of(task)
    units = np.array([known.spots(Scenario.draw(task, seed, 'easy')) for seed in seeds])
    grid = np.array([[column / (columns - 1), row / (rows - 1)]
                     for column in range(columns) for row in range(rows)])
    orders = [np.arange(len(grid)), *(np.random.default_rng(thing).permutation(len(grid))
                                      for thing in range(1, units.shape[1] // 2))]
    free = np.ones(len(seeds), dtype=bool)
    chosen = []
    for number in range(len(grid)):
        wanted = np.concatenate([grid[order[number]] for order in orders])
        distance = np.where(free, np.square(units - wanted).sum(axis=1), np.inf)
        nearest = int(np.argmin(distance))
        free[nearest] = False
        chosen.append(seeds[nearest])
    return chosen
