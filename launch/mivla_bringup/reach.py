"""
Does a robot get where it is sent, through the whole graph?

Poses about home are chosen in Cartesian space, a source streams set-points to them on
``command/teleop`` as any teleoperation does, and the error is measured in the simulated world: at
the arm's tip as MuJoCo has it, not by what driver or device say.
"""

from __future__ import annotations

import array
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Optional

import numpy as np

from mivla_bringup.operate import OperateError
from mivla_bringup.rig import Rig
from mivla_core.inverse import rotation_vector, tip_angles
from mivla_core.kinematics import Chain, rotation
from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm
from mivla_core.ros.periodic import PeriodicThread
from mivla_core.ros.qos import NEWEST, stream
from mivla_core.timing import StampNs
from mivla_drivers.core.robot_envelope import envelope_of
from mivla_drivers.sim.tips import TipWatch
from mivla_msgs.msg import DriverState, JointCommand
from mivla_teleop.core.click_bell_expert import plan_move
from mivla_teleop.core.expert_player import ExpertPlayer

__all__ = ['Goal', 'Reached', 'Source', 'error_at', 'goals_about_home', 'reach', 'still_driven']

# How far from home the tip is sent, along each axis [m], and turned about any [rad].
_SPAN = (0.07, 0.09, 0.07)
_TURN = 0.35
# Joints keep this far from their limits [rad], and all of the robot from what it may touch [m].
_MARGIN = 0.05
_CLEARANCE = 0.02
_TRIES = 400
_SPEED = 0.8        # rad/s
_SETTLE_S = 1.0
_SAMPLES = 10
_PRIORITY = 40


@dataclass(frozen=True)
class Goal:
    """
    One pose of all arms.

    :param tips: (A, 4, 4) in the robot's base frame.
    :param joints: (J,) that have the tips there.
    """

    tips: np.ndarray
    joints: np.ndarray


@dataclass(frozen=True)
class Reached:
    """How far from a goal each arm's tip came to rest: mm and degrees."""

    arm: str
    distance_mm: float
    angle_deg: float


def base_of(arm: Arm) -> np.ndarray:
    """Return the pose (4, 4) of an arm's base in the robot's base frame."""
    base = np.eye(4)
    base[:3, :3], base[:3, 3] = rotation(*arm.rpy), arm.origin
    return base


def goals_about_home(profile: RobotProfile, count: int, seed: int = 0) -> list[Goal]:
    """
    Choose poses about the home pose that the robot can take with room to spare.

    :raises OperateError: there are not so many.
    """
    rng, envelope, goals = np.random.default_rng(seed), envelope_of(profile), []
    for _ in range(_TRIES):
        goal = _draw(profile, rng)
        if goal is not None and envelope.clearance(goal.joints.tolist()) > _CLEARANCE:
            goals.append(goal)
        if len(goals) == count:
            return goals
    raise OperateError(f'{profile.name}: only {len(goals)} of {count} poses about home are within '
                       'reach')


def _draw(profile: RobotProfile, rng: np.random.Generator) -> Optional[Goal]:
    joints, tips = np.array(profile.home), []
    for arm in profile.arms:
        chain, place = Chain(arm.kinematics), profile.place_of(arm)
        mine = slice(place.start, place.start + chain.joints)
        home = chain.tip(profile.home[mine])
        tip = np.eye(4)
        tip[:3, 3] = home[:3, 3] + rng.uniform(-1.0, 1.0, 3) * _SPAN
        tip[:3, :3] = rotation(*rng.uniform(-_TURN, _TURN, 3)) @ home[:3, :3]
        q = tip_angles(chain, tip[:3, 3], tip[:3, :3], profile.home[mine])
        if q is None or (q < profile.lower[mine] + _MARGIN).any() or (
                q > profile.upper[mine] - _MARGIN).any():
            return None
        joints[mine] = q
        tips.append(base_of(arm) @ tip)
    return Goal(np.array(tips), joints)


class Source:
    """Streams set-points as a teleoperation does; its thread runs within ``running``."""

    def __init__(self, rig: Rig, profile: RobotProfile, speed: float = _SPEED) -> None:
        self._rig, self._profile, self._player = rig, profile, ExpertPlayer()
        self._speed = speed
        self._message = JointCommand(source=JointCommand.SOURCE_TELEOP,
                                     name=list(profile.joint_names), profile_hash=profile.hash)
        self._applied: Optional[JointCommand] = None

    @contextmanager
    def running(self) -> Iterator[Source]:
        rig, rate = self._rig, self._profile.rates.control
        space = f'/{rig.robot}/command'
        self._publisher = rig.node.create_publisher(JointCommand, f'{space}/teleop', stream(rate))
        applied = rig.node.create_subscription(JointCommand, f'{space}/applied', self._take,
                                               NEWEST)
        thread = PeriodicThread('reach', rate, self._send, _PRIORITY, lambda refused: None)
        thread.start()
        try:
            while self._applied is None:
                rig.pause(0.02)
            self._player.hold(self.pose())
            thread.switch(True)
            yield self
        finally:
            thread.stop()
            rig.node.destroy_subscription(applied)
            rig.node.destroy_publisher(self._publisher)

    def go(self, joints: np.ndarray) -> None:
        """Stream a move to a pose (J,), and wait until it has settled."""
        plan = plan_move(self._profile, self.pose(), joints, speed=self._speed)
        self._player.play(plan, StampNs.wall())
        self._rig.pause(plan.duration + _SETTLE_S)

    def _take(self, message: JointCommand) -> None:
        self._applied = message

    def pose(self) -> np.ndarray:
        """Return where the joints (J,) are told to be."""
        assert self._applied is not None
        known = dict(zip(self._applied.name, self._applied.position))
        return np.array([known[name] for name in self._profile.joint_names])

    def _send(self, now: StampNs) -> None:
        point = self._player.sample(now)
        if point is None:
            return
        message = self._message
        now.fill(message.header.stamp)
        message.sequence += 1
        message.position = array.array('d', point[0].tobytes())
        message.velocity = array.array('d', point[1].tobytes())
        self._publisher.publish(message)


def reach(rig: Rig, profile: RobotProfile, count: int = 5, seed: int = 0) -> list[Reached]:
    """
    Send an enabled robot to poses about its home and measure where its tips come to rest.

    Afterwards the mode is idle.

    :returns: ``count`` results for each arm.
    :raises OperateError: the driver refused or stopped.
    """
    goals = goals_about_home(profile, count, seed)
    watch = TipWatch(profile, int(os.environ.get('ROS_DOMAIN_ID') or 0), rig.robot)
    results: list[Reached] = []
    try:
        with Source(rig, profile).running() as source:
            rig.client.set_mode('teleop')
            for goal in goals:
                source.go(goal.joints)
                still_driven(rig)
                results += [error_at(rig, lambda k=index: watch.tips()[k],  # type: ignore[misc]
                                     arm.name, goal.tips[index])
                            for index, arm in enumerate(profile.arms)]
            rig.client.set_mode('idle')
    finally:
        watch.close()
    return results


def still_driven(rig: Rig) -> None:
    """Raise OperateError when the driver stopped."""
    state = rig.newest('driver/state')
    if state.state not in (DriverState.HOLDING, DriverState.MOVING):
        raise OperateError(f'{rig.robot}: the driver stopped: {state.detail}')


def error_at(rig: Rig, look: Callable[[], np.ndarray], arm: str, goal: np.ndarray) -> Reached:
    """Return the worst distance of a tip to a pose (4, 4) while the robot holds."""
    away, turned = 0.0, 0.0
    for _ in range(_SAMPLES):
        tip = look()
        away = max(away, float(np.linalg.norm(tip[:3, 3] - goal[:3, 3])))
        turned = max(turned, float(np.linalg.norm(rotation_vector(goal[:3, :3].T
                                                                  @ tip[:3, :3]))))
        rig.pause(0.02)
    return Reached(arm, 1e3 * away, float(np.degrees(turned)))
