"""Where a training stands, for people who wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ['LineProgress', 'Progress']


@dataclass(frozen=True)
class Progress:
    """
    Where the training stands.

    :param step: steps done.
    :param done: part of the schedule that is over, 0 to 1.
    :param seconds: since the first step.
    :param loss: of the last step.
    :param holdout: latest loss on episodes left out; NaN without one.
    """

    step: int
    done: float
    seconds: float
    loss: float
    holdout: float

    def __str__(self) -> str:
        """Return one line for a terminal."""
        left = f', {self.seconds * (1.0 / self.done - 1.0):.0f} s left' if self.done > 0 else ''
        unseen = '' if math.isnan(self.holdout) else f', unseen episodes {self.holdout:.4f}'
        return (f'training {100 * self.done:3.0f} %: step {self.step}, {self.seconds:.0f} s'
                f'{left}, loss {self.loss:.4f}{unseen}')


class LineProgress:
    """
    Writes a line now and then; call it after every step.

    :param write: takes a line, such as ``print``.
    :param interval_s: time between lines [s].
    """

    def __init__(self, write: Callable[[str], object], interval_s: float = 1.0) -> None:
        """The first and the last step are always written."""
        self._write, self._interval, self._next = write, interval_s, -math.inf

    def __call__(self, progress: Progress) -> None:
        """Write the line when one is due."""
        if progress.seconds >= self._next or progress.done >= 1.0:
            self._next = progress.seconds + self._interval
            self._write(str(progress))
