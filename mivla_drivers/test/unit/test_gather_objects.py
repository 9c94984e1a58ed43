"""What the judge of ``gather_objects`` believes, and from where its things are seen."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from mivla_core.profile import load_profile
from mivla_core.timing import NowNs, StampNs
from mivla_drivers.core.locoman_postures import NOMINAL
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.disturbance import Disturbance
from mivla_drivers.sim.locoman_runtime import LocomanRuntime
from mivla_drivers.sim.locoman_scene import STAND_HEIGHT
from mivla_drivers.sim.scenario import EVAL_SEEDS, Scenario
from mivla_drivers.sim.tasks.gather_objects import BLOCKS, TASK

PROFILE = load_profile('locoman')
FLOOR = -0.285          # of the base frame


def stood(level: str = 'easy', seed: int = EVAL_SEEDS[0], **more: object) -> LocomanRuntime:
    """Return a robot in stance before a scene; nothing drives it."""
    return LocomanRuntime(NowNs(1), pose='stance', profile=PROFILE,
                          scenario=Scenario.draw(TASK.name, seed, level),
                          **more)               # type: ignore[arg-type]


def put(runtime: LocomanRuntime, block: str, at: np.ndarray) -> None:
    """Put a block somewhere in the world, at rest."""
    data = runtime.plant.data
    joint = data.joint(block)
    joint.qpos[:3], joint.qvel[:] = at, 0.0
    mujoco.mj_forward(runtime.plant.model, data)


def stand(runtime: LocomanRuntime, seconds: float) -> None:
    """Let time pass, the robot held."""
    for n in range(round(seconds / 0.00125)):
        runtime.tick(NowNs(2 + n * 1_250_000))
        runtime.hold()


def lift(runtime: LocomanRuntime, block: str) -> None:
    """Close the right hand's jaws about a block in the air, and see what the judge says."""
    plant = runtime.plant
    data, jaw = plant.data, plant.model.joint('R_gripper').qposadr[0]
    data.qpos[jaw] = 0.40
    mujoco.mj_forward(plant.model, data)
    tool = data.site('R_tool')
    # Along the middle of the jaws' opening, as far from their hinge as an expert holds it.
    away = tool.xmat.reshape(3, 3) @ (0.0125, 0.0, 0.0)
    put(runtime, block, tool.xpos + away - (0.0, 0.0, 0.022))
    runtime._task.look(0.0)         # type: ignore[union-attr]


def middle(runtime: LocomanRuntime, aside: float) -> np.ndarray:
    return runtime.plant.data.body('tray').xpos + (aside, 0.0, 0.001)


def test_blocks_count_one_by_one_when_they_were_held_before() -> None:
    runtime, stages = stood(), []
    for number, block in enumerate(BLOCKS):
        lift(runtime, block)
        stages.append(runtime.task_report().state.stage)
        put(runtime, block, middle(runtime, 0.025 - 0.05 * number))
        stand(runtime, 0.3)
        state = runtime.task_report().state
        stages.append(state.stage)
        assert state.score == (number + 1) / 2 and state.success == (number == 1)
    assert tuple(stages) == TASK.stages
    assert runtime.success and runtime.task_report().success_seconds > 0.0


def test_a_block_that_nobody_carried_is_not_gathered() -> None:
    runtime = stood()
    for number, block in enumerate(BLOCKS):
        put(runtime, block, middle(runtime, 0.025 - 0.05 * number))
    stand(runtime, 0.4)
    state = runtime.task_report().state
    assert (state.score, state.stage, state.success) == (0.0, '', False)


def test_a_block_that_leaves_the_tray_again_is_missing_at_the_end() -> None:
    runtime = stood()
    lift(runtime, BLOCKS[0])
    put(runtime, BLOCKS[0], middle(runtime, 0.0))
    stand(runtime, 0.3)
    put(runtime, BLOCKS[0], middle(runtime, 0.0) + (0.0, 0.15, 0.0))
    lift(runtime, BLOCKS[1])
    put(runtime, BLOCKS[1], middle(runtime, 0.0))
    stand(runtime, 0.3)
    state = runtime.task_report().state
    assert not state.success and state.stage == 'both held'


def test_a_block_on_the_floor_is_no_fall_of_the_robot() -> None:
    runtime = stood()
    put(runtime, BLOCKS[0], np.array([0.1, -0.6, 0.002]))
    stand(runtime, 0.2)
    assert any(runtime.plant.data.contact.geom[:runtime.plant.data.ncon].ravel()
               == runtime.plant.model.geom('floor').id)
    assert not runtime.plant.truth().fallen


@pytest.mark.parametrize('level', ['easy', 'hard'])
def test_things_are_seen_from_the_feet(level: str) -> None:
    runtime = stood(level)
    scenario = Scenario.draw(TASK.name, EVAL_SEEDS[0], level)
    places = runtime.task_report().places
    for name, pose in zip((*BLOCKS, 'tray'), places):
        np.testing.assert_allclose(pose[:2], scenario.at(name), atol=2e-3)
        assert pose[2] == pytest.approx(FLOOR + STAND_HEIGHT + scenario.table_dz, abs=2e-3)
    # A robot that stands elsewhere sees them elsewhere.
    plant = runtime.plant
    plant.place([*NOMINAL[:3], *NOMINAL[7:10]] + [0.0, 0.9, -1.8] * 2,
                (*NOMINAL[3:7], *NOMINAL[10:14]), position=(0.02, 0.01), yaw=0.1)
    turn = np.array([[np.cos(0.1), np.sin(0.1)], [-np.sin(0.1), np.cos(0.1)]])
    for pose, moved in zip(places, runtime.task_report().places):
        np.testing.assert_allclose(moved[:2], turn @ (pose[:2] - (0.02, 0.01)), atol=1e-3)


def test_only_its_own_task_is_placed_and_pictures_know_it() -> None:
    runtime = stood()
    runtime.place(Scenario.draw(TASK.name, 7, 'distractor'))
    shot = runtime.snapshot(StampNs(5))
    assert (shot.task, shot.seed, shot.level, shot.generation) == (TASK.name, 7, 'distractor', 1)
    with pytest.raises(SimError, match='this world does gather_objects'):
        runtime.place(Scenario.draw('bottle_on_pad', 7, 'easy'))
    with pytest.raises(SimError, match='bare floor'):
        LocomanRuntime(NowNs(1)).task_report()


def test_a_leg_that_carries_is_not_disturbed() -> None:
    runtime = stood(disturbance=Disturbance(0.05, 3))
    stand(runtime, 0.02)
    plant = runtime.plant
    plant.set_motors([10] * 12, plant.state().position, *([0.0] * 12 for _ in range(2)),
                     [60.0] * 12, [2.0] * 12)
    plant.disturb(np.zeros(6))
    before = plant.data.ctrl.copy()
    plant.data.sensordata[10] = 30.0        # N: the foot stands
    plant.disturb(np.full(6, 0.1))
    np.testing.assert_array_equal(plant.data.ctrl[:12], before[:12])
    plant.data.sensordata[10] = 0.0         # it is in the air
    plant.disturb(np.full(6, 0.1))
    np.testing.assert_allclose(plant.data.ctrl[:3] - before[:3], 6.0)
    np.testing.assert_array_equal(plant.data.ctrl[3:12], before[3:12])
