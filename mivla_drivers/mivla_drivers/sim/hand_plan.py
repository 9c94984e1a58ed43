"""
What a hand does to fulfil a task: planned from a scenario's truth, a little different each time.

A plan moves a *grip*, the pose of a gripper in the hand's place: x along the fingers, y from the
index finger to the thumb, origin where they meet. From place to place it takes the smooth course
of a reach (minimum jerk, bowed to a side), with the trembling of a hand. Base frame, metres,
radians, seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from mivla_core.poses import pose_of, rotation_vector, turn_about
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.tasks import Scenario
from mivla_drivers.sim.tasks.click_bell import target_of

__all__ = ['HAND_TASKS', 'HandPlan', 'plan_hand']

_SHOULDER = np.array([-0.25, -0.30, 0.50])
_UPPER_REACH = 0.24             # m from the wrist to where the forearm goes out of the pictures
_TREMBLE = 4e-4                 # m and, per component, a third of it per radian
_SQUEEZED = 0.45                # opening about the bottle's 40 mm
_GRASP = 0.072                  # m over the bottle's foot, as the robot's expert
_SQUEEZED_THIN = 0.30           # about the umbrella's 28 mm
# m of its axis over the table: on its blocks, and in the rack.
_AXIS, _LAID = 0.064, 0.084


@dataclass(frozen=True)
class _Key:
    """Where the grip is to be at the end of a piece of the plan."""

    seconds: float
    place: np.ndarray
    turn: np.ndarray
    opening: float
    bow: tuple[float, float, float] = (0.0, 0.0, 0.0)
    holds: bool = False


class HandPlan:
    """
    A timed motion of a grip.

    :param start: pose (4, 4) that it begins in.
    :param thing: body that is carried while a key holds it; '' for none.
    :param seed: of the trembling.
    """

    def __init__(self, start: np.ndarray, opening: float, keys: Sequence[_Key], thing: str,
                 rng: np.random.Generator) -> None:
        first = _Key(0.0, start[:3, 3], start[:3, :3], opening)
        self._keys, self.thing = [first, *keys], thing
        self._ends = np.cumsum([key.seconds for key in self._keys])
        self._rates = rng.uniform(4.0, 50.0, size=(6, 4))
        self._phases = rng.uniform(0.0, 2.0 * np.pi, size=(6, 4))
        self._shoulder = _SHOULDER + rng.normal(scale=0.05, size=3)

    @property
    def duration(self) -> float:
        """Length of the plan [s]."""
        return float(self._ends[-1])

    def grip(self, t: float) -> tuple[np.ndarray, float]:
        """Return the grip's pose (4, 4) and opening 0..1 at a time."""
        index = min(int(np.searchsorted(self._ends, t, side='right')), len(self._keys) - 1)
        before, key = self._keys[max(0, index - 1)], self._keys[index]
        u = 1.0 if key.seconds == 0.0 else (
            min(max((t - (self._ends[index] - key.seconds)) / key.seconds, 0.0), 1.0))
        s = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
        shake = _TREMBLE * np.sin(self._rates * t + self._phases).mean(axis=1)
        place = before.place + s * (key.place - before.place) + shake[:3] + (
            4.0 * s * (1.0 - s) * np.array(key.bow))
        turn = before.turn @ turn_about(s * rotation_vector(before.turn.T @ key.turn)
                                        + 3.0 * shake[3:])
        return pose_of(turn, place), before.opening + s * (key.opening - before.opening)

    def holds(self, t: float) -> bool:
        """Say whether the thing is held at a time."""
        index = min(int(np.searchsorted(self._ends, t, side='right')), len(self._keys) - 1)
        return self._keys[index].holds

    def elbow(self, wrist: np.ndarray) -> np.ndarray:
        """Return where the forearm leads (3,) from a wrist (4, 4)."""
        back = self._shoulder - wrist[:3, 3]
        return wrist[:3, 3] + _UPPER_REACH * back / np.linalg.norm(back)


def _turn(bearing: float, tilt: float, roll: float) -> np.ndarray:
    """
    Return the grip's axes (3, 3).

    :param bearing: where the fingers point, seen from above.
    :param tilt: of the fingers from straight down.
    :param roll: about the fingers; 0: thumb and index lie level.
    """
    out = np.array([np.cos(bearing), np.sin(bearing), 0.0])
    along = np.sin(tilt) * out - np.cos(tilt) * np.array([0.0, 0.0, 1.0])
    across = np.array([-out[1], out[0], 0.0])
    return np.column_stack([along, across, np.cross(along, across)]) @ turn_about([roll, 0, 0])


def _press(scenario: Scenario, table_z: float, start: np.ndarray,
           rng: np.random.Generator) -> HandPlan:
    """Reach over the bell, press it with the fingertips, stay there for a moment."""
    button = target_of(scenario, table_z)
    pace = float(rng.uniform(0.8, 1.25))
    bearing = float(np.arctan2(button[1], button[0]) + rng.uniform(-0.25, 0.25))
    tilt, roll = float(rng.uniform(0.30, 0.75)), float(rng.uniform(-0.40, 0.25))
    turn = _turn(bearing, tilt, roll)
    begin = _turn(bearing + float(rng.uniform(-0.3, 0.3)), tilt + float(rng.uniform(0.0, 0.5)),
                  roll + float(rng.uniform(-0.2, 0.2)))
    opening = float(rng.uniform(0.0, 0.25))
    hover = button + [*rng.uniform(-0.010, 0.010, size=2), rng.uniform(0.045, 0.075)]
    bottom = button + [*rng.uniform(-0.003, 0.003, size=2), -0.008]
    away = float(np.linalg.norm(hover - start))
    bow = (0.0, float(rng.uniform(-0.2, 0.2)) * away, float(rng.uniform(0.0, 0.2)) * away)
    return HandPlan(pose_of(begin, start), opening, [
        _Key(pace * (0.8 + 2.5 * away), hover, turn, 0.0, bow),
        _Key(pace * 0.85, bottom, turn, 0.0),
        _Key(pace * 0.30, bottom, turn, 0.0)], '', rng)


def _transfer(scenario: Scenario, table_z: float, start: np.ndarray,
              rng: np.random.Generator) -> HandPlan:
    """Take the bottle from the side, carry it over the table, put it on the pad, let go."""
    top = table_z + scenario.table_dz
    bottle, pad = (np.array([*scenario.at(name), top]) for name in ('bottle', 'pad'))
    pace, tilt = float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.9, 1.2))
    roll, skew = float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.2, 0.2))
    here, there = (_turn(float(np.arctan2(spot[1], spot[0])) + skew, tilt, roll)
                   for spot in (bottle, pad))
    up = np.array([0.0, 0.0, float(rng.uniform(0.04, 0.07))])
    grasp = np.array([0.0, 0.0, _GRASP + float(rng.uniform(-0.006, 0.006))])
    put = np.array([*rng.uniform(-0.008, 0.008, size=2), 0.0])
    past = 0.012
    pick, lay = (spot + grasp + past * turn[:, 0]
                 for spot, turn in ((bottle, here), (pad + put, there)))
    wide = float(rng.uniform(0.75, 1.0))
    begin = _turn(float(rng.uniform(-0.3, 0.3)), tilt - float(rng.uniform(0.0, 0.3)), roll)
    near = pick - float(rng.uniform(0.06, 0.09)) * here[:, 0]
    away, carry = float(np.linalg.norm(near - start)), float(np.linalg.norm(lay - pick))
    bow = (0.0, float(rng.uniform(-0.15, 0.15)) * away, float(rng.uniform(0.0, 0.2)) * away)
    return HandPlan(pose_of(begin, start), float(rng.uniform(0.2, 0.6)), [
        _Key(pace * (0.8 + 2.5 * away), near, here, wide, bow),
        _Key(pace * 0.9, pick, here, wide),
        _Key(pace * 0.4, pick, here, _SQUEEZED),
        _Key(pace * 0.6, pick + up, here, _SQUEEZED, holds=True),
        _Key(pace * (0.7 + 2.5 * carry), lay + up, there, _SQUEEZED, holds=True),
        _Key(pace * 0.7, lay, there, _SQUEEZED, holds=True),
        _Key(pace * 0.4, lay, there, wide),
        _Key(pace * 0.2, lay, there, wide)], 'bottle', rng)


def _rack(scenario: Scenario, table_z: float, start: np.ndarray,
          rng: np.random.Generator) -> HandPlan:
    """Take the umbrella about its middle from above, turn it over the rack, lay it in, let go."""
    top = table_z + scenario.table_dz
    umbrella, rack = (np.array([*scenario.at(name), top]) for name in ('umbrella', 'rack'))
    pace, tilt = float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.35, 0.65))
    roll, skew = float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.08, 0.08))
    here, there = (_turn(scenario.yaw(name) + skew, tilt, roll) for name in ('umbrella', 'rack'))
    up = np.array([0.0, 0.0, float(rng.uniform(0.06, 0.09))])
    along = float(rng.uniform(-0.012, 0.012))
    past = 0.012
    pick, lay = (spot + along * np.array([turn[0, 0], turn[1, 0], 0.0]) / np.sin(tilt)
                 + np.array([0.0, 0.0, height]) + past * turn[:, 0]
                 for spot, turn, height in ((umbrella, here, _AXIS), (rack, there, _LAID)))
    lay = lay + [*rng.uniform(-0.008, 0.008, size=2), 0.0]
    wide = float(rng.uniform(0.7, 1.0))
    begin = _turn(float(rng.uniform(-0.3, 0.3)), tilt + float(rng.uniform(0.0, 0.4)), roll)
    near = pick - float(rng.uniform(0.06, 0.09)) * here[:, 0]
    away, carry = float(np.linalg.norm(near - start)), float(np.linalg.norm(lay - pick))
    bow = (0.0, float(rng.uniform(-0.15, 0.15)) * away, float(rng.uniform(0.0, 0.2)) * away)
    return HandPlan(pose_of(begin, start), float(rng.uniform(0.2, 0.6)), [
        _Key(pace * (0.8 + 2.5 * away), near, here, wide, bow),
        _Key(pace * 0.9, pick, here, wide),
        _Key(pace * 0.4, pick, here, _SQUEEZED_THIN),
        _Key(pace * 0.7, pick + up, here, _SQUEEZED_THIN, holds=True),
        _Key(pace * (0.7 + 2.5 * carry), lay + up, there, _SQUEEZED_THIN, holds=True),
        _Key(pace * 0.8, lay, there, _SQUEEZED_THIN, holds=True),
        _Key(pace * 0.4, lay, there, wide),
        _Key(pace * 0.2, lay, there, wide)], 'umbrella', rng)


_Planner = Callable[[Scenario, float, np.ndarray, np.random.Generator], HandPlan]
HAND_TASKS: dict[str, _Planner] = {
    'click_bell': _press, 'bottle_on_pad': _transfer, 'umbrella_rack': _rack}


def plan_hand(scenario: Scenario, table_z: float, start: np.ndarray,
              rng: Optional[np.random.Generator] = None) -> HandPlan:
    """
    Plan one demonstration by hand.

    :param table_z: ``profile.workspace.table_z``.
    :param start: (3,) where the grip begins.
    :param rng: how this demonstration differs from the next; default: the scenario's seed.
    :raises SimError: no hand does this task.
    """
    if scenario.task not in HAND_TASKS:
        raise SimError(f'no hand does {scenario.task!r}; there are '
                       f'{", ".join(sorted(HAND_TASKS))}')
    numbers = np.random.default_rng([scenario.seed, 7]) if rng is None else rng
    return HAND_TASKS[scenario.task](scenario, table_z, np.asarray(start, float), numbers)
