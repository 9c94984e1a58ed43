"""Checkpoints: round trip, and refusal of everything that is not one."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mivla_core.profile import RobotProfile, parse_profile
from mivla_policy.core.normalize import Normalizer
from mivla_policy.errors import CheckpointError, WrongProfile
from mivla_policy.model.checkpoint import (
    CheckpointInfo,
    check_profile,
    load_checkpoint,
    read_info,
    save_checkpoint,
)
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.mivla import MiVLA

RNG = np.random.default_rng(0)


@pytest.fixture
def saved(tmp_path: Path, profile: RobotProfile, small_config: MiVLAConfig) -> Path:
    """Return a good checkpoint."""
    return save_checkpoint(tmp_path / 'good', MiVLA(small_config), info(profile, small_config),
                           means(small_config))


def info(profile: RobotProfile, config: MiVLAConfig) -> CheckpointInfo:
    """Return the description of a checkpoint with random statistics."""
    states = RNG.normal(size=(5, config.joints))
    return CheckpointInfo(
        'toy', config, profile.joint_names, Normalizer.of(states, states[:, None] * [[2.0]]),
        ('press the bell',), profile.hash, profile.text, {'seed': 3})


def means(config: MiVLAConfig) -> dict[str, np.ndarray]:
    """Return a random mean picture per camera."""
    return {role: RNG.integers(0, 255, (*config.image_size, 3), dtype=np.uint8)
            for role in config.cameras}


def test_round_trip_is_exact(tmp_path: Path, profile: RobotProfile,
                             small_config: MiVLAConfig) -> None:
    network, about = MiVLA(small_config), info(profile, small_config)
    pictures = means(small_config)
    path = save_checkpoint(tmp_path / 'deep' / 'toy', network, about, pictures)
    again, read, mean = load_checkpoint(path)
    assert sorted(p.name for p in path.iterdir()) == ['config.json', 'model.safetensors']
    assert not list(path.parent.glob('.*'))
    assert read.to_json() == about.to_json() == read_info(path).to_json()
    assert not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for role, picture in pictures.items():
        np.testing.assert_array_equal(mean[role], picture)
    check_profile(read, profile)


def test_overwrite_is_explicit_and_only_of_checkpoints(
        saved: Path, profile: RobotProfile, small_config: MiVLAConfig) -> None:
    parts = MiVLA(small_config), info(profile, small_config), means(small_config)
    with pytest.raises(CheckpointError, match='exists'):
        save_checkpoint(saved, *parts)
    save_checkpoint(saved, *parts, overwrite=True)
    (saved.parent / 'precious').mkdir()
    with pytest.raises(CheckpointError, match='not a checkpoint'):
        save_checkpoint(saved.parent / 'precious', *parts, overwrite=True)


def test_a_failed_save_leaves_nothing_behind(
        tmp_path: Path, profile: RobotProfile, small_config: MiVLAConfig,
        monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr('mivla_policy.model.checkpoint.save_file', full)
    with pytest.raises(CheckpointError, match='No space left'):
        save_checkpoint(tmp_path / 'toy', MiVLA(small_config), info(profile, small_config),
                        means(small_config))
    assert list(tmp_path.iterdir()) == []


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change ``config.json``."""
    data = json.loads((path / 'config.json').read_text())
    change(data)
    (path / 'config.json').write_text(json.dumps(data))


def fit(path: Path) -> None:
    """Make the description agree with the weights file as it is."""
    data = (path / 'model.safetensors').read_bytes()
    edit(path, lambda c: c.update(weights_bytes=len(data),
                                  weights_sha256=hashlib.sha256(data).hexdigest()))


def reweigh(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights, and the digest to match."""
    tensors = load_file(path / 'model.safetensors')
    change(tensors)
    save_file(tensors, path / 'model.safetensors')
    fit(path)


@pytest.mark.parametrize(('change', 'named'), [
    (lambda c: c.update(extra=1), "'extra' is unknown"),
    (lambda c: c.pop('profile_hash'), "'profile_hash' is missing"),
    (lambda c: c.update(format='other'), 'not the configuration'),
    (lambda c: c.update(version=2), 'version 2'),
    (lambda c: c['model'].update(layers=3), "unknown key 'layers'"),
    (lambda c: c['model'].update(width=10**12), 'width'),
    (lambda c: c['model'].update(width=32), 'tensor'),
    (lambda c: c['model'].update(depth=2), 'is missing'),
    (lambda c: c['normalization']['state'].update(scale=[0.0]), 'statistics'),
    (lambda c: c.update(joint_names=['a']), 'joint names'),
    (lambda c: c.update(joint_names='abcdefg'), 'list of strings'),
    (lambda c: c.update(instructions=[]), 'no instruction'),
    (lambda c: c.update(weights_bytes=3), 'truncated'),
    (lambda c: c.update(weights_sha256='00'), 'damaged'),
    (lambda c: c.update(provenance=[]), 'provenance'),
])
def test_a_wrong_description_is_refused(
        saved: Path, change: Callable[[dict[str, object]], object], named: str) -> None:
    edit(saved, change)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_checkpoint(saved)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('change', 'named'), [
    (lambda t: t.pop('model.decoder.fc2.bias'), 'decoder.fc2.bias is missing'),
    (lambda t: t.update({'model.more': torch.zeros(2)}), 'more is not part'),
    (lambda t: t.update({'model.decoder.fc2.bias': torch.zeros(2)}), r'\(2,\)'),
    (lambda t: t['model.decoder.fc2.bias'].fill_(float('nan')), 'not finite'),
    (lambda t: t.pop('image_mean.wrist'), "'wrist'"),
])
def test_wrong_weights_are_refused(
        saved: Path, change: Callable[[dict[str, torch.Tensor]], object], named: str) -> None:
    reweigh(saved, change)
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(saved)


def test_a_truncated_file_is_refused_with_and_without_its_digest(saved: Path) -> None:
    weights = saved / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match='truncated'):
        load_checkpoint(saved)
    fit(saved)
    with pytest.raises(CheckpointError, match='damaged'):
        load_checkpoint(saved)


def test_other_things_are_not_checkpoints(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(CheckpointError, match='no such directory'):
        load_checkpoint(tmp_path / 'absent')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(CheckpointError, match=r'needs config\.json'):
        load_checkpoint(tmp_path / 'empty')
    for text in ('', '[]', '{', '[' * 100_000, '\xff'):
        (saved / 'config.json').write_text(text, encoding='latin-1')
        with pytest.raises(CheckpointError):
            load_checkpoint(saved)


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        """Say how this is unpickled."""
        return Path.touch, (self.trace,)


def test_nothing_is_ever_unpickled(saved: Path, tmp_path: Path) -> None:
    data = pickle.dumps(Trap(tmp_path / 'trace'))
    (saved / 'pytorch_model.bin').write_bytes(data)
    (saved / 'model.safetensors').write_bytes(data)
    fit(saved)
    with pytest.raises(CheckpointError, match='damaged'):
        load_checkpoint(saved)
    assert not (tmp_path / 'trace').exists()
    pickle.loads(data)
    assert (tmp_path / 'trace').exists()


def test_another_robot_is_refused_by_the_field_that_differs(
        saved: Path, profile: RobotProfile) -> None:
    other = parse_profile(profile.text.replace('joint3', 'elbow'), 'test')
    with pytest.raises(WrongProfile, match='elbow') as caught:
        check_profile(read_info(saved), other)
    assert profile.hash in str(caught.value)
    assert '\n' not in str(caught.value)


def test_limits_and_rates_may_change(saved: Path, profile: RobotProfile) -> None:
    slower = parse_profile(profile.text.replace('velocity: 3.0', 'velocity: 2.0'), 'test')
    check_profile(read_info(saved), slower)
