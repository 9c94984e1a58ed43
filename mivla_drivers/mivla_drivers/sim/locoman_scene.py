"""
The simulated LocoMan's scenes for those who draw them; ``scene`` hands profiles of it on.

Without a task it is a floor. A task's things stand on a low stand in front of the robot, where
one arm reaches them while three legs carry it.
"""

from __future__ import annotations

import zlib

import mujoco

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.arm_model import CameraMount, SimError
from mivla_drivers.sim.bench import TABLE_ASSETS, TABLE_MATERIALS, textures
from mivla_drivers.sim.locoman_model import CAMERAS, locoman_xml

__all__ = ['BACKEND', 'STAND_HEIGHT', 'TASK', 'cameras', 'has_stand', 'is_locoman', 'model',
           'scene_id']

BACKEND = 'locoman'
TASK = 'floor'                  # what the scene is called without a task: a robot and a floor
# A tool has to stay 3 cm above the floor; and an arm that is let down from its folded pose has to
# come down in front of it [m].
STAND_HEIGHT = 0.035
_NEAR, _FAR, _RIGHT, _LEFT = 0.335, 0.640, -0.42, 0.18


def is_locoman(profile: RobotProfile) -> bool:
    """Whether a profile's robot is simulated by this scene."""
    return profile.driver.backend == BACKEND


def has_stand(task: str) -> bool:
    """Whether a task is one of this robot's; any other name means the floor."""
    # Here because the tasks' judges of other robots import this module.
    from mivla_drivers.sim.tasks import TASKS

    return task in TASKS and BACKEND in TASKS[task].robots


def _xml(task: str) -> str:
    if not has_stand(task):
        return locoman_xml()
    from mivla_drivers.sim.tasks import TASKS

    parts, surround = TASKS[task], 'contype="2" conaffinity="1"'
    half = ((_FAR - _NEAR) / 2.0, (_LEFT - _RIGHT) / 2.0)
    return locoman_xml(f'''
 {parts.loose}
 <body name="bench" pos="0 0 {STAND_HEIGHT}">
  <body name="table">
   <geom name="table" type="box" size="{half[0]:g} {half[1]:g} 0.035"
     pos="{(_FAR + _NEAR) / 2.0:g} {(_LEFT + _RIGHT) / 2.0:g} -0.035"
     material="{TABLE_MATERIALS[0]}" rgba="0.80 0.62 0.44 1" friction="0.9 0.01 0.001" {surround}/>
   {parts.on_table}
  </body>
 </body>
 <body name="room">
  <geom name="wall" type="box" size="0.02 4 2" pos="2.2 0 0.9" rgba="0.80 0.79 0.75 1"
    contype="0" conaffinity="0"/>
 </body>''', TABLE_ASSETS + parts.assets)


def model(task: str = TASK) -> mujoco.MjModel:
    """
    Compile the scene of a task.

    :raises SimError: it does not compile, with MuJoCo's own words.
    """
    try:
        return mujoco.MjModel.from_xml_string(_xml(task), textures() if has_stand(task) else {})
    except ValueError as error:
        raise SimError(f'the LocoMan\'s scene of {task} does not compile: {error}') from error


def scene_id(task: str = TASK) -> int:
    """Return a 32-bit identity of the scene of a task."""
    return zlib.crc32(_xml(task).encode())


def cameras() -> dict[str, CameraMount]:
    """Return the cameras by role."""
    return {role: CameraMount(place.body, place.pos, place.xyaxes, place.fovy)
            for role, place in CAMERAS.items()}
