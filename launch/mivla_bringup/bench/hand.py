"""The motion of a scripted hand: ways through poses, and the stream of where it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mivla_bringup.errors import BringupError
from mivla_bringup.rig import Rig
from mivla_core.profile import RobotProfile
from mivla_core.ros.periodic import PeriodicThread
from mivla_core.ros.qos import stream
from mivla_core.timing import NowNs, StampNs, monotonic_now
from mivla_drivers.core.robot_envelope import envelope_of
from mivla_msgs.msg import JointCommand

__all__ = ['HandStream', 'Way', 'draw_way']

HAND_HZ = 100.0
LEG_S = 1.4             # from one point to the next
DWELL_S = 0.3
CLEAR_M = 0.03          # that every point of the way is away from table, box and itself
_TRIES = 500


@dataclass(frozen=True)
class Way:
    """
    A motion through points with a rest at each: pose and velocity (J,) at any time.

    :param points: (N, J), two or more.
    """

    points: np.ndarray

    @property
    def duration(self) -> float:
        """Length [s]."""
        return (len(self.points) - 1) * (LEG_S + DWELL_S)

    def at(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return position and velocity (J,)."""
        leg = min(int(max(t, 0.0) / (LEG_S + DWELL_S)), len(self.points) - 2)
        u = min(max((t - leg * (LEG_S + DWELL_S)) / LEG_S, 0.0), 1.0)
        first, change = self.points[leg], self.points[leg + 1] - self.points[leg]
        share = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
        speed = 30.0 * u**2 * (1.0 - u)**2 / LEG_S
        return first + share * change, speed * change


def draw_way(profile: RobotProfile, start: np.ndarray, spread: np.ndarray, legs: int,
             chance: np.random.Generator) -> Way:
    """
    Return a way from ``start`` (J,) through random poses near it, clear of everything.

    :param spread: largest distance (J,) of a pose from ``start`` [rad, m].
    :raises BringupError: no such way was found.
    """
    envelope, points = envelope_of(profile), [start]
    for _ in range(_TRIES):
        pose = np.clip(start + chance.uniform(-1.0, 1.0, len(start)) * spread,
                       profile.lower, profile.upper)
        between = [points[-1] + share * (pose - points[-1]) for share in np.linspace(0.1, 1.0, 10)]
        if all(envelope.clearance([float(value) for value in q]) > CLEAR_M for q in between):
            points.append(pose)
            if len(points) > legs:
                return Way(np.array(points))
    raise BringupError(f'{profile.name}: no clear way through {legs} poses near '
                       f'{np.round(start, 2).tolist()}')


class HandStream:
    """Publishes where the hand is, as long as it lives."""

    def __init__(self, rig: Rig, profile: RobotProfile) -> None:
        self._publisher = rig.node.create_publisher(JointCommand, f'/{rig.robot}/hand/target',
                                                    stream(HAND_HZ))
        self._message = JointCommand(name=list(profile.joint_names))
        self._way = Way(np.array([profile.home, profile.home]))
        self._begin = monotonic_now()
        self._thread = PeriodicThread('hand', HAND_HZ, self._send, 40, lambda refused: None)
        self._thread.start()

    def move(self, way: Way) -> None:
        """Begin a motion; the hand then stays at its end."""
        self._way, self._begin = way, monotonic_now()
        self._thread.switch(True)

    def close(self) -> None:
        """Let go."""
        self._thread.stop()

    def _send(self, stamp: StampNs) -> None:
        position, velocity = self._way.at(_since(self._begin))
        stamp.fill(self._message.header.stamp)
        self._message.position, self._message.velocity = position.tolist(), velocity.tolist()
        self._publisher.publish(self._message)


def _since(begin: NowNs) -> float:
    return (monotonic_now() - begin) * 1e-9
