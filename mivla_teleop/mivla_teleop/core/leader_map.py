"""
How a leader's joints become a follower's: joint by joint, or by the pose of the hand.

Joint by joint for arms of one kind. Between unlike arms (a PiPER leads an ARX-5) the pose of the
leader's tip decides: it moves the follower's tip by as much, in the same directions of the base
frame, from where both stood when they were joined. Grippers are always mapped as joints.

The file is YAML::

    kind: joints                       # or cartesian
    joints:                            # of the follower; those left out stay where they are
      joint1: {from: joint1, scale: 1.0, offset: 0.0}
      gripper: {from: gripper, scale: 1.257}
    scale: 1.0                         # cartesian only: of distances
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mivla_core.errors import MivlaError
from mivla_core.kinematics import Chain
from mivla_core.profile import RobotProfile
from mivla_core.pursuit import Pursuit
from mivla_core.robot_parts import Arm
from mivla_core.small_file import read_yaml

__all__ = ['JointRule', 'LeaderMap', 'MapError', 'MapFile', 'load_map', 'make_map', 'usual_map']

MAX_BYTES = 1 << 16


class MapError(MivlaError):
    """A leader cannot be mapped to a follower as the file says."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False,
                              populate_by_name=True)


class JointRule(_Strict):
    """One joint of the follower: scale times a joint of the leader, plus offset [rad, m]."""

    source: str = Field(alias='from')
    scale: float = 1.0
    offset: float = 0.0


class MapFile(_Strict):
    """A map as it stands in a file."""

    kind: Literal['joints', 'cartesian'] = 'joints'
    joints: dict[str, JointRule] = {}
    scale: float = Field(default=1.0, gt=0.0, le=10.0)


class LeaderMap(Protocol):
    """Makes targets of the follower (J,) of joint positions of the leader (L,)."""

    def engage(self, leader: np.ndarray, follower: np.ndarray) -> None:
        """Join the two as they stand now."""
        ...

    def target(self, leader: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Return where the follower is to be; ``near`` (J,) is where it was asked to be last."""
        ...


def load_map(path: str) -> MapFile:
    """
    Read a map file.

    :raises MapError: no such file, not YAML, an unknown key or a value that cannot be.
    """
    file = Path(path).expanduser()
    data = read_yaml(file, MAX_BYTES, MapError, 'a leader map')
    try:
        return MapFile.model_validate(data)
    except ValidationError as err:
        first = err.errors()[0]
        where = '.'.join(str(step) for step in first['loc']) or 'the file'
        raise MapError(f'leader map {file}: {where}: {first["msg"]}') from err


def usual_map(leader: RobotProfile, follower: RobotProfile) -> MapFile:
    """
    Return the map that needs no file.

    Arms with the same joints and the same zeros: one to one. Others: by the pose of the hand, the
    grippers stretched from the one's range to the other's.
    """
    if leader.joint_names == follower.joint_names and leader.zero == follower.zero:
        return MapFile(joints={name: JointRule(source=name) for name in leader.joint_names})
    rules = {}
    for ours, theirs in _pairs(leader, follower):
        if ours.gripper is None or theirs.gripper is None:
            continue
        a = leader.joints[leader.joint_names.index(theirs.gripper)]
        b = follower.joints[follower.joint_names.index(ours.gripper)]
        scale = (b.upper - b.lower) / (a.upper - a.lower)
        rules[ours.gripper] = JointRule(source=theirs.gripper, scale=scale,
                                        offset=b.lower - scale * a.lower)
    return MapFile(kind='cartesian', joints=rules)


def make_map(file: MapFile, leader: RobotProfile, follower: RobotProfile) -> LeaderMap:
    """
    Return the map of two robots.

    :raises MapError: a joint that one of them does not have, or arms that do not pair.
    """
    joints = _JointMap(file.joints, leader, follower)
    if file.kind == 'joints':
        if not file.joints:
            raise MapError('leader map: kind joints needs joints; without any nothing would move')
        return joints
    return _CartesianMap(file.scale, joints, leader, follower)


def _pairs(leader: RobotProfile, follower: RobotProfile) -> list[tuple[Arm, Arm]]:
    """Return pairs (of the follower, of the leader): by name, or the only ones."""
    if len(leader.arms) == len(follower.arms) == 1:
        return [(follower.arms[0], leader.arms[0])]
    theirs = {arm.name: arm for arm in leader.arms}
    pairs = [(arm, theirs[arm.name]) for arm in follower.arms if arm.name in theirs]
    if not pairs:
        raise MapError(f'{leader.name} has the arms {", ".join(theirs)}, {follower.name} '
                       f'{", ".join(arm.name for arm in follower.arms)}: none has the same name')
    return pairs


class _JointMap:
    """Joint by joint; joints without a rule stay where they are asked to be."""

    def __init__(self, rules: Mapping[str, JointRule], leader: RobotProfile,
                 follower: RobotProfile) -> None:
        for name, rule in rules.items():
            if name not in follower.joint_names:
                raise MapError(f'leader map: the follower {follower.name} has no joint {name!r}; '
                               f'it has {", ".join(follower.joint_names)}')
            if rule.source not in leader.joint_names:
                raise MapError(f'leader map: {name}: the leader {leader.name} has no joint '
                               f'{rule.source!r}; it has {", ".join(leader.joint_names)}')
        self._to = [follower.joint_names.index(name) for name in rules]
        self._from = [leader.joint_names.index(rule.source) for rule in rules.values()]
        self._scale = np.array([rule.scale for rule in rules.values()])
        self._offset = np.array([rule.offset for rule in rules.values()])

    def engage(self, leader: np.ndarray, follower: np.ndarray) -> None:
        """Nothing to do: joint by joint is absolute."""

    def target(self, leader: np.ndarray, near: np.ndarray) -> np.ndarray:
        """See ``LeaderMap``."""
        out = np.array(near, dtype=np.float64)
        out[self._to] = self._scale * leader[self._from] + self._offset
        return out


class _Hand:
    """One pair of arms."""

    def __init__(self, ours: Arm, theirs: Arm, leader: RobotProfile,
                 follower: RobotProfile) -> None:
        place = follower.place_of(ours)
        chain = Chain(ours.kinematics)
        self.mine = slice(place.start, place.start + chain.joints)
        self._theirs = leader.place_of(theirs)
        self._leader = Chain(theirs.kinematics)
        self._pursuit = Pursuit(chain, follower.lower[self.mine], follower.upper[self.mine])
        self._from = self._to = np.eye(4)

    def engage(self, leader: np.ndarray, follower: np.ndarray) -> None:
        self._from = self._leader.tip(leader[self._theirs])
        self._to = self._pursuit.chain.tip(follower[self.mine])

    def target(self, leader: np.ndarray, near: np.ndarray, scale: float) -> np.ndarray:
        tip = self._leader.tip(leader[self._theirs])
        goal = np.eye(4)
        goal[:3, 3] = self._to[:3, 3] + scale * (tip[:3, 3] - self._from[:3, 3])
        goal[:3, :3] = tip[:3, :3] @ self._from[:3, :3].T @ self._to[:3, :3]
        return self._pursuit.towards(goal, near[self.mine])


class _CartesianMap:
    """By the pose of the hand, relative to where both stood; grippers joint by joint."""

    def __init__(self, scale: float, grippers: _JointMap, leader: RobotProfile,
                 follower: RobotProfile) -> None:
        self._scale, self._grippers = scale, grippers
        self._hands = [_Hand(ours, theirs, leader, follower)
                       for ours, theirs in _pairs(leader, follower)]

    def engage(self, leader: np.ndarray, follower: np.ndarray) -> None:
        """See ``LeaderMap``."""
        for hand in self._hands:
            hand.engage(leader, follower)

    def target(self, leader: np.ndarray, near: np.ndarray) -> np.ndarray:
        """See ``LeaderMap``."""
        out = self._grippers.target(leader, near)
        for hand in self._hands:
            out[hand.mine] = hand.target(leader, near, self._scale)
        return out
