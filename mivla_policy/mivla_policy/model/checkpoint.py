"""
A checkpoint: a directory with ``model.safetensors`` and ``config.json``.

The weights are plain numbers (safetensors) and everything else is JSON; nothing is unpickled.
``config.json`` also holds what must fit the robot (profile hash and text, joint names, cameras)
and where the checkpoint came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mivla_core.errors import ProfileError
from mivla_core.profile import RobotProfile, diff_profiles, parse_profile
from mivla_policy.core.normalize import Normalizer
from mivla_policy.errors import CheckpointError, ConfigError, WrongProfile
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.mivla import MiVLA

__all__ = ['CheckpointInfo', 'check_profile', 'load_checkpoint', 'read_info', 'save_checkpoint']

FORMAT = 'mivla-checkpoint'
VERSION = 1
WEIGHTS, CONFIG = 'model.safetensors', 'config.json'
MAX_CONFIG_BYTES = 8 << 20
MAX_WEIGHT_BYTES = 16 << 30
MODEL, MEAN = 'model.', 'image_mean.'


@dataclass(frozen=True)
class CheckpointInfo:
    """
    Everything of a checkpoint but the weights.

    :param name: what the policy is called in chunks and reports.
    :param model: the network, with horizon, dt and cameras.
    :param joint_names: order of states and actions.
    :param normalizer: statistics of states and actions.
    :param instructions: sentences it was trained on.
    :param profile_hash: of the robot profile it was trained for.
    :param profile_text: that profile's canonical YAML.
    :param provenance: seeds, episodes and their digests, steps, versions: free JSON.
    """

    name: str
    model: MiVLAConfig
    joint_names: tuple[str, ...]
    normalizer: Normalizer
    instructions: tuple[str, ...]
    profile_hash: str
    profile_text: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError when the parts contradict each other."""
        joints = self.model.joints
        if len(self.joint_names) != joints or self.normalizer.joints != joints:
            raise ConfigError(
                f'{len(self.joint_names)} joint names and statistics of '
                f'{self.normalizer.joints} joints for a network of {joints}')
        if not self.instructions:
            raise ConfigError('no instruction: nothing could be asked of this policy')

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``config.json`` but the lines about the weights file."""
        return {
            'format': FORMAT, 'version': VERSION, 'name': self.name,
            'model': self.model.to_json(), 'joint_names': list(self.joint_names),
            'normalization': self.normalizer.to_json(), 'instructions': list(self.instructions),
            'profile_hash': self.profile_hash, 'profile_text': self.profile_text,
            'provenance': dict(self.provenance)}


def save_checkpoint(path: str | os.PathLike[str], network: MiVLA, info: CheckpointInfo,
                    image_means: Mapping[str, NDArray[np.uint8]], overwrite: bool = False) -> Path:
    """
    Write a checkpoint; it appears complete or not at all.

    :param path: the directory to make.
    :param image_means: camera role -> mean training picture, uint8 (height, width, 3); the blind
        control of an evaluation needs them.
    :param overwrite: replace a checkpoint that is there.
    :raises CheckpointError: the directory exists, or cannot be written.
    """
    target = Path(path).absolute()
    if target.exists() and not (overwrite and (target / CONFIG).is_file()):
        raise CheckpointError(
            f'{target} exists{"" if not overwrite else " and is not a checkpoint"}; '
            'choose another directory')
    tensors = {MODEL + name: value.detach().cpu().contiguous()
               for name, value in network.state_dict().items()}
    for role, mean in image_means.items():
        tensors[MEAN + role] = torch.from_numpy(np.ascontiguousarray(mean, dtype=np.uint8))
    scratch = target.with_name(f'.{target.name}.{os.getpid()}.part')
    try:
        scratch.mkdir(parents=True)
        save_file(tensors, scratch / WEIGHTS)
        data = info.to_json() | {
            'weights_bytes': (scratch / WEIGHTS).stat().st_size,
            'weights_sha256': _digest(scratch / WEIGHTS)}
        (scratch / CONFIG).write_text(json.dumps(data, indent=1) + '\n', encoding='utf-8')
        for name in (WEIGHTS, CONFIG):
            _sync(scratch / name)
        if target.exists():
            old = target.with_name(f'.{target.name}.{os.getpid()}.old')
            target.rename(old)
            scratch.rename(target)
            shutil.rmtree(old)
        else:
            scratch.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise CheckpointError(f'{target}: cannot be written: {error}') from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def read_info(path: str | os.PathLike[str]) -> CheckpointInfo:
    """Read ``config.json`` of a checkpoint, and check the size of the weights beside it."""
    return _read_config(Path(path))[0]


def load_checkpoint(
        path: str | os.PathLike[str],
) -> tuple[MiVLA, CheckpointInfo, dict[str, NDArray[np.uint8]]]:
    """
    Load a checkpoint: the network in evaluation mode, its description, its mean pictures.

    :raises CheckpointError: not a checkpoint, damaged, or of another version.
    """
    root = Path(path)
    info, expected = _read_config(root)
    weights = root / WEIGHTS
    if _digest(weights) != expected:
        raise CheckpointError(
            f'{weights}: content differs from the digest in {CONFIG}; the file is damaged or '
            'belongs to another checkpoint')
    try:
        with safe_open(weights, framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{weights}: damaged: {error}') from error
    means = {name[len(MEAN):]: value.numpy() for name, value in tensors.items()
             if name.startswith(MEAN)}
    state = {name[len(MODEL):]: value for name, value in tensors.items()
             if name.startswith(MODEL)}
    for role in info.model.cameras:
        mean = means.get(role)
        if mean is None or mean.dtype != np.uint8 or mean.shape != (*info.model.image_size, 3):
            raise CheckpointError(f'{weights}: no mean picture of camera {role!r} that fits')
    return _network(info.model, state, weights), info, means


def check_profile(info: CheckpointInfo, profile: RobotProfile) -> None:
    """
    Raise WrongProfile unless the checkpoint was trained for this meaning of the profile.

    The message names every field that differs, checkpoint's value first.
    """
    if info.profile_hash == profile.hash:
        return
    try:
        trained = parse_profile(info.profile_text, f'profile of checkpoint {info.name}')
        differing = '; '.join(diff_profiles(trained, profile)) or 'the stored text was altered'
    except ProfileError as error:
        differing = f'the stored profile cannot be compared: {error}'
    raise WrongProfile(
        f'checkpoint {info.name} was trained for profile {info.profile_hash}, robot '
        f'{profile.name} has {profile.hash}; {differing}')


def _read_config(root: Path) -> tuple[CheckpointInfo, str]:
    """Return the description of a checkpoint, and the digest that its weights must have."""
    config, weights = root / CONFIG, root / WEIGHTS
    if not config.is_file() or not weights.is_file():
        found = 'no such directory' if not root.is_dir() else f'needs {CONFIG} and {WEIGHTS}'
        raise CheckpointError(f'{root}: not a checkpoint: {found}')
    try:
        if config.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError(f'{config}: larger than {MAX_CONFIG_BYTES} bytes')
        size = weights.stat().st_size
        data = json.loads(config.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f'{config}: cannot be read: {error}') from error
    if not isinstance(data, dict) or data.get('format') != FORMAT:
        raise CheckpointError(f'{config}: not the configuration of a {FORMAT}')
    if data.get('version') != VERSION:
        raise CheckpointError(
            f'{config}: version {data.get("version")!r}; this program reads {VERSION}')
    if size > MAX_WEIGHT_BYTES or size != data.get('weights_bytes'):
        raise CheckpointError(
            f'{weights}: {size} bytes, expected {data.get("weights_bytes")} (at most '
            f'{MAX_WEIGHT_BYTES}); the file is truncated or belongs to another checkpoint')
    try:
        return _parse(data, str(config)), str(data['weights_sha256'])
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _parse(data: dict[str, Any], where: str) -> CheckpointInfo:
    """Return the description in ``data``; raise ConfigError for unknown or missing keys."""
    known = {'format', 'version', 'weights_bytes', 'weights_sha256', 'normalization',
             *(f.name for f in fields(CheckpointInfo))} - {'normalizer'}
    for key in sorted(known ^ set(data)):
        raise ConfigError(f'{where}: key {key!r} is {"missing" if key in known else "unknown"}')
    for key, kind in (('name', str), ('profile_hash', str), ('profile_text', str),
                      ('weights_sha256', str), ('provenance', dict)):
        if not isinstance(data[key], kind):
            raise ConfigError(f'{where}: {key} must be a {kind.__name__}')
    for key in ('joint_names', 'instructions'):
        if not isinstance(data[key], list) or not all(isinstance(v, str) for v in data[key]):
            raise ConfigError(f'{where}: {key} must be a list of strings')
    try:
        return CheckpointInfo(
            name=data['name'], model=MiVLAConfig.from_json(data['model'], f'{where}: model'),
            joint_names=tuple(data['joint_names']),
            normalizer=Normalizer.from_json(data['normalization'], f'{where}: normalization'),
            instructions=tuple(data['instructions']), profile_hash=data['profile_hash'],
            profile_text=data['profile_text'], provenance=data['provenance'])
    except ConfigError as error:
        raise ConfigError(str(error) if where in str(error) else f'{where}: {error}') from error


def _network(config: MiVLAConfig, state: dict[str, torch.Tensor], where: Path) -> MiVLA:
    """Return the network with these weights; every one must be there, fit and be finite."""
    # On the meta device nothing is allocated until the shapes are known to agree.
    with torch.device('meta'):
        network = MiVLA(config)
    expected = network.state_dict()
    for name in sorted(set(expected) ^ set(state)):
        what = 'missing' if name in expected else 'not part of the network'
        raise CheckpointError(f'{where}: tensor {name} is {what}')
    for name, value in state.items():
        want = expected[name]
        if value.shape != want.shape or value.dtype != want.dtype:
            raise CheckpointError(
                f'{where}: tensor {name} is {value.dtype} {tuple(value.shape)}, expected '
                f'{want.dtype} {tuple(want.shape)}')
        if not torch.isfinite(value).all():
            raise CheckpointError(f'{where}: tensor {name} holds a value that is not finite')
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
