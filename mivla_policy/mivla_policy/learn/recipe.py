"""The training recipe: numbers only, read from a preset or from ``config/policies/recipes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mivla_policy.core.plain_data import from_mapping
from mivla_policy.errors import ConfigError

__all__ = ['Augmentation', 'Recipe']

SCHEDULES = ('cosine', 'constant')
PRECISIONS = ('float32', 'bfloat16')


@dataclass(frozen=True)
class Augmentation:
    """
    How pictures are varied while training; intensities are within [0, 1].

    :param shift: largest shift [px] per camera, in the order of the model's cameras; empty: none.
    :param gain: factor of all channels from 1 - gain to 1 + gain.
    :param channel_gain: the same per channel.
    :param channel_mix: part of each other channel that is added, from -mix to mix: hues turn, so
        that thirty rooms do not teach the network which colours a table has.
    :param contrast: the same about the picture's mean.
    :param offset: added, from -offset to offset.
    :param jitter: brightness, contrast, saturation and hue as a colour jitter has them: factors
        from 1 - x to 1 + x, and a turn of the hue of up to x of the circle; empty: none. H-RDT's
        are 0.3, 0.4, 0.5, 0.03.
    :param noise: largest standard deviation of noise added to every pixel.
    :param share: part of the pictures that ``jitter`` and ``noise`` touch; H-RDT's is 0.5.
    :param crop: largest part of height and width that is cut off; the rest is scaled up again.
    :param patches: most rectangles of one colour each that are laid over a picture, none as
        often as any other number (random erasing, arXiv 1708.04896): thirty tables do not show
        what else may stand on one.
    :param patch_size: largest side of one, as a part of the picture's.
    """

    shift: tuple[int, ...] = (1, 2)
    gain: float = 0.2
    channel_gain: float = 0.1
    channel_mix: float = 0.0
    contrast: float = 0.2
    offset: float = 0.1
    jitter: tuple[float, ...] = ()
    noise: float = 0.0
    share: float = 1.0
    crop: float = 0.0
    patches: int = 0
    patch_size: float = 0.25

    def __post_init__(self) -> None:
        """Raise ConfigError for values out of range."""
        if any(not 0 <= s <= 32 for s in self.shift):
            raise ConfigError(f'augmentation.shift is {list(self.shift)}; expected 0 to 32')
        for name in ('gain', 'channel_gain', 'channel_mix', 'contrast', 'offset', 'noise', 'crop'):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(
                    f'augmentation.{name} is {getattr(self, name)}; expected [0, 1)')
        if len(self.jitter) not in (0, 4) or not all(0.0 <= x < 1.0 for x in self.jitter) or (
                self.jitter and self.jitter[3] > 0.5):
            raise ConfigError(
                f'augmentation.jitter is {list(self.jitter)}; expected brightness, contrast and '
                'saturation in [0, 1) and hue in [0, 0.5], or nothing')
        for name in ('share', 'patch_size'):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f'augmentation.{name} is {getattr(self, name)}; expected (0, 1]')
        if not 0 <= self.patches <= 16:
            raise ConfigError(f'augmentation.patches is {self.patches}; expected 0 to 16')

    @classmethod
    def none(cls) -> Augmentation:
        """Return the augmentation that leaves pictures as they are."""
        return cls(shift=(), gain=0.0, channel_gain=0.0, contrast=0.0, offset=0.0)

    @property
    def varies(self) -> bool:
        """Whether it changes anything: features of frozen towers can be kept where it does not."""
        return any(self.shift) or any(self.jitter) or any(
            getattr(self, name) for name in ('gain', 'channel_gain', 'channel_mix', 'contrast',
                                             'offset', 'noise', 'crop', 'patches'))


@dataclass(frozen=True)
class Recipe:
    """
    How a policy is trained.

    :param learning_rate: highest, after the warm-up (AdamW).
    :param betas: of AdamW.
    :param weight_decay: of AdamW.
    :param schedule: 'cosine' to ``final_rate``, or 'constant', both after the warm-up.
    :param warm_up_steps: linear rise of the learning rate.
    :param final_rate: learning rate at the end of the cosine, as a part of the highest.
    :param gradient_clip: largest norm of the gradient.
    :param batch_size: observations per step, of all processes together.
    :param noise_samples: flow samples per observation and step.
    :param ema_decay: of the averaged weights, which are the result; 0: the last weights are.
    :param steps: length of the schedule, unless a time budget is given.
    :param precision: 'float32', or 'bfloat16' (autocast; weights and optimizer stay float32).
    :param train_vision: False: the network's own picture encoders stay as they are. The towers of
        'dinov2+siglip' are never trained.
    :param every_frame: learn from every frame of a bag; else from one per row of a chunk.
    :param tail_weight: weight in the loss of rows behind the end of a demonstration.
    :param kl_weight: of the divergence of ACT's latent from its prior.
    :param camera_dropout: part of the observations that go without a camera, per camera in the
        order of the model's cameras; empty: none. Never without all of them: one that drew that
        keeps them. It keeps a policy from leaning on one camera alone.
    :param holdout_episodes: episodes left out of training, for a loss on unseen data.
    :param holdout_every: steps between two looks at them.
    :param patience: looks without a better loss on them after which training ends, with the
        weights of the best look; 0: never.
    :param save_every: steps between two saves of what resumes the training; 0: never.
    :param augmentation: how pictures are varied.
    """

    learning_rate: float = 6e-4
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 1e-4
    schedule: str = 'cosine'
    warm_up_steps: int = 100
    final_rate: float = 0.02
    gradient_clip: float = 1.0
    batch_size: int = 32
    noise_samples: int = 2
    ema_decay: float = 0.995
    steps: int = 1000
    precision: str = 'float32'
    train_vision: bool = True
    every_frame: bool = False
    tail_weight: float = 1.0
    kl_weight: float = 10.0
    camera_dropout: tuple[float, ...] = ()
    holdout_episodes: int = 0
    holdout_every: int = 50
    patience: int = 0
    save_every: int = 500
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        """Raise ConfigError for values out of range."""
        positive = ('learning_rate', 'gradient_clip', 'batch_size', 'noise_samples', 'steps',
                    'holdout_every')
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected more than 0')
        for name in ('weight_decay', 'warm_up_steps', 'tail_weight', 'kl_weight',
                     'holdout_episodes', 'patience', 'save_every'):
            if getattr(self, name) < 0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected 0 or more')
        for name in ('final_rate', 'ema_decay'):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f'{name} is {getattr(self, name)}; expected [0, 1)')
        if not all(0.0 <= part < 1.0 for part in self.camera_dropout):
            raise ConfigError(f'camera_dropout is {list(self.camera_dropout)}; expected numbers '
                              'in [0, 1), one per camera')
        if len(self.betas) != 2 or not all(0.0 <= b < 1.0 for b in self.betas):
            raise ConfigError(f'betas is {list(self.betas)}; expected two numbers in [0, 1)')
        for name, known in (('schedule', SCHEDULES), ('precision', PRECISIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(f'{name} is {getattr(self, name)!r}; known: '
                                  f'{", ".join(map(repr, known))}')
        if self.patience and not self.holdout_episodes:
            raise ConfigError(f'patience is {self.patience} with holdout_episodes 0; an early '
                              'stop is decided on episodes left out')

    def check_cameras(self, count: int) -> None:
        """Raise ConfigError unless what is given per camera is given for ``count`` of them."""
        for name, entries in (('augmentation.shift', self.augmentation.shift),
                              ('camera_dropout', self.camera_dropout)):
            if entries and len(entries) != count:
                raise ConfigError(f'{name} has {len(entries)} entries for {count} cameras')

    @classmethod
    def from_preset(cls, training: Mapping[str, Any], where: str = 'training') -> Recipe:
        """Read the ``training`` part of a preset; unknown keys are errors."""
        return from_mapping(cls, training, where)
