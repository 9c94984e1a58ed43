"""Settings of all tests."""

import os
import sys
import tempfile
from typing import Any

import pytest
import pytest_timeout
from _pytest.runner import runtestprotocol
from hypothesis import settings

from mivla_core.stall_watch import StallWatch

# The same examples every time: a test that fails for somebody fails for everybody.
settings.register_profile('suite', derandomize=True, deadline=None, database=None)
settings.load_profile('suite')

# The CUDA build of torch brings triton, and its LLVM crashes in a process in which Mesa has loaded
# its own. One process runs all tests, those that render and those that train.
modules: dict[str, Any] = sys.modules
modules.setdefault('triton', None)

# Drivers under test have faults on purpose: their black boxes are not to push out a robot's own.
os.environ.setdefault('MIVLA_BLACKBOX_DIR', tempfile.mkdtemp(prefix='mivla-blackbox-'))

# Tests of threads, nodes and graphs are judged on a machine that runs. Two control periods.
STALL_S = 0.01
_machine = pytest.StashKey[StallWatch]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have the machine watched."""
    session.config.stash[_machine] = StallWatch()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the watch."""
    session.config.stash[_machine].close()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """
    Run a test once more when it failed while the machine stood still.

    Drivers stop a robot whose computer stands still, as they should; no test can tell that stop
    from a fault of the code. It is run again only where that was seen, once, and it is said.
    """
    machine = item.config.stash[_machine]
    machine.worst()
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    stalled = machine.worst()
    if any(report.failed for report in reports) and stalled > STALL_S:
        why = '; '.join(str(report.longrepr).strip().splitlines()[-1] for report in reports
                        if report.failed)
        item.config.get_terminal_writer().line(
            f'\n{item.nodeid}: the machine stood still for {stalled * 1e3:.0f} ms; once more '
            f'({why})')
        timeouts = item.config.pluginmanager.hook
        timeouts.pytest_timeout_cancel_timer(item=item)
        timeouts.pytest_timeout_set_timer(
            item=item, settings=pytest_timeout._get_item_settings(item))
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
