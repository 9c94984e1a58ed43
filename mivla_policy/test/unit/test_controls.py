"""The controls of the evaluation: blind, and replay of the nearest demonstration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mivla_policy.core.episode import Commanded, Episode, Measured
from mivla_policy.core.observation import Observation
from mivla_policy.errors import CheckpointError, PolicyError
from mivla_policy.learn.controls import (
    BlindPolicy,
    Demonstration,
    ReplayPolicy,
    load_demonstrations,
    save_demonstrations,
)
from mivla_policy.serve.port import Inference, Policy, PolicySpec, Query

DT = 100_000_000
SPEC = PolicySpec('toy', 3, DT, ('a', 'b'), ('head',), (32, 32), 'hash', ('go',))


class Looking:
    """A policy that answers with the brightness of the picture."""

    specs = (SPEC,)

    def infer(self, queries: Sequence[Query]) -> Inference:
        """Return the mean of each picture in every place."""
        ready = [q.spec.prepare(q.observation) for q in queries]
        return Inference([np.full((3, 2), o.images['head'].mean()) for o in ready])


def chunk_of(policy: Policy, observation: Observation) -> np.ndarray:
    """Return the answer to one observation."""
    return policy.infer([Query(policy.specs[0], observation)]).chunks[0]


def test_the_blind_control_sees_the_mean_picture_only() -> None:
    bright = Observation(0, np.zeros(2), {'head': np.full((40, 40, 3), 200, np.uint8)}, 'go')
    blind = BlindPolicy(Looking(), {'head': np.full((32, 32, 3), 50, np.uint8)})
    assert chunk_of(Looking(), bright)[0, 0] == 200.0
    assert chunk_of(blind, bright)[0, 0] == 50.0
    assert 'blind' in blind.specs[0].name
    with pytest.raises(PolicyError, match='head'):
        BlindPolicy(Looking(), {})


class Comparing(Looking):
    """Answers with by how much the head's picture is brighter than the wrist's."""

    specs = (replace(SPEC, camera_roles=('head', 'wrist')),)

    def infer(self, queries: Sequence[Query]) -> Inference:
        """Return the difference of the means in every place."""
        ready = [q.spec.prepare(q.observation).images for q in queries]
        return Inference([np.full((3, 2), float(i['head'].mean()) - float(i['wrist'].mean()))
                          for i in ready])


def test_one_camera_alone_can_be_taken_away() -> None:
    pictures = {role: np.full((40, 40, 3), value, np.uint8)
                for role, value in (('head', 200), ('wrist', 30))}
    seen = Observation(0, np.zeros(2), pictures, 'go')
    means = {role: np.full((32, 32, 3), 50, np.uint8) for role in pictures}
    assert chunk_of(Comparing(), seen)[0, 0] == 170.0
    assert chunk_of(BlindPolicy(Comparing(), means, 'head'), seen)[0, 0] == 20.0
    assert chunk_of(BlindPolicy(Comparing(), means, 'wrist'), seen)[0, 0] == 150.0
    assert chunk_of(BlindPolicy(Comparing(), means), seen)[0, 0] == 0.0
    with pytest.raises(PolicyError, match="no camera 'foot', but at head, wrist"):
        BlindPolicy(Comparing(), means, 'foot')


def demonstrations() -> list[Demonstration]:
    """Return two motions: upwards from 0 and downwards from 1."""
    rows = np.arange(1.0, 6.0)[:, None]
    return [Demonstration(np.array([0.0, 5.0]), np.hstack([rows, 0 * rows])),
            Demonstration(np.array([1.0, 5.0]), np.hstack([-rows, 0 * rows]))]


def ask(policy: ReplayPolicy, stamp: int, joint: float) -> list[float]:
    """Return the first column of the answer."""
    chunk = chunk_of(policy, Observation(stamp, np.array([joint, 5.0]), {}, 'anything'))
    return chunk[:, 0].tolist()


def test_replay_plays_the_nearest_start_open_loop() -> None:
    policy = ReplayPolicy(demonstrations(), SPEC)
    begin = 10**18
    assert ask(policy, begin, 0.2) == [1.0, 2.0, 3.0]
    # Chosen once: later states do not matter, time does.
    assert ask(policy, begin + 2 * DT, 1.0) == [3.0, 4.0, 5.0]
    assert ask(policy, begin + DT // 2, 1.0) == pytest.approx([1.5, 2.5, 3.5])
    assert ask(policy, begin + 10 * DT, 1.0) == [5.0, 5.0, 5.0]
    policy.reset()
    assert ask(policy, begin + 10 * DT, 0.9) == [-1.0, -2.0, -3.0]
    assert policy.specs[0].camera_roles == ()


def test_replay_refuses_what_it_cannot_do() -> None:
    with pytest.raises(PolicyError, match='no demonstration'):
        ReplayPolicy([], SPEC)
    with pytest.raises(PolicyError, match='2 joints'):
        ReplayPolicy([Demonstration(np.zeros(3), np.zeros((2, 3)))], SPEC)
    with pytest.raises(PolicyError, match='one robot'):
        ReplayPolicy(demonstrations(), SPEC).infer([])


def test_demonstrations_are_resampled_and_kept(tmp_path: Path,
                                               toy_episode: Callable[..., Episode]) -> None:
    stamps = 10**18 + 5_000_000 * np.arange(41)
    line = np.tile(np.linspace(0.0, 2.0, 41)[:, None], (1, 7))
    episode = toy_episode(1, states=Measured(stamps, line + 1.0),
                          commands=Commanded(stamps + 50_000_000, line))
    save_demonstrations(tmp_path, [episode, toy_episode(2)], DT)
    first, second = load_demonstrations(tmp_path)
    np.testing.assert_allclose(first.start, 1.5)
    np.testing.assert_allclose(first.commands[:, 0], [1.0, 2.0])
    assert len(second.commands) == 6
    with pytest.raises(CheckpointError, match='no demonstrations'):
        load_demonstrations(tmp_path / 'absent')
    path = tmp_path / 'demonstrations.safetensors'
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match='no demonstrations'):
        load_demonstrations(tmp_path)
