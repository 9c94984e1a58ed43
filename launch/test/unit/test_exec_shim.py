"""The shim between supervisor and node: which signals the node hears."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import mivla_bringup

SHIM = Path(mivla_bringup.__file__).with_name('_exec_shim.py')
SHOW = 'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'


def ignoring_sigint():
    """What a shell does to the jobs that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_node_hears_sigint_although_its_starter_ignores_it():
    done = subprocess.run(
        [sys.executable, '-I', '-S', str(SHIM), str(os.getpid()), sys.executable, '-c', SHOW],
        preexec_fn=ignoring_sigint, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == 'True', done.stderr


def test_a_program_that_is_not_there_is_said():
    done = subprocess.run(
        [sys.executable, '-I', '-S', str(SHIM), str(os.getpid()), '/nonexistent/program'],
        capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert 'cannot run /nonexistent/program' in done.stderr
