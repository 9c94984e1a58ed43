"""
The policy protocol: what the server asks of any policy, and how a policy is found by name.

A policy is a plug-in of the entry-point group ``mivla.policies``: a callable
``(profiles, parameters) -> Policy``. It serves one or several robots; what it needs and gives for
each is a ``PolicySpec``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mivla_core.profile import RobotProfile
from mivla_policy.core.language import check_instruction
from mivla_policy.core.observation import Observation, Prefix, prepare
from mivla_policy.errors import PolicyError, UnknownPolicy

__all__ = ['GROUP', 'Inference', 'Policy', 'PolicySpec', 'Query', 'available_policies',
           'close_policy', 'make_policy', 'one_profile', 'take_parameters']

GROUP = 'mivla.policies'


@dataclass(frozen=True)
class PolicySpec:
    """
    What a policy needs and gives for the robots of one profile.

    :param name: plug-in and checkpoint, for chunks and reports.
    :param horizon: T, rows of a chunk.
    :param dt_ns: time between rows [ns].
    :param joint_names: order of states and of the columns of a chunk.
    :param camera_roles: pictures that it needs.
    :param image_size: (height, width) that pictures are scaled to.
    :param profile_hash: of the robot profile it serves.
    :param instructions: sentences it knows; empty: it does not read the instruction.
    :param fit: how pictures come to that size, 'stretch' or 'letterbox'; see ``model_image``.
    """

    name: str
    horizon: int
    dt_ns: int
    joint_names: tuple[str, ...]
    camera_roles: tuple[str, ...]
    image_size: tuple[int, int]
    profile_hash: str
    instructions: tuple[str, ...] = ()
    fit: str = 'stretch'

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
        return prepare(observation, self.joint_names, self.camera_roles, self.image_size,
                       self.fit)


@dataclass(frozen=True)
class Query:
    """
    One robot's question.

    :param spec: of that robot, one of the policy's ``specs``.
    :param observation: prepared by ``spec.prepare`` or not: then the policy does it.
    :param seed: the same query gives the same chunk (up to rounding, which may depend on who else
        is in the batch).
    :param prefix: what the robot is still going to do; None: nothing, or not known.
    :param robot: who asks, for policies that serve one robot at a time; '' where there is one.
    """

    spec: PolicySpec
    observation: Observation
    seed: int = 0
    prefix: Prefix | None = None
    robot: str = ''


@dataclass(frozen=True)
class Inference:
    """
    The answers to a batch.

    :param chunks: per query absolute joint targets (T, J) [rad, m]; row i is due at
        ``stamp_ns + (i + 1) * dt_ns``.
    :param seconds: of each stage of the forward pass, such as 'encode' and 'denoise' [s].
    :param notes: per query what was done otherwise than asked, '' where nothing was; empty: as
        many ''.
    :param novelty: per query how unlike what the policy learned from the observation is, in parts
        of its warning threshold (above 1: unlike); NaN or empty where the policy does not say.
    :param signs: what it was joined from, sign -> per query, for measurements.
    """

    chunks: Sequence[NDArray[np.float64]]
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    novelty: Sequence[float] = ()
    signs: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Policy(Protocol):
    """
    Observations in, chunks of joint targets out. Called by one thread at a time.

    One that holds a process or a connection has ``close()``, which whoever made it calls at the
    end, from any thread.
    """

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        """What it needs and gives, for every robot profile that it serves; constant."""
        ...

    def infer(self, queries: Sequence[Query]) -> Inference:
        """
        Answer a batch; its queries may be of different robots.

        :raises PolicyError: one of the queries cannot be answered, or the answer is not finite.
        """
        ...


def available_policies() -> tuple[str, ...]:
    """Return the names of the installed plug-ins."""
    return tuple(sorted(point.name for point in entry_points(group=GROUP)))


def make_policy(name: str, profiles: Sequence[RobotProfile],
                parameters: Mapping[str, Any]) -> Policy:
    """
    Make a policy by the name of its plug-in.

    :param profiles: of the robots to be served, at least one.
    :param parameters: of the plug-in, such as ``checkpoint`` and ``threads`` for 'mivla'.
    :raises UnknownPolicy: no such plug-in (lists the installed ones) or parameter.
    :raises CheckpointError: its files are bad, or belong to another robot.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        raise UnknownPolicy(f'no policy plug-in {name!r}; installed: {", ".join(sorted(found))}')
    policy: Policy = found[name].load()(profiles, parameters)
    return policy


def close_policy(policy: Policy) -> None:
    """Release what a policy holds outside this process; nothing where it holds nothing."""
    close = getattr(policy, 'close', None)
    if close is not None:
        close()


def one_profile(plug_in: str, profiles: Sequence[RobotProfile]) -> RobotProfile:
    """Return the only profile, or raise PolicyError; for plug-ins that serve one robot."""
    if len(profiles) != 1:
        raise PolicyError(f'policy {plug_in} serves one robot profile, got {len(profiles)}: '
                          f'{", ".join(profile.name for profile in profiles)}')
    return profiles[0]


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
