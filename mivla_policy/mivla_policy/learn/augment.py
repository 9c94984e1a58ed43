"""
Variation of training pictures: where the camera points, and how bright the room is.

Drawing and doing are apart: all random numbers of a batch are a few hundred, drawn on the
processor from one generator; what they say is then done where the pictures are. Everything about
colour is one 3 x 3 matrix and one offset per picture, so it costs one pass however much of it is
asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mivla_policy.learn.recipe import Augmentation

__all__ = ['apply', 'augment', 'draw', 'shifted']

LUMA = (0.299, 0.587, 0.114)    # of ITU-R BT.601: what an eye sees of each channel
# Two axes of colour without brightness (YIQ): a turn in their plane turns the hue.
IN_PHASE, QUADRATURE = (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)

Variation = Mapping[str, Tensor]


def draw(settings: Augmentation, batch: int, cameras: int,
         generator: torch.Generator) -> dict[str, Tensor]:
    """
    Return the random numbers that vary a batch; every one starts with an axis of the batch.

    :param settings: ranges; ``shift`` has one entry per camera, or none.
    :param generator: of the processor; every draw comes from it.
    """
    numbers: dict[str, Tensor] = {}
    moves = torch.zeros((batch, cameras, 2), dtype=torch.long)
    for camera, limit in enumerate(settings.shift):
        if limit:
            moves[:, camera] = torch.randint(0, 2 * limit + 1, (batch, 2),
                                             generator=generator) - limit
    if any(settings.shift):
        numbers['shift'] = moves

    def around(center: float, spread: float, *shape: int) -> Tensor:
        drawn = torch.rand((batch, cameras, *shape), generator=generator)
        return center + spread * (2.0 * drawn - 1.0)

    numbers['contrast'] = around(1.0, settings.contrast, 1)
    numbers['gain'] = around(1.0, settings.gain, 1)
    numbers['gain'] = numbers['gain'] * around(1.0, settings.channel_gain, 3)
    numbers['mix'] = around(0.0, settings.channel_mix, 3, 3) * (1.0 - torch.eye(3))
    numbers['offset'] = around(0.0, settings.offset, 1)
    # What came later is drawn when it is asked for: older recipes give their numbers still.
    if settings.jitter or settings.noise:
        chosen = torch.rand((batch, cameras, 1), generator=generator) < settings.share
        if settings.jitter:
            for name, spread in zip(('brightness', 'spread', 'saturation'), settings.jitter):
                numbers[name] = torch.where(chosen, around(1.0, spread, 1), 1.0)
            numbers['hue'] = torch.where(chosen, around(0.0, settings.jitter[3], 1), 0.0)
        if settings.noise:
            amount = settings.noise * torch.rand((batch, cameras, 1), generator=generator)
            numbers['noise'] = torch.where(chosen, amount, 0.0)
            # Pixels are too many to draw here: where they are, from a seed of this generator.
            numbers['noise_seed'] = torch.randint(0, 2**31, (batch,), generator=generator)
    if settings.crop:
        size = 1.0 - settings.crop * torch.rand((batch, cameras, 1), generator=generator)
        place = 2.0 * torch.rand((batch, cameras, 2), generator=generator) - 1.0
        numbers['crop'] = torch.cat((size, place * (1.0 - size)), dim=-1)
    if settings.patches:
        numbers |= _patches(settings, batch, cameras, generator)
    return numbers


def _patches(settings: Augmentation, batch: int, cameras: int,
             generator: torch.Generator) -> dict[str, Tensor]:
    """Return centre and half sides of each patch (…, n, 4; y, x), and its colour (…, n, 3)."""
    shape = (batch, cameras, settings.patches)
    count = torch.randint(0, settings.patches + 1, shape[:2], generator=generator)
    half = 0.5 * settings.patch_size * torch.rand((*shape, 2), generator=generator)
    # What is not laid down has sides below nothing.
    laid = torch.arange(settings.patches)[:, None] < count[..., None, None]
    half = torch.where(laid, half, -1.0)
    return {'patch': torch.cat((torch.rand((*shape, 2), generator=generator), half), dim=-1),
            'patch_colour': torch.rand((*shape, 3), generator=generator)}


def shifted(pictures: NDArray[Any], moves: Tensor) -> NDArray[Any]:
    """
    Return pictures (B, C, height, width, 3) moved by ``moves`` (B, C, 2; y, x) px.

    The border is repeated. On the processor, where pictures are bytes: a quarter of the work.
    """
    limit = int(moves.abs().max())
    if not limit:
        return pictures
    height, width = pictures.shape[2:4]
    result = np.empty_like(pictures)
    for row, places in enumerate((moves + limit).tolist()):
        for camera, (y, x) in enumerate(places):
            padded = cv2.copyMakeBorder(pictures[row, camera], limit, limit, limit, limit,
                                        cv2.BORDER_REPLICATE)
            result[row, camera] = padded[y:y + height, x:x + width]
    return result


def apply(images: Tensor, numbers: Variation) -> Tensor:
    """
    Return varied pictures, float32 (B, C, 3, height, width) in [0, 1].

    :param images: uint8 (B, C, height, width, 3), already ``shifted``, or float of that layout in
        [0, 1].
    :param numbers: of ``draw``; empty: the pictures as they are.
    """
    batch, cameras, height, width, _ = images.shape
    scale = 1.0 / 255.0 if images.dtype == torch.uint8 else 1.0
    # One row per channel: (B * C, 3, height * width).
    flat = images.flatten(0, 1).movedim(-1, 1).to(torch.float32, memory_format=(
        torch.contiguous_format)).flatten(2)
    if 'contrast' in numbers:
        matrix, offset = _colour(flat, scale, {
            name: value.flatten(0, 1).to(flat.device) for name, value in numbers.items()
            if name not in ('shift', 'noise_seed', 'crop', 'patch', 'patch_colour')})
        flat = torch.baddbmm(offset[..., None], matrix, flat)
    else:
        flat = flat * scale
    if 'noise' in numbers:
        flat = flat + numbers['noise'].flatten().to(flat.device)[:, None, None] * _grain(
            numbers['noise_seed'], flat)
    flat = flat.clamp_(0.0, 1.0).view(batch * cameras, 3, height, width)
    if 'crop' in numbers:
        flat = _cropped(flat, numbers['crop'].flatten(0, 1).to(flat.device))
    if 'patch' in numbers:
        flat = _covered(flat, *(numbers[name].flatten(0, 1).to(flat.device)
                                for name in ('patch', 'patch_colour')))
    return flat.view(batch, cameras, 3, height, width)


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """
    Return varied pictures.

    :param images: (B, C, 3, height, width) in [0, 1], B batch and C cameras.
    """
    numbers = draw(settings, images.shape[0], images.shape[1], generator)
    pictures = images.movedim(-3, -1).contiguous()
    if 'shift' in numbers:
        pictures = torch.from_numpy(shifted(pictures.numpy(), numbers['shift']))
    return apply(pictures, numbers)


def _colour(flat: Tensor, scale: float, numbers: Variation) -> tuple[Tensor, Tensor]:
    """
    Return matrices (P, 3, 3) and offsets (P, 3): everything that is done to the colours.

    :param flat: (P, 3, pixels), times ``scale`` within [0, 1].
    """
    mean = flat.mean(dim=-1) * scale                                        # (P, 3)
    middle = mean.mean(dim=-1, keepdim=True)
    contrast, gain = numbers['contrast'], numbers['gain']
    mix = torch.eye(3, device=flat.device) + numbers['mix']
    matrix = gain[..., None] * mix * contrast[..., None]
    offset = gain * (mix.sum(dim=-1) * middle * (1.0 - contrast)) + numbers['offset']
    if 'hue' in numbers:
        more, shift = _jitter((matrix @ mean[..., None])[..., 0] + offset, numbers)
        matrix, offset = more @ matrix, (more @ offset[..., None])[..., 0] + shift
    return matrix * scale, offset


def _jitter(mean: Tensor, numbers: Variation) -> tuple[Tensor, Tensor]:
    """
    Return matrix (P, 3, 3) and offset (P, 3): brightness, contrast, saturation and hue in turn.

    :param mean: (P, 3) colour of the pictures.
    """
    luma = torch.tensor(LUMA, device=mean.device)
    grey = luma.expand(3, 3)                                                # rows: the luma
    identity = torch.eye(3, device=mean.device)
    brightness, spread = numbers['brightness'][..., None], numbers['spread'][..., None]
    saturation = numbers['saturation'][..., None]
    # Contrast is about the mean luma of the picture that brightness has left.
    centre = brightness[..., 0] * (mean @ luma)[:, None] * (1.0 - spread[..., 0])
    coloured = saturation * identity + (1.0 - saturation) * grey
    turned = _hue(numbers['hue'][:, 0])
    chain = turned @ coloured
    return chain * (brightness * spread), (chain.sum(dim=-1)) * centre


def _hue(turn: Tensor) -> Tensor:
    """Return matrices (P, 3, 3) that turn hues by parts ``turn`` (P,) of the circle."""
    to_yiq = torch.tensor((LUMA, IN_PHASE, QUADRATURE), device=turn.device)
    angle = 2.0 * math.pi * turn
    cosine, sine = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(turn), torch.ones_like(turn)
    rotation = torch.stack((one, zero, zero, zero, cosine, -sine, zero, sine, cosine),
                           dim=-1).view(-1, 3, 3)
    return torch.linalg.inv(to_yiq) @ rotation @ to_yiq


def _grain(seeds: Tensor, like: Tensor) -> Tensor:
    """Return standard normal numbers of the shape of ``like``, which is on any device."""
    generator = torch.Generator(device=like.device).manual_seed(int(seeds[0]))
    return torch.randn(like.shape, generator=generator, device=like.device)


def _cropped(pictures: Tensor, crop: Tensor) -> Tensor:
    """Return the windows ``crop`` (P, 3: size, x, y in [-1, 1]) of pictures, scaled up again."""
    zero = torch.zeros_like(crop[:, 0])
    window = torch.stack((crop[:, 0], zero, crop[:, 1], zero, crop[:, 0], crop[:, 2]),
                         dim=-1).view(-1, 2, 3)
    grid = functional.affine_grid(window, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode='border', align_corners=False)


def _covered(pictures: Tensor, patches: Tensor, colours: Tensor) -> Tensor:
    """Return pictures (P, 3, height, width) under patches (P, n, 4) of colours (P, n, 3)."""
    height, width = pictures.shape[2:]
    y = (torch.arange(height, device=pictures.device) + 0.5)[None, :, None] / height
    x = (torch.arange(width, device=pictures.device) + 0.5)[None, None, :] / width
    for patch, colour in zip(patches.unbind(1), colours.unbind(1)):
        at_y, at_x, half_y, half_x = patch[:, :, None, None].unbind(1)
        inside = ((y - at_y).abs() <= half_y) & ((x - at_x).abs() <= half_x)
        pictures = torch.where(inside[:, None], colour[:, :, None, None], pictures)
    return pictures
