"""A machine that stands still is seen, from one question to the next."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing

import pytest

from mivla_core.stall_watch import StallWatch


@pytest.mark.parametrize('priority', [0, 60])
def test_a_machine_that_stands_still_is_seen(priority: int) -> None:
    with closing(StallWatch(priority)) as watch:
        os.kill(watch.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(watch.pid, signal.SIGCONT)
        assert watch.worst() > 0.08


def test_only_who_asks_for_a_priority_has_one() -> None:
    with closing(StallWatch()) as watch:
        assert os.sched_getscheduler(watch.pid) == os.SCHED_OTHER


def test_it_ends_when_it_is_closed() -> None:
    watch = StallWatch()
    watch.close()
    with pytest.raises(ProcessLookupError):
        os.kill(watch.pid, 0)
