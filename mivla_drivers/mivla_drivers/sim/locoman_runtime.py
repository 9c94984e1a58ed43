"""
The simulated LocoMan as one machine: emulated Go1 and servo bus in front of one MuJoCo body.

Knows neither a clock nor a socket: datagrams, bytes and instants come in as arguments, answers go
out as results. Nothing holds the robot up: it stands on its feet or falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Optional

import mujoco

from mivla_core.profile import RobotProfile
from mivla_core.timing import NowNs, StampNs
from mivla_drivers.codec import go1
from mivla_drivers.core.locoman_servos import SERVO_IDS
from mivla_drivers.devices.dynamixel_bus import EmulatedServoBus
from mivla_drivers.devices.dynamixel_servo import EmulatedServo
from mivla_drivers.devices.go1_device import EmulatedGo1, Go1Options, LegState
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.disturbance import Disturbance, TargetNoise
from mivla_drivers.sim.locoman_body import TIMESTEP, LocomanPlant, PlantState, Truth, Variation
from mivla_drivers.sim.locoman_scene import TASK
from mivla_drivers.sim.locoman_task import LocomanTask
from mivla_drivers.sim.runtime import WorldReport
from mivla_drivers.sim.state_block import Snapshot
from mivla_drivers.sim.tasks import Scenario

__all__ = ['SUBSTEPS', 'TICK_NS', 'LocomanReport', 'LocomanRuntime', 'Start']

Start = Literal['stance', 'lying']

TICK_NS = 1_250_000
SUBSTEPS = round(TICK_NS * 1e-9 / TIMESTEP)
_SERVO_TICKS = 2                # the servos' registers are renewed at 400 Hz
_JUDGE_TICKS = 4                # a task is judged at 200 Hz


class _Legs:
    """The plant as the emulated Go1 sees it; sensors are read once per tick."""

    def __init__(self, plant: LocomanPlant) -> None:
        self._plant = plant
        self._read: LegState | None = None

    def legs(self) -> LegState:
        """Return what is measured now."""
        if self._read is None:
            self._read = _measured(self._plant.state())
        return self._read

    def forget(self) -> None:
        """The physics went on."""
        self._read = None

    def set_motors(self, mode: Sequence[int], position: Sequence[float], velocity: Sequence[float],
                   torque: Sequence[float], kp: Sequence[float], kd: Sequence[float]) -> None:
        """Hand the motors' order on."""
        self._plant.set_motors(mode, position, velocity, torque, kp, kd)

    def set_power(self, on: bool) -> None:
        """Switch all power."""
        self._plant.set_power(on)


def _measured(state: PlantState) -> LegState:
    return LegState(state.position, state.velocity, state.acceleration, state.torque,
                    go1.Imu(state.quaternion, state.gyro, state.acceleration_imu, state.rpy, 30),
                    state.foot_force)


@dataclass(frozen=True)
class LocomanReport:
    """
    Ground truth; for judges and evaluation only.

    :param seconds: simulated time since the reset [s].
    :param falls: how often the robot has fallen since the start.
    :param task: ground truth of the task; None on a bare floor.
    """

    seed: int
    episode: int
    seconds: float
    truth: Truth
    falls: int
    task: Optional[WorldReport] = None


class LocomanRuntime:
    """
    The robot with its two wires; owned by one thread.

    :param start: instant of the first tick.
    :param pose: 'lying' as a robot is switched on, or 'stance'.
    :param profile: of the robot, with ``scenario``: of the task whose scene it stands in. None:
        it stands on a floor.
    :param disturbance: of the right leg and arm while the leg is lifted, faded out where the task
        leaves it no room.
    """

    def __init__(self, start: NowNs, *, options: Go1Options = Go1Options(), pose: Start = 'lying',
                 variation: Variation = Variation(), profile: Optional[RobotProfile] = None,
                 scenario: Optional[Scenario] = None,
                 disturbance: Disturbance = Disturbance()) -> None:
        self.plant = LocomanPlant(variation=variation, start=pose,
                                  task=scenario.task if scenario else TASK)
        self._task = (LocomanTask(profile, self.plant.model, self.plant.data, scenario)
                      if profile is not None and scenario is not None else None)
        self._noise = (TargetNoise(disturbance, 6, self.plant.model, self.plant.data,
                                   self._task.judge.room, 'R_tool')
                       if self._task is not None and disturbance.sigma > 0.0 else None)
        self._legs, self._pose = _Legs(self.plant), pose
        self._found = self.plant.data.qpos[:self.plant.robot_size].copy()
        self.go1 = EmulatedGo1(self._legs, options, start)
        angles = self.plant.servos.position().tolist()
        self.servos = EmulatedServoBus(
            [EmulatedServo(servo, angle) for servo, angle in zip(SERVO_IDS, angles)],
            self.plant.servos)
        self.servos.tick(start)
        self._seed, self._episode, self._ticks, self._falls = 0, 0, 0, 0
        self._fallen = False

    def deliver(self, data: bytes, now: NowNs) -> bytes | None:
        """Hand the Go1 one datagram; return its answer, for where the datagram came from."""
        return self.go1.handle(data, now)

    def deliver_bytes(self, data: bytes, now: NowNs) -> bytes:
        """Hand the servo bus bytes; return what the servos answer: nothing without power."""
        answer = self.servos.handle(data, now)
        return answer if self.go1.powered else b''

    def tick(self, now: NowNs) -> None:
        """Let the devices act and run 1.25 ms of physics."""
        self.go1.tick(now)
        if self._ticks % _SERVO_TICKS == 0:
            self.servos.tick(now)
        if self._noise is not None:
            self.plant.disturb(self._noise.offset())
        self.plant.advance(SUBSTEPS)
        self._legs.forget()
        self._ticks += 1
        if self._task is not None and self._ticks % _JUDGE_TICKS == 0:
            self._task.look(self._ticks * TICK_NS * 1e-9)

    def look(self) -> Truth:
        """Return the truth and count a fall; at 20 Hz or so."""
        truth = self.plant.truth()
        self._falls += truth.fallen and not self._fallen
        self._fallen = truth.fallen
        return truth

    def reset(self, seed: int, pose: str, now: NowNs) -> None:
        """
        Put the robot back, at rest; its devices stay as they are, as on a real robot.

        :param pose: 'stance', 'lying', or '' for that of the start.
        :raises SimError: another pose.
        """
        if pose not in ('', 'stance', 'lying'):
            raise SimError(f'pose {pose!r} is not known; known: stance, lying')
        fresh = LocomanPlant(start=pose or self._pose)      # type: ignore[arg-type]
        self.plant.data.qpos[:fresh.robot_size] = fresh.data.qpos
        self.plant.data.qvel[:] = 0.0
        mujoco.mj_forward(self.plant.model, self.plant.data)
        self._legs.forget()
        self._seed, self._episode = seed, self._episode + 1
        self._ticks, self._fallen = 0, False
        if not self.go1.powered:
            self.go1.power_on(now)

    def hold(self) -> None:
        """Hold the robot as it was found, as by hand; only between runs."""
        self.plant.data.qpos[:self._found.size] = self._found
        self.plant.data.qvel[:] = 0.0
        self._legs.forget()

    def place(self, scenario: Scenario) -> None:
        """
        Place the things of a task; the robot stays where it is, as on a real floor.

        :raises SimError: another task than this world's.
        """
        if self._task is None or scenario.task != self._task.scenario.task:
            raise SimError(f'this world does {self.task}; restart it with task:={scenario.task}')
        self._task.place(scenario)
        if self._noise is not None:
            self._noise.restart(scenario.seed)
        self._legs.forget()
        self._seed, self._episode, self._ticks = scenario.seed, self._episode + 1, 0

    @property
    def task(self) -> str:
        """The task whose scene this is; that of a bare floor without one."""
        return self._task.scenario.task if self._task is not None else TASK

    @property
    def success(self) -> bool:
        """Whether the task has succeeded since its things were placed."""
        return self._task is not None and self._task.success

    def task_report(self) -> WorldReport:
        """
        Return the ground truth of the task.

        :raises SimError: there is none.
        """
        if self._task is None:
            raise SimError('this LocoMan stands on a bare floor; start it with a task')
        return self._task.report(self._episode, self._ticks * TICK_NS * 1e-9)

    def report(self) -> LocomanReport:
        """Return the ground truth after the last tick."""
        return LocomanReport(self._seed, self._episode, self._ticks * TICK_NS * 1e-9, self.look(),
                             self._falls, self.task_report() if self._task else None)

    def snapshot(self, stamp: StampNs) -> Snapshot:
        """Return what a renderer needs now; ``qpos`` is a view that the next tick changes."""
        level = self._task.scenario.level if self._task is not None else 'easy'
        return Snapshot(stamp, self._episode, self.task, self._seed, level, self.plant.data.qpos)
