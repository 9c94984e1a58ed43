"""
Telling publishers of one topic apart by their publication sequence numbers.

rclpy does not hand out the identity of a message's publisher, but the middleware's own count per
publisher (``publication_sequence_number``). Counts of one publisher rise by one, or by a few where
messages were lost; two publishers are two rising counts. Where two counts run too close to be told
apart, nobody is trusted until they part or one of them falls silent.
"""

from __future__ import annotations

from mivla_core.timing import NowNs

__all__ = ['UNKNOWN_PUBLISHER', 'PublisherIdentity']

UNKNOWN_PUBLISHER = b'?'
# Most messages in a row that a publisher may lose and still be recognized.
WINDOW = 100
_QUARREL_NS = 1_000_000_000
_MOST = 8


class PublisherIdentity:
    """Names the publisher behind each message of one topic; used by one thread."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}           # publisher -> its newest count
        self._next = 1
        self._quarrel_until: NowNs | None = None

    def of(self, sequence: int, now: NowNs) -> bytes:
        """
        Return a name for the publisher of the message with this count.

        :param sequence: publication sequence number of the message.
        :param now: monotonic instant of its reception.
        :returns: the same bytes for the same publisher; ``UNKNOWN_PUBLISHER`` when several are
            too close to be told apart.
        """
        near = [name for name, last in self._last.items() if abs(sequence - last) <= WINDOW]
        if not near:
            name = self._next
            self._next += 1
            if len(self._last) >= _MOST:
                del self._last[next(iter(self._last))]
        else:
            name = near[-1]
            if sequence <= self._last[name]:
                # Delivery is in order, so this count is somebody else's.
                self._quarrel_until = NowNs(now + _QUARREL_NS)
        self._last[name] = max(sequence, self._last.pop(name, sequence))
        if self._quarrel_until is not None and now < self._quarrel_until:
            return UNKNOWN_PUBLISHER
        return b'%d' % name
