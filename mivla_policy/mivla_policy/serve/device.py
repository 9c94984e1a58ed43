"""
The policy on its device: batches in, one outcome per request out, whatever the policy does.

A batch that raises is tried again one by one; memory that runs out halves the batch for good; an
answer that is misshapen or not finite reaches nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from mivla_core.errors import MivlaError
from mivla_core.realtime import ordinary
from mivla_core.timing import NowNs
from mivla_policy.core.observation import Observation
from mivla_policy.errors import InstructionError, PolicyError
from mivla_policy.serve.port import Inference, Policy, PolicySpec, Query
from mivla_policy.serve.preparation import last_line
from mivla_policy.serve.request import Code

__all__ = ['Device', 'Outcome', 'out_of_memory']

# By name, because this module is not to need torch: torch.OutOfMemoryError (of CUDA and others),
# and the interpreter's own.
OUT_OF_MEMORY = {'OutOfMemoryError', 'MemoryError'}


@dataclass(frozen=True)
class Outcome:
    """
    What a pass came to for one query.

    :param chunk: (T, J); None with a reason.
    :param code: of the refusal, without a chunk.
    :param requests: that shared the pass.
    """

    chunk: Optional[NDArray[np.float64]]
    reason: str = ''
    forward_s: float = 0.0
    requests: int = 1
    note: str = ''
    stages: Mapping[str, float] = field(default_factory=dict)
    code: Code = Code.POLICY_FAILED
    novelty: float = math.nan


def out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that the device's or the machine's memory ran out."""
    return any(kind.__name__ in OUT_OF_MEMORY for kind in type(error).__mro__)


class Device:
    """One policy, used by one thread at a time."""

    def __init__(self, policy: Policy, limit: int, now: Callable[[], NowNs],
                 tell: Callable[[str], None]) -> None:
        """
        Wrap a policy.

        :param limit: requests in one pass.
        :param tell: told in a sentence of what the operator should know.
        """
        self.policy, self.limit, self._now, self._tell = policy, limit, now, tell

    @property
    def memory(self) -> Optional[int]:
        """What the policy says that it occupies on its device [bytes]; None: it does not say."""
        value = getattr(self.policy, 'memory', None)
        return int(value) if isinstance(value, (int, float)) else None

    def warm_up(self, sizes: Sequence[int], bound_s: float) -> dict[int, int]:
        """
        Run every batch size twice on blank observations; return the second's ns by size.

        The first run of a size compiles and allocates, so it says nothing. Where the time is up
        or memory runs out, the limit becomes the largest size that was run.

        :param sizes: ascending.
        :raises PolicyError: the policy cannot answer even that.
        """
        begin, measured = self._now(), dict[int, int]()
        specs = self.policy.specs
        for size in sizes:
            if measured and (self._now() - begin) * 1e-9 > bound_s:
                self.limit = max(measured)
                self._tell(f'warm-up was cut off after {bound_s:g} s: at most {self.limit} '
                           'requests in a batch')
                break
            queries = [_blank(specs[i % len(specs)]) for i in range(size)]
            before = self._now()
            try:
                self.infer(queries)
                before = self._now()
                self.infer(queries)
            except Exception as err:
                if not out_of_memory(err) or size == 1:
                    raise
                self.limit = max(measured)
                self._tell(f'out of memory in a batch of {size}: at most {self.limit} from now on')
                break
            measured[size] = self._now() - before
        # A robot's first request is not to meet what no other has met.
        for spec in specs[1:] if sizes and sizes[-1] < len(specs) else ():
            self.infer([_blank(spec)])
        return measured

    def infer(self, queries: Sequence[Query]) -> Inference:
        """Run the policy, and check that every chunk has the shape of its robot."""
        # A forward pass takes as long as it takes: only what is around it is urgent.
        with ordinary():
            inference = self.policy.infer(queries)
        chunks = [np.asarray(chunk, dtype=np.float64) for chunk in inference.chunks]
        shapes = [chunk.shape for chunk in chunks]
        expected = [(q.spec.horizon, len(q.spec.joint_names)) for q in queries]
        if shapes != expected:
            raise PolicyError(f'policy {queries[0].spec.name} answered {len(queries)} queries '
                              f'with chunks of shape {shapes}; expected {expected}')
        return Inference(chunks, inference.seconds, inference.notes or [''] * len(queries),
                         inference.novelty or [math.nan] * len(queries), inference.signs)

    def run(self, queries: Sequence[Query]) -> tuple[list[Outcome], Optional[int]]:
        """
        Answer a batch; never raises.

        :returns: an outcome per query; and the ns of the pass, None where it was not one pass.
        """
        begin = self._now()
        number = len(queries)
        reason, short, code = '', False, Code.POLICY_FAILED
        try:
            inference = self.infer(queries)
        except Exception as err:   # the policy is foreign code: nothing it raises ends the server
            reason = (str(err) if isinstance(err, MivlaError) else last_line()) or type(
                err).__name__
            short = out_of_memory(err)
            if isinstance(err, InstructionError):
                code = Code.UNKNOWN_INSTRUCTION
        # The exception is gone by now, and with it the memory that its frames held.
        if not reason:
            duration = self._now() - begin
            return [self._outcome(query, chunk, note, novelty, duration * 1e-9, number,
                                  inference.seconds)
                    for query, chunk, note, novelty in zip(
                        queries, inference.chunks, inference.notes, inference.novelty)], duration
        if number == 1:
            return [Outcome(None, reason, code=code)], None
        if not short:
            # Somebody's observation breaks the batch: one by one it harms nobody else.
            return self._parts(queries, 1), None
        self.limit = max(1, number // 2)
        self._tell(f'out of memory in a batch of {number}: at most {self.limit} from now on')
        return self._parts(queries, self.limit), None

    def _parts(self, queries: Sequence[Query], size: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(outcomes) < len(queries):
            first = len(outcomes)
            # The limit may be lowered again on the way.
            outcomes += self.run(queries[first:first + min(size, self.limit)])[0]
        return outcomes

    @staticmethod
    def _outcome(query: Query, chunk: NDArray[np.float64], note: str, novelty: float,
                 forward_s: float, requests: int, stages: Mapping[str, float]) -> Outcome:
        if not np.isfinite(chunk).all():
            return Outcome(None, f'policy {query.spec.name} answered with a value that is not '
                                 'finite')
        return Outcome(chunk, '', forward_s, requests, note, stages, novelty=novelty)


def _blank(spec: PolicySpec) -> Query:
    picture = np.zeros((*spec.image_size, 3), np.uint8)
    return Query(spec, Observation(
        0, np.zeros(len(spec.joint_names)), dict.fromkeys(spec.camera_roles, picture),
        spec.instructions[0] if spec.instructions else ''))
