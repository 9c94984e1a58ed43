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
_PAST = 0.012                   # m by which the fingers reach past the thing's axis


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


@dataclass(frozen=True)
class _Carry:
    """
    How a thing is taken to its goal; pairs are ranges of what is drawn.

    :param turned: the fingers lie across thing and goal as these are turned; else they point
        outwards from the bench's origin.
    :param tilt: of the fingers from straight down [rad]; roll, skew: about the fingers and the
        vertical, either way.
    :param lean: by which they lean more, at most, as the hand comes [rad].
    :param lift: height at which it is carried over where it lay [m].
    :param slack: by which the grasp differs along the thing and in height [m].
    :param squeezed: opening about the thing.
    :param taken: height of the grasp over the table [m]; laid: at the goal.
    :param seconds: that lifting and lowering take at a common pace.
    """

    thing: str
    goal: str
    turned: bool
    tilt: tuple[float, float]
    roll: float
    skew: float
    lean: float
    lift: tuple[float, float]
    slack: tuple[float, float]
    squeezed: float
    taken: float
    laid: float
    wide: tuple[float, float]
    seconds: tuple[float, float]

    def __call__(self, scenario: Scenario, table_z: float, start: np.ndarray,
                 rng: np.random.Generator) -> HandPlan:
        """Take the thing, carry it over the table, put it where it belongs, let go."""
        top = table_z + scenario.table_dz
        thing, goal = (np.array([*scenario.at(name), top]) for name in (self.thing, self.goal))
        pace, tilt = float(rng.uniform(0.8, 1.25)), float(rng.uniform(*self.tilt))
        roll, skew = (float(rng.uniform(-most, most)) for most in (self.roll, self.skew))
        here, there = (_turn(self._bearing(scenario, name) + skew, tilt, roll)
                       for name in (self.thing, self.goal))
        up = np.array([0.0, 0.0, float(rng.uniform(*self.lift))])
        along, height = float(rng.uniform(-1.0, 1.0)) * np.array(self.slack)
        put = np.array([*rng.uniform(-0.008, 0.008, size=2), 0.0])
        pick, lay = (spot + along * turn[:, 0] * [1.0, 1.0, 0.0] / np.sin(tilt)
                     + [0.0, 0.0, over + height] + _PAST * turn[:, 0]
                     for spot, turn, over in ((thing, here, self.taken),
                                              (goal + put, there, self.laid)))
        wide = float(rng.uniform(*self.wide))
        begin = _turn(float(rng.uniform(-0.3, 0.3)), tilt + self.lean * float(rng.uniform()),
                      roll)
        near = pick - float(rng.uniform(0.06, 0.09)) * here[:, 0]
        away, carry = float(np.linalg.norm(near - start)), float(np.linalg.norm(lay - pick))
        bow = (0.0, float(rng.uniform(-0.15, 0.15)) * away, float(rng.uniform(0.0, 0.2)) * away)
        lifting, lowering = self.seconds
        return HandPlan(pose_of(begin, start), float(rng.uniform(0.2, 0.6)), [
            _Key(pace * (0.8 + 2.5 * away), near, here, wide, bow),
            _Key(pace * 0.9, pick, here, wide),
            _Key(pace * 0.4, pick, here, self.squeezed),
            _Key(pace * lifting, pick + up, here, self.squeezed, holds=True),
            _Key(pace * (0.7 + 2.5 * carry), lay + up, there, self.squeezed, holds=True),
            _Key(pace * lowering, lay, there, self.squeezed, holds=True),
            _Key(pace * 0.4, lay, there, wide),
            _Key(pace * 0.2, lay, there, wide)], self.thing, rng)

    def _bearing(self, scenario: Scenario, name: str) -> float:
        x, y = scenario.at(name)
        return scenario.yaw(name) if self.turned else float(np.arctan2(y, x))


_Planner = Callable[[Scenario, float, np.ndarray, np.random.Generator], HandPlan]
HAND_TASKS: dict[str, _Planner] = {
    'click_bell': _press,
    # From the side, where the robot's expert takes it.
    'bottle_on_pad': _Carry(
        'bottle', 'pad', turned=False, tilt=(0.9, 1.2), roll=0.2, skew=0.2, lean=-0.3,
        lift=(0.04, 0.07), slack=(0.0, 0.006), squeezed=0.45, taken=0.072, laid=0.072,
        wide=(0.75, 1.0), seconds=(0.6, 0.7)),
    # From above, about the middle of its axis, which lies 64 mm over the table, 84 in the rack.
    'umbrella_rack': _Carry(
        'umbrella', 'rack', turned=True, tilt=(0.35, 0.65), roll=0.15, skew=0.08, lean=0.4,
        lift=(0.06, 0.09), slack=(0.012, 0.0), squeezed=0.30, taken=0.064, laid=0.084,
        wide=(0.7, 1.0), seconds=(0.7, 0.8)),
}


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
