"""
A URDF for ``robot_description``, generated from the robot profile.

Link k carries frame k of the chain, so TF, RViz and the guard speak of the same
frames. Links have no meshes: the profile's collision spheres are their shapes.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm, BodyKinematics, CollisionPoint, Joint, Kinematics, Vector3

__all__ = ['to_urdf']

# How the six joints of a base are chained: R = Rz(yaw) Ry(pitch) Rx(roll), as in the guard.
# Index among the base's joints, and axis.
_BASE = ((0, 'prismatic', (1.0, 0.0, 0.0)), (1, 'prismatic', (0.0, 1.0, 0.0)),
         (2, 'prismatic', (0.0, 0.0, 1.0)), (5, 'revolute', (0.0, 0.0, 1.0)),
         (4, 'revolute', (0.0, 1.0, 0.0)), (3, 'revolute', (1.0, 0.0, 0.0)))
_NOWHERE = (0.0, 0.0, 0.0)


def to_urdf(profile: RobotProfile) -> str:
    """
    Return the URDF document of a profile as text.

    The links of a robot with several arms begin with the arm's name. Joints of the role 'base'
    are a chain from the link ``stance``, in whose frame they are given, to ``base_link``.
    """
    robot = ET.Element('robot', name=profile.name)
    base = [joint for joint in profile.joints if joint.role == 'base']
    parent = 'stance' if base else 'base_link'
    if base:
        ET.SubElement(robot, 'link', name=parent)
    for number, (index, kind, axis) in enumerate(_BASE if base else ()):
        child = 'base_link' if number == len(_BASE) - 1 else f'base_link{number + 1}'
        ET.SubElement(robot, 'link', name=child)
        _joint(robot, base[index], kind, (parent, child), (_NOWHERE, _NOWHERE, axis))
        parent = child
    if len(profile.arms) == 1 and not base and profile.arms[0].origin == _NOWHERE == (
            profile.arms[0].rpy):
        _arm(robot, profile, profile.arms[0], 'base_link', '')
    else:
        if not base:
            ET.SubElement(robot, 'link', name='base_link')
        for arm in profile.arms:
            root = f'{arm.name}_base_link'
            fixed = ET.SubElement(robot, 'joint', name=f'{arm.name}_base_fixed', type='fixed')
            _between(fixed, ('base_link', root), arm.origin, arm.rpy)
            _arm(robot, profile, arm, root, f'{arm.name}_')
    ET.indent(robot)
    return '<?xml version="1.0"?>\n' + ET.tostring(robot, encoding='unicode') + '\n'


def _arm(robot: ET.Element, profile: RobotProfile, arm: Arm, root: str, prefix: str) -> None:
    """Add an arm's links and joints, its tool and its gripper."""
    links = [root, *(f'{prefix}link{k + 1}' for k in range(arm.kinematics.size))]
    for frame, link in enumerate(links):
        _link(robot, [point for point in profile.workspace.points
                      if point.frame == frame and point.arm in ('', arm.name)], link)
    joints = profile.joints[profile.place_of(arm)]
    for k in range(arm.kinematics.size):
        _joint(robot, joints[k], 'revolute', (links[k], links[k + 1]),
               _placed(arm.kinematics, k))
    tip = arm.kinematics.tip
    tool = f'{prefix}tool_tip'
    ET.SubElement(robot, 'link', name=tool)
    fixed = ET.SubElement(robot, 'joint', name=f'{tool}_fixed', type='fixed')
    _between(fixed, (links[-1], tool), tip, _NOWHERE)
    if arm.gripper is None:
        return
    # One finger carries the joint's value, the total opening; the other finger stays with it.
    finger = f'{prefix}finger'
    ET.SubElement(robot, 'link', name=finger)
    _joint(robot, joints[-1], 'prismatic', (links[-1], finger), (tip, _NOWHERE, (0.0, 1.0, 0.0)))


def _joint(robot: ET.Element, joint: Joint, kind: str, links: tuple[str, str],
           placed: tuple[Vector3, Vector3, Vector3]) -> None:
    """Add a joint between two links; ``placed``: its origin, rpy and axis."""
    xyz, rpy, axis = placed
    element = ET.SubElement(robot, 'joint', name=joint.name, type=kind)
    _between(element, links, xyz, rpy)
    ET.SubElement(element, 'axis', xyz=_numbers(*axis))
    ET.SubElement(element, 'limit', lower=f'{joint.lower:g}', upper=f'{joint.upper:g}',
                  velocity=f'{joint.velocity:g}', effort=f'{joint.effort:g}')


def _between(joint: ET.Element, links: tuple[str, str], xyz: Vector3, rpy: Vector3) -> None:
    ET.SubElement(joint, 'parent', link=links[0])
    ET.SubElement(joint, 'child', link=links[1])
    ET.SubElement(joint, 'origin', xyz=_numbers(*xyz), rpy=_numbers(*rpy))


def _placed(kinematics: Kinematics, k: int) -> tuple[Vector3, Vector3, Vector3]:
    """Return origin, rpy and axis of a joint."""
    if isinstance(kinematics, BodyKinematics):
        body = kinematics.bodies[k]
        return body.origin, body.rpy, body.axis
    row = kinematics.rows[k]
    ca, sa = math.cos(row.alpha), math.sin(row.alpha)
    # Rx(alpha) Tx(a) Rz(offset) Tz(d) Rz(theta): the origin holds all but the last turn.
    return (row.a, -sa * row.d, ca * row.d), _rpy(row.alpha, row.offset), (0.0, 0.0, 1.0)


def _link(robot: ET.Element, points: Sequence[CollisionPoint], name: str) -> None:
    link = ET.SubElement(robot, 'link', name=name)
    for point in points:
        for kind in ('visual', 'collision'):
            element = ET.SubElement(link, kind)
            ET.SubElement(element, 'origin', xyz=_numbers(*point.offset), rpy='0 0 0')
            geometry = ET.SubElement(element, 'geometry')
            ET.SubElement(geometry, 'sphere', radius=f'{point.radius:g}')


def _rpy(alpha: float, offset: float) -> tuple[float, float, float]:
    """Return roll, pitch, yaw (URDF: Rz(yaw) Ry(pitch) Rx(roll)) of Rx(alpha) Rz(offset)."""
    ca, sa, co, so = math.cos(alpha), math.sin(alpha), math.cos(offset), math.sin(offset)
    # R = Rx(alpha) Rz(offset) = [[co, -so, 0], [ca so, ca co, -sa], [sa so, sa co, ca]]
    pitch = math.asin(max(-1.0, min(1.0, -sa * so)))
    if abs(sa * so) > 1.0 - 1e-12:
        # Gimbal lock: roll and yaw turn about one axis; put all of it into yaw.
        return 0.0, pitch, math.atan2(so, ca * co)
    return math.atan2(sa * co, ca), pitch, math.atan2(ca * so, co)


def _numbers(*values: float) -> str:
    return ' '.join(f'{value:.9g}' for value in values)
