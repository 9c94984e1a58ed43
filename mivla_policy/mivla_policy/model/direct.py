"""
Networks that say a chunk at once: the baselines that MiVLA is compared with.

``ACT`` is the action chunking transformer of the paper of that name (arXiv 2304.13705), written
from its description: a conditional variational autoencoder whose encoder sees the demonstrated
chunk in training and whose latent is zero afterwards; an encoder over [latent, state, pictures,
instruction]; a decoder of one layer from one query per row; the absolute distance as its loss.
Otherwise than there, pictures are the same keypoint tokens as in MiVLA's ``tiny`` in place of a
ResNet's map, the instruction is seen, actions are relative to the state, and nothing is dropped
out. ``BehaviourCloning`` is the floor: one perceptron from the same tokens to the chunk, with the
square of the distance.

Shapes as in ``model.mivla``: B batch, T chunk, A slots, C cameras, D width, L language tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from mivla_policy.core.packing import space_size
from mivla_policy.errors import ConfigError
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.mivla import (
    KeypointEncoder,
    SlotAdapter,
    Slots,
    by_space,
    draw_normal,
    mlp,
    sincos,
)

__all__ = ['ACT', 'BehaviourCloning', 'Direct']


class Head(nn.Module):
    """From (..., D) to the slots of a space, padded with 0 to those of the widest."""

    def __init__(self, width: int, slots: int, rows: int, padded: int) -> None:
        super().__init__()
        self.rows, self.padding = rows, padded - slots
        self.linear = nn.Linear(width, rows * slots)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, A) from (B, T, D), or from (B, D) where one token says all rows."""
        out = self.linear(x)
        if self.rows > 1:
            out = out.unflatten(-1, (self.rows, -1))
        return functional.pad(out, (0, self.padding))


class Direct(nn.Module):
    """
    What the baselines share: an observation as tokens, and a loss on a chunk.

    :param latent: numbers of noise that the loss needs per observation.
    """

    latent = 0

    def __init__(self, config: MiVLAConfig) -> None:
        """Raise ConfigError for pictures that it has no encoder for."""
        super().__init__()
        if config.vision.kind != 'keypoints':
            raise ConfigError(f'a network of kind {config.kind!r} sees pictures of kind '
                              f"'keypoints', not {config.vision.kind!r}")
        self.config = config
        width, vision = config.width, config.vision
        self.image_encoders = nn.ModuleList(
            KeypointEncoder(vision, width) for _ in config.cameras)
        self.language_adapter = mlp(config.language.width, width, 2)
        self.state_adapters = nn.ModuleDict(
            {space: SlotAdapter(space_size(space), width) for space in config.spaces})
        for first in self.state_adapters.values():
            # A single arm fills half of the slots; the others stay 0 and carry no variance.
            weight = next(first.parameters())
            draw_normal(weight, std=(4.0 / weight.shape[1]) ** 0.5)

    @classmethod
    def of(cls, config: MiVLAConfig) -> Direct:
        """Return a new network of the config's kind."""
        kinds: dict[str, type[Direct]] = {'act': ACT, 'bc': BehaviourCloning}
        if config.kind not in kinds:
            raise ConfigError(f'no baseline of kind {config.kind!r}; known: {", ".join(kinds)}')
        return kinds[config.kind](config)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return tokens (B, C, D) of pictures (B, C, 3, height, width) in [0, 1]."""
        return torch.cat([encoder(images[:, i])
                          for i, encoder in enumerate(self.image_encoders)], dim=1)

    def tokens(self, images: Tensor, state: Tensor, language: Tensor, language_mask: Tensor,
               slots: Slots, cameras: Optional[Tensor] = None) -> tuple[Tensor, Tensor]:
        """
        Return tokens (B, 1 + C + L, D), state first, and bool (B, 1 + C + L) where there is one.

        Arguments are those of ``MiVLA.encode_observation``.
        """
        seen = self.encode_image(images)
        own = by_space(self.state_adapters, slots, state * slots.mask)[:, None, :]
        here = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
        there = torch.cat((here[:, :1], here if cameras is None else cameras, language_mask), 1)
        return torch.cat((own, seen, self.language_adapter(language)), dim=1), there

    def predict(self, observation: Mapping[str, Any]) -> Tensor:
        """Return the chunk (B, T, A), normalized, for an observation as ``tokens`` takes it."""
        raise NotImplementedError

    def loss(self, observation: Mapping[str, Any], actions: Tensor, weight: Tensor,
             noise: Optional[Tensor], kl_weight: float) -> Tensor:
        """
        Return the loss.

        :param actions: (B, T, A), normalized, as demonstrated.
        :param weight: (B, T) of each row.
        :param noise: (B, latent), standard normal, where the network has a latent.
        :param kl_weight: of the latent's divergence.
        """
        raise NotImplementedError


def mean_error(error: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of (B, T, A) over the slots there are (B, A)."""
    rows = (error * mask[:, None, :]).sum(dim=-1) / mask.sum(dim=-1)[:, None]
    return (rows * weight).sum() / weight.sum()


class BehaviourCloning(Direct):
    """One perceptron from state, pictures and the mean word to all rows of the chunk."""

    def __init__(self, config: MiVLAConfig) -> None:
        super().__init__(config)
        width = config.width
        inner = config.inner_width
        layers: list[nn.Module] = [nn.Linear((2 + len(config.cameras)) * width, inner), nn.SiLU()]
        for _ in range(config.depth - 1):
            layers += [nn.Linear(inner, inner), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({
            space: Head(inner, space_size(space), config.chunk, config.action_width)
            for space in config.spaces})

    def predict(self, observation: Mapping[str, Any]) -> Tensor:
        """See ``Direct.predict``."""
        tokens, there = self.tokens(**observation)
        # A camera that is not there says nothing, and words are as many as they are.
        tokens = tokens * there[..., None]
        fixed = 1 + len(self.config.cameras)
        words = tokens[:, fixed:].sum(dim=1) / there[:, fixed:].sum(dim=1).clamp(min=1)[:, None]
        slots = observation['slots']
        seen = torch.cat((tokens[:, :fixed].flatten(1), words), dim=-1)
        return by_space(self.heads, slots, self.trunk(seen)) * slots.mask[:, None, :]

    def loss(self, observation: Mapping[str, Any], actions: Tensor, weight: Tensor,
             noise: Optional[Tensor], kl_weight: float) -> Tensor:
        """Return the mean square distance: see ``Direct.loss``."""
        error = (self.predict(observation) - actions).square()
        return mean_error(error, observation['slots'].mask, weight)


class ACT(Direct):
    """A conditional variational autoencoder of chunks, with transformers for both halves."""

    def __init__(self, config: MiVLAConfig) -> None:
        super().__init__(config)
        width, self.latent = config.width, config.latent
        self.posterior_adapters = nn.ModuleDict(
            {space: SlotAdapter(space_size(space), width) for space in config.spaces})
        self.posterior = self._encoder()
        self.posterior_token = nn.Parameter(torch.zeros(1, 1, width))
        self.posterior_out = nn.Linear(width, 2 * config.latent)
        self.latent_in = nn.Linear(config.latent, width)
        self.encoder = self._encoder()
        self.decoder = nn.TransformerDecoderLayer(
            width, config.heads, config.inner_width, dropout=0.0, batch_first=True)
        self.norm = nn.LayerNorm(width, config.norm_eps)
        places = 2 + len(config.cameras) + config.language.max_tokens
        self.memory_position = nn.Parameter(sincos(torch.arange(places), width)[None])
        self.query = nn.Parameter(sincos(torch.arange(config.chunk), width)[None])
        self.heads = nn.ModuleDict({
            space: Head(width, space_size(space), 1, config.action_width)
            for space in config.spaces})

    def _encoder(self) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(nn.TransformerEncoderLayer(
            config.width, config.heads, config.inner_width, dropout=0.0, batch_first=True)
            for _ in range(config.depth))

    def predict(self, observation: Mapping[str, Any]) -> Tensor:
        """Return the chunk of the latent 0, the middle of its prior: see ``Direct.predict``."""
        state = observation['state']
        return self._decode(observation, *self.tokens(**observation),
                            state.new_zeros(len(state), self.latent))

    def loss(self, observation: Mapping[str, Any], actions: Tensor, weight: Tensor,
             noise: Optional[Tensor], kl_weight: float) -> Tensor:
        """Return the mean absolute distance and the latent's divergence: see ``Direct.loss``."""
        assert noise is not None
        tokens, there = self.tokens(**observation)
        mean, log_variance = self._posterior(tokens[:, :1], actions, observation['slots'])
        chosen = mean + (0.5 * log_variance).exp() * noise
        error = (self._decode(observation, tokens, there, chosen) - actions).abs()
        divergence = -0.5 * (1.0 + log_variance - mean.square() - log_variance.exp()).sum(-1)
        return mean_error(error, observation['slots'].mask, weight) + (
            kl_weight * divergence.mean())

    def _posterior(self, state: Tensor, actions: Tensor, slots: Slots) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance (B, latent) of the latent of demonstrated chunks."""
        rows = by_space(self.posterior_adapters, slots, actions * slots.mask[:, None, :])
        x = torch.cat((self.posterior_token.expand(len(state), -1, -1), state, rows), dim=1)
        x = x + sincos(torch.arange(x.shape[1], device=x.device), self.config.width)
        for layer in self.posterior:
            x = layer(x)
        mean, log_variance = self.posterior_out(x[:, 0]).chunk(2, dim=-1)
        return mean, log_variance

    def _decode(self, observation: Mapping[str, Any], tokens: Tensor, there: Tensor,
                latent: Tensor) -> Tensor:
        """Return the chunk (B, T, A) of an observation and a latent."""
        memory = torch.cat((self.latent_in(latent)[:, None, :], tokens), dim=1)
        memory = memory + self.memory_position[:, :memory.shape[1]]
        absent = functional.pad(~there, (1, 0))
        for layer in self.encoder:
            memory = layer(memory, src_key_padding_mask=absent)
        rows = self.norm(self.decoder(self.query.expand(len(latent), -1, -1), memory,
                                      memory_key_padding_mask=absent))
        slots = observation['slots']
        return by_space(self.heads, slots, rows) * slots.mask[:, None, :]
