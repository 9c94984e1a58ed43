"""MJCF of the simulated scene: the arms of a profile, cameras, and the bench around them."""

from __future__ import annotations

import zlib

import mujoco

from mivla_core.profile import RobotProfile
from mivla_drivers.sim import locoman_scene
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.arm_scene import ArmScene, camera_xml, cameras, prefix
from mivla_drivers.sim.bench import ASSETS, bench_xml, textures
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.tasks import task_of

__all__ = ['TIMESTEP', 'build_model', 'cameras', 'names', 'prefix', 'scene_id', 'scene_xml']

# Five sub-steps per 200 Hz device tick; 1 s of physics costs about 10 ms on one core.
TIMESTEP = 0.001
# Whoever asks for a scene without naming a task means the arms and the bench.
TASK = 'click_bell'


def scene_xml(profile: RobotProfile, task: str = TASK) -> str:
    """
    Return the MJCF of the bench with the arms of a profile; its base frame is the world frame.

    Distances in metres, angles in radians. :func:`build_model` supplies the two textures it names.
    :raises SimError: no simulated arm for the profile's driver backend, joint counts that
        differ, or an unknown task.
    """
    parts = task_of(task)
    arms = [ArmScene(profile, arm) for arm in profile.arms]
    room = ''.join(camera_xml(role, mount) for role, mount in cameras(profile).items()
                   if mount.body == 'world')
    width = max((camera.width for camera in profile.cameras), default=640)
    height = max((camera.height for camera in profile.cameras), default=480)
    return f'''<mujoco model="mivla_{profile.name}">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual>
    <global offwidth="{max(width, 1280)}" offheight="{max(height, 960)}" fovy="45"/>
    <quality shadowsize="0" offsamples="0" numslices="24" numstacks="12"/>
    <headlight ambient="0.30 0.30 0.30" diffuse="0.25 0.25 0.25" specular="0.05 0.05 0.05"/>
    <map znear="0.01" zfar="12"/>
  </visual>
  <statistic center="0.25 0 0.15" extent="1.0"/>
  <asset>{ASSETS}{parts.assets}</asset>
  <worldbody>
    <light name="key" directional="true" pos="0.4 -0.6 1.6" dir="-0.2 0.35 -0.9"
      diffuse="0.62 0.60 0.56" specular="0.3 0.3 0.3" castshadow="false"/>
    {room}
    {''.join(arm.base() for arm in arms)}
    {parts.loose}
    {bench_xml(float(profile.workspace.table_z), parts.on_table)}
  </worldbody>
  <contact>
    {parts.contact}
    {''.join(arm.pairs() for arm in arms)}
  </contact>
  <tendon>
    {''.join(arm.stroke() for arm in arms)}
  </tendon>
  <equality>
    {''.join(arm.coupling() for arm in arms)}
  </equality>
  <actuator>{''.join(arm.actuators() for arm in arms)}</actuator>
</mujoco>'''


def build_model(profile: RobotProfile, task: str = TASK) -> mujoco.MjModel:
    """
    Compile the scene of a profile and a task.

    :raises SimError: the scene does not compile, with MuJoCo's own words.
    """
    if locoman_scene.is_locoman(profile):
        return locoman_scene.model(task)
    try:
        return mujoco.MjModel.from_xml_string(scene_xml(profile, task), textures())
    except ValueError as error:
        raise SimError(
            f'the scene of profile {profile.name!r} does not compile: {error}'
        ) from error


def scene_id(profile: RobotProfile, task: str = TASK) -> int:
    """
    Return a 32-bit identity of the scene of a profile and a task, so that world and renderer can
    check they share it.
    """
    if locoman_scene.is_locoman(profile):
        return locoman_scene.scene_id(task)
    return zlib.crc32(scene_xml(profile, task).encode())
