"""What is familiar to a policy: for its warning at run time, measured after its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Episode
from mivla_policy.core.familiar import BELOW, MOST, Familiar
from mivla_policy.core.instructions import instruction_tokens
from mivla_policy.core.normalize import Normalizer
from mivla_policy.errors import CheckpointError, EpisodeError
from mivla_policy.learn.dataset import TrainingSet, build_training_set
from mivla_policy.learn.objective import Towers
from mivla_policy.model.checkpoint import embodiment_for, load_network
from mivla_policy.model.config import MiVLAConfig
from mivla_policy.model.direct import Direct
from mivla_policy.model.engine import Engine, EngineSettings, Sentence
from mivla_policy.model.mivla import MiVLA, Slots, pixels
from mivla_policy.model.novelty import disagreements, embed, read_familiar, save_familiar

__all__ = ['calibrate', 'doubt_of', 'familiar_of']

AT_ONCE = 64
# Held-out observations below which a quantile of them says nothing, and beyond which it hardly
# moves: a large network takes seconds for each.
FEWEST, ENOUGH = 50, 400


@torch.no_grad()
def familiar_of(network: nn.Module, data: TrainingSet, towers: Towers | None = None,
                ) -> Familiar | None:
    """
    Return what a network's picture encoder makes of its demonstrations; None of a single one.

    :param network: trained, on the processor.
    :param towers: of a network that sees features.
    """
    rows = np.linspace(0, len(data) - 1, min(MOST, len(data))).astype(int)
    try:
        return Familiar.of(_embeddings(network, data, rows, towers), data.episode[rows])
    except EpisodeError:
        return None


@torch.no_grad()
def doubt_of(network: nn.Module, normalizer: Normalizer, data: TrainingSet,
             rows: NDArray[np.int64], towers: Towers | None = None,
             device: str = 'cpu') -> float | None:
    """
    Return the disagreement of a network's answers that unseen demonstrations keep below.

    On demonstrations that it has learned from its answers agree more than they will again.

    :param network: trained, on the processor.
    :param rows: of demonstrations that it has not learned from.
    :param device: where the answers are drawn.
    :return: a quantile of them (``core.familiar.BELOW``); None where the network gives one answer
        alone, or for too few rows.
    """
    if not isinstance(network, MiVLA) or len(rows) < FEWEST:
        return None
    rows = rows[np.linspace(0, len(rows) - 1, min(ENOUGH, len(rows))).astype(int)]
    # In the precision in which it is served there.
    dtype = 'float32' if torch.device(device).type == 'cpu' else 'bfloat16'
    config, packed = network.config, data.packed
    engine = Engine(network, EngineSettings(device=device, dtype=dtype))
    words, mask = instruction_tokens(config.language, data.instructions)
    said = [Sentence(text, torch.from_numpy(words[k][mask[k]]))
            for k, text in enumerate(data.instructions)]
    there = torch.tensor([bool(role) for role in data.camera_roles])
    found = []
    for some in _blocks(rows):
        states = packed.spread(normalizer.state_in(data.states[some]), config.action_width)
        slots = Slots((packed.space,) * len(some), torch.from_numpy(packed.spread(
            np.ones((len(some), len(packed.slots))), config.action_width)).float())
        scene = engine.look(
            _seen(data, some, towers), torch.from_numpy(states),
            [said[k] for k in data.instruction[some]], slots, there.expand(len(some), -1))
        found.append(disagreements(engine, engine.remember(scene), [packed] * len(some),
                                   some.tolist()))
    return max(float(np.quantile(np.concatenate(found), BELOW)), 1e-9)


def calibrate(checkpoint: Path, profile: RobotProfile, episodes: Sequence[Episode],
              towers: Optional[Towers] = None) -> Familiar:
    """
    Set both thresholds of a checkpoint's warning by episodes that it has not learned from.

    :param episodes: unseen, of the robot and task; the file beside the weights is replaced.
    :raises CheckpointError: it does not know its demonstrations.
    :raises EpisodeError: too few to say what is usual.
    """
    network, info, _ = load_network(checkpoint)
    body = embodiment_for(info, profile, False)
    known = read_familiar(checkpoint)
    if body.profile_hash not in known:
        raise CheckpointError(f'{checkpoint} does not know its demonstrations of {profile.name} '
                              '(novelty.safetensors); train it anew')
    learned = set(map(str, info.provenance.get('episodes', ())))
    if twice := sorted({episode.source for episode in episodes} & learned):
        raise EpisodeError(f'{twice[0]}: the policy has learned from this episode; a threshold '
                           'needs episodes that it has not seen')
    config: MiVLAConfig = network.config
    data = build_training_set(episodes, config, body.packed, body.cameras)
    rows = np.arange(len(data))
    if len(rows) < FEWEST:
        raise EpisodeError(f'{len(rows)} observations of {len(episodes)} episodes: too few to say '
                           f'what is usual; at least {FEWEST}')
    before = known[body.profile_hash]
    # In parts of the old limit: the quantile of these is what the limit grows or shrinks by.
    apart = before.novelty(_embeddings(network, data, rows, towers))
    made = replace(before, limit=before.limit * float(np.quantile(apart, BELOW)))
    doubt = doubt_of(network, body.normalizer, data, rows, towers,
                     'cuda' if torch.cuda.is_available() else 'cpu')
    made = made if doubt is None else replace(made, doubt=doubt)
    save_familiar(checkpoint, {**known, body.profile_hash: made})
    return made


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return iter(np.array_split(rows, -(-len(rows) // AT_ONCE)))


def _seen(data: TrainingSet, rows: NDArray[np.int64], towers: Towers | None) -> torch.Tensor:
    """Return what a network sees of some samples: pictures, or their features."""
    pictures = torch.from_numpy(np.ascontiguousarray(data.images[rows]))
    return pixels(pictures) if towers is None else towers(pictures).float().cpu()


@torch.no_grad()
def _embeddings(network: nn.Module, data: TrainingSet, rows: NDArray[np.int64],
                towers: Towers | None) -> NDArray[np.float64]:
    assert isinstance(network, (MiVLA, Direct))
    return np.concatenate([embed(network.encode_image(_seen(data, some, towers)),
                                 len(network.config.cameras)) for some in _blocks(rows)])
