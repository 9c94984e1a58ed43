"""
The policy protocol: what the server asks of any policy, and how a policy is found by name.

A policy is a plug-in of the entry-point group ``mivla.policies``: a callable
``(profile, parameters) -> Policy``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mivla_core.profile import RobotProfile
from mivla_policy.core.language import check_instruction
from mivla_policy.core.observation import Observation, prepare
from mivla_policy.errors import UnknownPolicy

__all__ = ['GROUP', 'Policy', 'PolicySpec', 'available_policies', 'make_policy',
           'take_parameters']

GROUP = 'mivla.policies'


@dataclass(frozen=True)
class PolicySpec:
    """
    What a policy needs and gives.

    :param name: plug-in and checkpoint, for chunks and reports.
    :param horizon: T, rows of a chunk.
    :param dt_ns: time between rows [ns].
    :param joint_names: order of states and of the columns of a chunk.
    :param camera_roles: pictures that it needs.
    :param image_size: (height, width) that pictures are scaled to.
    :param profile_hash: of the robot profile it serves.
    :param instructions: sentences it knows; empty: it does not read the instruction.
    """

    name: str
    horizon: int
    dt_ns: int
    joint_names: tuple[str, ...]
    camera_roles: tuple[str, ...]
    image_size: tuple[int, int]
    profile_hash: str
    instructions: tuple[str, ...] = ()

    def prepare(self, observation: Observation) -> Observation:
        """
        Check one observation, decode and scale its pictures.

        A server calls this per robot before it makes a batch, so that one bad observation fails
        alone, and so that ``Policy.infer`` is the forward pass and nothing else.

        :raises ObservationError: the observation cannot be used.
        :raises InstructionError: the policy was not trained on the instruction.
        """
        if self.instructions:
            check_instruction(observation.instruction, self.instructions)
        return prepare(observation, self.joint_names, self.camera_roles, self.image_size)


class Policy(Protocol):
    """Observations in, chunks of joint targets out. Called by one thread at a time."""

    @property
    def spec(self) -> PolicySpec:
        """What it needs and gives; constant."""
        ...

    def infer(self, observations: Sequence[Observation],
              seeds: Sequence[int]) -> list[NDArray[np.float64]]:
        """
        Answer a batch.

        :param observations: prepared by ``spec.prepare`` or not: then it is done here.
        :param seeds: one per observation; the same observation and seed give the same chunk
            (up to rounding, which may depend on the size of the batch).
        :return: per observation absolute joint targets (T, J) [rad, m]; row i is due at
            ``stamp_ns + (i + 1) * dt_ns``.
        :raises PolicyError: one of the observations cannot be used, or the answer is not finite.
        """
        ...


def available_policies() -> tuple[str, ...]:
    """Return the names of the installed plug-ins."""
    return tuple(sorted(point.name for point in entry_points(group=GROUP)))


def make_policy(name: str, profile: RobotProfile, parameters: Mapping[str, Any]) -> Policy:
    """
    Make a policy by the name of its plug-in.

    :param parameters: of the plug-in, such as ``checkpoint`` and ``threads`` for 'mivla'.
    :raises UnknownPolicy: no such plug-in (lists the installed ones) or parameter.
    :raises CheckpointError: its files are bad, or belong to another robot.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise UnknownPolicy(f'no policy plug-in {name!r}; installed: {", ".join(sorted(found))}')
    policy: Policy = found[name].load()(profile, parameters)
    return policy


def take_parameters(plug_in: str, given: Mapping[str, Any],
                    defaults: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the defaults updated by what was given; for plug-ins.

    :param defaults: parameter -> default; its type is the accepted one.
    :raises UnknownPolicy: an unknown parameter or a wrong type, naming it.
    """
    values = dict(defaults)
    for name, value in given.items():
        if name not in defaults:
            raise UnknownPolicy(
                f'policy {plug_in} has no parameter {name!r}; it has: {", ".join(defaults)}')
        kind = type(defaults[name])
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise UnknownPolicy(
                f'policy {plug_in}: parameter {name} must be {kind.__name__}, got {value!r}')
        values[name] = value
    return values
