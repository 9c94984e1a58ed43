"""
The parts of a robot profile: joints, chains, arms, workspace, cameras, guard and the rest.

Each is a frozen record that knows its own rules; what must agree between parts is the profile's
(``mivla_core.profile``). Lengths in metres, angles in radians, unless a comment says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ['Arm', 'BodyKinematics', 'BodyRow', 'Camera', 'CollisionPoint', 'Drive', 'Driver',
           'Execution', 'Guard', 'JOINT_SPACES', 'Joint', 'Kinematics', 'MdhKinematics', 'MdhRow',
           'Packing', 'Rates', 'Strict', 'Teleop', 'Vector3', 'Verified', 'Workspace']

Positive = Annotated[float, Field(gt=0.0)]
Vector3 = tuple[float, float, float]


class Strict(BaseModel):
    """Unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False)


class Joint(Strict):
    """One joint: name as in the URDF, limits and named poses in ``unit``."""

    name: str = Field(pattern=r'^[a-z][a-z0-9_]*$')
    unit: Literal['rad', 'm']
    role: Literal['arm', 'gripper', 'base'] = 'arm'
    lower: float
    upper: float
    velocity: Positive        # unit/s
    acceleration: Positive    # unit/s^2
    deceleration: Positive    # unit/s^2, used for braking
    effort: Positive          # N·m, or N for prismatic joints
    home: float
    rest: float               # where torque may go off

    @model_validator(mode='after')
    def _ordered(self) -> Joint:
        if self.lower >= self.upper:
            raise ValueError(f'joint {self.name}: lower {self.lower} is not below upper '
                             f'{self.upper}; swap them')
        for pose in ('home', 'rest'):
            value = getattr(self, pose)
            if not self.lower <= value <= self.upper:
                raise ValueError(f'joint {self.name}: {pose} {value} lies outside '
                                 f'[{self.lower}, {self.upper}]')
        return self


class MdhRow(Strict):
    """One modified-DH (Craig) row: T = Rx(alpha) Tx(a) Rz(theta + offset) Tz(d)."""

    alpha: float     # rad
    a: float         # m
    offset: float    # rad, added to the joint angle
    d: float         # m


class BodyRow(Strict):
    """
    One body of a chain, as in a URDF: T = Txyz(origin) Rz(yaw) Ry(pitch) Rx(roll) R(axis, q).

    Body frames need not follow the joints' axes, so that a maker's table of masses and inertias
    can be taken over as it is.
    """

    origin: Vector3                           # m, of the joint in the parent's frame
    rpy: Vector3 = (0.0, 0.0, 0.0)            # rad
    axis: Vector3                             # of the joint in its own frame, length 1

    @model_validator(mode='after')
    def _unit(self) -> BodyRow:
        length = float(np.linalg.norm(self.axis))
        if abs(length - 1.0) > 1e-6:
            raise ValueError(f'axis {self.axis} has the length {length:.6g}; it must be 1')
        return self


class MdhKinematics(Strict):
    """Serial chain of the arm joints, in profile order, from the base frame to the flange."""

    convention: Literal['mdh']
    rows: tuple[MdhRow, ...]
    tip: Vector3    # m, tool tip in the flange frame

    @property
    def size(self) -> int:
        """Number of joints of the chain."""
        return len(self.rows)


class BodyKinematics(Strict):
    """The same as a chain of bodies, each with its own frame and axis."""

    convention: Literal['bodies']
    bodies: tuple[BodyRow, ...]
    tip: Vector3    # m, tool tip in the last body's frame

    @property
    def size(self) -> int:
        """Number of joints of the chain."""
        return len(self.bodies)


Kinematics = Union[MdhKinematics, BodyKinematics]


class Arm(Strict):
    """One chain of joints with its gripper, where it stands, and the bus it hangs on."""

    name: str = Field(pattern=r'^[a-z][a-z0-9_]*$')
    joints: tuple[str, ...] = Field(min_length=1)    # from the base outwards
    gripper: Optional[str] = None
    origin: Vector3 = (0.0, 0.0, 0.0)         # m, of the chain's base in the robot's base frame
    rpy: Vector3 = (0.0, 0.0, 0.0)            # rad
    channel: str = ''                         # of its own bus; empty: the driver's
    calibration: str = ''       # name or path of its file; see mivla_core.calibration
    kinematics: Kinematics = Field(discriminator='convention')

    @model_validator(mode='after')
    def _complete(self) -> Arm:
        if len(self.joints) != self.kinematics.size:
            raise ValueError(f'arm {self.name}: {self.kinematics.size} kinematics rows for '
                             f'{len(self.joints)} arm joints; a joint is missing or one row too '
                             'many')
        return self

    @property
    def all_joints(self) -> tuple[str, ...]:
        """The joints, then the gripper."""
        return self.joints if self.gripper is None else (*self.joints, self.gripper)


class CollisionPoint(Strict):
    """A sphere fixed to a frame of a chain, for coarse collision checks."""

    arm: str = ''               # name of the arm; may be left out where there is one
    frame: int = Field(ge=0)    # 0: base, k: after joint k
    offset: Vector3             # m, in that frame
    radius: Positive            # m


class Workspace(Strict):
    """Where the robot's arms may be, in its base frame [m]."""

    table_z: float              # height of the table plane
    table_margin: float = Field(ge=0.0)
    box_lower: Vector3
    box_upper: Vector3
    points: tuple[CollisionPoint, ...]
    self_pairs: tuple[tuple[int, int], ...] = ()    # pairs of points that must not overlap
    apart: tuple[tuple[str, str], ...] = ()         # pairs of arms of which no points may

    @model_validator(mode='after')
    def _consistent(self) -> Workspace:
        for axis, low, high in zip('xyz', self.box_lower, self.box_upper):
            if low >= high:
                raise ValueError(f'workspace box: lower {axis} {low} is not below upper {high}')
        for pair in self.self_pairs:
            if max(pair) >= len(self.points) or min(pair) < 0:
                raise ValueError(f'workspace self_pairs: {pair} names a point that does not exist')
        return self


class Driver(Strict):
    """Which backend speaks to the device, over which bus."""

    backend: str
    interface: str
    channel: str
    parameters: dict[str, Any] = {}


class Camera(Strict):
    """
    A camera role and how its pictures are to look; which device it is stands in ``device``.

    One that belongs to the cell or to another robot is ``shared`` instead: the name under which
    somebody else publishes it, such as /piper/head.
    """

    role: str = Field(pattern=r'^[a-z][a-z0-9_]*$')
    width: int = Field(ge=16, le=8192)
    height: int = Field(ge=16, le=8192)
    fps: Positive
    source: str = ''            # camera plug-in: v4l2, replay, sim
    shared: str = Field(default='', pattern=r'^(/[a-z][a-z0-9_]*)*$')
    device: str = ''            # by-id path, file or folder; empty for sim
    calibration: str = ''       # name or path of its file; see mivla_core.calibration
    jpeg_quality: int = Field(default=90, ge=1, le=100)

    @model_validator(mode='after')
    def _of_somebody(self) -> Camera:
        if bool(self.source) == bool(self.shared):
            raise ValueError(f'camera {self.role}: either source, which this robot opens, or '
                             'shared, the name under which somebody else publishes it')
        return self


class Rates(Strict):
    """Rates of the robot's loops [Hz]."""

    control: Positive
    policy: Positive            # action rows of a chunk per second


class Guard(Strict):
    """Settings of the guard in front of the hardware."""

    ride_through: Optional[Positive] = None    # s; default max(0.1, 3 control periods)
    latch: Positive                            # s
    ramp_velocity: Positive                    # rad/s while joining a source
    ramp_velocity_linear: Positive             # m/s, for prismatic joints
    tracking_error: Positive                   # rad, applied against measured
    tracking_time: Positive                    # s above it that count as loss of tracking
    position_tolerance: Positive = 0.05        # share of the range a target may lie outside and
    #                                            still be limited; beyond it is refused
    start_tolerance: Positive = 0.02           # share of the range the measured pose may lie
    #                                            outside when torque is asked for
    rest_tolerance: Positive                   # rad or m from the rest pose
    future_tolerance: Positive                 # s a stamp may lie ahead
    posture_tolerance: Positive = 0.1          # rad or m by which a command may differ from where
    #                                            the posture holds a joint
    extrapolation_periods: Positive = 2.0      # source periods a feed-forward may bridge
    enable_timeout: Positive = 10.0            # s for the device to confirm torque


class Drive(Strict):
    """How a base may move; forward, left [m/s], turn to the left [rad/s]."""

    velocity: tuple[Positive, Positive, Positive]
    acceleration: tuple[Positive, Positive, Positive]     # per second; also for braking


class Execution(Strict):
    """How the policy runner plays chunks; says nothing of what the numbers mean."""

    join: Literal['rtc', 'blend', 'overlap', 'open_loop'] = 'blend'
    join_shortest: Positive = 0.1           # s
    join_longest: Positive = 0.7            # s
    acceleration_share: float = Field(default=0.8, gt=0.0, le=1.0)    # of the joints' limit
    bend_share: float = Field(default=0.005, ge=0.0, le=0.1)    # of a joint's range by which a row
    #                                         may be bent to keep to that acceleration
    overlap_decay: float = Field(default=0.01, ge=-10.0, le=10.0)     # per row, of the weights of
    #                                         newer chunks; negative favours them
    delay_quantile: float = Field(default=0.95, ge=0.5, le=1.0)       # of the delays measured
    margin: Positive = 0.07                 # s by which is asked sooner than that quantile needs
    held: bool = False                      # actions are sent only while somebody holds an enable

    @model_validator(mode='after')
    def _ordered(self) -> Execution:
        if self.join_shortest > self.join_longest:
            raise ValueError(f'join_shortest {self.join_shortest} is longer than join_longest '
                             f'{self.join_longest}')
        return self


class Teleop(Strict):
    """Ways to teleoperate this robot."""

    methods: tuple[str, ...] = ()


class Verified(Strict):
    """What a profile and its driver have been checked on, in words; '' for nothing yet."""

    emulated: str = ''      # which tests, against the emulated device
    hardware: str = ''      # which device and firmware, when, and what was tried


# Numbers in the action spaces that a robot's joints can stand in. joint14: left arm 6, left
# gripper, right arm 6, right gripper (MiVLA, arXiv 2512.15411). joint14base6: the same, then a
# floating base's x, y, z, roll, pitch, yaw. See docs/design/0003-action-spaces.md.
JOINT_SPACES = {'joint14': 14, 'joint14base6': 20}


class Packing(Strict):
    """Where each joint stands in the policy's action vector."""

    space: Literal['joint14', 'joint14base6']
    side: Literal['left', 'right', 'both']    # whose arm slots are used
    slots: dict[str, int]                     # joint name -> slot of the space

    @model_validator(mode='after')
    def _inside(self) -> Packing:
        size, slots = JOINT_SPACES[self.space], list(self.slots.values())
        if len(set(slots)) != len(slots) or not all(0 <= slot < size for slot in slots):
            raise ValueError(f'packing.slots must be distinct and within 0..{size - 1}: {slots}')
        first, last = {'left': (0, 6), 'right': (7, 13), 'both': (0, 13)}[self.side]
        wrong = {name: slot for name, slot in self.slots.items()
                 if slot < 14 and not first <= slot <= last}
        if wrong:
            raise ValueError(f'packing.side {self.side} has the slots {first}..{last}, '
                             f'got {wrong}')
        return self
