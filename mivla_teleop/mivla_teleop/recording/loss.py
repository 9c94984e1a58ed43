"""
Messages lost per recorded topic, by the middleware's publication sequence numbers.

A publisher numbers its messages without gaps, so a jump in the numbers that arrive is a loss. Two
losses cannot be seen and are not claimed: messages before the first one that was ever received of
a publisher, and messages after the last one.

``LossCounter`` wants to know the publisher of each message. rclpy's MessageInfo on Jazzy (7.1)
gives the number but not the publisher's gid, so ``PublisherGuess`` tells the publishers of one
topic apart by their numbers and by the gids that discovery lists. With one publisher at a time, as
on every topic of a robot, that is exact; with several at once the total is exact as long as
nothing is lost, else a best guess, and ``TopicCount.shared`` says so.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

__all__ = ['LossCounter', 'PublisherGuess', 'TopicCount']


@dataclass(slots=True)
class TopicCount:
    """Counts of one topic since the episode began."""

    received: int = 0
    lost: int = 0
    publishers: int = 0       # distinct publishers heard, restarted ones count anew
    shared: bool = False      # several at the same time: ``lost`` is a best guess


@dataclass(slots=True)
class _Topic:
    count: TopicCount = field(default_factory=TopicCount)
    last: dict[Hashable, int] = field(default_factory=dict)
    heard: set[Hashable] = field(default_factory=set)


class LossCounter:
    """Count gaps in the sequence numbers of each publisher of each topic; single-threaded."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    def begin(self, topics: Iterable[str]) -> None:
        """
        Start an episode: counts go to zero, the last numbers heard stay.

        A loss between the last message before the episode and the first one in it is therefore
        counted; a publisher that was never heard starts with its first message.
        """
        previous = self._topics
        self._topics = {}
        for topic in topics:
            self._topics[topic] = _Topic(
                last=previous[topic].last if topic in previous else {})

    def observe(self, topic: str, publisher: Hashable, sequence: int) -> int:
        """
        Take in one received message.

        :param publisher: identity of one life of one publisher; a restarted one is another.
        :param sequence: its publication sequence number.
        :return: messages found lost just before this one.
        """
        state = self._topics.get(topic)
        if state is None:
            state = self._topics[topic] = _Topic()
        state.count.received += 1
        if publisher not in state.heard:
            state.heard.add(publisher)
            state.count.publishers += 1
        last = state.last.get(publisher)
        state.last[publisher] = sequence if last is None else max(sequence, last)
        if last is None or sequence <= last:
            return 0
        gap = sequence - last - 1
        state.count.lost += gap
        return gap

    def mark_shared(self, topic: str) -> None:
        """Note that several publishers were heard at once and could not be told apart surely."""
        if topic in self._topics:
            self._topics[topic].count.shared = True

    def forget(self, topic: str, alive: Iterable[Hashable]) -> None:
        """Drop what is known of publishers that are not in ``alive``, so that nothing grows."""
        if topic in self._topics:
            keep = set(alive)
            state = self._topics[topic]
            state.last = {key: value for key, value in state.last.items() if key in keep}

    def report(self) -> dict[str, TopicCount]:
        """Return the counts by topic."""
        return {name: state.count for name, state in self._topics.items()}


class PublisherGuess:
    """
    Tell the publishers of one topic apart by their sequence numbers.

    A number belongs to the publisher with the nearest smaller last number. A number that is not
    larger than any last one starts a new publisher (one that restarted counts from 1 again). With
    several publishers matched and one not heard yet, a jump beyond ``max_gap`` is that one.
    """

    def __init__(self, max_gap: int = 2000) -> None:
        self._max_gap = max_gap
        self._tracks: dict[int, int] = {}     # key -> last number, least recently heard first
        self._gids: frozenset[bytes] = frozenset()
        self._next_key = 1

    @property
    def keys(self) -> tuple[int, ...]:
        """Publishers believed alive."""
        return tuple(self._tracks)

    @property
    def shared(self) -> bool:
        """Whether discovery lists several publishers."""
        return len(self._gids) > 1

    def matched(self, gids: Iterable[bytes]) -> None:
        """Take in which publishers discovery lists; when all are new, none is continued."""
        now = frozenset(gids)
        if now and self._gids and not now & self._gids:
            self._tracks.clear()
        if now:
            self._gids = now

    def assign(self, sequence: int) -> int:
        """Return the key of the publisher that ``sequence`` belongs to."""
        tracks = self._tracks
        if len(tracks) == 1:     # the usual case, kept short: it runs for every message
            key, last = next(iter(tracks.items()))
            if last < sequence and (sequence - last == 1 or len(self._gids) <= 1):
                tracks[key] = sequence
                return key
        best = None
        for key, last in tracks.items():
            if last < sequence and (best is None or last >= tracks[best]):
                best = key
        expected = max(1, len(self._gids))
        if (best is not None and len(tracks) < expected
                and sequence - tracks[best] - 1 > self._max_gap):
            best = None
        if best is None:
            best = self._next_key
            self._next_key += 1
            while len(tracks) >= expected:
                del tracks[next(iter(tracks))]
        else:
            del tracks[best]     # put it at the end: most recently heard
        tracks[best] = sequence
        return best
