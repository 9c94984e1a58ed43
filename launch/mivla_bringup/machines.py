"""
Emulated robots as a lockstep rig drives them: world, wires and backend, on simulated time.

What differs between an arm on a table and a robot on legs is here: how its scene begins. What
they share, control ticks, pictures and reports, is the rig's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Optional, Protocol

import numpy as np

from mivla_core.errors import MivlaError
from mivla_core.profile import RobotProfile
from mivla_core.timing import NowNs, StampNs
from mivla_drivers.backends.arx5 import Arx5Backend
from mivla_drivers.backends.locoman import LocomanBackend
from mivla_drivers.backends.piper import PiperBackend
from mivla_drivers.can.memory import MemoryBus
from mivla_drivers.core.controller import Controller
from mivla_drivers.core.locoman_postures import NOMINAL, Posture, route
from mivla_drivers.core.port import ArmBackend
from mivla_drivers.sim.locoman_memory import MemoryDatagrams, MemorySerial
from mivla_drivers.sim.locoman_runtime import TICK_NS, LocomanRuntime
from mivla_drivers.sim.locoman_scene import has_stand, is_locoman
from mivla_drivers.sim.runtime import Disturbance, WorldReport, WorldRuntime, device_makers
from mivla_drivers.sim.scenario import Scenario
from mivla_drivers.sim.state_block import Snapshot
from mivla_drivers.sim.tasks import task_of

__all__ = ['ArmMachine', 'LeggedMachine', 'LockstepError', 'Machine', 'Operator', 'machine_of']


class LockstepError(MivlaError):
    """The simulated rig did not come up or left the states in which it can be used."""


class Operator(Protocol):
    """What a machine asks of the rig to bring a scene to its beginning; raises LockstepError."""

    def disable(self) -> None:
        """Take the torque off, whatever the pose."""
        ...

    def enable(self) -> None:
        """Have the driver take the robot over where it is."""
        ...

    def tick(self) -> Any:
        """Let one control tick pass."""
        ...

    def assume(self, posture: str) -> None:
        """Travel to a posture under the guard."""
        ...

    def lead(self, goal: np.ndarray) -> None:
        """Lead the joints (J,) to a pose through the teleop input."""
        ...


class Machine(Protocol):
    """
    One emulated robot with its world and its driver, on a clock of its own.

    :ivar tick_ns: one cycle of its devices [ns].
    :ivar home: joint positions (J,) about which scenes begin.
    """

    tick_ns: int
    home: np.ndarray

    @property
    def now(self) -> NowNs:
        """The present instant."""
        ...

    @property
    def controller(self) -> Controller:
        """The driver; a new scene may have a new one."""
        ...

    def begin(self, rig: Operator, scenario: Scenario, start: np.ndarray) -> None:
        """
        Bring robot and things to where a scene begins; what comes after does not depend on what
        was before.

        :param start: joint positions (J,).
        :raises LockstepError: the driver refused.
        """
        ...

    def advance(self) -> None:
        """Let one device cycle pass."""
        ...

    def report(self) -> WorldReport:
        """Return the ground truth of the task."""
        ...

    @property
    def success(self) -> bool:
        """Whether the task has succeeded since the scene began."""
        ...

    def snapshot(self, stamp: StampNs) -> Snapshot:
        """Return what a renderer needs now."""
        ...

    def close(self) -> None:
        """Let go of the robot; idempotent."""
        ...


def machine_of(profile: RobotProfile, task: str, disturbance: Disturbance,
               begin: NowNs) -> Machine:
    """
    Return the emulated robot of a profile in the scene of a task.

    :param begin: where its clock begins.
    :raises LockstepError: there is none that runs in lockstep.
    """
    if is_locoman(profile):
        return LeggedMachine(profile, task, disturbance, begin)
    return ArmMachine(profile, task, disturbance, begin)


def _backend(profile: RobotProfile) -> Callable[..., ArmBackend]:
    """Return the backend of a profile, as it is made with a bus and a clock of its own."""
    backend = profile.driver.backend
    if backend == 'arx5':
        # Its frames are spaced in wall time elsewhere.
        return partial(Arx5Backend, pause=lambda seconds: None)
    if backend == 'piper' and len(profile.arms) == 1:
        return PiperBackend
    raise LockstepError(f'{profile.name} cannot run in lockstep: one PiPER, one ARX-5 or a '
                        'LocoMan can')


class ArmMachine:
    """One arm on a table; see ``Machine``."""

    def __init__(self, profile: RobotProfile, task: str, disturbance: Disturbance,
                 begin: NowNs) -> None:
        self.home, self.now = np.array(profile.home), begin
        make = _backend(profile)
        self.runtime = WorldRuntime(profile, Scenario.draw(task, 0, 'easy'),
                                    device_makers(profile, disturbance), begin, arm=profile.home)
        self.tick_ns = self.runtime.tick_ns
        self._hand: Optional[np.ndarray] = None    # the pose in which the arm is held by hand
        # Only ``connect`` waits: simulated time passes, which makes the device speak.
        self._bus = MemoryBus(self._deliver, lambda _: self.advance())
        self._backend = make(
            profile, 'lockstep', profile.name, profile.driver.parameters,
            bus_factory=lambda *_: self._bus, clock=lambda: int(self.now))
        self._backend.connect(self.now)
        self.controller = Controller(profile, self._backend)

    def begin(self, rig: Operator, scenario: Scenario, start: np.ndarray) -> None:
        """Place the scene and the arm, and enable the driver."""
        rig.disable()
        self._hand = np.array(start)
        self._place(scenario)
        # A stale measurement of the pose before would be where the driver holds.
        for _ in range(20):
            rig.tick()
        # Without torque the arm would fall: it is held until the driver has it.
        rig.enable()
        # Again: what the physics still held of the run before would show in the last digits.
        self._place(scenario)
        self._hand = None
        for _ in range(20):
            rig.tick()

    def _place(self, scenario: Scenario) -> None:
        self.runtime.reset(scenario.task, scenario.seed, scenario.level, arm=self._hand)

    def advance(self) -> None:
        """Let one device cycle pass."""
        self.now = self.now + self.tick_ns
        for frames in self.runtime.tick(self.now):
            self._push(frames)
        if self._hand is not None:
            self.runtime.world.place(self._hand)

    def _deliver(self, can_id: int, data: bytes) -> None:
        self._push(self.runtime.deliver(can_id, data, self.now))

    def _push(self, frames: Sequence[tuple[int, bytes]]) -> None:
        for can_id, data in frames:
            self._bus.push(can_id, data, int(self.now) * 1e-9)

    def report(self) -> WorldReport:
        """Return the ground truth of the task."""
        return self.runtime.report()

    @property
    def success(self) -> bool:
        """Whether the task has succeeded since the scene began."""
        return self.runtime.success

    def snapshot(self, stamp: StampNs) -> Snapshot:
        """Return what a renderer needs now."""
        return self.runtime.snapshot(stamp)

    def close(self) -> None:
        """Let go of the bus; idempotent."""
        self._backend.close()


class _Legged:
    """
    A LocoMan, its wires and its driver: all of it that changes, and nothing else.

    So a robot in the posture in which scenes begin can be kept, and copied for each of them.
    """

    def __init__(self, profile: RobotProfile, scenario: Scenario, begin: NowNs,
                 disturbance: Disturbance) -> None:
        self.now, self.hand = begin, True
        self.runtime = LocomanRuntime(begin, pose='stance', profile=profile, scenario=scenario,
                                      disturbance=disturbance)
        driver = profile.driver
        self.backend = LocomanBackend(
            profile, driver.interface, driver.channel, driver.parameters, udp=self._udp,
            serial=self._serial, clock=self._clock, pause=self._pause)
        self.backend.connect(begin)
        self.controller = Controller(profile, self.backend)

    def _clock(self) -> NowNs:
        return self.now

    def _udp(self, robot: tuple[str, int], port: int) -> MemoryDatagrams:
        return MemoryDatagrams(self.runtime, robot, self._clock)

    def _serial(self, path: str, baud: int) -> MemorySerial:
        return MemorySerial(self.runtime, self._clock)

    def _pause(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds * 1e9 / TICK_NS))):
            self.advance()

    def advance(self) -> None:
        """Let one device cycle pass, the robot held in stance by hand or not."""
        self.now = self.now + TICK_NS
        self.runtime.tick(self.now)
        if self.hand:
            self.runtime.hold()


class LeggedMachine:
    """
    A LocoMan before a stand; see ``Machine``.

    It is enabled in stance and brought into the posture that frees its arm as an operator does
    it, once; every scene begins with a copy of the robot that stands there.
    """

    tick_ns = TICK_NS

    def __init__(self, profile: RobotProfile, task: str, disturbance: Disturbance,
                 begin: NowNs) -> None:
        if not has_stand(task):
            raise LockstepError(f'{profile.name} has no scene of {task}; its tasks are those that '
                                'name it')
        self._posture = task_of(task).posture
        self.home = np.array(route(Posture.STANCE, Posture(self._posture), NOMINAL)[-1].goal)
        # Never changed, so never copied.
        self._kept = {id(profile): profile}
        self._robot = _Legged(profile, Scenario.draw(task, 0, 'easy'), begin,
                              disturbance)
        self._ready: Optional[_Legged] = None

    def begin(self, rig: Operator, scenario: Scenario, start: np.ndarray) -> None:
        """Stand the robot before the things with one arm free."""
        if self._ready is None:
            rig.enable()
            self._robot.hand = False
            rig.assume(self._posture)
            self._ready = self._copy(self._robot)
        self._robot = self._copy(self._ready)
        rig.tick()
        rig.lead(start)
        # As drawn, whatever the robot's feet did on the way; and its clock begins.
        self._robot.runtime.place(scenario)

    def _copy(self, robot: _Legged) -> _Legged:
        return copy.deepcopy(robot, dict(self._kept))

    @property
    def now(self) -> NowNs:
        """The present instant."""
        return self._robot.now

    @property
    def controller(self) -> Controller:
        """The driver of the present robot."""
        return self._robot.controller

    def advance(self) -> None:
        """Let one device cycle pass."""
        self._robot.advance()

    def report(self) -> WorldReport:
        """Return the ground truth of the task."""
        return self._robot.runtime.task_report()

    @property
    def success(self) -> bool:
        """Whether the task has succeeded since the scene began."""
        return self._robot.runtime.success

    def snapshot(self, stamp: StampNs) -> Snapshot:
        """Return what a renderer needs now."""
        return self._robot.runtime.snapshot(stamp)

    def close(self) -> None:
        """Nothing to let go of: its wires are memory."""
