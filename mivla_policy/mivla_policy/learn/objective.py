"""What a training minimizes: what the network sees, and the loss of what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn

from mivla_policy.core.instructions import instruction_tokens
from mivla_policy.learn.augment import apply
from mivla_policy.learn.dataset import TrainingSet
from mivla_policy.learn.recipe import Recipe
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.direct import Direct
from mivla_policy.model.mivla import MiVLA, Slots

__all__ = ['Batch', 'DirectObjective', 'FlowObjective', 'Objective', 'SEEN', 'Towers', 'VARY',
           'make_network', 'make_objective']

# Name -> tensor; every one begins with an axis of B observations, or of a multiple of B rows.
Batch = Mapping[str, Tensor]
# uint8 pictures (B, C, height, width, 3) -> features (B, C * tokens, F).
Towers = Callable[[Tensor], Tensor]

VARY = 'vary.'    # in front of the random numbers of ``augment.draw`` in a batch
SEEN = 'seen'     # bool (B, C) in a batch, False where an observation goes without a camera


class Objective(nn.Module):
    """
    A network and its loss on a batch.

    :param network: that is trained; parts that need no gradient stay as they are.
    :param data: whose words, space and cameras the batches have.
    :param towers: of a network that sees features; None where it sees pictures, or where the
        batches hold the features.
    """

    words: Tensor      # (sentences, L, width)
    mask: Tensor       # bool (sentences, L)
    slots: Tensor      # (A,), 1 where the robot has the slot
    cameras: Tensor    # bool (C,), True where the robot has the camera

    def __init__(self, network: nn.Module, data: TrainingSet, recipe: Recipe,
                 towers: Optional[Towers] = None) -> None:
        super().__init__()
        config: MiVLAConfig = network.config   # type: ignore[assignment]
        self.network, self.config, self.recipe = network, config, recipe
        words, mask = instruction_tokens(config.language, data.instructions)
        longest = int(np.flatnonzero(np.any(mask, axis=0)).max()) + 1
        slots = torch.zeros(config.action_width)
        slots[list(data.packed.slots)] = 1.0
        for name, value in (('words', torch.from_numpy(words[:, :longest])),
                            ('mask', torch.from_numpy(mask[:, :longest])), ('slots', slots),
                            ('cameras', torch.tensor([bool(r) for r in data.camera_roles]))):
            self.register_buffer(name, value, persistent=False)
        self.space, self._towers = data.packed.space, towers
        self._all_cameras = all(data.camera_roles)

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the random numbers that the loss of ``batch`` observations needs."""
        raise NotImplementedError

    def observation(self, batch: Batch) -> dict[str, Any]:
        """Return what the network sees: the keywords of ``encode_observation``."""
        sentence, count = batch['sentence'], len(batch['state'])
        cameras = batch.get(SEEN)
        if cameras is None and not self._all_cameras:
            cameras = self.cameras.expand(count, -1)
        return {
            'images': self._seen(batch), 'state': batch['state'],
            'language': self.words[sentence], 'language_mask': self.mask[sentence],
            'slots': Slots((self.space,) * count, self.slots.expand(count, -1)),
            'cameras': cameras}

    def _seen(self, batch: Batch) -> Tensor:
        """Return pictures, float (B, C, 3, height, width), or features (B, N, F)."""
        if 'features' in batch:
            return batch['features'].float()
        varied = {name[len(VARY):]: value for name, value in batch.items()
                  if name.startswith(VARY)}
        pictures = batch['pictures']
        # Colours need all their bits, and towers have a precision of their own.
        with torch.autocast(pictures.device.type, enabled=False):
            if self._towers is None:
                return apply(pictures, varied)
            if varied:
                pictures = (apply(pictures, varied) * 255.0).round_().to(torch.uint8)
                pictures = pictures.movedim(2, -1)
            return self._towers(pictures).float()

    def weight(self, batch: Batch) -> Tensor:
        """Return the weight (B, T) of each row of a chunk."""
        return torch.where(batch['inside'], 1.0, self.recipe.tail_weight)


class FlowObjective(Objective):
    """Flow matching: several noisy chunks per observation, which is looked at once."""

    network: MiVLA

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return noise (B * samples, T, A) and flow times (B * samples,)."""
        rows, config = batch * self.recipe.noise_samples, self.config
        return {'noise': torch.randn((rows, config.chunk, config.action_width),
                                     generator=generator),
                'time': torch.rand(rows, generator=generator) * config.time_max}

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        samples = len(batch['noise']) // len(batch['state'])
        context = self.network.encode_observation(**self.observation(batch)).repeat(samples)
        return self.network.loss(
            context, batch['action'].repeat_interleave(samples, dim=0), batch['noise'],
            batch['time'], self.weight(batch).repeat_interleave(samples, dim=0))


class DirectObjective(Objective):
    """Regression: the distance of the chunk that the network says from the demonstrated one."""

    network: Direct

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the noise (B, latent) of the network's latent; nothing where it has none."""
        latent = self.network.latent
        return {'latent': torch.randn((batch, latent), generator=generator)} if latent else {}

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        return self.network.loss(self.observation(batch), batch['action'], self.weight(batch),
                                 batch.get('latent'), self.recipe.kl_weight)


def make_network(config: MiVLAConfig) -> nn.Module:
    """Return a new network of the config's kind; draws from torch's default generator."""
    return MiVLA(config) if config.kind == 'mivla' else Direct.of(config)


def make_objective(network: nn.Module, data: TrainingSet, recipe: Recipe,
                   towers: Optional[Towers] = None) -> Objective:
    """Return the objective of a network's kind."""
    kind = FlowObjective if isinstance(network, MiVLA) else DirectObjective
    return kind(network, data, recipe, towers)
