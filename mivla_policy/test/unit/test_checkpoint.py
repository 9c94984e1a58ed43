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
import yaml
from safetensors.torch import load_file, save_file

from mivla_core.profile import RobotProfile, parse_profile
from mivla_policy.core.normalize import Normalizer
from mivla_policy.errors import CheckpointError, ConfigError, WrongProfile
from mivla_policy.model.checkpoint import (
    CheckpointInfo,
    ImageMeans,
    check_profile,
    embodiment_for,
    load_checkpoint,
    read_info,
    save_checkpoint,
)
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.embodiment import Embodiment, camera_places
from mivla_policy.model.mivla import MiVLA

RNG = np.random.default_rng(0)


@pytest.fixture
def saved(tmp_path: Path, profile: RobotProfile, small_config: MiVLAConfig) -> Path:
    """Return a good checkpoint."""
    return save_checkpoint(tmp_path / 'good', MiVLA(small_config), info(profile, small_config),
                           means(profile, small_config))


def info(profile: RobotProfile, config: MiVLAConfig) -> CheckpointInfo:
    """Return the description of a checkpoint with random statistics."""
    states = RNG.normal(size=(5, 7))
    body = Embodiment.of(profile, config, Normalizer.of(states, states[:, None] * [[2.0]]),
                         ('press the bell',))
    return CheckpointInfo('toy', config, (body,), {'seed': 3})


def means(profile: RobotProfile, config: MiVLAConfig) -> ImageMeans:
    """Return a random mean picture per camera."""
    return {profile.hash: {camera.role: RNG.integers(0, 255, (*config.image_size, 3),
                                                     dtype=np.uint8)
                           for camera in profile.cameras}}


def test_round_trip_is_exact(tmp_path: Path, profile: RobotProfile,
                             small_config: MiVLAConfig) -> None:
    network, about = MiVLA(small_config), info(profile, small_config)
    pictures = means(profile, small_config)
    path = save_checkpoint(tmp_path / 'deep' / 'toy', network, about, pictures)
    again, read, mean = load_checkpoint(path)
    assert sorted(p.name for p in path.iterdir()) == ['config.json', 'model.safetensors']
    assert not list(path.parent.glob('.*'))
    assert read.to_json() == about.to_json() == read_info(path).to_json()
    assert not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for role, picture in pictures[profile.hash].items():
        np.testing.assert_array_equal(mean[profile.hash][role], picture)
    check_profile(read, profile)


def test_overwrite_is_explicit_and_only_of_checkpoints(
        saved: Path, profile: RobotProfile, small_config: MiVLAConfig) -> None:
    parts = MiVLA(small_config), info(profile, small_config), means(profile, small_config)
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
                        means(profile, small_config))
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
    (lambda c: c['embodiments'][0].pop('profile_hash'), "'profile_hash' is missing"),
    (lambda c: c['embodiments'][0].update(arm=1), "'arm' is unknown"),
    (lambda c: c.update(format='other'), 'not the configuration'),
    (lambda c: c.update(version=1), 'version 1'),
    (lambda c: c['model'].update(layers=3), "unknown key 'layers'"),
    (lambda c: c['model'].update(width=10**12), 'width'),
    (lambda c: c['model'].update(width=32), 'tensor'),
    (lambda c: c['model'].update(depth=2), 'is missing'),
    (lambda c: c['embodiments'][0]['normalization']['state'].update(scale=[0.0]), 'statistics'),
    (lambda c: c['embodiments'][0].update(joint_names=['a']), 'joint names'),
    (lambda c: c['embodiments'][0].update(joint_names='abcdefg'), 'must be a list'),
    (lambda c: c['embodiments'][0].update(instructions=[3]), 'must be str'),
    (lambda c: c['embodiments'][0].update(instructions=[]), 'no instruction'),
    (lambda c: c['embodiments'][0].update(space='eef14'), 'eef14'),
    (lambda c: c['embodiments'][0].update(space='arm'), 'arm'),
    (lambda c: c['embodiments'][0].update(slots=[7] * 7), 'distinct'),
    (lambda c: c['embodiments'][0].update(slots=[7.0] * 7), 'must be int'),
    (lambda c: c['embodiments'][0].update(cameras=['head']), 'camera places'),
    (lambda c: c['embodiments'][0].update(cameras=['head', 'head']), 'different roles'),
    (lambda c: c['embodiments'].append(c['embodiments'][0]), 'different profile hashes'),
    (lambda c: c.update(embodiments=[]), 'profile hashes'),
    (lambda c: c.update(embodiments=[3]), 'expected an object'),
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
    (lambda t: t.pop('model.heads.joint14.fc2.bias'), 'joint14.fc2.bias is missing'),
    (lambda t: t.update({'model.more': torch.zeros(2)}), 'more is not part'),
    (lambda t: t.update({'model.heads.joint14.fc2.bias': torch.zeros(2)}), r'\(2,\)'),
    (lambda t: t['model.heads.joint14.fc2.bias'].fill_(float('nan')), 'not finite'),
    (lambda t: t.pop(next(k for k in t if k.endswith('.wrist'))), "'wrist'"),
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


def second(profile: RobotProfile) -> RobotProfile:
    """Return another robot with as many joints."""
    return parse_profile(profile.text.replace('name: piper', 'name: other').replace(
        'joint3', 'elbow'), 'test')


def test_several_robots_share_a_checkpoint(tmp_path: Path, profile: RobotProfile,
                                           small_config: MiVLAConfig) -> None:
    other = second(profile)
    both = info(profile, small_config).embodiments + info(other, small_config).embodiments
    about = CheckpointInfo('two', small_config, both)
    path = save_checkpoint(tmp_path / 'two', MiVLA(small_config), about,
                           {**means(profile, small_config), **means(other, small_config)})
    _, read, pictures = load_checkpoint(path)
    assert set(pictures) == {profile.hash, other.hash}
    assert embodiment_for(read, other).joint_names == other.joint_names
    assert embodiment_for(read, profile).robot == 'piper'
    third = parse_profile(profile.text.replace('piper-mdh-offset1', 'elsewhere'), 'test')
    with pytest.raises(WrongProfile, match=f'piper .*{profile.hash}.*other .*zero: '):
        embodiment_for(read, third)
    accepted = embodiment_for(read, third, accept_difference=True)
    assert (accepted.robot, accepted.profile_hash) == ('piper', third.hash)


def test_a_difference_in_number_of_joints_cannot_be_accepted(
        profile: RobotProfile, small_config: MiVLAConfig) -> None:
    about = info(profile, small_config)
    fewer = yaml.safe_load(profile.text)
    del fewer['joints'][-1], fewer['packing']['slots']['gripper']
    fewer['arms'][0]['gripper'] = None
    with pytest.raises(WrongProfile, match='gripper'):
        embodiment_for(about, parse_profile(yaml.safe_dump(fewer), 'test'), True)


def test_cameras_take_places_of_their_name_and_then_free_ones() -> None:
    places = ('head', 'right', 'left')
    assert camera_places(places, ['head', 'wrist']) == ('head', 'wrist', '')
    assert camera_places(places, ['wrist', 'left']) == ('wrist', '', 'left')
    assert camera_places(places, ['left', 'right', 'head']) == places
    with pytest.raises(ConfigError, match='4 cameras'):
        camera_places(places, list('abcd'))
