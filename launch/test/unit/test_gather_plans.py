"""What the expert of ``gather_objects`` plans is allowed by driver and body, on every level."""

from __future__ import annotations

import numpy as np
import pytest

from mivla_core.kinematics import Chain, rotation
from mivla_core.profile import load_profile
from mivla_drivers.core.locoman_checks import refusal
from mivla_drivers.core.locoman_kinematics import FOOT_RADIUS
from mivla_drivers.core.locoman_postures import (
    BASE,
    NOMINAL,
    NOMINAL_FEET,
    POSTURES,
    Posture,
    route,
)
from mivla_drivers.core.robot_envelope import envelope_of
from mivla_drivers.sim.locoman_scene import STAND_HEIGHT
from mivla_drivers.sim.scenario import EVAL_SEEDS, Scenario
from mivla_drivers.sim.tasks import LEVELS
from mivla_drivers.sim.tasks.gather_objects import BLOCKS, TASK
from mivla_teleop.core.expert_motion import ExpertError, Trajectory
from mivla_teleop.core.experts import plan_task, task_start

PROFILE, POSTURE = load_profile('locoman'), Posture(TASK.posture)
READY = np.array(route(Posture.STANCE, POSTURE, NOMINAL)[-1].goal)
RIGHT = slice(0, 6)
GRIPPER = 6


def places(seed: int, level: str) -> np.ndarray:
    scenario = Scenario.draw(TASK.name, seed, level)
    height = NOMINAL_FEET[0][2] - FOOT_RADIUS + STAND_HEIGHT + scenario.table_dz
    return np.array([[*scenario.at(body), height, 1.0, 0.0, 0.0, 0.0]
                     for body in (*BLOCKS, 'tray')])


def planned(seed: int, level: str) -> Trajectory:
    start = task_start(TASK.name, PROFILE, READY, seed)
    return plan_task(TASK.name, PROFILE, start, places(seed, level), seed)


@pytest.mark.parametrize('level', LEVELS)
def test_plans_keep_what_the_driver_and_the_whole_body_allow(level: str) -> None:
    envelope = envelope_of(PROFILE)
    fixed = [index for index in range(20) if index not in POSTURES[POSTURE].free]
    for seed in EVAL_SEEDS[:3]:
        plan = planned(seed, level)
        assert 10.0 < plan.duration < 0.6 * TASK.limit_s
        for t in np.arange(0.0, plan.duration, 0.2):
            position, velocity, _ = plan.state(float(t))
            assert not refusal(position, POSTURE), (seed, t)
            assert envelope.clearance(position) > 0.01, (seed, t)
            assert (np.abs(velocity) <= 0.85 * PROFILE.velocity).all()
            np.testing.assert_allclose(position[fixed], READY[fixed], rtol=0.0, atol=1e-9)


def test_the_hand_meets_each_block_open_and_leaves_it_in_the_tray() -> None:
    seed, chain = EVAL_SEEDS[5], Chain(PROFILE.arms[0].kinematics)
    where, plan = places(seed, 'easy'), planned(seed, 'easy')
    turn, origin = rotation(*READY[BASE][3:]), READY[BASE][:3]
    track = [(q[GRIPPER], turn @ chain.tip(q[RIGHT])[:3, 3] + origin)
             for q in map(plan.position, np.arange(0.0, plan.duration, 0.02))]
    # The jaws close from open to squeezing twice, each time beside a block, and open in the tray.
    closing = [at for (before, at), (after, _) in zip(track, track[1:])
               if before > 0.6 >= after]
    opening = [at for (before, _), (after, at) in zip(track, track[1:])
               if before <= 0.6 < after]
    assert len(closing) == 2 and len(opening) == 3      # the first time on its way there
    for at, block in zip(closing, where):
        assert np.linalg.norm(at[:2] - block[:2]) < 0.022
        assert 0.020 < at[2] - block[2] < 0.045
    for at in opening[1:]:
        assert np.abs(at[:2] - where[2, :2]).max() < 0.045


def test_what_is_out_of_reach_is_said() -> None:
    far = places(EVAL_SEEDS[0], 'easy')
    far[0, 0] = 0.8
    with pytest.raises(ExpertError, match=r'the tip at \[0\.\d+.*out of reach|no joint positions'):
        plan_task(TASK.name, PROFILE, READY, far, 0)


def test_starts_differ_by_seed_about_the_posture() -> None:
    starts = np.array([task_start(TASK.name, PROFILE, READY, seed) for seed in EVAL_SEEDS[:20]])
    moved = np.flatnonzero(np.abs(starts - READY).max(axis=0))
    assert moved.tolist() == [3, 4, 5] and np.abs(starts - READY).max() <= 0.1
    assert all(not refusal(start, POSTURE) for start in starts)
    assert len({tuple(start) for start in starts}) == 20
