"""``mivla up`` on a terminal, with a stand-in for the driver: keys, signals, exit codes."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('mivla_msgs')

pytestmark = pytest.mark.timeout(60)

# A driver as far as the operator's side goes: latched state, stop service, clean end.
DRIVER = '''
import signal, sys
import rclpy
from mivla_core.ros.qos import LATCHED
from mivla_msgs.msg import DriverState
from mivla_msgs.srv import StopRobot
from rclpy.signals import SignalHandlerOptions
rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
ended = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda n, f: ended.append(n))
node = rclpy.create_node('driver')
state = node.create_publisher(DriverState, 'driver/state', LATCHED)
def stop(request, response):
    state.publish(DriverState(state=DriverState.STOPPED, detail=request.reason))
    response.ok, response.message = True, 'braking'
    return response
node.create_service(StopRobot, 'driver/stop', stop)
state.publish(DriverState(state=DriverState.HOLDING))
while not ended:
    rclpy.spin_once(node, timeout_sec=0.05)
node.get_logger().warning('arm is left powered')
rclpy.shutdown()
'''

# ``mivla up`` with that driver behind the executable's name.
UP = '''
import sys
from mivla_bringup import stack
stack.MODULES = {('mivla_drivers', 'driver'): 'stand_in_driver'}
from mivla_bringup.cli import main
sys.exit(main(['up', 'cameras:=false']))
'''


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, folder: Path) -> None:
        (folder / 'stand_in_driver.py').write_text(DRIVER)
        self._master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.text = ''
        environment = {
            **os.environ, 'PYTHONPATH': f'{folder}{os.pathsep}{os.environ.get("PYTHONPATH", "")}',
            'MIVLA_LOG_DIR': str(folder / 'logs'), 'ROS_DOMAIN_ID': str(60 + os.getpid() % 40)}
        self.process = subprocess.Popen(
            [sys.executable, '-c', UP], stdin=self._slave, stdout=self._slave,
            stderr=self._slave, env=environment, start_new_session=True,
            preexec_fn=lambda: _own(self._slave))

    def expect(self, text: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.text:
            left = deadline - time.monotonic()
            assert left > 0.0, f'{text!r} did not come; there was:\n{self.text}'
            if select.select([self._master], [], [], left)[0]:
                self.text += os.read(self._master, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        self.expect('ended; logs in')
        return self.process.wait(10.0)

    def mode(self) -> object:
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


def _own(descriptor: int) -> None:
    import fcntl
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    it = Terminal(tmp_path)
    yield it
    it.close()


def test_space_bar_stops_the_robot_and_ctrl_c_ends_everything(terminal: Terminal,
                                                              tmp_path: Path) -> None:
    terminal.expect('every driver is up')
    assert terminal.mode() != terminal.before
    terminal.type('x')
    terminal.expect('space bar: STOP')
    terminal.type(' ')
    terminal.expect('STOP: piper: braking')
    terminal.expect('STOPPED, mode idle (space bar)')
    terminal.type('\x03')
    assert terminal.end() == 0, terminal.text
    assert 'stopping: Ctrl-C' in terminal.text
    assert terminal.mode() == terminal.before
    log, = (tmp_path / 'logs').glob('*/piper_driver.log')
    assert 'arm is left powered' in log.read_text()


def test_a_driver_that_is_killed_comes_back(terminal: Terminal) -> None:
    terminal.expect('every driver is up')
    children = Path(f'/proc/{terminal.process.pid}/task/{terminal.process.pid}/children')
    pids = [int(pid) for pid in children.read_text().split()
            if 'stand_in_driver' in Path(f'/proc/{pid}/cmdline').read_text()]
    os.kill(pids[0], signal.SIGKILL)
    terminal.expect('piper/driver: died: killed by SIGKILL')
    terminal.expect('piper/driver: respawning: again in 1 s')
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 0, terminal.text
