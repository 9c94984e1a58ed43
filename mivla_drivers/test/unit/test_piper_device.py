"""The emulated PiPER's behaviour, frame by frame, in simulated time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from piper_rig import POSE, LagPlant

from mivla_core.timing import NowNs
from mivla_drivers.codec import piper as codec
from mivla_drivers.core.piper_units import effort_per_ampere
from mivla_drivers.devices.disturbance import Disturbance
from mivla_drivers.devices.piper_device import EmulatedPiper, PiperOptions

MS = 1_000_000


class Arm:
    """The device with its plant; sends and receives decoded frames."""

    def __init__(self, **options: object) -> None:
        self.plant = LagPlant()
        self.now = NowNs(0)
        self.device = EmulatedPiper(self.plant, PiperOptions(**options), self.now)
        self.raw: list[tuple[int, bytes]] = []

    def send(self, *frames: object) -> None:
        for frame in frames:
            self.device.handle(*codec.encode(frame), self.now)

    def run(self, ms: int) -> list[object]:
        self.raw = []
        for _ in range(ms):
            self.plant.step(1e-3)
            self.raw += self.device.tick(self.now)
            self.now = self.now + MS
        return [codec.decode(*frame) for frame in self.raw]

    def last(self, kind: type, ms: int = 30) -> object:
        return [frame for frame in self.run(ms) if type(frame) is kind][-1]

    def power(self) -> None:
        self.send(*(codec.MotorPower(joint, True) for joint in range(1, 7)))

    def can_mode(self, speed: int = 100) -> None:
        self.send(codec.ModeCommand(codec.CtrlMode.CAN, codec.MoveMode.JOINT, speed))

    def target(self, q: np.ndarray) -> None:
        self.send(*(codec.JointTarget(i, float(q[2 * i]), float(q[2 * i + 1]))
                    for i in range(3)))


@pytest.fixture
def arm() -> Arm:
    return Arm()


def test_a_second_of_feedback_has_the_vendors_rates(arm: Arm) -> None:
    arm.run(1000)
    ids = [can_id for can_id, _ in arm.raw]
    assert len(ids) == 3040
    for can_id in (*range(0x2A1, 0x2A9), *range(0x251, 0x257)):
        assert ids.count(can_id) == 200
    for can_id in range(0x261, 0x267):
        assert ids.count(can_id) == 40


def test_a_late_tick_sends_one_cycle(arm: Arm) -> None:
    arm.device.tick(arm.now)
    frames = arm.device.tick(NowNs(87 * MS))
    assert [can_id for can_id, _ in frames].count(0x2A5) == 1
    assert not arm.device.tick(NowNs(89 * MS))
    assert arm.device.tick(NowNs(90 * MS))


def test_feedback_carries_the_pose(arm: Arm) -> None:
    arm.plant.v[:] = 0.25
    arm.plant.tau[:] = 1.0
    frames = arm.device.tick(arm.now)
    decoded = {can_id: codec.decode(can_id, data) for can_id, data in frames}
    assert decoded[0x2A6].first == pytest.approx(POSE[2], abs=1e-5)
    assert decoded[0x2A8].stroke == pytest.approx(POSE[6], abs=1e-6)
    assert decoded[0x254].speed == pytest.approx(0.25)
    factor = effort_per_ampere((1, 8, 8))
    assert decoded[0x251].current * factor[0] == pytest.approx(1.0, abs=2e-3)


def test_pose_frames_follow_the_vendors_forward_kinematics() -> None:
    kinematics = pytest.importorskip('piper_sdk.kinematics.piper_fk')
    for firmware, offset in (('S-V1.8-8', 1), ('S-V1.6-2', 0)):
        device = Arm(firmware=firmware)
        angles = [codec.decode(*f) for f in device.device.tick(device.now)]
        joints = [v for f in angles if type(f) is codec.JointFeedback for v in (f.first, f.second)]
        pose = [v for f in angles if type(f) is codec.PoseFeedback for v in (f.first, f.second)]
        fk = kinematics.C_PiperForwardKinematics(offset)
        expected = fk.CalFK(joints)[-1]
        assert np.allclose(np.array(pose[:3]) * 1e3, expected[:3], atol=0.02)
        assert np.allclose(np.degrees(pose[3:]), expected[3:], atol=0.01)


def test_targets_are_ignored_in_standby(arm: Arm) -> None:
    arm.power()
    arm.target(np.zeros(6))
    arm.run(300)
    assert np.allclose(arm.plant.q, POSE, atol=1e-6)


def test_targets_without_power_do_not_move(arm: Arm) -> None:
    arm.can_mode()
    arm.target(POSE[:6] + 0.2)
    arm.run(200)
    assert arm.plant.q[0] == POSE[0]


@pytest.mark.parametrize('percent', [10, 100])
def test_speed_percent_limits_the_planner(arm: Arm, percent: int) -> None:
    arm.power()
    arm.can_mode(percent)
    goal = POSE[:6].copy()
    goal[0] += 1.0
    arm.target(goal)
    arm.run(100)
    expected = 3.0 * percent / 100 * 0.1
    assert arm.plant.q[0] - POSE[0] == pytest.approx(expected, rel=0.05)
    assert arm.last(codec.ArmStatus).motion_state == 1
    arm.run(5000)
    assert arm.plant.q[0] == pytest.approx(goal[0], abs=1e-4)
    assert arm.last(codec.ArmStatus).motion_state == 0


def test_a_target_over_a_limit_is_refused_whole(arm: Arm) -> None:
    arm.power()
    arm.can_mode()
    goal = POSE[:6].copy()
    goal[0] += 0.3
    goal[4] = math.radians(70.2)
    arm.target(goal)
    assert arm.last(codec.ArmStatus, 200).arm_state == codec.ArmState.TARGET_OVER_LIMIT
    assert arm.plant.q[0] == pytest.approx(POSE[0])
    goal[4] = math.radians(70.0)
    arm.target(goal)
    assert arm.last(codec.ArmStatus, 300).arm_state == codec.ArmState.OK
    assert arm.plant.q[0] == pytest.approx(goal[0], abs=1e-3)


def test_stop_descends_and_only_a_reset_ends_it(arm: Arm) -> None:
    arm.power()
    arm.can_mode()
    arm.run(20)
    arm.send(codec.MotionCommand(codec.Stop.STOP))
    assert arm.plant.mode == 'damped_descent'
    assert arm.last(codec.ArmStatus, 100).arm_state == codec.ArmState.EMERGENCY_STOP
    assert POSE[1] - 0.05 < arm.plant.q[1] < POSE[1] - 0.005
    arm.power()
    arm.can_mode()
    arm.target(POSE[:6])
    arm.run(50)
    assert arm.plant.mode == 'damped_descent'


def test_reset_drops_the_arm_and_wants_two_enables(arm: Arm) -> None:
    arm.power()
    arm.can_mode()
    arm.run(20)
    arm.send(codec.MotionCommand(codec.Stop.STOP))
    arm.run(20)
    arm.send(codec.MotionCommand(codec.Stop.RESET))
    assert arm.plant.mode == 'off' and not any(arm.device.enabled)
    status = arm.last(codec.ArmStatus, 50)
    assert status.arm_state == codec.ArmState.OK
    assert status.ctrl_mode == codec.CtrlMode.STANDBY
    arm.power()
    assert not any(arm.device.enabled[:6])
    arm.power()
    assert all(arm.device.enabled[:6])
    assert arm.plant.mode == 'position'


@pytest.mark.parametrize('motor', [7, 0xFF])
def test_all_motors_include_the_gripper(arm: Arm, motor: int) -> None:
    arm.send(codec.MotorPower(motor, True))
    assert all(arm.device.enabled)
    slow = {f.joint: f.status for f in arm.run(30) if type(f) is codec.MotorSlow}
    assert all(slow[joint] & codec.DRIVER_ENABLED for joint in range(1, 7))
    arm.send(codec.MotorPower(motor, False))
    assert not any(arm.device.enabled) and arm.plant.mode == 'off'


@pytest.mark.parametrize('stale', [True, False])
def test_an_old_target_comes_alive_with_power(stale: bool) -> None:
    arm = Arm(stale_target=stale)
    arm.can_mode()
    goal = POSE[:6].copy()
    goal[3] += 0.5
    arm.target(goal)
    arm.power()
    arm.run(400)
    assert arm.plant.q[3] == pytest.approx(goal[3] if stale else POSE[3], abs=1e-3)


def test_gripper_follows_and_can_be_switched(arm: Arm) -> None:
    arm.send(codec.GripperCommand(0.06, 1.0, codec.GripperAction.ENABLE))
    arm.run(400)
    assert arm.plant.q[6] == pytest.approx(0.06, abs=1e-4)
    assert arm.last(codec.GripperFeedback).status & codec.DRIVER_ENABLED
    arm.send(codec.GripperCommand(0.0, 1.0, codec.GripperAction.DISABLE))
    assert not arm.last(codec.GripperFeedback, 300).status & codec.DRIVER_ENABLED
    assert arm.plant.q[6] == pytest.approx(0.06, abs=1e-4)


def test_an_unconfigured_gripper_reads_zero_and_ignores(arm: Arm) -> None:
    arm = Arm(max_stroke=0.0)
    arm.send(codec.GripperCommand(0.06, 1.0, codec.GripperAction.ENABLE))
    arm.run(100)
    assert arm.plant.q[6] == POSE[6]
    assert arm.last(codec.GripperFeedback).stroke == 0.0
    arm.send(codec.TeachCommand(100, 0.07, 1), codec.ParameterCommand(query=4))
    replies = arm.run(10)
    assert any(type(f) is codec.TeachReply and f.max_stroke == 0.07 for f in replies)
    assert arm.last(codec.GripperFeedback).stroke == pytest.approx(POSE[6])


def test_parameter_answers(arm: Arm) -> None:
    arm.send(codec.LimitQuery(2, 1), codec.LimitQuery(2, 2), codec.ParameterCommand(query=1),
             codec.ParameterCommand(query=2))
    replies = arm.run(1)[:4]
    assert replies[0] == codec.LimitReply(2, pytest.approx(math.pi), 0.0, 3.0)
    assert replies[1] == codec.AccelerationReply(2, 5.0)
    assert [type(f) for f in replies[2:]] == [codec.EndLimitsReply, codec.CrashLevelsReply]


@pytest.mark.parametrize(('frame', 'low_byte', 'zero'), [
    (codec.LimitCommand(1, math.radians(90), None, 1.5), 0x74, 0),
    (codec.JointConfig(3, acceleration=2.0), 0x75, 0),
    (codec.JointConfig(3, set_zero=True), 0x75, 1),
    (codec.EndLimitsCommand(0.5, 1.0, 0.5, 1.0), 0x79, 0),
    (codec.CrashLevelsCommand((1, 2, 3, 4, 5, 6)), 0x7A, 0),
    (codec.TeachCommand(100, 0.1, 2), 0x7D, 0),
    (codec.ParameterCommand(restore=2), 0x77, 0),
])
def test_settings_are_acknowledged(arm: Arm, frame: object, low_byte: int, zero: int) -> None:
    arm.send(frame)
    assert arm.run(1)[0] == codec.SetReply(low_byte, zero)


def test_settings_take_effect_and_are_restored(arm: Arm) -> None:
    arm.send(codec.LimitCommand(1, math.radians(90), None, 1.5), codec.LimitQuery(1, 1))
    reply = arm.run(1)[1]
    assert reply.upper == pytest.approx(math.radians(90))
    assert reply.lower == pytest.approx(math.radians(-150)) and reply.speed == 1.5
    arm.send(codec.ParameterCommand(restore=2), codec.LimitQuery(1, 1))
    assert arm.last(codec.LimitReply, 2).upper == pytest.approx(math.radians(150))


def test_setting_zero_shifts_reading_and_targets(arm: Arm) -> None:
    arm.send(codec.JointConfig(1, set_zero=True))
    assert arm.last(codec.JointFeedback, 1) is not None
    first = [f for f in arm.run(10) if type(f) is codec.JointFeedback and f.index == 0][-1]
    assert first.first == pytest.approx(0.0, abs=1e-5)
    arm.power()
    arm.can_mode()
    goal = POSE[:6].copy()
    goal[0] = 0.2
    arm.target(goal)
    arm.run(300)
    assert arm.plant.q[0] == pytest.approx(POSE[0] + 0.2, abs=1e-3)


def test_firmware_text(arm: Arm) -> None:
    arm = Arm(firmware='S-V1.7-3')
    arm.send(codec.FirmwareQuery())
    chunks = [f.chunk for f in arm.run(1) if type(f) is codec.FirmwareText]
    assert len(chunks) == 11
    assert codec.parse_firmware(chunks).version == (1, 7, 3)


@pytest.mark.parametrize(('firmware', 'scale'), [('S-V1.8-2', 0.25), ('S-V1.8-3', 1.0)])
def test_old_firmware_reports_a_quarter_of_the_current(firmware: str, scale: float) -> None:
    arm = Arm(firmware=firmware)
    arm.plant.tau[:] = 2.0
    fast = {f.joint: f for f in arm.run(1) if type(f) is codec.MotorFast}
    assert fast[2].current == pytest.approx(2.0 / 1.18125 * scale, abs=1e-3)
    assert fast[5].current == pytest.approx(2.0 / 0.95844, abs=1e-3)


def test_a_leader_sends_targets_instead_of_feedback(arm: Arm) -> None:
    arm.send(codec.Linkage(0xFA))
    arm.run(20)
    ids = {can_id for can_id, _ in arm.raw}
    assert ids == {0x151, 0x155, 0x156, 0x157, 0x159}
    frames = {can_id: codec.decode(can_id, data) for can_id, data in arm.raw}
    assert frames[0x155].first == pytest.approx(POSE[0], abs=1e-5)
    assert frames[0x151].follow == 0xAD
    arm.power()
    arm.can_mode()
    arm.target(POSE[:6])
    arm.run(20)
    assert arm.device.ctrl_mode == codec.CtrlMode.LEADER


def test_a_former_leader_needs_a_reset(arm: Arm) -> None:
    arm.power()
    arm.send(codec.Linkage(0xFA))
    arm.run(20)
    arm.send(codec.Linkage(0xFC))
    arm.can_mode()
    assert arm.last(codec.ArmStatus).ctrl_mode == codec.CtrlMode.STANDBY
    arm.send(codec.MotionCommand(codec.Stop.RESET))
    arm.can_mode()
    assert arm.last(codec.ArmStatus).ctrl_mode == codec.CtrlMode.CAN


def test_faults_are_reported_and_cleared(arm: Arm) -> None:
    arm.device.inject('motor_overtemperature', 3)
    slow = [f for f in arm.run(30) if type(f) is codec.MotorSlow and f.joint == 3][-1]
    assert slow.status & 0x02 and slow.motor_temperature > 90
    arm.send(codec.JointConfig(3, clear_error=True))
    slow = [f for f in arm.run(30) if type(f) is codec.MotorSlow and f.joint == 3][-1]
    assert not slow.status & 0x02
    arm.device.inject('joint_communication', 5)
    frames = arm.run(30)
    assert not any(type(f) in (codec.MotorFast, codec.MotorSlow) and f.joint == 5 for f in frames)
    assert [f for f in frames if type(f) is codec.ArmStatus][-1].comm_bits == 1 << 4
    arm.device.clear('joint_communication')
    assert arm.last(codec.ArmStatus).arm_state == codec.ArmState.OK


def test_silence_is_deaf_and_dumb(arm: Arm) -> None:
    arm.device.inject('silence')
    arm.send(codec.LimitQuery(1, 1))
    arm.power()
    assert arm.run(50) == []
    assert not any(arm.device.enabled)
    arm.device.clear('silence')
    assert arm.run(10)


def test_teaching_takes_control_until_a_reset(arm: Arm) -> None:
    arm.power()
    arm.can_mode()
    arm.device.inject('teach')
    arm.can_mode()
    assert arm.last(codec.ArmStatus).ctrl_mode == codec.CtrlMode.TEACH
    arm.device.clear('teach')
    arm.can_mode()
    assert arm.last(codec.ArmStatus).ctrl_mode == codec.CtrlMode.STANDBY


def test_disturbance_moves_the_motors_not_the_plan() -> None:
    def traces(seed: int) -> tuple[np.ndarray, np.ndarray]:
        arm = Arm()
        arm.power()
        arm.can_mode()
        arm.target(POSE[:6])
        arm.device.set_disturbance(Disturbance(theta=5.0, sigma=0.1, seed=seed))
        targets = []
        for _ in range(1500):
            arm.run(1)
            targets.append(arm.plant.target - arm.device.target)
        return np.array(targets), arm.device.target

    noise, plan = traces(3)
    assert np.allclose(plan, POSE, atol=1e-5)
    assert (noise[:, 6] == 0.0).all()
    assert 0.5 < noise[200:, :6].std() / (0.1 / math.sqrt(10.0)) < 1.6
    assert np.array_equal(noise, traces(3)[0]) and not np.array_equal(noise, traces(4)[0])


def test_malformed_and_unsupported_frames_are_counted(arm: Arm) -> None:
    arm.device.handle(0x155, b'\0' * 4, arm.now)
    arm.device.handle(0x471, b'\x09\x02\0\0\0\0\0\0', arm.now)
    assert arm.device.refused == 2
    arm.send(codec.PoseTarget(0, 0.1, 0.0), codec.JointMit(1, 0.0, 0.0, 10.0, 0.8, 0.0, True))
    assert arm.device.unsupported == {'PoseTarget': 1, 'JointMit': 1}
    arm.device.handle(0x7FF, b'', arm.now)
