"""The scripted expert: its plans, and what they do in the simulated world."""

from __future__ import annotations

import numpy as np
import pytest

from mivla_core.kinematics import Chain
from mivla_core.profile import load_profile
from mivla_teleop.core.click_bell_expert import (
    DWELL,
    HOVER,
    PRESS,
    SPEED,
    ExpertError,
    Trajectory,
    Variation,
    plan_move,
    plan_press,
    start_pose,
)

PROFILE = load_profile('piper')
CHAIN = Chain(PROFILE.kinematics)
BUTTON = (0.33, 0.06, 0.05)


def sample(plan: Trajectory, period: float = 0.005) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    times = np.arange(0.0, plan.duration, period)
    position, velocity, acceleration = zip(*(plan.state(float(t)) for t in times))
    return np.array(position), np.array(velocity), np.array(acceleration)


def check(plan: Trajectory) -> None:
    """Hold a plan against the limits of the profile, analytically and by differences."""
    position, velocity, acceleration = sample(plan)
    assert (position >= PROFILE.lower - 1e-9).all() and (position <= PROFILE.upper + 1e-9).all()
    assert (np.abs(velocity) <= np.minimum(PROFILE.velocity, 1.2)).all()
    assert (np.abs(acceleration) <= 0.8 * PROFILE.acceleration).all()
    # The derivatives are those of the positions, also across the seams.
    np.testing.assert_allclose(np.diff(position, axis=0) / 0.005,
                               (velocity[1:] + velocity[:-1]) / 2.0, atol=1e-3)
    for end in (0.0, plan.duration):
        np.testing.assert_allclose(plan.velocity(end), 0.0, atol=1e-9)


def test_press_goes_over_the_hover_to_the_depth() -> None:
    plan = plan_press(PROFILE, PROFILE.home, BUTTON)
    np.testing.assert_allclose(plan.position(0.0), PROFILE.home, atol=1e-12)
    tips = np.array([CHAIN.tip(q)[:3, 3] for q in sample(plan)[0]])
    np.testing.assert_allclose(tips[-1], np.array(BUTTON) - (0, 0, PRESS), atol=2e-4)
    sideways = np.linalg.norm(tips[:, :2] - BUTTON[:2], axis=1)
    above = tips[:, 2] - BUTTON[2]
    # Nowhere low and beside the bell; the descent itself is straight.
    assert above[sideways > 0.02].min() > HOVER - 0.01
    assert sideways[above < HOVER - 0.001].max() < 1e-3
    # It dwells at the bottom.
    still = plan.position(plan.duration - DWELL + 0.01)
    np.testing.assert_allclose(still, plan.position(plan.duration), atol=1e-9)
    assert not plan.done(plan.duration - 0.01) and plan.done(plan.duration)


@pytest.mark.parametrize('x', (0.24, 0.34, 0.44))
@pytest.mark.parametrize('y', (-0.125, 0.0, 0.125))
@pytest.mark.parametrize('z', (0.043, 0.063))
def test_whole_range_of_the_bell_is_within_reach(x: float, y: float, z: float) -> None:
    for hover, tilt in (((0.005, 0.005, 0.008), -0.03), ((-0.005, -0.005, -0.008), 0.03)):
        plan = plan_press(PROFILE, PROFILE.home, (x, y, z), Variation(hover, 1.12, tilt))
        check(plan)
        position = sample(plan, 0.05)[0][:, :6]
        slack = np.minimum(position - PROFILE.lower[:6], PROFILE.upper[:6] - position)
        assert slack[len(slack) // 2:].min() > 0.3


def test_plans_of_many_starts_keep_the_limits() -> None:
    for seed in range(20):
        plan = plan_press(PROFILE, start_pose(PROFILE, seed), BUTTON, Variation.draw(seed))
        check(plan)
        assert 1.4 < plan.duration < 4.0


def test_long_moves_are_stretched_to_the_limits() -> None:
    plan = plan_move(PROFILE, PROFILE.rest, PROFILE.home, settle=0.2)
    check(plan)
    np.testing.assert_allclose(plan.position(plan.duration), PROFILE.home, atol=1e-12)
    assert np.abs(sample(plan)[1]).max() == pytest.approx(SPEED, abs=0.02)
    # A short one is bound by acceleration, not by speed.
    near = PROFILE.home + 0.02 * np.array([1, 1, 1, 1, 1, 1, 0])
    check(plan_move(PROFILE, PROFILE.home, near, speed=3.0))


def test_gripper_closes_on_the_way() -> None:
    start = PROFILE.home.copy()
    start[6] = 0.06
    plan = plan_press(PROFILE, start, BUTTON)
    check(plan)
    assert plan.position(plan.duration)[6] == 0.0


def test_standing_still_is_a_plan_too() -> None:
    plan = plan_move(PROFILE, PROFILE.home, PROFILE.home)
    np.testing.assert_allclose(plan.position(plan.duration / 2), PROFILE.home)


def test_variation_and_start_follow_their_seed() -> None:
    assert Variation.draw(3) == Variation.draw(3) != Variation.draw(4)
    np.testing.assert_array_equal(start_pose(PROFILE, 3), start_pose(PROFILE, 3))
    poses = np.array([start_pose(PROFILE, seed) for seed in range(200)])
    np.testing.assert_allclose(poses[:, :6].std(axis=0), 0.062, atol=0.01)
    assert np.abs(poses[:, :6] - PROFILE.home[:6]).max() <= 0.14 + 1e-9
    assert (poses[:, 6] == 0.0).all()
    speeds = [Variation.draw(seed).speed for seed in range(200)]
    assert 0.88 <= min(speeds) < 0.9 and 1.1 < max(speeds) <= 1.12


@pytest.mark.parametrize(
    'target', [(0.75, 0.0, 0.05), (0.3, 0.0, 0.9), (np.nan, 0, 0), (0.3, 0.1)])
def test_bell_out_of_reach_is_refused(target: tuple[float, ...]) -> None:
    with pytest.raises(ExpertError):
        plan_press(PROFILE, PROFILE.home, target)


@pytest.mark.parametrize('start', [np.full(7, np.nan), np.zeros(6), np.full(7, 3.0)])
def test_poses_without_meaning_are_refused(start: np.ndarray) -> None:
    with pytest.raises(ExpertError, match='start'):
        plan_press(PROFILE, start, BUTTON)


def test_expert_succeeds_in_the_simulated_world() -> None:
    sim = pytest.importorskip('mivla_drivers.sim.world', reason='the simulated world is absent')
    scenario = pytest.importorskip('mivla_drivers.sim.scenario')
    disturbance = pytest.importorskip('mivla_drivers.sim.disturbance')
    world = sim.World(PROFILE, scenario.Scenario.draw('click_bell', 0, 'easy'), arm=PROFILE.home)
    world.plant.set_enabled(np.ones(7, dtype=bool))
    failed = []
    for seed in range(1000, 1020):
        # Every other one with the disturbance under which demonstrations are recorded.
        noise = world.plant.noise(disturbance.Disturbance(0.03, 1)) if seed % 2 else None
        world.plant.set_disturbance(noise)
        start = start_pose(PROFILE, seed)
        world.reset(scenario.Scenario.draw('click_bell', seed, 'hard'), arm=start)
        plan = plan_press(PROFILE, start, world.task().target, Variation.draw(seed))
        for tick in range(int(plan.duration * 200) + 1):
            world.plant.set_target(plan.position(tick / 200))
            state = world.step(5)
        if not state.success:
            failed.append(seed)
    assert not failed
