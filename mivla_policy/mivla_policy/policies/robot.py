"""A robot as a checkpoint serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mivla_core.profile import RobotProfile
from mivla_policy.core.observation import Observation
from mivla_policy.errors import PolicyError
from mivla_policy.model.checkpoint import CheckpointInfo, embodiment_for
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.embodiment import Embodiment
from mivla_policy.serve.port import PolicySpec

__all__ = ['Robot', 'robots_of']


@dataclass(frozen=True)
class Robot:
    """
    A robot that is served.

    :param body: what the checkpoint knows of it.
    :param lower: position limits (J,) that targets are cut at [rad, m]. A joint that was
        demonstrated at its limit is predicted a hair to either side of it, and the guard should
        not have to limit that at every tick.
    :param upper: the same.
    """

    body: Embodiment
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    def spec(self, name: str, config: MiVLAConfig) -> PolicySpec:
        """Return what the policy needs and gives for this robot."""
        # A language model understands what it was not trained on; hashed words do not.
        known = () if config.language.kind == 't5' else self.body.instructions
        return PolicySpec(
            name=name, horizon=config.chunk, dt_ns=config.dt_ns,
            joint_names=self.body.joint_names, camera_roles=self.body.camera_roles,
            image_size=config.image_size, profile_hash=self.body.profile_hash,
            instructions=known, fit=config.vision.fit)

    def targets(self, observation: Observation, actions: NDArray[np.float32],
                policy: str) -> NDArray[np.float64]:
        """
        Return the absolute targets (T, J) that a network's actions (T, A) mean.

        :param policy: named in the error.
        :raises PolicyError: one is not finite.
        """
        rows = self.body.normalizer.actions_out(self.body.packed.gather(actions),
                                                observation.joints)
        if not np.isfinite(rows).all():
            raise PolicyError(f'policy {policy} answered robot {self.body.robot} with a value '
                              'that is not finite')
        return np.clip(rows, self.lower, self.upper)


def robots_of(info: CheckpointInfo, profiles: Sequence[RobotProfile],
              accept: bool) -> tuple[str, list[Robot]]:
    """
    Return the name of a checkpoint's policy, and the robots that it serves.

    :param accept: an engineer's explicit word that a profile may differ.
    :raises WrongProfile: a robot was not trained for, and that was not accepted.
    """
    name, robots = info.name, []
    for profile in profiles:
        body = embodiment_for(info, profile, accept)
        if all(known is not body for known in info.embodiments):
            # The name goes into every chunk, and so into every bag: it stays on record.
            name = f'{info.name} (profile difference accepted)'
        robots.append(Robot(body, profile.lower, profile.upper))
    return name, robots
