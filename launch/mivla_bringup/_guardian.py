"""
Run by the supervisor as ``python -I -S _guardian.py GRACE``: nothing outlives the supervisor.

Reads '+PGID' and '-PGID' lines on standard input. When the pipe closes, the supervisor is gone,
however it went: what is still alive gets GRACE seconds for the SIGTERM that the kernel has sent
already, then a SIGKILL to its whole process group. Imports nothing but the standard library.
"""

import os
import signal
import sys
import time


def alive(group: int) -> bool:
    """Return whether a process group has a member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill(group: int, number: int) -> None:
    """Signal a group that may just have gone."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return    # gone, or no longer ours: nothing left to do


def main() -> None:
    """Watch the pipe, then clean up."""
    grace = float(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == '+' else groups.discard)(group)
    for group in groups:
        kill(group, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while groups and time.monotonic() < deadline:
        time.sleep(0.02)
        groups = {group for group in groups if alive(group)}
    for group in groups:
        kill(group, signal.SIGKILL)


if __name__ == '__main__':
    main()
