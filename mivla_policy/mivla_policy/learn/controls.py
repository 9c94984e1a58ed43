"""
Controls of an honest evaluation: what success is worth without looking.

``BlindPolicy`` sees the mean training picture in place of the scene. ``ReplayPolicy`` plays back
the demonstration that started nearest to the robot's pose. A task on which either does well
does not need vision, and the policy's success there shows little.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mivla_policy.core.episode import Episode
from mivla_policy.core.playback import Demonstration
from mivla_policy.errors import CheckpointError, PolicyError
from mivla_policy.serve.port import Inference, Policy, PolicySpec, Query

__all__ = ['BlindPolicy', 'Demonstration', 'ReplayPolicy', 'load_demonstrations',
           'save_demonstrations']

DEMONSTRATIONS = 'demonstrations.safetensors'
MAX_DEMONSTRATION_BYTES = 256 << 20


class BlindPolicy:
    """
    Another policy, with pictures replaced by their training mean.

    :param policy: that is blinded.
    :param image_means: camera role -> mean training picture, uint8 (height, width, 3).
    :param only: this camera's pictures; '' for those of every one.
    """

    def __init__(self, policy: Policy, image_means: Mapping[str, NDArray[np.uint8]],
                 only: str = '') -> None:
        """Raise PolicyError when the mean of a camera is missing, or there is no such camera."""
        roles = [role for spec in policy.specs for role in spec.camera_roles]
        if only and only not in roles:
            raise PolicyError(f'it looks at no camera {only!r}, but at {", ".join(roles)}')
        roles = [only] if only else roles
        missing = [role for role in roles if role not in image_means]
        if missing:
            raise PolicyError(f'no mean picture of camera {", ".join(missing)}')
        self._policy = policy
        self._means = {role: image_means[role] for role in roles}
        self._specs = tuple(replace(spec, name=f'{spec.name} (blind control)')
                            for spec in policy.specs)

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        """The specs of the blinded policy, with other names."""
        return self._specs

    def infer(self, queries: Sequence[Query]) -> Inference:
        """Answer without having looked: see ``Policy.infer``."""
        return self._policy.infer([
            replace(query, observation=replace(
                query.observation, images={**query.observation.images, **self._means}))
            for query in queries])


class ReplayPolicy:
    """
    The demonstration with the nearest start pose, played back open loop.

    It is the policy of one robot and one episode: ``reset`` before each episode.

    :param demonstrations: to choose from.
    :param spec: of the policy that it is compared with.
    """

    def __init__(self, demonstrations: Sequence[Demonstration], spec: PolicySpec) -> None:
        """Raise PolicyError without demonstrations, or with those of another robot."""
        if not demonstrations:
            raise PolicyError('no demonstration to replay')
        if any(d.start.shape != (len(spec.joint_names),) for d in demonstrations):
            raise PolicyError(f'demonstrations do not have {len(spec.joint_names)} joints')
        self._demonstrations = tuple(demonstrations)
        starts = np.stack([d.start for d in demonstrations])
        # Joints that never differ at the start must not decide by their noise.
        self._starts, self._scale = starts, np.maximum(starts.std(axis=0), 1e-3)
        self._spec = replace(spec, name='nearest demonstration (replay control)',
                             camera_roles=(), instructions=())
        self._playing: tuple[Demonstration, int] | None = None

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        """The spec of the policy that it is compared with, without cameras."""
        return (self._spec,)

    def reset(self) -> None:
        """Begin a new episode: the next observation chooses the demonstration."""
        self._playing = None

    def infer(self, queries: Sequence[Query]) -> Inference:
        """Answer for one robot: see ``Policy.infer``; the last command is held at the end."""
        if len(queries) != 1:
            raise PolicyError(f'replay serves one robot, got {len(queries)} queries')
        observation = self._spec.prepare(queries[0].observation)
        if self._playing is None:
            distance = (((observation.joints - self._starts) / self._scale) ** 2).sum(axis=1)
            chosen = self._demonstrations[int(np.argmin(distance))]
            self._playing = chosen, int(observation.stamp_ns)
        chosen, begin = self._playing
        return Inference([chosen.rows(begin, int(observation.stamp_ns), self._spec.dt_ns,
                                      self._spec.horizon)])


def save_demonstrations(path: Path, episodes: Sequence[Episode], dt_ns: int) -> None:
    """Write the motions beside a checkpoint, so that the replay control needs no bags."""
    tensors = {}
    for number, episode in enumerate(episodes):
        demonstration = Demonstration.of(episode, dt_ns)
        tensors[f'{number:06d}.start'] = demonstration.start.copy()
        tensors[f'{number:06d}.commands'] = demonstration.commands
    sources = json.dumps([episode.source for episode in episodes])
    save_file(tensors, path / DEMONSTRATIONS, metadata={'sources': sources})


def load_demonstrations(path: Path) -> list[Demonstration]:
    """
    Read what ``save_demonstrations`` wrote beside a checkpoint.

    :raises CheckpointError: absent or damaged.
    """
    file = path / DEMONSTRATIONS
    try:
        if file.stat().st_size > MAX_DEMONSTRATION_BYTES:
            raise CheckpointError(f'{file}: larger than {MAX_DEMONSTRATION_BYTES} bytes')
        with safe_open(file, framework='numpy') as content:
            numbers = sorted({name.split('.')[0] for name in content.keys()})  # noqa: SIM118
            return [Demonstration(content.get_tensor(f'{number}.start'),
                                  content.get_tensor(f'{number}.commands'))
                    for number in numbers]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f'{file}: no demonstrations to replay: {error}') from error
