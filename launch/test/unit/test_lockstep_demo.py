"""The scripted experts on simulated time, through driver, guard and emulated device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mivla_bringup.arguments import ARGUMENTS
from mivla_bringup.lockstep import LockstepRig
from mivla_bringup.lockstep_demo import demonstrate, demonstrations
from mivla_core.profile import load_profile
from mivla_drivers.sim.disturbance import Disturbance
from mivla_drivers.sim.scenario import EVAL_SEEDS, TRAIN_SEEDS
from mivla_drivers.sim.tasks import LEVELS, TASKS, task_of
from mivla_teleop.core.experts import EXPERTS

SIZE = (64, 48)
SLOW = {'locoman': ('hard',)}


@pytest.fixture(scope='module', params=sorted(TASKS))
def rig(request: pytest.FixtureRequest) -> Iterator[LockstepRig]:
    profile = load_profile(task_of(request.param).robots[0])
    # How much a robot on legs can be disturbed and still do its task was not measured yet.
    noise = Disturbance() if profile.name in SLOW else Disturbance(0.03)
    made = LockstepRig(profile, {camera.role: SIZE for camera in profile.cameras}, noise,
                       request.param)
    yield made
    made.close()


@pytest.mark.parametrize('level', LEVELS)
def test_the_expert_succeeds_on_every_level_although_it_is_disturbed(
        rig: LockstepRig, level: str) -> None:
    if rig.profile.name in SLOW and level not in SLOW[rig.profile.name]:
        pytest.skip('a demonstration of this robot takes long; its plans are tested apart')
    seed = EVAL_SEEDS[LEVELS.index(level)]
    done = demonstrate(rig, seed, level)
    assert done.success and done.stopped == '', done
    assert (done.score, done.stage) == (1.0, task_of(rig.task).stages[-1])
    assert 1.0 < done.seconds < task_of(rig.task).limit_s


def test_demonstrations_are_episodes_with_clean_commands() -> None:
    episode, = demonstrations('piper', 'click_bell', TRAIN_SEEDS[:1], 'hard', size=SIZE)
    assert episode.instruction == TASKS['click_bell'].instruction
    assert set(episode.cameras) == {'head', 'wrist'}
    frames = episode.cameras['head'].stamps_ns
    assert len(frames) == pytest.approx(30 * episode.duration_s, abs=3)
    assert episode.states.stamps_ns[0] < frames[0] < episode.states.stamps_ns[-1]
    # What was commanded is smooth, what was measured was disturbed.
    commands, states = (np.array([np.interp(frames, track.stamps_ns, column)
                                  for column in track.values.T[:6]]).T
                        for track in (episode.commands, episode.states))
    assert 0.01 < np.abs(commands - states).max() < 0.2
    bends = [np.abs(np.diff(values, 2, axis=0)).max() for values in (commands, states)]
    assert bends[0] < bends[1]


def test_every_task_has_an_expert_and_is_an_argument_of_the_stack() -> None:
    assert set(EXPERTS) == set(TASKS)
    choices = {argument.name: argument.choices for argument in ARGUMENTS}
    assert choices['task'] == tuple(sorted(TASKS)) and choices['level'] == LEVELS
