"""
The MiVLA network: a diffusion transformer that turns one observation into a chunk of actions.

Read from top to bottom: layers, the block, the picture encoder, the network with its loss and its
sampler. Nothing here reads a file or a clock.

Shapes: B batch, T chunk, A action (= J joints), C cameras, N tokens, D width, H heads, K key and
value heads, E width of one head, L language tokens.

Structure after the H-RDT and MiVLA papers (arXiv 2507.23523, 2512.15411), written from their
descriptions. Flow time runs from noise (t = 0) to data (t = 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mivla_policy.model.config import MiVLAConfig, VisionConfig

__all__ = ['Context', 'MiVLA', 'pixels']


@dataclass(frozen=True)
class Context:
    """
    An observation as tokens: computed once per chunk, used in every step of the sampler.

    Keys and values of the cross-attention depend on this alone, so they can be cached here.

    :param state: (B, 1, D).
    :param image: (B, N, D).
    :param language: (B, L, D).
    :param language_mask: bool (B, L), True where there is a token.
    """

    state: Tensor
    image: Tensor
    language: Tensor
    language_mask: Tensor

    def repeat(self, times: int) -> Context:
        """Return each observation ``times`` times in a row: (B * times, ...)."""
        return Context(*(part.repeat_interleave(times, dim=0) for part in (
            self.state, self.image, self.language, self.language_mask)))


def pixels(images: Tensor) -> Tensor:
    """Turn uint8 (..., height, width, 3) into float (..., 3, height, width) within [0, 1]."""
    return images.movedim(-1, -3).contiguous().float() / 255.0


def mlp(inputs: int, width: int, layers: int) -> nn.Sequential:
    """Return ``layers`` linear layers with SiLU between them: inputs -> width -> ... -> width."""
    parts: list[nn.Module] = [nn.Linear(inputs, width)]
    for _ in range(layers - 1):
        parts += [nn.SiLU(), nn.Linear(width, width)]
    return nn.Sequential(*parts)


def sincos(positions: Tensor, width: int) -> Tensor:
    """Return cosines, then sines, of (...,) positions at geometric frequencies: (..., width)."""
    half = width // 2
    rates = torch.exp(-math.log(10000.0) / half * torch.arange(half, device=positions.device))
    angles = positions.float()[..., None] * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        full = x.float()
        scale = torch.rsqrt(full.square().mean(dim=-1, keepdim=True) + self.eps)
        return (full * scale).type_as(x) * self.weight


class Attention(nn.Module):
    """
    Attention with grouped keys and values, and with normalized queries and keys.

    Keys and values come from one matrix whose rows alternate: within a head, row 2i makes key
    component i and row 2i + 1 value component i (the layout of released H-RDT weights).
    """

    def __init__(self, config: MiVLAConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_width = config.width // config.heads
        self.wq = nn.Linear(config.width, config.width, bias=False)
        self.wkv = nn.Linear(config.width, 2 * self.kv_heads * self.head_width, bias=False)
        self.wo = nn.Linear(config.width, config.width, bias=False)
        self.norm_q = RMSNorm(self.head_width, config.norm_eps)
        self.norm_k = RMSNorm(self.head_width, config.norm_eps)

    def keys_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, H, N, E) of ``source`` (B, N, D)."""
        both = self.wkv(source).unflatten(-1, (self.kv_heads, self.head_width, 2))
        keys, values = both.transpose(1, 2).unbind(-1)         # (B, K, N, E) each
        shared = self.heads // self.kv_heads
        return (self.norm_k(keys).repeat_interleave(shared, dim=1),
                values.repeat_interleave(shared, dim=1))

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """
        Return (B, N, D): what ``x`` (B, N, D) gathers from keys and values (B, H, M, E).

        :param mask: bool (B, M), True where there is a token; None: everywhere.
        """
        queries = self.wq(x).unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(
            self.norm_q(queries), keys, values,
            attn_mask=None if mask is None else mask[:, None, None, :])
        return self.wo(seen.transpose(1, 2).flatten(-2))

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from ``x`` (B, N, D) to ``source`` (B, M, D)."""
        return self.attend(x, *self.keys_values(source), mask)


class SwiGLU(nn.Module):
    """Gated feed-forward layer without biases."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.silu(self.w1(x)) * self.w3(x))


class Modulation(nn.Module):
    """Shifts, scales and gates from the time embedding; all zero at the start of training."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """Return ``parts`` tensors (B, 1, D) from ``time`` (B, D)."""
        return self.linear(functional.silu(time))[:, None, :].chunk(self.parts, dim=-1)


class Block(nn.Module):
    """Self-attention, attention to the picture, attention to the instruction, feed-forward."""

    def __init__(self, config: MiVLAConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attn_norm = nn.LayerNorm(width, eps)
        self.attn = Attention(config)
        self.img_cross_norm = nn.LayerNorm(width, eps)
        self.img_cond_norm = nn.LayerNorm(width, eps)
        self.img_cross_attn = Attention(config)
        self.lang_cross_norm = nn.LayerNorm(width, eps)
        self.lang_cond_norm = nn.LayerNorm(width, eps)
        self.lang_cross_attn = Attention(config)
        self.ffn_norm = nn.LayerNorm(width, eps)
        self.ffn = SwiGLU(width, config.inner_width)
        self.modulation = Modulation(width, 9)

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        """Return (B, N, D) from tokens ``x`` (B, N, D) and time embedding ``time`` (B, D)."""
        (shift_a, scale_a, gate_a, shift_c, scale_c, gate_c,
         shift_f, scale_f, gate_f) = self.modulation(time)
        own = self.attn_norm(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.attn(own, own)
        seen = self.img_cond_norm(context.image)
        x = x + gate_c * self.img_cross_attn(
            self.img_cross_norm(x) * (1 + scale_c) + shift_c, seen)
        # The instruction is neither modulated nor gated: it matters at every flow time.
        told = self.lang_cond_norm(context.language)
        x = x + self.lang_cross_attn(self.lang_cross_norm(x), told, context.language_mask)
        return x + gate_f * self.ffn(self.ffn_norm(x) * (1 + scale_f) + shift_f)


class ActionDecoder(nn.Module):
    """From tokens to velocities of the action; zero at the start of training."""

    def __init__(self, width: int, actions: int, eps: float) -> None:
        super().__init__()
        self.ffn_norm = nn.LayerNorm(width, eps)
        self.modulation = Modulation(width, 2)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, actions)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return (B, N, A) from tokens (B, N, D) and time embedding (B, D)."""
        shift, scale = self.modulation(time)
        return self.fc2(functional.silu(self.fc1(self.ffn_norm(x) * (1 + scale) + shift)))


class KeypointEncoder(nn.Module):
    """
    One camera's picture -> one token of where things are.

    Each keypoint is the expected position under a softmax over the map: 'where' comes out as two
    numbers. With a few hundred training steps attention over a grid of tokens did not learn to
    look at all.
    """

    def __init__(self, config: VisionConfig, width: int) -> None:
        super().__init__()
        first, second, third = config.channels
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 6, stride=4, padding=1), nn.GroupNorm(8, first), nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1), nn.GroupNorm(8, second), nn.ReLU(),
            nn.Conv2d(second, third, 3, padding=1), nn.GroupNorm(8, third), nn.ReLU())
        self.heat = nn.Conv2d(third, config.keypoints, 1)
        self.log_sharpness = nn.Parameter(torch.tensor(config.log_sharpness))
        self.token = nn.Linear(2 * config.keypoints, width)
        # Keypoints differ between pictures by about a tenth of their range: make that a token of
        # the size of the position embedding beside it.
        nn.init.normal_(self.token.weight, std=1.0)
        nn.init.zeros_(self.token.bias)

    def keypoints(self, picture: Tensor) -> Tensor:
        """Return (B, keypoints, 2): x and y in [-1, 1] from (B, 3, height, width) in [0, 1]."""
        heat = self.heat(self.features(picture * 2.0 - 1.0))
        rows, columns = heat.shape[-2:]
        weight = (heat.flatten(-2) * self.log_sharpness.exp()).softmax(dim=-1).view_as(heat)
        x = torch.linspace(-1.0, 1.0, columns, device=heat.device, dtype=heat.dtype)
        y = torch.linspace(-1.0, 1.0, rows, device=heat.device, dtype=heat.dtype)
        return torch.stack((weight.sum(-2) @ x, weight.sum(-1) @ y), dim=-1)

    def forward(self, picture: Tensor) -> Tensor:
        """Return (B, 1, D)."""
        return self.token(self.keypoints(picture).flatten(1))[:, None, :]


class MiVLA(nn.Module):
    """The policy network. ``encode_observation`` once per chunk, ``velocity`` once per step."""

    def __init__(self, config: MiVLAConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.image_encoders = nn.ModuleList(
            KeypointEncoder(config.vision, width) for _ in config.cameras)
        self.language_adapter = mlp(config.language.width, width, 2)
        self.state_adapter = mlp(config.joints, width, 3)
        self.action_adapter = mlp(config.joints, width, 3)
        self.time_embedder = mlp(config.time_features, width, 2)
        self.token_position = nn.Parameter(torch.zeros(1, 1 + config.chunk, width))
        self.image_position = nn.Parameter(torch.zeros(1, len(config.cameras), width))
        self.language_position = nn.Parameter(torch.zeros(1, config.language.max_tokens, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.decoder = ActionDecoder(width, config.joints, config.norm_eps)
        self.initialize()

    def initialize(self) -> None:
        """Set the weights before training; draws from torch's default generator."""
        width = self.config.width
        for module in (self.blocks, self.decoder):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        # Inputs must weigh as much as the position embeddings beside them: with torch's default
        # they came out ten times smaller, and the first hundreds of steps went into growing them.
        for adapter in (self.language_adapter, self.state_adapter, self.action_adapter,
                        self.time_embedder):
            for layer in adapter:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=(2.0 / layer.in_features) ** 0.5)
                    nn.init.zeros_(layer.bias)
        # Blocks start without self-attention, picture and feed-forward, and the output at zero
        # (adaLN-Zero of the DiT paper): the first gradients reach the decoder.
        for layer in self.modules():
            if isinstance(layer, Modulation):
                nn.init.zeros_(layer.linear.weight)
                nn.init.zeros_(layer.linear.bias)
        nn.init.zeros_(self.decoder.fc2.weight)
        nn.init.zeros_(self.decoder.fc2.bias)
        with torch.no_grad():
            kinds = sincos(torch.tensor([0] + [1] * self.config.chunk), width)
            steps = sincos(torch.arange(self.config.chunk), width)
            self.token_position.copy_(kinds)
            self.token_position[:, 1:] += steps
            self.image_position.copy_(sincos(torch.arange(len(self.config.cameras)), width))

    def encode_observation(self, images: Tensor, state: Tensor, language: Tensor,
                           language_mask: Tensor) -> Context:
        """
        Turn observations into tokens.

        :param images: (B, C, 3, height, width) in [0, 1], cameras in the order of the config.
        :param state: (B, J), normalized.
        :param language: (B, L, width of language tokens), L up to ``max_tokens``.
        :param language_mask: bool (B, L), True where there is a token.
        """
        seen = [encoder(images[:, i]) for i, encoder in enumerate(self.image_encoders)]
        return Context(
            state=self.state_adapter(state)[:, None, :],                        # (B, 1, D)
            image=torch.cat(seen, dim=1) + self.image_position,                 # (B, N, D)
            language=self.language_adapter(language)                            # (B, L, D)
            + self.language_position[:, :language.shape[1]],
            language_mask=language_mask)

    def velocity(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Return the velocity (B, T, A) at noisy actions ``x`` (B, T, A), times ``t`` (B,)."""
        angles = sincos(t * self.config.time_scale, self.config.time_features)
        time = self.time_embedder(angles.to(x.dtype))                       # (B, D)
        tokens = torch.cat((context.state, self.action_adapter(x)), dim=1)  # (B, 1 + T, D)
        tokens = tokens + self.token_position
        for block in self.blocks:
            tokens = block(tokens, time, context)
        return self.decoder(tokens, time)[:, -self.config.chunk:]

    def loss(self, context: Context, actions: Tensor, noise: Tensor, t: Tensor,
             weight: Tensor | None = None) -> Tensor:
        """
        Return the flow-matching loss: mean square error of the velocity.

        :param actions: (B, T, A), normalized.
        :param noise: (B, T, A), standard normal.
        :param t: (B,), from [0, time_max).
        :param weight: (B, T) of each row; None: all 1.
        """
        s = t[:, None, None]
        predicted = self.velocity(s * actions + (1.0 - s) * noise, t, context)
        error = (predicted - (actions - noise)).square().mean(dim=-1)  # (B, T)
        if weight is None:
            return error.mean()
        return (error * weight).sum() / weight.sum()

    @torch.no_grad()
    def sample(self, context: Context, noise: Tensor) -> Tensor:
        """
        Return actions (B, T, A), normalized, by Euler steps from ``noise`` (B, T, A).

        The same noise gives the same actions.
        """
        x, dt = noise, 1.0 / self.config.steps
        for step in range(self.config.steps):
            t = torch.full((len(x),), step * dt, device=x.device, dtype=x.dtype)
            x = x + dt * self.velocity(x, t, context)
        return x
