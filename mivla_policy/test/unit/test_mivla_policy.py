"""The ``mivla`` policy: robots of several kinds in a batch, and joining what a robot does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from mivla_core.profile import RobotProfile, parse_profile
from mivla_policy.core.instructions import Embedding, InstructionCache
from mivla_policy.core.normalize import Normalizer
from mivla_policy.core.observation import Observation, Prefix
from mivla_policy.errors import ConfigError, InstructionError, UnknownPolicy, WrongProfile
from mivla_policy.model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from mivla_policy.model.config import LanguageConfig, MiVLAConfig, VisionConfig
from mivla_policy.model.embodiment import Embodiment
from mivla_policy.model.engine import Engine, EngineSettings
from mivla_policy.model.mivla import MiVLA
from mivla_policy.model.sampler import RealTimeSettings
from mivla_policy.policies.mivla import MivlaPolicy, mivla_policy
from mivla_policy.policies.robot import Robot
from mivla_policy.serve.port import Inference, Query

RNG = np.random.default_rng(0)
HORIZON = 8


@pytest.fixture(scope='module')
def config() -> MiVLAConfig:
    """Return a small network with three pictures."""
    return MiVLAConfig(
        spaces=('joint14',), cameras=('head', 'wrist', 'side'), chunk=HORIZON, width=16, depth=2,
        heads=2, kv_heads=1, multiple_of=8, time_features=16,
        vision=VisionConfig(height=32, width=32, channels=(8, 8, 8), keypoints=4),
        language=LanguageConfig(width=8, max_tokens=4))


@pytest.fixture(scope='module')
def other(profile: RobotProfile) -> RobotProfile:
    """Return a left arm of five joints without a gripper, with one camera."""
    data = yaml.safe_load(profile.text)
    data['name'] = 'lefty'
    data['joints'] = data['joints'][:5]
    arm = data['arms'][0]
    arm['joints'], arm['gripper'] = arm['joints'][:5], None
    arm['kinematics']['rows'] = arm['kinematics']['rows'][:5]
    data['workspace'] = {**data['workspace'], 'points': [], 'self_pairs': []}
    data['cameras'] = data['cameras'][:1]
    data['packing'] = {'space': 'joint14', 'side': 'left',
                       'slots': {joint['name']: i for i, joint in enumerate(data['joints'])}}
    return parse_profile(yaml.safe_dump(data), 'test')


def body(profile: RobotProfile, config: MiVLAConfig, seed: int) -> Embodiment:
    """Return a robot with statistics of its own."""
    rng = np.random.default_rng(seed)
    joints = len(profile.joints)
    states = profile.home + rng.normal(size=(9, joints)) * rng.uniform(0.5, 2.0, joints)
    commands = states[:, None] + 0.01 * rng.normal(size=(9, 4, joints))
    return Embodiment.of(profile, config, Normalizer.of(states, commands),
                         ('press the bell', 'ring it'))


def network(config: MiVLAConfig) -> MiVLA:
    """Return random weights; none is zero."""
    torch.manual_seed(0)
    made = MiVLA(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory, profile: RobotProfile,
               other: RobotProfile, config: MiVLAConfig) -> Path:
    """Return a checkpoint of two robots."""
    bodies = (body(profile, config, 1), body(other, config, 2))
    means = {b.profile_hash: {role: np.zeros((32, 32, 3), np.uint8) for role in b.camera_roles}
             for b in bodies}
    return save_checkpoint(tmp_path_factory.mktemp('two') / 'two', network(config),
                           CheckpointInfo('two', config, bodies), means)


@pytest.fixture
def policy(checkpoint: Path, profile: RobotProfile, other: RobotProfile) -> MivlaPolicy:
    """Return both robots served by one model."""
    return mivla_policy([profile, other], {'checkpoint': str(checkpoint)})


def query(policy: MivlaPolicy, robot: int, seed: int, **changes: Any) -> Query:
    """Return a question of one of the policy's robots."""
    rng, spec = np.random.default_rng(seed), policy.specs[robot]
    images = {role: np.repeat(np.repeat(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8), 10, 0),
                              10, 1) for role in spec.camera_roles}
    home = 0.1 * rng.normal(size=len(spec.joint_names))
    told = 'ring it' if seed % 2 else 'press the bell'
    return Query(spec, Observation(10**9, home, images, told), seed, **changes)


def test_one_model_serves_robots_of_different_shape(policy: MivlaPolicy, profile: RobotProfile,
                                                    other: RobotProfile) -> None:
    assert [spec.profile_hash for spec in policy.specs] == [profile.hash, other.hash]
    assert [len(spec.joint_names) for spec in policy.specs] == [7, 5]
    assert policy.specs[1].camera_roles == ('head',)
    queries = [query(policy, robot, seed) for seed, robot in enumerate((0, 1, 1, 0))]
    together = policy.infer(queries)
    for one, chunk in zip(queries, together.chunks):
        assert chunk.shape == (HORIZON, len(one.spec.joint_names))
        np.testing.assert_allclose(policy.infer([one]).chunks[0], chunk, atol=1e-4)
    assert set(together.seconds) == {'encode', 'denoise'}
    assert all(seconds > 0.0 for seconds in together.seconds.values())
    assert list(together.notes) == [''] * 4
    assert policy.memory > 10_000


def test_batches_filled_up_for_compilation_answer_the_same(
        policy: MivlaPolicy, checkpoint: Path, profile: RobotProfile) -> None:
    net, info, _ = load_checkpoint(checkpoint)
    traced = MivlaPolicy(Engine(net, EngineSettings(compile='eager')), 'two', [
        Robot(info.embodiments[0], profile.lower, profile.upper)])
    queries = [query(policy, 0, seed) for seed in range(3)]
    sizes = []
    look = traced.engine.look
    traced.engine.look = lambda images, *rest: sizes.append(len(images)) or look(images, *rest)
    for a, b in zip(traced.infer(queries).chunks, policy.infer(queries).chunks, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert sizes == [4]


def test_a_robot_that_is_not_in_the_checkpoint_is_refused(
        checkpoint: Path, profile: RobotProfile) -> None:
    third = parse_profile(profile.text.replace('name: piper', 'name: third').replace(
        'joint3', 'elbow'), 'test')
    with pytest.raises(WrongProfile, match=r'piper .*lefty .*elbow'):
        mivla_policy([profile, third], {'checkpoint': str(checkpoint)})


def free_and_joined(policy: MivlaPolicy, delay: int, rows: int,
                    shift: float = 0.05) -> tuple[np.ndarray, np.ndarray, Prefix, Inference]:
    """Return a chunk without a prefix, one with, and the prefix, near the first."""
    one = query(policy, 0, 4)
    free = policy.infer([one]).chunks[0]
    prefix = Prefix(free[:rows] + shift, delay)
    answer = policy.infer([replace(one, prefix=prefix)])
    return free, answer.chunks[0], prefix, answer


@pytest.mark.parametrize('guidance', ['exact', 'jacobian_free'])
def test_a_prefix_guides_and_is_not_copied(checkpoint: Path, profile: RobotProfile,
                                           guidance: str) -> None:
    """Rows that were copied would end in a kink: the difference is spread, where there is one."""
    policy = wide(mivla_policy([profile], {'checkpoint': str(checkpoint), 'guidance': guidance}))
    free, joined, prefix, answer = free_and_joined(policy, delay=2, rows=6)
    for rows in (slice(0, 2), slice(2, 4)):
        before, after = (np.abs(part[rows] - prefix.position[rows]).mean()
                         for part in (free, joined))
        assert 0.0 < after < 0.9 * before
    assert list(answer.notes) == ['']


def wide(policy: MivlaPolicy) -> MivlaPolicy:
    """Take the limits off, which would hide what is compared."""
    for key, robot in policy._robots.items():
        policy._robots[key] = replace(robot, lower=robot.lower - 99.0, upper=robot.upper + 99.0)
    return policy


def test_a_long_delay_is_left_to_the_runner_and_said_so(
        checkpoint: Path, profile: RobotProfile) -> None:
    policy = wide(mivla_policy([profile], {'checkpoint': str(checkpoint)}))
    free, joined, _, answer = free_and_joined(policy, delay=5, rows=8)
    np.testing.assert_allclose(joined, free)
    assert 'beyond half' in answer.notes[0]


def test_queries_with_and_without_a_prefix_share_a_batch(policy: MivlaPolicy) -> None:
    wide(policy)
    plain, one = query(policy, 1, 5), query(policy, 0, 4)
    prefix = Prefix(np.tile(one.observation.joints, (6, 1)), 2)
    alone = policy.infer([plain]).chunks[0]
    both = policy.infer([replace(one, prefix=prefix), plain,
                         replace(one, prefix=Prefix(prefix.position[:0], 0))])
    np.testing.assert_allclose(both.chunks[1], alone, atol=1e-5)
    np.testing.assert_allclose(both.chunks[2], policy.infer([one]).chunks[0], atol=1e-5)
    free = policy.infer([one]).chunks[0]
    assert np.abs(both.chunks[0] - prefix.position[0])[:2].mean() < np.abs(
        free - prefix.position[0])[:2].mean()


def test_guidance_can_be_switched_off(checkpoint: Path, profile: RobotProfile) -> None:
    policy = wide(mivla_policy([profile], {'checkpoint': str(checkpoint), 'guidance': 'off'}))
    free, joined, _, answer = free_and_joined(policy, delay=2, rows=6)
    np.testing.assert_allclose(joined, free)
    assert list(answer.notes) == ['']


def test_more_steps_and_threads_are_parameters(checkpoint: Path, profile: RobotProfile) -> None:
    five = mivla_policy([profile], {'checkpoint': str(checkpoint)})
    ten = mivla_policy([profile], {'checkpoint': str(checkpoint), 'steps': 10, 'threads': 2})
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    one = query(five, 0, 4)
    assert np.abs(five.infer([one]).chunks[0] - ten.infer([one]).chunks[0]).max() > 1e-6


@pytest.mark.parametrize(('parameters', 'named'), [
    ({'steps': -1}, 'steps'), ({'guidance': 'soft'}, 'soft'), ({'schedule': 'cubic'}, 'cubic'),
    ({'cap': 0.0}, 'cap'), ({'threads': -1}, 'threads')])
def test_wrong_parameters_are_refused(checkpoint: Path, profile: RobotProfile,
                                      parameters: dict[str, object], named: str) -> None:
    with pytest.raises(UnknownPolicy, match=named):
        mivla_policy([profile], {'checkpoint': str(checkpoint), **parameters})


class Towers:
    """Stand-in for the frozen towers; counts the pictures that it sees."""

    def __init__(self, config: VisionConfig) -> None:
        self.config, self.seen = config, []

    def __call__(self, images: Tensor) -> Tensor:
        """Return the mean colour of each picture in every token."""
        self.seen.append(tuple(images.shape))
        mean = images.float().mean(dim=(2, 3)) / 255.0
        return mean.repeat_interleave(self.config.tokens, dim=1).repeat(
            1, 1, self.config.feature_width // 3)


def test_frozen_towers_see_all_pictures_of_a_batch_at_once(
        config: MiVLAConfig, profile: RobotProfile, other: RobotProfile, tmp_path: Path) -> None:
    vision = VisionConfig(kind='dinov2+siglip', height=32, width=32, feature_width=6)
    big = replace(config, vision=vision, language=LanguageConfig(
        kind='t5', model='small', width=8, max_tokens=6))
    cache, towers = InstructionCache(tmp_path), Towers(vision)
    for text in ('press the bell', 'ring it'):
        words = RNG.normal(size=(len(text) // 4, 8)).astype(np.float32)
        cache.put(Embedding(text, 'small', words))
    robots = [Robot(body(p, big, i), p.lower, p.upper) for i, p in enumerate((profile, other))]
    engine = Engine(network(big))
    policy = MivlaPolicy(engine, 'big', robots, RealTimeSettings(), towers=towers, cache=cache)
    queries = [query(policy, 0, 1), query(policy, 1, 2), query(policy, 0, 3)]
    together = policy.infer(queries).chunks
    assert towers.seen == [(5, 1, 32, 32, 3)]
    for one, chunk in zip(queries, together, strict=True):
        np.testing.assert_allclose(policy.infer([one]).chunks[0], chunk, atol=1e-5)
    # Any sentence that was encoded is understood; another one is refused with the command.
    strange = replace(queries[0], observation=replace(queries[0].observation,
                                                      instruction='juggle'))
    with pytest.raises(InstructionError, match='mivla instructions encode'):
        policy.infer([strange])
    with pytest.raises(ConfigError, match='vision'):
        MivlaPolicy(engine, 'big', robots, cache=cache)
