"""The executable ``world``, in a process and a ROS domain of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('mivla_msgs.msg', reason='the workspace is not built')

from mivla_msgs.msg import SimState  # noqa: E402
from mivla_msgs.srv import ResetScene  # noqa: E402

DOMAIN = 71
BLOCK = Path(f'/dev/shm/mivla_sim_{DOMAIN}_testarm')


def world(*parameters: str) -> subprocess.Popen[str]:
    environment = {**os.environ, 'ROS_DOMAIN_ID': str(DOMAIN),
                   'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    command = [sys.executable, '-m', 'mivla_drivers.sim.world_process', '--ros-args',
               '-r', '__ns:=/testarm']
    for parameter in parameters:
        command += ['-p', parameter]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def node() -> Iterator[rclpy.node.Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    made = rclpy.create_node('observer', context=context)
    yield made
    made.destroy_node()
    context.try_shutdown()


def spin_until(node: rclpy.node.Node, done: Callable[[], bool], seconds: float = 20.0) -> None:
    executor = rclpy.executors.SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    executor.remove_node(node)
    assert done(), f'not within {seconds} s'


def test_world_runs_resets_and_ends_cleanly(node: rclpy.node.Node) -> None:
    states: list[SimState] = []
    node.create_subscription(SimState, '/testarm/sim/state', states.append, 10)
    client = node.create_client(ResetScene, '/testarm/sim/reset')
    child = world('seed:=3')
    try:
        spin_until(node, lambda: len(states) > 5 and client.service_is_ready())
        assert BLOCK.exists()
        assert (states[-1].task, states[-1].seed, states[-1].level) == ('click_bell', 3, 'easy')
        assert 0.0 < states[-1].realtime_factor_min <= states[-1].realtime_factor + 1e-9 < 1.2
        request = ResetScene.Request(task='click_bell', seed=8, level='hard')
        answer = client.call_async(request)
        spin_until(node, lambda: answer.done() and states[-1].seed == 8)
        assert answer.result().ok and states[-1].level == 'hard' and states[-1].episode == 2
        refused = client.call_async(ResetScene.Request(task='juggle', seed=8, level='hard'))
        spin_until(node, refused.done)
        assert not refused.result().ok and 'click_bell' in refused.result().message
        second = world()
        assert second.wait(timeout=30) == 1
        assert second.stderr is not None and 'still running' in second.stderr.read()
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=10) == 0
        assert not BLOCK.exists()
    finally:
        child.kill()
        child.wait(timeout=10)


@pytest.mark.parametrize('parameter, words', [
    ('level:=medium', 'easy'), ('robot:=nobody', 'piper'), ('interface:=nowhere', 'nowhere')])
def test_world_refuses_in_one_line(parameter: str, words: str) -> None:
    child = world(parameter)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 1
    assert words in errors.strip().splitlines()[-1] and 'Traceback' not in errors
    assert not BLOCK.exists()
