"""
ARX-5 (X5 and L5) on any python-can interface.

The motors speak only when spoken to, and obey their last command for ever: so something goes out
in every tick, whatever the state. While the arm is not driven, Damiao motors are asked for a
feedback frame, which changes nothing in them; EC motors know no such question and get damping
instead, with the torques that carry the arm if the Damiao motors still hold it: so an arm whose
driver died is found where it was, and held from the first set-point on. While it is driven and no
set-point comes, the last one is held. Before it is let go, the arm is damped. Errors and
temperatures that the vendor's SDK does not show are read and judged.

Not checked on hardware: that ARX's Damiao motors answer the refresh question, and the meaning of
the EC motors' error numbers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

import can
import numpy as np

from mivla_core.timing import NowNs, StampNs, seconds, to_ns
from mivla_drivers.backends.arx5_advice import INSPECTION
from mivla_drivers.backends.arx5_enable import EnableSequence, Step
from mivla_drivers.backends.arx5_grip import Grip
from mivla_drivers.backends.arx5_identity import identify
from mivla_drivers.backends.arx5_link import ArxLink, Command
from mivla_drivers.backends.arx5_settings import settings_of
from mivla_drivers.backends.arx5_state import ArxState
from mivla_drivers.can.loopback import open_bus
from mivla_drivers.codec.damiao import (
    TIMEOUT_UNIT,
    DmMit,
    DmRegister,
    DmSpecial,
    Register,
    RegisterOp,
    Special,
)
from mivla_drivers.codec.encos import EcMit
from mivla_drivers.core.port import DeviceInfo, Measurement
from mivla_drivers.errors import DriverError, NotHeard

if TYPE_CHECKING:
    from mivla_core.profile import RobotProfile

__all__ = ['Arx5Backend']

_LOG = logging.getLogger(__name__)

MOTORS = 7
_GRIPPER = 6
FRESH_NS = to_ns(0.25)              # older feedback is silence
LIMIT_SLACK = 0.02                  # rad or m by which a set-point may lie beyond the profile
NEAR = 0.03                         # rad: a motor that had failed gets its stiffness back here
MAX_FRAMES_PER_READ = 2000
CLOSE_ROUNDS = 5


class _Drive(Enum):
    """What is sent in a tick without a set-point."""

    ASK = 'ask'             # not driven: only keep the motors talking
    ENABLING = 'enabling'
    HOLD = 'hold'           # driven: the last set-point
    DAMP = 'damp'           # no stiffness, until it is disabled or enabled
    LET_DOWN = 'let_down'   # damped for a while, then power off


class Arx5Backend:
    """
    ``ArmBackend`` for one ARX-5.

    :param parameters: see ``arx5_settings``: model, links, gripper map, temperatures ...
    :param bus_factory: opens (interface, channel); a test passes an in-memory bus.
    :param clock: CLOCK_MONOTONIC [ns], used only while ``connect`` waits.
    :param pause: sleeps some seconds between two frames.
    :raises DriverError: parameters or profile do not fit an ARX-5.
    """

    holds_when_silent = False
    one_arm = True
    inspection = INSPECTION

    def __init__(self, profile: RobotProfile, interface: str, channel: str,
                 parameters: Mapping[str, Any], *,
                 bus_factory: Callable[[str, str], can.BusABC] = open_bus,
                 clock: Callable[[], int] = time.monotonic_ns,
                 pause: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings_of(profile, parameters)
        self._motors = self._settings.motors
        self._profile = profile
        self._where = f'{interface} {channel}'
        self._open = lambda: bus_factory(interface, channel)
        self._clock = clock
        self._pause = pause
        self._period = 1.0 / profile.rates.control
        self._grip = Grip(self._period, float(profile.ramp_velocity[_GRIPPER]))
        self._link: Optional[ArxLink] = None
        self._forget()

    def _forget(self) -> None:
        self._state = ArxState(self._profile, self._settings)
        self._drive = _Drive.ASK
        self._sequence: Optional[EnableSequence] = None
        self._target: np.ndarray = np.zeros(MOTORS)
        self._written = False               # a set-point has been sent since torque is on
        self._limp: set[int] = set()        # motors that reported an error under power
        self._spoken = False                # something was sent since the last read
        self._seen: Optional[NowNs] = None  # the last read's instant
        self._down_at: Optional[NowNs] = None
        self._may_take_over = True          # until the first bus is lost

    # -- connecting

    def connect(self, now: NowNs) -> DeviceInfo:
        """
        Open the bus and find out which motors answer; see ``ArmBackend.connect``.

        An X5's first three motors can only be read by a command: they get damping.
        """
        if self._link is not None:
            raise DriverError(f'{self._where}: already connected; close it first')
        self._forget()
        ec = [motor.can_id for motor in self._motors if motor.type.make == 'EC']
        link = self._link = ArxLink.open(self._open, self._where, ec, self._pause,
                                         self._settings.spacing)
        try:
            details = identify(self._where, self._settings, link, self._state, self._listen,
                               self._questions())
            if self._settings.motor_timeout > 0.0:
                link.send(self._timeouts())
            self._listen(lambda: False, 0.01)
            link.take_foreign()
            return DeviceInfo('arx5', '', details)
        except BaseException:
            self._drive = _Drive.ASK
            self._shut()
            raise

    def reconnect(self, now: NowNs) -> DeviceInfo:
        """Close and connect again; a driven arm is damped, nothing is enabled or taken over."""
        self.close()
        info = self.connect(now)
        self._may_take_over = False
        return info

    def close(self) -> None:
        """Damp the arm if it is driven, and close the bus; the motors go on damping."""
        link = self._link
        if link is not None and self._drive is not _Drive.ASK:
            self._last_damping(link)
        self._shut()

    def _last_damping(self, link: ArxLink) -> None:
        # The last command stays in force for ever, so it must be a harmless one; several rounds,
        # because a frame may get lost.
        try:
            for _ in range(CLOSE_ROUNDS):
                link.send(self._damping(gravity=False))
                self._pause(0.005)
        except DriverError as err:
            _LOG.warning('%s: the arm could not be damped before the bus was closed: %s; its '
                         'motors keep their last command: switch the arm off', self._where, err)

    def _shut(self) -> None:
        link, self._link = self._link, None
        self._drive, self._sequence = _Drive.ASK, None
        if link is not None:
            try:
                link.close()
            except (can.CanError, OSError) as err:
                _LOG.warning('%s: closing the bus: %s', self._where, err)

    def _listen(self, met: Callable[[], bool], timeout: float) -> bool:
        """Take frames until ``met`` or ``timeout`` s are over."""
        link = self._connected()
        return link.wait(met, partial(self._take, link), self._clock, timeout, 0.005)

    # -- reading

    def read(self, now: NowNs) -> Measurement:
        """Drain the bus, keep the motors talking, and return the newest measurement."""
        link = self._connected()
        self._seen = now
        for _ in range(MAX_FRAMES_PER_READ):
            message = link.receive(0.0)
            if message is None:
                break
            self._take(link, message, now)
        else:
            link.note(f'{self._where}: the bus is flooded (more than {MAX_FRAMES_PER_READ} frames '
                      'between two reads)')
        self._limp |= self._state.failed() if self._drive is _Drive.HOLD else set()
        if not self._spoken:
            self._keep_talking(now)
        self._spoken = False
        # Found under power by its Damiao motors, it is held as soon as something is written.
        driven = self._drive is _Drive.HOLD or self._takes_over()
        return self._state.measurement(now, driven, (f'drive {self._drive.value}', *link.notes()),
                                       (*link.take_faults(), *self._lost_power()),
                                       link.take_foreign())

    def _take(self, link: ArxLink, message: can.Message, now: NowNs) -> None:
        frame = link.sort(message)
        if frame is not None and not isinstance(frame, DmRegister):
            stamp = (StampNs(round(message.timestamp * 1e9)) if message.timestamp > 1e9
                     else StampNs.wall())
            self._state.handle(frame, stamp, now)

    def _held(self) -> bool:
        """Whether every motor that says so has power."""
        return self._state.received is not None and all(self._state.damiao_on())

    def _takes_over(self) -> bool:
        """Whether this is an arm that somebody else left under power."""
        return self._drive is _Drive.ASK and self._may_take_over and self._held()

    def _lost_power(self) -> list[str]:
        if self._drive is not _Drive.HOLD:
            return []
        return [f'{joint.name} lost its power: read its error, then enable again'
                for joint, on in zip(self._profile.joints, self._state.enabled(True)) if not on]

    def _keep_talking(self, now: NowNs) -> None:
        """Send what a tick without a set-point needs."""
        if self._drive is _Drive.ENABLING:
            # Nobody asked for the next step: the attempt was withdrawn.
            self._give_up()
        if self._drive is _Drive.LET_DOWN and self._down_at is not None and now >= self._down_at:
            if any(self._state.damiao_on()):
                self._send([*self._specials(Special.DISABLE), *self._damping(False, 'EC')])
                return
            self._drive = _Drive.ASK
        if self._drive is _Drive.HOLD:
            self._send(self._commands(self._target, np.zeros(MOTORS), 1.0))
        elif self._drive is _Drive.ASK:
            self._send(self._questions())
        else:
            self._send(self._damping(gravity=False))

    # -- commanding

    def enable(self, now: NowNs) -> bool:
        """Take one step of the enabling sequence; see ``ArmBackend.enable``."""
        if self._drive is _Drive.HOLD:
            return True
        received = self._state.received
        if received is None or now - received > FRESH_NS:
            self._give_up()
            raise NotHeard(f'{self._where}: no complete set of answers for more than '
                           f'{seconds(FRESH_NS)} s; the arm is not enabled blindly')
        if self._sequence is None:
            self._sequence = EnableSequence(self._state, now)
            self._drive = _Drive.ENABLING
            self._limp.clear()
        sequence = self._sequence
        try:
            step = sequence.step(now)
        except DriverError:
            self._give_up()
            raise
        if step is Step.CLEAR:
            self._send(self._specials(Special.CLEAR_ERROR))
        elif step is Step.WAIT:
            self._send(self._questions())
        elif step is Step.POWER:
            self._send([*self._specials(Special.ENABLE), *self._damping(True, 'EC')])
        elif step is Step.DAMP or sequence.pose is None:
            self._send(self._damping(gravity=True))
        else:
            self._target = sequence.pose.copy()
            self._send(self._commands(self._target, np.zeros(MOTORS), sequence.share))
        if step is not Step.DONE:
            return False
        self._sequence, self._drive, self._written = None, _Drive.HOLD, False
        return True

    def _give_up(self) -> None:
        """End enabling; what already has power is damped."""
        if self._sequence is not None:
            self._sequence, self._drive = None, _Drive.DAMP

    def write(self, position: np.ndarray, now: NowNs) -> None:
        """Send one set-point; see ``ArmBackend.write``. An arm found under power is taken over."""
        if self._takes_over():
            self._target, self._written = self._state.position.copy(), False
            self._drive = _Drive.HOLD
        if self._drive is not _Drive.HOLD:
            raise DriverError('the arm is not enabled: nothing is sent')
        target = np.asarray(position, dtype=np.float64)
        if target.shape != (MOTORS,) or not np.isfinite(target).all():
            raise DriverError(f'set-point {position} is not {MOTORS} finite numbers')
        lower, upper = self._profile.lower, self._profile.upper
        beyond = np.maximum(lower - target, target - upper)
        # An arm that was enabled outside its limits may be led back in, not further out.
        before = np.maximum(lower - self._target, self._target - upper)
        for index in np.flatnonzero(beyond > np.maximum(LIMIT_SLACK, before + 1e-6)):
            raise DriverError(f'{self._profile.joint_names[index]} {target[index]:.4f} lies '
                              f'outside [{lower[index]:g}, {upper[index]:g}]')
        target = self._guard_gripper(target)
        if self._limp:
            self._stiffen(target)
        limit = self._profile.velocity
        rate = (np.clip((target - self._target) / self._period, -limit, limit)
                if self._written else np.zeros(MOTORS))
        self._target, self._written = target, True
        self._send(self._commands(target, rate, 1.0))

    def _guard_gripper(self, target: np.ndarray) -> np.ndarray:
        """Stop the gripper where it presses; see ``Grip``."""
        if not self._written:
            self._grip.forget()
        press = self._state.effort[_GRIPPER] * np.sign(self._settings.gripper.open_readout)
        out = target.copy()
        out[_GRIPPER] = self._grip.limit(
            float(target[_GRIPPER]), float(self._target[_GRIPPER]), float(press))
        return out

    def disable(self) -> None:
        """Let the arm down: damped for a while, then power off. THE ARM FALLS, slowly."""
        self._sequence = None
        self._drive = _Drive.LET_DOWN
        # In the time of the control loop, which need not be that of the clock.
        start = self._clock() if self._seen is None else self._seen
        self._down_at = NowNs(start + to_ns(self._settings.damping))
        self._send(self._damping(gravity=False))

    def stop_device(self) -> None:
        """Damp the arm: it sinks slowly, until it is disabled or enabled."""
        self._sequence = None
        self._drive = _Drive.DAMP
        self._send(self._damping(gravity=False))

    def reset_device(self) -> None:
        """Power off at once and clear the errors: THE ARM FALLS (EC motors are damped)."""
        self._sequence = None
        self._drive = _Drive.ASK
        self._send([*self._specials(Special.DISABLE), *self._damping(False, 'EC')])
        self._send(self._specials(Special.CLEAR_ERROR))
        self._state.forget_power()

    # -- frames

    def _specials(self, action: Special) -> list[Command]:
        return [DmSpecial(motor.can_id, action) for motor in self._motors
                if motor.type.make == 'DM']

    def _timeouts(self) -> list[Command]:
        count = round(self._settings.motor_timeout / TIMEOUT_UNIT)
        return [DmRegister(motor.can_id, RegisterOp.WRITE, Register.TIMEOUT,
                           count.to_bytes(4, 'little'))
                for motor in self._motors if motor.type.make == 'DM']

    def _questions(self) -> list[Command]:
        """Return what makes every motor answer and changes least."""
        if self._held():
            ec = self._damping(gravity=True, make='EC')
        else:
            ec = [EcMit(motor.can_id, 0.0, 0.0, 0.0, motor.kd, 0.0) for motor in self._motors
                  if motor.type.make == 'EC']
        # In the order of the wire: the EC motors are the shoulder's.
        return [*ec, *(DmRegister(motor.can_id, RegisterOp.REFRESH) for motor in self._motors
                       if motor.type.make == 'DM')]

    def _damping(self, gravity: bool, make: str = '') -> list[Command]:
        """
        Return frames without stiffness; to the motors of one make only, if given.

        :param gravity: carry the arm meanwhile; else it is braked harder, because it sinks.
        """
        frames = self._commands(self._state.position, np.zeros(MOTORS), 0.0, gravity)
        return [frame for frame, motor in zip(frames, self._motors)
                if make in ('', motor.type.make)]

    def _commands(self, position: np.ndarray, velocity: np.ndarray, share: float,
                  gravity: bool = True) -> list[Command]:
        """
        Return one MIT frame per motor, in the order of the wire.

        :param share: of the motors' stiffness, 0..1.
        :param gravity: carry the arm; without it the motors brake.
        """
        support = np.zeros(MOTORS)
        if gravity and self._settings.gravity is not None:
            support[:_GRIPPER] = self._settings.gravity.torque(self._state.position)
        angles, rates = position.copy(), velocity.copy()
        angles[_GRIPPER] = self._settings.gripper.to_motor(float(position[_GRIPPER]))
        rates[_GRIPPER] = self._settings.gripper.to_motor(float(velocity[_GRIPPER]))
        frames: list[Command] = []
        for i, motor in enumerate(self._motors):
            kind, most = motor.type, min(motor.torque, motor.type.torque)
            torque = _inside(float(support[i]), most) / kind.command
            make = DmMit if kind.make == 'DM' else EcMit
            frames.append(make(motor.can_id, _inside(float(angles[i]), 12.5),
                               _inside(float(rates[i]), kind.frame_velocity),
                               0.0 if i in self._limp else share * motor.kp,
                               motor.kd if gravity else motor.brake, torque))
        return frames

    def _stiffen(self, position: np.ndarray) -> None:
        """
        Give motors that had failed their stiffness back, once they are where they are to be.

        A motor that cools down takes its torque back by itself; its joint has sunk meanwhile, and
        would leap to a set-point that waited for it.
        """
        failed = self._state.failed()
        near = np.abs(position - self._state.position) < NEAR
        self._limp = {i for i in self._limp if i in failed or not near[i]}

    def _send(self, frames: Sequence[Command]) -> None:
        try:
            self._connected().send(frames)
        except DriverError:
            # Nobody knows which motors heard it: the arm must be enabled anew.
            self._sequence = None
            if self._drive is not _Drive.ASK:
                self._drive = _Drive.DAMP
            raise
        self._state.asked()
        self._spoken = True

    def _connected(self) -> ArxLink:
        if self._link is None:
            raise DriverError(f'{self._where}: not connected')
        return self._link


def _inside(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)
