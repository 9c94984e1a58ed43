"""MJCF of one arm of the simulated scene: bodies, joints, fingers, motors, cameras on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm, BodyRow, Joint, MdhRow
from mivla_drivers.sim import locoman_scene
from mivla_drivers.sim.arm_model import (
    ArmModel,
    CameraMount,
    GripperModel,
    Inertia,
    Motor,
    Shape,
    SimError,
)
from mivla_drivers.sim.kinds import arm_body

__all__ = ['ArmScene', 'camera_xml', 'cameras', 'prefix']

# The joint stops lie this far behind the limits that the controller enforces, as on the real arm,
# so that an arm that rests on a limit (J2 = J3 = 0) does not lean on a stop [rad].
_STOP_MARGIN = 0.003

# One arm's camera would see the inner halves of several.
_WIDE_HEAD = CameraMount('world', (1.10, 0.0, 0.74), (0, 1, 0, -0.60, 0, 0.80), 58.0)


def prefix(profile: RobotProfile, arm: Arm) -> str:
    """Return what the names of an arm's bodies, shapes, sites and cameras begin with."""
    return f'{arm.name}_' if len(profile.arms) > 1 else ''


def cameras(profile: RobotProfile) -> dict[str, CameraMount]:
    """
    Return the cameras of the scene by role; the bodies that they are fixed to by their full names.

    Those on arms bear the arm's name where there are several ('left_wrist'); those in the room
    are the first arm's, but for the head, which has to see all of them.
    """
    if locoman_scene.is_locoman(profile):
        return locoman_scene.cameras()
    found: dict[str, CameraMount] = {}
    for arm in profile.arms:
        ahead = prefix(profile, arm)
        for role, mount in arm_body(profile, arm).cameras.items():
            if mount.body == 'world':
                found.setdefault(role, mount)
            else:
                found[ahead + role] = CameraMount(ahead + mount.body, mount.pos, mount.xyaxes,
                                                  mount.fovy)
    if len(profile.arms) > 1:
        found['head'] = _WIDE_HEAD
    return found


def _numbers(values: Iterable[float]) -> str:
    return ' '.join(f'{float(value):.9g}' for value in values)


class ArmScene:
    """The MJCF of one arm."""

    def __init__(self, profile: RobotProfile, arm: Arm) -> None:
        self.arm = arm
        self.model: ArmModel = arm_body(profile, arm)
        self.ahead = prefix(profile, arm)
        place = profile.place_of(arm)
        self.joints = profile.joints[place][: arm.kinematics.size]
        self.gripper = profile.joints[place.stop - 1] if arm.gripper is not None else None
        self.cameras = {role: mount for role, mount in cameras(profile).items()
                        if mount.body != 'world'}
        number = profile.arms.index(arm)
        # Bit 1: arms, bit 2: surroundings, from bit 4 on one for each of several arms. An arm
        # touches the surroundings and other arms; contacts of an arm with itself are explicit
        # pairs, because neighbouring housings overlap by construction.
        several = len(profile.arms) > 1
        self.contype = 1 + (4 << number if several else 0)
        self.conaffinity = 2 + sum(4 << other for other in range(len(profile.arms))
                                   if several and other != number)
        links = self.model.links
        if not (arm.kinematics.size == len(self.joints) == len(links) == len(self.model.motors)
                and len(self.model.inertias) in (0, len(links))):
            raise SimError(
                f'profile {profile.name!r}: {arm.kinematics.size} rows of kinematics, '
                f'{len(self.joints)} arm joints, but the simulated arm has {len(links)} links; '
                'they must be equal'
            )

    def geom(self, shape: Shape, name: str) -> str:
        place = 'fromto' if shape.kind in ('capsule', 'cylinder') else 'pos'
        contact = (f'contype="{self.contype}" conaffinity="{self.conaffinity}"' if shape.collide
                   else 'contype="0" conaffinity="0"')
        return (
            f'<geom name="{self.ahead}{name}" type="{shape.kind}" size="{_numbers(shape.size)}" '
            f'{place}="{_numbers(shape.at)}" mass="{shape.mass:.6g}" material="{shape.material}" '
            f'group="2" {contact}/>'
        )

    def base(self) -> str:
        shapes = ''.join(self.geom(shape, f'base_{i}') for i, shape in enumerate(self.model.base))
        arm = self.arm
        placed = '' if arm.origin == arm.rpy == (0.0, 0.0, 0.0) else _placed(arm.origin, arm.rpy)
        return f'<body name="{self.ahead}base"{placed}>{shapes}{self.links()}</body>'

    def links(self) -> str:
        """Nested bodies link1 ... linkN with the fingers and body cameras inside the last one."""
        model, carried = self.model, ' gravcomp="1"' if self.model.actuation == 'servo' else ''
        rows: Sequence[MdhRow | BodyRow] = (
            self.arm.kinematics.rows if self.arm.kinematics.convention == 'mdh'
            else self.arm.kinematics.bodies)
        head = []
        for index, (row, joint, shapes, motor) in enumerate(
            zip(rows, self.joints, model.links, model.motors)
        ):
            body = f'link{index + 1}'
            place, axis = (_mdh_place(row), '0 0 1') if isinstance(row, MdhRow) else (
                _placed(row.origin, row.rpy), _numbers(row.axis))
            head.append(f'<body name="{self.ahead}{body}"{carried}{place}>')
            head.extend(map(_inertial, model.inertias[index:index + 1]))
            head.append(self.joint(joint, motor, axis))
            head.extend(self.geom(shape, f'{body}_{i}') for i, shape in enumerate(shapes))
            head.extend(camera_xml(role, mount) for role, mount in self.cameras.items()
                        if mount.body == self.ahead + body)
        tip = _numbers(self.arm.kinematics.tip)
        inner = (f'<site name="{self.ahead}tip" pos="{tip}" size="0.003" group="4"/>'
                 f'{self.fingers()}')
        return ''.join(head) + inner + '</body>' * len(rows)

    def joint(self, joint: Joint, motor: Motor, axis: str) -> str:
        most = motor.torque or joint.effort
        carries = ' actuatorgravcomp="true"' if self.model.actuation == 'servo' else ''
        return (
            f'<joint name="{joint.name}" axis="{axis}" '
            f'range="{joint.lower - _STOP_MARGIN:.6g} {joint.upper + _STOP_MARGIN:.6g}" '
            f'damping="{motor.damping}" frictionloss="{motor.friction}" '
            f'armature="{motor.armature}" '
            f'actuatorfrcrange="{-most} {most}"{carries}/>'
        )

    def fingers(self) -> str:
        """
        Two mirrored fingers that end in rounded pads; their inner faces meet on the tip axis at
        stroke 0.
        """
        if self.gripper is None:
            raise SimError(f'arm {self.arm.name!r}: the simulated arm needs a gripper joint')
        grip = self.model.gripper
        reach = float(np.linalg.norm(self.arm.kinematics.tip))
        travel = float(self.gripper.upper) / 2.0
        text = ''.join(self.finger(grip, reach, travel, side, sign)
                       for side, sign in (('left', -1.0), ('right', 1.0)))
        if grip.turn is None:
            return text
        return f'<body name="{self.ahead}hand" quat="{_numbers(grip.turn)}">{text}</body>'

    def finger(self, grip: GripperModel, reach: float, travel: float, side: str,
               sign: float) -> str:
        carried = ' gravcomp="1"' if self.model.actuation == 'servo' else ''
        width, thick, mass = grip.width, grip.thickness, grip.finger_mass
        pad = thick  # radius of the rounded end, so that finger and pad have the same thickness
        blade = ((reach - pad) - grip.root) / 2.0
        y = sign * thick
        box = Shape('box', (width, thick, blade), (0, y, grip.root + blade), mass / 2,
                    'arm_metal')
        end = Shape('capsule', (pad,), (-width + pad, y, reach - pad, width - pad, y, reach - pad),
                    mass / 2, 'arm_pad')
        return (
            f'<body name="{self.ahead}finger_{side}"{carried}>'
            f'<joint name="{self.ahead}finger_{side}" type="slide" axis="0 {sign:g} 0" '
            f'range="0 {travel:.6g}" '
            f'damping="{grip.damping:g}" frictionloss="{grip.friction:g}" '
            f'armature="{grip.armature:g}"/>'
            f'{self.geom(box, f"finger_{side}")}{self.geom(end, f"pad_{side}")}</body>'
        )

    def pairs(self) -> str:
        return ''.join(f'<pair geom1="{self.ahead}{mine}" geom2="{self.ahead}{other}"/>'
                       for mine, other in self.model.self_pairs)

    def stroke(self) -> str:
        ahead = self.ahead
        return (f'<fixed name="{ahead}stroke">\n'
                f'      <joint joint="{ahead}finger_left" coef="1"/>'
                f'<joint joint="{ahead}finger_right" coef="1"/>\n    </fixed>')

    def coupling(self) -> str:
        return (f'<joint joint1="{self.ahead}finger_left" joint2="{self.ahead}finger_right" '
                'solref="0.004 1"/>')

    def actuators(self) -> str:
        text = []
        for joint, motor in zip(self.joints, self.model.motors):
            where = f'name="{joint.name}" joint="{joint.name}"'
            text.append(_servo(where, motor.kp, motor.kv, joint)
                        if self.model.actuation == 'servo' else _motor(where, 1.0, motor.torque))
        if self.gripper is not None:
            where, grip = f'name="{self.gripper.name}" tendon="{self.ahead}stroke"', (
                self.model.gripper)
            text.append(_servo(where, grip.kp, grip.kv, self.gripper)
                        if self.model.actuation == 'servo'
                        else _motor(where, grip.gear, grip.torque))
        return ''.join(text)


def _servo(where: str, kp: float, kv: float, joint: Joint) -> str:
    return (f'<position {where} kp="{kp}" kv="{kv}" '
            f'forcerange="{-joint.effort} {joint.effort}" '
            f'ctrlrange="{joint.lower:.6g} {joint.upper:.6g}"/>')


def _motor(where: str, gear: float, torque: float) -> str:
    # Its law, torque = b0 + b1 angle + b2 rate, is set while it runs (``MotorPlant``).
    return (f'<general {where} gear="{gear:.9g}" gaintype="fixed" gainprm="0" biastype="affine" '
            f'biasprm="0 0 0" forcerange="{-torque} {torque}"/>')


def _mdh_place(row: MdhRow) -> str:
    """
    Return pos and quat of one link frame at joint angle zero.

    Craig's convention ``Rx(alpha) Tx(a) Rz(theta + offset) Tz(d)``: the joint turns about the
    link's own z.
    """
    half_alpha, half_offset = row.alpha / 2.0, row.offset / 2.0
    pos = (row.a, -math.sin(row.alpha) * row.d, math.cos(row.alpha) * row.d)
    quat = (
        math.cos(half_alpha) * math.cos(half_offset),
        math.sin(half_alpha) * math.cos(half_offset),
        -math.sin(half_alpha) * math.sin(half_offset),
        math.cos(half_alpha) * math.sin(half_offset),
    )
    return f' pos="{_numbers(pos)}" quat="{_numbers(quat)}"'


def _placed(origin: Iterable[float], rpy: tuple[float, float, float]) -> str:
    """Return pos and quat of a frame at an origin, turned by URDF's rpy."""
    quat = np.zeros(4)
    # MuJoCo's lower case is intrinsic; z, then y, then x is URDF's Rz Ry Rx.
    mujoco.mju_euler2Quat(quat, np.array([rpy[2], rpy[1], rpy[0]]), 'zyx')
    return f' pos="{_numbers(origin)}" quat="{_numbers(quat)}"'


def _inertial(inertia: Inertia) -> str:
    return (f'<inertial mass="{inertia.mass:.6g}" pos="{_numbers(inertia.centre)}" '
            f'diaginertia="{_numbers(inertia.moments)}"/>')


def camera_xml(role: str, mount: CameraMount) -> str:
    """Return a camera, in the body that it is fixed to."""
    return (
        f'<camera name="{role}" pos="{_numbers(mount.pos)}" xyaxes="{_numbers(mount.xyaxes)}" '
        f'fovy="{mount.fovy}"/>'
    )
