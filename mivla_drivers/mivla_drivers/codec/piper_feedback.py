"""
PiPER frames that the arm sends, in SI units (rad, m, s, N·m, A, V, °C).

Classic CAN, 11-bit ids, eight bytes, big-endian. Layouts: the vendor's protocol V2, checked frame
by frame against its SDK in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Protocol

from mivla_drivers.codec.piper_words import ArmState, CtrlMode, MoveMode, known
from mivla_drivers.codec.scaling import Decoder, Encoder, to_wire, whole

__all__ = ['AccelerationReply', 'ArmStatus', 'CrashLevelsReply', 'EndLimitsReply',
           'GripperFeedback', 'IkSolution', 'JointEndLimits', 'JointFeedback', 'LimitReply',
           'MotorFast', 'MotorSlow', 'PoseFeedback', 'SetReply', 'TeachReply']

MDEG = 180_000.0 / math.pi      # wire counts per rad where the wire counts 0.001 degree
DDEG = 1_800.0 / math.pi        # ... 0.1 degree
MILLI = 1_000.0
MICRO = 1_000_000.0             # counts per metre where the wire counts 0.001 mm
CENTI = 100.0
DECI = 10.0

I16 = (-0x8000, 0x7FFF)
I32 = (-0x8000_0000, 0x7FFF_FFFF)
U8 = (0, 0xFF)
U16 = (0, 0xFFFF)

EIGHT = Struct('8B')
PAIR = Struct('>ii')
QUAD16 = Struct('>4H')
LIMITS = Struct('>BhhHx')
_GRIPPER = Struct('>ihBx')
_FAST = Struct('>hhi')
_SLOW = Struct('>HhbBH')
_ACCELERATION = Struct('>BH5x')


@dataclass(frozen=True, slots=True)
class ArmStatus:
    """0x2A1: state of the whole arm. Codes are enumeration members where they are known."""

    ctrl_mode: int
    arm_state: int
    move_mode: int
    teach_state: int        # 0..7
    motion_state: int       # 0 target reached, 1 under way
    trajectory: int
    limit_bits: int         # bit 0..5: joint 1..6 at its angle limit
    comm_bits: int          # bit 0..5: joint 1..6 lost


@dataclass(frozen=True, slots=True)
class PoseFeedback:
    """
    0x2A2-0x2A4: flange pose, two values a frame.

    index 0: x, y [m]; 1: z [m], rx [rad]; 2: ry, rz [rad], with R = Rz Ry Rx.
    """

    index: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class JointFeedback:
    """0x2A5-0x2A7: joints 2*index+1 and 2*index+2 [rad], in the firmware's zero convention."""

    index: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class IkSolution:
    """0x2AA-0x2AC: joint solution of a pose target [rad] (firmware S-V1.8-8 and newer)."""

    index: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class GripperFeedback:
    """0x2A8: total opening [m], torque [N·m], status bits (0x40 enabled, 0x80 homed)."""

    stroke: float
    torque: float
    status: int


@dataclass(frozen=True, slots=True)
class MotorFast:
    """0x251-0x256: joint 1..6, speed [rad/s], current [A], motor position [rad]."""

    joint: int
    speed: float
    current: float
    position: float


@dataclass(frozen=True, slots=True)
class MotorSlow:
    """0x261-0x266: joint 1..6, supply [V], temperatures [°C], status bits, bus current [A]."""

    joint: int
    voltage: float
    driver_temperature: int
    motor_temperature: int
    status: int
    bus_current: float


@dataclass(frozen=True, slots=True)
class LimitReply:
    """0x473: stored limits of a joint [rad], top speed [rad/s]."""

    joint: int
    upper: float
    lower: float
    speed: float


@dataclass(frozen=True, slots=True)
class AccelerationReply:
    """0x47C: stored acceleration limit of a joint [rad/s^2]."""

    joint: int
    acceleration: float


@dataclass(frozen=True, slots=True)
class SetReply:
    """0x476: acknowledges a setting by the low byte of its id; ``zero_ok`` for a zero setting."""

    instruction: int
    zero_ok: int


@dataclass(frozen=True, slots=True)
class EndLimitsReply:
    """0x478: flange limits: m/s, rad/s, m/s^2, rad/s^2."""

    linear_speed: float
    angular_speed: float
    linear_acceleration: float
    angular_acceleration: float


@dataclass(frozen=True, slots=True)
class CrashLevelsReply:
    """0x47B: collision protection level 0 (off) .. 8 per joint."""

    levels: tuple[int, ...]     # six


@dataclass(frozen=True, slots=True)
class TeachReply:
    """0x47E: teaching range [%], gripper's largest stroke [m] (0, 0.07, 0.1), friction 1..10."""

    range_percent: int
    max_stroke: float
    friction: int


@dataclass(frozen=True, slots=True)
class JointEndLimits:
    """0x481-0x486: as EndLimitsReply, per joint, while periodic feedback is on."""

    joint: int
    linear_speed: float
    angular_speed: float
    linear_acceleration: float
    angular_acceleration: float


def _decode_status(can_id: int, data: bytes) -> ArmStatus:
    b = EIGHT.unpack(data)
    return ArmStatus(known(CtrlMode, b[0]), known(ArmState, b[1]), known(MoveMode, b[2]),
                     b[3], b[4], b[5], b[6], b[7])


def _encode_status(f: ArmStatus) -> tuple[int, bytes]:
    fields = (f.ctrl_mode, f.arm_state, f.move_mode, f.teach_state, f.motion_state, f.trajectory,
              f.limit_bits, f.comm_bits)
    return 0x2A1, bytes(whole('a status byte', value, *U8) for value in fields)


def joint_pair(kind: Callable[[int, float, float], Any], base: int) -> tuple[Encoder, Decoder]:
    """Build the codec of a frame of two angles in 0.001 degree."""

    def encode(f: JointFeedback) -> tuple[int, bytes]:
        index = whole('joint pair', f.index, 0, 2)
        return base + index, PAIR.pack(
            to_wire(f'joint{2 * index + 1} [rad]', f.first, MDEG, *I32),
            to_wire(f'joint{2 * index + 2} [rad]', f.second, MDEG, *I32))

    def decode(can_id: int, data: bytes) -> Any:
        first, second = PAIR.unpack(data)
        return kind(can_id - base, first / MDEG, second / MDEG)

    return encode, decode


_POSE_UNITS = ((('x [m]', MICRO), ('y [m]', MICRO)), (('z [m]', MICRO), ('rx [rad]', MDEG)),
               (('ry [rad]', MDEG), ('rz [rad]', MDEG)))


def pose_pair(kind: Callable[[int, float, float], Any], base: int) -> tuple[Encoder, Decoder]:
    """Build the codec of a frame of two pose values in 0.001 mm or 0.001 degree."""

    def encode(f: PoseFeedback) -> tuple[int, bytes]:
        index = whole('pose part', f.index, 0, 2)
        (one, one_scale), (two, two_scale) = _POSE_UNITS[index]
        return base + index, PAIR.pack(to_wire(one, f.first, one_scale, *I32),
                                       to_wire(two, f.second, two_scale, *I32))

    def decode(can_id: int, data: bytes) -> Any:
        (_, one_scale), (_, two_scale) = _POSE_UNITS[can_id - base]
        first, second = PAIR.unpack(data)
        return kind(can_id - base, first / one_scale, second / two_scale)

    return encode, decode


def _decode_gripper(can_id: int, data: bytes) -> GripperFeedback:
    stroke, torque, status = _GRIPPER.unpack(data)
    return GripperFeedback(stroke / MICRO, torque / MILLI, status)


def _encode_gripper(f: GripperFeedback) -> tuple[int, bytes]:
    return 0x2A8, _GRIPPER.pack(to_wire('gripper stroke [m]', f.stroke, MICRO, *I32),
                                to_wire('gripper torque [N·m]', f.torque, MILLI, *I16),
                                whole('gripper status', f.status, *U8))


def _decode_fast(can_id: int, data: bytes) -> MotorFast:
    speed, current, position = _FAST.unpack(data)
    return MotorFast(can_id - 0x250, speed / MILLI, current / MILLI, position / MILLI)


def _encode_fast(f: MotorFast) -> tuple[int, bytes]:
    return 0x250 + whole('joint', f.joint, 1, 6), _FAST.pack(
        to_wire('motor speed [rad/s]', f.speed, MILLI, *I16),
        to_wire('motor current [A]', f.current, MILLI, *I16),
        to_wire('motor position [rad]', f.position, MILLI, *I32))


def _decode_slow(can_id: int, data: bytes) -> MotorSlow:
    voltage, driver, motor, status, current = _SLOW.unpack(data)
    return MotorSlow(can_id - 0x260, voltage / DECI, driver, motor, status, current / MILLI)


def _encode_slow(f: MotorSlow) -> tuple[int, bytes]:
    return 0x260 + whole('joint', f.joint, 1, 6), _SLOW.pack(
        to_wire('supply [V]', f.voltage, DECI, *U16),
        whole('driver temperature', f.driver_temperature, *I16),
        whole('motor temperature', f.motor_temperature, -128, 127),
        whole('driver status', f.status, *U8),
        to_wire('bus current [A]', f.bus_current, MILLI, *U16))


def _decode_limits(can_id: int, data: bytes) -> LimitReply:
    joint, upper, lower, speed = LIMITS.unpack(data)
    return LimitReply(whole('joint', joint, 1, 6), upper / DDEG, lower / DDEG, speed / MILLI)


def _encode_limits(f: LimitReply) -> tuple[int, bytes]:
    return 0x473, LIMITS.pack(whole('joint', f.joint, 1, 6),
                              to_wire('upper limit [rad]', f.upper, DDEG, *I16),
                              to_wire('lower limit [rad]', f.lower, DDEG, *I16),
                              to_wire('top speed [rad/s]', f.speed, MILLI, *U16))


def _decode_acceleration(can_id: int, data: bytes) -> AccelerationReply:
    joint, acceleration = _ACCELERATION.unpack(data)
    return AccelerationReply(whole('joint', joint, 1, 6), acceleration / CENTI)


def _encode_acceleration(f: AccelerationReply) -> tuple[int, bytes]:
    return 0x47C, _ACCELERATION.pack(
        whole('joint', f.joint, 1, 6),
        to_wire('acceleration [rad/s^2]', f.acceleration, CENTI, *U16))


def _encode_set_reply(f: SetReply) -> tuple[int, bytes]:
    return 0x476, bytes((whole('instruction', f.instruction, *U8),
                         whole('zero_ok', f.zero_ok, *U8), 0, 0, 0, 0, 0, 0))


def end_limits(f: EndLimitsReply) -> bytes:
    """Pack the four flange limits."""
    return QUAD16.pack(to_wire('linear speed [m/s]', f.linear_speed, MILLI, *U16),
                       to_wire('angular speed [rad/s]', f.angular_speed, MILLI, *U16),
                       to_wire('linear acceleration [m/s^2]', f.linear_acceleration, MILLI, *U16),
                       to_wire('angular acceleration [rad/s^2]', f.angular_acceleration, MILLI,
                               *U16))


class TeachLike(Protocol):
    """What the reply and the command about the teaching handle share."""

    @property
    def range_percent(self) -> int: ...

    @property
    def max_stroke(self) -> float: ...

    @property
    def friction(self) -> int: ...


def levels(values: tuple[int, ...]) -> bytes:
    """Pack six collision protection levels."""
    whole('number of protection levels', len(values), 6, 6)
    return bytes([whole(f'protection level of joint{i + 1}', value, 0, 8)
                  for i, value in enumerate(values)] + [0, 0])


def teach(f: TeachLike) -> bytes:
    """Pack the gripper and teaching-handle parameters."""
    return bytes((whole('teaching range [%]', f.range_percent, *U8),
                  to_wire('largest stroke [m]', f.max_stroke, MILLI, *U8),
                  whole('teaching friction', f.friction, *U8), 0, 0, 0, 0, 0))


_JOINTS = joint_pair(JointFeedback, 0x2A5)
_SOLUTION = joint_pair(IkSolution, 0x2AA)
_POSE = pose_pair(PoseFeedback, 0x2A2)

ENCODERS: dict[type, Encoder] = {
    ArmStatus: _encode_status,
    PoseFeedback: _POSE[0],
    JointFeedback: _JOINTS[0],
    IkSolution: _SOLUTION[0],
    GripperFeedback: _encode_gripper,
    MotorFast: _encode_fast,
    MotorSlow: _encode_slow,
    LimitReply: _encode_limits,
    AccelerationReply: _encode_acceleration,
    SetReply: _encode_set_reply,
    EndLimitsReply: lambda f: (0x478, end_limits(f)),
    CrashLevelsReply: lambda f: (0x47B, levels(f.levels)),
    TeachReply: lambda f: (0x47E, teach(f)),
    JointEndLimits: lambda f: (0x480 + whole('joint', f.joint, 1, 6), end_limits(f)),
}

DECODERS: dict[int, Decoder] = {
    0x2A1: _decode_status,
    **{0x2A2 + i: _POSE[1] for i in range(3)},
    **{0x2A5 + i: _JOINTS[1] for i in range(3)},
    0x2A8: _decode_gripper,
    **{0x2AA + i: _SOLUTION[1] for i in range(3)},
    **{0x251 + i: _decode_fast for i in range(6)},
    **{0x261 + i: _decode_slow for i in range(6)},
    0x473: _decode_limits,
    0x476: lambda can_id, data: SetReply(data[0], data[1]),
    0x478: lambda can_id, data: EndLimitsReply(*(v / MILLI for v in QUAD16.unpack(data))),
    0x47B: lambda can_id, data: CrashLevelsReply(tuple(levels(tuple(data[:6]))[:6])),
    0x47C: _decode_acceleration,
    0x47E: lambda can_id, data: TeachReply(data[0], data[1] / MILLI, data[2]),
    **{0x481 + i: lambda can_id, data: JointEndLimits(
        can_id - 0x480, *(v / MILLI for v in QUAD16.unpack(data))) for i in range(6)},
}
