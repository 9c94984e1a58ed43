"""A controller on an ideal arm in memory, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mivla_core.profile import RobotProfile, load_profile
from mivla_core.robot_parts import Drive
from mivla_core.timing import NowNs, StampNs
from mivla_drivers.core.controller import Controller, TickResult
from mivla_drivers.core.machine import Mode
from mivla_drivers.core.port import DeviceInfo, Measurement, Step
from mivla_drivers.core.requests import Request
from mivla_drivers.core.setpoint import Command, Source
from mivla_drivers.core.verdicts import Refusal
from mivla_drivers.errors import DriverError, NotHeard

PROFILE = load_profile('piper')
TICK_NS = 5_000_000
STAMP_0 = StampNs(1_700_000_000_000_000_000)
NOW_0 = NowNs(1_000_000_000_000)
FRESH_NS = 250_000_000      # the fake arm's, as the backends have it


class FakeArm:
    """
    ``ArmBackend`` whose joints follow every set-point at once.

    Failures are switched on by plain attributes: ``down``, ``silent``, ``faults``, ``foreign``,
    ``stuck`` (does not follow), ``refuses_torque``, ``slow_torque`` (never confirms).
    """

    holds_when_silent = True

    def __init__(self, position: Sequence[float], powered: bool = False) -> None:
        self.position = np.array(position, dtype=float)
        self.powered = powered
        self.down = self.silent = self.stuck = self.refuses_torque = self.slow_torque = False
        self.enabled: tuple[bool, ...] | None = None    # per joint, instead of ``powered``
        self.faults: tuple[str, ...] = ()
        self.foreign: tuple[int, ...] = ()
        self.written: list[np.ndarray] = []
        self.calls: list[str] = []
        self._received = NOW_0

    def connect(self, now: NowNs) -> DeviceInfo:
        """Nothing to open."""
        return DeviceInfo('fake', '1', {})

    def read(self, now: NowNs) -> Measurement:
        """Return the pose, or fail as told."""
        if self.down:
            raise DriverError('the bus is gone; plug it in')
        if not self.silent:
            self._received = now
        zeros = np.zeros(len(self.position))
        enabled = self.enabled or (self.powered,) * len(self.position)
        return Measurement(self.position.copy(), zeros, zeros, StampNs(int(self._received)),
                           self._received, enabled, (),
                           self.faults, self.foreign)

    def enable(self, now: NowNs) -> bool:
        """Confirm at once unless told otherwise."""
        self.calls.append('enable')
        if self.refuses_torque:
            raise DriverError('the device refuses torque')
        if now - self._received > FRESH_NS:
            raise NotHeard('no feedback; not enabled blindly')
        self.powered = not self.slow_torque
        return self.powered

    def write(self, position: np.ndarray, now: NowNs) -> None:
        """Take a set-point."""
        if self.down:
            raise DriverError('the bus is gone; plug it in')
        self.written.append(position.copy())
        if not self.stuck:
            self.position = position.copy()

    def disable(self) -> None:
        """Torque off."""
        self.calls.append('disable')
        self.powered = False

    def stop_device(self) -> None:
        """Not used by the controller."""
        self.calls.append('stop_device')

    def reset_device(self) -> None:
        """Torque off, errors cleared."""
        self.calls.append('reset_device')
        self.powered, self.faults = False, ()

    def reconnect(self, now: NowNs) -> DeviceInfo:
        """Fail while the bus is down."""
        self.calls.append('reconnect')
        if self.down:
            raise DriverError('the bus is still gone')
        return self.connect(now)

    def close(self) -> None:
        """Nothing to close."""


class FakeWalker(FakeArm):
    """
    ``PosturedBackend``: in ``stance`` joint 1 stands on the ground, in ``walk`` the base drives.

    The ground wants joint 1 at a quarter of joint 2's way from home; ``reach`` frees every joint.
    It would tip where joint 2 is further than ``tips`` from home.
    """

    holds_when_silent = False
    postures = ('stance', 'reach', 'walk', 'rear')

    def __init__(self, position: Sequence[float], powered: bool = False) -> None:
        super().__init__(position, powered)
        self.posture = 'stance'
        self.assumed: list[str] = []
        self.driven: list[tuple[float, float, float]] = []
        self.tips = np.inf
        self.asked: list[tuple[float, ...]] = []

    @property
    def free(self) -> tuple[bool, ...]:
        """All but joint 1 in stance, all in reach, the gripper while it walks."""
        return {'stance': (False, *[True] * 6), 'reach': (True,) * 7,
                'walk': (*[False] * 6, True)}[self.posture]

    @property
    def drives(self) -> bool:
        """Only while it walks."""
        return self.posture == 'walk'

    def route(self, to: str) -> list[Step]:
        """Pass through stance."""
        home = tuple(PROFILE.home)
        if to == 'rear':
            raise DriverError('posture rear is locked')
        if to not in self.postures:
            raise DriverError(f'unknown posture {to!r}; known: {", ".join(self.postures)}')
        steps = [] if self.posture == 'stance' else [Step(self.posture, self.bound(home))]
        steps.append(Step('stance', home))
        raised = (0.3, *home[1:])
        return steps if to == 'stance' else [*steps, Step(to, raised if to == 'reach' else home)]

    def assume(self, posture: str) -> None:
        """Note it."""
        self.posture = posture
        self.assumed.append(posture)

    def bound(self, position: Sequence[float]) -> tuple[float, ...]:
        """Joint 1 follows joint 2 in stance; while it walks everything stays."""
        if self.posture == 'stance':
            return (0.25 * (position[1] - PROFILE.home[1]), *position[1:])
        if self.posture == 'walk':
            return (*(float(value) for value in self.position[:6]), position[6])
        return tuple(position)

    def refused(self, position: Sequence[float]) -> str:
        """Refuse what makes it tip; note what was asked."""
        self.asked.append(tuple(position))
        return 'the robot would tip' if position[1] - PROFILE.home[1] > self.tips else ''

    def drive(self, forward: float, left: float, turn: float) -> None:
        """Note it."""
        self.driven.append((forward, left, turn))

    def setpoint(self) -> tuple[float, ...]:
        """Where it stands, as the ground wants it."""
        return self.bound(tuple(float(value) for value in self.position))


def walker_rig(position: Sequence[float] | None = None) -> Rig:
    """Return a rig whose arm has postures and a base."""
    limits = Drive(velocity=(0.2, 0.2, 0.3), acceleration=(0.4, 0.4, 0.8))
    return Rig(position, PROFILE.model_copy(update={'drive': limits}), arm=FakeWalker)


class Rig:
    """Controller, fake arm and two clocks that advance together."""

    def __init__(self, position: Sequence[float] | None = None,
                 profile: RobotProfile = PROFILE, powered: bool = False,
                 arm: type[FakeArm] = FakeArm) -> None:
        self.profile = profile
        start = profile.home if position is None else position
        self.arm = arm(start, powered)
        self.controller = Controller(profile, self.arm)
        self.now, self.stamp = NOW_0, STAMP_0
        self.results: list[TickResult] = []
        self.sequence = 0

    def tick(self, count: int = 1, period_ns: int = TICK_NS) -> TickResult:
        """Advance the clocks, then tick, ``count`` times."""
        for _ in range(count):
            self.advance(period_ns)
            self.results.append(self.controller.tick(self.now, self.stamp))
        return self.results[-1]

    def advance(self, period_ns: int) -> None:
        """Let time pass without a tick."""
        self.now = NowNs(self.now + period_ns)
        self.stamp = StampNs(self.stamp + period_ns)

    def ask(self, request: Request) -> Request:
        """Tick once, so that ``request`` is served; it must have been answered."""
        self.tick()
        assert request.done, request
        return request

    def enabled(self) -> Rig:
        """Enable, expecting success."""
        self.controller.enable()
        self.tick(2)
        assert self.controller.state.name == 'HOLDING', self.controller.detail
        return self

    def engaged(self, mode: Mode = Mode.POLICY) -> Rig:
        """Enable and engage, expecting success."""
        self.enabled()
        request = self.ask(self.controller.set_mode(mode))
        assert request.ok, request.message
        return self

    def command(self, position: Sequence[float], velocity: Sequence[float] | None = None,
                source: Source = Source.POLICY, lead_ns: int = TICK_NS,
                **changes: object) -> Command:
        """Make a valid command that is due ``lead_ns`` from now: at the next tick."""
        self.sequence += 1
        command = Command(
            source=source, stamp=StampNs(self.stamp + lead_ns),
            names=self.profile.joint_names, position=tuple(float(p) for p in position),
            profile_hash=self.profile.hash,
            velocity=() if velocity is None else tuple(float(v) for v in velocity),
            sequence=self.sequence, publisher=b'one')
        return replace(command, **changes)

    def submit(self, command: Command) -> Refusal | None:
        """Hand a command in, received now."""
        return self.controller.submit(command, self.now, self.stamp)

    def send(self, position: Sequence[float], velocity: Sequence[float] | None = None,
             **changes: object) -> TickResult:
        """Submit a valid command for the next tick, and tick."""
        refusal = self.submit(self.command(position, velocity, **changes))
        assert refusal is None, refusal
        return self.tick()

    def count(self, kind: str) -> int:
        """Return how often the guard counted ``kind``."""
        return self.controller.report(self.now).counts.get(kind, 0)
