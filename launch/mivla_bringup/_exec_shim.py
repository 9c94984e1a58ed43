"""
Run by the supervisor as ``python -I -S _exec_shim.py PARENT_PID ARGV...``: die with the parent.

Asks the kernel for a SIGTERM when the supervisor dies, however it dies, and becomes the program
named by the remaining words. A shim and not a ``preexec_fn``: the supervisor may have threads, and
Python code between fork and exec is unsafe then. Imports nothing but the standard library.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arm the parent-death signal, then become the program."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        sys.exit(f'prctl: {os.strerror(ctypes.get_errno())}')
    if os.getppid() != parent:    # it died before the kernel was asked
        sys.exit('the supervisor is gone')
    # A shell starts background jobs with SIGINT ignored, and that is inherited: the program must
    # hear the signals that it is stopped with.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as err:
        sys.exit(f'cannot run {argv[0]}: {err.strerror}')


if __name__ == '__main__':
    main()
