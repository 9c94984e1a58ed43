"""What frozen towers say of the training pictures, computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mivla_policy.learn.dataset import TrainingSet, room
from mivla_policy.learn.devices import Devices
from mivla_policy.learn.objective import Towers
from mivla_policy.model.config import MiVLAConfig

__all__ = ['feature_table', 'training_towers']

AT_ONCE = 8     # samples per pass


def training_towers(folder: Path, config: MiVLAConfig) -> Towers:
    """
    Return the frozen towers on the device that this process trains on.

    :param folder: of both.
    :raises CheckpointError: a tower is absent, damaged or another one.
    """
    # transformers is slow to import, and small policies do without.
    from mivla_policy.model.vision import load_towers
    device = Devices().device
    kind = torch.float32 if device.type == 'cpu' else torch.bfloat16
    return load_towers(folder, config.vision, kind, device)


def feature_table(data: TrainingSet, config: MiVLAConfig, towers: Towers,
                  device: torch.device, cache: Path | None = None) -> NDArray[np.uint16]:
    """
    Return the features of every sample: bfloat16 numbers, held as uint16.

    In bfloat16, as towers and trunk exchange them on a GPU; 19 MB per sample of three cameras at
    384 px, so they go into a file where they do not fit into memory.

    :param towers: pictures to features.
    :param cache: folder of that file.
    :return: (N, C * tokens, F).
    """
    table = room((len(data), config.image_tokens, config.vision.feature_width), np.uint16, cache)
    for first in range(0, len(data), AT_ONCE):
        pictures = torch.from_numpy(data.images[first:first + AT_ONCE]).to(device)
        features = towers(pictures).to('cpu', torch.bfloat16)
        table[first:first + AT_ONCE] = features.view(torch.uint16).numpy()
    return table
