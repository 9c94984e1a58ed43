"""
The ``hrdt`` plug-in: a checkpoint of H-RDT, with an adapter file that says what it is for.

An H-RDT checkpoint names neither robot, cameras nor units: four conventions of normalization are
in use around one network, and two orders of its pictures. The adapter is YAML and says it all::

    profile: c14dea1be6d4a868      # hash of the robot profile; see 'mivla profile show'
    dt_ns: 100000000               # time between rows of a chunk
    cameras: [head, wrist, '']     # the robot's roles in the order of the training; '' for none
    instructions: [press the bell] # that it is known to follow
    normalization:
      convention: signed           # none; signed: [low, high] -> [-1, 1]; unit: -> [0, 1]
      clip: true                   # states to that range
      state: {low: [...], high: [...]}     # per joint in profile order, gripper in policy units
      action: {low: [...], high: [...]}
    gripper: {closed: 0.0, open: 0.07}     # the robot's opening at the policy's 0 and 1
    colours: rgb                   # bgr: the training swapped red and blue (H-RDT's own did)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mivla_core.profile import RobotProfile
from mivla_core.small_file import read_yaml
from mivla_policy.core.normalize import Normalizer, Statistics
from mivla_policy.core.packing import SlotMap
from mivla_policy.core.plain_data import from_mapping
from mivla_policy.errors import CheckpointError, ConfigError, UnknownPolicy, WrongProfile
from mivla_policy.model.embodiment import Embodiment
from mivla_policy.model.engine import Engine
from mivla_policy.model.hrdt import import_hrdt, infer_config, read_hrdt
from mivla_policy.policies.mivla import (
    ENGINE_PARAMETERS,
    MivlaPolicy,
    engine_settings,
    serve_options,
    set_threads,
)
from mivla_policy.policies.robot import Robot
from mivla_policy.serve.port import one_profile, take_parameters

__all__ = ['HrdtAdapter', 'hrdt_policy', 'load_adapter']

MAX_ADAPTER_BYTES = 1 << 20
CONVENTIONS = ('none', 'signed', 'unit')


@dataclass(frozen=True)
class Range:
    """Lowest and highest value per joint, in policy units."""

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Convention:
    """
    How a training normalized.

    :param convention: 'none', 'signed' ([-1, 1]: EgoDex by extremes, XPolicyLab by quantiles) or
        'unit' ([0, 1]: H-RDT's real robot).
    :param clip: states to the range.
    :param state: the range of states; not for 'none'.
    :param action: the range of actions; not for 'none'.
    """

    convention: str = 'none'
    clip: bool = False
    state: Range = field(default_factory=Range)
    action: Range = field(default_factory=Range)

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown convention, or one that cannot be clipped."""
        if self.convention not in CONVENTIONS:
            raise ConfigError(f'normalization.convention is {self.convention!r}; known: '
                              f'{", ".join(CONVENTIONS)}')
        if self.clip and self.convention != 'signed':
            raise ConfigError("normalization.clip needs the convention 'signed'")

    def statistics(self, what: str, joints: int) -> Statistics:
        """Return the statistics of 'state' or 'action' in policy units (J,)."""
        if self.convention == 'none':
            return Statistics(np.zeros(joints), np.ones(joints))
        given: Range = getattr(self, what)
        if len(given.low) != joints or len(given.high) != joints:
            raise ConfigError(f'normalization.{what} needs low and high of {joints} joints, got '
                              f'{len(given.low)} and {len(given.high)}')
        return Statistics.between(given.low, given.high, self.convention == 'signed')


@dataclass(frozen=True)
class GripperMap:
    """The robot's gripper position [m or rad] at the policy's 0 (closed) and 1 (open)."""

    closed: float = 0.0
    open: float = 1.0

    def __post_init__(self) -> None:
        """Raise ConfigError when the two are the same."""
        if self.closed == self.open:
            raise ConfigError(f'gripper.closed and gripper.open are both {self.open}')


@dataclass(frozen=True)
class HrdtAdapter:
    """What an H-RDT checkpoint does not say of itself; see the module's example."""

    profile: str
    dt_ns: int
    cameras: tuple[str, ...]
    instructions: tuple[str, ...]
    normalization: Convention = field(default_factory=Convention)
    gripper: GripperMap = field(default_factory=GripperMap)
    colours: str = 'rgb'
    space: str = ''
    language_model: str = 't5-v1_1-xxl'

    def __post_init__(self) -> None:
        """Raise ConfigError for unknown colours."""
        if self.colours not in ('rgb', 'bgr'):
            raise ConfigError(f"colours is {self.colours!r}; known: 'rgb', 'bgr'")

    def normalizer(self, profile: RobotProfile) -> Normalizer:
        """Return how the robot's numbers become the policy's."""
        state, action = (self._of_robot(self.normalization.statistics(
            what, len(profile.joints)), profile) for what in ('state', 'action'))
        return Normalizer(state, action, relative=False,
                          clip=1.0 if self.normalization.clip else 0.0)

    def _of_robot(self, policy: Statistics, profile: RobotProfile) -> Statistics:
        """Return statistics in the robot's units: its gripper's are not the policy's."""
        width = np.ones(len(profile.joints))
        start = np.zeros(len(profile.joints))
        grippers = list(profile.gripper_indices)
        width[grippers] = self.gripper.open - self.gripper.closed
        start[grippers] = self.gripper.closed
        if (width < 0).any():
            raise ConfigError('gripper.open must be larger than gripper.closed')
        return Statistics(start + width * policy.mean, width * policy.scale)


def load_adapter(path: str | os.PathLike[str]) -> HrdtAdapter:
    """
    Read an adapter file.

    :raises CheckpointError: absent, too large, not YAML, unknown or missing keys.
    """
    file = Path(path).expanduser()
    data = read_yaml(file, MAX_ADAPTER_BYTES, CheckpointError, 'an H-RDT adapter')
    try:
        return from_mapping(HrdtAdapter, data, str(file))
    except ConfigError as error:
        raise CheckpointError(f'{file}: cannot be read as an H-RDT adapter: {error}') from error


def hrdt_policy(profiles: Sequence[RobotProfile], parameters: Mapping[str, Any]) -> MivlaPolicy:
    """
    Serve an H-RDT checkpoint; entry point ``hrdt`` of ``mivla.policies``.

    Parameters: ``checkpoint`` (directory or file), ``adapter`` (YAML), and those of the plug-in
    ``mivla`` about engine and sampler; ``vision`` is needed.

    :raises CheckpointError: the adapter is for another robot, or parts of the checkpoint do not
        fit: a network with untrained parts is not served.
    """
    profile = one_profile('hrdt', profiles)
    values = take_parameters('hrdt', parameters, {
        'checkpoint': '', 'adapter': '', **ENGINE_PARAMETERS})
    for name in ('checkpoint', 'adapter', 'vision'):
        if not values[name]:
            raise UnknownPolicy(f'policy hrdt needs the parameter {name!r}')
    settings = engine_settings('hrdt', values)
    adapter = load_adapter(values['adapter'])
    if adapter.profile != profile.hash:
        raise WrongProfile(f'{values["adapter"]} is for the profile {adapter.profile}, robot '
                           f'{profile.name} has {profile.hash}')
    body, names = _embodiment(adapter, profile)
    state = read_hrdt(Path(values['checkpoint']).expanduser())
    config = infer_config(state, names, adapter.dt_ns, adapter.space or body.space,
                          language_model=adapter.language_model)
    network, report = import_hrdt(state, config, body.space)
    if not report.complete:
        raise CheckpointError(f'{values["checkpoint"]}: {"; ".join(report.lines())}; fine-tune it '
                              'for this robot first')
    engine = Engine(network, settings)
    set_threads('hrdt', values['threads'], engine)
    options = serve_options('hrdt', values, engine)
    if adapter.colours == 'bgr':
        options['towers'] = _swapped(options['towers'])
    name = f'H-RDT {Path(values["checkpoint"]).name}'
    return MivlaPolicy(engine, name, [Robot(body, profile.lower, profile.upper)], **options)


def _embodiment(adapter: HrdtAdapter,
                profile: RobotProfile) -> tuple[Embodiment, tuple[str, ...]]:
    """Return the robot as the network sees it, and names for the network's pictures."""
    roles = {camera.role for camera in profile.cameras}
    unknown = [role for role in adapter.cameras if role and role not in roles]
    if unknown:
        raise CheckpointError(f'the adapter names camera {", ".join(unknown)}; robot '
                              f'{profile.name} has {", ".join(sorted(roles))}')
    packed = SlotMap.of(profile.packing, profile.joint_names)
    try:
        body = Embodiment(
            profile.name, profile.hash, profile.text, profile.joint_names, packed.space,
            packed.slots, adapter.cameras, adapter.normalizer(profile), adapter.instructions)
    except ConfigError as error:
        raise CheckpointError(f'the adapter does not fit robot {profile.name}: {error}'
                              ) from error
    return body, tuple(role or f'empty{i}' for i, role in enumerate(adapter.cameras))


def _swapped(towers: Any) -> Any:
    """Return towers that see red and blue swapped."""
    def see(images: Tensor) -> Tensor:
        seen: Tensor = towers(images.flip(-1))
        return seen
    return see
