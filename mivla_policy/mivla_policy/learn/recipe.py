"""The training recipe: numbers only, read from the ``training`` part of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mivla_policy.errors import ConfigError
from mivla_policy.model.config import from_mapping

__all__ = ['Augmentation', 'Recipe']


@dataclass(frozen=True)
class Augmentation:
    """
    How pictures are varied while training; intensities are within [0, 1].

    :param shift: largest shift [px] per camera, in the order of the model's cameras.
    :param gain: factor of all channels from 1 - gain to 1 + gain.
    :param channel_gain: the same per channel.
    :param channel_mix: part of each other channel that is added, from -mix to mix: hues turn, so
        that thirty rooms do not teach the network which colours a table has.
    :param contrast: the same about the picture's mean.
    :param offset: added, from -offset to offset.
    """

    shift: tuple[int, ...] = (1, 2)
    gain: float = 0.2
    channel_gain: float = 0.1
    channel_mix: float = 0.0
    contrast: float = 0.2
    offset: float = 0.1

    def __post_init__(self) -> None:
        """Raise ConfigError for values out of range."""
        if any(not 0 <= s <= 32 for s in self.shift):
            raise ConfigError(f'augmentation.shift is {list(self.shift)}; expected 0 to 32')
        for name in ('gain', 'channel_gain', 'channel_mix', 'contrast', 'offset'):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f'augmentation.{name} is {getattr(self, name)}; expected [0, 1)')


@dataclass(frozen=True)
class Recipe:
    """
    How a policy is trained.

    :param learning_rate: highest, after the warm-up (AdamW).
    :param betas: of AdamW.
    :param weight_decay: of AdamW.
    :param warm_up_steps: linear rise of the learning rate.
    :param final_rate: learning rate at the end of the cosine, as a part of the highest.
    :param gradient_clip: largest norm of the gradient.
    :param batch_size: observations per step.
    :param noise_samples: flow samples per observation and step.
    :param ema_decay: of the averaged weights, which are the result.
    :param steps: length of the schedule, unless a time budget is given.
    :param every_frame: learn from every frame of a bag; else from one per row of a chunk.
    :param tail_weight: weight in the loss of rows behind the end of a demonstration.
    :param holdout_episodes: episodes left out of training, for a loss on unseen data.
    :param augmentation: how pictures are varied.
    """

    learning_rate: float = 6e-4
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 1e-4
    warm_up_steps: int = 100
    final_rate: float = 0.02
    gradient_clip: float = 1.0
    batch_size: int = 32
    noise_samples: int = 2
    ema_decay: float = 0.995
    steps: int = 1000
    every_frame: bool = False
    tail_weight: float = 1.0
    holdout_episodes: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Raise ConfigError for values out of range."""
        positive = ('learning_rate', 'gradient_clip', 'batch_size', 'noise_samples', 'steps')
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected more than 0')
        for name in ('weight_decay', 'warm_up_steps', 'tail_weight', 'holdout_episodes'):
            if getattr(self, name) < 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 0 or more')
        for name in ('final_rate', 'ema_decay'):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected [0, 1)')
        if len(self.betas) != 2 or not all(0.0 <= b < 1.0 for b in self.betas):
            raise ConfigError(f'betas is {list(self.betas)}; expected two numbers in [0, 1)')

    @classmethod
    def from_preset(cls, training: Mapping[str, Any], where: str = 'training') -> Recipe:
        """Read the ``training`` part of a preset; unknown keys are errors."""
        return from_mapping(cls, training, where)
