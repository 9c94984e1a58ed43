"""
The simulated world as one machine: an emulated device in front of the physics.

Knows neither a clock nor a bus: frames and instants come in as arguments, frames go out as
results. The world process runs it in wall time; lockstep evaluation calls it as fast as it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mivla_core.profile import RobotProfile
from mivla_core.timing import NowNs, StampNs
from mivla_drivers.devices.piper_device import EmulatedPiper, PiperOptions
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.disturbance import Disturbance
from mivla_drivers.sim.plant import ArmPlant
from mivla_drivers.sim.scenario import Scenario
from mivla_drivers.sim.scene import TIMESTEP
from mivla_drivers.sim.state_block import Snapshot
from mivla_drivers.sim.world import TaskState, World

__all__ = [
    'Device',
    'device_maker',
    'Disturbance',
    'SUBSTEPS',
    'TICK_NS',
    'WorldReport',
    'WorldRuntime',
]

# The device's own cycle, 200 Hz as on the real arm.
TICK_NS = 5_000_000
SUBSTEPS = round(TICK_NS * 1e-9 / TIMESTEP)


class Device(Protocol):
    """An emulated device: takes frames from the bus, moves the plant, answers with frames."""

    def handle(self, can_id: int, data: bytes, now: NowNs) -> None:
        """Take one frame."""
        ...

    def tick(self, now: NowNs) -> list[tuple[int, bytes]]:
        """Run one cycle and return the frames that are due."""
        ...


@dataclass(frozen=True)
class WorldReport:
    """
    Ground truth of the task; for experts and evaluation only.

    :param seconds: simulated time since the reset [s].
    :param success_seconds: simulated time from the reset to success [s]; NaN before.
    """

    task: str
    seed: int
    level: str
    episode: int
    seconds: float
    state: TaskState
    success_seconds: float


def device_maker(
    profile: RobotProfile,
    disturbance: Disturbance = Disturbance(),
) -> Callable[[ArmPlant, NowNs], Device]:
    """
    Return the constructor of the emulated device for a profile's driver backend.

    :raises SimError: no emulated device speaks that backend's protocol.
    """
    if profile.driver.backend != 'piper':
        raise SimError(
            f'no emulated device for driver backend {profile.driver.backend!r}; known: piper. '
            'Run with sim:=false'
        )

    def make(plant: ArmPlant, start: NowNs) -> Device:
        plant.set_disturbance(plant.noise(disturbance) if disturbance.sigma > 0.0 else None)
        return EmulatedPiper(plant, PiperOptions(), start)

    return make


class WorldRuntime:
    """
    A world and the device that moves its arm; owned by one thread.

    :param make: builds the device around the plant, see :func:`device_maker`.
    :param start: instant of the first tick.
    :param arm: joint positions (J,) at the start; default the rest pose.
    """

    def __init__(
        self,
        profile: RobotProfile,
        scenario: Scenario,
        make: Callable[[ArmPlant, NowNs], Device],
        start: NowNs,
        *,
        arm: np.ndarray | None = None,
    ) -> None:
        self.world = World(profile, scenario, arm=arm)
        self.device = make(self.world.plant, start)
        self._ticks = 0
        self._success_tick: int | None = None
        self._state = self.world.task()

    def deliver(self, can_id: int, data: bytes, now: NowNs) -> None:
        """Hand the device one frame from the bus."""
        self.device.handle(can_id, data, now)

    def tick(self, now: NowNs) -> list[tuple[int, bytes]]:
        """Run one device cycle and 5 ms of physics; return the frames that the device sends."""
        frames = self.device.tick(now)
        self._state = self.world.step(SUBSTEPS)
        self._ticks += 1
        if self._state.success and self._success_tick is None:
            self._success_tick = self._ticks
        return frames

    @property
    def success(self) -> bool:
        """Whether the task has succeeded since the reset."""
        return self._success_tick is not None

    def reset(self, task: str, seed: int, level: str, *, arm: np.ndarray | None = None) -> None:
        """
        Place the scene of a seed; the arm stays where it is unless lockstep places it.

        :raises SimError: unknown task or level, or the arm is where the bell would stand.
        """
        self.world.reset(Scenario.draw(task, seed, level), arm=arm)
        self._ticks = 0
        self._success_tick = None
        self._state = self.world.task()

    def report(self) -> WorldReport:
        """Return the ground truth after the last tick."""
        scenario, tick_s = self.world.scenario, TICK_NS * 1e-9
        return WorldReport(
            task=scenario.task,
            seed=scenario.seed,
            level=scenario.level,
            episode=self.world.generation,
            seconds=self._ticks * tick_s,
            state=self._state,
            success_seconds=math.nan
            if self._success_tick is None
            else self._success_tick * tick_s,
        )

    def snapshot(self, stamp: StampNs) -> Snapshot:
        """Return what a renderer needs now; ``qpos`` is a view that the next tick changes."""
        scenario = self.world.scenario
        return Snapshot(
            stamp,
            self.world.generation,
            scenario.task,
            scenario.seed,
            scenario.level,
            self.world.qpos,
        )
