"""The simulated bench in motion: physics, and the success test of the task."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.plant import ArmPlant
from mivla_drivers.sim.scenario import Scenario
from mivla_drivers.sim.scene import build_model, names

__all__ = ['PRESS_DEPTH', 'TIP_DISTANCE', 'TaskState', 'World']

# Success of click_bell: button this deep [m], touched by a finger, tip this near to the button's
# top [m].
PRESS_DEPTH = 0.003
TIP_DISTANCE = 0.020

# The arm and the bell of a new scenario may overlap by no more than this [m].
_OVERLAP = 0.0005


@dataclass(frozen=True)
class TaskState:
    """
    How far the task is; ground truth, never an input of a policy.

    :param target: centre of the button's top in the base frame, where it is now [m].
    :param progress: depth of the button [m].
    :param success: latched since the reset: pressed deep enough by contact with the finger tips.
    """

    target: tuple[float, float, float]
    progress: float
    touched: bool
    success: bool


class World:
    """
    The bench of a profile with one scenario; owned by one thread.

    :param arm: joint positions (J,) to start from, profile order and units; default the rest pose.
    """

    def __init__(
        self, profile: RobotProfile, scenario: Scenario, *, arm: np.ndarray | None = None
    ) -> None:
        self.profile = profile
        self.model = build_model(profile)
        self.data = mujoco.MjData(self.model)
        self._button = int(names(self.model, mujoco.mjtObj.mjOBJ_JOINT, ('button',))[0])
        self._button_q = int(self.model.jnt_qposadr[self._button])
        self._button_geom = int(names(self.model, mujoco.mjtObj.mjOBJ_GEOM, ('button',))[0])
        self._tip = int(names(self.model, mujoco.mjtObj.mjOBJ_SITE, ('tip',))[0])
        fingers = ('finger_left', 'pad_left', 'finger_right', 'pad_right')
        self._fingers = frozenset(names(self.model, mujoco.mjtObj.mjOBJ_GEOM, fingers).tolist())
        bell = names(self.model, mujoco.mjtObj.mjOBJ_GEOM, ('bell_base', 'bell_dome', 'button'))
        self._bell = frozenset(bell.tolist())
        self.plant = ArmPlant(profile, self.model, self.data)
        self.scenario = scenario
        self.generation = 0
        self._success = False
        self.reset(scenario, arm=profile.rest if arm is None else arm)

    @property
    def time(self) -> float:
        """Simulated seconds since the arm was last placed."""
        return float(self.data.time)

    @property
    def qpos(self) -> np.ndarray:
        """
        Positions of all joints of the scene (nq,), as the renderer needs them; a view, do not
        keep.
        """
        return self.data.qpos

    def reset(self, scenario: Scenario, *, arm: np.ndarray | None = None) -> None:
        """
        Place a scenario; the arm stays where it is, as on a real bench.

        :param arm: joint positions (J,) to place the arm at, at rest; only for lockstep runs,
            which have no time to drive it there.
        :raises SimError: the arm is where the bell would be (the old scenario stays), or ``arm``
            is not (J,).
        """
        if arm is not None:
            mujoco.mj_resetData(self.model, self.data)
            self.plant.place(arm)
        scenario.apply(self.model)
        button = self.data.qpos[self._button_q]
        self.data.qpos[self._button_q] = 0.0
        self.data.qvel[self.model.jnt_dofadr[self._button]] = 0.0
        mujoco.mj_forward(self.model, self.data)
        if self._arm_in_bell():
            self.scenario.apply(self.model)
            self.data.qpos[self._button_q] = button
            mujoco.mj_forward(self.model, self.data)
            raise SimError(
                f'scenario {scenario.task} seed {scenario.seed}: the arm is where the bell would '
                'stand; home the arm first'
            )
        self.scenario = scenario
        self.generation += 1
        self.plant.restart_disturbance(scenario.seed)
        self._success = False

    def step(self, count: int) -> TaskState:
        """Advance the physics by ``count`` steps and return the task's state."""
        self.plant.advance(count)
        return self.task()

    def task(self) -> TaskState:
        """Return the task's state; latches success."""
        depth = max(0.0, -float(self.data.qpos[self._button_q]))
        target = self.data.geom_xpos[self._button_geom].copy()
        target[2] += self.model.geom_size[self._button_geom, 1]
        touched = depth > 0.0 and self._touched()
        if touched and depth >= PRESS_DEPTH:
            distance = float(np.linalg.norm(self.data.site_xpos[self._tip] - target))
            self._success = self._success or distance <= TIP_DISTANCE
        return TaskState(tuple(target.tolist()), depth, touched, self._success)

    def tip(self) -> np.ndarray:
        """Return the tip's position (3,) in the base frame [m]."""
        return self.data.site_xpos[self._tip].copy()

    def _touched(self) -> bool:
        pairs = self.data.contact.geom[: self.data.ncon]
        for first, second in pairs:
            if first == self._button_geom and second in self._fingers:
                return True
            if second == self._button_geom and first in self._fingers:
                return True
        return False

    def _arm_in_bell(self) -> bool:
        for (first, second), distance in zip(self.data.contact.geom, self.data.contact.dist):
            if distance < -_OVERLAP and ((first in self._bell) != (second in self._bell)):
                return True
        return False
