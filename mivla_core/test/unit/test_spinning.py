"""A thread that spins, and leaves nothing half done when it ends."""

import threading

import pytest

rclpy = pytest.importorskip('rclpy', reason='rclpy is not importable: source a ROS 2 installation')

from mivla_core.ros.spinning import Spinning  # noqa: E402

LONG_S = 20.0


@pytest.fixture
def node(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = rclpy.Context()
    rclpy.init(context=context)
    made = rclpy.create_node('spun', context=context)
    yield made
    made.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize('threads', [1, 2])
def test_callbacks_run_until_it_is_stopped(node, threads):
    came = threading.Semaphore(0)
    timer = node.create_timer(0.001, came.release)
    with Spinning(node, context=node.context, threads=threads):
        assert all(came.acquire(timeout=LONG_S) for _ in range(3))
    while came.acquire(blocking=False):
        pass
    assert not came.acquire(timeout=0.02) and not timer.is_canceled()


def test_an_idle_one_ends_at_once_and_may_be_stopped_twice(node):
    spinning = Spinning(node, context=node.context)
    assert spinning.stop(LONG_S) and spinning.stop(LONG_S)


def test_the_callback_that_runs_returns_before_the_executor_goes_down(node):
    """It may still make a task: rclpy's own shutdown takes the executor apart under it."""
    entered, may_go_on, made = threading.Event(), threading.Event(), []

    def late() -> None:
        entered.set()
        may_go_on.wait(LONG_S)
        made.append(node.executor.create_task(lambda: None))

    timer = node.create_timer(0.001, late)
    spinning = Spinning(node, context=node.context)
    assert entered.wait(LONG_S)
    threading.Timer(0.05, may_go_on.set).start()
    assert spinning.stop(LONG_S) and len(made) == 1
    timer.cancel()


def test_one_that_does_not_return_is_told(node):
    entered, may_go_on = threading.Event(), threading.Event()

    def long() -> None:
        entered.set()
        may_go_on.wait(LONG_S)

    node.create_timer(0.001, long)
    spinning = Spinning(node, context=node.context)
    assert entered.wait(LONG_S)
    assert not spinning.stop(0.01)
    may_go_on.set()


def test_it_ends_with_its_context(node):
    spinning = Spinning(node, context=node.context)
    node.context.shutdown()
    assert spinning.stop(LONG_S)


def test_what_is_destroyed_meanwhile_does_not_end_it(node):
    came = threading.Event()
    with Spinning(node, context=node.context):
        for _ in range(100):
            node.destroy_timer(node.create_timer(0.0005, lambda: None))
        node.create_timer(0.001, came.set)
        assert came.wait(LONG_S)
