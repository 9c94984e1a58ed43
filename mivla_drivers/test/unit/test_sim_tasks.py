"""The tasks of the simulated bench: what a seed means, and what their judges believe."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

import mujoco
import numpy as np
import pytest

from mivla_core.profile import RobotProfile, load_profile
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.locoman_body import LocomanPlant
from mivla_drivers.sim.locoman_scene import is_locoman
from mivla_drivers.sim.locoman_task import LocomanTask
from mivla_drivers.sim.scenario import EVAL_SEEDS, TRAIN_SEEDS, Scenario, covering_seeds
from mivla_drivers.sim.scene import build_model, scene_id
from mivla_drivers.sim.tasks import LEVELS, TASKS, Place, TaskState, task_of
from mivla_drivers.sim.tasks.base import thing_joints
from mivla_drivers.sim.world import World

EVERY = [(name, level) for name in TASKS for level in LEVELS]
MOVED = {'bottle_on_pad': ('bottle', 'pad'), 'umbrella_rack': ('umbrella', 'rack')}


class Stand:
    """The things of a task before a LocoMan that is held in stance."""

    def __init__(self, profile: RobotProfile, scenario: Scenario) -> None:
        self.plant = LocomanPlant(task=scenario.task)
        self.model, self.data = self.plant.model, self.plant.data
        self.judge = LocomanTask(profile, self.model, self.data, scenario).judge
        self._held = self.data.qpos[:self.plant.robot_size].copy()

    def step(self, count: int) -> TaskState:
        for _ in range(count):
            self.data.qpos[:len(self._held)] = self._held
            self.data.qvel[:len(self._held) - 1] = 0.0
            self.plant.advance(1)
        return self.judge.state()


def world_of(task: str, seed: int = 0, level: str = 'easy') -> World | Stand:
    profile, scenario = load_profile(task_of(task).robots[0]), Scenario.draw(task, seed, level)
    if is_locoman(profile):
        return Stand(profile, scenario)
    return World(profile, scenario, arm=profile.home)


@pytest.mark.parametrize('task, level', EVERY)
def test_a_scenario_is_a_pure_function(task: str, level: str) -> None:
    drawn = [Scenario.draw(task, seed, level) for seed in EVAL_SEEDS[:20]]
    assert drawn == [Scenario.draw(task, seed, level) for seed in EVAL_SEEDS[:20]]
    assert len({repr(scenario.places) for scenario in drawn}) == 20
    assert all((scenario.task, scenario.level) == (task, level) for scenario in drawn)


# Of the scenarios of a few seeds: every demonstration and every published result names its scenes
# by their seeds. Another digest is another scene: then the results are measured anew.
DRAWN = {
    ('click_bell', 'easy'): '5c5cc99467d3303b',
    ('click_bell', 'hard'): '47e30fb1d8053c08',
    ('click_bell', 'novel_object'): 'ca29f23896137392',
    ('click_bell', 'unseen_pose'): '9414843afb23906b',
    ('click_bell', 'distractor'): 'd0b20e05a1edbdfe',
    ('bottle_on_pad', 'easy'): 'a84d9170a9192e12',
    ('bottle_on_pad', 'hard'): '892d97c378e3b9cd',
    ('bottle_on_pad', 'novel_object'): '75d55fc3ced1ec58',
    ('bottle_on_pad', 'unseen_pose'): 'ee0598169af1612c',
    ('bottle_on_pad', 'distractor'): '4066359d85b559c4',
    ('umbrella_rack', 'easy'): '4461ed6ffb6caecc',
    ('umbrella_rack', 'hard'): 'ef0ba3593d6b80be',
    ('umbrella_rack', 'novel_object'): '6b1b88e309d9bb9e',
    ('umbrella_rack', 'unseen_pose'): '04065033d8bdcafd',
    ('umbrella_rack', 'distractor'): '187c3de13e2b0055',
    ('gather_objects', 'easy'): '88165505f9003baa',
    ('gather_objects', 'hard'): 'c2e98271af82e327',
    ('gather_objects', 'novel_object'): 'be4436e437c0e75f',
    ('gather_objects', 'unseen_pose'): '3a175028f02e316d',
    ('gather_objects', 'distractor'): '908812a6eca09c94',
}


def plain(value: Any) -> Any:
    """Return what tells a scenario from another, whatever the machine's last digits are."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return f'{value:.9f}' if isinstance(value, float) else value


@pytest.mark.parametrize('task, level', DRAWN)
def test_a_seed_means_what_it_meant(task: str, level: str) -> None:
    drawn = [plain(asdict(Scenario.draw(task, seed, level)))
             for seed in (0, 1, 7, 42, 1_000_003, 2**63)]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == DRAWN[task, level]


@pytest.mark.parametrize('task', TASKS)
def test_easy_and_hard_place_the_things_alike(task: str) -> None:
    for seed in EVAL_SEEDS[:10]:
        easy, hard = (Scenario.draw(task, seed, level) for level in ('easy', 'hard'))
        assert task_of(task).spots(easy) == task_of(task).spots(hard)
        assert easy.look != hard.look and easy.shown == hard.shown
        assert easy.look == Scenario.draw(task, seed + 1, 'easy').look


@pytest.mark.parametrize('task', TASKS)
def test_each_suite_leaves_the_training_distribution_in_its_one_way(task: str) -> None:
    def inside(scenario: Scenario) -> bool:
        spots = np.array(task_of(task).spots(scenario))
        return bool((spots >= 0.0).all() and (spots <= 1.0).all())

    def decoys(scenario: Scenario) -> list[Place]:
        return [place for place in scenario.places
                if place.body.startswith('decoy') and place.at is not None]

    for seed in EVAL_SEEDS[:40]:
        drawn = {level: Scenario.draw(task, seed, level) for level in LEVELS}
        assert {level: inside(scenario) for level, scenario in drawn.items()} == {
            level: level != 'unseen_pose' for level in LEVELS}
        assert {level: len(decoys(scenario)) for level, scenario in drawn.items()} == {
            level: 2 if level == 'distractor' else 0 for level in LEVELS}
        assert (drawn['novel_object'].shown != drawn['easy'].shown)
        assert all(drawn[level].shown == drawn['easy'].shown for level in LEVELS
                   if level != 'novel_object')
        assert all(drawn[level].look == drawn['easy'].look for level in LEVELS[2:])
        things = [place.at for place in drawn['distractor'].places if place.at is not None
                  and place.body != 'blocks']
        odd = [place.at for place in decoys(drawn['distractor'])]
        apart = [np.hypot(a[0] - b[0], a[1] - b[1]) for a in things for b in odd if a != b]
        assert min(apart) > 0.09


@pytest.mark.parametrize('task', MOVED)
def test_the_table_of_hard_is_three_centimetres_up_or_down(task: str) -> None:
    heights = np.array([Scenario.draw(task, seed, 'hard').table_dz for seed in EVAL_SEEDS[:200]])
    assert -0.03 <= heights.min() < -0.027 and 0.027 < heights.max() <= 0.03
    assert Scenario.draw(task, 0, 'easy').table_dz == 0.0


@pytest.mark.parametrize('task', TASKS)
def test_demonstrations_cover_the_range_of_every_thing(task: str) -> None:
    seeds = covering_seeds(task, TRAIN_SEEDS[:600], 3, 3)
    assert len(set(seeds)) == 9
    spots = np.array([task_of(task).spots(Scenario.draw(task, seed, 'easy')) for seed in seeds])
    # Near both edges of each range, and not all on one diagonal.
    assert (spots.min(axis=0) < 0.25).all() and (spots.max(axis=0) > 0.75).all()
    assert np.abs(np.corrcoef(spots.T)[np.triu_indices(spots.shape[1], 1)]).max() < 0.8


@pytest.mark.parametrize('task', TASKS)
def test_scenes_of_tasks_differ_and_applying_leaves_nothing_behind(task: str) -> None:
    profile = load_profile(task_of(task).robots[0])
    others = ['floor'] if is_locoman(profile) else [name for name in TASKS if name != task]
    assert scene_id(profile, task) not in {scene_id(profile, name) for name in others}
    model, fresh = build_model(profile, task), build_model(profile, task)
    for level in LEVELS:
        Scenario.draw(task, 3, level).apply(model)
    Scenario.draw(task, 5, 'hard').apply(model)
    Scenario.draw(task, 5, 'hard').apply(fresh)
    for name in ('body_pos', 'body_quat', 'geom_rgba', 'geom_contype', 'geom_conaffinity',
                 'geom_matid', 'light_dir', 'light_diffuse'):
        np.testing.assert_array_equal(getattr(model, name), getattr(fresh, name), name)


@pytest.mark.parametrize('task, level', EVERY)
def test_nothing_scores_while_nothing_moves(task: str, level: str) -> None:
    world = world_of(task, 7, level)
    world.step(100)
    before = world.judge.places()
    for _ in range(10):
        state = world.step(100)
    assert (state.score, state.stage, state.success, state.touched) == (0.0, '', False, False)
    # What stands stays where it is.
    np.testing.assert_allclose(world.judge.places(), before, atol=2e-3)


@pytest.mark.parametrize('task', MOVED)
def test_a_thing_that_was_put_there_by_nobody_is_no_success(task: str) -> None:
    world, (thing, goal) = world_of(task), MOVED[task]
    joint = thing_joints(world.model, (thing,))[0]
    address = world.model.jnt_qposadr[joint]
    height = {'bottle': 0.0, 'umbrella': 0.022}[thing]
    world.data.qpos[address:address + 2] = world.scenario.at(goal)
    world.data.qpos[address + 2] += height
    world.data.qpos[address + 3:address + 7] = world.data.body(goal).xquat
    mujoco.mj_forward(world.model, world.data)
    for _ in range(100):
        state = world.step(5)
    # It does lie where it belongs: the judge sees that, and counts no stage before the first.
    assert world.judge._put_down(0)     # type: ignore[attr-defined]
    assert (state.score, state.success) == (0.0, False)


@pytest.mark.parametrize('along, across, reached', [
    (0.0, 0.0, True), (-0.08, 0.0, True), (0.10, 0.0, True), (-0.12, 0.0, False),
    (0.0, 0.035, False)])
def test_an_umbrella_may_be_taken_anywhere_along_its_shaft(
        along: float, across: float, reached: bool) -> None:
    world = world_of('umbrella_rack')
    address = world.model.jnt_qposadr[thing_joints(world.model, ('umbrella',))[0]]
    mujoco.mj_forward(world.model, world.data)
    yaw = 0.4
    ahead, left = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    tip = world.data.site('tip').xpos
    world.data.qpos[address:address + 2] = tip[:2] - along * ahead - across * left
    world.data.qpos[address + 2] = tip[2] - 0.064
    world.data.qpos[address + 3:address + 7] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
    mujoco.mj_forward(world.model, world.data)
    assert bool(world.judge.state().stage) == reached


def test_a_bottle_lying_on_the_pad_does_not_stand_on_it() -> None:
    world = world_of('bottle_on_pad')
    address = world.model.jnt_qposadr[thing_joints(world.model, ('bottle',))[0]]
    world.data.qpos[address:address + 2] = world.scenario.at('pad')
    world.data.qpos[address + 2] = 0.022
    world.data.qpos[address + 3:address + 7] = (np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0)
    for _ in range(200):
        world.step(5)
    assert not world.judge._put_down(0)     # type: ignore[attr-defined]


def test_another_task_needs_another_world() -> None:
    world = world_of('click_bell')
    with pytest.raises(SimError, match='restart it with task:=bottle_on_pad'):
        world.reset(Scenario.draw('bottle_on_pad', 0, 'easy'))
    assert world.scenario.task == 'click_bell'


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(SimError, match='juggle.*bottle_on_pad'):
        task_of('juggle')
    with pytest.raises(SimError, match='medium.*distractor'):
        Scenario.draw('bottle_on_pad', 0, 'medium')
