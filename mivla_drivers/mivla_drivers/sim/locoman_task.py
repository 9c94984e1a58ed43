"""The task of a simulated LocoMan: its things on the stand, its judge, and when it succeeded."""

from __future__ import annotations

import math

import mujoco

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.runtime import WorldReport
from mivla_drivers.sim.tasks import Scenario, task_of

__all__ = ['LocomanTask']


class LocomanTask:
    """
    A task in the scene of a robot on legs; owned by the thread that steps it.

    :param model: of that scene, with ``data``.
    """

    def __init__(self, profile: RobotProfile, model: mujoco.MjModel, data: mujoco.MjData,
                 scenario: Scenario) -> None:
        self._model, self._data = model, data
        self.judge = task_of(scenario.task).judge(profile, model, data)
        self.place(scenario)

    def place(self, scenario: Scenario) -> None:
        """Place the things of a scenario, at rest; the robot stays where it is."""
        scenario.apply(self._model)
        scenario.put(self._model, self._data)
        mujoco.mj_forward(self._model, self._data)
        self.scenario = scenario
        self.judge.restart()
        self._success = math.nan
        self._state = self.judge.state()

    def look(self, seconds: float) -> None:
        """
        Judge what has become of it.

        :param seconds: since its things were placed.
        """
        self._state = self.judge.state()
        if self._state.success and math.isnan(self._success):
            self._success = seconds

    @property
    def success(self) -> bool:
        """Whether it has succeeded since its things were placed."""
        return not math.isnan(self._success)

    def report(self, episode: int, seconds: float) -> WorldReport:
        """Return the ground truth as of the last look."""
        scenario = self.scenario
        return WorldReport(scenario.task, scenario.seed, scenario.level, episode, seconds,
                           self._state, self._success, self.judge.places())
