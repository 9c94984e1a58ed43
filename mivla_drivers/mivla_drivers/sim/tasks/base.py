"""
What a task is: a scene to draw, the things it needs, and a judge.

A scenario is a pure function of (task, seed, level). World and renderer each build the same scene
from those three values, so that no picture of the world has to travel between processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Optional, Protocol

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.tasks.look import Look, Rgb

__all__ = ['Judge', 'LEVELS', 'Place', 'Scenario', 'Task', 'TaskState', 'generator']

# 'easy' and 'hard' are what is trained and compared on. The others each leave the training
# distribution in one way, with the looks of 'easy'.
LEVELS = ('easy', 'hard', 'novel_object', 'unseen_pose', 'distractor')

# Where a thing is that a scene does not use: under the floor and behind every camera [m].
_AWAY = (6.0, 0.0, -3.0)


@dataclass(frozen=True)
class Place:
    """
    Where a thing of the task is.

    :param body: its name in the scene; a child of the table, or a loose body.
    :param at: (x, y) in the base frame [m]; None: not in this scene (never of a loose body).
    :param yaw: about the vertical [rad].
    """

    body: str
    at: Optional[tuple[float, float]]
    yaw: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """
    One placement of the bench.

    :param table_dz: height of the table top above the profile's table plane [m].
    :param places: of the task's things and of everything else that may stand on the table.
    :param tints: colours of shapes, by name.
    :param shown: which of the shapes that a thing may have it has; the others of
        :attr:`Task.variants` are neither seen nor touched.
    """

    task: str
    seed: int
    level: str
    table_dz: float
    look: Look
    places: tuple[Place, ...]
    tints: Mapping[str, Rgb] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    @classmethod
    def draw(cls, task: str, seed: int, level: str) -> Scenario:
        """
        Return the scenario of (task, seed, level); the same on every machine.

        :param seed: 0 ... 2^64 - 1.
        :raises SimError: unknown task or level, or a seed out of range.
        """
        # Here because the tasks import this module.
        from mivla_drivers.sim.tasks import task_of

        if level not in LEVELS:
            raise SimError(f'unknown level {level!r}; known: {", ".join(LEVELS)}')
        if not 0 <= seed < 2**64:
            raise SimError(f'seed {seed} is not in 0 ... 2^64 - 1')
        return task_of(task).draw(seed, level)

    def at(self, body: str) -> tuple[float, float]:
        """
        Return where a thing is (x, y) in the base frame [m].

        :raises SimError: it is not in this scene.
        """
        at = self._place(body).at
        assert at is not None
        return at

    def yaw(self, body: str) -> float:
        """Return how a thing is turned about the vertical [rad]; raises SimError as ``at``."""
        return self._place(body).yaw

    def _place(self, body: str) -> Place:
        for place in self.places:
            if place.body == body and place.at is not None:
                return place
        raise SimError(f'no {body} in {self.task} seed {self.seed}, level {self.level}')

    def apply(self, model: mujoco.MjModel) -> None:
        """
        Place this scenario in a compiled scene, in place; run ``mj_forward`` afterwards.

        Sets fields absolutely: applying scenarios one after another leaves nothing of the earlier
        ones. Where loose bodies are is not of the model: see :meth:`put`.
        """
        from mivla_drivers.sim.tasks import task_of

        table = names(model, mujoco.mjtObj.mjOBJ_BODY, ('table',))[0]
        model.body_pos[table] = (0.0, 0.0, self.table_dz)
        for place in self.places:
            body = names(model, mujoco.mjtObj.mjOBJ_BODY, (place.body,))[0]
            if _free_joint(model, body) is None:
                model.body_pos[body] = _AWAY if place.at is None else (*place.at, 0.0)
                model.body_quat[body] = _about_z(place.yaw)
        self._light(model)
        geoms = mujoco.mjtObj.mjOBJ_GEOM
        for name, rgb in self.tints.items():
            model.geom_rgba[names(model, geoms, (name,))[0]] = (*rgb, 1.0)
        for name in task_of(self.task).variants:
            geom = names(model, geoms, (name,))[0]
            here = name in self.shown
            model.geom_rgba[geom][3] = float(here)
            model.geom_contype[geom] = model.geom_user[geom][0] if here else 0
            model.geom_conaffinity[geom] = model.geom_user[geom][1] if here else 0

    def _light(self, model: mujoco.MjModel) -> None:
        look = self.look
        top, floor, wall = names(model, mujoco.mjtObj.mjOBJ_GEOM, ('table', 'floor', 'wall'))
        material = mujoco.mjtObj.mjOBJ_MATERIAL
        model.geom_matid[top] = names(model, material, (look.table_material,))[0]
        for geom, rgb in ((top, look.table), (floor, look.floor), (wall, look.wall)):
            model.geom_rgba[geom] = (*rgb, 1.0)
        key = names(model, mujoco.mjtObj.mjOBJ_LIGHT, ('key',))[0]
        model.light_dir[key] = np.array(look.light_direction) / np.linalg.norm(
            look.light_direction
        )
        model.light_diffuse[key] = look.light
        model.vis.headlight.ambient = look.ambient
        model.vis.headlight.diffuse = (look.fill,) * 3

    def put(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """
        Put the loose bodies where they belong, at rest, and every other joint of the things.

        :param data: positions and velocities are changed; run ``mj_forward`` afterwards.
        """
        bench = names(model, mujoco.mjtObj.mjOBJ_BODY, ('bench',))[0]
        height = float(model.body_pos[bench][2]) + self.table_dz
        where = {place.body: place for place in self.places}
        for joint in thing_joints(model, tuple(where)):
            q, dof = model.jnt_qposadr[joint], model.jnt_dofadr[joint]
            if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
                place = where[model.body(model.jnt_bodyid[joint]).name]
                data.qpos[q:q + 3] = (*self.at(place.body), height)
                data.qpos[q + 3:q + 7] = _about_z(place.yaw)
                data.qvel[dof:dof + 6] = 0.0
            else:
                data.qpos[q], data.qvel[dof] = model.qpos0[q], 0.0


def thing_joints(model: mujoco.MjModel, things: tuple[str, ...]) -> list[int]:
    """Return the joints of some bodies and of what hangs on them."""
    return [joint for joint in range(model.njnt)
            if not set(_chain(model, int(model.jnt_bodyid[joint]))).isdisjoint(things)]


def thing_geoms(model: mujoco.MjModel, things: tuple[str, ...]) -> list[int]:
    """Return the shapes of some bodies and of what hangs on them."""
    return [geom for geom in range(model.ngeom)
            if not set(_chain(model, int(model.geom_bodyid[geom]))).isdisjoint(things)]


def _chain(model: mujoco.MjModel, body: int) -> list[str]:
    """Return the names of a body and of all it hangs on."""
    found = []
    while body:
        found.append(model.body(body).name)
        body = int(model.body_parentid[body])
    return found


def _free_joint(model: mujoco.MjModel, body: int) -> Optional[int]:
    if model.body_jntnum[body] != 1:
        return None
    joint = int(model.body_jntadr[body])
    return joint if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE else None


def _about_z(yaw: float) -> tuple[float, float, float, float]:
    return (float(np.cos(yaw / 2.0)), 0.0, 0.0, float(np.sin(yaw / 2.0)))


def generator(task: str, seed: int, purpose: int) -> np.random.Generator:
    """
    Return the random numbers of a seed for one purpose.

    :param purpose: 0: places, 1: looks, 2: table and clutter, 3: what leaves the distribution.
        Apart, so that levels differ in what they say they differ in.
    """
    key = [zlib.crc32(task.encode()), seed, purpose]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


@dataclass(frozen=True)
class TaskState:
    """
    How far the task is; ground truth, never an input of a policy.

    :param target: where the thing to act on is now, in the base frame [m]; of the bell the centre
        of the button's top.
    :param progress: of the bell the depth of the button [m]; of other tasks the score.
    :param touched: the arm touches the thing.
    :param success: latched since the reset.
    :param score: partial, 0 ... 1; latched: it never falls.
    :param stage: the last stage that was reached; '' before the first.
    """

    target: tuple[float, float, float]
    progress: float
    touched: bool
    success: bool
    score: float = 0.0
    stage: str = ''


class Judge(Protocol):
    """Watches one world; owned by its thread."""

    def restart(self) -> None:
        """Forget what was seen: a new scenario."""
        ...

    def state(self) -> TaskState:
        """Return the task's state now; latches stages and success. Once per device cycle."""
        ...

    def places(self) -> np.ndarray:
        """Return poses (N, 7) in the base frame of what an expert plans from: xyz, wxyz."""
        ...

    def room(self, tip: np.ndarray) -> float:
        """
        Return how far a disturbed arm is from spoiling the task [m].

        :param tip: of the arm (3,), base frame.
        """
        ...


@dataclass(frozen=True)
class Task:
    """
    One task of the simulated bench.

    :param instruction: what the operator would say; the only words that may reach a policy.
    :param robots: profiles that its expert is tested with.
    :param stages: names, in order; the last one is success.
    :param limit_s: an evaluation gives a policy so long [s].
    :param draw: (seed, level) -> scenario; pure.
    :param spots: a scenario's placement as numbers 0 ... 1, for choosing demonstrations.
    :param things: bodies that the arm may not stand in when a scene is placed.
    :param variants: shapes of which a scenario shows some; each carries its contype and
        conaffinity as ``user``.
    :param assets: MJCF of materials.
    :param on_table: MJCF of bodies that stand on the table, in its frame (z = 0 is its top).
    :param loose: MJCF of bodies with a free joint.
    :param contact: MJCF of excluded and explicit pairs.
    :param judge: makes the judge of a world.
    :param posture: that a robot with postures assumes before the task begins; '' for one without.
    """

    name: str
    instruction: str
    robots: tuple[str, ...]
    stages: tuple[str, ...]
    limit_s: float
    draw: Callable[[int, str], Scenario]
    spots: Callable[[Scenario], tuple[float, ...]]
    judge: Callable[[RobotProfile, mujoco.MjModel, mujoco.MjData], Judge]
    things: tuple[str, ...]
    on_table: str
    assets: str = ''
    loose: str = ''
    contact: str = ''
    variants: tuple[str, ...] = ()
    posture: str = ''
