"""Generated hands do what they should, are told as they are drawn, and pass through the file."""

from __future__ import annotations

import cv2
import mujoco
import numpy as np
import pytest

from mivla_bringup.generate_hands import HAND_SEEDS, _act, generate_hand
from mivla_core.images import decode_jpeg
from mivla_core.kinematics import Chain
from mivla_core.profile import load_profile
from mivla_drivers.sim.hand_model import Appearance, HandBody, HandPose, hand_model
from mivla_drivers.sim.hand_plan import plan_hand
from mivla_drivers.sim.scenario import TRAIN_SEEDS, Scenario
from mivla_drivers.sim.tasks.bottle_on_pad import RULES as BOTTLE
from mivla_drivers.sim.tasks.click_bell import target_of
from mivla_drivers.sim.tasks.umbrella_rack import RULES as UMBRELLA
from mivla_policy.formats.egodex import read_hand_file, write_hand_file
from mivla_policy.human.mapping import HandMapping
from mivla_policy.human.settings import load_mapping
from mivla_teleop.core.headset_frames import WORLD

PROFILE = load_profile('piper')
SEED = HAND_SEEDS[3]


@pytest.fixture(scope='module')
def press():
    return generate_hand(PROFILE, 'click_bell', SEED, 'hard')


def test_the_scenes_are_no_robot_s():
    assert set(HAND_SEEDS) < set(TRAIN_SEEDS) and not set(HAND_SEEDS) & set(TRAIN_SEEDS[:3000])


def test_the_hand_ends_on_the_bell_and_the_robot_in_its_place_too(press):
    target = target_of(Scenario.draw('click_bell', SEED, 'hard'), PROFILE.workspace.table_z)
    fingers = press.hands['right'].tips[-1, :2] @ WORLD.T
    assert np.linalg.norm(fingers.mean(axis=0)[:2] - target[:2]) < 0.015
    assert np.linalg.norm(press.hands['right'].tips[0, :2] @ WORLD.T - target, axis=1).min() > 0.05
    moved = HandMapping(PROFILE, load_mapping()).to_robot(press.hands)
    tip = Chain(PROFILE.arms[0].kinematics).tip(moved.joints[-1])[:3, 3]
    assert moved.reached.all() and np.linalg.norm(tip - target) < 0.025


def act(profile, scenario, seed, thing):
    """Return the hand of a demonstration, and the thing's place (n, 3) and axes (n, 3, 3)."""
    model, poses = hand_model(profile, scenario.task, Appearance()), []
    data = mujoco.MjData(model)
    scenario.apply(model)

    def look(_, qpos):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        body = data.body(thing)
        poses.append((body.xpos.copy(), body.xmat.reshape(3, 3).copy()))
    plan = plan_hand(scenario, float(profile.workspace.table_z), np.array([0.3, 0.0, 0.25]),
                     np.random.default_rng([seed, 7]))
    hand, _ = _act(model, 'head', plan, scenario, look)
    places, axes = zip(*poses)
    return hand, np.array(places), np.array(axes)


@pytest.mark.parametrize('robot, task, rules', [
    ('piper', 'bottle_on_pad', BOTTLE), ('arx5_x5', 'umbrella_rack', UMBRELLA)])
def test_what_the_hand_carries_ends_where_it_belongs_and_the_robot_could_do_so(
        robot, task, rules):
    profile = load_profile(robot)
    mapping, reached = HandMapping(profile, load_mapping()), []
    for seed in HAND_SEEDS[:8]:
        scenario = Scenario.draw(task, seed, 'hard')
        hand, places, axes = act(profile, scenario, seed, rules.thing)
        table = profile.workspace.table_z + scenario.table_dz
        away, turn = places[-1] - [*scenario.at(rules.goal), table], scenario.yaw(rules.goal)
        across = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        assert (np.abs(across @ away[:2]) < rules.within).all()
        assert rules.heights[0] <= away[2] <= rules.heights[1]
        assert axes[:, 2, 2].min() > 0.999        # nobody tipped it
        if rules.axis == 0:
            assert across[0] @ axes[-1, :2, 0] > np.cos(rules.off)
        assert places[:, 2].max() > places[0, 2] + rules.lifted
        reached.append(mapping.to_robot({'right': hand}).reached.mean())
    assert min(reached) > 0.9


def test_the_fingers_are_where_the_picture_shows_them(press):
    """The camera's pose and lens, as the file has them, lead to skin and not to the table."""
    frame = len(press) - 1
    picture = decode_jpeg(press.pictures.frames[frame]).astype(int)
    without = generate_hand(PROFILE, 'click_bell', SEED, 'hard').pictures.frames[0]
    knuckle = press.hands['right'].wrist[frame, :3, 3]
    camera = np.linalg.inv(press.camera[frame]) @ [*knuckle, 1.0]
    assert camera[2] > 0.1
    u, v = (press.intrinsic @ (camera[:3] / camera[2]))[:2]
    assert 0 <= u < picture.shape[1] and 0 <= v < picture.shape[0]
    changed = np.abs(picture - decode_jpeg(without).astype(int)).max(axis=2)
    x, y = round(u), round(v)
    assert changed[max(0, y - 3):y + 4, max(0, x - 3):x + 4].max() > 25
    assert changed[-20:, :20].max() < 25      # a corner that nothing comes near


def test_a_file_holds_what_was_made(press, tmp_path):
    write_hand_file(tmp_path / 'press.hdf5', press)
    again = read_hand_file(tmp_path / 'press.hdf5')
    assert again.instruction == 'press the bell' and len(again) == len(press)
    assert np.allclose(again.hands['right'].thumb_knuckle, press.hands['right'].thumb_knuckle,
                       atol=1e-6)
    first, second = (decode_jpeg(e.pictures.frames[0]).astype(float) for e in (press, again))
    assert np.abs(first - second).mean() < 6.0 and first.shape == second.shape
    assert cv2.PSNR(first.astype(np.uint8), second.astype(np.uint8)) > 28.0


def test_the_same_seed_is_the_same_demonstration():
    first, again, other = (generate_hand(PROFILE, 'bottle_on_pad', seed, 'hard', pictures=False)
                           for seed in (SEED, SEED, SEED + 1))
    assert (first.hands['right'].tips == again.hands['right'].tips).all()
    assert len(first) != len(other) or (first.hands['right'].tips
                                        != other.hands['right'].tips).any()


def test_the_offsets_of_the_mapping_are_those_of_the_average_hand():
    settings = load_mapping()
    model = hand_model(PROFILE, 'click_bell', Appearance())
    data, body = mujoco.MjData(model), HandBody(model)
    for opening, tips in ((0.0, settings.anatomy.closed), (1.0, settings.anatomy.open)):
        body.put(data, HandPose(np.eye(4), opening, np.array([-1.0, 0.0, 0.0])))
        mujoco.mj_kinematics(model, data)
        knuckle = body.knuckle(data)
        here = (body.tips(data) - knuckle[:3, 3]) @ knuckle[:3, :3]
        assert np.abs(here - np.array(tips)).max() < 1e-3
        distance = np.linalg.norm(np.subtract(*body.tips(data)[:2]))
        assert abs(distance - (settings.aperture.closed, settings.aperture.open)[
            int(opening)]) < 2e-3
    anchor = np.linalg.inv(body.grip) @ knuckle
    assert np.abs(anchor[:3, 3] - settings.anchor.position).max() < 1e-3
