"""
``bench switch``: from "mivla switch" to the other robot's driver being active, server warm.

A real ``mivla up`` in a process of its own, simulated, with a policy; the robots take each other's
place again and again. The time ends with the first state of the new driver, which it publishes
from its first tick on. While nobody has enabled the newcomer, nothing may be commanded to it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mivla_bringup.arguments import listed
from mivla_bringup.bench.result import Metric, Result, percentiles
from mivla_bringup.control import ask, control_folder, sockets
from mivla_bringup.errors import BringupError, UsageError
from mivla_bringup.operate import RobotClient
from mivla_bringup.session import adopt, session
from mivla_bringup.stack import load_robot
from mivla_core.ros.qos import stream
from mivla_msgs.msg import JointCommand

__all__ = ['run']

ROBOTS = 'piper,arx5_x5'
PAUSE_S = 4.0       # between two switches, so that the whole newcomer is up


def run(seconds: float, domain: str, robots: str = '') -> Result:
    """
    Switch between two robots for about ``seconds``, at least twice.

    :param robots: the two, separated by a comma.
    """
    pair = listed(robots or ROBOTS)
    if len(pair) != 2:
        raise UsageError(f'--robots {robots}: bench switch takes two robots')
    names = {robot: load_robot(robot).name for robot in pair}
    adopt({'ROS_DOMAIN_ID': domain, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'})
    with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
        folder = Path(text)
        environment = {**os.environ, 'XDG_RUNTIME_DIR': text, 'MIVLA_LOG_DIR': f'{text}/logs'}
        with (folder / 'up.log').open('w') as log, session('mivla_bench') as node:
            commanded: list[str] = []
            clients = {robot: RobotClient(node, names[robot]) for robot in pair}
            for robot in pair:
                node.create_subscription(JointCommand, f'/{names[robot]}/command/applied',
                                         lambda _: commanded.append('one'), stream(200))
            up = subprocess.Popen(
                [sys.executable, '-m', 'mivla_bringup', 'up', f'robot:={pair[0]}',
                 f'standby:={pair[1]}', 'sim:=true', 'policy:=constant_time',
                 f'domain:={domain}', 'camera_width:=320', 'camera_height:=240'],
                env=environment, stdout=log, stderr=subprocess.STDOUT)
            try:
                took, down = _switches(pair, names, clients, environment, domain, seconds)
            except BringupError as err:
                tail = (folder / 'up.log').read_text().splitlines()[-5:]
                raise BringupError('; '.join([str(err), *tail])) from err
            finally:
                up.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    up.wait(30.0)
                up.kill()
    row = percentiles(took)
    return Result('switch', len(took), {
        'switch_s': Metric(row['p50'], 's', '<5'), 'switch_max_s': Metric(row['max'], 's'),
        'commands_before_enable': Metric(float(len(commanded)), '', '=0')},
        {'request to active': (took, 's'), 'of it the first going down': (down, 's')}, {},
        [f'{pair[0]} and {pair[1]} in turns, simulated, beside a policy server that stays'])


def _switches(pair: Sequence[str], names: dict[str, str], clients: dict[str, RobotClient],
              environment: dict[str, str], domain: str,
              seconds: float) -> tuple[list[float], list[float]]:
    """Return how long each switch took, and how long the first robot took to go down [s]."""
    clients[pair[0]].wait_state(lambda state: True, 60.0, 'the first driver')
    time.sleep(PAUSE_S)
    took: list[float] = []
    down: list[float] = []
    here, there = pair
    until = time.monotonic() + seconds
    while len(took) < 2 or time.monotonic() < until:
        (path,) = sockets(control_folder(environment), domain)
        seen = clients[there].state
        begun = time.monotonic()
        answer = ask(path, {'do': 'switch', 'from': names[here], 'to': there})
        if answer is None:
            raise BringupError('the stack has gone')
        # A driver's first state is another message than its predecessor's last one.
        clients[there].wait_state(lambda state, seen=seen: state is not seen,  # type: ignore[misc]
                                  60.0, 'the other driver')
        took.append(time.monotonic() - begun)
        down.append(float(answer['down_seconds']))
        print(f'{here} -> {there}: {took[-1]:.1f} s', flush=True)
        time.sleep(PAUSE_S)
        here, there = there, here
    return took, down
