"""
The faults of ``bench faults``: what is done, and what the robot has to do, said beforehand.

A case either *rides through* (the robot goes on, or waits and goes on by itself) or *latches* (it
brakes, holds, and moves again only after an operator's word).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Union

from mivla_core.profile import RobotProfile

__all__ = ['Age', 'Case', 'EXPERT', 'Expect', 'Hog', 'Mover', 'Pause', 'Signal', 'Stamps', 'Wire',
           'cases_of']

# The teleoperation that moves a robot by itself.
EXPERT = 'expert'


class Mover(Enum):
    """What moves the robot when the fault begins."""

    POLICY = 'policy'       # the policy server's sway, through the whole engine
    TELEOP = 'teleop'       # the scripted expert
    OWN = 'own'             # the benchmark's own source, at command/teleop
    TROT = 'trot'           # the same, at command/base: a robot on legs walks


class Expect(Enum):
    """What the robot has to do."""

    RIDE = 'rides through'
    LATCH = 'latches'


class Age(Enum):
    """Which of the profile's ages may pass between a detectable fault and braking."""

    NONE = 'none'           # the device itself says what is wrong
    COMMAND = 'command'     # the source is silent: the ride-through age
    FEEDBACK = 'feedback'   # the device is silent: the ride-through age, too
    HELD = 'held'           # the driver itself is gone: the device is left to hold

    def seconds(self, profile: RobotProfile) -> float:
        """Return the age [s]; NaN where there is no driver that could brake."""
        return {Age.NONE: 0.0, Age.COMMAND: profile.ride_through,
                Age.FEEDBACK: profile.ride_through, Age.HELD: math.nan}[self]


@dataclass(frozen=True)
class Wire:
    """A fault of the emulated device or its wire; see ``mivla_drivers.sim.faults``."""

    fault: str
    amount: float = math.nan
    side: str = ''
    motor: int = 0
    wire: str = ''


@dataclass(frozen=True)
class Signal:
    """A process is killed (SIGKILL), or stopped for ``seconds`` and continued."""

    node: str
    kill: bool


@dataclass(frozen=True)
class Hog:
    """Every core is kept busy by a program of ordinary priority."""


@dataclass(frozen=True)
class Stamps:
    """The clock of the source steps by ``offset`` s, as seen by the driver."""

    offset: float


@dataclass(frozen=True)
class Pause:
    """The source says nothing for a while."""


Act = Union[Wire, Signal, Hog, Stamps, Pause]


@dataclass(frozen=True)
class Case:
    """
    One fault.

    :param seconds: how long it lasts.
    :param limp: motor whose torque the device itself takes away: its joint sinks, whatever the
        driver does; 0: none.
    :param falls: legs may give way, whatever the driver does: how low the trunk comes is
        published instead of judged.
    :param mover: what moves the robot meanwhile.
    :param on_loss: what the emulated Go1 does without commands; '': the worst, it goes limp.
    :param named: words of which one must be on /diagnostics; () where the protocol gives the host
        no means to tell, for the reason in ``why``.
    :param detect: s until the fault shows on the wire at all.
    :param watch: s after its end that are judged too.
    """

    name: str
    act: Act
    expect: Expect
    seconds: float
    named: Sequence[str]
    age: Age = Age.NONE
    detect: float = 0.0
    watch: float = 1.0
    why: str = ''
    limp: int = 0
    falls: bool = False
    mover: Mover = Mover.OWN
    on_loss: str = ''


_RIDE, _LATCH = Expect.RIDE, Expect.LATCH
_SILENT = ('no feedback', 'no complete set', 'silent')
_BROKEN = ('incomplete', 'malformed', 'missing')
_SOURCE = ('no command from', 'waits for its source')
_DRIVER = ('no joint_states',)


def _can_cases(broken: Sequence[str], malformed: Sequence[str]) -> list[Case]:
    """
    Faults of CAN buses.

    :param broken: words for sets of frames that are not whole.
    :param malformed: words for frames that do not follow the protocol.
    """
    return [
        Case('bus silent 0.2 s', Wire('silent'), _RIDE, 0.2, _SILENT, Age.FEEDBACK),
        Case('bus silent', Wire('silent'), _LATCH, 2.0, _SILENT, Age.FEEDBACK),
        # The bus shows it with the next cycle of the device.
        Case('interface gone and back', Wire('gone'), _LATCH, 1.0, ('the interface is gone',),
             detect=0.005),
        Case('1 % of frames lost', Wire('loss', 0.01), _RIDE, 2.0, broken),
        Case('5 % of frames lost', Wire('loss', 0.05), _RIDE, 2.0, broken),
        Case('20 % of frames lost', Wire('loss', 0.2), _RIDE, 2.0, broken),
        Case('truncated frames', Wire('truncated', 0.05), _RIDE, 2.0, malformed),
        Case('duplicated frames', Wire('duplicate'), _RIDE, 2.0, broken),
        Case('frames 20 ms late', Wire('late', 0.02), _RIDE, 2.0, (),
             why='feedback bears no time of the device'),
        Case('frames out of order', Wire('reorder'), _RIDE, 2.0, broken),
        Case('a second program commands', Wire('foreign', 200.0), _LATCH, 1.0,
             ('somebody else',), detect=0.01),
    ]


def _piper_cases(arms: int) -> list[Case]:
    """Return what is particular to PiPERs; driver states go out once in five cycles of 5 ms."""
    cases = [
        Case('noise on the bus', Wire('garbage'), _RIDE, 2.0, ('unknown ids', 'malformed')),
        Case('corrupt frames', Wire('corrupt', 0.05), _LATCH, 2.0,
             ('fault', 'unknown', 'not known', 'joint', 'control'), detect=2.0),
        Case('motor too hot', Wire('overheat', motor=2), _LATCH, 1.0, ('motor too hot',),
             detect=0.03),
        Case('motor overloaded', Wire('overload', motor=3), _LATCH, 1.0, ('over-current',),
             detect=0.03),
        Case('motor lost', Wire('lost', motor=2), _LATCH, 1.0, ('no communication',),
             detect=0.03),
        # Sixty cycles without a word.
        Case('motor silent', Wire('missing', motor=5), _LATCH, 1.5, ('driver is silent',),
             detect=0.31)]
    if arms > 1:
        # The arm that does not move: the other one must not go on alone.
        cases.append(Case('other motor too hot', Wire('overheat', motor=8), _LATCH, 1.0,
                          ('motor too hot',), detect=0.03))
    return cases


def _arx_cases() -> list[Case]:
    """Return what is particular to an ARX-5: its motors speak only when they are spoken to."""
    return [
        Case('corrupt frames', Wire('corrupt', 0.05), _LATCH, 2.0,
             ('fault', 'outside', 'lost its power', '°C'), detect=2.0),
        Case('motor too hot', Wire('overheat', motor=2), _LATCH, 1.0, ('hot', 'temperature'),
             detect=0.03, limp=2),
        Case('motor overloaded', Wire('overload', motor=3), _LATCH, 1.0, ('current',),
             detect=0.03, limp=3),
        Case('motor silent', Wire('missing', motor=5), _LATCH, 2.0, _SILENT, Age.FEEDBACK)]


def _locoman_cases() -> list[Case]:
    """Faults of LocoMan's two wires, standing: the Go1's datagrams and the servo bus."""
    cases = []
    for wire, silent in (('go1', _SILENT), ('servos', _SILENT)):
        lossy = ('without an answer', 'without a full answer', 'damaged')
        cases += [
            # Too short for the ages; the Go1 gives way and the servos stop by themselves soon.
            Case(f'{wire} silent 40 ms', Wire('silent', wire=wire), _RIDE, 0.04, (),
                 why='shorter than any age'),
            Case(f'{wire} silent', Wire('silent', wire=wire), _LATCH, 2.0, silent,
                 Age.FEEDBACK, falls=wire == 'go1'),
            # One in a hundred: half a second may pass without a loss.
            *(Case(f'{wire} {share * 100:.0f} % lost', Wire('loss', share, wire=wire), _RIDE,
                   2.0, lossy, detect=0.5 if share < 0.02 else 0.0)
              for share in (0.01, 0.05, 0.2)),
            Case(f'{wire} truncated', Wire('truncated', 0.05, wire=wire), _RIDE, 2.0, lossy),
            Case(f'{wire} wrong checksum', Wire('corrupt', 0.05, wire=wire), _RIDE, 2.0, lossy),
            Case(f'{wire} duplicated', Wire('duplicate', wire=wire), _RIDE, 2.0,
                 ('doubled', 'nobody asked for', *lossy)),
            Case(f'{wire} out of order', Wire('reorder', wire=wire), _RIDE, 2.0,
                 ('late Go1', 'nobody asked for', *lossy))]
    return [
        *cases,
        Case('servo port gone and back', Wire('gone', wire='servos'), _LATCH, 1.0,
             ('hung up', 'failed', 'gone')),
        Case('leg motor too hot', Wire('overheat', motor=2), _LATCH, 1.0,
             ('hot', 'temperature', 'cool'), detect=0.05, limp=2),
        Case('servo too hot', Wire('overheat', motor=14), _LATCH, 1.0,
             ('hot', 'temperature', 'heat'), detect=0.6, limp=5),
        Case('servo overloaded', Wire('overload', motor=15), _LATCH, 1.0, ('overload',),
             detect=0.6, limp=6),
        Case('servo missing', Wire('missing', motor=13), _LATCH, 2.0,
             (*_SILENT, 'answer'), Age.FEEDBACK)]


def _trot_cases() -> list[Case]:
    """Faults of a robot that walks: what comes of it is measured, a fall cannot be ruled out."""
    return [
        Case('trot: source silent', Pause(), _LATCH, 1.5, ('no velocity of the base',),
             Age.COMMAND, mover=Mover.TROT, falls=True),
        Case('trot: go1 silent', Wire('silent', wire='go1'), _LATCH, 2.0, _SILENT, Age.FEEDBACK,
             mover=Mover.TROT, falls=True),
        Case('trot: driver killed', Signal('driver', kill=True), _LATCH, 3.0, (), Age.HELD,
             why='nobody else listens to a walking robot', mover=Mover.TROT, falls=True),
        Case('trot: driver stopped 2 s', Signal('driver', kill=False), _LATCH, 2.0, (),
             Age.HELD, why='nobody else listens to a walking robot', mover=Mover.TROT,
             falls=True)]


def _machine_cases() -> list[Case]:
    return [
        Case('both cores busy', Hog(), _RIDE, 4.0, (), why='nothing fails'),
        Case('source silent', Pause(), _LATCH, 1.5, _SOURCE, Age.COMMAND),
        Case('clock steps 10 s ahead', Stamps(10.0), _LATCH, 1.5, _SOURCE, Age.COMMAND),
        Case('clock steps 10 s back', Stamps(-10.0), _LATCH, 1.5, _SOURCE, Age.COMMAND)]


def _process_cases(profile: RobotProfile, policy: bool) -> list[Case]:
    """
    Processes that are killed, or stopped for two seconds and continued.

    :param policy: whether a policy can move the robot as it stands.
    """
    nodes: list[tuple[str, Age, tuple[str, ...], Mover, float]] = [
        ('driver', Age.HELD, _DRIVER, Mover.POLICY if policy else Mover.OWN, 0.0)]
    if policy:
        # A server that is away stops the runner only when the last chunk is played.
        nodes += [('policy_runner', Age.COMMAND, _SOURCE, Mover.POLICY, 0.0),
                  ('policy_server', Age.COMMAND, _SOURCE, Mover.POLICY, 2.5)]
    if EXPERT in profile.teleop.methods:
        nodes.append((EXPERT, Age.COMMAND, _SOURCE, Mover.TELEOP, 0.0))
    cases = []
    for node, age, named, mover, detect in nodes:
        cases += [Case(f'{node} killed', Signal(node, kill=True), _LATCH, 3.0, named, age,
                       detect, watch=2.0, mover=mover),
                  Case(f'{node} stopped 2 s', Signal(node, kill=False), _LATCH, 2.0, named, age,
                       detect, mover=mover)]
    return cases


def cases_of(profile: RobotProfile) -> list[Case]:
    """Return the cases of a robot, in the order in which they are run."""
    backend = profile.driver.backend
    if backend == 'locoman':
        # The Go1 gives way when nobody commands it: the worst case, which its emulation has.
        processes = [replace(case, named=(), why='no other node listens to the driver',
                             falls=True)
                     for case in _process_cases(profile, policy=False)]
        wires = _locoman_cases()
        # The other way: what a Go1 does is not established. A new driver lays it down, damped,
        # since no packet to a Go1 only asks where it stands.
        holding = [replace(case, name=f'{case.name}, legs hold', on_loss='hold_last',
                           falls=isinstance(case.act, Signal) and case.act.kill)
                   for case in (*wires, *processes) if case.falls]
        return [*wires, *_machine_cases(), *processes, *holding, *_trot_cases()]
    if backend == 'piper':
        wires = [*_can_cases(_BROKEN, ('malformed',)), *_piper_cases(len(profile.arms))]
        if len(profile.arms) == 1:
            wires = [replace(case, mover=Mover.POLICY) for case in wires]
    else:
        wires = [*_can_cases(('not complete in time',), ('malformed',)), *_arx_cases()]
    return [*wires, *_machine_cases(), *_process_cases(profile, policy=True)]
