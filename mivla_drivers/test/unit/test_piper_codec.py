"""The PiPER codec against golden frames and against the vendor's own parser, both directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mivla_drivers.codec import piper as codec
from mivla_drivers.codec.piper_words import arm_faults, driver_faults, gripper_faults
from mivla_drivers.errors import CodecError

sdk = pytest.importorskip('piper_sdk.piper_msgs.msg_v2')
parser_module = pytest.importorskip('piper_sdk.protocol.protocol_v2')
PARSER = parser_module.C_PiperParserV2()

few = settings(max_examples=40, deadline=None)
u8, u16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
i8, i16 = st.integers(-0x80, 0x7F), st.integers(-0x8000, 0x7FFF)
i32 = st.integers(-0x8000_0000, 0x7FFF_FFFF)
levels = st.tuples(*[st.integers(0, 8)] * 6)
MDEG, DDEG = math.pi / 180_000, math.pi / 1_800


def sdk_decode(can_id: int, data: bytes) -> Any:
    message = sdk.PiperMessage()
    assert PARSER.DecodeMessage(can.Message(arbitration_id=can_id, data=data), message)
    return message


def sdk_encode(kind: str, **fields: Any) -> tuple[int, bytes]:
    frame = can.Message()
    message = sdk.PiperMessage(type_=getattr(sdk.ArmMsgType, kind))
    for path, value in fields.items():
        holder, _, name = path.partition('__')
        target = getattr(message, holder)
        assert hasattr(target, name), path
        setattr(target, name, value)
    assert PARSER.EncodeMessage(message, frame)
    return frame.arbitration_id, bytes(frame.data)


def both(frame: Any, encoded: tuple[int, bytes]) -> None:
    """Our encoder gives ``encoded`` and our decoder reads it back to an equal encoding."""
    assert codec.encode(frame) == encoded
    decoded = codec.decode(*encoded)
    assert type(decoded) is type(frame)
    assert codec.encode(decoded) == encoded


def degrees(*values: float) -> list[float]:
    return [math.radians(value) for value in values]


GOLDEN = [
    (codec.JointTarget(0, *degrees(1, 2)), '155', '000003E8000007D0'),
    (codec.JointTarget(1, *degrees(-3, 4)), '156', 'FFFFF44800000FA0'),
    (codec.JointTarget(2, *degrees(5, 6)), '157', '0000138800001770'),
    (codec.JointTarget(0, *degrees(90, -1)), '155', '00015F90FFFFFC18'),
    (codec.ModeCommand(1, 1, 50), '151', '0101320000000000'),
    (codec.ModeCommand(1, 1, 100, 0xAD), '151', '010164AD00000000'),
    (codec.MotorPower(7, True), '471', '0702000000000000'),
    (codec.GripperCommand(0.07, 1.0), '159', '0001117003E80100'),
    (codec.GripperCommand(0.035, 1.0), '159', '000088B803E80100'),
    (codec.Linkage(0xFA), '470', 'FA00000000000000'),
    (codec.MotionCommand(codec.Stop.STOP), '150', '0100000000000000'),
    (codec.MotionCommand(codec.Stop.RESET), '150', '0200000000000000'),
    (codec.JointMit(1, 0.5, 0.0, 10.0, 0.8, 1.0), '15A', '851E7FF0519478F9'),
    (codec.HomeCommand(1, 1), '191', '0101010000000000'),
    (codec.HomeCommand(0, 0), '191', '0100000000000000'),
    (codec.HomeCommand(0, 1), '191', '0100010000000000'),
    (codec.PoseTarget(0, 0.056128, 0.0), '152', '0000DB4000000000'),
    (codec.PoseTarget(1, 0.213266, 0.0), '153', '0003411200000000'),
    (codec.PoseTarget(2, math.radians(85), 0.0), '154', '00014C0800000000'),
    (codec.LimitQuery(6, 1), '472', '0601000000000000'),
    (codec.LimitQuery(1, 2), '472', '0102000000000000'),
    (codec.FirmwareQuery(), '4AF', '0100000000000000'),
]


@pytest.mark.parametrize(('frame', 'can_id', 'data'), GOLDEN)
def test_golden_frames(frame: Any, can_id: str, data: str) -> None:
    both(frame, (int(can_id, 16), bytes.fromhex(data)))


# -- feedback: ours -> the SDK's decoder


@few
@given(st.tuples(*[u8] * 8))
def test_status(values: tuple[int, ...]) -> None:
    can_id, data = codec.encode(codec.ArmStatus(*values))
    assert (can_id, data) == (0x2A1, bytes(values))
    status = sdk_decode(can_id, data).arm_status_msgs
    seen = (status.ctrl_mode, status.arm_status, status.mode_feed, status.teach_status,
            status.motion_status, status.trajectory_num)
    # The SDK replaces codes that it does not know by 0xFF; ours keeps them.
    assert all(int(value) in (raw, 0xFF) for value, raw in zip(seen, values))
    assert status.err_code == values[6] << 8 | values[7]
    decoded = codec.decode(can_id, data)
    assert decoded == codec.ArmStatus(*values) and decoded.limit_bits == values[6]


@few
@given(st.tuples(st.integers(0, 7), st.integers(0, 15), st.integers(0, 4), st.integers(0, 7),
                 st.integers(0, 1), u8))
def test_known_status_codes(values: tuple[int, ...]) -> None:
    status = sdk_decode(*codec.encode(codec.ArmStatus(*values, 0, 0))).arm_status_msgs
    seen = (status.ctrl_mode, status.arm_status, status.mode_feed, status.teach_status,
            status.motion_status, status.trajectory_num)
    assert tuple(int(value) for value in seen) == values


PAIRS = [
    (codec.JointFeedback, 0x2A5, 'arm_joint_feedback', 'joint_1 joint_2 joint_3 joint_4 joint_5 '
     'joint_6', (MDEG,) * 6),
    (codec.JointTarget, 0x155, 'arm_joint_ctrl', 'joint_1 joint_2 joint_3 joint_4 joint_5 '
     'joint_6', (MDEG,) * 6),
    (codec.PoseFeedback, 0x2A2, 'arm_end_pose', 'X_axis Y_axis Z_axis RX_axis RY_axis RZ_axis',
     (1e-6,) * 3 + (MDEG,) * 3),
]


@few
@given(st.sampled_from(PAIRS), st.tuples(*[i32] * 6))
def test_pairs(pair: tuple[Any, ...], raw: tuple[int, ...]) -> None:
    kind, base, holder, names, scales = pair
    for index in range(3):
        one, two = 2 * index, 2 * index + 1
        frame = kind(index, raw[one] * scales[one], raw[two] * scales[two])
        can_id, data = codec.encode(frame)
        assert can_id == base + index
        message = getattr(sdk_decode(can_id, data), holder)
        for at in (one, two):
            assert getattr(message, names.split()[at]) == raw[at]
        decoded = codec.decode(can_id, data)
        assert (decoded.first, decoded.second) == pytest.approx(
            (frame.first, frame.second), rel=1e-12)


@few
@given(st.tuples(*[i32] * 6))
def test_ik_solution_round_trip(raw: tuple[int, ...]) -> None:
    frame = codec.IkSolution(2, raw[0] * MDEG, raw[1] * MDEG)
    both(frame, codec.encode(frame))
    assert codec.encode(frame)[0] == 0x2AC


@few
@given(i32, i16, u8)
def test_gripper_feedback(stroke: int, torque: int, status: int) -> None:
    can_id, data = codec.encode(codec.GripperFeedback(stroke * 1e-6, torque * 1e-3, status))
    seen = sdk_decode(can_id, data).gripper_feedback
    assert (seen.grippers_angle, seen.grippers_effort, seen.status_code) == (
        stroke, torque, status)
    back = codec.decode(can_id, data)
    assert (back.stroke, back.torque) == pytest.approx((stroke * 1e-6, torque * 1e-3))


@few
@given(st.integers(1, 6), i16, i16, i32)
def test_motor_fast(joint: int, speed: int, current: int, position: int) -> None:
    frame = codec.MotorFast(joint, speed * 1e-3, current * 1e-3, position * 1e-3)
    can_id, data = codec.encode(frame)
    assert can_id == 0x250 + joint
    seen = getattr(sdk_decode(can_id, data), f'arm_high_spd_feedback_{joint}')
    assert (seen.motor_speed, seen.current, seen.pos) == (speed, current, position)
    both(frame, (can_id, data))


@few
@given(st.integers(1, 6), u16, i16, i8, u8, u16)
def test_motor_slow(joint: int, volt: int, driver: int, motor: int, bits: int,
                    current: int) -> None:
    frame = codec.MotorSlow(joint, volt * 0.1, driver, motor, bits, current * 1e-3)
    can_id, data = codec.encode(frame)
    seen = getattr(sdk_decode(can_id, data), f'arm_low_spd_feedback_{joint}')
    assert (seen.vol, seen.foc_temp, seen.motor_temp, seen.foc_status_code,
            seen.bus_current) == (volt, driver, motor, bits, current)
    both(frame, (can_id, data))


@few
@given(st.integers(1, 6), i16, i16, u16, u16)
def test_stored_limits(joint: int, upper: int, lower: int, speed: int, acc: int) -> None:
    frame = codec.LimitReply(joint, upper * DDEG, lower * DDEG, speed * 1e-3)
    seen = sdk_decode(*codec.encode(frame)).arm_feedback_current_motor_angle_limit_max_spd
    assert (seen.motor_num, seen.max_angle_limit, seen.min_angle_limit, seen.max_joint_spd) == (
        joint, upper, lower, speed)
    both(frame, codec.encode(frame))
    reply = codec.AccelerationReply(joint, acc * 0.01)
    seen = sdk_decode(*codec.encode(reply)).arm_feedback_current_motor_max_acc_limit
    assert (seen.joint_motor_num, seen.max_joint_acc) == (joint, acc)
    both(reply, codec.encode(reply))


@few
@given(u8, u8, st.tuples(*[u16] * 4), levels, u8, u8, u8)
def test_other_replies(index: int, zero: int, end: tuple[int, ...], crash: tuple[int, ...],
                       percent: int, stroke: int, friction: int) -> None:
    frame: Any = codec.SetReply(index, zero)
    seen = sdk_decode(*codec.encode(frame)).arm_feedback_resp_set_instruction
    assert (seen.instruction_index, seen.is_set_zero_successfully) == (index, zero)
    both(frame, codec.encode(frame))
    frame = codec.EndLimitsReply(*(value * 1e-3 for value in end))
    seen = sdk_decode(*codec.encode(frame)).arm_feedback_current_end_vel_acc_param
    assert (seen.end_max_linear_vel, seen.end_max_angular_vel, seen.end_max_linear_acc,
            seen.end_max_angular_acc) == end
    both(frame, codec.encode(frame))
    for joint in range(1, 7):
        per_joint = codec.JointEndLimits(joint, *(value * 1e-3 for value in end))
        both(per_joint, (0x480 + joint, codec.encode(frame)[1]))
    frame = codec.CrashLevelsReply(crash)
    seen = sdk_decode(*codec.encode(frame)).arm_crash_protection_rating_feedback
    assert tuple(getattr(seen, f'joint_{j}_protection_level') for j in range(1, 7)) == crash
    both(frame, codec.encode(frame))
    frame = codec.TeachReply(percent, stroke * 1e-3, friction)
    seen = sdk_decode(*codec.encode(frame)).arm_gripper_teaching_param_feedback
    assert (seen.teaching_range_per, seen.max_range_config, seen.teaching_friction) == (
        percent, stroke, friction)
    both(frame, codec.encode(frame))


def test_firmware_chunks() -> None:
    chunks = codec.compose_firmware('S-V1.8-8')
    assert len(chunks) == codec.FRAMES and b''.join(chunks)[60:68] == b'S-V1.8-8'
    collected = bytearray()
    for chunk in chunks:
        both(codec.FirmwareText(chunk), (0x4AF, chunk))
        collected += sdk_decode(0x4AF, chunk).firmware_data
    assert collected.find(b'S-V1.8-8') == 60
    firmware = codec.parse_firmware(chunks)
    assert (firmware.software, firmware.version, firmware.board) == (
        'S-V1.8-8', (1, 8, 8), 'ARM_MC')
    # Another host's question in between shifts the text by one whole answer.
    assert codec.parse_firmware([bytes(8), *chunks]).version == (1, 8, 8)
    for bad in (chunks[:10], [bytes(8)] * 11):
        with pytest.raises(CodecError):
            codec.parse_firmware(bad)
    for text in ('S-V1.8', 'V1.8-8', ''):
        with pytest.raises(CodecError, match='form'):
            codec.compose_firmware(text)


# -- commands: the SDK's encoder -> ours, and ours -> the SDK's bytes


@few
@given(st.integers(0, 2), st.integers(0, 8), st.integers(0, 7))
def test_motion_command(stop: int, track: int, teach: int) -> None:
    both(codec.MotionCommand(stop, track, teach), sdk_encode(
        'PiperMsgMotionCtrl_1', arm_motion_ctrl_1__emergency_stop=stop,
        arm_motion_ctrl_1__track_ctrl=track, arm_motion_ctrl_1__grag_teach_ctrl=teach))


@few
@given(st.sampled_from([0, 1, 3, 4, 7]), st.integers(0, 6), st.integers(0, 100),
       st.sampled_from([0x00, 0xAD, 0xFF]), u8, st.integers(0, 3))
def test_mode_command(ctrl: int, move: int, speed: int, follow: int, dwell: int,
                      mount: int) -> None:
    frame = codec.ModeCommand(ctrl, move, speed, follow, dwell, mount)
    both(frame, sdk_encode(
        'PiperMsgMotionCtrl_2', arm_motion_ctrl_2__ctrl_mode=ctrl,
        arm_motion_ctrl_2__move_mode=move, arm_motion_ctrl_2__move_spd_rate_ctrl=speed,
        arm_motion_ctrl_2__mit_mode=follow, arm_motion_ctrl_2__residence_time=dwell,
        arm_motion_ctrl_2__installation_pos=mount))
    seen = sdk_decode(*codec.encode(frame)).arm_motion_ctrl_2
    assert (seen.ctrl_mode, seen.move_mode, seen.move_spd_rate_ctrl, seen.mit_mode,
            seen.residence_time) == (ctrl, move, speed, follow, dwell)


@few
@given(st.tuples(*[i32] * 6))
def test_targets(raw: tuple[int, ...]) -> None:
    poses = ('X_axis', 'Y_axis', 'Z_axis', 'RX_axis', 'RY_axis', 'RZ_axis')
    scales = PAIRS[2][4]
    for index in range(3):
        one, two = 2 * index, 2 * index + 1
        both(codec.JointTarget(index, raw[one] * MDEG, raw[two] * MDEG), sdk_encode(
            'PiperMsgJointCtrl_' + ('12', '34', '56')[index],
            **{f'arm_joint_ctrl__joint_{one + 1}': raw[one],
               f'arm_joint_ctrl__joint_{two + 1}': raw[two]}))
        both(codec.PoseTarget(index, raw[one] * scales[one], raw[two] * scales[two]), sdk_encode(
            f'PiperMsgMotionCtrlCartesian_{index + 1}',
            **{f'arm_motion_ctrl_cartesian__{poses[one]}': raw[one],
               f'arm_motion_ctrl_cartesian__{poses[two]}': raw[two]}))


@few
@given(i32, st.integers(0, 5000), st.integers(0, 3), st.booleans())
def test_gripper_command(stroke: int, torque: int, action: int, zero: bool) -> None:
    frame = codec.GripperCommand(stroke * 1e-6, torque * 1e-3, action, zero)
    both(frame, sdk_encode(
        'PiperMsgGripperCtrl', arm_gripper_ctrl__grippers_angle=stroke,
        arm_gripper_ctrl__grippers_effort=torque, arm_gripper_ctrl__status_code=action,
        arm_gripper_ctrl__set_zero=0xAE if zero else 0))
    seen = sdk_decode(*codec.encode(frame)).arm_gripper_ctrl
    assert (seen.grippers_angle, seen.grippers_effort, seen.status_code, seen.set_zero) == (
        stroke, torque, action, 0xAE if zero else 0)


@few
@given(st.integers(1, 6), st.floats(-12.5, 12.5), st.floats(-45, 45), st.floats(0, 500),
       st.floats(-5, 5), st.floats(-8, 8))
def test_mit(joint: int, p: float, v: float, kp: float, kd: float, t: float) -> None:
    frame = codec.JointMit(joint, p, v, kp, kd, t)
    scale = PARSER.FloatToUint
    fields = {'pos_ref': scale(p, -12.5, 12.5, 16), 'vel_ref': scale(v, -45.0, 45.0, 12),
              'kp': scale(kp, 0.0, 500.0, 12), 'kd': scale(kd, -5.0, 5.0, 12),
              't_ref': scale(t, -8.0, 8.0, 8)}
    encoded = sdk_encode(f'PiperMsgJointMitCtrl_{joint}',
                         **{f'arm_joint_mit_ctrl__{key}': value for key, value in fields.items()})
    back = codec.decode(*encoded)
    assert codec.encode(back) == encoded        # bit-exact both ways on the wire's own grid
    ours = codec.decode(*codec.encode(frame))
    for name, step in (('position', 25 / 65535), ('velocity', 90 / 4095), ('kp', 500 / 4095),
                       ('kd', 10 / 4095), ('torque', 16 / 255)):
        assert getattr(back, name) == pytest.approx(getattr(frame, name), abs=1.001 * step)
        assert getattr(ours, name) == pytest.approx(getattr(back, name), abs=1.001 * step)


@few
@given(st.integers(1, 6), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF_FFFF))
def test_wide_mit_round_trip(joint: int, head: int, tail: int) -> None:
    data = (head << 48 | tail).to_bytes(8, 'big')
    frame = codec.decode(0x159 + joint, data, mit_wide=True)
    assert frame.wide and abs(frame.torque) <= 16.0
    assert codec.encode(frame) == (0x159 + joint, data)


def test_narrow_mit_checks_its_sum() -> None:
    data = bytes.fromhex('851E7FF0519478F8')
    with pytest.raises(CodecError, match='checksum'):
        codec.decode(0x15A, data)
    assert codec.decode(0x15A, data, mit_wide=True).joint == 1


@few
@given(st.sampled_from([0, 0xFA, 0xFC]), *[st.sampled_from([0, 0x10, 0x20])] * 3)
def test_linkage(role: int, feedback: int, control: int, target: int) -> None:
    both(codec.Linkage(role, feedback, control, target), sdk_encode(
        'PiperMsgMasterSlaveModeConfig', arm_ms_config__linkage_config=role,
        arm_ms_config__feedback_offset=feedback, arm_ms_config__ctrl_offset=control,
        arm_ms_config__linkage_offset=target))


SIMPLE: list[tuple[Callable[..., Any], str, str, tuple[Any, ...]]] = [
    (lambda m, f: codec.MotorPower(m, f == 2), 'PiperMsgMotorEnableDisableConfig',
     'arm_motor_enable: motor_num enable_flag',
     (st.sampled_from([1, 2, 3, 4, 5, 6, 7, 0xFF]), st.integers(1, 2))),
    (codec.LimitQuery, 'PiperMsgSearchMotorMaxAngleSpdAccLimit',
     'arm_search_motor_max_angle_spd_acc_limit: motor_num search_content',
     (st.integers(1, 6), st.integers(1, 2))),
    (lambda p: codec.ArcPoint(p), 'PiperMsgCircularPatternCoordNumUpdateCtrl',
     'arm_circular_ctrl: instruction_num', (st.integers(1, 3),)),
    (lambda *v: codec.EndLimitsCommand(*(x * 1e-3 for x in v)), 'PiperMsgEndVelAccParamConfig',
     'arm_end_vel_acc_param_config: end_max_linear_vel end_max_angular_vel end_max_linear_acc '
     'end_max_angular_acc', (u16,) * 4),
    (lambda *v: codec.CrashLevelsCommand(v), 'PiperMsgCrashProtectionRatingConfig',
     'arm_crash_protection_rating_config: joint_1_protection_level joint_2_protection_level '
     'joint_3_protection_level joint_4_protection_level joint_5_protection_level '
     'joint_6_protection_level', (st.integers(0, 8),) * 6),
    (lambda r, s, f: codec.TeachCommand(r, s * 1e-3, f),
     'PiperMsgGripperTeachingPendantParamConfig',
     'arm_gripper_teaching_param_config: teaching_range_per max_range_config teaching_friction',
     (st.integers(100, 200), st.sampled_from([0, 70, 100]), st.integers(1, 10))),
]


@pytest.mark.parametrize(('build', 'kind', 'fields', 'values'), SIMPLE)
def test_simple_commands(build: Callable[..., Any], kind: str, fields: str,
                         values: tuple[Any, ...]) -> None:
    holder, _, names = fields.partition(': ')

    @few
    @given(st.tuples(*values))
    def check(drawn: tuple[int, ...]) -> None:
        both(build(*drawn), sdk_encode(kind, **{
            f'{holder}__{name}': value for name, value in zip(names.split(), drawn)}))

    check()


@few
@given(st.integers(1, 6), *[st.none() | st.integers(-1800, 1800)] * 2,
       st.none() | st.integers(0, 3000))
def test_limit_command(joint: int, upper: int | None, lower: int | None,
                       speed: int | None) -> None:
    def scaled(value: int | None, unit: float) -> float | None:
        return None if value is None else value * unit

    def wire(value: int | None) -> int:
        return 0x7FFF if value is None else value

    frame = codec.LimitCommand(joint, scaled(upper, DDEG), scaled(lower, DDEG),
                               scaled(speed, 1e-3))
    both(frame, sdk_encode(
        'PiperMsgMotorAngleLimitMaxSpdSet',
        arm_motor_angle_limit_max_spd_set__motor_num=joint,
        arm_motor_angle_limit_max_spd_set__max_angle_limit=wire(upper),
        arm_motor_angle_limit_max_spd_set__min_angle_limit=wire(lower),
        arm_motor_angle_limit_max_spd_set__max_joint_spd=wire(speed)))


@few
@given(st.integers(1, 7), st.booleans(), st.none() | st.integers(0, 500), st.booleans())
def test_joint_config(joint: int, zero: bool, acc: int | None, clear: bool) -> None:
    both(codec.JointConfig(joint, zero, None if acc is None else acc * 0.01, clear), sdk_encode(
        'PiperMsgJointConfig', arm_joint_config__joint_motor_num=joint,
        arm_joint_config__set_motor_current_pos_as_zero=0xAE if zero else 0,
        arm_joint_config__acc_param_config_is_effective_or_not=0 if acc is None else 0xAE,
        arm_joint_config__max_joint_acc=acc or 0,
        arm_joint_config__clear_joint_err=0xAE if clear else 0))


@few
@given(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2), st.none() | st.integers(0, 2))
def test_parameter_command(query: int, restore: int, periodic: int, load: int | None) -> None:
    both(codec.ParameterCommand(query, restore, periodic, load), sdk_encode(
        'PiperMsgParamEnquiryAndConfig', arm_param_enquiry_and_config__param_enquiry=query,
        arm_param_enquiry_and_config__param_setting=restore,
        arm_param_enquiry_and_config__data_feedback_0x48x=periodic,
        arm_param_enquiry_and_config__end_load_param_setting_effective=(
            0 if load is None else 0xAE),
        arm_param_enquiry_and_config__set_end_load=load or 0))


# -- refusals


@pytest.mark.parametrize('frame', [
    codec.JointTarget(0, math.nan, 0.0), codec.JointTarget(0, 1e6, 0.0),
    codec.JointTarget(3, 0.0, 0.0),
    codec.GripperCommand(0.01, 5.1), codec.GripperCommand(0.01, -0.1),
    codec.GripperCommand(0.01, 1.0, 4), codec.ModeCommand(1, 1, 101), codec.ModeCommand(1, 9, 50),
    codec.ModeCommand(1, 1, 50, 0x12), codec.MotorPower(8, True), codec.LimitQuery(0, 1),
    codec.LimitQuery(1, 3), codec.MotionCommand(3), codec.JointMit(1, 13.0, 0, 0, 0, 0),
    codec.JointMit(1, math.nan, 0, 0, 0, 0), codec.JointMit(7, 0, 0, 0, 0, 0),
    codec.JointMit(1, 0, 0, 0, 0, 9.0), codec.Linkage(1), codec.Linkage(0xFA, 0x30),
    codec.LimitCommand(1, speed=3.1), codec.JointConfig(1, acceleration=5.1),
    codec.CrashLevelsCommand((0, 0, 0, 0, 0, 9)), codec.TeachCommand(99, 0.07, 1),
    codec.TeachCommand(100, 0.08, 1), codec.MotorFast(1, 40.0, 0.0, 0.0),
    codec.MotorSlow(1, 24.0, 40, 200, 0, 0.0), codec.ParameterCommand(query=5),
    codec.ArcPoint(0), codec.FirmwareText(b'short'), object()])
def test_values_that_do_not_fit_are_refused(frame: Any) -> None:
    with pytest.raises(CodecError):
        codec.encode(frame)


@pytest.mark.parametrize('can_id', sorted(codec.IDS - {0x4AF}))
@pytest.mark.parametrize('length', [0, 7])
def test_wrong_length_is_refused(can_id: int, length: int) -> None:
    with pytest.raises(CodecError, match=f'0x{can_id:03X} with {length}'):
        codec.decode(can_id, bytes(length))


@few
@given(st.sampled_from(sorted(codec.IDS)), st.binary(max_size=8), st.booleans())
def test_any_bytes_decode_or_are_refused(can_id: int, data: bytes, wide: bool) -> None:
    try:
        frame = codec.decode(can_id, data, mit_wide=wide)
    except CodecError:
        return
    assert type(frame) in codec.FRAME_KINDS
    assert codec.encode(frame)[0] == can_id


def test_unknown_ids_are_none() -> None:
    assert codec.decode(0x123, bytes(8)) is None


# -- words


def test_words_say_what_to_do() -> None:
    assert arm_faults(codec.ArmState.OK, 0) == ()
    assert 'reset it (it falls)' in arm_faults(codec.ArmState.EMERGENCY_STOP, 0)[0]
    assert arm_faults(0x42, 0b100001)[0].startswith('arm state 0x42')
    assert [text[:6] for text in arm_faults(0, 0b100001)] == ['joint1', 'joint6']
    assert arm_faults(codec.ArmState.TEACH_RECORD, 0) == ()
    assert driver_faults(2, 0x40) == () and gripper_faults(0xC0) == ()
    assert len(driver_faults(2, 0xFF)) == 7 and len(gripper_faults(0xFF)) == 6
    assert 'joint2: motor too hot' in driver_faults(2, 0x42)[0]


def test_unknown_codes_stay_numbers() -> None:
    status = codec.decode(0x2A1, bytes((9, 0x42, 9, 0, 0, 0, 0, 0)))
    assert (status.ctrl_mode, status.arm_state) == (9, 0x42)
    assert codec.control_words(9, 0x42, 1, 0) == ('control 0x09', 'move joint', 'arm 0x42')
