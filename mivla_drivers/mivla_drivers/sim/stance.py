"""Where a simulated LocoMan stands: the frame of its set-points, seen from its feet."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from mivla_drivers.core.locoman_kinematics import LEGS
from mivla_drivers.core.locoman_postures import NOMINAL_FEET
from mivla_drivers.sim.lookup import names

__all__ = ['Stance', 'fitted']


def fitted(points: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the pose (4, 4) at which points (N, 3) come nearest to where they are seen."""
    middle, centre = points.mean(axis=0), seen.mean(axis=0)
    left, _, right = np.linalg.svd((points - middle).T @ (seen - centre))
    sign = np.sign(np.linalg.det(left @ right))
    pose = np.eye(4)
    pose[:3, :3] = right.T @ np.diag([1.0, 1.0, sign]) @ left.T
    pose[:3, 3] = centre - pose[:3, :3] @ middle
    return pose


class Stance:
    """
    The feet of a simulated LocoMan that carry it.

    :param support: which they are (FR, FL, RR, RL), three or four of them.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData,
                 support: Sequence[bool]) -> None:
        carry = np.flatnonzero(support)
        self._data, self._points = data, np.array(NOMINAL_FEET)[carry]
        self._sites = names(model, mujoco.mjtObj.mjOBJ_SITE,
                            [f'{LEGS[k].name}_foot' for k in carry])

    def pose(self) -> np.ndarray:
        """Return the pose (4, 4) in the world of the trunk in nominal stance over the feet."""
        return fitted(self._points, self._data.site_xpos[self._sites])
