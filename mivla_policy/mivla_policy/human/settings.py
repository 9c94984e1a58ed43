"""
The constants of the mapping between hands and robots, by name.

MiVLA (arXiv 2512.15411) publishes the form of the mapping and none of its numbers. All of them
stand in ``config/human/mapping.yaml``, with what each is and why its default is what it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mivla_core.profile import config_dir
from mivla_core.small_file import read_yaml
from mivla_policy.core.plain_data import from_mapping
from mivla_policy.errors import ConfigError

__all__ = ['Anatomy', 'Anchor', 'Aperture', 'Inverse', 'MappingSettings', 'Sides',
           'load_mapping']

MAX_BYTES = 1 << 16
HEADINGS = ('stored', 'camera')
STARTS = ('anchored', 'home')
Vectors = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Sides:
    """
    A rotation matrix (3, 3) for each hand, row by row.

    :raises ConfigError: not a rotation.
    """

    left: Vectors
    right: Vectors

    def __post_init__(self) -> None:
        for side in ('left', 'right'):
            rows = getattr(self, side)
            matrix = np.array(rows) if {len(row) for row in rows} == {3} else np.zeros(0)
            if matrix.shape != (3, 3) or np.linalg.norm(
                    matrix @ matrix.T - np.eye(3)) > 1e-6 or np.linalg.det(matrix) < 0.0:
                raise ConfigError(f'{side}: {list(map(list, rows))} is not a rotation matrix')

    def of(self, side: str) -> np.ndarray:
        """Return the matrix (3, 3) of 'left' or 'right'."""
        return np.array(self.left if side == 'left' else self.right)


@dataclass(frozen=True)
class Anchor:
    """
    Where the thumb's knuckle of a right hand stands on a gripper; a left hand is its mirror image.

    :param position: in the gripper's frame (x along the fingers, y across, z out of the back of
        the hand; the origin between the fingertips) [m].
    :param rpy: of the knuckle's hand axes in that frame [rad].
    """

    position: tuple[float, ...]
    rpy: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ConfigError unless both have three numbers."""
        if len(self.position) != 3 or len(self.rpy) != 3:
            raise ConfigError(f'position {self.position} and rpy {self.rpy} need 3 numbers each')


@dataclass(frozen=True)
class Aperture:
    """
    What a gripper's opening is on a hand: the distance of thumb and index fingertip [m].

    :param closed: of a closed gripper.
    :param open: of one that is open as far as it goes.
    """

    closed: float
    open: float

    def __post_init__(self) -> None:
        """Raise ConfigError unless 0 <= closed < open."""
        if not 0.0 <= self.closed < self.open < 0.3:
            raise ConfigError(f'closed {self.closed} and open {self.open}: expected 0 <= closed '
                              '< open < 0.3 m')


@dataclass(frozen=True)
class Anatomy:
    """
    The paper's f_d: wrist and fingertips of a right hand from its thumb's knuckle.

    All in the knuckle's hand axes; a left hand is the mirror image.

    :param wrist: position [m].
    :param wrist_rpy: of the wrist's hand axes [rad].
    :param closed: fingertips (5, 3), thumb to little finger, when thumb and index meet [m].
    :param open: the same when they are as far apart as an open gripper's fingers.
    """

    wrist: tuple[float, ...]
    wrist_rpy: tuple[float, ...]
    closed: Vectors
    open: Vectors

    def __post_init__(self) -> None:
        """Raise ConfigError for other shapes."""
        if len(self.wrist) != 3 or len(self.wrist_rpy) != 3:
            raise ConfigError('wrist and wrist_rpy need 3 numbers each')
        for name in ('closed', 'open'):
            if [len(row) for row in getattr(self, name)] != [3] * 5:
                raise ConfigError(f'{name} needs 5 fingertips of 3 numbers')


@dataclass(frozen=True)
class Inverse:
    """
    How joints are found for a pose.

    :param turning: what a radian is worth against a metre; small: position first.
    :param rounds: most iterations per frame.
    :param starts: poses from which the first frame is looked for.
    :param position_tolerance: a frame counts as reached within this [m] ...
    :param turn_tolerance: ... and this [rad].
    :param reached_share: of its frames that must be reached for a demonstration to be learned
        from as the robot's.
    """

    turning: float = 0.1
    rounds: int = 40
    starts: int = 12
    position_tolerance: float = 0.01
    turn_tolerance: float = 0.35
    reached_share: float = 0.9

    def __post_init__(self) -> None:
        """Raise ConfigError for values out of range."""
        if not (0.0 < self.turning <= 10.0 and 1 <= self.rounds <= 1000
                and 1 <= self.starts <= 1000):
            raise ConfigError(f'turning {self.turning}, rounds {self.rounds}, starts '
                              f'{self.starts}: expected (0, 10], 1..1000, 1..1000')


@dataclass(frozen=True)
class MappingSettings:
    """
    Everything the mapping leaves open.

    :param name: stored with what is trained by it.
    :param world: R_h of each hand: a direction of the file's world in the robot's base frame.
    :param heading: 'stored': the world is turned as ``world`` says; 'camera': about the vertical
        besides, so that the first picture looks along the robot's x.
    :param camera_forward: direction of view in the camera's own axes; for 'camera'.
    :param start: a_r,0, where the robot's motion begins: 'anchored': where the hand's begins, so
        that both act at the same place; 'home': the robot's home, whatever place that is.
    :param scale: metres of the robot for each of the hand.
    :param joint_axes: hand axes (x to the fingertips, y to the left of a hand held palm down, z
        out of its back) as columns in a joint's own axes, as the files have them.
    :param anchor: R_m, of the right hand.
    :param aperture: gripper and hand.
    :param anatomy: f_d.
    :param inverse: kinematics.
    """

    name: str
    world: Sides
    heading: str
    camera_forward: tuple[float, ...]
    start: str
    scale: float
    joint_axes: Sides
    anchor: Anchor
    aperture: Aperture
    anatomy: Anatomy
    inverse: Inverse

    def __post_init__(self) -> None:
        """Raise ConfigError for values out of range."""
        if self.heading not in HEADINGS or self.start not in STARTS:
            raise ConfigError(f'heading {self.heading!r} and start {self.start!r}; expected one '
                              f'of {HEADINGS} and one of {STARTS}')
        if len(self.camera_forward) != 3 or not any(self.camera_forward):
            raise ConfigError(f'camera_forward {self.camera_forward} is no direction')
        if not 0.1 <= self.scale <= 10.0:
            raise ConfigError(f'scale is {self.scale}; expected 0.1 to 10')


def load_mapping(path: str | os.PathLike[str] | None = None) -> MappingSettings:
    """
    Read the settings.

    :param path: a YAML file; None: ``human/mapping.yaml`` of the configuration folder.
    :raises ConfigError: cannot be read, too big, unknown or missing keys, values out of range.
    """
    file = config_dir() / 'human' / 'mapping.yaml' if path is None else Path(path)
    data = read_yaml(file, MAX_BYTES, ConfigError, 'a mapping')
    return from_mapping(MappingSettings, data, str(file), complete=True)
