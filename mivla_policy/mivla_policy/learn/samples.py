"""
From a training set to batches: which samples, in which order, with which random numbers.

All that is random is drawn in the order of the steps, by one generator on the processor, before
anything is read. So the numbers do not depend on how many threads read pictures or how many
processes share a batch, and a training that is resumed goes on with the very same ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mivla_policy.core.normalize import Normalizer
from mivla_policy.learn.augment import draw, shifted
from mivla_policy.learn.dataset import TrainingSet
from mivla_policy.learn.objective import SEEN, VARY, Batch, Objective
from mivla_policy.learn.recipe import Recipe
from mivla_policy.model.config import MiVLAConfig

__all__ = ['Loader', 'Order', 'Samples', 'Source', 'kept_cameras']


class Source(Protocol):
    """What a training draws its batches from."""

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return all that is random of the next batch; cheap, called in the order of the steps."""
        ...

    def collect(self, drawn: Batch) -> Batch:
        """Return the batch, or a process's part of it; may be called by another thread."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return where it stands, beside the generator; ``restore`` takes it."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where a ``state`` was taken."""
        ...


class Order:
    """
    Rows in random order, each as often as any other.

    :param rows: to choose from.
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self._rows = torch.from_numpy(rows)
        self.left = torch.empty(0, dtype=torch.long)

    def next(self, count: int, generator: torch.Generator) -> Tensor:
        """Return ``count`` rows, or all where there are fewer."""
        if len(self.left) < min(count, len(self._rows)):
            # What is left of the last pass comes first: every sample is seen equally often.
            fresh = self._rows[torch.randperm(len(self._rows), generator=generator)]
            self.left = torch.cat((self.left, fresh))
        chosen, self.left = self.left[:count], self.left[count:]
        return chosen


class Samples:
    """
    The samples of a training set as the network wants them; pictures stay bytes.

    :param rows: of the set, that are learned from.
    :param features: (N, C * tokens, F) of frozen towers, in the order of the set; None: pictures.
    :param part: (rank, processes): which part of every batch is this process's.
    """

    def __init__(self, data: TrainingSet, config: MiVLAConfig, recipe: Recipe,
                 normalizer: Normalizer, objective: Objective, rows: NDArray[np.int64],
                 features: Optional[NDArray[np.uint16]] = None,
                 part: tuple[int, int] = (0, 1)) -> None:
        def spread(values: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(data.packed.spread(values, config.action_width)).float()
        self._columns = {
            'state': spread(normalizer.state_in(data.states)),
            'action': spread(normalizer.actions_in(data.commands, data.states)),
            'inside': torch.from_numpy(data.inside),
            'sentence': torch.from_numpy(data.instruction)}
        self._data, self._recipe, self._objective = data, recipe, objective
        self._features, self._part = features, part
        self.order = Order(rows)

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See ``Source.draw``."""
        rows = self.order.next(self._recipe.batch_size, generator)
        numbers = {} if self._features is not None else draw(
            self._recipe.augmentation, len(rows), len(self._data.camera_roles), generator)
        drawn = {'rows': rows, **{VARY + name: value for name, value in numbers.items()},
                 **self._objective.draw(len(rows), generator)}
        if self._recipe.camera_dropout:
            drawn[SEEN] = kept_cameras(self._recipe.camera_dropout, self._objective.cameras.cpu(),
                                       len(rows), generator)
        return drawn

    def collect(self, drawn: Batch) -> dict[str, Tensor]:
        """Return the observations, the answers and what was drawn, of this process's part."""
        rank, processes = self._part
        batch = {name: _share(value, rank, processes) for name, value in drawn.items()}
        rows = batch.pop('rows')
        batch |= {name: column[rows] for name, column in self._columns.items()}
        moves = batch.pop(f'{VARY}shift', None)
        if self._features is not None:
            batch['features'] = torch.from_numpy(self._features[rows.numpy()]).view(torch.bfloat16)
            return batch
        pictures = self._data.images[rows.numpy()]
        batch['pictures'] = torch.from_numpy(
            pictures if moves is None else shifted(pictures, moves))
        return batch

    def state(self) -> dict[str, Tensor]:
        """See ``Source.state``."""
        return {'order': self.order.left.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See ``Source.restore``."""
        self.order.left = state['order'].clone()


def kept_cameras(dropout: Sequence[float], there: Tensor, batch: int,
                 generator: torch.Generator) -> Tensor:
    """
    Return which cameras each observation of a batch keeps, bool (B, C).

    :param dropout: part of the observations that go without each of the C cameras.
    :param there: bool (C,), True where the robot has the camera.
    """
    drawn = torch.rand((batch, len(dropout)), generator=generator)
    kept = (drawn >= torch.tensor(dropout)) & there
    return torch.where(kept.any(dim=1, keepdim=True), kept, there)


def _share(value: Tensor, rank: int, processes: int) -> Tensor:
    """Return a process's part of the rows; parts differ by one where they do not divide."""
    if processes == 1:
        return value
    return value.tensor_split(processes)[rank]


@dataclass(frozen=True)
class _Ahead:
    """A batch that is being made, and where source and generator stood after its draws."""

    made: Future[Batch]
    state: dict[str, Tensor]


class Loader:
    """
    Batches, made ahead by threads or on demand.

    :param source: of the batches.
    :param generator: that every random number comes from.
    :param workers: threads; 0: each batch is made when it is asked for.
    """

    def __init__(self, source: Source, generator: torch.Generator, workers: int = 0) -> None:
        self._source, self._generator = source, generator
        self._pool = ThreadPoolExecutor(workers, 'batches') if workers else None
        self._ahead: deque[_Ahead] = deque()
        self._depth = 2 * workers
        self.waited_s = 0.0
        self._state: dict[str, Tensor] = self._snapshot()

    def next(self) -> Batch:
        """Return the next batch; the time it takes is added to ``waited_s``."""
        begin = time.perf_counter()
        if self._pool is None:
            batch = self._source.collect(self._source.draw(self._generator))
            self._state = {}
        else:
            while len(self._ahead) <= self._depth:
                drawn = self._source.draw(self._generator)
                self._ahead.append(_Ahead(self._pool.submit(self._source.collect, drawn),
                                          self._snapshot()))
            first = self._ahead.popleft()
            batch, self._state = first.made.result(), first.state
        self.waited_s += time.perf_counter() - begin
        return batch

    def state(self) -> dict[str, Tensor]:
        """Return where the batches stand that were taken, whatever was made ahead."""
        return self._state or self._snapshot()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state``; only before the first batch."""
        self._source.restore(state)
        self._generator.set_state(state['generator'])
        self._state = {}

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Loader:
        """Return itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """End the threads."""
        self.close()

    def _snapshot(self) -> dict[str, Tensor]:
        return {**self._source.state(), 'generator': self._generator.get_state()}
