"""
A robot, its driver and its world in one process on simulated time.

For evaluation over many seeds: faster than real time, deterministic, and through the same guard,
backend, codec and emulated device as the graph. What differs from the graph is said in
``PolicyTiming``: an answer takes a fixed simulated time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from mivla_bringup.machines import LockstepError, machine_of
from mivla_bringup.timed_runner import PolicyTiming, Question, TimedRunner
from mivla_core.images import encode_jpeg
from mivla_core.profile import RobotProfile
from mivla_core.timing import NowNs, StampNs, to_ns
from mivla_drivers.core.controller import Controller, TickResult
from mivla_drivers.core.machine import Mode, State
from mivla_drivers.core.requests import Request
from mivla_drivers.core.setpoint import Command, Source
from mivla_drivers.core.verdicts import Refusal
from mivla_drivers.sim.render import CameraRenderer
from mivla_drivers.sim.runtime import Disturbance, WorldReport
from mivla_drivers.sim.scenario import INSTRUCTIONS, Scenario
from mivla_policy.core.chunk import Array
from mivla_policy.core.observation import Observation
from mivla_policy.serve.port import Policy, Query
from mivla_teleop.core.expert_motion import plan_move
from mivla_teleop.core.experts import task_start

__all__ = ['EpisodeOutcome', 'LockstepError', 'LockstepRig', 'PolicyTiming', 'run_policy']

# An instant of this century, in whole milliseconds: a backend takes earlier stamps for those of an
# adapter that does not know the date, and would read the clock of this machine instead.
_EPOCH = 1_700_000_000_000_000_000
_PATIENCE_NS = to_ns(15.0)      # for what an operator asks
_SETTLE_NS = to_ns(0.2)         # that a robot is held where it was led to


class LockstepRig:
    """
    One simulated robot with its driver, ticking at its control rate in simulated time.

    :param profile: of a robot that has an emulated device; see ``machines``.
    :param sizes: camera role -> (width, height) of the pictures [px].
    :param task: whose scene it has; a rig has one.
    :raises LockstepError: the robot or the task cannot run here.
    """

    def __init__(self, profile: RobotProfile, sizes: dict[str, tuple[int, int]],
                 disturbance: Disturbance = Disturbance(), task: str = 'click_bell') -> None:
        self.profile, self.task = profile, task
        self.machine = machine_of(profile, task, disturbance, NowNs(_EPOCH))
        # Whole device cycles per control tick.
        self._cycles = max(1, round(1e9 / profile.rates.control) // self.machine.tick_ns)
        self.period_ns = self._cycles * self.machine.tick_ns
        self.renderer = CameraRenderer(profile, sizes, task=task)
        self._frames = 0
        self._result: Optional[TickResult] = None

    @property
    def now(self) -> NowNs:
        """Present instant of the simulated clock."""
        return self.machine.now

    @property
    def controller(self) -> Controller:
        """The driver; a new scene may have a new one."""
        return self.machine.controller

    @property
    def stamp(self) -> StampNs:
        """Present ROS time, which in here is the simulated clock."""
        return StampNs(int(self.now))

    def tick(self) -> TickResult:
        """Let the device cycles of one control tick pass, and the tick."""
        for _ in range(self._cycles):
            self.machine.advance()
        self._result = self.controller.tick(self.now, self.stamp)
        return self._result

    def settle(self, request: Request, what: str) -> None:
        """
        Tick until a request of the operator is answered.

        :raises LockstepError: refused, or not answered within 15 s of simulated time.
        """
        self._until(lambda: request.done, lambda: f'{what}: {request.message or "no answer"}')
        if not request.ok:
            raise LockstepError(f'{what}: {request.message or "no answer"}')

    def _until(self, met: Callable[[], bool], why: Callable[[], str]) -> None:
        """Tick until something is so; raises LockstepError after 15 s of simulated time."""
        for _ in range(_PATIENCE_NS // self.period_ns):
            if met():
                return
            self.tick()
        raise LockstepError(why())

    def start(self, seed: int) -> np.ndarray:
        """Return the pose (J,) in which a demonstration or trial of a seed begins."""
        return task_start(self.task, self.profile, self.machine.home, seed)

    def begin(self, seed: int, level: str, task: Optional[str] = None,
              arm: Optional[np.ndarray] = None) -> None:
        """
        Place a scene and the robot, and enable the driver.

        What comes after is the same whatever this rig did before.

        :param task: default the rig's; another is refused.
        :param arm: (J,) start pose; default the one about which scenes begin.
        :raises LockstepError: the driver refused.
        :raises SimError: unknown level, or another task.
        """
        self._frames = 0
        self.machine.begin(self, Scenario.draw(task or self.task, seed, level),
                           self.machine.home if arm is None else np.array(arm))

    def disable(self) -> None:
        """Take the torque off, whatever the pose."""
        if self.controller.state is not State.DISABLED:
            self.settle(self.controller.disable(force=True), 'disable')

    def enable(self) -> None:
        """Have the driver take the robot over where it is."""
        self.settle(self.controller.enable(), 'enable')

    def assume(self, posture: str) -> None:
        """
        Travel to a posture, as an operator's word lets the driver do it.

        :raises LockstepError: refused, stopped, or not there in time.
        """
        controller = self.controller
        self.settle(controller.set_posture(posture), f'posture {posture}')
        self._until(lambda: controller.state is not State.MOVING and controller.standing,
                    lambda: f'posture {posture}: still moving after 15 s')
        if controller.state is not State.HOLDING or controller.posture != posture:
            raise LockstepError(f'posture {posture}: {controller.state.name} in posture '
                                f'{controller.posture}: {controller.detail}')

    def lead(self, goal: np.ndarray) -> None:
        """
        Lead the joints (J,) to a pose through the teleop input; the mode is idle afterwards.

        :raises LockstepError: the driver stopped.
        :raises ExpertError: no valid pose.
        """
        applied = self.applied()
        plan = plan_move(self.profile, self.measured() if applied is None else applied, goal)
        self.settle(self.controller.set_mode(Mode.TELEOP), 'mode teleop')
        begun, end = self.stamp, self.stamp + to_ns(plan.duration) + _SETTLE_NS
        sequence = 0
        while self.stamp < end:
            due = self.stamp + self.period_ns
            sequence += 1
            refused = self.command(Source.TELEOP, due, plan.position((due - begun) * 1e-9),
                                   plan.velocity((due - begun) * 1e-9), sequence)
            result = self.tick()
            if refused is not None or result.state not in (State.HOLDING, State.MOVING):
                raise LockstepError(f'led to its start the robot went to {result.state.name}: '
                                    f'{refused or result.detail}')
        self.settle(self.controller.set_mode(Mode.IDLE), 'mode idle')

    def command(self, source: Source, due: StampNs, position: np.ndarray, velocity: np.ndarray,
                sequence: int) -> Optional[Refusal]:
        """Hand in a set-point (J,) with its velocity; None when it was admitted, else why not."""
        return self.controller.submit(
            Command(source, due, self.profile.joint_names, tuple(position.tolist()),
                    self.profile.hash, tuple(velocity.tolist()), sequence), self.now, self.stamp)

    def pictures(self, roles: Sequence[str], quality: int) -> dict[str, bytes]:
        """Render the present state with each camera and encode as the camera node does."""
        self.renderer.place(self.machine.snapshot(self.stamp))
        self._frames += 1
        return {role: encode_jpeg(self.renderer.render(role, self._frames), quality)
                for role in roles}

    def look(self, role: str) -> np.ndarray:
        """
        Return what a camera sees now, RGB (height, width, 3), for people.

        What policies are shown does not change by it: their pictures' noise is counted apart.
        """
        self.renderer.place(self.machine.snapshot(self.stamp))
        return self.renderer.render(role, 0)

    def report(self) -> WorldReport:
        """Return the ground truth of the task, for experts and judgement only."""
        return self.machine.report()

    @property
    def success(self) -> bool:
        """Whether the task has succeeded since the scene began."""
        return self.machine.success

    def measured(self) -> np.ndarray:
        """Return the newest measured joint positions (J,)."""
        if self._result is None or self._result.measurement is None:
            raise LockstepError('nothing was measured yet')
        return np.array(self._result.measurement.position)

    def applied(self) -> Optional[np.ndarray]:
        """Return the last applied set-point (J,); None before the first."""
        if self._result is None or self._result.setpoint is None:
            return None
        return np.array(self._result.setpoint.position)

    def close(self) -> None:
        """Release bus and renderer; idempotent."""
        self.machine.close()
        self.renderer.close()


@dataclass(frozen=True)
class EpisodeOutcome:
    """
    What one episode came to.

    :param seconds: to success, else the time limit.
    :param progress: deepest press seen [m].
    :param verdicts: of the guard, by kind; those that came.
    :param score: partial, 0 to 1, as the task's judge gives it.
    :param stage: the last of the task's stages that was reached; '' before the first.
    :param dry_ticks: control ticks without a set-point after the first.
    :param stopped: why the guard latched a stop before the end, which an operator would have to
        undo; '' where it did not.
    """

    seed: int
    success: bool
    seconds: float
    progress: float
    chunks: int
    verdicts: dict[str, int]
    dry_ticks: int = 0
    stopped: str = ''
    score: float = 0.0
    stage: str = ''


def run_policy(rig: LockstepRig, policy: Policy, seed: int, level: str, *,
               task: str = 'click_bell', limit_s: float = 10.0,
               arm: Optional[np.ndarray] = None, quality: int = 90,
               timing: PolicyTiming = PolicyTiming(),
               watch: Optional[Callable[[Observation], None]] = None,
               film: Optional[Callable[[], None]] = None) -> EpisodeOutcome:
    """
    Run a policy on one scene until it succeeds or the time is over.

    :param watch: called with what is to be seen at every frame of ``timing``.
    :param film: called at every frame of ``timing``, for ``rig.look``; changes no outcome.
    :raises LockstepError: the driver faulted.
    """
    rig.begin(seed, level, task, arm)
    reset: Any = getattr(policy, 'reset', None)
    if reset is not None:
        reset()
    rig.settle(rig.controller.set_mode(Mode.POLICY), 'mode policy')
    before = dict(rig.controller.report(rig.now).counts)
    spec, names = policy.specs[0], rig.profile.joint_names
    runner = TimedRunner(rig.profile, spec, timing)
    deepest, started, sequence = 0.0, rig.stamp, 0

    def observe() -> Observation:
        return Observation(int(rig.stamp), rig.measured(),
                           rig.pictures(spec.camera_roles, quality), INSTRUCTIONS[task])

    def ask(question: Question) -> Array:
        query = Query(spec, observe(), seed * 1000 + question.number - 1, question.prefix)
        return policy.infer([query]).chunks[0]

    stopped = ''
    while rig.stamp - started < to_ns(limit_s):
        due = rig.stamp + rig.period_ns
        if (rig.stamp - started) % timing.frame_ns < rig.period_ns:
            if watch is not None:
                watch(observe())
            if film is not None:
                film()
        point = runner.tick(rig.stamp, due, ask, rig.applied)
        if point is not None:
            sequence += 1
            rig.controller.submit(
                Command(Source.POLICY, due, names, tuple(point.position.tolist()),
                        rig.profile.hash, tuple(point.velocity.tolist()), sequence,
                        point.observation, point.chunk_id),
                rig.now, rig.stamp)
        result = rig.tick()
        if result.state is State.STOPPED:
            stopped = result.detail
            break
        if result.state not in (State.HOLDING, State.MOVING):
            raise LockstepError(f'seed {seed}: the driver went to {result.state.name}: '
                                f'{result.detail}')
        report = rig.report()
        deepest = max(deepest, report.state.progress)
        if report.state.success:
            break
    if film is not None:
        film()
    counts = rig.controller.report(rig.now).counts
    grown = {name: count - before.get(name, 0) for name, count in counts.items()}
    state = rig.report().state
    return EpisodeOutcome(seed, rig.success, (rig.stamp - started) * 1e-9, deepest,
                          runner.trace.asked, {name: n for name, n in grown.items() if n},
                          runner.trace.dry_ticks, stopped, state.score, state.stage)
