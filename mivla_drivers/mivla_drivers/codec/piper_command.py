"""
PiPER frames that a host (or a leader arm) sends, in SI units.

Every command checks its values both when it is encoded and when it is decoded, so an emulated
device refuses what a careful host would not send. Layouts: the vendor's protocol V2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Optional

from mivla_drivers.codec.piper_feedback import (
    CENTI,
    DDEG,
    I16,
    I32,
    LIMITS,
    MICRO,
    MILLI,
    QUAD16,
    U8,
    U16,
    end_limits,
    joint_pair,
    levels,
    pose_pair,
    teach,
)
from mivla_drivers.codec.piper_words import CtrlMode, MoveMode, known
from mivla_drivers.codec.scaling import Decoder, Encoder, to_wire, whole
from mivla_drivers.errors import CodecError

__all__ = ['ArcPoint', 'CrashLevelsCommand', 'EndLimitsCommand', 'GripperAction',
           'GripperCommand', 'HomeCommand', 'JointConfig', 'JointMit', 'JointTarget',
           'LimitCommand', 'LimitQuery', 'Linkage', 'ModeCommand', 'MotionCommand', 'MotorPower',
           'ParameterCommand', 'PoseTarget', 'Stop', 'TeachCommand']

MARK = 0xAE             # the value that makes an optional setting effective
LEAVE = 0x7FFF          # a 16-bit limit that is to stay as it is
FOLLOW_POSITION = 0x00
FOLLOW_HIGH = 0xAD      # fast and jerky; used by firmware leader-follower linkage
ALL_MOTORS = 0xFF

_GRIPPER = Struct('>iHBB')
_JOINT_CONFIG = Struct('>BBBHBxx')
_MOTION = Struct('>4BHH')


class Stop(IntEnum):
    """Byte 0 of 0x150."""

    NONE = 0
    STOP = 1            # damped descent
    RESET = 2           # power off at once, errors and mode cleared: the arm falls


class GripperAction(IntEnum):
    """Byte 6 of 0x159."""

    DISABLE = 0
    ENABLE = 1
    DISABLE_CLEAR = 2
    ENABLE_CLEAR = 3


@dataclass(frozen=True, slots=True)
class MotionCommand:
    """0x150: emergency stop, trajectory playback (0..8) and teaching (0..7)."""

    stop: int = Stop.NONE
    track: int = 0
    teach: int = 0
    trajectory: int = 0
    name_index: int = 0
    crc: int = 0


@dataclass(frozen=True, slots=True)
class ModeCommand:
    """0x151: who controls, what targets mean, speed [%], follow law, dwell [s], mounting 0..3."""

    ctrl_mode: int
    move_mode: int
    speed_percent: int
    follow: int = FOLLOW_POSITION
    dwell: int = 0
    mount: int = 0


@dataclass(frozen=True, slots=True)
class PoseTarget:
    """0x152-0x154: flange target, packed like PoseFeedback."""

    index: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class JointTarget:
    """0x155-0x157: targets of joints 2*index+1 and 2*index+2 [rad], firmware convention."""

    index: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class ArcPoint:
    """0x158: which point of an arc the last pose was: 1 start, 2 middle, 3 end."""

    point: int


@dataclass(frozen=True, slots=True)
class GripperCommand:
    """0x159: total opening [m], torque limit [N·m] 0..5, action, set zero here."""

    stroke: float
    torque: float
    action: int = GripperAction.ENABLE
    set_zero: bool = False


@dataclass(frozen=True, slots=True)
class JointMit:
    """
    0x15A-0x15F: one motor in MIT mode.

    position [rad] +-12.5, velocity [rad/s] +-45, kp 0..500, kd +-5, torque [N·m]: +-8 in 8 bits
    with a checksum, or, ``wide`` (firmware S-V1.8-8 and newer), +-16 in 12 bits without one.
    Sending the wide form to older firmware is dangerous: bits move into the checksum's place.
    """

    joint: int
    position: float
    velocity: float
    kp: float
    kd: float
    torque: float
    wide: bool = False


@dataclass(frozen=True, slots=True)
class HomeCommand:
    """0x191: the leader homes (1, 1), leader and follower home (0, 1), restore (0, 0)."""

    leader_only: int
    home: int


@dataclass(frozen=True, slots=True)
class Linkage:
    """0x470: role 0 none, 0xFA leader, 0xFC follower; id offsets 0x00, 0x10 or 0x20."""

    role: int
    feedback_offset: int = 0
    control_offset: int = 0
    target_offset: int = 0


@dataclass(frozen=True, slots=True)
class MotorPower:
    """0x471: motor 1..6, 7 or 0xFF (all, with the gripper); torque on or off."""

    motor: int
    on: bool


@dataclass(frozen=True, slots=True)
class LimitQuery:
    """0x472: ask joint 1..6 for angle limits and speed (1) or acceleration (2)."""

    joint: int
    content: int


@dataclass(frozen=True, slots=True)
class LimitCommand:
    """0x474: store limits of a joint [rad], [rad/s] 0..3; None leaves a value as it is."""

    joint: int
    upper: Optional[float] = None
    lower: Optional[float] = None
    speed: Optional[float] = None


@dataclass(frozen=True, slots=True)
class JointConfig:
    """0x475: joint 1..6 or 7 (all): zero here, acceleration limit [rad/s^2] 0..5, clear errors."""

    joint: int
    set_zero: bool = False
    acceleration: Optional[float] = None
    clear_error: bool = False


@dataclass(frozen=True, slots=True)
class ParameterCommand:
    """
    0x477: ask for or restore parameters.

    query 1 flange limits, 2 collision levels, 3 trajectory index, 4 gripper; restore 1 flange
    limits, 2 joint limits; periodic 1 off, 2 on (0x481-0x486); load 0..2 or None to leave it.
    """

    query: int = 0
    restore: int = 0
    periodic: int = 0
    load: Optional[int] = None


@dataclass(frozen=True, slots=True)
class EndLimitsCommand:
    """0x479: flange limits to store: m/s, rad/s, m/s^2, rad/s^2."""

    linear_speed: float
    angular_speed: float
    linear_acceleration: float
    angular_acceleration: float


@dataclass(frozen=True, slots=True)
class CrashLevelsCommand:
    """0x47A: collision protection level 0 (off) .. 8 per joint."""

    levels: tuple[int, ...]     # six


@dataclass(frozen=True, slots=True)
class TeachCommand:
    """0x47D: teaching range [%] 100..200, largest stroke [m] 0, 0.07 or 0.1, friction 1..10."""

    range_percent: int
    max_stroke: float
    friction: int


def _encode_motion(f: MotionCommand) -> tuple[int, bytes]:
    return 0x150, _MOTION.pack(whole('stop', f.stop, 0, 2), whole('track', f.track, 0, 8),
                               whole('teach', f.teach, 0, 7),
                               whole('trajectory', f.trajectory, *U8),
                               whole('name_index', f.name_index, *U16), whole('crc', f.crc, *U16))


def _decode_motion(can_id: int, data: bytes) -> MotionCommand:
    stop, *rest = _MOTION.unpack(data)
    return MotionCommand(Stop(whole('stop', stop, 0, 2)), *rest)


def _mode_check(f: ModeCommand) -> ModeCommand:
    whole('ctrl_mode', f.ctrl_mode, 0, 7)
    whole('move_mode', f.move_mode, 0, 6)
    whole('speed [%]', f.speed_percent, 0, 100)
    if f.follow not in (FOLLOW_POSITION, FOLLOW_HIGH, 0xFF):
        raise CodecError(f'follow 0x{f.follow:02X} is none of 0x00, 0xAD, 0xFF')
    whole('dwell [s]', f.dwell, *U8)
    whole('mount', f.mount, 0, 3)
    return f


def _encode_mode(f: ModeCommand) -> tuple[int, bytes]:
    _mode_check(f)
    return 0x151, bytes((f.ctrl_mode, f.move_mode, f.speed_percent, f.follow, f.dwell, f.mount,
                         0, 0))


def _decode_mode(can_id: int, data: bytes) -> ModeCommand:
    return _mode_check(ModeCommand(known(CtrlMode, data[0]), known(MoveMode, data[1]), data[2],
                                   data[3], data[4], data[5]))


def _encode_gripper(f: GripperCommand) -> tuple[int, bytes]:
    return 0x159, _GRIPPER.pack(to_wire('gripper stroke [m]', f.stroke, MICRO, *I32),
                                to_wire('gripper torque [N·m]', f.torque, MILLI, 0, 5000),
                                whole('gripper action', f.action, 0, 3),
                                MARK if f.set_zero else 0)


def _decode_gripper(can_id: int, data: bytes) -> GripperCommand:
    stroke, torque, action, zero = _GRIPPER.unpack(data)
    return GripperCommand(stroke / MICRO, whole('gripper torque', torque, 0, 5000) / MILLI,
                          GripperAction(whole('gripper action', action, 0, 3)), zero == MARK)


def _to_bits(name: str, value: float, low: float, high: float, bits: int) -> int:
    if not low <= value <= high:        # also refuses NaN
        raise CodecError(f'{name} {value:g} lies outside [{low:g}, {high:g}]')
    # Truncation as in the vendor's code; the addend keeps decode-encode stable.
    return int((value - low) * ((1 << bits) - 1) / (high - low) + 1e-6)


def _from_bits(raw: int, low: float, high: float, bits: int) -> float:
    return low + raw * (high - low) / ((1 << bits) - 1)


def _encode_mit(f: JointMit) -> tuple[int, bytes]:
    joint = whole('joint', f.joint, 1, 6)
    position = _to_bits('MIT position [rad]', f.position, -12.5, 12.5, 16)
    velocity = _to_bits('MIT velocity [rad/s]', f.velocity, -45.0, 45.0, 12)
    kp = _to_bits('MIT kp', f.kp, 0.0, 500.0, 12)
    kd = _to_bits('MIT kd', f.kd, -5.0, 5.0, 12)
    limit, bits = (16.0, 12) if f.wide else (8.0, 8)
    torque = _to_bits('MIT torque [N·m]', f.torque, -limit, limit, bits)
    value = position << 36 | velocity << 24 | kp << 12 | kd
    if f.wide:
        return 0x159 + joint, (value << 12 | torque).to_bytes(8, 'big')
    data = bytearray((value << 12 | torque << 4).to_bytes(8, 'big'))
    data[7] |= _mit_checksum(bytes(data))
    return 0x159 + joint, bytes(data)


def _mit_checksum(data: bytes) -> int:
    folded = 0
    for byte in data[:7]:
        folded ^= byte
    return folded & 0xF


def decode_mit(can_id: int, data: bytes, wide: bool) -> JointMit:
    """
    Decode 0x15A-0x15F in the form of the firmware at hand.

    :raises CodecError: the checksum of the narrow form does not fit.
    """
    value = int.from_bytes(data, 'big')
    if wide:
        torque = _from_bits(value & 0xFFF, -16.0, 16.0, 12)
    else:
        if data[7] & 0xF != _mit_checksum(data):
            raise CodecError(f'0x{can_id:03X} {data.hex()}: wrong MIT checksum; a wide frame '
                             'sent to firmware before S-V1.8-8?')
        torque = _from_bits(value >> 4 & 0xFF, -8.0, 8.0, 8)
    return JointMit(can_id - 0x159, _from_bits(value >> 48, -12.5, 12.5, 16),
                    _from_bits(value >> 36 & 0xFFF, -45.0, 45.0, 12),
                    _from_bits(value >> 24 & 0xFFF, 0.0, 500.0, 12),
                    _from_bits(value >> 12 & 0xFFF, -5.0, 5.0, 12), torque, wide)


def _padded(*values: int) -> bytes:
    return bytes(values).ljust(8, b'\0')


def _encode_linkage(f: Linkage) -> tuple[int, bytes]:
    if f.role not in (0x00, 0xFA, 0xFC):
        raise CodecError(f'linkage role 0x{f.role:02X} is none of 0x00, 0xFA, 0xFC')
    for offset in (f.feedback_offset, f.control_offset, f.target_offset):
        if offset not in (0x00, 0x10, 0x20):
            raise CodecError(f'id offset 0x{offset:02X} is none of 0x00, 0x10, 0x20')
    return 0x470, _padded(f.role, f.feedback_offset, f.control_offset, f.target_offset)


def _decode_linkage(can_id: int, data: bytes) -> Linkage:
    frame = Linkage(*data[:4])
    _encode_linkage(frame)
    return frame


def _motor(value: int) -> int:
    if value not in (1, 2, 3, 4, 5, 6, 7, ALL_MOTORS):
        raise CodecError(f'motor {value} is none of 1..7, 255')
    return value


def _decode_power(can_id: int, data: bytes) -> MotorPower:
    return MotorPower(_motor(data[0]), whole('power', data[1], 1, 2) == 2)


def _or_leave(name: str, value: Optional[float], scale: float, low: int, high: int) -> int:
    return LEAVE if value is None else to_wire(name, value, scale, low, high)


def _encode_limit(f: LimitCommand) -> tuple[int, bytes]:
    return 0x474, LIMITS.pack(whole('joint', f.joint, 1, 6),
                              _or_leave('upper limit [rad]', f.upper, DDEG, *I16),
                              _or_leave('lower limit [rad]', f.lower, DDEG, *I16),
                              _or_leave('top speed [rad/s]', f.speed, MILLI, 0, 3000))


def _decode_limit(can_id: int, data: bytes) -> LimitCommand:
    joint, upper, lower, speed = LIMITS.unpack(data)
    if speed != LEAVE:
        whole('top speed [mrad/s]', speed, 0, 3000)
    return LimitCommand(whole('joint', joint, 1, 6), None if upper == LEAVE else upper / DDEG,
                        None if lower == LEAVE else lower / DDEG,
                        None if speed == LEAVE else speed / MILLI)


def _encode_joint_config(f: JointConfig) -> tuple[int, bytes]:
    return 0x475, _JOINT_CONFIG.pack(
        whole('joint', f.joint, 1, 7), MARK if f.set_zero else 0,
        0 if f.acceleration is None else MARK,
        0 if f.acceleration is None else to_wire('acceleration [rad/s^2]', f.acceleration, CENTI,
                                                 0, 500),
        MARK if f.clear_error else 0)


def _decode_joint_config(can_id: int, data: bytes) -> JointConfig:
    joint, zero, valid, acceleration, clear = _JOINT_CONFIG.unpack(data)
    if valid == MARK and acceleration != LEAVE:
        limit = whole('acceleration', acceleration, 0, 500) / CENTI
    else:
        limit = None
    return JointConfig(whole('joint', joint, 1, 7), zero == MARK, limit, clear == MARK)


def _encode_parameter(f: ParameterCommand) -> tuple[int, bytes]:
    load = (0, 0) if f.load is None else (MARK, whole('load', f.load, 0, 2))
    return 0x477, _padded(whole('query', f.query, 0, 4), whole('restore', f.restore, 0, 2),
                          whole('periodic', f.periodic, 0, 2), *load)


def _decode_parameter(can_id: int, data: bytes) -> ParameterCommand:
    return ParameterCommand(whole('query', data[0], 0, 4), whole('restore', data[1], 0, 2),
                            whole('periodic', data[2], 0, 2),
                            whole('load', data[4], 0, 2) if data[3] == MARK else None)


def _teach_check(f: TeachCommand) -> TeachCommand:
    whole('teaching range [%]', f.range_percent, 100, 200)
    whole('teaching friction', f.friction, 1, 10)
    if round(f.max_stroke * MILLI) not in (0, 70, 100):
        raise CodecError(f'largest stroke {f.max_stroke:g} m is none of 0, 0.07, 0.1')
    return f


_TARGETS = joint_pair(JointTarget, 0x155)
_POSES = pose_pair(PoseTarget, 0x152)

ENCODERS: dict[type, Encoder] = {
    MotionCommand: _encode_motion,
    ModeCommand: _encode_mode,
    PoseTarget: _POSES[0],
    JointTarget: _TARGETS[0],
    ArcPoint: lambda f: (0x158, _padded(whole('arc point', f.point, 1, 3))),
    GripperCommand: _encode_gripper,
    JointMit: _encode_mit,
    HomeCommand: lambda f: (0x191, _padded(1, whole('leader_only', f.leader_only, 0, 1),
                                           whole('home', f.home, 0, 1))),
    Linkage: _encode_linkage,
    MotorPower: lambda f: (0x471, _padded(_motor(f.motor), 2 if f.on else 1)),
    LimitQuery: lambda f: (0x472, _padded(whole('joint', f.joint, 1, 6),
                                          whole('content', f.content, 1, 2))),
    LimitCommand: _encode_limit,
    JointConfig: _encode_joint_config,
    ParameterCommand: _encode_parameter,
    EndLimitsCommand: lambda f: (0x479, end_limits(f)),
    CrashLevelsCommand: lambda f: (0x47A, levels(f.levels)),
    TeachCommand: lambda f: (0x47D, teach(_teach_check(f))),
}


DECODERS: dict[int, Decoder] = {
    0x150: _decode_motion,
    0x151: _decode_mode,
    **{0x152 + i: _POSES[1] for i in range(3)},
    **{0x155 + i: _TARGETS[1] for i in range(3)},
    0x158: lambda can_id, data: ArcPoint(whole('arc point', data[0], 1, 3)),
    0x159: _decode_gripper,
    0x191: lambda can_id, data: HomeCommand(whole('leader_only', data[1], 0, 1),
                                            whole('home', data[2], 0, 1)),
    0x470: _decode_linkage,
    0x471: _decode_power,
    0x472: lambda can_id, data: LimitQuery(whole('joint', data[0], 1, 6),
                                           whole('content', data[1], 1, 2)),
    0x474: _decode_limit,
    0x475: _decode_joint_config,
    0x477: _decode_parameter,
    0x479: lambda can_id, data: EndLimitsCommand(*(v / MILLI for v in QUAD16.unpack(data))),
    0x47A: lambda can_id, data: CrashLevelsCommand(tuple(levels(tuple(data[:6]))[:6])),
    0x47D: lambda can_id, data: _teach_check(TeachCommand(data[0], data[1] / MILLI, data[2])),
}
