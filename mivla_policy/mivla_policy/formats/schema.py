"""
How a data set's columns and cameras map to a robot's: one file for both directions.

::

    robot_type: aloha            # what the data set calls the robot
    fps: 50                      # rows per second when written
    columns:                     # in the order of the data set's vector
      - {joint: joint1, name: left_waist, unit: deg}
      - {joint: gripper, name: left_gripper, scale: 14.2857}    # value = joint * scale + offset
      - {name: right_waist, constant: 0.0}     # the robot has no such joint
    missing: {joint7: 0.0}       # joints that the data set has no column for, when read
    cameras: {head: cam_high, wrist: cam_left_wrist}             # role: name in the data set

A column without ``joint`` is written as its constant and passed over when read. ``name`` may be
left out where a joint is given: the joint's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from mivla_core.profile import RobotProfile
from mivla_core.small_file import read_yaml
from mivla_policy.errors import FormatError

__all__ = ['Column', 'Schema', 'load_schema', 'own_schema']

UNITS = {'': 1.0, 'rad': 1.0, 'm': 1.0, 'deg': 180.0 / math.pi, 'mm': 1000.0, 'cm': 100.0}
KEYS = {'robot_type', 'fps', 'columns', 'missing', 'cameras'}
MAX_COLUMNS = 256
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Column:
    """
    One number of a data set's vectors: ``joint * scale + offset``.

    :param name: in the data set.
    :param joint: of the profile; '' for none.
    :param scale: data set's unit per rad or m; never 0.
    :param offset: in the data set's unit.
    :param constant: what is written where there is no joint.
    """

    name: str
    joint: str = ''
    scale: float = 1.0
    offset: float = 0.0
    constant: float = 0.0


@dataclass(frozen=True)
class Schema:
    """
    A data set's side of a robot.

    :param columns: in the order of its vectors.
    :param cameras: role of the profile -> name in the data set.
    :param missing: joint -> position [rad, m] that is taken where the data set has no column.
    :param robot_type: what the data set calls the robot; '' to use the profile's name.
    :param fps: rows per second; 0 for the profile's policy rate.
    """

    columns: tuple[Column, ...]
    cameras: Mapping[str, str]
    missing: Mapping[str, float] = field(default_factory=dict)
    robot_type: str = ''
    fps: int = 0

    def __post_init__(self) -> None:
        """Raise FormatError for a joint, name or camera that occurs twice, or a scale of 0."""
        for what, names in (('column', [c.name for c in self.columns]),
                            ('joint', [c.joint for c in self.columns if c.joint]),
                            ('camera', list(self.cameras.values()))):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise FormatError(f'schema: {what} {", ".join(twice)} occurs more than once')
        for column in self.columns:
            values = (column.scale, column.offset, column.constant)
            if not all(map(math.isfinite, values)) or column.scale == 0.0:
                raise FormatError(f'schema: column {column.name}: scale {column.scale}, offset '
                                  f'{column.offset}, constant {column.constant}; expected finite '
                                  'numbers and a scale other than 0')
        if not 0 < len(self.columns) <= MAX_COLUMNS or not 0 <= self.fps <= 1000:
            raise FormatError(f'schema: {len(self.columns)} columns at {self.fps} rows per second')

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    def check(self, profile: RobotProfile) -> Schema:
        """Return the schema; raise FormatError where it does not fit a robot."""
        joints = {column.joint for column in self.columns if column.joint} | set(self.missing)
        roles = [camera.role for camera in profile.cameras]
        for what, names, known in (('joint', joints, profile.joint_names),
                                   ('camera', set(self.cameras), roles)):
            if strange := sorted(names - set(known)):
                raise FormatError(f'schema: {profile.name} has no {what} {", ".join(strange)}; '
                                  f'it has {", ".join(known)}')
        return self

    def outward(self, values: NDArray[np.float64], joints: Sequence[str],
                slope: bool = False) -> NDArray[np.float64]:
        """
        Return the data set's numbers (N, D) of a robot's (N, J).

        :param joints: names of the J columns.
        :param slope: the values are velocities: no offset, no constant.
        :raises FormatError: a joint of the schema is not among them.
        """
        order = {name: index for index, name in enumerate(joints)}
        out = np.zeros((len(values), len(self.columns)))
        for index, column in enumerate(self.columns):
            if not column.joint:
                out[:, index] = 0.0 if slope else column.constant
                continue
            if column.joint not in order:
                raise FormatError(f'schema: column {column.name} is joint {column.joint}, which '
                                  f'the episode lacks; it has {", ".join(joints)}')
            out[:, index] = values[:, order[column.joint]] * column.scale + (
                0.0 if slope else column.offset)
        return out

    def inward(self, values: NDArray[np.float64], joints: Sequence[str],
               names: Optional[Sequence[str]] = None) -> NDArray[np.float64]:
        """
        Return a robot's numbers (N, J) of the data set's (N, D).

        :param joints: names of the J columns that are wanted.
        :param names: of the D columns, where the data set tells them: then their order is its own.
        :raises FormatError: a column is missing, or a joint that nothing is said about.
        """
        given = tuple(self.names if names is None else names)
        if values.ndim != 2 or values.shape[1] != len(given):
            raise FormatError(f'the data set has {values.shape[-1]} numbers a row, the schema '
                              f'{len(given)}: {", ".join(given)}')
        by_joint = {column.joint: column for column in self.columns if column.joint}
        out = np.empty((len(values), len(joints)))
        for index, joint in enumerate(joints):
            column = by_joint.get(joint)
            if column is None:
                if joint not in self.missing:
                    raise FormatError(
                        f'the schema has no column for joint {joint}; name one, or give the joint '
                        f'a position under "missing"; columns: {", ".join(given)}')
                out[:, index] = self.missing[joint]
                continue
            if column.name not in given:
                raise FormatError(f'the data set has no column {column.name} for joint {joint}; '
                                  f'it has {", ".join(given)}')
            out[:, index] = (values[:, given.index(column.name)] - column.offset) / column.scale
        return out


def own_schema(profile: RobotProfile, fps: int = 0) -> Schema:
    """Return the schema of a robot under its own names and units."""
    return Schema(tuple(Column(name, name) for name in profile.joint_names),
                  {camera.role: camera.role for camera in profile.cameras},
                  robot_type=profile.name, fps=fps)


def load_schema(path: Path) -> Schema:
    """
    Read a schema; see the head of this module.

    :raises FormatError: not such a file; says which key.
    """
    data = read_yaml(path, MAX_BYTES, FormatError, 'a schema')
    if not isinstance(data, dict) or not set(data) <= KEYS:
        strange = sorted(map(str, set(data) - KEYS)) if isinstance(data, dict) else type(data)
        raise FormatError(f'{path}: {strange}; a schema has {", ".join(sorted(KEYS))}')
    columns, cameras = data.get('columns'), data.get('cameras')
    if not isinstance(columns, list) or not isinstance(cameras, dict):
        raise FormatError(f'{path}: expected a list "columns" and a mapping "cameras"')
    try:
        return Schema(
            tuple(_column(row) for row in columns[:MAX_COLUMNS + 1]),
            {_word(key): _word(value) for key, value in cameras.items()},
            {_word(key): _number(value) for key, value in (data.get('missing') or {}).items()},
            _word(data.get('robot_type', '')), int(_number(data.get('fps', 0))))
    except FormatError as error:
        raise FormatError(f'{path}: {error}') from error


def _column(row: Any) -> Column:
    known = {'joint', 'name', 'unit', 'scale', 'offset', 'constant'}
    if not isinstance(row, dict) or not set(row) <= known:
        raise FormatError(f'column {row}: expected keys of {", ".join(sorted(known))}')
    joint, unit = _word(row.get('joint', '')), _word(row.get('unit', ''))
    name = _word(row.get('name', joint))
    if not name or unit not in UNITS or (unit and 'scale' in row):
        raise FormatError(f'column {row}: expected a name or a joint, and either a scale or a '
                          f'unit of {", ".join(filter(None, UNITS))}')
    if bool(joint) == ('constant' in row):
        raise FormatError(f'column {name}: either a joint, or the constant that stands there')
    return Column(name, joint, _number(row.get('scale', UNITS[unit])),
                  _number(row.get('offset', 0.0)), _number(row.get('constant', 0.0)))


def _word(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise FormatError(f'{value!r}: expected a short text')
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FormatError(f'{value!r}: expected a number')
    return float(value)
