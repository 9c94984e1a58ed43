"""Variation of training pictures: where the camera points, and how bright the room is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mivla_policy.learn.recipe import Augmentation

__all__ = ['augment']


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """
    Return varied pictures.

    :param images: (B, C, 3, height, width) in [0, 1], B batch and C cameras.
    :param settings: ranges; ``shift`` has one entry per camera.
    :param generator: every draw comes from it.
    """
    batch, cameras = images.shape[:2]
    shifted = torch.stack([
        _shift(images[:, c], settings.shift[c], generator) for c in range(cameras)], dim=1)

    def around(center: float, spread: float, *channels: int) -> Tensor:
        draw = torch.rand((batch, cameras, *(channels or (1,)), 1, 1), generator=generator)
        return center + spread * (2.0 * draw - 1.0)

    mean = shifted.mean(dim=(-3, -2, -1), keepdim=True)
    contrasted = (shifted - mean) * around(1.0, settings.contrast) + mean
    gain = around(1.0, settings.gain) * around(1.0, settings.channel_gain, 3)
    mix = around(0.0, settings.channel_mix, 3, 3)[..., 0, 0] * (1.0 - torch.eye(3))
    mixed = contrasted + torch.einsum('bcij,bcjhw->bcihw', mix, contrasted)
    return (mixed * gain + around(0.0, settings.offset)).clamp_(0.0, 1.0)


def _shift(images: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Move each of (B, 3, height, width) by up to ``limit`` px, repeating the border."""
    if limit == 0:
        return images
    height, width = images.shape[-2:]
    padded = functional.pad(images, (limit, limit, limit, limit), mode='replicate')
    offsets: Sequence[Sequence[int]] = torch.randint(
        0, 2 * limit + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([picture[:, y:y + height, x:x + width]
                        for picture, (y, x) in zip(padded, offsets, strict=True)])
