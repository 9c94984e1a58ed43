"""Where the simulated robots' tips really are, read from outside the world's process."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.core.locoman_kinematics import LEGS, SIDES
from mivla_drivers.core.locoman_postures import NOMINAL_FEET
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.scene import build_model, prefix, scene_id
from mivla_drivers.sim.stance import fitted
from mivla_drivers.sim.state_block import StateReader, block_path, task_in

__all__ = ['TipWatch', 'ToolWatch']


class _Watch:
    """
    Some sites of a running world, by its state in shared memory and MuJoCo's own kinematics.

    Ground truth for tests and measurements: it shares nothing with driver and device but the
    profile. Used by one thread.

    :param domain: ROS domain of the world.
    :param robot: its name in the graph.
    :raises SimError: there is no such world, or it runs another scene.
    """

    def __init__(self, profile: RobotProfile, domain: int, robot: str,
                 sites: Sequence[str]) -> None:
        path = block_path(domain, robot)
        task = task_in(path)
        self._model = build_model(profile, task)
        self._data = mujoco.MjData(self._model)
        self._sites = names(self._model, mujoco.mjtObj.mjOBJ_SITE, sites)
        self._reader = StateReader(path, scene_id=scene_id(profile, task),
                                   positions=self._model.nq)

    def _look(self) -> np.ndarray:
        """Return the newest poses (N, 4, 4) of the sites in the world; raises SimError."""
        self._data.qpos[:] = self._reader.read().qpos
        mujoco.mj_kinematics(self._model, self._data)
        poses = np.tile(np.eye(4), (len(self._sites), 1, 1))
        poses[:, :3, 3] = self._data.site_xpos[self._sites]
        poses[:, :3, :3] = self._data.site_xmat[self._sites].reshape(-1, 3, 3)
        return poses

    def close(self) -> None:
        """Let go of the shared memory; idempotent."""
        self._reader.close()


class TipWatch(_Watch):
    """The tips of arms on a table; see ``_Watch``."""

    def __init__(self, profile: RobotProfile, domain: int, robot: str) -> None:
        super().__init__(profile, domain, robot,
                         [f'{prefix(profile, arm)}tip' for arm in profile.arms])

    def tips(self) -> np.ndarray:
        """
        Return the newest poses (A, 4, 4) of the arms' tips in the base frame.

        :raises SimError: the world has gone.
        """
        return self._look()


class ToolWatch(_Watch):
    """The tools of a LocoMan, seen from the feet that carry it; see ``_Watch``."""

    def __init__(self, profile: RobotProfile, domain: int, robot: str) -> None:
        super().__init__(profile, domain, robot,
                         [*(f'{side.name}_tool' for side in SIDES),
                          *(f'{leg.name}_foot' for leg in LEGS)])

    def tools(self, support: Sequence[bool]) -> np.ndarray:
        """
        Return the newest poses (2, 4, 4) of the right and the left tool.

        In the frame of the set-points: that of the trunk in nominal stance over those feet.

        :param support: which feet carry (FR, FL, RR, RL), three or four of them.
        :raises SimError: the world has gone.
        """
        poses = self._look()
        carry = np.flatnonzero(support)
        stance = fitted(np.array(NOMINAL_FEET)[carry], poses[len(SIDES) + carry, :3, 3])
        return np.linalg.inv(stance) @ poses[:len(SIDES)]
