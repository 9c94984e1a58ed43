"""
The ``constant_time`` plug-in: NOT a policy, a tool of the benchmarks.

It decodes pictures as a real policy does, sleeps for a fixed time in place of a network, and
answers with the measured state, so that a robot stays where it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mivla_core.profile import RobotProfile
from mivla_policy.core.observation import Observation
from mivla_policy.errors import PolicyError, UnknownPolicy
from mivla_policy.serve.port import PolicySpec, take_parameters

__all__ = ['ConstantTimePolicy', 'constant_time_policy']


class ConstantTimePolicy:
    """
    Holds the measured state.

    :param spec: what it pretends to need and give.
    :param compute_ms: duration of its pretended forward pass [ms].
    """

    def __init__(self, spec: PolicySpec, compute_ms: float) -> None:
        """Nothing is loaded."""
        self._spec, self._compute_s = spec, compute_ms * 1e-3

    @property
    def spec(self) -> PolicySpec:
        """What it pretends to need and give."""
        return self._spec

    def infer(self, observations: Sequence[Observation],
              seeds: Sequence[int]) -> list[NDArray[np.float64]]:
        """Answer a batch with the measured states: see ``Policy.infer``."""
        if len(seeds) != len(observations):
            raise PolicyError(f'{len(observations)} observations with {len(seeds)} seeds')
        ready = [self._spec.prepare(observation) for observation in observations]
        time.sleep(self._compute_s)
        return [np.tile(o.joints, (self._spec.horizon, 1)) for o in ready]


def constant_time_policy(profile: RobotProfile,
                         parameters: Mapping[str, Any]) -> ConstantTimePolicy:
    """
    Make the benchmark plug-in; entry point ``constant_time`` of ``mivla.policies``.

    Parameters: ``compute_ms``, ``horizon``, ``image_size`` (square, px). The time between rows
    follows the profile's policy rate.
    """
    values = take_parameters('constant_time', parameters, {
        'compute_ms': 1.0, 'horizon': 16, 'image_size': 96})
    if not 0.0 <= values['compute_ms'] <= 10_000.0:
        raise UnknownPolicy(f'policy constant_time: compute_ms is {values["compute_ms"]}; '
                            'expected 0 to 10000')
    for name, low, high in (('horizon', 1, 1024), ('image_size', 32, 1024)):
        if not low <= values[name] <= high:
            raise UnknownPolicy(f'policy constant_time: {name} is {values[name]}; '
                                f'expected {low} to {high}')
    return ConstantTimePolicy(
        PolicySpec(
            name='constant_time (benchmark plug-in, not a policy)', horizon=values['horizon'],
            dt_ns=round(1e9 / profile.rates.policy), joint_names=profile.joint_names,
            camera_roles=tuple(camera.role for camera in profile.cameras),
            image_size=(values['image_size'], values['image_size']), profile_hash=profile.hash),
        values['compute_ms'])
