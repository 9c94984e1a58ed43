"""The plug-ins ``act`` and ``bc``: baselines that ``mivla finetune`` has trained."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mivla_core.profile import RobotProfile
from mivla_policy.core.familiar import Familiar
from mivla_policy.core.instructions import instruction_tokens
from mivla_policy.core.observation import Observation
from mivla_policy.errors import CheckpointError, UnknownPolicy
from mivla_policy.model.checkpoint import load_network
from mivla_policy.model.direct import Direct
from mivla_policy.model.mivla import Slots, pixels
from mivla_policy.model.novelty import distances, read_familiar
from mivla_policy.policies.robot import Robot, robots_of
from mivla_policy.serve.port import Inference, PolicySpec, Query, take_parameters

__all__ = ['DIRECT_PARAMETERS', 'DirectPolicy', 'Ensemble', 'act_policy', 'bc_policy',
           'direct_policy']

DIRECT_PARAMETERS: Mapping[str, Any] = {
    'checkpoint': '', 'accept_profile_difference': False, 'threads': 0, 'ensemble': 0.0}
KEPT = 16      # chunks of one robot that are averaged at most


class Ensemble:
    """
    Temporal ensembling: what earlier chunks said about the same instants, averaged.

    :param decay: weights fall by exp(-decay) from the oldest chunk to the newest; 0.01 in the ACT
        paper, which makes them nearly equal.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._chunks: list[tuple[int, NDArray[np.float64]]] = []

    def joined(self, stamp_ns: int, dt_ns: int, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Return a chunk averaged with the earlier ones, where they reach.

        :param stamp_ns: of the observation; a step back, or one beyond the last chunk's end,
            begins anew.
        :param rows: (T, J), row i due at ``stamp_ns + (i + 1) * dt_ns``.
        """
        length = len(rows) * dt_ns
        if self._chunks and not 0 < stamp_ns - self._chunks[-1][0] < length:
            self._chunks = []
        self._chunks = [(stamp, chunk) for stamp, chunk in self._chunks
                        if stamp_ns - stamp < length - dt_ns][-KEPT:]
        self._chunks.append((stamp_ns, rows))
        due = stamp_ns + dt_ns * np.arange(1, len(rows) + 1)
        total, weights = np.zeros_like(rows), np.zeros((len(rows), 1))
        for age, (stamp, chunk) in enumerate(self._chunks):
            place = (due - stamp) / dt_ns - 1.0
            there = place <= len(chunk) - 1
            said = np.stack([np.interp(place, np.arange(len(chunk)), column)
                             for column in chunk.T], axis=1)
            weight = (np.exp(-self._decay * age) * there)[:, None]
            total, weights = total + weight * said, weights + weight
        return total / weights


class DirectPolicy:
    """
    A baseline behind the policy protocol.

    :param network: of kind 'act' or 'bc'.
    :param name: in chunks and reports.
    :param robots: with different profile hashes.
    :param ensemble: decay of temporal ensembling; 0: every chunk as it is said. With it an answer
        depends on the robot's earlier ones.
    :param image_means: of the first robot: camera role -> mean training picture.
    :param familiar: profile hash -> what it has seen, for robots of which that is known. It gives
        one answer to an observation: the warning goes by the pictures alone.
    """

    def __init__(self, network: Direct, name: str, robots: Sequence[Robot], ensemble: float = 0.0,
                 image_means: Optional[Mapping[str, NDArray[np.uint8]]] = None,
                 familiar: Optional[Mapping[str, Familiar]] = None) -> None:
        self._network, self._name, self._decay = network, name, ensemble
        self._robots = {robot.body.profile_hash: robot for robot in robots}
        self._specs = tuple(robot.spec(name, network.config) for robot in robots)
        self._ensembles: dict[tuple[str, str], Ensemble] = {}
        self.image_means, self._familiar = dict(image_means or {}), dict(familiar or {})

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        """What it needs and gives, per robot."""
        return self._specs

    def infer(self, queries: Sequence[Query]) -> Inference:
        """Answer a batch: see ``Policy.infer``."""
        if not queries:
            return Inference([])
        begin = time.perf_counter()
        robots = [self._robots[query.spec.profile_hash] for query in queries]
        ready = [query.spec.prepare(query.observation) for query in queries]
        seen = self._observation(robots, ready)
        signs = {'distance': self._distances(robots, seen['images'])}
        encoded = time.perf_counter()
        with torch.no_grad():
            actions = self._network.predict(seen).numpy()
        chunks = [robot.targets(o, rows, self._name)
                  for robot, o, rows in zip(robots, ready, actions)]
        if self._decay:
            chunks = [self._ensembles.setdefault(
                (query.spec.profile_hash, query.robot), Ensemble(self._decay)).joined(
                    int(o.stamp_ns), query.spec.dt_ns, rows)
                for query, o, rows in zip(queries, ready, chunks)]
        return Inference(chunks, {'encode': encoded - begin,
                                  'predict': time.perf_counter() - encoded},
                         novelty=signs['distance'], signs=signs)

    def _distances(self, robots: Sequence[Robot], images: Tensor) -> list[float]:
        """Return how far the pictures are from the demonstrations'; NaN where nothing is known."""
        if not self._familiar:
            return [math.nan] * len(robots)
        with torch.no_grad():
            tokens = self._network.encode_image(images)
        return distances(self._familiar, [robot.body.profile_hash for robot in robots], tokens,
                         len(self._network.config.cameras))

    def _observation(self, robots: Sequence[Robot],
                     ready: Sequence[Observation]) -> dict[str, Any]:
        """Return what the network sees of a batch."""
        config = self._network.config
        pictures = np.zeros((len(ready), len(config.cameras), *config.image_size, 3), np.uint8)
        for row, (robot, o) in enumerate(zip(robots, ready)):
            for place, role in enumerate(robot.body.cameras):
                if role:
                    pictures[row, place] = o.images[role]
        words, mask = instruction_tokens(config.language, [o.instruction for o in ready])
        there = np.array([[bool(role) for role in robot.body.cameras] for robot in robots])

        def packed(robot: Robot, values: NDArray[np.float64]) -> NDArray[np.float64]:
            return robot.body.packed.spread(values, config.action_width)
        states = [packed(r, r.body.normalizer.state_in(o.joints)) for r, o in zip(robots, ready)]
        slots = [packed(robot, np.ones(len(robot.body.slots))) for robot in robots]
        return {
            'images': pixels(torch.from_numpy(pictures)),
            'state': torch.from_numpy(np.stack(states)).float(),
            'language': torch.from_numpy(words), 'language_mask': torch.from_numpy(mask),
            'slots': Slots(tuple(robot.body.space for robot in robots),
                           torch.from_numpy(np.stack(slots)).float()),
            'cameras': None if there.all() else torch.from_numpy(there)}


def direct_policy(kind: str, profiles: Sequence[RobotProfile],
                  parameters: Mapping[str, Any]) -> DirectPolicy:
    """
    Load a baseline's checkpoint for one robot or several.

    Parameters: ``checkpoint`` (directory), ``accept_profile_difference`` (an engineer's explicit
    word), ``threads`` of torch (0: one), ``ensemble`` (decay of temporal ensembling; 0: off).

    :param kind: 'act' or 'bc'.
    """
    values = take_parameters(kind, parameters, DIRECT_PARAMETERS)
    if not values['checkpoint']:
        raise UnknownPolicy(f"policy {kind} needs the parameter 'checkpoint' (a directory)")
    if not 0 <= values['threads'] <= 256 or not 0.0 <= values['ensemble'] < 10.0:
        raise UnknownPolicy(f'policy {kind}: threads must be 0 to 256 and ensemble 0 to 10, got '
                            f'{values["threads"]} and {values["ensemble"]}')
    path = Path(values['checkpoint']).expanduser()
    network, info, means = load_network(path)
    if info.model.kind != kind or not isinstance(network, Direct):
        raise CheckpointError(f'{path}: holds a network of kind {info.model.kind!r}; policy '
                              f'{kind} cannot run it')
    name, robots = robots_of(info, profiles, values['accept_profile_difference'])
    torch.set_num_threads(values['threads'] or 1)
    first = robots[0].body if robots else info.embodiments[0]
    seen = next((means[body.profile_hash] for body in info.embodiments
                 if body.profile_text == first.profile_text and body.profile_hash in means), {})
    return DirectPolicy(network, name, robots, values['ensemble'], seen, read_familiar(path))


def act_policy(profiles: Sequence[RobotProfile], parameters: Mapping[str, Any]) -> DirectPolicy:
    """Load an ACT checkpoint; entry point ``act`` of ``mivla.policies``."""
    return direct_policy('act', profiles, parameters)


def bc_policy(profiles: Sequence[RobotProfile], parameters: Mapping[str, Any]) -> DirectPolicy:
    """Load a behaviour cloning checkpoint; entry point ``bc`` of ``mivla.policies``."""
    return direct_policy('bc', profiles, parameters)
