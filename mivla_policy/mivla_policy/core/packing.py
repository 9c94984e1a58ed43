"""
Action spaces, and where the joints of a robot stand in them.

One trunk serves several robots because each of them fills some *slots* of a common vector. The
spaces are those of MiVLA (arXiv 2512.15411): human hands, robot joints, poses of the end
effectors; and the joints with a floating base behind them, for robots that walk. What the paper
leaves open is decided in docs/design/0003-action-spaces.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mivla_core.robot_parts import JOINT_SPACES, Packing
from mivla_policy.errors import ConfigError

__all__ = ['SPACES', 'SlotMap', 'pack', 'space_size']

SIDES = ('left', 'right')
FINGERS = ('thumb', 'index', 'middle', 'ring', 'little')
ARM_JOINTS = 6
BASE = ('base.x', 'base.y', 'base.z', 'base.roll', 'base.pitch', 'base.yaw')


def _hand(side: str) -> tuple[str, ...]:
    """Return a hand's 24 slots: the wrist's place, two columns of its rotation, fingertips."""
    return (*(f'{side}.wrist.{axis}' for axis in 'xyz'),
            *(f'{side}.rotation.{axis}{column}' for column in (0, 1) for axis in 'xyz'),
            *(f'{side}.{finger}.{axis}' for finger in FINGERS for axis in 'xyz'))


def _arm(side: str) -> tuple[str, ...]:
    """Return an arm's 7 slots: six joints, then the opening of the gripper."""
    return (*(f'{side}.joint{i + 1}' for i in range(ARM_JOINTS)), f'{side}.gripper')


def _pose(side: str) -> tuple[str, ...]:
    """Return an end effector's 7 slots: position, then the quaternion with w first."""
    # w first, as in SAPIEN and RoboTwin: the data that MiVLA was trained on comes from there.
    return (*(f'{side}.position.{axis}' for axis in 'xyz'),
            *(f'{side}.quaternion.{part}' for part in 'wxyz'))


# Name of the space -> name of each slot.
SPACES: Mapping[str, tuple[str, ...]] = {
    'hand48': _hand('left') + _hand('right'),
    'joint14': _arm('left') + _arm('right'),
    'joint14base6': _arm('left') + _arm('right') + BASE,
    'eef14': _pose('left') + _pose('right'),
}
assert all(len(SPACES[name]) == size for name, size in JOINT_SPACES.items())


def space_size(space: str) -> int:
    """Return the numbers in an action space; raise ConfigError for an unknown one."""
    if space not in SPACES:
        raise ConfigError(f'unknown action space {space!r}; known: {", ".join(SPACES)}')
    return len(SPACES[space])


@dataclass(frozen=True)
class SlotMap:
    """
    The slots of one robot's joints.

    :param space: name of the action space.
    :param slots: of each joint in profile order, distinct.
    """

    space: str
    slots: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise ConfigError for slots that the space does not have, or that are used twice."""
        size = space_size(self.space)
        if not self.slots or len(set(self.slots)) != len(self.slots) or not all(
                0 <= slot < size for slot in self.slots):
            raise ConfigError(f'slots {list(self.slots)} of {self.space}: expected distinct '
                              f'numbers from 0 to {size - 1}')

    @classmethod
    def of(cls, packing: Packing, joint_names: Sequence[str]) -> SlotMap:
        """Return the slots that a profile gives to these joints."""
        missing = [name for name in joint_names if name not in packing.slots]
        if missing:
            raise ConfigError(f'the packing has no slot for {", ".join(missing)}')
        return cls(packing.space, tuple(packing.slots[name] for name in joint_names))

    @property
    def size(self) -> int:
        """A, numbers in the action space."""
        return len(SPACES[self.space])

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool (A,): the slots that the robot has."""
        mask = np.zeros(self.size, dtype=bool)
        mask[list(self.slots)] = True
        return mask

    def spread(self, values: ArrayLike, size: int = 0) -> NDArray[np.float64]:
        """
        Return (..., A) with the joints' values (..., J) in their slots and 0 elsewhere.

        :param size: of the last axis, when a batch mixes spaces; default A.
        """
        given = np.asarray(values, dtype=np.float64)
        out = np.zeros((*given.shape[:-1], size or self.size))
        out[..., list(self.slots)] = given
        return out

    def gather(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return the joints' values (..., J) of (..., A or more): the inverse of ``spread``."""
        return np.asarray(values, dtype=np.float64)[..., list(self.slots)]


def pack(arms: Mapping[str, Sequence[str]], grippers: Mapping[str, str] | None = None,
         base: Sequence[str] = (), single_arm_side: Literal['left', 'right'] = 'right') -> Packing:
    """
    Return the packing of a robot by the rule of this suite.

    A dual-arm robot fills both halves. A single arm, named by the side '', takes the half
    ``single_arm_side``. Six joints at most stand in an arm's slots from its base outwards; a
    robot with fewer leaves the last ones out. Base values come behind the arms.

    :param arms: side 'left', 'right' or '' (the only arm) -> joint names from the base outwards.
    :param grippers: side -> name of the gripper joint.
    :param base: names of the base's values, in the order x, y, z, roll, pitch, yaw; '' leaves
        one out.
    :param single_arm_side: the paper does not say which half its single arms use.
    :raises ConfigError: sides or numbers of joints that the space has no place for.
    """
    grippers = grippers or {}
    if set(arms) not in ({''}, {'left'}, {'right'}, {'left', 'right'}):
        raise ConfigError(f"arms are {sorted(arms)}; expected 'left', 'right', both, or ''")
    if not set(grippers) <= set(arms) or len(base) > len(BASE):
        raise ConfigError(f'grippers of {sorted(grippers)} and {len(base)} base values do not fit '
                          f'arms {sorted(arms)} and {len(BASE)} base slots')
    slots: dict[str, int] = {}
    for side, names in arms.items():
        if not 0 < len(names) <= ARM_JOINTS:
            raise ConfigError(f'arm {side!r} has {len(names)} joints; an arm has 1 to '
                              f'{ARM_JOINTS} slots')
        first = 7 * SIDES.index(side or single_arm_side)
        slots.update({name: first + i for i, name in enumerate(names)})
        if side in grippers:
            slots[grippers[side]] = first + ARM_JOINTS
    slots.update({name: 14 + i for i, name in enumerate(base) if name})
    both: Literal['both', 'left', 'right'] = 'both' if len(arms) == 2 else (
        'left' if (next(iter(arms)) or single_arm_side) == 'left' else 'right')
    if len(slots) != sum(map(len, arms.values())) + len(grippers) + sum(map(bool, base)):
        raise ConfigError('two joints have the same name')
    return Packing(space='joint14base6' if base else 'joint14', side=both, slots=slots)
