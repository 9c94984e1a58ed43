"""
The executable ``world``: the emulated arm on its bus and the simulated bench, in wall time.

The main thread keeps to the clock: it takes frames the moment they arrive, runs the device and the
physics at 200 Hz and publishes the state in shared memory. A second thread speaks ROS:
``sim/state`` (20 Hz and at success) and the service ``sim/reset``.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import can
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from mivla_core.errors import MivlaError
from mivla_core.profile import load_profile
from mivla_core.ros.params import declare, param
from mivla_core.ros.qos import stream
from mivla_core.timing import NS_PER_S, NowNs, StampNs, monotonic_now
from mivla_drivers.can.loopback import INTERFACE, open_bus
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.disturbance import Disturbance
from mivla_drivers.sim.frame_log import FrameLog
from mivla_drivers.sim.pacing import Pacer, RealtimeFactor
from mivla_drivers.sim.runtime import TICK_NS, WorldReport, WorldRuntime, device_maker
from mivla_drivers.sim.scenario import INSTRUCTIONS, LEVELS, Scenario
from mivla_drivers.sim.scene import scene_id
from mivla_drivers.sim.state_block import StateWriter, block_path
from mivla_msgs.msg import SimState
from mivla_msgs.srv import ResetScene

__all__ = ['main']

_STATE_HZ = 20.0
_PRIORITY = 40
# The device's clock may run this far behind before time is given up for lost: four ticks.
_CATCH_UP_NS = 4 * TICK_NS
_RESET_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class WorldParams:
    """Parameters of the node."""

    robot: str = param('piper', 'Robot profile: a name or a path.')
    task: str = param('click_bell', 'Task to place.', choices=sorted(INSTRUCTIONS))
    seed: int = param(0, 'Seed of the first scene.', low=0)
    level: str = param('easy', 'How much light and colours vary.', choices=LEVELS)
    interface: str = param(INTERFACE, "python-can interface of the emulated arm's bus.")
    channel: str = param('', 'Channel of that bus; empty: the name of the robot in the graph.')
    realtime: bool = param(True, 'Ask for SCHED_FIFO.')
    disturbance_sigma: float = param(
        0.0, 'Spread of the noise on motor targets (DART) [rad].', low=0.0, high=0.2
    )
    disturbance_seed: int = param(0, 'Seed of that noise.', low=0)
    frame_log: str = param('', 'File (.npy) for the received frames, written at the end.')


@dataclass
class _Reset:
    """A reset on its way from the ROS thread to the main thread and back."""

    task: str
    seed: int
    level: str
    done: threading.Event
    error: str = ''


@dataclass(frozen=True)
class _Published:
    """What the main thread leaves for the ROS thread; replaced as a whole."""

    stamp: StampNs
    report: WorldReport
    factor: float
    worst: float


class _Loop:
    """The main thread: bus, device, physics and shared memory, in wall time."""

    def __init__(
        self,
        runtime: WorldRuntime,
        bus: can.BusABC,
        block: StateWriter,
        log: FrameLog | None,
    ) -> None:
        self._runtime, self._bus, self._block, self._log = runtime, bus, block, log
        self._pacer = Pacer(TICK_NS, _CATCH_UP_NS, monotonic_now())
        self._factor = RealtimeFactor(TICK_NS, NS_PER_S // TICK_NS)
        self._send: Callable[[list[tuple[int, bytes]]], None] = getattr(
            bus, 'send_many', self._send_each
        )
        self._file = bus.fileno()
        self.resets: queue.SimpleQueue[_Reset] = queue.SimpleQueue()
        self.on_success: Callable[[], None] = lambda: None
        self.stopping = False
        self.latest = self._publish(StampNs.wall())

    @property
    def lost_s(self) -> float:
        """Wall time that the world did not follow [s]."""
        return self._pacer.lost_ns * 1e-9

    def run(self) -> None:
        """Tick until ``stopping`` is set."""
        # The schedule begins now, not when the process was being set up.
        self._pacer = Pacer(TICK_NS, _CATCH_UP_NS, monotonic_now())
        while not self.stopping:
            self._listen_until(self._pacer.due)
            self._serve_reset()
            succeeded = self._runtime.success
            self._send(self._runtime.tick(monotonic_now()))
            stamp = StampNs.wall()
            self._block.write(self._runtime.snapshot(stamp))
            now = monotonic_now()
            self._factor.tick(now)
            self.latest = self._publish(stamp)
            if self._runtime.success and not succeeded:
                self.on_success()
            self._pacer.advance(now)

    def _publish(self, stamp: StampNs) -> _Published:
        return _Published(stamp, self._runtime.report(), self._factor.factor, self._factor.worst)

    def _listen_until(self, due: NowNs) -> None:
        """Hand frames to the device as they arrive, until the tick is due; at least once."""
        while True:
            self._drain()
            left = due - monotonic_now()
            if left <= 0 or self.stopping:
                return
            # Finer than the millisecond of python-can's own waiting; a bus without a descriptor is
            # polled.
            if self._file >= 0:
                select.select([self._file], [], [], left * 1e-9)
            else:
                time.sleep(min(left * 1e-9, 0.001))

    def _drain(self) -> None:
        while (message := self._bus.recv(0)) is not None:
            if message.is_error_frame or message.is_remote_frame or message.is_extended_id:
                continue
            now, data = monotonic_now(), bytes(message.data)
            if self._log is not None:
                self._log.add(now, message.arbitration_id, data)
            self._runtime.deliver(message.arbitration_id, data, now)

    def _send_each(self, frames: list[tuple[int, bytes]]) -> None:
        for can_id, data in frames:
            self._bus.send(can.Message(arbitration_id=can_id, data=data, is_extended_id=False))

    def _serve_reset(self) -> None:
        try:
            request = self.resets.get_nowait()
        except queue.Empty:
            return
        try:
            self._runtime.reset(request.task, request.seed, request.level)
            self._factor.restart()
        except SimError as error:
            request.error = str(error)
        self.latest = self._publish(StampNs.wall())
        request.done.set()


class _WorldNode(Node):
    """
    The ROS side: ground truth out, scene resets in. No arithmetic, and nothing that the loop waits
    for.
    """

    def __init__(self) -> None:
        super().__init__('world')
        self.params = declare(self, WorldParams)
        self._loop: _Loop | None = None

    @property
    def robot(self) -> str:
        """Name of the robot in the graph; the namespace, or empty."""
        return self.get_namespace().strip('/').replace('/', '_')

    def serve(self, loop: _Loop) -> None:
        """Begin to publish and to answer."""
        self._loop = loop
        self._publisher = self.create_publisher(SimState, 'sim/state', stream(_STATE_HZ))
        self._timer = self.create_timer(1.0 / _STATE_HZ, self._publish_state)
        self._succeeded = self.create_guard_condition(self._publish_state)
        self._service = self.create_service(ResetScene, 'sim/reset', self._reset)
        loop.on_success = self._succeeded.trigger

    def _publish_state(self) -> None:
        assert self._loop is not None
        latest = self._loop.latest
        report, message = latest.report, SimState()
        latest.stamp.fill(message.header.stamp)
        message.header.frame_id = 'base_link'
        message.task, message.seed, message.level = report.task, report.seed, report.level
        message.realtime_factor, message.realtime_factor_min = latest.factor, latest.worst
        message.target.x, message.target.y, message.target.z = report.state.target
        message.progress, message.success = report.state.progress, report.state.success
        message.success_seconds, message.episode = report.success_seconds, report.episode
        self._publisher.publish(message)

    def _reset(
        self, request: ResetScene.Request, response: ResetScene.Response
    ) -> ResetScene.Response:
        assert self._loop is not None
        reset = _Reset(request.task, request.seed, request.level, threading.Event())
        self._loop.resets.put(reset)
        if not reset.done.wait(_RESET_TIMEOUT_S):
            reset.error = f'the world did not answer within {_RESET_TIMEOUT_S:g} s'
        response.ok, response.message = not reset.error, reset.error
        self._publish_state()
        return response


def _ask_for_realtime(node: Node) -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except (OSError, AttributeError) as error:
        node.get_logger().warning(
            f'SCHED_FIFO refused ({error}): the emulated device may answer late; '
            'grant an rtprio limit'
        )


def _run(node: _WorldNode) -> None:
    """Set everything up, run until a signal comes, and take it down in the opposite order."""
    params = node.params
    profile = load_profile(params.robot)
    robot = node.robot or profile.name
    scenario = Scenario.draw(params.task, params.seed, params.level)
    disturbance = Disturbance(params.disturbance_sigma, params.disturbance_seed)
    log = FrameLog(Path(params.frame_log)) if params.frame_log else None
    make = device_maker(profile, disturbance)
    runtime = WorldRuntime(profile, scenario, make, monotonic_now())
    domain = int(os.environ.get('ROS_DOMAIN_ID') or 0)
    block = StateWriter(
        block_path(domain, robot), scene_id=scene_id(profile), positions=runtime.world.model.nq
    )
    try:
        channel = params.channel or robot
        try:
            bus = open_bus(params.interface, channel)
        except (can.CanError, ValueError) as error:
            raise SimError(f'cannot open the bus {params.interface}:{channel}: {error}') from error
        try:
            _serve(node, _Loop(runtime, bus, block, log))
        finally:
            bus.shutdown()
    finally:
        block.close()
        if log is not None:
            log.save()


def _serve(node: _WorldNode, loop: _Loop) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.serve(loop)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    def stop(_signum: int, _frame: object) -> None:
        loop.stopping = True

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    # A long turn of the other thread would make this one late by the default 5 ms.
    sys.setswitchinterval(0.0002)
    ros = threading.Thread(target=spin, name='ros', daemon=True)
    ros.start()
    if node.params.realtime:
        _ask_for_realtime(node)
    try:
        loop.run()
    finally:
        executor.shutdown(timeout_sec=1.0)
        ros.join(timeout=1.0)
    if loop.lost_s > 0.0:
        node.get_logger().warning(
            f'{loop.lost_s:.3f} s of wall time were not simulated: the machine is too slow'
        )


def main(args: list[str] | None = None) -> int:
    """Run the simulated world until Ctrl-C or SIGTERM; returns 0, or 1 when it could not start."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node: _WorldNode | None = None
    try:
        node = _WorldNode()
        _run(node)
        return 0
    except MivlaError as error:
        print(f'world: {error}', file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C before the loop had its handlers.
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
