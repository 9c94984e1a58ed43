"""
The robot profile: one YAML file is the robot.

``load_profile('piper')`` reads ``config/robots/piper.yaml``; a path or an installed package may
provide others. The text is parsed once into a frozen ``RobotProfile``; an unknown key, an inverted
limit or a missing joint is a ``ProfileError`` that names the key and the file.

``RobotProfile.hash`` covers what gives states and actions their meaning (joint names, order,
units, zero convention, gripper map, action packing, camera roles) and nothing else: limits, gains,
devices and rates may change without making old bags and checkpoints unreadable.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Optional

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mivla_core.errors import ProfileError
from mivla_core.robot_parts import (
    Arm,
    Camera,
    Drive,
    Driver,
    Execution,
    Guard,
    Joint,
    Kinematics,
    Packing,
    Rates,
    Strict,
    Teleop,
    Verified,
    Workspace,
)

__all__ = ['RobotProfile', 'available_profiles', 'config_dir', 'diff_profiles', 'load_profile',
           'parse_profile']

MAX_PROFILE_BYTES = 1 << 20

class RobotProfile(Strict):
    """
    A robot, frozen. Arrays are float64 (J,) in the order of ``joints``.

    The joints stand in the order of the arms, each with its gripper last; joints of the role
    'base' (the pose of a trunk) follow them. A robot with one arm may say ``kinematics`` instead
    of ``arms``.
    """

    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False,
                              arbitrary_types_allowed=True)

    name: str = Field(pattern=r'^[a-z][a-z0-9_]*$')
    description: str
    joints: tuple[Joint, ...] = Field(min_length=1)
    zero: str                   # names the zero convention of the joint values
    arms: tuple[Arm, ...] = Field(min_length=1)
    workspace: Workspace
    driver: Driver
    cameras: tuple[Camera, ...]
    rates: Rates
    guard: Guard
    drive: Optional[Drive] = None
    execution: Execution = Execution()
    teleop: Teleop = Teleop()
    verified: Verified = Verified()
    packing: Packing

    @model_validator(mode='before')
    @classmethod
    def _one_arm(cls, data: Any) -> Any:
        if not isinstance(data, dict) or 'kinematics' not in data or 'arms' in data:
            return data
        joints = [joint for joint in data.get('joints') or () if isinstance(joint, dict)]
        grippers = [joint.get('name') for joint in joints if joint.get('role') == 'gripper']
        if len(grippers) > 1:
            raise ValueError('more than one gripper joint; describe the arms under arms')
        arm = {'name': 'arm', 'gripper': grippers[0] if grippers else None,
               'joints': [joint.get('name') for joint in joints
                          if joint.get('role', 'arm') == 'arm'],
               'calibration': data.get('calibration', ''), 'kinematics': data['kinematics']}
        return {**{key: value for key, value in data.items()
                   if key not in ('kinematics', 'calibration')}, 'arms': [arm]}

    @model_validator(mode='after')
    def _consistent(self) -> RobotProfile:
        names = [joint.name for joint in self.joints]
        if len(set(names)) != len(names):
            raise ValueError(f'joint names are not unique: {names}')
        roles = [camera.role for camera in self.cameras]
        if len(set(roles)) != len(roles):
            raise ValueError(f'camera roles are not unique: {roles}')
        self._check_arms()
        self._check_packing(names)
        self._check_points()
        return self

    def _check_arms(self) -> None:
        arms = [arm.name for arm in self.arms]
        if len(set(arms)) != len(arms):
            raise ValueError(f'arm names are not unique: {arms}')
        expected = [(name, 'gripper' if name == arm.gripper else 'arm')
                    for arm in self.arms for name in arm.all_joints]
        expected += [(joint.name, 'base') for joint in self.joints if joint.role == 'base']
        found = [(joint.name, joint.role) for joint in self.joints]
        if found != expected:
            raise ValueError(
                'joints come arm by arm, each with its gripper last, then the joints of the base: '
                f'expected {_listed(expected)}, found {_listed(found)}')
        base = [joint.unit for joint in self.joints if joint.role == 'base']
        if base and base != ['m', 'm', 'm', 'rad', 'rad', 'rad']:
            raise ValueError('the joints of the base are six: x, y, z [m], roll, pitch, yaw '
                             f'[rad]; found the units {base}')

    def _check_packing(self, names: list[str]) -> None:
        if set(self.packing.slots) != set(names):
            missing = sorted(set(names) ^ set(self.packing.slots))
            raise ValueError(f'packing.slots and joints differ in {missing}')
        # Arms of other makers share these slots in one model: a gripper must not meet a wrist.
        wrong = {joint.name: self.packing.slots[joint.name] for joint in self.joints
                 if (self.packing.slots[joint.name] >= 14) != (joint.role == 'base')
                 or (self.packing.slots[joint.name] < 14
                     and (joint.role == 'gripper') != (self.packing.slots[joint.name] in (6, 13)))}
        if wrong:
            raise ValueError(f'packing.slots: 6 and 13 are for grippers, 14 and more for the '
                             f'base, the rest for arms: {wrong}')

    def _check_points(self) -> None:
        for point in self.workspace.points:
            if not point.arm and len(self.arms) > 1:
                raise ValueError('a workspace point does not say its arm: one of '
                                 f'{[arm.name for arm in self.arms]}')
            arm = next((arm for arm in self.arms if not point.arm or arm.name == point.arm), None)
            if arm is None:
                raise ValueError(f'workspace point on arm {point.arm!r}; there is '
                                 f'{[arm.name for arm in self.arms]}')
            if point.frame > arm.kinematics.size:
                raise ValueError(f'workspace point on frame {point.frame}: the chain has '
                                 f'{arm.kinematics.size}')
        names = [arm.name for arm in self.arms]
        for pair in self.workspace.apart:
            if pair[0] == pair[1] or not set(pair) <= set(names):
                raise ValueError(f'workspace apart: {list(pair)} are not two arms of {names}')

    @cached_property
    def joint_names(self) -> tuple[str, ...]:
        """Names in profile order."""
        return tuple(joint.name for joint in self.joints)

    def _array(self, field: str) -> np.ndarray:
        values = np.array([getattr(joint, field) for joint in self.joints], dtype=np.float64)
        values.setflags(write=False)
        return values

    @cached_property
    def lower(self) -> np.ndarray:
        """Lower position limits (J,)."""
        return self._array('lower')

    @cached_property
    def upper(self) -> np.ndarray:
        """Upper position limits (J,)."""
        return self._array('upper')

    @cached_property
    def velocity(self) -> np.ndarray:
        """Velocity limits (J,)."""
        return self._array('velocity')

    @cached_property
    def acceleration(self) -> np.ndarray:
        """Acceleration limits (J,)."""
        return self._array('acceleration')

    @cached_property
    def deceleration(self) -> np.ndarray:
        """Braking decelerations (J,)."""
        return self._array('deceleration')

    @cached_property
    def home(self) -> np.ndarray:
        """Home pose (J,)."""
        return self._array('home')

    @cached_property
    def rest(self) -> np.ndarray:
        """Pose (J,) in which torque may go off."""
        return self._array('rest')

    @cached_property
    def ramp_velocity(self) -> np.ndarray:
        """Speed (J,) while joining a source."""
        guard = self.guard
        values = np.array([guard.ramp_velocity if joint.unit == 'rad'
                           else guard.ramp_velocity_linear for joint in self.joints])
        values.setflags(write=False)
        return values

    def arm(self, name: str) -> Arm:
        """Return the arm of a name; raises ProfileError when there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ProfileError(f'robot {self.name} has no arm {name!r}; it has '
                           f'{[arm.name for arm in self.arms]}')

    def place_of(self, arm: Arm) -> slice:
        """Return where an arm's joints and its gripper stand among ``joints``."""
        first = self.joint_names.index(arm.joints[0])
        return slice(first, first + len(arm.all_joints))

    def of_arm(self, name: str) -> RobotProfile:
        """
        Return the profile of one arm alone, as the backend of its bus needs it.

        It keeps its place on the robot and has no cameras.

        :raises ProfileError: there is no such arm.
        """
        arm = self.arm(name)
        place = self.place_of(arm)
        points = self.workspace.points
        mine = [i for i, point in enumerate(points) if point.arm in ('', arm.name)]
        slots = {joint: self.packing.slots[joint] for joint in arm.all_joints}
        side = 'left' if max(slots.values()) < 7 else 'right'
        return RobotProfile.model_validate({
            **self.model_dump(), 'name': f'{self.name}_{arm.name}', 'arms': [arm.model_dump()],
            'joints': [joint.model_dump() for joint in self.joints[place]], 'cameras': [],
            'workspace': {**self.workspace.model_dump(),
                          'points': [points[i].model_dump() for i in mine],
                          'self_pairs': [(mine.index(i), mine.index(j))
                                         for i, j in self.workspace.self_pairs
                                         if i in mine and j in mine],
                          'apart': []},
            'driver': {**self.driver.model_dump(), 'channel': arm.channel or self.driver.channel},
            'packing': {'space': self.packing.space, 'side': side, 'slots': slots}})

    @property
    def only_arm(self) -> Arm:
        """The arm of a robot that has one; raises ProfileError where there are several."""
        if len(self.arms) != 1:
            raise ProfileError(f'robot {self.name} has the arms '
                               f'{[arm.name for arm in self.arms]}; this is for robots with one')
        return self.arms[0]

    @property
    def kinematics(self) -> Kinematics:
        """The chain of a robot with one arm; raises ProfileError where there are several."""
        return self.only_arm.kinematics

    @property
    def arm_joints(self) -> int:
        """Joints of the only arm, which come first; its gripper, if any, follows them."""
        return self.kinematics.size

    @cached_property
    def gripper_indices(self) -> tuple[int, ...]:
        """Indices of all gripper joints."""
        return tuple(i for i, joint in enumerate(self.joints) if joint.role == 'gripper')

    @property
    def gripper_index(self) -> Optional[int]:
        """Index of the only arm's gripper joint, or None."""
        return None if self.only_arm.gripper is None else self.arm_joints

    @property
    def ride_through(self) -> float:
        """Age of the last command at which the guard brakes [s]."""
        return self.guard.ride_through or max(0.1, 3.0 / self.rates.control)

    def camera(self, role: str) -> Camera:
        """Return the camera of a role; raises ProfileError when there is none."""
        for camera in self.cameras:
            if camera.role == role:
                return camera
        raise ProfileError(f'robot {self.name} has no camera {role!r}; it has '
                           f'{[camera.role for camera in self.cameras]}')

    @cached_property
    def meaning(self) -> dict[str, Any]:
        """What gives states and actions their meaning, as plain data."""
        return {
            'joints': [{'name': j.name, 'unit': j.unit, 'role': j.role} for j in self.joints],
            'zero': self.zero,
            'packing': {'space': self.packing.space, 'side': self.packing.side,
                        'slots': dict(sorted(self.packing.slots.items()))},
            'cameras': [camera.role for camera in self.cameras],
        }

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits of SHA-256 over ``meaning``."""
        text = json.dumps(self.meaning, sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def text(self) -> str:
        """Canonical YAML of the whole profile; parses back to an equal profile."""
        return yaml.safe_dump(self.model_dump(mode='json'), sort_keys=False, width=99)


def config_dir() -> Path:
    """
    Return the folder that holds robots/, cameras/ and policies/.

    $MIVLA_CONFIG_DIR, else the share folder of the installed mivla_bringup, else config/ of the
    source checkout this module lies in.
    """
    override = os.environ.get('MIVLA_CONFIG_DIR')
    if override:
        path = Path(override)
        if not path.is_dir():
            raise ProfileError(f'MIVLA_CONFIG_DIR={override} is not a folder; unset or mend it')
        return path
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        path = Path(prefix, 'share', 'mivla_bringup', 'config')
        if prefix and path.is_dir():
            return path
    path = Path(__file__).resolve().parents[2] / 'config'
    if path.is_dir():
        return path
    raise ProfileError('no configuration folder: set MIVLA_CONFIG_DIR to the checkout\'s config/')


def available_profiles() -> dict[str, Path]:
    """Map profile names to files: config/robots, then entry points ``mivla.profiles``."""
    found = {path.stem: path for path in sorted((config_dir() / 'robots').glob('*.yaml'))}
    for point in entry_points(group='mivla.profiles'):
        folder = Path(point.load())
        for path in sorted(folder.glob('*.yaml')):
            found.setdefault(path.stem, path)
    return found


def load_profile(name_or_path: str | os.PathLike[str]) -> RobotProfile:
    """
    Load a robot profile by name or path.

    :raises ProfileError: unknown name (lists the valid ones), unreadable or invalid file.
    """
    text = os.fspath(name_or_path)
    if text.endswith(('.yaml', '.yml')) or os.sep in text:
        path = Path(text)
        if not path.is_file():
            raise ProfileError(f'robot profile {text}: no such file')
    else:
        known = available_profiles()
        if text not in known:
            raise ProfileError(f'unknown robot {text!r}; known: {", ".join(sorted(known))}')
        path = known[text]
    if path.stat().st_size > MAX_PROFILE_BYTES:
        raise ProfileError(f'robot profile {path}: larger than {MAX_PROFILE_BYTES} bytes')
    try:
        content = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as err:
        raise ProfileError(f'robot profile {path}: {err}') from err
    return parse_profile(content, str(path))


def parse_profile(text: str, origin: str) -> RobotProfile:
    """
    Parse a profile's YAML text.

    :param origin: file or topic the text came from, for the error message.
    :raises ProfileError: names the key, the value and ``origin``.
    """
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as err:
        raise ProfileError(f'robot profile {origin}: not YAML: {" ".join(str(err).split())}'
                           ) from err
    if not isinstance(data, dict):
        raise ProfileError(f'robot profile {origin}: expected a mapping, found '
                           f'{type(data).__name__}')
    try:
        return RobotProfile.model_validate(data)
    except ValidationError as err:
        raise ProfileError(f'robot profile {origin}: {_explain(err)}') from err


def diff_profiles(ours: RobotProfile, theirs: RobotProfile) -> list[str]:
    """Return one line per field of ``meaning`` that differs: 'field: ours -> theirs'."""
    return list(_diff('', ours.meaning, theirs.meaning))


def _diff(path: str, a: Any, b: Any) -> Any:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            where = f'{path}.{key}' if path else str(key)
            yield from _diff(where, a.get(key, '(absent)'), b.get(key, '(absent)'))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b)):
            yield from _diff(f'{path}[{index}]', x, y)
    elif a != b:
        yield f'{path}: {a} -> {b}'


def _listed(joints: Sequence[tuple[str, str]]) -> str:
    return ', '.join(name if role == 'arm' else f'{name} ({role})' for name, role in joints)


def _explain(err: ValidationError) -> str:
    parts = []
    for issue in err.errors()[:5]:
        where = '.'.join(str(step) for step in issue['loc']) or 'profile'
        if issue['type'] == 'extra_forbidden':
            parts.append(f'unknown key {where}')
        elif issue['type'] == 'missing':
            parts.append(f'missing key {where}')
        else:
            message = issue['msg'].removeprefix('Value error, ')
            given = issue.get('input')
            shown = '' if isinstance(given, (dict, list, BaseModel)) else f' (found {given!r})'
            parts.append(f'{where}: {message}{shown}')
    more = err.error_count() - len(parts)
    return '; '.join(parts) + (f'; and {more} more' if more > 0 else '')


class _UniqueKeyLoader(yaml.SafeLoader):  # type: ignore[misc]
    """A safe YAML loader that refuses a mapping with the same key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key {key!r} twice', key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
