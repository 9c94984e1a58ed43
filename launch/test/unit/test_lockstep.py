"""The simulated rig in one process: expert, policy and guard on simulated time."""

import numpy as np
import pytest

from mivla_bringup.lockstep import LockstepRig, PolicyTiming, run_policy
from mivla_core.profile import load_profile
from mivla_drivers.core.machine import Mode, State
from mivla_drivers.core.setpoint import Command, Source
from mivla_drivers.sim.scenario import EVAL_SEEDS
from mivla_policy.serve.port import Inference, PolicySpec
from mivla_teleop.core.click_bell_expert import Variation, plan_press, start_pose

PROFILE = load_profile('piper')
SIZE = {'head': (96, 72), 'wrist': (96, 72)}


@pytest.fixture(scope='module')
def rig():
    made = LockstepRig(PROFILE, SIZE)
    yield made
    made.close()


def press(rig, seed):
    """Let the expert press the bell of a seed through the teleop input; returns tick results."""
    profile = rig.profile
    rig.begin(seed, 'hard', arm=start_pose(profile, seed))
    rig.settle(rig.controller.set_mode(Mode.TELEOP), 'mode')
    target = rig.report().places[0, :3]
    plan = plan_press(profile, rig.applied(), target, Variation.draw(seed))
    begun, results = rig.stamp, []
    while not plan.done((rig.stamp - begun) * 1e-9):
        due = rig.stamp + rig.period_ns
        t = (due - begun) * 1e-9
        rig.controller.submit(
            Command(Source.TELEOP, due, profile.joint_names, tuple(plan.position(t)),
                    profile.hash, tuple(plan.velocity(t)), len(results) + 1),
            rig.now, rig.stamp)
        results.append(rig.tick())
    return results


@pytest.mark.parametrize('seed', EVAL_SEEDS[:3])
def test_the_expert_presses_the_bell_through_guard_codec_and_device(rig, seed):
    results = press(rig, seed)
    assert rig.success
    assert all(result.state in (State.HOLDING, State.MOVING) for result in results)


@pytest.mark.parametrize('name', ['arx5_x5', 'arx5_l5'])
def test_the_expert_presses_the_bell_with_an_arx_too(name):
    profile = load_profile(name)
    rig = LockstepRig(profile, SIZE)
    try:
        results = press(rig, EVAL_SEEDS[0])
        assert rig.success
        assert all(result.state in (State.HOLDING, State.MOVING) for result in results)
        assert rig.period_ns == 4_000_000
    finally:
        rig.close()


@pytest.mark.parametrize('name', ['piper', 'arx5_x5', 'arx5_l5'])
def test_the_same_seed_gives_the_same_motion_whatever_was_done_before(name):
    """Also in the first episode of a rig, whose driver has never been enabled."""
    rig = LockstepRig(load_profile(name), SIZE)
    try:
        first, other, second = ([result.measurement.position for result in press(rig, seed)]
                                for seed in (EVAL_SEEDS[5], EVAL_SEEDS[6], EVAL_SEEDS[5]))
        np.testing.assert_array_equal(first, second)
        assert other[-1].tolist() != first[-1].tolist()
    finally:
        rig.close()


class Still:
    """A policy that asks to stay where the arm is."""

    specs = (PolicySpec('still', 16, 66_666_667, PROFILE.joint_names, ('head', 'wrist'), (96, 96),
                        PROFILE.hash),)

    def infer(self, queries):
        return Inference([np.tile(query.observation.joints, (16, 1)) for query in queries])


def test_a_policy_that_stands_still_does_not_succeed_and_does_not_fault(rig):
    outcome = run_policy(rig, Still(), EVAL_SEEDS[0], 'easy', limit_s=1.0)
    assert not outcome.success
    assert outcome.chunks >= 2
    assert outcome.verdicts['passed'] > 100


def test_answers_too_late_to_ride_through_end_the_episode_with_the_reason(rig):
    timing = PolicyTiming(answer_ns=900_000_000)
    outcome = run_policy(rig, Still(), EVAL_SEEDS[0], 'easy', limit_s=5.0, timing=timing)
    assert not outcome.success and 'no command from policy' in outcome.stopped
    # The next episode begins as if nothing had been.
    assert not run_policy(rig, Still(), EVAL_SEEDS[0], 'easy', limit_s=0.5).stopped


class Diver(Still):
    """A policy that drives the arm through the table."""

    def infer(self, queries):
        joints = queries[0].observation.joints
        goal = joints + np.array([0, 1.2, 0.6, 0, 0, 0, 0])
        steps = np.linspace(0, 1, 17)[1:, None]
        return Inference([joints * (1 - steps) + goal * steps])


def test_the_guard_keeps_a_diving_policy_above_the_table(rig):
    lowest = []
    tip = rig.machine.runtime.world.tip

    class Watched(Diver):
        def infer(self, queries):
            lowest.append(float(tip()[2]))
            return super().infer(queries)

    outcome = run_policy(rig, Watched(), EVAL_SEEDS[1], 'easy', limit_s=4.0)
    lowest.append(float(tip()[2]))
    assert min(lowest) > PROFILE.workspace.table_z
    refused = sum(count for name, count in outcome.verdicts.items()
                  if name in ('below_table', 'blocked', 'limited_position', 'over_limit'))
    assert refused > 0, outcome.verdicts


def test_every_frame_can_be_watched_and_late_answers_do_not_fault(rig):
    seen = []
    outcome = run_policy(rig, Still(), EVAL_SEEDS[0], 'easy', limit_s=2.0, watch=seen.append,
                         timing=PolicyTiming(answer_ns=200_000_000, jitter=0.2, loss=0.1, draw=1))
    assert 58 <= len(seen) <= 62
    assert not outcome.success and outcome.verdicts['passed'] > 50
