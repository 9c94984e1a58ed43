"""
The simulated LocoMan in wall time: a UDP socket and a pseudo-terminal in front of one body.

The main thread keeps to the clock and answers what comes on either wire the moment it comes. The
devices live in simulated time, as the physics do: while the machine has no time for this process
nothing moves, and no motor and no servo counts that as silence of its host.
What ROS sees of it stands in ``ros.locoman_world``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from mivla_core.timing import NS_PER_S, NowNs, StampNs, monotonic_now
from mivla_drivers.core.locoman_estimate import fit_trunk
from mivla_drivers.core.locoman_kinematics import LEGS
from mivla_drivers.core.locoman_postures import NOMINAL_FEET
from mivla_drivers.core.locoman_servos import SERVO_IDS, to_sim
from mivla_drivers.devices.dynamixel_servo import ServoFault
from mivla_drivers.devices.serial_pty import SerialPty
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.faults import IN, OUT, FaultLayer, Faults
from mivla_drivers.sim.locoman_runtime import TICK_NS, LocomanReport, LocomanRuntime
from mivla_drivers.sim.locoman_wires import LocomanWires
from mivla_drivers.sim.pacing import Pacer, RealtimeFactor
from mivla_drivers.sim.state_block import StateWriter
from mivla_drivers.sim.tasks import Scenario
from mivla_drivers.sim.witness import Witness

__all__ = ['FaultyLocoman', 'LocomanLoop', 'Published', 'Reset', 'Wires', 'commanded', 'measured']

_CATCH_UP_NS = 20_000_000
_EVERY = 4                      # ticks between two states for the renderers: 200 Hz
_LARGEST = 2048                 # bytes read of a datagram
_MOST = 64                      # datagrams taken in one go
_LEG_MOTORS = 12


class FaultyLocoman:
    """The robot's motors for ``sim.faults``: 1..12 the legs', 13..20 the servos 1..8."""

    _SERVO: dict[str, ServoFault] = {'overheat': 'overheat', 'overload': 'overload'}

    def __init__(self, runtime: LocomanRuntime) -> None:
        self._go1, self._servos = runtime.go1, runtime.servos

    def fail(self, fault: str, motor: int) -> None:
        """Make a motor faulty; raises SimError."""
        if not 1 <= motor <= _LEG_MOTORS + len(SERVO_IDS):
            raise SimError(f'motor {motor} is none of LocoMan: 1 to 12 legs, 13 to 20 servos')
        servo = motor - _LEG_MOTORS
        if servo < 1:
            if fault == 'overload':
                raise SimError('fault overload: a Go1 does not report it of its legs')
            self._go1.inject('overheat' if fault == 'overheat' else 'dead', motor - 1)
        elif fault in self._SERVO:
            self._servos.servos[servo].inject(self._SERVO[fault])
        else:
            self._servos.absent.add(servo)

    def mend(self) -> None:
        """Take the causes away; a servo's error stays until it is rebooted."""
        self._go1.clear()
        self._servos.absent.clear()
        for servo in self._servos.servos.values():
            servo.inject(None)


def measured(runtime: LocomanRuntime) -> np.ndarray:
    """Return where the joints (20,) really are, the trunk over the feet that carry weight."""
    state = runtime.plant.state()
    legs = state.position.tolist()
    return _joints(legs, runtime.plant.servos.angles(), _base(legs, state.foot_force))


def commanded(runtime: LocomanRuntime) -> np.ndarray:
    """
    Return where the joints (20,) are told to be; NaN for what has no target.

    The trunk has none: a Go1 is told its legs. A trunk's pose worked out from their targets would
    leap with the feet that happen to carry weight.
    """
    legs = runtime.go1.target()
    shafts = np.array([np.nan if (target := servo.target()) is None else target.position
                       for servo in runtime.servos.servos.values()])
    return _joints(legs.tolist(), to_sim(shafts, np.zeros(len(SERVO_IDS))), (np.nan,) * 6)


def _base(legs: list[float], force: np.ndarray) -> tuple[float, ...]:
    weights = np.where(force > 5.0, 1.0, 0.0)
    if weights.sum() < 3.0:
        weights[:] = 1.0
    feet = [leg.point(*legs[3 * k:3 * k + 3]) for k, leg in enumerate(LEGS)]
    return fit_trunk(feet, NOMINAL_FEET, weights.tolist(), (0.0,) * 6, rounds=4)


def _joints(legs: list[float], servos: np.ndarray, base: tuple[float, ...]) -> np.ndarray:
    return np.array((*legs[:3], *servos[:4], *legs[3:6], *servos[4:], *base))


@dataclass
class Reset:
    """
    A reset on its way from the ROS thread to the main thread and back.

    :param pose: in which the robot is put back, unless there is a ``scenario`` whose things are
        placed.
    """

    seed: int
    pose: str
    scenario: Optional[Scenario] = None
    done: threading.Event = field(default_factory=threading.Event)
    error: str = ''


@dataclass(frozen=True)
class Published:
    """What the main thread leaves for the ROS thread; replaced as a whole."""

    stamp: StampNs
    report: LocomanReport
    factor: float
    worst: float


class Wires:
    """
    The two wires with their faults; owned by the main thread.

    :raises SimError: the UDP port or the link is taken.
    """

    def __init__(self, where: LocomanWires) -> None:
        self._link = where.servo_port
        self.faults = {'go1': FaultLayer(1), 'servos': FaultLayer(2)}
        self._host: tuple[str, int] | None = None
        self._pty: SerialPty | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind(('127.0.0.1', where.port))
            self._plug()
        except OSError as error:
            self.close()
            raise SimError(f'cannot open the wires of the simulated LocoMan (UDP port '
                           f'{where.port}, {where.servo_port}): {error}; is another world '
                           'running?') from error

    def _plug(self) -> None:
        """Make the pseudo-terminal and let the link point to it, whatever a dead world left."""
        self._pty = SerialPty()
        fresh = self._link.with_name(f'{self._link.name}.{os.getpid()}')
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self._pty.path)
        fresh.replace(self._link)

    def _unplug(self) -> None:
        if self._pty is not None:
            with contextlib.suppress(FileNotFoundError):
                if Path(os.readlink(self._link)) == Path(self._pty.path):
                    self._link.unlink()
            self._pty.close()
            self._pty = None

    def wait(self, seconds: float) -> None:
        """Sleep until something comes, or for some seconds."""
        files: list[socket.socket | SerialPty] = [self._socket]
        if self._pty is not None:
            files.append(self._pty)
        select.select(files, [], [], max(0.0, seconds))

    def serve(self, runtime: LocomanRuntime, now: NowNs, lived: NowNs | None = None) -> bool:
        """
        Take what has come and answer it; returns whether anything came.

        :param now: instant for the wires' faults. :param lived: for the devices; None: the same.
        """
        lived = now if lived is None else lived
        return self._serve_go1(runtime, now, lived) | self._serve_servos(runtime, now, lived)

    def _serve_go1(self, runtime: LocomanRuntime, now: NowNs, lived: NowNs) -> bool:
        layer, heard, came = self.faults['go1'], [], False
        for _ in range(_MOST):
            try:
                data, self._host = self._socket.recvfrom(_LARGEST)
            except (BlockingIOError, ConnectionRefusedError):
                break
            came = True
            heard += layer.inward((0, data), now)
        answers = []
        for _, data in (*layer.due(IN, now), *heard):
            answer = runtime.deliver(data, lived)
            if answer is not None:
                answers.append((0, answer))
        for _, data in (*layer.due(OUT, now), *layer.outward(answers, now)):
            if self._host is not None:
                # A host that is gone, or does not read, loses it: a cable does not wait.
                with contextlib.suppress(OSError):
                    self._socket.sendto(data, self._host)
        return came

    def _serve_servos(self, runtime: LocomanRuntime, now: NowNs, lived: NowNs) -> bool:
        layer = self.faults['servos']
        if layer.gone != (self._pty is None):
            if layer.gone:
                self._unplug()
            else:
                self._plug()
        if self._pty is None:
            return False
        came = self._pty.read()
        heard = layer.inward((0, came), now) if came else []
        for _, data in (*layer.due(IN, now), *heard):
            answer = runtime.deliver_bytes(data, lived)
            for _, part in layer.outward([(0, answer)], now) if answer else ():
                self._pty.write(part)
        for _, data in layer.due(OUT, now):
            self._pty.write(data)
        return bool(came)

    def close(self) -> None:
        """Close both, and remove the link."""
        self._socket.close()
        self._unplug()


class LocomanLoop:
    """
    The main thread's loop.

    :param block: takes states for the renderers; None: there are none.
    """

    def __init__(self, runtime: LocomanRuntime, wires: Wires, block: StateWriter | None = None,
                 witness: Witness | None = None) -> None:
        self._runtime, self._wires = runtime, wires
        self._block, self._witness = block, witness
        self.faults = Faults(wires.faults, FaultyLocoman(runtime))
        self._pacer = Pacer(TICK_NS, _CATCH_UP_NS, monotonic_now())
        self._factor = RealtimeFactor(TICK_NS * _EVERY, NS_PER_S // (TICK_NS * _EVERY))
        self.resets: queue.SimpleQueue[Reset] = queue.SimpleQueue()
        self.stopping = False
        self.latest = self._publish(StampNs.wall())

    @property
    def lost_s(self) -> float:
        """Wall time that the world did not follow [s]."""
        return self._pacer.lost_ns * 1e-9

    def run(self) -> None:
        """Tick until ``stopping`` is set."""
        # The schedule begins now, not when the process was being set up.
        self._pacer, count = Pacer(TICK_NS, _CATCH_UP_NS, monotonic_now()), 0
        while not self.stopping:
            self._listen_until(self._pacer.due)
            now = monotonic_now()
            self.faults.serve(now)
            self._runtime.tick(self._pacer.simulated(now))
            count += 1
            if count % _EVERY == 0:
                self._show()
            self._pacer.advance(monotonic_now())

    def _listen_until(self, due: NowNs) -> None:
        while True:
            now = monotonic_now()
            heard = self._wires.serve(self._runtime, now, self._pacer.simulated(now))
            if heard and self._witness is not None:
                self._witness.heard(now)
            left = due - monotonic_now()
            if left <= 0 or self.stopping:
                return
            self._wires.wait(left * 1e-9)

    def _show(self) -> None:
        """Leave the state for the renderers and the other thread, and do what it asked for."""
        stamp, now = StampNs.wall(), monotonic_now()
        if self._block is not None:
            self._block.write(self._runtime.snapshot(stamp))
        if self._witness is not None:
            self._witness.moved(now)
        self._factor.tick(now)
        self.latest = self._publish(stamp)
        with contextlib.suppress(queue.Empty):
            self._serve_reset(self.resets.get_nowait(), now)

    def _serve_reset(self, request: Reset, now: NowNs) -> None:
        try:
            if request.scenario is not None:
                self._runtime.place(request.scenario)
            else:
                self._runtime.reset(request.seed, request.pose, self._pacer.simulated(now))
            self._factor.restart()
        except SimError as error:
            request.error = str(error)
        self.latest = self._publish(StampNs.wall())
        request.done.set()

    def _publish(self, stamp: StampNs) -> Published:
        return Published(stamp, self._runtime.report(), self._factor.factor, self._factor.worst)
