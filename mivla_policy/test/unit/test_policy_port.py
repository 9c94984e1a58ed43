"""The policy protocol, its plug-ins, and what they refuse."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from mivla_core.images import encode_jpeg
from mivla_core.profile import RobotProfile, parse_profile
from mivla_policy.core.normalize import Normalizer
from mivla_policy.core.observation import Observation
from mivla_policy.errors import (
    InstructionError,
    ObservationError,
    PolicyError,
    UnknownPolicy,
    WrongProfile,
)
from mivla_policy.model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.embodiment import Embodiment
from mivla_policy.model.engine import Engine
from mivla_policy.model.mivla import MiVLA
from mivla_policy.policies.constant_time import constant_time_policy
from mivla_policy.policies.mivla import MivlaPolicy, mivla_policy
from mivla_policy.policies.robot import Robot
from mivla_policy.serve.port import (
    Policy,
    Query,
    available_policies,
    make_policy,
    take_parameters,
)

RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory, profile: RobotProfile,
               small_config: MiVLAConfig) -> Path:
    """Return a checkpoint of a network with random weights."""
    torch.manual_seed(0)
    network = MiVLA(small_config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    states = RNG.normal(size=(5, 7))
    about = CheckpointInfo('toy', small_config, (Embodiment.of(
        profile, small_config, Normalizer.of(states, states[:, None] * [[2.0]]),
        ('press the bell', 'ring it')),))
    means = {profile.hash: {role: np.zeros((32, 32, 3), np.uint8)
                            for role in small_config.cameras}}
    return save_checkpoint(tmp_path_factory.mktemp('policies') / 'toy', network, about, means)


def observation(profile: RobotProfile, seed: int = 0) -> Observation:
    """Return an observation with JPEG pictures."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.repeat(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), 10, 0), 10, 1)
    return Observation(10**9, profile.home + 0.01 * seed,
                       {c.role: encode_jpeg(image) for c in profile.cameras}, 'press the bell')


def infer(policy: Policy, observations: list[Observation], seeds: list[int]) -> list[np.ndarray]:
    """Ask for several robots of the first profile."""
    spec = policy.specs[0]
    return list(policy.infer([Query(spec, observation, seed) for observation, seed in zip(
        observations, seeds, strict=True)]).chunks)


def test_a_checkpoint_answers_with_absolute_targets(checkpoint: Path, profile: RobotProfile,
                                                    small_config: MiVLAConfig) -> None:
    policy = mivla_policy([profile], {'checkpoint': str(checkpoint)})
    assert torch.get_num_threads() == 1
    spec = policy.specs[0]
    assert (spec.horizon, spec.dt_ns) == (small_config.chunk, small_config.dt_ns)
    assert spec.joint_names == profile.joint_names
    (chunk,) = infer(policy, [observation(profile)], [7])
    assert chunk.shape == (spec.horizon, 7)
    assert chunk.dtype == np.float64
    far = replace(observation(profile), joints=profile.home + 1e-9)
    np.testing.assert_allclose(infer(policy, [far], [7])[0], chunk, atol=1e-5)


def test_the_seed_decides_and_the_batch_does_not(checkpoint: Path, profile: RobotProfile) -> None:
    policy = mivla_policy([profile], {'checkpoint': str(checkpoint)})
    several = [observation(profile, k) for k in range(3)]
    together = infer(policy, several, [1, 2, 3])
    for one, seed, chunk in zip(several, [1, 2, 3], together, strict=True):
        np.testing.assert_allclose(infer(policy, [one], [seed])[0], chunk, atol=1e-4)
        np.testing.assert_array_equal(infer(policy, [one], [seed])[0],
                                      infer(policy, [one], [seed])[0])
    assert np.abs(infer(policy, several[:1], [9])[0] - together[0]).max() > 1e-3
    prepared = [policy.specs[0].prepare(one) for one in several]
    np.testing.assert_array_equal(infer(policy, prepared, [1, 2, 3]), together)
    assert infer(policy, [], []) == []


def test_pictures_and_instruction_reach_the_network(checkpoint: Path,
                                                    profile: RobotProfile) -> None:
    policy = mivla_policy([profile], {'checkpoint': str(checkpoint)})
    base = observation(profile)
    (chunk,) = infer(policy, [base], [1])
    for change in ({'images': observation(profile, 5).images}, {'instruction': 'Ring it!'}):
        assert np.abs(infer(policy, [replace(base, **change)], [1])[0] - chunk).max() > 1e-4


def test_what_cannot_be_answered_is_refused(checkpoint: Path, profile: RobotProfile) -> None:
    policy = mivla_policy([profile], {'checkpoint': str(checkpoint)})
    base = observation(profile)
    with pytest.raises(InstructionError, match='press the bell'):
        infer(policy, [replace(base, instruction='dance')], [1])
    with pytest.raises(ObservationError, match='not finite'):
        infer(policy, [replace(base, joints=base.joints * np.nan)], [1])


def spoilt(checkpoint: Path, profile: RobotProfile, bias: float) -> MivlaPolicy:
    """Return the policy of a network whose every answer is far off."""
    network, info, _ = load_checkpoint(checkpoint)
    network.heads['joint14'].fc2.bias.fill_(bias)
    robot = Robot(info.embodiments[0], profile.lower, profile.upper)
    return MivlaPolicy(Engine(network), 'spoilt', [robot])


def test_targets_stay_within_the_position_limits(checkpoint: Path,
                                                 profile: RobotProfile) -> None:
    policy = spoilt(checkpoint, profile, 1000.0)
    np.testing.assert_array_equal(infer(policy, [observation(profile)], [1])[0],
                                  np.tile(profile.upper, (4, 1)))


def test_an_answer_that_is_not_finite_is_never_given(checkpoint: Path,
                                                     profile: RobotProfile) -> None:
    policy = spoilt(checkpoint, profile, float('inf'))
    with pytest.raises(PolicyError, match='not finite'):
        infer(policy, [observation(profile)], [1])


def test_another_profile_needs_an_explicit_word(checkpoint: Path, profile: RobotProfile) -> None:
    other = parse_profile(profile.text.replace('piper-mdh-offset1', 'elsewhere'), 'test')
    with pytest.raises(WrongProfile, match='zero: piper-mdh-offset1 -> elsewhere'):
        mivla_policy([other], {'checkpoint': str(checkpoint)})
    policy = mivla_policy([other], {'checkpoint': str(checkpoint),
                                  'accept_profile_difference': True})
    assert policy.specs[0].profile_hash == other.hash
    assert 'difference accepted' in policy.specs[0].name


def test_the_benchmark_plug_in_holds_and_says_what_it_is(profile: RobotProfile) -> None:
    policy = constant_time_policy([profile], {'compute_ms': 20})
    assert 'not a policy' in policy.specs[0].name
    prepared = policy.specs[0].prepare(observation(profile, 3))
    assert prepared.images['head'].shape == (96, 96, 3)
    begin = time.perf_counter()
    (chunk,) = infer(policy, [prepared], [0])
    assert time.perf_counter() - begin >= 0.02
    np.testing.assert_array_equal(chunk, np.tile(profile.home + 0.03, (16, 1)))
    with pytest.raises(ObservationError):
        infer(policy, [replace(prepared, images={})], [0])


@pytest.mark.parametrize(('make', 'parameters', 'named'), [
    (mivla_policy, {}, 'checkpoint'),
    (mivla_policy, {'checkpoint': 'x', 'thread': 1}, "'thread'"),
    (mivla_policy, {'checkpoint': 'x', 'threads': '1'}, 'threads'),
    (mivla_policy, {'checkpoint': 'x', 'device': 'abacus'}, 'abacus'),
    (mivla_policy, {'checkpoint': 'x', 'dtype': 'float8'}, 'float8'),
    (mivla_policy, {'checkpoint': 'x', 'compile': 'fast'}, 'fast'),
    (mivla_policy, {'checkpoint': 3}, 'checkpoint'),
    (constant_time_policy, {'compute_ms': -1}, 'compute_ms'),
    (constant_time_policy, {'horizon': 0}, 'horizon'),
    (constant_time_policy, {'horizon': True}, 'horizon'),
])
def test_wrong_parameters_are_refused(profile: RobotProfile, make: object,
                                      parameters: dict[str, object], named: str) -> None:
    with pytest.raises(UnknownPolicy, match=named):
        make([profile], parameters)


def test_plug_ins_are_found_by_name(profile: RobotProfile,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(group: str) -> list[EntryPoint]:
        assert group == 'mivla.policies'
        return [EntryPoint('constant_time',
                           'mivla_policy.policies.constant_time:constant_time_policy', group)]
    monkeypatch.setattr('mivla_policy.serve.port.entry_points', installed)
    assert available_policies() == ('constant_time',)
    assert make_policy('constant_time', [profile], {'horizon': 3}).specs[0].horizon == 3
    with pytest.raises(UnknownPolicy, match="'mivla'; installed: constant_time"):
        make_policy('mivla', [profile], {})


def test_defaults_stay_what_they_are() -> None:
    defaults = {'rate': 1.0}
    assert take_parameters('x', {'rate': 2}, defaults) == {'rate': 2.0}
    assert defaults == {'rate': 1.0}
