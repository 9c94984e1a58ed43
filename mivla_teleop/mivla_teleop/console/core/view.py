"""
What is shown of one robot: the newest of everything, turned into plain data for the page.

Fields are filled by whoever listens; ``snapshot`` rounds and leaves out what JSON cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from mivla_core.profile import RobotProfile
from mivla_core.timing import NowNs, StampNs, seconds, to_ns
from mivla_teleop.console.core.streams import StreamMeter
from mivla_teleop.console.core.trial import Slip

__all__ = ['MOST_ROWS', 'RobotView', 'describe', 'plain', 'thin_chunk']

MOST_ROWS = 32            # of a chunk that are sent to the page
DRIVER_SILENT_NS = to_ns(2.5)     # driver/state comes once a second
TRIAL_SILENT_NS = to_ns(4.0)      # so does a slip


@dataclass
class RobotView:
    """
    The newest of one robot; dictionaries are plain data, as the page gets them.

    :param driver: driver/state; None: nothing heard.
    :param driver_heard: when; the page says so when it is long ago.
    :param measured: positions (J,) in profile order.
    :param applied: set-points that were really sent, (J,).
    :param source: who is behind the applied set-point.
    """

    profile: RobotProfile
    meters: dict[str, StreamMeter] = field(default_factory=dict)
    driver: Optional[dict[str, Any]] = None
    driver_heard: Optional[NowNs] = None
    measured: Optional[np.ndarray] = None
    applied: Optional[np.ndarray] = None
    source: str = 'none'
    action_age: Optional[float] = None     # s from observation to the set-point made of it
    guard: Optional[dict[str, Any]] = None
    policy: Optional[dict[str, Any]] = None
    recorder: Optional[dict[str, Any]] = None
    scene: Optional[dict[str, Any]] = None
    teleop: Optional[dict[str, Any]] = None
    slip: Optional[Slip] = None
    slip_heard: Optional[NowNs] = None

    def trial(self, now: NowNs) -> Optional[Slip]:
        """Return what is asked of an operator who does trials; None where there are none."""
        if self.slip is None or self.slip.over or self.slip_heard is None or (
                now - self.slip_heard > TRIAL_SILENT_NS):
            return None
        return self.slip

    def snapshot(self, now: NowNs, stamp: StampNs) -> dict[str, Any]:
        """Return plain data for the page."""
        driver = self.driver
        if driver is not None and self.driver_heard is not None:
            driver = {**driver, 'silent': now - self.driver_heard > DRIVER_SILENT_NS}
        trial = self.trial(now)
        hidden = trial is not None and trial.hidden
        return {
            'driver': driver, 'measured': _numbers(self.measured),
            'applied': _numbers(self.applied), 'source': self.source,
            'action_age': None if hidden else plain(self.action_age),
            'pose': pose_of(self.profile, self.measured),
            'streams': [meter.report(now, stamp) for meter in self.meters.values()],
            'guard': self.guard,
            'policy': _nameless(self.policy) if hidden else self.policy,
            'recorder': self.recorder, 'scene': self.scene, 'teleop': self.teleop,
            'trial': None if trial is None else trial.plain(),
        }


def _nameless(policy: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
    """
    Return what of a policy does not tell which it is, for an operator who is kept from knowing.

    Times, counts and novelty differ between policies as much as names do. A warning stays: it is
    there for the robot.
    """
    if policy is None:
        return None
    kept = {name: policy.get(name) for name in ('state', 'instruction', 'warning')}
    name = str(policy.get('policy') or '')
    detail = str(policy.get('detail') or '')
    return {**{name: None for name in policy}, **kept, 'policy': '', 'hidden': True,
            'detail': detail.replace(name, 'the policy') if name else detail}


def describe(profile: RobotProfile) -> dict[str, Any]:
    """Return what of a profile the page needs, once."""
    return {
        'name': profile.name, 'description': profile.description, 'hash': profile.hash,
        'joints': [{'name': joint.name, 'unit': joint.unit, 'role': joint.role,
                    'lower': joint.lower, 'upper': joint.upper, 'home': joint.home,
                    'rest': joint.rest} for joint in profile.joints],
        'arms': [arm.name for arm in profile.arms],
        'cameras': [{'role': camera.role, 'width': camera.width, 'height': camera.height,
                     'fps': camera.fps} for camera in profile.cameras],
        'drives': profile.drive is not None, 'held': profile.execution.held,
        'control': profile.rates.control,
    }


def pose_of(profile: RobotProfile, measured: Optional[np.ndarray]) -> Optional[dict[str, Any]]:
    """
    Say where the robot is: at home, at rest, or how far from home.

    :returns: ``at`` ('home', 'rest' or 'away'), and of home the ``joint`` that is furthest from it
        with its distance ``off`` [rad, m]; None when nothing is measured.
    """
    if measured is None or not np.all(np.isfinite(measured)):
        return None
    tolerance = np.array([profile.guard.rest_tolerance if joint.unit == 'rad' else 0.02
                          for joint in profile.joints])
    away = np.abs(measured - profile.home)
    worst = int(np.argmax(away / tolerance))
    at = 'away'
    if np.all(np.abs(measured - profile.rest) <= tolerance):
        at = 'rest'
    if np.all(away <= tolerance):
        at = 'home'
    return {'at': at, 'joint': profile.joints[worst].name, 'off': round(float(away[worst]), 3),
            'unit': profile.joints[worst].unit}


def thin_chunk(positions: Sequence[float], joints: int, dt: float,
               stamp: StampNs) -> Optional[dict[str, Any]]:
    """
    Return a chunk for the plot: at most ``MOST_ROWS`` rows, each with its time.

    :param positions: (horizon * joints,) row-major.
    :param stamp: observation; row i is due at stamp + (i + 1) * dt.
    :returns: None when it has no rows or is not finite.
    """
    if joints <= 0 or not positions or len(positions) % joints or not math.isfinite(dt):
        return None
    rows = np.asarray(positions, dtype=np.float64).reshape(-1, joints)
    if not np.all(np.isfinite(rows)):
        return None
    picked = np.unique(np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).astype(int))
    start = seconds(stamp - StampNs(0))
    return {'times': [round(start + (int(i) + 1) * dt, 3) for i in picked],
            'rows': [[round(float(value), 4) for value in rows[i]] for i in picked]}


def plain(value: Optional[float], digits: int = 4) -> Optional[float]:
    """Return a number that JSON can say: None for NaN and infinity."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits)


def _numbers(values: Optional[np.ndarray]) -> Optional[list[Optional[float]]]:
    return None if values is None else [plain(float(value)) for value in values]
