"""Is an episode fit for training? Judged when it is finished, from what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mivla_teleop.recording.episode import TopicLossCount
from mivla_teleop.recording.metadata import TopicSpan

__all__ = ['Required', 'Thresholds', 'judge']


@dataclass(frozen=True)
class Required:
    """A topic that training reads."""

    topic: str
    rate: float = 0.0      # Hz it should have; 0: no matter
    needed: bool = True    # without it an episode is useless; else only its losses matter


@dataclass(frozen=True)
class Thresholds:
    """What makes an episode unfit."""

    rate_share: float = 0.9     # of the required rate, at least
    shortest: float = 1.0       # s
    lost: int = 0               # messages of any required topic, at most


def judge(required: Sequence[Required], spans: Mapping[str, TopicSpan],
          loss: Mapping[str, TopicLossCount], state: str,
          thresholds: Thresholds = Thresholds()) -> tuple[str, tuple[str, ...]]:
    """
    Judge a finished episode.

    :param spans: what was written, by topic.
    :param loss: what was lost, by topic.
    :param state: how it ended ('finished', 'interrupted', ...).
    :return: 'accepted' or 'rejected', and the reasons, one sentence each.
    """
    reasons = [] if state == 'finished' else [f'the recording was ended: {state}']
    heard = [span for span in spans.values() if span.messages]
    first = min((span.first for span in heard), default=0)
    last = max((span.last for span in heard), default=0)
    duration = (last - first) / 1e9
    if duration < thresholds.shortest:
        reasons.append(f'{duration:.2f} s long, shorter than {thresholds.shortest:g} s')
    for item in required:
        span = spans.get(item.topic)
        if span is None or not span.messages:
            if item.needed:
                reasons.append(f'{item.topic}: not one message')
            continue
        missing = loss[item.topic].lost + loss[item.topic].dropped if item.topic in loss else 0
        if missing > thresholds.lost:
            reasons.append(f'{item.topic}: {missing} messages lost')
        if item.rate and duration >= thresholds.shortest:
            rate = span.messages / duration      # over the whole episode: a topic may fall silent
            if rate < thresholds.rate_share * item.rate:
                reasons.append(f'{item.topic}: {rate:.1f} Hz, below {thresholds.rate_share:.0%} '
                               f'of {item.rate:g} Hz')
    return ('rejected' if reasons else 'accepted'), tuple(reasons)
