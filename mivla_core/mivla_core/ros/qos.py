"""
Quality of service, named once, by intent.

States, images and commands are offered RELIABLE and one second deep: a reliable publisher serves
both kinds of reader. Control loops and viewers read best effort, newest only; the recorder reads
reliable, two seconds deep.
"""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

__all__ = ['COMMAND', 'LATCHED', 'NEWEST', 'recorded', 'stream']

# Newest wins, never waits: inputs of control loops, policies and viewers.
NEWEST = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                    reliability=ReliabilityPolicy.BEST_EFFORT)

# Commands and requests on their way to the one node that acts on them.
COMMAND = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10,
                     reliability=ReliabilityPolicy.RELIABLE)

# State that a late joiner needs: profile, status, instruction.
LATCHED = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1,
                     reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)


def stream(rate_hz: float) -> QoSProfile:
    """Return the QoS of a published stream: RELIABLE, one second deep."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=max(1, round(rate_hz)),
                      reliability=ReliabilityPolicy.RELIABLE)


def recorded(rate_hz: float) -> QoSProfile:
    """Return the QoS with which a recorder reads a stream: RELIABLE, two seconds deep."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=max(2, round(2 * rate_hz)),
                      reliability=ReliabilityPolicy.RELIABLE)
