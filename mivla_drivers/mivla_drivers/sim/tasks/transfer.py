"""The judge of tasks that take a thing from where it lies and put it where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.tasks.base import TaskState, thing_geoms
from mivla_drivers.sim.tasks.hands import Hands

__all__ = ['TransferJudge', 'TransferRules', 'transfer_judge']

_SLOW = 0.05        # m/s
_STILL_S = 0.10     # it has stayed, released, for so long


@dataclass(frozen=True)
class TransferRules:
    """
    What counts.

    :param thing: loose body that is moved; ``goal``: body that it is moved to.
    :param stages: reached, grasped, lifted, over the goal, put down: their names.
    :param grasp: where it is held, in its own frame [m].
    :param reached: so near comes a tip [m] ...
    :param along: ... to there, or to where this range along its x from there may be held [m].
    :param lifted: so much higher than where it lay [m].
    :param within: of the goal's origin, along its x and y [m].
    :param heights: of the thing's origin over the goal's, put down: lowest, highest [m].
    :param axis: of the thing (0, 1, 2) that has to point as the goal's does ...
    :param off: ... within this angle [rad].
    """

    thing: str
    goal: str
    stages: tuple[str, str, str, str, str]
    grasp: tuple[float, float, float]
    reached: float
    lifted: float
    within: tuple[float, float]
    heights: tuple[float, float]
    axis: int
    off: float
    along: tuple[float, float] = (0.0, 0.0)


class TransferJudge:
    """Each stage counts only after the one before; see ``Judge``."""

    def __init__(self, rules: TransferRules, profile: RobotProfile, model: mujoco.MjModel,
                 data: mujoco.MjData) -> None:
        self._rules, self._data = rules, data
        self._thing, self._goal = (int(body) for body in names(
            model, mujoco.mjtObj.mjOBJ_BODY, (rules.thing, rules.goal)))
        joint = int(names(model, mujoco.mjtObj.mjOBJ_JOINT, (rules.thing,))[0])
        self._dof = int(model.jnt_dofadr[joint])
        self._hands = Hands(profile, model, data, thing_geoms(model, (rules.thing,)))
        self.restart()

    def restart(self) -> None:
        """Forget what was seen: a new scenario."""
        self._stage = 0
        self._held = False
        self._lay = float('nan')            # height at which it lay [m]
        self._since: float | None = None    # when it began to stay where it belongs [s]

    def _grasp(self) -> np.ndarray:
        turn = self._data.xmat[self._thing].reshape(3, 3)
        grasp: np.ndarray = self._data.xpos[self._thing] + turn @ self._rules.grasp
        return grasp

    def _away(self) -> float:
        """Return how far the nearest tip is from where the thing may be held [m]."""
        off = (self._hands.tips() - self._grasp()) @ self._data.xmat[self._thing].reshape(3, 3)
        off[:, 0] -= np.clip(off[:, 0], *self._rules.along)
        return float(np.linalg.norm(off, axis=1).min())

    def _rise(self) -> float:
        """Return how much higher the thing is than where it lay [m]."""
        return float(self._data.xpos[self._thing][2]) - self._lay

    def _over(self) -> bool:
        turn = self._data.xmat[self._goal].reshape(3, 3)
        away = turn.T @ (self._data.xpos[self._thing] - self._data.xpos[self._goal])
        return bool((np.abs(away[:2]) <= self._rules.within).all())

    def state(self) -> TaskState:
        """Return the task's state now."""
        rules, touching = self._rules, self._hands.touching()
        thing = self._data.xpos[self._thing]
        if np.isnan(self._lay):
            self._lay = float(thing[2])
        self._held = self._hands.held(touching)
        lifted = self._held and self._rise() >= rules.lifted
        for number, done in enumerate((
                self._away() <= rules.reached, self._held, lifted, lifted and self._over(),
                self._put_down(touching)), 1):
            if done and self._stage == number - 1:
                self._stage = number
        score = self._stage / len(rules.stages)
        return TaskState(tuple(thing.tolist()), score, touching != 0,
                         self._stage == len(rules.stages), score,
                         ('', *rules.stages)[self._stage])

    def _put_down(self, touching: int) -> bool:
        """Say whether the thing has been where it belongs, released, for a moment."""
        data, rules = self._data, self._rules
        low, high = rules.heights
        height = float(data.xpos[self._thing][2] - data.xpos[self._goal][2])
        ours, goals = (data.xmat[body].reshape(3, 3)[:, rules.axis]
                       for body in (self._thing, self._goal))
        speed = float(np.linalg.norm(data.qvel[self._dof:self._dof + 3]))
        if (touching or not low <= height <= high or not self._over() or speed > _SLOW
                or float(ours @ goals) < np.cos(rules.off)):
            self._since = None
            return False
        self._since = data.time if self._since is None else self._since
        return bool(data.time - self._since >= _STILL_S)

    def places(self) -> np.ndarray:
        """Return the poses of the thing and of the goal."""
        data = self._data
        return np.array([[*data.xpos[body], *data.xquat[body]]
                         for body in (self._thing, self._goal)])

    def room(self, tip: np.ndarray) -> float:
        """Free: the way to the grasp. Held: the height it may still fall."""
        if self._held:
            return max(0.0, self._rise())
        return float(np.linalg.norm(tip - self._grasp()))


def transfer_judge(rules: TransferRules) -> Callable[
        [RobotProfile, mujoco.MjModel, mujoco.MjData], TransferJudge]:
    """Return what makes the judge of some rules."""
    def make(profile: RobotProfile, model: mujoco.MjModel, data: mujoco.MjData) -> TransferJudge:
        return TransferJudge(rules, profile, model, data)
    return make
