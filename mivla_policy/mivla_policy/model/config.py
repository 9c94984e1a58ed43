"""
Configuration of the network, and the presets that it is made from.

A ``MiVLAConfig`` says all that is needed to build the network; it is stored in the checkpoint. A
preset (``config/policies/*.yaml``) says all of it but what the robot decides, plus the recipe of
its training.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mivla_core.profile import config_dir
from mivla_core.small_file import read_yaml
from mivla_policy.core.packing import space_size
from mivla_policy.core.plain_data import LATER, from_mapping
from mivla_policy.errors import ConfigError

__all__ = ['LanguageConfig', 'MiVLAConfig', 'Preset', 'VisionConfig', 'available_presets',
           'available_recipes', 'load_preset', 'load_recipe']

MAX_PRESET_BYTES = 1 << 20
VISION_KINDS = ('keypoints', 'dinov2+siglip')
LANGUAGE_KINDS = ('hashed', 't5')
KINDS = ('mivla', 'act', 'bc')
PATCH = 14                    # px, of both towers of 'dinov2+siglip'


@dataclass(frozen=True)
class VisionConfig:
    """
    How pictures become tokens.

    :param kind: 'keypoints': a small trainable encoder per camera, one token each.
        'dinov2+siglip': two frozen, pretrained towers (``model.vision``), one token per patch.
    :param height: of the model's pictures [px]; the towers take squares.
    :param width: of the model's pictures [px].
    :param channels: keypoints: of the three convolutions (strides 4, 2, 1).
    :param keypoints: spatial-softmax keypoints per camera.
    :param log_sharpness: keypoints: start of the learned log-factor in front of the softmax.
    :param feature_width: dinov2+siglip: numbers per token, of both towers together. 2176 = 1024
        (DINOv2 ViT-L/14) + 1152 (SigLIP SO400M/14), as in H-RDT.
    """

    kind: str = 'keypoints'
    height: int = 96
    width: int = 96
    channels: tuple[int, ...] = (32, 64, 64)
    keypoints: int = 32
    log_sharpness: float = 1.5
    feature_width: int = field(default=2176, metadata=LATER)

    def __post_init__(self) -> None:
        """Raise ConfigError for values that no encoder can be built from."""
        if self.kind not in VISION_KINDS:
            raise ConfigError(
                f'vision.kind is {self.kind!r}; known: {", ".join(map(repr, VISION_KINDS))}')
        _bounded('vision.height', self.height, 32, 1024)
        _bounded('vision.width', self.width, 32, 1024)
        _bounded('vision.keypoints', self.keypoints, 1, 1024)
        _bounded('vision.feature_width', self.feature_width, 2, 16384)
        if self.kind == 'dinov2+siglip' and self.height != self.width:
            raise ConfigError(
                f'vision.height is {self.height} and vision.width {self.width}; the towers of '
                f'{self.kind!r} take squares (384 or 224)')
        if len(self.channels) != 3:
            raise ConfigError(f'vision.channels is {list(self.channels)}; expected three numbers')
        for channels in self.channels:
            _bounded('vision.channels', channels, 8, 4096)
            if channels % 8:
                raise ConfigError(f'vision.channels has {channels}; expected multiples of 8')

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of one picture; an incomplete patch is left out."""
        if self.kind == 'keypoints':
            return 1, 1
        return self.height // PATCH, self.width // PATCH

    @property
    def tokens(self) -> int:
        """Tokens per camera: 729 at 384 px, 256 at 224 px; 1 of keypoints."""
        rows, columns = self.grid
        return rows * columns

    @property
    def fit(self) -> str:
        """How pictures come to the model's size; see ``core.observation.model_image``."""
        return 'stretch' if self.kind == 'keypoints' else 'letterbox'


@dataclass(frozen=True)
class LanguageConfig:
    """
    How an instruction becomes tokens.

    :param kind: 'hashed': one fixed vector per word (``core.language``). 't5': embeddings of a
        T5 encoder, made offline and read from a cache (``core.instructions``).
    :param width: numbers per token; 4096 of T5-v1.1-XXL.
    :param max_tokens: longest instruction [tokens].
    :param model: t5: name of the encoder, under which its embeddings are cached.
    """

    kind: str = 'hashed'
    width: int = 64
    max_tokens: int = 16
    model: str = field(default='', metadata=LATER)

    def __post_init__(self) -> None:
        """Raise ConfigError for values out of range."""
        if self.kind not in LANGUAGE_KINDS:
            raise ConfigError(
                f'language.kind is {self.kind!r}; known: {", ".join(map(repr, LANGUAGE_KINDS))}')
        _bounded('language.width', self.width, 8, 16384)
        _bounded('language.max_tokens', self.max_tokens, 1, 1024)
        if (self.kind == 't5') != bool(self.model):
            raise ConfigError(
                f"language.model is {self.model!r} with language.kind {self.kind!r}; it names the "
                "encoder of kind 't5' (such as 't5-v1_1-xxl') and is '' otherwise")


@dataclass(frozen=True)
class MiVLAConfig:
    """
    The network: sizes of the trunk, what goes in, what comes out.

    :param spaces: action spaces that it has adapters and heads for (``core.packing``).
    :param cameras: what its C pictures are called, in the order of their tokens.
    :param chunk: T, rows of a chunk.
    :param dt_ns: time between rows [ns].
    :param width: D of the trunk.
    :param depth: number of blocks.
    :param heads: query heads.
    :param kv_heads: key and value heads, each shared by heads / kv_heads queries.
    :param norm_eps: of every norm.
    :param multiple_of: the inner width of SwiGLU is 8/3 D rounded up to a multiple of this.
    :param time_features: sines and cosines of the flow time.
    :param time_scale: factor on the flow time in front of them; H-RDT has 1, which a short
        training from scratch cannot resolve.
    :param steps: Euler steps of the sampler.
    :param time_max: flow times are drawn from [0, time_max).
    :param vision: how pictures become tokens.
    :param language: how an instruction becomes tokens.
    :param kind: 'mivla', or a baseline of ``model.direct``: 'act', 'bc' (behaviour cloning), which
        have no flow, so that ``time_features`` to ``time_max`` mean nothing to them.
    :param latent: act: size of the latent.
    """

    spaces: tuple[str, ...]
    cameras: tuple[str, ...]
    chunk: int = 16
    dt_ns: int = 66_666_667
    width: int = 128
    depth: int = 3
    heads: int = 4
    kv_heads: int = 4
    norm_eps: float = 1e-5
    multiple_of: int = 64
    time_features: int = 256
    time_scale: float = 1.0
    steps: int = 5
    time_max: float = 0.999
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    kind: str = field(default='mivla', metadata=LATER)
    latent: int = field(default=32, metadata=LATER)

    def __post_init__(self) -> None:
        """Raise ConfigError for values that no network can be built from."""
        if self.kind not in KINDS:
            raise ConfigError(f'kind is {self.kind!r}; known: {", ".join(map(repr, KINDS))}')
        # Upper bounds keep a damaged or hostile file from asking for all memory.
        for name, low, high in (
                ('chunk', 1, 1024), ('dt_ns', 1_000_000, 10_000_000_000),
                ('width', 8, 8192), ('depth', 1, 128), ('heads', 1, 128), ('kv_heads', 1, 128),
                ('multiple_of', 1, 4096), ('time_features', 2, 4096), ('steps', 1, 1000),
                ('latent', 1, 4096)):
            _bounded(name, getattr(self, name), low, high)
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ConfigError(
                f'heads ({self.heads}) must divide width ({self.width}), and kv_heads '
                f'({self.kv_heads}) must divide heads')
        if self.width % 4 or self.time_features % 2:
            raise ConfigError(
                f'width ({self.width}) must be a multiple of 4, time_features '
                f'({self.time_features}) even')
        if not self.spaces or len(set(self.spaces)) != len(self.spaces):
            raise ConfigError(f'spaces must be different action spaces, got {list(self.spaces)}')
        for space in self.spaces:
            space_size(space)
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ConfigError(f'cameras must be different roles, got {list(self.cameras)}')
        if not 0.0 < self.time_scale <= 10_000.0:
            raise ConfigError(f'time_scale is {self.time_scale}; expected (0, 10000]')
        if not 0.0 < self.time_max <= 1.0 or not 0.0 < self.norm_eps < 1.0:
            raise ConfigError(
                f'time_max must be in (0, 1] and norm_eps in (0, 1), got {self.time_max} '
                f'and {self.norm_eps}')

    @property
    def inner_width(self) -> int:
        """Inner width of SwiGLU."""
        return self.multiple_of * math.ceil(int(8 * self.width / 3) / self.multiple_of)

    @property
    def action_width(self) -> int:
        """A, slots of the widest space."""
        return max(space_size(space) for space in self.spaces)

    @property
    def image_tokens(self) -> int:
        """N, image tokens of all cameras."""
        return len(self.cameras) * self.vision.tokens

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the model's pictures."""
        return self.vision.height, self.vision.width

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that ``from_json`` reads back to an equal value."""
        data: dict[str, Any] = _plain(dataclasses.asdict(self))
        return data

    @classmethod
    def from_json(cls, data: Any, where: str = 'model') -> MiVLAConfig:
        """
        Read what ``to_json`` wrote; unknown and missing keys are errors.

        :param where: named in errors.
        """
        return from_mapping(cls, data, where, complete=True)


@dataclass(frozen=True)
class Preset:
    """
    A kind of policy that can be trained for any robot.

    :param name: of the preset.
    :param model: fields of MiVLAConfig; without ``spaces`` or ``cameras``, those of the robot.
    :param training: fields of the training recipe (``learn.recipe.Recipe``); in a file also the
        name of one in ``config/policies/recipes``.
    """

    name: str
    model: Mapping[str, Any]
    training: Mapping[str, Any]

    def config(self, space: str, cameras: Sequence[str]) -> MiVLAConfig:
        """
        Return the network of this preset for a robot.

        :param space: that the robot acts in.
        :param cameras: roles of the robot's cameras.
        :raises ConfigError: the preset has no head for the space, or too few cameras.
        """
        config = from_mapping(
            MiVLAConfig, {'spaces': [space], 'cameras': list(cameras), **self.model},
            f'preset {self.name}: model')
        if space not in config.spaces or len(cameras) > len(config.cameras):
            raise ConfigError(
                f'preset {self.name} has the spaces {list(config.spaces)} and '
                f'{len(config.cameras)} cameras; the robot acts in {space} and has '
                f'{len(cameras)} cameras')
        return config


def available_presets() -> dict[str, Path]:
    """Map the names of the presets to their files."""
    return {path.stem: path for path in sorted((config_dir() / 'policies').glob('*.yaml'))}


def available_recipes() -> dict[str, Path]:
    """Map the names of the training recipes to their files."""
    folder = config_dir() / 'policies' / 'recipes'
    return {path.stem: path for path in sorted(folder.glob('*.yaml'))}


def load_preset(name_or_path: str | os.PathLike[str]) -> Preset:
    """
    Read a preset by name or path (YAML with the keys name, model, training).

    :raises ConfigError: unknown (lists the valid ones), too big, not YAML, unknown keys.
    """
    path, data = _named('preset', name_or_path, available_presets())
    if isinstance(data, dict) and isinstance(data.get('training'), str):
        data = {**data, 'training': load_recipe(data['training'])}
    preset = from_mapping(Preset, data, str(path), complete=True)
    from_mapping(MiVLAConfig, {'spaces': ['joint14'], 'cameras': ['camera'], **preset.model},
                 f'preset {preset.name}: model')
    return preset


def load_recipe(name_or_path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """
    Read a training recipe by name or path: a YAML object of ``learn.recipe.Recipe``'s fields.

    :raises ConfigError: unknown (lists the valid ones), too big, not YAML.
    """
    path, data = _named('recipe', name_or_path, available_recipes())
    if not isinstance(data, dict):
        raise ConfigError(f'{path}: expected an object, got {type(data).__name__}')
    return data


def _named(kind: str, name_or_path: str | os.PathLike[str],
           known: Mapping[str, Path]) -> tuple[Path, Any]:
    """Return the file of a name, or the path given, and what is in it."""
    text = os.fspath(name_or_path)
    path = Path(text)
    if not text.endswith(('.yaml', '.yml')) and os.sep not in text:
        if text not in known:
            raise ConfigError(f'unknown {kind} {text!r}; known: {", ".join(known)}')
        path = known[text]
    return path, read_yaml(path, MAX_PRESET_BYTES, ConfigError, f'a {kind}')


def _bounded(name: str, value: int, low: int, high: int) -> None:
    """Raise ConfigError unless low <= value <= high."""
    if not low <= value <= high:
        raise ConfigError(f'{name} is {value}; expected {low} to {high}')


def _plain(value: Any) -> Any:
    """Return ``value`` with lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
