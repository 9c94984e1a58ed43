"""
The thread that reads the sources of one lane, and brings a lost camera back.

It opens, reads and closes in one thread, because a graphics context belongs to the thread that
made it. A camera that is absent at the start is an error of the start; one that is lost later is
tried again with growing pauses, a limited number of times, while other lanes go on.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Optional

from mivla_core.errors import MivlaError
from mivla_drivers.cameras.source import CameraError, CameraSource, Frame, Lane

__all__ = ['LaneThread']

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0


class LaneThread:
    """Reads one lane until it is stopped."""

    def __init__(self, sources: Lane, deliver: Callable[[CameraSource, Frame], None],
                 lost: Callable[[CameraSource, str], None], reopen_limit: int) -> None:
        """
        Prepare the thread.

        :param deliver: called in the thread with every frame; must be quick.
        :param lost: called in the thread when a source is lost, with words for the operator.
        :param reopen_limit: attempts to bring a lost lane back before it is given up.
        """
        self.sources = sources
        self._deliver, self._lost, self._reopen_limit = deliver, lost, reopen_limit
        self._opened = threading.Event()
        self._stop = threading.Event()
        self._refusal: Optional[str] = None
        self._thread = threading.Thread(target=self._run, daemon=True,
                                        name=f'lane {sources[0].camera.role}')

    def start(self) -> None:
        """Begin to open the sources."""
        self._thread.start()

    def wait_open(self, timeout_s: float) -> None:
        """
        Wait until every source is open.

        :raises CameraError: one of them refused, or took too long; names role and device.
        """
        if not self._opened.wait(timeout_s):
            names = ', '.join(f'{s.camera.role} ({s.device})' for s in self.sources)
            raise CameraError(f'camera {names}: did not open within {timeout_s:g} s')
        if self._refusal is not None:
            raise CameraError(self._refusal)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread; returns False when it hangs in its device."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._open()
        except MivlaError as err:
            self._refusal = str(err)
            self._close()
            self._opened.set()
            return
        except Exception:  # a bug in a source must reach the operator, not end in silence
            self._refusal = traceback.format_exc()
            self._close()
            self._opened.set()
            return
        self._opened.set()
        while not self._stop.is_set():
            source = self.sources[0]
            try:
                for source in self.sources:
                    self._deliver(source, source.grab())
            except MivlaError as err:
                if not self._bring_back(source, str(err)):
                    break
            except Exception:
                self._tell(source, f'camera {source.camera.role}: {traceback.format_exc()}')
                break
        self._close()

    def _open(self) -> None:
        for source in self.sources:
            source.open()

    def _close(self) -> None:
        for source in self.sources:
            source.close()

    def _tell(self, culprit: CameraSource, reason: str) -> None:
        # The whole lane stands still with one of its sources, so each of them is reported.
        for source in self.sources:
            where = '' if source is culprit else f' (waits for {culprit.camera.role})'
            self._lost(source, reason + where)

    def _bring_back(self, culprit: CameraSource, reason: str) -> bool:
        """Return True when the lane is open again, False when stopped or given up."""
        pause = FIRST_PAUSE_S
        for attempt in range(1, self._reopen_limit + 1):
            self._close()
            self._tell(culprit, f'{reason}; attempt {attempt} of {self._reopen_limit} to reopen '
                                f'in {pause:g} s')
            if self._stop.wait(pause):
                return False
            try:
                self._open()
                return True
            except MivlaError as err:
                reason = str(err)
            pause = min(2.0 * pause, LONGEST_PAUSE_S)
        self._tell(culprit, f'{reason}; given up after {self._reopen_limit} attempts: deactivate, '
                            'clean up and configure the cameras to try again')
        return False
