"""
A CAN bus inside one process and one thread, in simulated time.

Connects a backend to an emulated device for lockstep evaluation and tests: nothing sleeps. What
the backend sends is delivered at once; when it waits, the owner's ``wait`` lets simulated time
pass and pushes what the device sends meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Optional

import can

__all__ = ['MemoryBus']


class MemoryBus(can.BusABC):
    """
    The host's end of the bus.

    :param deliver: takes (can_id, data) of every frame the host sends.
    :param wait: lets at most so many seconds of simulated time pass; returns early when a frame
        was pushed.
    """

    def __init__(self, deliver: Callable[[int, bytes], None], wait: Callable[[float], None],
                 **kwargs: Any) -> None:
        self.channel_info = 'memory'
        self._deliver = deliver
        self._wait = wait
        self._pending: deque[can.Message] = deque()
        super().__init__(channel='memory', **kwargs)
        self._is_shutdown = True    # nothing to release, so nothing to warn about

    def push(self, can_id: int, data: bytes, stamp: float = 0.0) -> None:
        """Put a frame in front of the host; ``stamp`` [s since the epoch], 0 for none."""
        self._pending.append(can.Message(timestamp=stamp, arbitration_id=can_id,
                                         is_extended_id=False, dlc=len(data), data=data))

    def push_message(self, message: can.Message) -> None:
        """Put any message in front of the host, e.g. an error frame."""
        self._pending.append(message)

    def recv(self, timeout: Optional[float] = None) -> Optional[can.Message]:
        """Return the next frame; waits in simulated time. ``timeout`` None waits one second."""
        if not self._pending and (timeout is None or timeout > 0.0):
            self._wait(1.0 if timeout is None else timeout)
        return self._pending.popleft() if self._pending else None

    def send(self, msg: can.Message, timeout: Optional[float] = None) -> None:
        """Deliver a frame to the device."""
        self._deliver(msg.arbitration_id, bytes(msg.data))
