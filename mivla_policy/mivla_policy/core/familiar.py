"""
How unlike its demonstrations an observation is.

What a policy's picture encoder says of the demonstrations is kept, whitened and thinned out. An
observation is as novel as it is far from its nearest neighbours there, in parts of the distance
that demonstrations keep which the others do not know. Pure numbers: no pictures, no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mivla_policy.errors import CheckpointError, EpisodeError

__all__ = ['Familiar']

Array = NDArray[np.float64]

NEIGHBOURS = 5
MOST = 2000             # of the demonstrations' observations that are kept
KEPT = 0.99             # of the variance that the whitened directions hold
MOST_DIRECTIONS = 64
# Of the observations of demonstrations, each judged by the other demonstrations alone, so many are
# below the threshold. One in ten above it is nothing; the operator's warning asks for three of
# five (``core.novelty``). A policy's own way is a little less usual than a demonstrator's: at 0.8
# it was warned of in a quarter of ordinary scenes, at 0.99 never, not even where it failed.
BELOW = 0.9
_BLOCK = 256
_NAMES = ('mean', 'basis', 'rest', 'reference', 'limit')
_DOUBT = 'doubt'        # not in every file


@dataclass(frozen=True)
class Familiar:
    """
    What a policy has seen.

    :param mean: (D,) of its embeddings.
    :param basis: (D, E), whitens what the mean is taken off of.
    :param rest: (1,) what demonstrations have beside these directions, root mean square.
    :param reference: (M, E + 1), whitened embeddings of demonstrations; the last number is the
        length of what is beside the directions: what is new often lies where nothing varied.
    :param limit: distance from which on an observation counts as novel.
    :param doubt: disagreement of answers (``core.novelty``) from which on the policy counts as in
        doubt; NaN where nobody has measured it on episodes that the policy did not learn from.
    """

    mean: Array
    basis: Array
    rest: Array
    reference: Array
    limit: float
    doubt: float = math.nan

    def __post_init__(self) -> None:
        """Raise CheckpointError unless the parts fit together and are finite."""
        size = (len(self.mean), self.reference.shape[-1] - 1)
        if self.mean.ndim != 1 or self.rest.shape != (1,) or self.basis.shape != size or (
                self.reference.ndim != 2) or not (
                len(self.reference) >= NEIGHBOURS and self.limit > 0.0) or self.doubt <= 0.0:
            raise CheckpointError(
                f'novelty: mean {self.mean.shape}, basis {self.basis.shape}, reference '
                f'{self.reference.shape}, limit {self.limit} and doubt {self.doubt} do not fit '
                'together')
        if not all(np.isfinite(part).all() for part in (
                self.mean, self.basis, self.rest, self.reference)):
            raise CheckpointError('novelty: a value is not finite')

    @classmethod
    def of(cls, embeddings: Array, episode: NDArray[np.int64]) -> Familiar:
        """
        Learn what is familiar from demonstrations.

        :param embeddings: (N, D) of their observations.
        :param episode: int (N,), which demonstration each is from; two or more.
        :raises EpisodeError: too few to say what is usual.
        """
        kept = np.linspace(0, len(embeddings) - 1, min(MOST, len(embeddings))).astype(int)
        values = np.asarray(embeddings, dtype=np.float64)[kept]
        origin = np.asarray(episode)[kept]
        counts = np.unique(origin, return_counts=True)[1]
        if len(counts) < 2 or len(values) - counts.max() < NEIGHBOURS:
            raise EpisodeError(f'{len(values)} observations of {len(counts)} demonstrations: too '
                               'few to say what is usual')
        mean = values.mean(axis=0)
        _, size, axes = np.linalg.svd(values - mean, full_matrices=False)
        share = np.cumsum(size**2) / max(float((size**2).sum()), 1e-30)
        directions = min(int(np.searchsorted(share, KEPT)) + 1, MOST_DIRECTIONS)
        spread = size[:directions] / np.sqrt(len(values))
        basis = axes[:directions].T / np.maximum(spread, 1e-9)
        beside = _coordinates(values - mean, basis, 1.0)[:, -1]
        # A millionth of the spread at least: rounding is no scale.
        rest = max(float(np.sqrt((beside**2).mean())), 1e-6 * float(spread[0]), 1e-12)
        reference = _coordinates(values - mean, basis, rest)
        usual = np.concatenate([
            _nearest(reference[origin == each], reference[origin != each])
            for each in np.unique(origin)])
        return cls(mean, basis, np.array([rest]), reference,
                   max(float(np.quantile(usual, BELOW)), 1e-9))

    def novelty(self, embeddings: Array) -> Array:
        """Return how novel observations are (N,), in parts of the limit: (N, D) embeddings."""
        seen = _coordinates(np.asarray(embeddings, dtype=np.float64) - self.mean, self.basis,
                            float(self.rest[0]))
        return _nearest(seen, self.reference) / self.limit

    def tensors(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """Return plain arrays under a prefix, for a file."""
        names = _NAMES if math.isnan(self.doubt) else (*_NAMES, _DOUBT)
        return {f'{prefix}{name}': np.atleast_1d(
            np.ascontiguousarray(getattr(self, name), dtype=np.float32)) for name in names}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.float32]], prefix: str) -> Familiar:
        """
        Read what ``tensors`` gave.

        :raises CheckpointError: a part is missing or does not fit.
        """
        missing = [name for name in _NAMES if f'{prefix}{name}' not in tensors]
        if missing:
            raise CheckpointError(f'novelty: {missing[0]} is missing')
        mean, basis, rest, reference, limit = (
            np.asarray(tensors[f'{prefix}{name}'], dtype=np.float64) for name in _NAMES)
        doubt = tensors.get(f'{prefix}{_DOUBT}', np.array([math.nan]))
        return cls(mean, basis, rest, reference, float(limit.reshape(-1)[0]),
                   float(doubt.reshape(-1)[0]))


def _coordinates(centred: Array, basis: Array, rest: float) -> Array:
    """Return (N, E + 1): along the whitened directions, and how far beside them all."""
    along = centred @ basis
    # The columns of the basis are unit vectors over the spread in their direction.
    plain = along / np.linalg.norm(basis, axis=0)
    beside = np.sqrt(np.maximum((centred**2).sum(axis=1) - (plain**2).sum(axis=1), 0.0))
    return np.column_stack([along, beside / rest])


def _nearest(points: Array, reference: Array) -> Array:
    """Return the mean distance (N,) of points (N, E) to their nearest neighbours."""
    out = []
    squares = (reference**2).sum(axis=1)
    for first in range(0, len(points), _BLOCK):
        block = points[first:first + _BLOCK]
        apart = (block**2).sum(axis=1)[:, None] + squares - 2.0 * block @ reference.T
        near = np.partition(apart, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        out.append(np.sqrt(np.maximum(near, 0.0)).mean(axis=1))
    return np.concatenate(out)
