"""The ARX-5 backend against the emulated arm: identity, start, holding, faults, letting go."""

from __future__ import annotations

import re

import can
import numpy as np
import pytest
from arx_rig import POSE, STEP_NS, ArxBench, arx_profile, links

from mivla_drivers.backends.arx5_gravity import GravityModel
from mivla_drivers.codec import damiao, encos
from mivla_drivers.codec.damiao import DmMit, DmRegister, DmSpecial, RegisterOp, Special
from mivla_drivers.codec.encos import EcMit
from mivla_drivers.errors import DriverError

MODELS = ('X5', 'L5')
WIRE_ORDER = [1, 2, 4, 5, 6, 7, 8]


@pytest.fixture(params=MODELS)
def bench(request):
    return ArxBench(request.param)


def near(got, wanted, angle, opening):
    """Check arm angles [rad] and the gripper's opening [m]."""
    np.testing.assert_allclose(got[:6], wanted[:6], atol=angle)
    assert abs(got[6] - wanted[6]) <= opening


def kinds(bench, sent):
    """Decode what the host sent, as the motor of that id would."""
    ec = (1, 2, 4) if bench.device.motors[0].type.make == 'EC' else ()
    return [(encos if can_id in ec else damiao).decode_command(can_id, data)
            for can_id, data in sent]


# -- connecting

def test_connect_says_which_motors_answered_and_moves_nothing(bench):
    info = bench.backend.connect(bench.now)
    assert info.kind == 'arx5'
    assert info.details['model'] == bench.profile.driver.parameters['model']
    frames = kinds(bench, bench.sent)
    assert not any(isinstance(frame, DmSpecial) for frame in frames)
    assert all(frame.kp == 0.0 for frame in frames if isinstance(frame, (DmMit, EcMit)))
    measured = bench.control(0.01)
    np.testing.assert_allclose(measured.position, bench.pose(), atol=2e-3)
    assert not measured.powered and not measured.faults


def test_an_l5_is_refused_as_an_x5_before_any_command_goes_out():
    bench = ArxBench('X5', 'L5')
    with pytest.raises(DriverError, match='1, 2, 4 answer as Damiao: this is an L5.*says X5'):
        bench.backend.connect(bench.now)
    assert {can_id for can_id, _ in bench.sent} == {damiao.REGISTER_ID}


def test_an_x5_is_refused_as_an_l5_before_any_command_goes_out():
    bench = ArxBench('L5', 'X5')
    with pytest.raises(DriverError, match='1, 2, 4 answer as EC-A4310: this is an X5.*says L5'):
        bench.backend.connect(bench.now)
    assert all(can_id == damiao.REGISTER_ID or len(data) == 2 for can_id, data in bench.sent)


def test_missing_motors_are_named(bench):
    bench.device.inject('silence', 6)
    with pytest.raises(DriverError, match='motors 6 do not answer as Damiao'):
        bench.backend.connect(bench.now)


def test_a_missing_ec_motor_is_named_by_its_joint():
    bench = ArxBench('X5')
    bench.device.inject('silence', 4)
    with pytest.raises(DriverError, match=r'no answer from joint3 \(id 4\)'):
        bench.backend.connect(bench.now)


def test_a_dead_bus_is_told_from_a_wrong_arm(bench):
    bench.deaf = True
    with pytest.raises(DriverError, match='no motor answers: switch the arm on'):
        bench.backend.connect(bench.now)


def test_connecting_leaves_an_l5_that_holds_as_it_is():
    bench = ArxBench('L5')
    bench.ready()
    held = bench.device.command(2)
    other = ArxBench('L5')
    other.device, other.plant = bench.device, bench.plant
    other.backend.connect(other.now)
    assert other.device.command(2) is held
    assert other.control(0.02).powered


@pytest.mark.parametrize('parameters, words', [
    ({'model': 'R5'}, "model 'R5'"), ({'links': None}, 'links .* is missing'),
    ({'links': links('X5')[:5]}, '6 rows'), ({'gripper_open': 0.0}, 'no travel'),
    ({'spacing': 1.0}, 'spacing'), ({'speed': 1}, "unknown \\['speed'\\]"),
    ({'gripper_width': 0.05}, 'gripper opens to 0.088')])
def test_bad_parameters_are_refused(parameters, words):
    from mivla_drivers.backends.arx5 import Arx5Backend
    profile = arx_profile('X5')
    with pytest.raises(DriverError, match=words):
        Arx5Backend(profile, 'memory', 'x', {**profile.driver.parameters, **parameters})


# -- enabling

def test_the_start_follows_the_vendors_order(bench):
    bench.backend.connect(bench.now)
    bench.sent.clear()
    assert bench.enable()
    frames = kinds(bench, bench.sent)
    order = [frame.action if isinstance(frame, DmSpecial) else
             'stiff' if isinstance(frame, (DmMit, EcMit)) and frame.kp > 0 else None
             for frame in frames]
    first = {what: order.index(what) for what in (Special.CLEAR_ERROR, Special.ENABLE, 'stiff')}
    assert first[Special.CLEAR_ERROR] < first[Special.ENABLE] < first['stiff']
    assert Special.SET_ZERO not in order and Special.DISABLE not in order
    soft = [f for f in frames[first[Special.ENABLE]:first['stiff']] if isinstance(f, DmMit)]
    assert soft and all(frame.kp == 0 and frame.kd > 0 for frame in soft)


def test_enabling_does_not_move_the_arm(bench):
    bench.ready()
    near(bench.pose(), POSE, 0.02, 0.001)
    measured = bench.control(1.0)
    assert measured.powered
    near(bench.pose(), POSE, 0.02, 0.001)


def test_enabling_is_refused_while_a_motor_reports_an_error(bench):
    bench.backend.connect(bench.now)
    bench.device.inject('overheat', 5)
    with pytest.raises(DriverError, match='joint4: winding too hot'):
        bench.enable()
    assert not np.isfinite(bench.device.target()).any()


def test_an_arm_that_is_pushed_away_while_it_stiffens_is_let_go():
    bench = ArxBench('L5')
    bench.backend.connect(bench.now)
    bench.plant.propped = False
    bench.plant.push[4] = 6.0
    with pytest.raises(DriverError, match='joint5 left its held pose'):
        bench.enable()
    bench.control(0.01)
    assert not np.isfinite(bench.device.target()).any()


def test_a_withdrawn_attempt_leaves_damping_behind(bench):
    bench.backend.connect(bench.now)
    for _ in range(60):
        bench.advance(5 * STEP_NS)
        bench.backend.read(bench.now)
        bench.backend.enable(bench.now)
    assert np.isfinite(bench.device.target()).any()
    bench.control(0.05)
    assert not np.isfinite(bench.device.target()).any()


# -- driving

def test_frames_go_out_in_the_order_of_the_wire_once_per_write(bench):
    bench.ready()
    bench.control(0.005)
    bench.sent.clear()
    bench.backend.write(POSE, bench.now)
    assert [can_id for can_id, _ in bench.sent] == WIRE_ORDER
    pauses = []
    bench.backend._link._pause = pauses.append
    bench.backend.write(POSE, bench.now)
    assert pauses == [150e-6] * 6


def test_the_arm_goes_where_it_is_sent(bench):
    bench.ready()
    start = bench.backend.read(bench.now).position.copy()
    goal = np.array([0.3, 1.2, 1.1, 0.0, 0.0, 0.0, 0.06])
    for share in np.linspace(0, 1, 200):
        measured = bench.control(0.005, start + share * (goal - start))
    measured = bench.control(0.5, goal)
    near(measured.position, goal, 0.02, 0.002)
    assert measured.powered and not measured.faults and not measured.foreign


def test_without_set_points_the_last_one_is_streamed(bench):
    bench.ready()
    bench.control(0.1, POSE)
    heard = bench.device.heard[7]
    measured = bench.control(1.0)
    assert bench.device.heard[7] - heard >= 199
    assert bench.now - measured.received < 10_000_000
    np.testing.assert_allclose(bench.device.target()[:6], POSE[:6], atol=1e-3)


def test_gravity_compensation_carries_the_arm(bench):
    bench.ready()
    for _ in range(3):
        bench.control(0.1, POSE)
    torque = GravityModel(bench.profile.kinematics,
                          bench.profile.driver.parameters['links']).torque(bench.pose())
    command, motor = bench.device.command(4), bench.device.motors[2]
    assert command.torque * motor.type.command == pytest.approx(torque[2], abs=0.1)
    assert abs(torque[2]) > 2.0
    bare = ArxBench(bench.profile.driver.parameters['model'], gravity_compensation=False)
    bare.ready()
    bare.control(0.3, POSE)
    assert abs(bare.pose()[1] - POSE[1]) > 2 * abs(bench.pose()[1] - POSE[1])


def test_gravity_torques_are_near_the_vendors():
    # What the vendor's binary puts on the wire of an L5 at this pose.
    model = GravityModel(arx_profile('L5').kinematics, links('L5'))
    np.testing.assert_allclose(model.torque(np.array([0.1, 0.2, 0.4, -0.25, -0.3, 0.7])),
                               (0, 1.28, 5.21, 1.32, -0.01, 0), atol=0.06)


def test_velocity_is_fed_forward_and_bounded(bench):
    bench.ready()
    bench.control(0.05, POSE)
    step = np.array([0.01, 0, 0, 0, 0, 0, 0])
    bench.backend.write(POSE + step, bench.now)
    assert bench.device.command(1).velocity == pytest.approx(2.0, abs=0.03)
    bench.backend.write(POSE - 5 * step, bench.now)
    assert bench.device.command(1).velocity == pytest.approx(-5.0, abs=0.03)


@pytest.mark.parametrize('bad', [np.full(7, np.nan), POSE[:6], POSE + 3.0])
def test_bad_set_points_are_refused_and_nothing_is_sent(bench, bad):
    bench.ready()
    bench.sent.clear()
    with pytest.raises(DriverError):
        bench.backend.write(bad, bench.now)
    assert not bench.sent


def test_writing_needs_enabling(bench):
    bench.backend.connect(bench.now)
    with pytest.raises(DriverError, match='not enabled'):
        bench.backend.write(POSE, bench.now)


@pytest.mark.parametrize('wide, turn', [(0.088, 5.03), (0.09, -3.4)])
def test_the_gripper_map_of_each_batch(wide, turn):
    bench = ArxBench('X5', gripper_width=wide, gripper_open=turn)
    bench.ready()
    goal = POSE.copy()
    goal[6] = 0.05
    for _ in range(300):
        measured = bench.control(0.005, goal)
    assert measured.position[6] == pytest.approx(0.05, abs=0.002)
    assert bench.plant.q[6] == pytest.approx(0.05 / wide * turn, abs=0.05)


@pytest.mark.parametrize('model', ['X5', 'L5'])
def test_the_joints_of_a_measurement_are_of_one_round(model):
    """Switching on, some motors answer once more: they must not be a period ahead ever after."""
    bench = ArxBench(model)
    for _ in range(2):
        bench.ready() if bench.backend._link is None else bench.enable()
        bench.plant.propped = False
        target, worst = bench.control(0.1, bench.pose()).position.copy(), 0.0
        for _ in range(40):
            target += 0.005 * np.array([1, 1, 1, 1, 1, 1, 0.05])       # 1 rad/s
            asked_at = bench.pose()
            measured = bench.control(0.005, target)
            worst = max(worst, float(np.abs(measured.position - asked_at)[:6].max()))
        assert np.abs(bench.plant.v[:6]).min() > 0.5 and worst < 1e-3
        bench.plant.propped = True
        bench.backend.disable()
        bench.control(0.1)


def test_a_bus_that_comes_back_within_a_round_blames_no_motor(bench):
    bench.ready()
    bench.control(0.1, POSE)
    bench.deaf = True
    bench.control(0.2, POSE)
    bench.deaf, bench.mute = False, {1, 2, 4}
    for _ in range(2):      # the second read finds the answers to the first write
        assert not bench.control(0.005, POSE).faults
    bench.mute = set()
    assert not bench.control(0.1, POSE).faults
    bench.mute = {2}
    assert not bench.control(0.09, POSE).faults
    (words,) = bench.control(0.03, POSE).faults
    assert words.startswith('joint2: its motor (id 2) is silent')


def test_a_round_that_is_not_answered_in_time_is_told(bench):
    bench.ready()
    bench.control(0.1, POSE)
    assert not any('sets of answers' in word for word in bench.control(0.1, POSE).status)
    bench.mute = {4}
    bench.control(0.02, POSE)
    bench.mute = set()
    assert any('sets of answers were not complete' in word
               for word in bench.control(0.05, POSE).status)


def test_a_pressing_gripper_is_not_closed_further(bench):
    bench.ready()
    bench.control(0.05, POSE)
    bench.backend._state.effort[6] = -1.0       # pressing shut
    goal = POSE.copy()
    goal[6] = 0.01
    bench.backend.write(goal, bench.now)
    assert bench.backend._target[6] == pytest.approx(0.03, abs=1e-3)
    goal[6] = 0.05
    bench.backend.write(goal, bench.now)
    assert bench.backend._target[6] == pytest.approx(0.05)


# -- faults

@pytest.mark.parametrize('can_id, fault, words', [
    (5, 'overheat', 'joint4: winding too hot'), (8, 'overcurrent', 'gripper: over-current'),
    (1, 'overheat', 'joint1: .*too hot')])
def test_motor_errors_become_words(bench, can_id, fault, words):
    bench.ready()
    bench.device.inject(fault, can_id)
    measured = bench.control(0.05, POSE)
    assert any(re.search(words, text) for text in measured.faults), measured.faults


def test_heat_is_told_before_the_motor_gives_up(bench):
    bench.ready()
    bench.backend._state.heat[3] = 75
    status = bench.backend._state.measurement(bench.now, True, (), (), ()).status
    assert 'joint4 is warm: 75 °C' in status
    bench.backend._state.heat[3] = 95
    assert any('joint4: 95 °C' in text for text in bench.backend._state.faults(bench.now))


def test_lasting_over_torque_is_a_fault_and_a_peak_is_not(bench):
    bench.ready()
    motor = bench.device.motors[6]
    frame = damiao.DmFeedback(8, 1, 0.0, 0.0, 2.0 / motor.type.answer, 30, 30)
    state = bench.backend._state
    stamp = bench.backend.read(bench.now).stamp_ns
    state.handle(frame, stamp, bench.now)
    assert not state.faults(bench.now)
    bench.now = bench.now + 45_000_000
    state.handle(frame, stamp, bench.now)
    assert any('gripper: 2.0 N·m, above its 1.5' in text for text in state.faults(bench.now))


def test_one_silent_motor_is_named_and_the_measurement_ages(bench):
    bench.ready()
    bench.control(0.05, POSE)
    bench.mute.add(5)
    measured = bench.control(0.2, POSE)
    assert any('joint4: its motor (id 5) is silent' in text for text in measured.faults)
    assert bench.now - measured.received > 150_000_000


def test_a_wrong_gripper_map_is_a_fault():
    bench = ArxBench('L5')
    bench.plant.q[6] = -1.0
    bench.backend.connect(bench.now)
    assert any('gripper: reads' in text and 'calibrate' in text
               for text in bench.control(0.02).faults)


def test_frames_of_another_host_are_reported(bench):
    bench.ready()
    bench.control(0.02, POSE)
    for frame in (DmMit(6, 0, 0, 0, 0, 0), DmRegister(6, RegisterOp.READ, 9)):
        bench.bus.push(*damiao.encode_command(frame))
    assert bench.control(0.005).foreign == (6, 0x7FF)
    if bench.device.motors[0].type.make == 'EC':
        bench.bus.push(*encos.encode_command(EcMit(2, 0, 0, 0, 0, 0)))
        assert bench.control(0.005).foreign == (2,)


def test_garbage_and_error_frames_are_counted_and_raise_nothing(bench):
    bench.ready()
    source = np.random.default_rng(5)
    for _ in range(2000):
        can_id = int(source.choice([0, *WIRE_ORDER, 9, 0x100]))
        bench.bus.push(can_id, source.bytes(int(source.integers(0, 8))))
    bench.bus.push_message(can.Message(is_error_frame=True, arbitration_id=0x40))
    faults: list[str] = []
    for _ in range(3):
        measured = bench.backend.read(bench.now)
        faults += measured.faults
    assert any('malformed' in text for text in measured.status)
    assert any('bus-off' in text for text in faults)


@pytest.mark.parametrize('loss, oldest_ms', [(0.01, 15), (0.05, 25), (0.2, 60)])
def test_lost_frames_are_ridden_through(loss, oldest_ms):
    bench = ArxBench('X5')
    bench.ready()
    bench.loss = loss
    age = 0
    for tick in range(600):
        target = POSE + 0.1 * np.sin(0.02 * tick) * np.array([1, 1, 1, 1, 1, 1, 0])
        measured = bench.control(0.005, target)
        assert not measured.faults and measured.powered
        age = max(age, bench.now - measured.received)
    assert age <= oldest_ms * 1_000_000
    near(bench.pose(), target, 0.06, 0.002)


def test_a_silent_bus_ages_and_comes_back(bench):
    bench.ready()
    bench.control(0.05, POSE)
    bench.deaf = True
    measured = bench.control(0.3, POSE)
    assert bench.now - measured.received > 250_000_000
    assert not measured.faults      # the age says it; no single motor is to blame
    bench.deaf = False
    measured = bench.control(0.02, POSE)
    assert bench.now - measured.received < 10_000_000 and not measured.faults


def test_duplicated_and_late_answers_do_no_harm(bench):
    bench.ready()
    bench.control(0.05, POSE)
    bench.advance(5 * STEP_NS)
    frames = list(bench.bus._pending)
    assert len(frames) == 7
    bench.bus._pending.extend(frames + frames[::-1])
    measured = bench.backend.read(bench.now)
    near(measured.position, bench.pose(), 0.02, 0.001)
    assert not measured.faults


def test_a_failing_interface_is_one_error_that_says_what_to_do(bench):
    bench.ready()

    def fail(*args, **kwargs):
        raise can.CanOperationError('Network is down')

    send, bench.bus.send = bench.bus.send, fail
    with pytest.raises(DriverError, match='cannot send: Network is down.*reconnect'):
        bench.backend.write(POSE, bench.now)
    bench.bus.send = send
    with pytest.raises(DriverError, match='not enabled'):
        bench.backend.write(POSE, bench.now)
    bench.control(0.01)
    assert not np.isfinite(bench.device.target()).any()
    bench.bus.recv = fail
    with pytest.raises(DriverError, match='the CAN bus failed'):
        bench.backend.read(bench.now)
    bench.backend.reconnect(bench.now)
    assert bench.enable()


# -- letting go

def test_closing_a_driven_arm_leaves_damping_in_every_motor(bench):
    bench.ready()
    bench.control(0.1, POSE)
    bench.backend.close()
    assert not np.isfinite(bench.device.target()).any()
    assert all(bench.device.command(can_id).kd > 0.1 for can_id in WIRE_ORDER)
    bench.backend.close()


def test_closing_an_arm_that_was_never_driven_sends_nothing(bench):
    bench.backend.connect(bench.now)
    bench.sent.clear()
    bench.backend.close()
    assert not bench.sent


def test_disable_lets_the_arm_down_and_then_takes_the_power(bench):
    bench.ready()
    bench.control(0.1, POSE)
    bench.backend.disable()
    bench.control(0.5)
    assert not np.isfinite(bench.device.target()).any()
    assert np.abs(bench.plant.v).max() < 3.0
    assert any(bench.device.enabled)
    assert bench.control(2.0).enabled == (False,) * 7
    with pytest.raises(DriverError, match='not enabled'):
        bench.backend.write(POSE, bench.now)


def test_disable_asks_until_every_motor_says_it_is_off(bench):
    bench.ready()
    bench.backend.disable()
    bench.control(1.95)
    bench.deaf = True
    bench.control(0.2)
    bench.deaf = False
    assert bench.control(0.05).enabled == (False,) * 7


def test_stop_damps_and_reset_clears(bench):
    bench.ready()
    bench.backend.stop_device()
    bench.control(0.05)
    assert not np.isfinite(bench.device.target()).any()
    bench.device.inject('overcurrent', 8)
    assert bench.control(0.05).faults
    bench.device.clear(8)
    bench.backend.reset_device()
    measured = bench.control(0.05)
    assert not measured.faults and not measured.powered


def test_reconnect_damps_and_the_arm_can_be_enabled_anew(bench):
    bench.ready()
    bench.control(0.1, POSE)
    bench.backend.reconnect(bench.now)
    assert not np.isfinite(bench.device.target()).any()
    assert bench.enable()


# -- the emulated arm's own rules

def test_motors_speak_only_when_spoken_to_and_obey_for_ever(bench):
    bench.ready()
    bench.control(0.1, POSE)
    bench.bus._pending.clear()
    bench.advance(500 * STEP_NS)
    assert not bench.bus._pending
    np.testing.assert_allclose(bench.device.target()[:6], POSE[:6], atol=1e-3)


def test_the_motors_watchdog_is_set_when_asked_for():
    bench = ArxBench('L5', motor_timeout=0.1)
    bench.ready()
    bench.control(0.1, POSE)
    assert all(bench.device.enabled)
    bench.advance(150 * STEP_NS)
    assert not any(bench.device.enabled)
    assert any('lost the host' in text for text in bench.control(0.02).faults)


def test_a_disabled_damiao_motor_follows_nothing():
    bench = ArxBench('L5')
    bench.backend.connect(bench.now)
    bench.device.handle(*damiao.encode_command(DmMit(7, 1.0, 0, 20, 0.5, 0)), bench.now)
    assert bench.plant.torque(5) == 0.0
