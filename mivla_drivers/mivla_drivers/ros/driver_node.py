"""
The driver of one robot: the only node that speaks to its hardware.

The control thread reads commands, ticks the controller (select, guard, backend) and publishes what
was measured and what was sent. Everything else (services, the stop topic, status) happens in the
executor's threads; the stop topic and the stop service each have one of their own, so that neither
waits for a service that waits for the device.
"""

from __future__ import annotations

import array
import gc
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from mivla_core.profile import load_profile
from mivla_core.ros.lifecycle import ManagedNode, run_node
from mivla_core.ros.params import declare, param
from mivla_core.ros.qos import COMMAND, LATCHED, stream
from mivla_core.timing import NowNs, StampNs, monotonic_now, to_ns
from mivla_core.urdf import to_urdf
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from mivla_drivers.core.controller import Controller, TickResult
from mivla_drivers.core.machine import Mode, State
from mivla_drivers.core.port import ArmBackend, DeviceInfo, backend_class
from mivla_drivers.core.requests import Request
from mivla_drivers.errors import DriverError
from mivla_drivers.ros.command_input import CommandInput
from mivla_drivers.ros.control_thread import ControlThread
from mivla_msgs.msg import Count, DriverState, GuardStatus, JointCommand, ProfileText, Stop
from mivla_msgs.srv import Disable, Enable, Home, Reset, SetMode, StopRobot

__all__ = ['PRIORITY', 'DriverNode', 'DriverParams', 'main']

PRIORITY = 50              # SCHED_FIFO, above every other loop of the suite
STATUS_HZ = 10.0
ANSWER_S = 3.0             # a request is answered by the next tick; reconnecting takes two seconds
BRAKE_S = 3.0              # the longest braking at the profiles' decelerations is well below
_RETRY_S = 0.5


@dataclass(frozen=True)
class DriverParams:
    """Parameters of the driver."""

    robot: str = param('piper', 'Robot profile: a name or a path.')
    interface: str = param('', 'python-can interface; empty: as the profile says.')
    channel: str = param('', 'Channel of that bus; empty: as the profile says.')
    connect_timeout: float = param(2.0, 'How long to look for the device [s].', low=0.0,
                                   high=300.0)
    realtime: bool = param(True, 'Ask for SCHED_FIFO.')


class DriverNode(ManagedNode):
    """Lifecycle node; executable ``driver``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('driver', **kwargs)
        self.params = declare(self, DriverParams)
        self.profile = load_profile(self.params.robot)
        self._backend: Optional[ArmBackend] = None
        self._thread: Optional[ControlThread] = None
        self._info: Optional[DeviceInfo] = None
        self._release: list[Callable[[], Any]] = []
        self._shown: tuple[Any, ...] = ()
        self._beats = 0
        self._result: Optional[TickResult] = None

    # Lifecycle --------------------------------------------------------------------------------

    def setup(self) -> None:
        """Connect to the device, without changing its torque, and open the topics."""
        driver = self.profile.driver
        self._bus = (self.params.interface or driver.interface,
                     self.params.channel or driver.channel)
        self._backend = backend_class(driver.backend)(self.profile, *self._bus, driver.parameters)
        self._info = self._connect(self._backend)
        firmware = f', firmware {self._info.firmware}' if self._info.firmware else ''
        self.get_logger().info(f'{self._info.kind} on {":".join(self._bus)}{firmware}; torque is '
                               'as it was')
        self.controller = Controller(self.profile, self._backend)
        self._open_topics()
        self._open_services()

    def _connect(self, backend: ArmBackend) -> DeviceInfo:
        deadline = time.monotonic() + self.params.connect_timeout
        while True:
            try:
                return backend.connect(monotonic_now())
            except DriverError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_S)

    def start(self) -> None:
        """Run the control loop; nothing moves before an explicit enable."""
        self._thread = ControlThread(
            self.profile.rates.control, self._tick, PRIORITY if self.params.realtime else 0,
            self.get_logger().warning, self._loop_died)
        self._thread.start()
        self._publish_profile()

    def halt(self) -> None:
        """Brake and hold; the arm stays powered."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.controller.request_deactivate()
        deadline = time.monotonic() + BRAKE_S
        time.sleep(2.0 / self.profile.rates.control)
        while not self.controller.standing and time.monotonic() < deadline:
            time.sleep(1.0 / self.profile.rates.control)
        held = self.controller.state is not State.DISABLED
        if not thread.stop():
            self.get_logger().error('the control loop hangs; left behind')
        self._publish_state()
        self.get_logger().info('stopped: the arm holds under power' if held else
                               'stopped: torque was off')

    def teardown(self) -> None:
        """Let go of the bus and of every ROS entity; torque stays as it is."""
        while self._release:
            self._release.pop()()
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    # Topics -----------------------------------------------------------------------------------

    def _open_topics(self) -> None:
        rate = self.profile.rates.control
        names = list(self.profile.joint_names)

        def publisher(kind: Any, topic: str, qos: Any) -> Any:
            made = self.create_publisher(kind, topic, qos)
            self._release.append(lambda: self.destroy_publisher(made))
            return made

        self._states = publisher(JointState, 'joint_states', stream(rate))
        self._applied = publisher(JointCommand, 'command/applied', stream(rate))
        self._guard = publisher(GuardStatus, 'guard/status', stream(STATUS_HZ))
        self._driver = publisher(DriverState, 'driver/state', LATCHED)
        self._profile = publisher(ProfileText, 'profile', LATCHED)
        self._urdf = publisher(String, 'robot_description', LATCHED)
        self._diagnostics = publisher(DiagnosticArray, '/diagnostics', COMMAND)
        # Filled anew in every tick: making messages costs more than publishing them.
        self._state_message = JointState(name=names)
        self._state_message.header.frame_id = 'base_link'
        self._applied_message = JointCommand(name=names, profile_hash=self.profile.hash)
        self._state_stamp = StampNs(0)
        self._inputs = [CommandInput(self, f'command/{name}', self.controller)
                        for name in ('teleop', 'policy')]
        self._release += [given.destroy for given in self._inputs]
        group = MutuallyExclusiveCallbackGroup()
        stop = self.create_subscription(Stop, 'stop', self._on_stop, COMMAND,
                                        callback_group=group)
        status = self.create_timer(1.0 / STATUS_HZ, self._on_status,
                                   callback_group=MutuallyExclusiveCallbackGroup())
        self._release += [lambda: self.destroy_subscription(stop),
                          lambda: self.destroy_timer(status)]

    def _open_services(self) -> None:
        # Requests wait for the device; they may wait side by side, and nothing waits for them.
        waiting = ReentrantCallbackGroup()
        for kind, name, action, group in (
                (Enable, 'enable', self._enable, waiting),
                (Disable, 'disable', self._disable, waiting),
                (Reset, 'reset', self._reset, waiting),
                (Home, 'home', self._home, waiting),
                (SetMode, 'set_mode', self._set_mode, waiting),
                (StopRobot, 'stop', self._stop, MutuallyExclusiveCallbackGroup())):
            service = self.create_service(kind, f'driver/{name}', action, callback_group=group)
            self._release.append(lambda service=service: self.destroy_service(service))

    def _publish_profile(self) -> None:
        profile = self.profile
        self._profile.publish(ProfileText(name=profile.name, hash=profile.hash,
                                          text=profile.text))
        self._urdf.publish(String(data=to_urdf(profile)))

    # The control thread -----------------------------------------------------------------------

    def _tick(self, now: NowNs, stamp: StampNs) -> None:
        received, arrived = monotonic_now(), StampNs.wall()
        for given in self._inputs:
            given.drain(received, arrived)
        result = self.controller.tick(now, stamp)
        self._result = result
        self._publish_measurement(result)
        self._publish_applied(result)
        shown = (result.state, result.mode, result.braking, result.ramping, result.detail,
                 result.measurement.powered if result.measurement else False,
                 result.measurement.faults if result.measurement else ())
        if shown != self._shown:
            self._shown = shown
            self._publish_state()

    def _publish_measurement(self, result: TickResult) -> None:
        measured = result.measurement
        if measured is None or measured.stamp_ns <= self._state_stamp:
            return
        self._state_stamp = measured.stamp_ns
        message = self._state_message
        measured.stamp_ns.fill(message.header.stamp)
        message.position = array.array('d', measured.position.tobytes())
        message.velocity = array.array('d', measured.velocity.tobytes())
        message.effort = array.array('d', measured.effort.tobytes())
        self._states.publish(message)

    def _publish_applied(self, result: TickResult) -> None:
        applied = result.setpoint
        if applied is None:
            return
        message = self._applied_message
        applied.stamp.fill(message.header.stamp)
        message.source = applied.source.value
        message.sequence = applied.sequence
        applied.observation_stamp.fill(message.observation_stamp)
        message.chunk_id = applied.chunk_id
        message.position = array.array('d', applied.position)
        message.velocity = array.array('d', applied.velocity)
        self._applied.publish(message)

    def _loop_died(self, error: BaseException) -> None:
        """Say that nothing commands the arm any more, and go down: a new driver holds."""
        text = ''.join(traceback.format_exception(error))
        self.get_logger().fatal(f'the control loop ended: {text}')
        self.failure = f'the control loop ended: {error}'
        self.broken = True

    # Executor threads -------------------------------------------------------------------------

    def _on_stop(self, message: Stop) -> None:
        self.controller.request_stop(f'{message.source or "somebody"}: '
                                     f'{message.reason or "no reason given"}')

    def _on_status(self) -> None:
        """Publish what changes slowly; collect the garbage that the control loop must not."""
        gc.collect(0)
        thread, result = self._thread, self._result
        if thread is None or result is None:
            return
        report = self.controller.report(monotonic_now())
        message = GuardStatus(
            last_verdict=report.last, last_reason=report.reason,
            verdicts=[Count(name=name, count=count)
                      for name, count in sorted(report.counts.items())],
            command_age=report.command_age,
            distance_to_target=array.array('d', report.distance))
        StampNs.wall().fill(message.header.stamp)
        summary, loop = thread.stats.summary(), message.loop
        loop.target_hz = float(self.profile.rates.control)
        loop.ticks, loop.missed = summary.ticks, summary.missed
        loop.interval_p50, loop.interval_p95 = summary.p50, summary.p95
        loop.interval_p99, loop.interval_max = summary.p99, summary.max
        loop.busy_p99, loop.realtime = summary.busy_p99, thread.realtime
        self._guard.publish(message)
        self._beats += 1
        if self._beats % round(STATUS_HZ) == 0:
            self._publish_state()
            self._diagnose(result, message)

    def _publish_state(self) -> None:
        result = self._result
        message = DriverState(
            robot=self.profile.name, state=self.controller.state.value,
            mode=self.controller.mode.value, detail=self.controller.detail,
            firmware=self._info.firmware if self._info else '', bus=':'.join(self._bus))
        StampNs.wall().fill(message.header.stamp)
        if result is not None:
            message.braking, message.ramping = result.braking, result.ramping
            if result.measurement is not None:
                message.powered = result.measurement.powered
                message.faults = list(result.measurement.faults)
        self._driver.publish(message)

    def _diagnose(self, result: TickResult, guard: GuardStatus) -> None:
        bad = result.state in (State.STOPPED, State.FAULT)
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if result.state is State.FAULT else
            DiagnosticStatus.WARN if bad else DiagnosticStatus.OK,
            name=f'{self.profile.name}: driver', hardware_id=':'.join(self._bus),
            message=result.detail or result.state.name)
        measured = result.measurement
        age = (monotonic_now() - measured.received) * 1e-6 if measured else float('nan')
        words = {'state': result.state.name, 'mode': result.mode.name,
                 'feedback age [ms]': f'{age:.1f}', 'missed ticks': str(guard.loop.missed),
                 'interval p99 [ms]': f'{guard.loop.interval_p99 * 1e3:.2f}',
                 'device': ', '.join(measured.status) if measured else 'silent'}
        status.values = [KeyValue(key=key, value=value) for key, value in words.items()]
        message = DiagnosticArray(status=[status])
        StampNs.wall().fill(message.header.stamp)
        self._diagnostics.publish(message)

    # Services ---------------------------------------------------------------------------------

    def _answer(self, request: Request, response: Any, timeout: float = ANSWER_S) -> Any:
        if request.wait(timeout):
            response.ok, response.message = request.ok, request.message
        else:
            response.ok = False
            response.message = (f'the control loop did not answer within {timeout:g} s; is the '
                                'driver active?')
        return response

    def _enable(self, request: Enable.Request, response: Enable.Response) -> Enable.Response:
        del request
        return self._answer(self.controller.enable(), response,
                            self.profile.guard.enable_timeout + ANSWER_S)

    def _disable(self, request: Disable.Request, response: Disable.Response) -> Disable.Response:
        return self._answer(self.controller.disable(request.force), response)

    def _reset(self, request: Reset.Request, response: Reset.Response) -> Reset.Response:
        del request
        return self._answer(self.controller.reset(), response)

    def _home(self, request: Home.Request, response: Home.Response) -> Home.Response:
        del request
        return self._answer(self.controller.home(), response)

    def _set_mode(self, request: SetMode.Request, response: SetMode.Response) -> SetMode.Response:
        try:
            mode = Mode(request.mode)
        except ValueError:
            response.ok = False
            response.message = (f'mode {request.mode} does not exist; valid: '
                                + ', '.join(f'{m.value} {m.name.lower()}' for m in Mode))
            return response
        return self._answer(self.controller.set_mode(mode), response)

    def _stop(self, request: StopRobot.Request, response: StopRobot.Response) -> Any:
        self.controller.request_stop(f'service: {request.reason or "no reason given"}')
        deadline = monotonic_now() + to_ns(ANSWER_S)
        while monotonic_now() < deadline:
            if self.controller.state not in (State.MOVING, State.HOLDING):
                response.ok = True
                response.message = f'{self.controller.state.name}; {self.controller.detail}'
                return response
            time.sleep(0.002)
        response.ok, response.message = False, 'the control loop does not run; cut the power'
        return response


def main(args: Optional[list[str]] = None) -> int:
    """Run the driver."""
    # The control thread waits for the interpreter lock at most this long behind another thread.
    sys.setswitchinterval(2e-4)
    return run_node(DriverNode, args, threads=5)


if __name__ == '__main__':
    raise SystemExit(main())
