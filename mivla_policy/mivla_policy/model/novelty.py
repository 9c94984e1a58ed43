"""What a checkpoint knows of its demonstrations: measured in training, read to serve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from mivla_policy.core.familiar import Familiar
from mivla_policy.core.novelty import SAMPLES, disagreement
from mivla_policy.core.packing import SlotMap
from mivla_policy.errors import CheckpointError
from mivla_policy.model.engine import Engine, Memory

__all__ = ['FILE', 'disagreements', 'distances', 'embed', 'read_familiar', 'save_familiar']

FILE = 'novelty.safetensors'
MAX_BYTES = 256 << 20
# Beside the seed of a query, so that these draws are not those of its answer.
_OTHERS = 1


def embed(tokens: Tensor, cameras: int) -> NDArray[np.float64]:
    """Return embeddings (B, C * D): the mean token of each camera of image tokens (B, N, D)."""
    rows, _, width = tokens.shape
    parts = tokens.detach().float().reshape(rows, cameras, -1, width).mean(dim=2).flatten(1)
    return parts.cpu().numpy().astype(np.float64)


def distances(known: Mapping[str, Familiar], hashes: Sequence[str], tokens: Tensor,
              cameras: int) -> list[float]:
    """
    Return how far observations are from the demonstrations, in parts of the limit.

    :param known: by profile hash.
    :param hashes: of the B robots.
    :param tokens: of their pictures (B, N, D).
    :return: B numbers; NaN where nothing is known of a robot.
    """
    out = [math.nan] * len(hashes)
    if known:
        embeddings = embed(tokens, cameras)
        for row, key in enumerate(hashes):
            if key in known:
                out[row] = float(known[key].novelty(embeddings[row:row + 1])[0])
    return out


def disagreements(engine: Engine, memory: Memory, packed: Sequence[SlotMap],
                  seeds: Sequence[int], steps: int = 0) -> NDArray[np.float64]:
    """
    Return how far apart several answers to each observation are (B,), normalized.

    They are drawn beside the one that the robot is given and follow the free flow, whatever that
    one is pulled to: so they are what they were when the limit was calibrated.

    :param memory: of B observations.
    :param packed: where the joints of the B robots stand.
    :param seeds: of the B queries.
    :param steps: of the sampler; 0: the network's.
    """
    config = engine.config
    noise = np.concatenate([
        slots.spread(np.random.default_rng((seed, _OTHERS)).standard_normal(
            (SAMPLES, config.chunk, len(slots.slots))), config.action_width)
        for slots, seed in zip(packed, seeds, strict=True)])
    actions = engine.denoise(memory.repeat(SAMPLES), torch.from_numpy(noise), steps)
    rows = actions.float().cpu().numpy().reshape(
        len(packed), SAMPLES, config.chunk, config.action_width)
    return np.concatenate([disagreement(slots.gather(rows[i:i + 1]))
                           for i, slots in enumerate(packed)])


def save_familiar(folder: Path, known: dict[str, Familiar]) -> None:
    """Write what is familiar beside a checkpoint, by profile hash."""
    tensors = {name: value for key, one in known.items()
               for name, value in one.tensors(f'{key}.').items()}
    save_file(tensors, folder / FILE)


def read_familiar(folder: Path) -> dict[str, Familiar]:
    """
    Read what ``save_familiar`` wrote: by profile hash; nothing where there is no such file.

    :raises CheckpointError: damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return {}
    if file.stat().st_size > MAX_BYTES:
        raise CheckpointError(f'{file}: larger than {MAX_BYTES} bytes')
    try:
        with safe_open(file, framework='numpy') as content:
            tensors = {name: content.get_tensor(name)
                       for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{file}: damaged: {error}') from error
    try:
        return {key: Familiar.from_tensors(tensors, f'{key}.')
                for key in dict.fromkeys(name.partition('.')[0] for name in tensors)}
    except CheckpointError as error:
        raise CheckpointError(f'{file}: {error}') from error
