"""Novelty: what was demonstrated is familiar, what was not is told, and the file carries it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mivla_core.images import encode_jpeg
from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Episode
from mivla_policy.core.familiar import Familiar
from mivla_policy.core.novelty import SAMPLES, disagreement, joined
from mivla_policy.core.observation import Observation, Prefix
from mivla_policy.errors import CheckpointError, ConfigError, EpisodeError, UnknownPolicy
from mivla_policy.learn.familiar import calibrate
from mivla_policy.learn.train import finetune
from mivla_policy.model.config import MiVLAConfig, Preset
from mivla_policy.model.novelty import FILE, read_familiar, save_familiar
from mivla_policy.policies.mivla import mivla_policy
from mivla_policy.serve.port import Inference, Policy, Query

Maker = Callable[..., Episode]


def cloud(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return embeddings (N, 12) on a bent sheet of two dimensions."""
    u, v = rng.uniform(-1.0, 1.0, (2, count))
    sheet = np.column_stack([u, v, u * v, u**2, np.sin(2 * v)])
    return sheet @ np.random.default_rng(5).normal(size=(5, 12)) + 3.0


@pytest.fixture
def familiar() -> tuple[Familiar, np.random.Generator]:
    rng = np.random.default_rng(0)
    return Familiar.of(cloud(rng, 600), np.arange(600) // 20), rng


def test_more_of_the_same_is_familiar_and_something_else_is_not(
        familiar: tuple[Familiar, np.random.Generator]) -> None:
    known, rng = familiar
    same = known.novelty(cloud(rng, 400))
    assert 0.03 < (same > 1.0).mean() < 0.2
    other = known.novelty(cloud(rng, 100) + rng.normal(scale=1.5, size=(100, 12)))
    assert (other > 1.0).mean() > 0.9


def test_a_demonstration_does_not_know_itself() -> None:
    """Frames of one demonstration are alike: judged by themselves everything else were novel."""
    rng = np.random.default_rng(1)
    centres = np.repeat(rng.normal(size=(30, 8)), 20, axis=0)
    values = centres + rng.normal(scale=1e-3, size=centres.shape)
    known = Familiar.of(values, np.arange(600) // 20)
    assert (known.novelty(rng.normal(size=(200, 8))) > 1.0).mean() < 0.6


def test_it_survives_its_file(familiar: tuple[Familiar, np.random.Generator],
                              tmp_path: Path) -> None:
    known, rng = familiar
    save_familiar(tmp_path, {'abc': known})
    points = cloud(rng, 10)
    assert np.allclose(read_familiar(tmp_path)['abc'].novelty(points), known.novelty(points),
                       rtol=1e-3, atol=1e-4)
    assert read_familiar(tmp_path / 'nothing') == {}
    (tmp_path / FILE).write_bytes(b'no tensors')
    with pytest.raises(CheckpointError, match='damaged'):
        read_familiar(tmp_path)


def test_what_says_nothing_is_refused() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(EpisodeError, match='too few'):
        Familiar.of(cloud(rng, 40), np.zeros(40, dtype=int))
    with pytest.raises(CheckpointError, match='fit together'):
        Familiar(np.zeros(3), np.zeros((2, 2)), np.ones(1), np.zeros((9, 3)), 1.0)


@pytest.fixture(scope='module')
def trained(profile: RobotProfile, toy_episode: Maker, small_config: MiVLAConfig,
            tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint that has left its last three episodes out."""
    model = {key: value for key, value in small_config.to_json().items()
             if key not in ('spaces', 'cameras')}
    preset = Preset('toy', model, {
        'batch_size': 16, 'learning_rate': 3e-3, 'warm_up_steps': 5, 'ema_decay': 0.9,
        'augmentation': {'shift': [1, 1]}, 'every_frame': True, 'holdout_episodes': 3})
    return finetune([toy_episode(k) for k in range(15)], profile, preset,
                    tmp_path_factory.mktemp('made') / 'made', name='made', seed=0, steps=60,
                    threads=1, events=False)


def ask(policy: Policy, profile: RobotProfile, *jpegs: bytes, **more: Any) -> Inference:
    """Ask a policy about pictures that all cameras see."""
    return policy.infer([
        Query(policy.specs[0], Observation(0, profile.home, {
            c.role: jpeg for c in profile.cameras}, 'press the bell'), k, **more)
        for k, jpeg in enumerate(jpegs)])


def noise(seed: int = 0) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 255, (48, 64, 3)).astype(np.uint8))


def spot(toy_episode: Maker, number: int) -> bytes:
    return toy_episode(number).cameras['head'].frames[0]


def test_a_trained_policy_tells_a_scene_that_it_was_never_shown(
        profile: RobotProfile, toy_episode: Maker, trained: Path, tmp_path: Path) -> None:
    policy = mivla_policy([profile], {'checkpoint': str(trained), 'threads': 1})
    usual = [ask(policy, profile, spot(toy_episode, k)).novelty[0] for k in range(20, 30)]
    assert np.median(usual) < 1.0 < ask(policy, profile, noise()).novelty[0]
    bare = tmp_path / 'bare'
    shutil.copytree(trained, bare)
    (bare / FILE).unlink()
    policy = mivla_policy([profile], {'checkpoint': str(bare), 'threads': 1})
    assert np.isnan(ask(policy, profile, noise()).novelty[0])


def test_the_second_sign_changes_no_answer_and_the_larger_of_both_counts(
        profile: RobotProfile, toy_episode: Maker, trained: Path) -> None:
    plain = mivla_policy([profile], {'checkpoint': str(trained), 'threads': 1})
    policy = mivla_policy([profile], {'checkpoint': str(trained), 'threads': 1,
                                      'disagreement': True})
    pictures = [spot(toy_episode, 1), noise(), spot(toy_episode, 40)]
    prefix = Prefix(np.tile(profile.home, (2, 1)), 1)
    for more in ({}, {'prefix': prefix}):
        before, after = (ask(p, profile, *pictures, **more) for p in (plain, policy))
        assert all(np.array_equal(a, b) for a, b in zip(before.chunks, after.chunks))
        assert set(before.signs) == {'distance'} and before.novelty == before.signs['distance']
        both = zip(after.signs['distance'], after.signs['disagreement'])
        assert after.novelty == [max(pair) for pair in both]
        assert all(value > 0.0 for value in after.signs['disagreement'])
    # What the answer is pulled to does not matter, nor who else asks.
    alone = [ask(policy, profile, jpeg).signs['disagreement'][0] for jpeg in pictures[:1]]
    assert alone[0] == pytest.approx(after.signs['disagreement'][0], rel=1e-4)
    assert 'disagreement' in after.seconds and 'disagreement' not in before.seconds


def test_unseen_demonstrations_keep_below_the_threshold_of_disagreement(
        profile: RobotProfile, toy_episode: Maker, trained: Path) -> None:
    policy = mivla_policy([profile], {'checkpoint': str(trained), 'threads': 1,
                                      'disagreement': True})
    usual = ask(policy, profile, *(spot(toy_episode, k) for k in range(20, 60)))
    assert np.mean(np.array(usual.signs['disagreement']) > 1.0) < 0.4


def test_what_nobody_has_measured_cannot_be_asked_for(
        profile: RobotProfile, trained: Path, tmp_path: Path) -> None:
    bare = tmp_path / 'bare'
    shutil.copytree(trained, bare)
    known = {key: replace(one, doubt=float('nan')) for key, one in read_familiar(bare).items()}
    save_familiar(bare, known)
    with pytest.raises(ConfigError, match='mivla policy calibrate'):
        mivla_policy([profile], {'checkpoint': str(bare), 'disagreement': True})
    # An older file has no such number, and is as good as ever.
    assert all(np.isnan(one.doubt) for one in read_familiar(bare).values())


def test_thresholds_are_set_anew_by_unseen_episodes(
        profile: RobotProfile, toy_episode: Maker, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / 'copy'
    shutil.copytree(trained, path)
    (before,) = read_familiar(path).values()
    made = calibrate(path, profile, [toy_episode(k) for k in range(30, 40)])
    (after,) = read_familiar(path).values()
    assert after.doubt == pytest.approx(made.doubt) and after.limit == pytest.approx(made.limit)
    assert made.doubt != before.doubt and made.limit != before.limit
    policy = mivla_policy([profile], {'checkpoint': str(path), 'disagreement': True})
    told = [ask(policy, profile, spot(toy_episode, k)) for k in range(30, 40)]
    above = np.mean([one.signs['distance'][0] > 1.0 for one in told])
    assert above == pytest.approx(0.1, abs=0.1), 'nine of ten are below'
    with pytest.raises(EpisodeError, match='toy 3: the policy has learned from this episode'):
        calibrate(path, profile, [toy_episode(3)])
    with pytest.raises(EpisodeError, match='too few'):
        calibrate(path, profile, [toy_episode(30)])


def test_a_policy_of_one_answer_goes_by_the_pictures(
        profile: RobotProfile, toy_episode: Maker, small_config: MiVLAConfig,
        tmp_path: Path) -> None:
    model = {key: value for key, value in small_config.to_json().items()
             if key not in ('spaces', 'cameras')}
    preset = Preset('toy', {**model, 'kind': 'bc'}, {'batch_size': 16, 'warm_up_steps': 5,
                                                     'ema_decay': 0.9})
    path = finetune([toy_episode(k) for k in range(12)], profile, preset, tmp_path / 'made',
                    name='made', seed=0, steps=40, threads=1, events=False)
    policy = mivla_policy([profile], {'checkpoint': str(path), 'threads': 1})
    usual = [ask(policy, profile, spot(toy_episode, k)).novelty[0] for k in range(20, 30)]
    assert 2.0 * np.median(usual) < ask(policy, profile, noise()).novelty[0]
    with pytest.raises(UnknownPolicy, match='goes by the pictures alone'):
        mivla_policy([profile], {'checkpoint': str(path), 'disagreement': True})


def test_how_far_apart_answers_are_and_the_larger_sign() -> None:
    rng = np.random.default_rng(3)
    # Of many draws of one spread it is that spread; of one draw four times it is nothing.
    assert disagreement(rng.normal(scale=0.3, size=(2, SAMPLES, 50, 40))) == pytest.approx(
        [0.3, 0.3], rel=0.05)
    assert disagreement(np.ones((1, SAMPLES, 2, 3))).tolist() == [0.0]
    assert joined(0.5, 2.0) == 2.0 and joined(float('nan'), 0.5) == 0.5
    assert joined(0.5, float('nan')) == 0.5 and np.isnan(joined(float('nan'), float('nan')))
