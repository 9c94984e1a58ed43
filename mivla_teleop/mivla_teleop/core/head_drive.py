"""A head's displacement and turn since the clutch closed, as the velocity of a base."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mivla_core.poses import yaw_turn
from mivla_core.robot_parts import Drive
from mivla_teleop.core.headset_frames import yaw_of

__all__ = ['HeadDrive', 'HeadDriveSettings', 'beyond']


@dataclass(frozen=True)
class HeadDriveSettings:
    """
    How far to lean.

    :param dead: m that count for nothing, ``dead_turn`` [rad] likewise.
    :param full: m at which the base has its top speed, ``full_turn`` [rad] likewise.
    """

    dead: float = 0.06
    full: float = 0.25
    dead_turn: float = 0.15
    full_turn: float = 0.6


def beyond(value: float, dead: float, full: float) -> float:
    """Return -1..1: zero inside the dead zone, one at ``full``, linear between."""
    share = (abs(value) - dead) / (full - dead)
    return float(np.sign(value)) * min(max(share, 0.0), 1.0)


class HeadDrive:
    """Makes velocities (forward, left, turn) of head poses (4, 4)."""

    def __init__(self, drive: Drive, settings: HeadDriveSettings = HeadDriveSettings()) -> None:
        self._top, self._settings = drive.velocity, settings
        self._zero = np.eye(4)

    def engage(self, head: np.ndarray) -> None:
        """Take the head's pose as standing."""
        self._zero = head.copy()

    def velocity(self, head: np.ndarray) -> tuple[float, float, float]:
        """Return m/s forward and to the left, and rad/s to the left, within the limits."""
        s = self._settings
        yaw = yaw_of(self._zero)
        ahead, left, _ = yaw_turn(-yaw) @ (head[:3, 3] - self._zero[:3, 3])
        turn = (yaw_of(head) - yaw + np.pi) % (2.0 * np.pi) - np.pi
        shares = (beyond(ahead, s.dead, s.full), beyond(left, s.dead, s.full),
                  beyond(turn, s.dead_turn, s.full_turn))
        vx, vy, wz = (share * top for share, top in zip(shares, self._top))
        return vx, vy, wz
