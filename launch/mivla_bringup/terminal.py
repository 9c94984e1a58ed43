"""
Single keys from a terminal, and its mode put back whatever happens.

Ctrl-C stays a signal; Ctrl-Z is off while a robot is supervised, since a suspended supervisor
could not stop it.
"""

from __future__ import annotations

import atexit
import os
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ['is_terminal', 'single_keys']


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that this process is in the foreground of."""
    try:
        # A background process that touches the terminal's mode is suspended for it.
        return stream.isatty() and os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (ValueError, OSError):    # closed, or not ours
        return False


@contextmanager
def single_keys(stream: TextIO = sys.stdin) -> Iterator[Callable[[], str]]:
    """
    Hand over the keys of a terminal one by one, without echo, while the block runs.

    Gives a function that returns the keys typed so far, to be called when the stream is readable.
    """
    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)

    def restore() -> None:
        try:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        except termios.error:
            return    # the terminal has hung up: there is no mode left to put back

    mode = termios.tcgetattr(descriptor)
    mode[3] &= ~(termios.ICANON | termios.ECHO)
    mode[6][termios.VMIN] = 1
    mode[6][termios.VTIME] = 0
    mode[6][termios.VSUSP] = b'\x00'
    atexit.register(restore)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
    try:
        yield lambda: os.read(descriptor, 64).decode('utf-8', 'replace')
    finally:
        restore()
        atexit.unregister(restore)
