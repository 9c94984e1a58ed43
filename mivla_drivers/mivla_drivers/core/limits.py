"""Joint limits of a robot as plain tuples, and how its joints brake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mivla_core.profile import RobotProfile

__all__ = ['JointLimits', 'brake_times', 'limits_of']


@dataclass(frozen=True)
class JointLimits:
    """
    Limits per joint in profile order; rad or m, per second, per second squared.

    Tuples instead of arrays: the control tick works on seven numbers, where NumPy costs more than
    it gives.

    :param chain: number of joints of the kinematic chain; they come first and brake together.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    deceleration: tuple[float, ...]
    ramp: tuple[float, ...]
    chain: int

    @property
    def joints(self) -> int:
        """Number of joints."""
        return len(self.lower)

    def clip(self, position: Sequence[float]) -> tuple[float, ...]:
        """Return ``position`` (J,) inside the position limits."""
        return tuple(min(max(p, low), high)
                     for p, low, high in zip(position, self.lower, self.upper))


def limits_of(profile: RobotProfile) -> JointLimits:
    """Read the limits of a profile."""
    def plain(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(value) for value in values)

    return JointLimits(
        lower=plain(profile.lower), upper=plain(profile.upper), velocity=plain(profile.velocity),
        acceleration=plain(profile.acceleration), deceleration=plain(profile.deceleration),
        ramp=plain(profile.ramp_velocity), chain=profile.arm_joints)


def brake_times(position: Sequence[float], velocity: Sequence[float],
                limits: JointLimits) -> list[float]:
    """
    Return how long each joint brakes from ``velocity`` (J,) at ``position`` (J,) [s].

    The joints of the chain decelerate together, so that the tool keeps its direction; a joint
    that would meet its own limit stops sooner, and joints outside the chain brake alone. Joint j
    then moves along q + v (t - t^2 / (2 T)) for T seconds and stays.
    """
    decelerations = limits.deceleration
    times = [abs(v) / d for v, d in zip(velocity, decelerations)]
    together = max(times[:limits.chain], default=0.0)
    for j in range(limits.chain):
        v = velocity[j]
        if v > 0.0:
            room = 2.0 * (limits.upper[j] - position[j]) / v
        elif v < 0.0:
            room = 2.0 * (limits.lower[j] - position[j]) / v
        else:
            continue
        times[j] = max(times[j], min(together, room))
    return times
