"""
Demonstrations of the scripted expert on simulated time, as episodes in memory.

The same driver, guard and emulated device as in the graph, many times faster, without bags: for
learning curves and tests of tasks. What ships is trained from bags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from mivla_bringup.errors import BringupError
from mivla_bringup.lockstep import LockstepRig
from mivla_core.profile import RobotProfile, load_profile
from mivla_core.timing import to_ns
from mivla_drivers.core.machine import Mode, State
from mivla_drivers.core.setpoint import Command, Source
from mivla_drivers.sim.disturbance import Disturbance
from mivla_drivers.sim.scenario import INSTRUCTIONS
from mivla_policy.core.episode import Commanded, Episode, FrameTrack, Measured
from mivla_teleop.core.experts import plan_task

__all__ = ['Demonstration', 'demonstrate', 'demonstrations']

# As the recorder's episodes are cut for learning (``demonstrations.motion_of``).
_BEFORE_NS, _AFTER_NS = to_ns(0.10), to_ns(0.35)
_FRAME_NS = to_ns(1 / 30)
_QUALITY = 90
_ATTEMPTS = 3


@dataclass(frozen=True)
class Demonstration:
    """
    What one run of the expert came to.

    :param episode: None where no cameras were asked for.
    :param seconds: from the first command to success; NaN without.
    :param stopped: why the driver stopped; '' where it did not.
    """

    seed: int
    level: str
    success: bool
    score: float
    stage: str
    seconds: float
    stopped: str
    episode: Episode | None


@dataclass
class _Tracks:
    """What is noted tick by tick."""

    states: list[tuple[int, np.ndarray]]
    commands: list[tuple[int, np.ndarray]]
    frames: list[tuple[int, dict[str, bytes]]]

    def episode(self, rig: LockstepRig, source: str, roles: tuple[str, ...]) -> Episode:
        stamps = np.array([stamp for stamp, _ in self.frames])
        cameras = {role: FrameTrack(stamps, tuple(pictures[role] for _, pictures in self.frames))
                   for role in roles}
        states, commands = ((np.array([stamp for stamp, _ in track]),
                             np.array([values for _, values in track]))
                            for track in (self.states, self.commands))
        return Episode(source=source, instruction=INSTRUCTIONS[rig.task], cameras=cameras,
                       states=Measured(*states), commands=Commanded(*commands),
                       joint_names=rig.profile.joint_names, profile_hash=rig.profile.hash)


def demonstrate(rig: LockstepRig, seed: int, level: str,
                roles: tuple[str, ...] = ()) -> Demonstration:
    """
    Let the expert do the rig's task once through the teleop input.

    :param roles: cameras whose pictures are kept; none: nothing is rendered and there is no
        episode.
    :raises ExpertError: it cannot plan this scene.
    :raises LockstepError: the driver refused.
    """
    profile = rig.profile
    rig.begin(seed, level, arm=rig.start(seed))
    rig.settle(rig.controller.set_mode(Mode.TELEOP), 'mode teleop')
    applied = rig.applied()
    plan = plan_task(rig.task, profile, rig.measured() if applied is None else applied,
                     rig.report().places, seed)
    tracks, stopped, won = _Tracks([], [], []), '', float('nan')
    begun, next_frame = rig.stamp + _BEFORE_NS, rig.stamp + _BEFORE_NS
    end, sequence = begun + to_ns(plan.duration) + _AFTER_NS, 0
    while rig.stamp < end and not stopped:
        due = rig.stamp + rig.period_ns
        tracks.states.append((int(rig.stamp), rig.measured()))
        if roles and rig.stamp >= next_frame:
            next_frame = next_frame + _FRAME_NS
            tracks.frames.append((int(rig.stamp), rig.pictures(roles, _QUALITY)))
        if due >= begun:
            sequence += 1
            t = (due - begun) * 1e-9
            position, velocity = plan.position(t), plan.velocity(t)
            tracks.commands.append((int(due), position))
            rig.controller.submit(
                Command(Source.TELEOP, due, profile.joint_names, tuple(position.tolist()),
                        profile.hash, tuple(velocity.tolist()), sequence), rig.now, rig.stamp)
        result = rig.tick()
        if result.state not in (State.HOLDING, State.MOVING):
            stopped = result.detail or result.state.name
        if rig.success and np.isnan(won):
            won = (rig.stamp - begun) * 1e-9
    state = rig.report().state
    episode = tracks.episode(rig, f'lockstep {rig.task} {level} {seed}', roles) if roles else None
    return Demonstration(seed, level, state.success, state.score, state.stage, won, stopped,
                         episode)


def demonstrations(robot: str | RobotProfile, task: str, seeds: Iterable[int], level: str, *,
                   disturbance: float = 0.03, size: tuple[int, int] = (320, 240),
                   say: Callable[[str], None] = lambda _: None) -> list[Episode]:
    """
    Return one good demonstration of every seed, as episodes in memory.

    One that misses is done again under another disturbance, as when recording.

    :param robot: profile, or its name or path.
    :param disturbance: spread of the noise on the motor targets (DART) [rad]; the commands that
        are kept are the clean ones.
    :param size: of the pictures, width and height [px].
    :param say: called with a line per demonstration.
    :raises BringupError: a scene was missed three times.
    """
    profile = load_profile(robot) if isinstance(robot, str) else robot
    roles = tuple(camera.role for camera in profile.cameras)
    rigs: list[LockstepRig] = []
    episodes = []
    try:
        for number, seed in enumerate(seeds, 1):
            for attempt in range(_ATTEMPTS):
                if attempt == len(rigs):
                    rigs.append(LockstepRig(profile, dict.fromkeys(roles, size),
                                            Disturbance(disturbance, attempt), task))
                made = demonstrate(rigs[attempt], seed, level, roles)
                if made.success and not made.stopped and made.episode is not None:
                    episodes.append(made.episode)
                    say(f'demonstration {number} (seed {seed}): {made.seconds:.1f} s')
                    break
                say(f'demonstration {number} (seed {seed}): again: '
                    f'{made.stopped or made.stage or "missed"}')
            else:
                raise BringupError(f'{task} seed {seed}, level {level}: the expert missed it in '
                                   f'{_ATTEMPTS} attempts')
    finally:
        for rig in rigs:
            rig.close()
    return episodes
