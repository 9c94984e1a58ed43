"""
A checkpoint: a directory with ``model.safetensors`` and ``config.json``.

The weights are plain numbers (safetensors) and everything else is JSON; nothing is unpickled.
``config.json`` also holds what must fit each robot (an ``Embodiment`` per profile hash) and where
the checkpoint came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mivla_core.errors import ProfileError
from mivla_core.profile import RobotProfile, diff_profiles, parse_profile
from mivla_core.small_file import read_json
from mivla_policy.core.plain_data import check_keys
from mivla_policy.errors import CheckpointError, ConfigError, WrongProfile
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.direct import Direct
from mivla_policy.model.embodiment import Embodiment
from mivla_policy.model.mivla import MiVLA

__all__ = ['CheckpointInfo', 'ImageMeans', 'check_profile', 'embodiment_for', 'load_checkpoint',
           'load_network', 'read_info', 'save_checkpoint']

FORMAT = 'mivla-checkpoint'
VERSION = 2
WEIGHTS, CONFIG = 'model.safetensors', 'config.json'
MAX_CONFIG_BYTES = 8 << 20
MAX_WEIGHT_BYTES = 16 << 30
MODEL, MEAN = 'model.', 'image_mean.'


# Profile hash -> camera role -> mean training picture, uint8 (height, width, 3).
ImageMeans = Mapping[str, Mapping[str, NDArray[np.uint8]]]


@dataclass(frozen=True)
class CheckpointInfo:
    """
    Everything of a checkpoint but the weights.

    :param name: what the policy is called in chunks and reports.
    :param model: the network, with horizon, dt and cameras.
    :param embodiments: the robots it can move, each with another profile hash.
    :param provenance: seeds, episodes and their digests, steps, versions: free JSON.
    """

    name: str
    model: MiVLAConfig
    embodiments: tuple[Embodiment, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError when the parts contradict each other."""
        hashes = [body.profile_hash for body in self.embodiments]
        if not hashes or len(set(hashes)) != len(hashes):
            raise ConfigError(f'embodiments need different profile hashes, got {hashes}')
        for body in self.embodiments:
            if body.space not in self.model.spaces or len(body.cameras) != len(
                    self.model.cameras):
                raise ConfigError(
                    f'robot {body.robot} acts in {body.space} with {len(body.cameras)} camera '
                    f'places; the network has {list(self.model.spaces)} and '
                    f'{len(self.model.cameras)}')

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``config.json`` but the lines about the weights file."""
        return {
            'format': FORMAT, 'version': VERSION, 'name': self.name,
            'model': self.model.to_json(),
            'embodiments': [body.to_json() for body in self.embodiments],
            'provenance': dict(self.provenance)}


def save_checkpoint(path: str | os.PathLike[str], network: nn.Module, info: CheckpointInfo,
                    image_means: ImageMeans, overwrite: bool = False) -> Path:
    """
    Write a checkpoint; it appears complete or not at all.

    :param path: the directory to make.
    :param image_means: of every robot; the blind control of an evaluation needs them.
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
    for profile_hash, means in image_means.items():
        for role, mean in means.items():
            tensors[f'{MEAN}{profile_hash}.{role}'] = torch.from_numpy(
                np.ascontiguousarray(mean, dtype=np.uint8))
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
) -> tuple[MiVLA, CheckpointInfo, ImageMeans]:
    """
    Load a checkpoint of kind 'mivla': see ``load_network``.

    :raises CheckpointError: also for a baseline's.
    """
    network, info, means = load_network(path)
    if not isinstance(network, MiVLA):
        raise CheckpointError(f'{path}: holds a network of kind {info.model.kind!r}; use the '
                              f'policy plug-in of that name')
    return network, info, means


def load_network(
        path: str | os.PathLike[str],
) -> tuple[MiVLA | Direct, CheckpointInfo, ImageMeans]:
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
    found: dict[str, dict[str, NDArray[np.uint8]]] = {}
    for body in info.embodiments:
        for role in body.camera_roles:
            mean = means.get(f'{body.profile_hash}.{role}')
            if mean is None or mean.dtype != np.uint8 or mean.shape != (
                    *info.model.image_size, 3):
                raise CheckpointError(f'{weights}: no mean picture of camera {role!r} of robot '
                                      f'{body.robot} that fits')
            found.setdefault(body.profile_hash, {})[role] = mean
    return _network(info.model, state, weights), info, found


def check_profile(info: CheckpointInfo, profile: RobotProfile) -> None:
    """Raise WrongProfile unless the checkpoint was trained for this meaning of the profile."""
    embodiment_for(info, profile)


def embodiment_for(info: CheckpointInfo, profile: RobotProfile,
                   accept_difference: bool = False) -> Embodiment:
    """
    Return the embodiment that was trained for this meaning of the profile.

    :param accept_difference: an engineer's explicit word: where there is none, take the one of
        the robot of that name, or the only one, if it has as many joints and cameras.
    :raises WrongProfile: there is none; names every field that differs, checkpoint's value first.
    """
    for body in info.embodiments:
        if body.profile_hash == profile.hash:
            return body
    named = [body for body in info.embodiments if body.robot == profile.name]
    nearest = (named or list(info.embodiments))[0]
    roles = tuple(camera.role for camera in profile.cameras)
    if accept_difference and (len(named) == 1 or len(info.embodiments) == 1) and (
            len(nearest.joint_names) == len(profile.joints)
            and len(nearest.camera_roles) == len(roles)):
        return replace(nearest, profile_hash=profile.hash, joint_names=profile.joint_names)
    try:
        trained = parse_profile(nearest.profile_text, f'profile of checkpoint {info.name}')
        differing = '; '.join(diff_profiles(trained, profile)) or 'the stored text was altered'
    except ProfileError as error:
        differing = f'the stored profile cannot be compared: {error}'
    raise WrongProfile(
        f'checkpoint {info.name} was trained for '
        f'{", ".join(f"{body.robot} ({body.profile_hash})" for body in info.embodiments)}, robot '
        f'{profile.name} has {profile.hash}; {differing}')


def _read_config(root: Path) -> tuple[CheckpointInfo, str]:
    """Return the description of a checkpoint, and the digest that its weights must have."""
    config, weights = root / CONFIG, root / WEIGHTS
    if not config.is_file() or not weights.is_file():
        found = 'no such directory' if not root.is_dir() else f'needs {CONFIG} and {WEIGHTS}'
        raise CheckpointError(f'{root}: not a checkpoint: {found}')
    data = read_json(config, MAX_CONFIG_BYTES, CheckpointError,
                     f'the configuration of a {FORMAT}')
    size = weights.stat().st_size
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
    check_keys(data, {'format', 'version', 'weights_bytes', 'weights_sha256',
                      *(f.name for f in fields(CheckpointInfo))}, where)
    for key, kind in (('name', str), ('weights_sha256', str), ('provenance', dict),
                      ('embodiments', list)):
        if not isinstance(data[key], kind):
            raise ConfigError(f'{where}: {key} must be a {kind.__name__}')
    try:
        return CheckpointInfo(
            name=data['name'], model=MiVLAConfig.from_json(data['model'], f'{where}: model'),
            embodiments=tuple(Embodiment.from_json(body, f'{where}: embodiments[{i}]')
                              for i, body in enumerate(data['embodiments'])),
            provenance=data['provenance'])
    except ConfigError as error:
        raise ConfigError(str(error) if where in str(error) else f'{where}: {error}') from error


def _network(config: MiVLAConfig, state: dict[str, torch.Tensor],
             where: Path) -> MiVLA | Direct:
    """Return the network with these weights; every one must be there, fit and be finite."""
    # On the meta device nothing is allocated until the shapes are known to agree.
    with torch.device('meta'):
        network = MiVLA(config) if config.kind == 'mivla' else Direct.of(config)
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
