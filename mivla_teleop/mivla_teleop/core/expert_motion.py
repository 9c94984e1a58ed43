"""
What scripted experts are made of: timed joint motions, and straight lines of a tip by IK.

Times are seconds from the start of a plan, angles radians, lengths metres in the base frame;
arrays (J,) follow the profile's joint order.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np

from mivla_core.errors import MivlaError
from mivla_core.inverse import tip_angles
from mivla_core.kinematics import Chain, rotation
from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm

__all__ = [
    'ArmSolver', 'ExpertError', 'Hold', 'Path', 'SPEED', 'Segment', 'Solver', 'TipSolver',
    'Trajectory', 'check_pose', 'end_of', 'gripper_closed', 'line', 'move', 'nearest_arm',
    'plan_move', 'reached', 'rng_of', 'start_pose']

# Cruising speed [rad/s] of an unhurried demonstrator, and the share of the profile's acceleration
# that is used: the guard in front of the arm must have nothing to limit.
SPEED = 0.64
ACCELERATION_SHARE = 0.75

_JOINT_MARGIN = 0.02  # planned poses keep this far from the position limits [rad]
_PATH_POINTS = 25
_PATH_DEGREE = 6


class ExpertError(MivlaError):
    """The expert cannot plan what it was asked for."""


class Segment(Protocol):
    @property
    def duration(self) -> float: ...

    def state(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return position, velocity and acceleration (J,) at 0 <= t <= duration."""


class Solver(Protocol):
    """Inverse kinematics of one tip."""

    def solve(self, position: np.ndarray, gripper: float) -> np.ndarray:
        """Return the joint positions (J,) with the tip at (3,); raises ExpertError."""


def end_of(segment: Segment) -> np.ndarray:
    """Return where a segment ends (J,)."""
    return segment.state(segment.duration)[0]


def _minimum_jerk(u: float) -> tuple[float, float, float]:
    """Return the quintic blend from 0 to 1 and its first two derivatives at u in [0, 1]."""
    value = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
    return value, 30.0 * u**2 * (1.0 - u) ** 2, 60.0 * u * (1.0 - u) * (1.0 - 2.0 * u)


@dataclass(frozen=True)
class Path:
    """Joint positions as a polynomial of a path parameter that runs 0 to 1 with minimum jerk."""

    coefficients: np.ndarray  # (degree + 1, J), highest power first
    duration: float

    def state(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        s, ds, dds = _minimum_jerk(t / self.duration)
        ds, dds = ds / self.duration, dds / self.duration**2
        value, first, second = _polynomial(self.coefficients, s)
        return value, first * ds, second * ds**2 + first * dds


@dataclass(frozen=True)
class Hold:
    position: np.ndarray
    duration: float

    def state(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        still = np.zeros_like(self.position)
        return self.position.copy(), still, still.copy()


class Trajectory:
    """A timed joint trajectory, continuous in position and velocity and at rest at both ends."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = tuple(segments)
        self._starts = np.concatenate(
            [[0.0], np.cumsum([segment.duration for segment in segments])]
        )

    @property
    def duration(self) -> float:
        """Length of the plan [s]."""
        return float(self._starts[-1])

    def state(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return position, velocity, acceleration (J,) at time ``t``; at rest outside the plan."""
        t = min(max(t, 0.0), self.duration)
        index = min(
            int(np.searchsorted(self._starts, t, side='right')) - 1, len(self._segments) - 1
        )
        segment = self._segments[index]
        return segment.state(min(t - float(self._starts[index]), segment.duration))

    def position(self, t: float) -> np.ndarray:
        """Return the commanded positions (J,) at time ``t``."""
        return self.state(t)[0]

    def velocity(self, t: float) -> np.ndarray:
        """Return the commanded velocities (J,) at time ``t``."""
        return self.state(t)[1]

    def done(self, t: float) -> bool:
        """Say whether the plan has been played to its end."""
        return t >= self.duration


def start_pose(profile: RobotProfile, seed: int, *, sigma: float = 0.07) -> np.ndarray:
    """
    Return a start pose (J,) near home for a demonstration: normal noise on the arm joints, gripper
    closed.

    :param sigma: standard deviation [rad]; cut at two of them, and at the position limits.
    """
    chain = _chain(profile)
    noise = np.clip(rng_of(seed, 'start').normal(size=int(chain.sum())), -2.0, 2.0) * sigma
    pose = _closed(profile, profile.home)
    pose[chain] += noise
    return np.clip(pose, _lower(profile), _upper(profile))


def plan_move(
    profile: RobotProfile,
    start: np.ndarray,
    goal: np.ndarray,
    *,
    speed: float = SPEED,
    settle: float = 0.0,
) -> Trajectory:
    """
    Plan a minimum-jerk joint move.

    :param start: joint positions (J,) that the command now stands at.
    :param goal: joint positions (J,) to reach.
    :param speed: largest joint speed [rad/s]; the profile's limits apply besides.
    :param settle: time to hold the goal at the end [s].
    :raises ExpertError: a pose that is not (J,), not finite or outside the position limits.
    """
    check_pose(profile, start, 'start')
    check_pose(profile, goal, 'goal')
    segments: list[Segment] = [
        move(profile, np.asarray(start, float), np.asarray(goal, float), speed)
    ]
    if settle > 0.0:
        segments.append(Hold(np.array(goal, float), settle))
    return Trajectory(segments)


def line(
    profile: RobotProfile, solver: Solver, begin: np.ndarray, end: np.ndarray, gripper: float,
    *, speed: float, tip_speed: float,
) -> Path:
    """
    Plan a straight line of the tip, the gripper's lean kept.

    :param begin: of the tip (3,); ``end`` likewise.
    :param gripper: its position, throughout.
    :param speed: largest joint speed [rad/s].
    :param tip_speed: mean speed of the tip [m/s].
    :raises ExpertError: out of reach.
    """
    shares = np.linspace(0.0, 1.0, _PATH_POINTS)
    points = [solver.solve(begin + share * (end - begin), gripper) for share in shares]
    path = _fit(shares, np.array(points))
    return _timed(profile, path, speed, float(np.linalg.norm(end - begin)) / tip_speed)


def nearest_arm(profile: RobotProfile, target: np.ndarray) -> Arm:
    """Return the arm whose base is nearest to a point (3,)."""
    return min(profile.arms, key=lambda arm: float(np.linalg.norm(target - arm.origin)))


def gripper_closed(profile: RobotProfile, target: np.ndarray) -> float:
    """Return the closed position of the gripper of the arm nearest to a point (3,)."""
    return float(profile.lower[profile.place_of(nearest_arm(profile, target)).stop - 1])


class ArmSolver:
    """
    Inverse kinematics of one arm, from one solution to the next; the other joints stay.

    :param start: joint positions (J,) of the others.
    :param origin: of the arm's base (3,) in the base frame [m].
    :param turn: of the arm's base (3, 3).
    """

    _rotation: np.ndarray    # of the tool (3, 3), in the arm's base: a subclass says which
    _pose: np.ndarray        # where the next solution is looked for

    def __init__(self, profile: RobotProfile, arm: Arm, start: np.ndarray, origin: np.ndarray,
                 turn: np.ndarray) -> None:
        self._profile, self._chain = profile, Chain(arm.kinematics)
        place = profile.place_of(arm)
        self._joints = slice(place.start, place.start + self._chain.joints)
        self._whole = np.array(start, dtype=float)
        self._gripper = place.stop - 1
        self._origin, self._turn = origin, turn

    def solve(self, position: np.ndarray, gripper: float) -> np.ndarray:
        """
        Return the joint positions (J,) with the tool at ``position`` (3,).

        :param gripper: its position.
        :raises ExpertError: out of reach.
        """
        q = tip_angles(self._chain, self._turn.T @ (position - self._origin), self._rotation,
                       self._pose)
        whole = self._whole.copy()
        whole[self._joints] = reached(self._profile, self._joints, q, position)
        whole[self._gripper] = gripper
        self._pose = whole[self._joints].copy()
        return whole


class TipSolver(ArmSolver):
    """
    Inverse kinematics of one arm's tip, from one solution to the next; the others stay.

    The gripper leans outwards: along the line from the arm's base to the target, or a heading.

    :param start: joint positions (J,) of the other arms.
    :param target: (3,); chooses the arm, and which way it leans.
    :param tilt: of the gripper from straight down [rad].
    :param heading: about the base frame's vertical [rad]; None: along that line.
    """

    def __init__(self, profile: RobotProfile, start: np.ndarray, target: np.ndarray,
                 tilt: float, heading: float | None = None) -> None:
        arm = nearest_arm(profile, target)
        super().__init__(profile, arm, start, np.array(arm.origin), rotation(*arm.rpy))
        base = self._turn.T @ (target - self._origin)
        bearing = float(np.arctan2(base[1], base[0]))
        outwards = np.array([np.cos(bearing), np.sin(bearing), 0.0])
        if heading is not None:
            outwards = self._turn.T @ [np.cos(heading), np.sin(heading), 0.0]
        forward = np.sin(tilt) * outwards - np.cos(tilt) * np.array([0.0, 0.0, 1.0])
        sideways = np.array([-outwards[1], outwards[0], 0.0])
        # The fingers point along the tip's offset from the flange (z of a PiPER's, x of an ARX's)
        # and open along y.
        along = np.asarray(arm.kinematics.tip) / np.linalg.norm(arm.kinematics.tip)
        across = np.array([0.0, 1.0, 0.0])
        self._rotation = (np.column_stack([np.cross(sideways, forward), sideways, forward])
                          @ np.column_stack([np.cross(across, along), across, along]).T)
        self.fingers = self._turn @ forward     # unit vector (3,) that they point along
        self._pose = np.array(profile.home[self._joints])
        self._pose[0] = bearing


def reached(profile: RobotProfile, joints: slice, q: Optional[np.ndarray],
            position: np.ndarray) -> np.ndarray:
    """
    Return a solution of inverse kinematics if there is one within the limits.

    :param joints: whose it is. :param q: their positions; None when none were found.
    :param position: of the tip (3,), for the words.
    :raises ExpertError: out of reach.
    """
    where = np.round(position, 3).tolist()
    if q is None:
        raise ExpertError(f'no joint positions put the tip at {where} m; it is out of reach')
    outside = (q < _lower(profile)[joints]) | (q > _upper(profile)[joints])
    if outside.any():
        name = profile.joint_names[joints][int(np.argmax(outside))]
        raise ExpertError(f'the tip at {where} m takes {name} to {q[outside][0]:.3f}, outside '
                          'its limits; it is out of reach')
    return q


def _fit(shares: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Fit a polynomial (degree + 1, J) to joint positions (N, J) along a path."""
    path = np.polyfit(shares, points, _PATH_DEGREE)
    worst = float(np.abs(np.vander(shares, _PATH_DEGREE + 1) @ path - points).max())
    if worst > 1e-4:
        raise ExpertError(f'the line bends too much to plan: {worst:.1e} rad off a polynomial')
    return path


def _polynomial(coefficients: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a polynomial's value and first two derivatives by ``s`` (J,), by Horner's rule."""
    value, first, second = (np.zeros(coefficients.shape[1]) for _ in range(3))
    for row in coefficients:
        second = second * s + 2.0 * first
        first = first * s + value
        value = value * s + row
    return value, first, second


def move(profile: RobotProfile, start: np.ndarray, goal: np.ndarray, speed: float) -> Path:
    """Plan a minimum-jerk joint move (J,) -> (J,) at a largest joint speed [rad/s]."""
    return _timed(profile, np.stack([goal - start, start]), speed, 0.2)


def _timed(profile: RobotProfile, path: np.ndarray, speed: float, shortest: float) -> Path:
    """
    Give a path the shortest duration that keeps speeds and accelerations within limits.

    With one blend in time, velocity falls with the duration and acceleration with its square, so
    the peaks of the unit-time motion decide. 400 samples find them to 1e-4 of their value; 1 % is
    kept in hand.
    """
    unit = Path(path, 1.0)
    states = [unit.state(float(t)) for t in np.linspace(0.0, 1.0, 401)]
    velocity = np.max([np.abs(state[1]) for state in states], axis=0)
    acceleration = np.max([np.abs(state[2]) for state in states], axis=0)
    allowed = 0.8 * profile.velocity
    fastest = np.where(_chain(profile), np.minimum(speed, allowed), allowed)
    hardest = ACCELERATION_SHARE * profile.acceleration
    needed = max(float((velocity / fastest).max()), float(np.sqrt(acceleration / hardest).max()))
    return Path(path, max(shortest, 1.01 * needed))


def _lower(profile: RobotProfile) -> np.ndarray:
    return _inset(profile, profile.lower, 1.0)


def _upper(profile: RobotProfile) -> np.ndarray:
    return _inset(profile, profile.upper, -1.0)


def _inset(profile: RobotProfile, limit: np.ndarray, sign: float) -> np.ndarray:
    """Move the arm's position limits inwards; the gripper may use all of its stroke."""
    return np.array(limit, dtype=float) + sign * _JOINT_MARGIN * _chain(profile)


def _chain(profile: RobotProfile) -> np.ndarray:
    """Return which joints (J,) belong to the chains of the arms."""
    return np.array([joint.role == 'arm' for joint in profile.joints])


def _closed(profile: RobotProfile, pose: np.ndarray) -> np.ndarray:
    pose = np.array(pose, dtype=float)
    for index in profile.gripper_indices:
        pose[index] = profile.lower[index]
    return pose


def check_pose(profile: RobotProfile, pose: np.ndarray, what: str) -> None:
    pose = np.asarray(pose, dtype=float)
    if pose.shape != (len(profile.joints),) or not np.isfinite(pose).all():
        raise ExpertError(f'{what} {pose} is not {len(profile.joints)} finite joint positions')
    # A measured pose may stand a little behind a limit (the arm rests on its stops).
    outside = (pose < profile.lower - _JOINT_MARGIN) | (pose > profile.upper + _JOINT_MARGIN)
    if outside.any():
        index = int(np.argmax(outside))
        raise ExpertError(
            f'{what}: {profile.joint_names[index]} at {pose[index]:.4f} lies outside '
            f'[{profile.lower[index]}, {profile.upper[index]}]'
        )


def rng_of(seed: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of a demonstration's seed for one purpose."""
    return np.random.default_rng([zlib.crc32(purpose.encode()), seed])
