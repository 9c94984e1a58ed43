"""
A warning for the operator: what the policy sees is unlike what it learned from.

There are two signs of it, each in parts of its own threshold: how far the pictures are from those
of the demonstrations (``core.familiar``), and how far apart the policy's answers are, drawn
several times for one observation. Each threshold was calibrated by itself, so the larger of the
two is what counts: either suffices. One chunk above the threshold is noise; several of the last
ones are not. It warns; it never moves or stops the robot.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

__all__ = ['SAMPLES', 'NoveltyWatch', 'disagreement', 'joined']

# Answers per observation whose disagreement is measured. A limit holds for as many as it was
# calibrated with, so this is no setting.
SAMPLES = 4

# Of the last chunks: so many above the threshold raise the warning, and as long as one is left
# it stays. At two or three chunks a second this is within two seconds.
WINDOW = 5
RAISE = 3


def disagreement(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Return how far apart answers are (B,): their standard deviation, root mean square.

    :param samples: (B, K, T, J), K answers to each of B observations, normalized.
    """
    return np.asarray(np.sqrt(samples.var(axis=1, ddof=1).mean(axis=(1, 2))))


def joined(distance: float, doubt: float) -> float:
    """Return the larger of two signs in parts of their thresholds; NaN is one that is not told."""
    return float(np.fmax(distance, doubt))


class NoveltyWatch:
    """Judges the novelty of a run's chunks, in parts of the policy's threshold."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._raised = False

    def clear(self) -> None:
        """Begin anew, with a run."""
        self._recent.clear()
        self._raised = False

    def add(self, novelty: float) -> None:
        """Take the novelty of one chunk; NaN, which a policy without a measure says, is none."""
        if math.isnan(novelty):
            return
        self._recent.append(novelty)
        above = sum(value > 1.0 for value in self._recent)
        self._raised = above >= (1 if self._raised else RAISE)

    @property
    def newest(self) -> float:
        """Novelty of the last chunk that had one; NaN before."""
        return self._recent[-1] if self._recent else math.nan

    @property
    def warning(self) -> str:
        """What to tell the operator; '' when there is nothing to warn of."""
        if not self._raised:
            return ''
        return ('what the policy sees is unlike its demonstrations '
                f'(up to {max(self._recent):.1f} times its threshold): watch it closely, or take '
                'over')
