"""
MJCF of LocoMan: a Go1 trunk that floats free, four legs, two servo arms on the front calves.

Geometry and limits are the kinematics' own tables, masses those of ``locoman_mass``. Chosen, for
want of published values: rotor inertias, dry friction, inertias (solids of about the size), the
gripper's shape, the servos' stiffness. Shapes are primitives; only feet, shins, knees, trunk and
grippers touch anything, and the robot does not touch itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mivla_drivers.core import locoman_mass as mass
from mivla_drivers.core.locoman_kinematics import (
    ARM_LOWER,
    ARM_MOUNT,
    ARM_UPPER,
    FOOT_RADIUS,
    HIP_OFFSET,
    LEG_LOWER,
    LEG_UPPER,
    LEGS,
    LINK,
    SIDES,
    TOOL,
    WRIST,
    Leg,
    Side,
)
from mivla_drivers.core.locoman_servos import GRIPPER_RANGE

__all__ = ['CAMERAS', 'LEG_JOINTS', 'LEG_TORQUE', 'SERVO_JOINTS', 'TIMESTEP',
           'CameraPlace', 'locoman_xml']

TIMESTEP = 0.00125
LEG_TORQUE = (23.7, 23.7, 35.55)
LEG_JOINTS = tuple(f'{leg.name}_{name}' for leg in LEGS for name in ('hip', 'thigh', 'calf'))
SERVO_JOINTS = tuple(f'{side.name}_{name}' for side in SIDES
                     for name in ('joint_1', 'joint_2', 'joint_3', 'gripper'))
# About 1e-4 kg m^2 of rotor through gears of 6.33, half as much again at the calf.
_LEG_ARMATURE = (0.0045, 0.0045, 0.0100)
_LEG_FRICTION, _LEG_DAMPING = 0.2, 0.02
# The viscous part is the motor's back-EMF: stall torque over no-load speed, 1.0 N m / 7.4 rad/s.
_SERVO_ARMATURE, _SERVO_FRICTION, _SERVO_DAMPING = 0.002, 0.03, 0.135
_STOP = 0.01                    # rad by which the mechanical stops lie behind the limits


@dataclass(frozen=True)
class CameraPlace:
    """
    A camera on a body: MuJoCo convention, it looks along its -z with y up; fovy in degrees.

    :param follows: it moves with the body but does not turn with it.
    """

    body: str
    pos: tuple[float, float, float]
    xyaxes: tuple[float, float, float, float, float, float]
    fovy: float
    follows: bool = False


_DOWN = math.radians(52.0)
CAMERAS = {
    'head': CameraPlace('trunk', (0.285, 0.0, 0.035),
                        (0, -1, 0, math.sin(_DOWN), 0, math.cos(_DOWN)), 75.0),
    'wrist': CameraPlace('R_link_3', (0.042, 0.0, -0.015), (0, -1, 0, 0.94, 0, -0.34), 75.0),
    # For pictures of the robot; no policy reads it.
    'overview': CameraPlace('trunk', (0.80, -0.75, 0.28), (0.68, 0.73, 0, -0.30, 0.28, 0.91),
                            42.0, follows=True)}

_MATERIALS = """
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.86 0.90 0.95"
      rgb2="0.55 0.62 0.70" width="64" height="384"/>
    <texture name="checker" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0.86 0.86 0.86"
      width="64" height="64"/>
    <material name="floor" texture="checker" texrepeat="16 16" rgba="0.62 0.62 0.60 1"
      specular="0.05"/>
    <material name="shell" rgba="0.82 0.84 0.86 1" specular="0.45" shininess="0.6"/>
    <material name="dark" rgba="0.12 0.13 0.15 1" specular="0.4" shininess="0.5"/>
    <material name="motor" rgba="0.30 0.32 0.35 1" specular="0.6" shininess="0.6"/>
    <material name="rubber" rgba="0.07 0.07 0.07 1" specular="0.05"/>
    <material name="servo" rgba="0.20 0.22 0.27 1" specular="0.4" shininess="0.4"/>
    <material name="bracket" rgba="0.90 0.45 0.12 1" specular="0.3" shininess="0.4"/>
    <material name="lens" rgba="0.03 0.05 0.12 1" specular="0.9" shininess="0.9"/>
"""


def _n(values: Iterable[float]) -> str:
    return ' '.join(f'{float(value):.6g}' for value in values)


def _geom(kind: str, size: Iterable[float], at: Iterable[float], material: str, *,
          solid: bool = False, name: str = '', extra: str = '') -> str:
    place = 'fromto' if len(at := tuple(at)) == 6 else 'pos'
    # Bit 1: robot, bit 2: surroundings; the robot does not touch itself.
    contact = 'contype="1" conaffinity="2"' if solid else 'contype="0" conaffinity="0"'
    label = f'name="{name}" ' if name else ''
    return (f'<geom {label}type="{kind}" size="{_n(size)}" {place}="{_n(at)}" '
            f'material="{material}" mass="0" group="2" {contact} {extra}/>')


def _inertia(weight: float, com: Iterable[float], diagonal: Iterable[float]) -> str:
    return f'<inertial mass="{weight:.6g}" pos="{_n(com)}" diaginertia="{_n(diagonal)}"/>'


def _joint(name: str, axis: str, low: float, high: float, armature: float, friction: float,
           damping: float) -> str:
    return (f'<joint name="{name}" axis="{axis}" range="{low - _STOP:.6g} {high + _STOP:.6g}" '
            f'armature="{armature:.6g}" frictionloss="{friction:.6g}" damping="{damping:.6g}"/>')


def _arm(side: Side) -> str:
    name, sign = side.name, side.leg.side
    low, high = ARM_LOWER[name], ARM_UPPER[name]
    mount = (ARM_MOUNT[0], sign * ARM_MOUNT[1], ARM_MOUNT[2])
    tiny = (1e-5, 1e-5, 5e-6)
    motor = (_SERVO_ARMATURE, _SERVO_FRICTION, _SERVO_DAMPING)
    link_1, link_2, link_3, tool = mass.ARM_MASSES
    jaw = tool / 2.0
    finger = (_geom('box', (0.004, 0.009, 0.019), (0.0, 0.0, -0.025), 'bracket', solid=True)
              + _geom('sphere', (0.006,), (0.0, 0.0, -0.044), 'rubber', solid=True))
    return f"""
    <body name="{name}_mount" pos="{_n(mount)}">
     {_inertia(link_1, (0, 0, 0), tiny)}
     {_geom('box', (0.010, 0.012, 0.017), (0, 0, 0.004), 'servo')}
     {_geom('box', (0.012, 0.004, 0.010), (-0.012, -sign * 0.014, 0.006), 'bracket')}
     <body name="{name}_link_2">
      {_inertia(link_2, (0, 0, -0.025), tiny)}
      {_joint(f'{name}_joint_1', '0 1 0', low[0], high[0], *motor)}
      {_geom('box', (0.009, 0.016, 0.004), (0, 0, -0.012), 'bracket')}
      {_geom('box', (0.012, 0.010, 0.017), (0, 0, -0.033), 'servo')}
      <body name="{name}_link_3" pos="{_n(WRIST)}">
       {_inertia(link_3, (0, 0, -0.020), tiny)}
       {_joint(f'{name}_joint_2', '1 0 0', low[1], high[1], *motor)}
       {_cameras(f'{name}_link_3')}
       {_geom('box', (0.014, 0.005, 0.008), (0, 0, -0.006), 'bracket')}
       {_geom('box', (0.010, 0.012, 0.013), (0, 0, -0.024), 'servo')}
       {_geom('box', (0.006, 0.008, 0.008), (0.026, 0, -0.014), 'dark') if name == 'R' else ''}
       <body name="{name}_eef" pos="{_n(TOOL)}">
        {_inertia(jaw, (0, 0, 0.03), tiny)}
        {_joint(f'{name}_joint_3', '0 0 1', low[2], high[2], *motor)}
        <site name="{name}_tool" size="0.004" group="5"/>
        {_geom('cylinder', (0.013,), (0, 0, 0.046, 0, 0, 0.038), 'bracket')}
        {_geom('box', (0.016, 0.010, 0.006), (0, 0, 0.034), 'servo', solid=True)}
        <body name="{name}_fixed_jaw" pos="-0.007 0 0.036">
         {_inertia(jaw / 4.0, (0, 0, -0.02), (1e-6, 1e-6, 1e-6))}{finger}
        </body>
        <body name="{name}_jaw" pos="0.007 0 0.036">
         {_inertia(jaw * 0.75, (0, 0, -0.02), (2e-6, 2e-6, 2e-6))}
         {_joint(f'{name}_gripper', '0 -1 0', *GRIPPER_RANGE, *motor)}{finger}
        </body>
       </body>
      </body>
     </body>
    </body>"""


def _leg(leg: Leg) -> str:
    name, side, back = leg.name, leg.side, -1.0 if leg.name[0] == 'R' else 1.0
    hip_com = (back * mass.HIP_COM[0], side * mass.HIP_COM[1], mass.HIP_COM[2])
    thigh_com = (mass.THIGH_COM[0], side * mass.THIGH_COM[1], mass.THIGH_COM[2])
    lower = mass.CALF_MASS + mass.FOOT_MASS
    com_z = (mass.CALF_MASS * mass.CALF_COM[2] - mass.FOOT_MASS * LINK) / lower
    calf_com = (mass.CALF_MASS * mass.CALF_COM[0] / lower, 0.0, com_z)
    parts = list(zip(('hip', 'thigh', 'calf'), ('1 0 0', '0 1 0', '0 1 0'), LEG_LOWER, LEG_UPPER,
                     _LEG_ARMATURE))
    joint = {part: _joint(f'{name}_{part}', axis, low, high, armature, _LEG_FRICTION,
                          _LEG_DAMPING) for part, axis, low, high, armature in parts}
    arm = _arm(SIDES['RL'.index(name[1])]) if name[0] == 'F' else ''
    return f"""
  <body name="{name}_hip_link" pos="{_n(leg.hip)}">
   {_inertia(mass.HIP_MASS + 2 * mass.ROTOR_MASS, hip_com, (0.0005, 0.0008, 0.0006))}
   {joint['hip']}
   {_geom('cylinder', (0.046,), (0, side * 0.018, 0, 0, side * 0.060, 0), 'motor')}
   {_geom('cylinder', (0.036,), (back * -0.03, 0, 0, back * 0.045, 0, 0), 'dark')}
   <body name="{name}_thigh_link" pos="0 {side * HIP_OFFSET:.6g} 0">
    {_inertia(mass.THIGH_MASS, thigh_com, (0.0054, 0.0052, 0.0010))}
    {joint['thigh']}
    {_geom('cylinder', (0.044,), (0, -side * 0.018, 0, 0, side * 0.022, 0), 'shell')}
    {_geom('cylinder', (0.026,), (0, side * 0.016, 0, 0, side * 0.026, 0), 'dark')}
    {_geom('capsule', (0.020,), (-0.008, 0, -0.025, -0.004, 0, -LINK + 0.03), 'shell')}
    {_geom('capsule', (0.015,), (0.004, 0, -0.03, 0.002, 0, -LINK + 0.02), 'shell')}
    {_geom('sphere', (0.020,), (0, 0, -LINK), 'dark', solid=True)}
    <body name="{name}_calf_link" pos="0 0 {-LINK}">
     {_inertia(lower, calf_com, (0.0008, 0.0008, 0.00004))}
     {joint['calf']}
     {_geom('capsule', (0.011,), (0.004, 0, -0.012, 0.006, 0, -0.10), 'dark')}
     {_geom('capsule', (0.009,), (0.006, 0, -0.10, 0, 0, -LINK + 0.012), 'dark', solid=True)}
     {_geom('sphere', (FOOT_RADIUS,), (0, 0, -LINK), 'rubber', solid=True,
            name=f'{name}_foot', extra='priority="1" friction="0.8 0.02 0.01" solref="0.01 1"')}
     <site name="{name}_foot" pos="0 0 {-LINK}" size="{FOOT_RADIUS * 1.3:.4g}" group="5"/>{arm}
    </body>
   </body>
  </body>"""


def _trunk() -> str:
    """Return the trunk's inertia and shapes; the hips' rotors are part of it."""
    weight = mass.TRUNK_MASS + 4 * mass.ROTOR_MASS
    com = [value * mass.TRUNK_MASS / weight for value in mass.TRUNK_COM]
    shapes = (('box', (0.150, 0.050, 0.045), (0.0, 0, 0.006), 'shell', True),
              ('box', (0.120, 0.056, 0.030), (0.0, 0, 0.004), 'dark', False),
              ('capsule', (0.040,), (-0.145, 0, 0.010, -0.190, 0, 0.004), 'shell', False),
              ('box', (0.090, 0.040, 0.006), (-0.01, 0, 0.054), 'dark', False),
              ('box', (0.050, 0.045, 0.036), (0.185, 0, 0.004), 'shell', True),
              ('ellipsoid', (0.060, 0.052, 0.046), (0.215, 0, 0.006), 'shell', True),
              ('ellipsoid', (0.022, 0.044, 0.030), (0.258, 0, 0.006), 'lens', False),
              ('box', (0.012, 0.045, 0.012), (0.270, 0, 0.035), 'dark', False),
              ('sphere', (0.008,), (0.279, 0.025, 0.035), 'lens', False),
              ('sphere', (0.008,), (0.279, -0.025, 0.035), 'lens', False),
              ('box', (0.020, 0.050, 0.036), (-0.170, 0, 0.0), 'dark', True))
    return (_inertia(weight, com, (0.0175, 0.0400, 0.0490))
            + ''.join(_geom(kind, size, at, material, solid=solid)
                      for kind, size, at, material, solid in shapes))


def _cameras(body: str) -> str:
    return ''.join(f'<camera name="{role}" pos="{_n(place.pos)}" xyaxes="{_n(place.xyaxes)}" '
                   f'fovy="{place.fovy:g}" mode="{"track" if place.follows else "fixed"}"/>'
                   for role, place in CAMERAS.items() if place.body == body)


def locoman_xml(scene: str = '', assets: str = '') -> str:
    """
    Return the robot on a floor; actuators 0..11 are the legs', 12..19 the servos', of gain 1.

    :param scene: MJCF of further bodies in the world, which collide with contype 2.
    :param assets: MJCF of what they are made of.
    """
    motors = ''.join(
        f'<general joint="{joint}" gainprm="1" biastype="affine" forcelimited="true" '
        f'forcerange="{-limit} {limit}"/>'
        for joint, limit in zip((*LEG_JOINTS, *SERVO_JOINTS), (*LEG_TORQUE * 4, *(1.0,) * 8)))
    feet = ''.join(f'<touch site="{leg.name}_foot"/>' for leg in LEGS)
    robot = f"""
 <body name="trunk" pos="0 0 0.3">
  <freejoint name="trunk"/>
  <site name="imu" size="0.005" group="5"/>
  <light name="key" mode="track" pos="0.9 -0.9 2.4" dir="-0.33 0.33 -0.88" directional="true"
    diffuse="0.6 0.6 0.58" castshadow="false"/>
  {_trunk()}{_cameras('trunk')}{''.join(_leg(leg) for leg in LEGS)}
 </body>"""
    return f"""<mujoco model="locoman">
 <compiler angle="radian" autolimits="true"/>
 <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"
   gravity="0 0 -{mass.GRAVITY}" iterations="20" tolerance="1e-6"/>
 <visual><headlight ambient="0.35 0.35 0.36" diffuse="0.35 0.35 0.35" specular="0.1 0.1 0.1"/>
  <map znear="0.02" zfar="40"/>
  <quality shadowsize="0" offsamples="0" numslices="24" numstacks="12"/></visual>
 <statistic extent="1.2" center="0 0 0.2"/>
 <asset>{_MATERIALS}{assets}</asset>
 <worldbody>{robot}{scene}
  <geom name="floor" type="plane" size="8 8 0.1" material="floor" contype="2" conaffinity="1"
    friction="0.8 0.02 0.01"/>
 </worldbody>
 <actuator>{motors}</actuator>
 <sensor>
  <framequat objtype="site" objname="imu"/><gyro site="imu"/><accelerometer site="imu"/>{feet}
 </sensor>
</mujoco>"""
