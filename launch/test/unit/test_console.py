"""What the operator sees, and the terminal that is put back."""

import io
import os
import pty
import termios
import time

import pytest

from mivla_bringup.console import Console
from mivla_bringup.supervisor import Event, EventKind
from mivla_bringup.terminal import is_terminal, single_keys


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def shown(*events: Event, verbose: bool = False) -> str:
    stream = io.StringIO()
    console = Console(stream, verbose=verbose)
    for event in events:
        console.event(event)
    return stream.getvalue()


@pytest.mark.parametrize(('line', 'wanted'), [
    ('[INFO] [1.2] [piper.driver]: connected', False), ('[DEBUG] [1.2] [x]: y', False),
    ('', False),
    ('[WARN] [1.2] [piper.driver]: SCHED_FIFO refused', True),
    ('[ERROR] [1.2] [piper.cameras]: head: unplugged', True),
    ('driver: configure: bus is silent', True)])
def test_quiet_shows_what_the_operator_has_to_know(line: str, wanted: bool) -> None:
    assert bool(shown(Event(EventKind.OUTPUT, 'piper/driver', line))) is wanted


def test_what_an_interrupted_interpreter_says_is_for_the_log() -> None:
    text = shown(Event(EventKind.STOPPING, '', 'Ctrl-C'),
                 Event(EventKind.OUTPUT, 'piper/world', 'Traceback (most recent call last):'))
    assert 'stopping: Ctrl-C' in text and 'Traceback' not in text


def test_verbose_shows_everything() -> None:
    assert 'connected' in shown(Event(EventKind.OUTPUT, 'd', '[INFO] connected'), verbose=True)


def test_deaths_and_forced_ends_are_shown() -> None:
    text = shown(Event(EventKind.DIED, 'piper/world', 'killed by SIGSEGV after 2.0 s'),
                 Event(EventKind.FORCED, 'x', 'x did not stop on SIGINT; SIGTERM stopped it'))
    assert 'piper/world: died: killed by SIGSEGV' in text
    assert 'WARNING: x did not stop' in text


def test_the_status_line_stays_below_the_lines_on_a_terminal_only() -> None:
    stream = io.StringIO()
    console = Console(stream, terminal=True)
    console.status('piper: HOLDING')
    console.say('hello')
    assert stream.getvalue().endswith('hello\npiper: HOLDING')
    plain = io.StringIO()
    Console(plain).status('piper: HOLDING')
    assert plain.getvalue() == ''


def test_a_reader_that_has_gone_does_not_stop_the_supervision() -> None:
    console = Console(Gone())
    console.say('one')
    console.say('two')


def test_keys_come_one_by_one_and_the_mode_is_put_back() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, 'r') as stream, os.fdopen(master, 'wb', buffering=0) as keyboard:
        before = termios.tcgetattr(stream)
        with pytest.raises(KeyboardInterrupt), single_keys(stream) as keys:
            during = termios.tcgetattr(stream)
            assert not during[3] & (termios.ICANON | termios.ECHO)
            assert during[3] & termios.ISIG, 'Ctrl-C stays a signal'
            assert during[6][termios.VSUSP] == b'\x00'
            keyboard.write(b' ')    # no newline needed
            time.sleep(0.01)
            assert keys() == ' '
            raise KeyboardInterrupt
        assert termios.tcgetattr(stream) == before


def test_a_terminal_that_hangs_up_is_no_error() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, 'r') as stream, single_keys(stream):
        os.close(master)


def test_what_is_no_terminal_of_ours(tmp_path: object) -> None:
    assert not is_terminal(io.StringIO())
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(closed)
