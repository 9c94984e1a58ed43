"""A policy that can be told to misbehave, requests that can be made bad, a simulated fleet."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from mivla_core.images import encode_jpeg
from mivla_core.timing import NowNs, StampNs, monotonic_now
from mivla_policy.core.schedule import Scheduler
from mivla_policy.core.ticket import Ticket
from mivla_policy.errors import PolicyError
from mivla_policy.serve.port import Inference, PolicySpec, Query
from mivla_policy.serve.server import Answer, PolicyWorker, Request, WorkerSettings

MS = 1_000_000
# Nothing takes so long [s]: whoever waits for it waits in vain.
LONG_S = 20.0
# Chunks last 20 s: what waits in a queue here does not grow old while the machine is busy.
SPEC = PolicySpec('test', horizon=4, dt_ns=5_000 * MS, joint_names=('a', 'b'),
                  camera_roles=('head',), image_size=(48, 64), profile_hash='cafe',
                  instructions=('press the bell',))
PAIR = PolicySpec('test', horizon=4, dt_ns=5_000 * MS, joint_names=('x', 'y', 'z'),
                  camera_roles=('left', 'right'), image_size=(32, 32), profile_hash='f00d')
# Nothing to decode: a request is ready for the device once it is submitted.
BLIND = PolicySpec('test', horizon=4, dt_ns=5_000 * MS, joint_names=('a', 'b'), camera_roles=(),
                   image_size=(48, 64), profile_hash='b11d')
JPEG = encode_jpeg(np.full((48, 64, 3), 90, np.uint8))


class HoldPolicy:
    """Answers with the state; overrides: NaN, an error, a wrong shape, or a gate."""

    def __init__(self, *specs: PolicySpec) -> None:
        self.specs = specs or (SPEC,)
        self.batches: list[int] = []
        self.poison: Optional[float] = None    # a state value that makes infer raise
        self.spoil: Optional[float] = None     # a state value that makes its answer NaN
        self.answer: Any = None
        self.memory_for = 1_000                # a batch above this runs out of memory
        self.gate: Optional[threading.Event] = None
        self.entered = threading.Event()

    def infer(self, queries: Sequence[Query]) -> Inference:
        observations = [query.observation for query in queries]
        self.batches.append(len(observations))
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(LONG_S)
        if len(queries) > self.memory_for:
            raise OutOfMemoryError('tried to allocate 2.00 GiB')
        if self.poison is not None and any(o.joints[0] == self.poison for o in observations):
            raise PolicyError('poisoned')
        if self.answer is not None:
            return Inference([self.answer for _ in observations])
        rows = [np.tile(o.joints, (4, 1)) for o in observations]
        for row in rows:
            if row[0, 0] == self.spoil:
                row[2, 1] = np.nan
        return Inference(rows, {'encode': 0.25, 'denoise': 0.5})


class Clock:
    """Stands, until it is moved: so that a busy machine makes nobody late."""

    def __init__(self) -> None:
        self.at = monotonic_now()

    def __call__(self) -> NowNs:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at = NowNs(self.at + round(seconds * 1e9))


class OutOfMemoryError(RuntimeError):
    """Named like the one of torch, which the server knows by its name."""


def request(robot: str = 'r1', request_id: int = 1, **changes: Any) -> Request:
    """Return a good request of SPEC's robot, changed."""
    values: dict[str, Any] = {
        'robot': robot, 'request_id': request_id, 'stamp': StampNs(10**18),
        'profile_hash': 'cafe', 'instruction': 'Press the bell.', 'images': {'head': JPEG},
        'joint_names': ('a', 'b'), 'state': np.array([1.0, 2.0]), 'slack_ns': 0,
        'received': monotonic_now(), **changes}
    return Request(**values)


class Desk:
    """A running worker and the answers that it gave."""

    def __init__(self, policy: HoldPolicy, now: Callable[[], NowNs] = monotonic_now,
                 **settings: Any) -> None:
        self.policy = policy
        self.answers: list[Answer] = []
        self.told: list[str] = []
        self._came = threading.Condition()
        self.worker = PolicyWorker(policy, self._take, WorkerSettings(**settings),
                                   now=now, tell=self.told.append)

    def __enter__(self) -> Desk:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.policy.gate is not None:
            self.policy.gate.set()
        assert self.worker.stop(LONG_S)

    def _take(self, answer: Answer) -> None:
        with self._came:
            self.answers.append(answer)
            self._came.notify_all()

    def wait(self, number: int) -> list[Answer]:
        """Return the answers once there are so many."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.answers) >= number, LONG_S), self.answers
            return list(self.answers)


class Fleet:
    """
    Robots before one device in simulated time.

    :param cost: ns of a forward pass by its bucket.
    :param spread: by which a robot's requests come sooner or later than its period.
    """

    def __init__(self, limit: int, cost: Callable[[int], int], seed: int = 0,
                 decode_ns: int = 3 * MS, useful_ns: int = 1_000 * MS,
                 spread: float = 0.1) -> None:
        self.scheduler, self.spread = Scheduler(limit), spread
        self.cost, self.decode_ns, self.useful_ns = cost, decode_ns, useful_ns
        for size in self.scheduler.times.sizes:
            for _ in range(3):
                self.scheduler.times.note(size, cost(size))
        self.served: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.superseded: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()
        self.latency: dict[str, list[int]] = {}
        self.refusals: list[tuple[int, int]] = []    # ns since arrival, and until too late
        self.log: list[tuple[int, str, str]] = []
        self._random = random.Random(seed)
        self._events: list[tuple[int, int, str, Any]] = []
        self._count = itertools.count()
        self._busy = False

    def robot(self, name: str, period_ns: int, slack_ns: int, begin: int = 0,
              end: int = 10**18, closed: bool = False) -> None:
        """Add a robot that asks every ``period_ns``; closed: so long after each answer."""
        first = begin + int(self._random.random() * period_ns)
        self._push(first, 'ask', (name, period_ns, slack_ns, end, closed))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= seconds * 1e9:
            at, _, kind, what = heapq.heappop(self._events)
            getattr(self, f'_{kind}')(at, what)
            self._turn_away(at, self.scheduler.expire(at))
            if not self._busy:
                self._begin(at)
            self._decode_next(at)

    def _push(self, at: int, kind: str, what: Any) -> None:
        heapq.heappush(self._events, (at, next(self._count), kind, what))

    def _ask(self, at: int, what: Any) -> None:
        name, period, slack, end, closed = what
        ticket = Ticket(name, NowNs(at), slack, self.useful_ns, what)
        self.log.append((at, 'ask', name))
        offer = self.scheduler.offer(ticket, NowNs(at))
        self.superseded[name] += len(offer.superseded)
        self._decode_next(at)
        if not closed and at + period < end:
            factor = self._random.uniform(1.0 - self.spread, 1.0 + self.spread)
            self._push(at + round(period * factor), 'ask', what)
        self._turn_away(at, offer.late)

    def _decode_next(self, at: int) -> None:
        """Begin to decode all that may be: there is no end of decoders here."""
        for ticket in self.scheduler.to_decode():
            if not ticket.begun:
                ticket.begun = True
                self._push(at + self.decode_ns, 'decode', ticket)

    def _decode(self, at: int, ticket: Ticket) -> None:
        if self.scheduler.holds(ticket):
            self.superseded[ticket.robot] += self.scheduler.decoded(
                ticket, self.decode_ns) is not None
            self._decode_next(at)

    def _begin(self, at: int) -> None:
        batch = self.scheduler.take(at)
        if not batch:
            return
        self._busy = True
        self.sizes[len(batch)] += 1
        size = self.scheduler.times.bucket(len(batch))
        self._push(at + round(self.cost(size) * self._random.uniform(0.95, 1.05)), 'end',
                   (at, batch))

    def _end(self, at: int, what: tuple[int, list[Ticket]]) -> None:
        begun, batch = what
        self._busy = False
        self.scheduler.finished(len(batch), at - begun)
        for ticket in batch:
            self.served[ticket.robot] += 1
            self.latency.setdefault(ticket.robot, []).append(at - ticket.came)
            self.missed[ticket.robot] += not ticket.dry and at > ticket.deadline
            self.log.append((at, 'served', ticket.robot))
            self._again(at, ticket)

    def _turn_away(self, at: int, late: Sequence[Any]) -> None:
        for one in late:
            self.late[one.ticket.robot] += 1
            self.refusals.append((at - one.ticket.came, one.ticket.deadline - at))
            self.log.append((at, 'late', one.ticket.robot))
            self._again(at, one.ticket)

    def _again(self, at: int, ticket: Ticket) -> None:
        name, period, slack, end, closed = ticket.payload
        if closed and at + period < end:
            self._push(at + period, 'ask', ticket.payload)
