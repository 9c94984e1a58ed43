"""
The vendor's own SDK, and our backend, against an emulated arm in another process.

Real time and a real bus, so every wait is bounded and no assertion is about timing.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from piper_rig import POSE

from mivla_core.profile import load_profile
from mivla_core.timing import monotonic_now
from mivla_drivers.backends.piper import PiperBackend
from mivla_drivers.can.loopback import register_interface

piper_sdk = pytest.importorskip('piper_sdk')

CHANNEL = f'sdk{os.getpid()}'
FIRMWARE = 'S-V1.7-4'


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(30_000 + os.getpid() % 10_000))
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), *sys.path])
    child = subprocess.Popen(
        [sys.executable, str(here / 'piper_process.py'), CHANNEL, FIRMWARE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': path})
    try:
        assert child.stdout is not None and child.stdout.readline().strip() == 'ready'
        yield
    finally:
        _, _ = child.communicate(timeout=5.0)
    assert child.returncode == 0


def until(met: Callable[[], Any], what: str, act: Callable[[], Any] | None = None,
          timeout: float = 8.0) -> None:
    """Wait for ``met``, calling ``act`` every 50 ms."""
    deadline = time.monotonic() + timeout
    while not met():
        assert time.monotonic() < deadline, f'no {what} within {timeout} s'
        if act is not None:
            act()
        time.sleep(0.05)


@pytest.fixture
def sdk(arm: None) -> Iterator[Any]:
    register_interface()
    interface = piper_sdk.C_PiperInterface_V2(CHANNEL, judge_flag=False, can_auto_init=False)
    with pytest.warns(DeprecationWarning, match='bustype'):
        interface.CreateCanBus(CHANNEL, 'mivla_loopback')
    interface.ConnectPort()
    yield interface
    interface.DisconnectPort()


def joints(sdk: Any) -> np.ndarray:
    state = sdk.GetArmJointMsgs().joint_state
    return np.radians([getattr(state, f'joint_{i}') * 1e-3 for i in range(1, 7)])


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_the_vendors_sdk_drives_the_device(sdk: Any) -> None:
    until(lambda: abs(joints(sdk)[0] - POSE[0]) < 1e-4, 'joint feedback')
    until(lambda: sdk.GetPiperFirmwareVersion() == FIRMWARE, 'firmware',
          sdk.SearchPiperFirmwareVersion)
    until(sdk.isOk, 'steady frame rate')

    def limit() -> tuple[int, ...]:
        # The SDK's table of all motors aliases one message, so ask for a single motor.
        motor = sdk.GetCurrentMotorAngleLimitMaxVel().current_motor_angle_limit_max_vel
        return motor.motor_num, motor.max_angle_limit, motor.min_angle_limit, motor.max_joint_spd

    until(lambda: limit() == (2, 1800, 0, 3000), 'limits',
          lambda: sdk.SearchMotorMaxAngleSpdAccLimit(2, 1))

    assert not any(sdk.GetArmEnableStatus())
    until(lambda: all(sdk.GetArmEnableStatus()), 'enable', sdk.EnablePiper)
    until(lambda: int(sdk.GetArmStatus().arm_status.ctrl_mode) == 1, 'CAN mode',
          lambda: sdk.ModeCtrl(0x01, 0x01, 100, 0x00))
    goal = [300, 45_000, -50_000, 10_000, 20_000, -15_000]      # 0.001 degree
    until(lambda: np.abs(np.degrees(joints(sdk)) - np.array(goal) * 1e-3).max() < 0.1,
          'arrival', lambda: sdk.JointCtrl(*goal))
    sdk.GripperCtrl(60_000, 1000, 0x01, 0)
    until(lambda: abs(sdk.GetArmGripperMsgs().gripper_state.grippers_angle - 60_000) < 100,
          'gripper', lambda: sdk.GripperCtrl(60_000, 1000, 0x01, 0))

    pose = sdk.GetArmEndPoseMsgs().end_pose
    fk = piper_sdk.C_PiperForwardKinematics(0x01).CalFK(list(joints(sdk)))[-1]
    assert [pose.X_axis * 1e-3, pose.Y_axis * 1e-3, pose.Z_axis * 1e-3] == pytest.approx(
        fk[:3], abs=1.0)

    over = [*goal[:4], 71_000, goal[5]]
    until(lambda: int(sdk.GetArmStatus().arm_status.arm_status) == 4, 'refusal of a target',
          lambda: sdk.JointCtrl(*over))
    until(lambda: int(sdk.GetArmStatus().arm_status.arm_status) == 0, 'recovery',
          lambda: sdk.JointCtrl(*goal))
    sdk.EmergencyStop(0x01)
    until(lambda: int(sdk.GetArmStatus().arm_status.arm_status) == 1, 'emergency stop')
    sdk.ResetPiper()
    until(lambda: not any(sdk.GetArmEnableStatus()), 'power off')
    until(lambda: all(sdk.GetArmEnableStatus()), 'second enable', sdk.EnablePiper)


def test_the_backend_drives_the_device_in_real_time(arm: None) -> None:
    backend = PiperBackend(load_profile('piper'), 'mivla_loopback', CHANNEL, {})
    info = backend.connect(monotonic_now())
    try:
        assert info.firmware == FIRMWARE
        state = {'position': np.full(7, np.nan), 'on': False}

        def enable() -> None:
            state['position'] = backend.read(monotonic_now()).position
            state['on'] = backend.enable(monotonic_now())

        until(lambda: state['on'], 'enable', enable)
        # The bench plant sags until it is enabled.
        goal = np.array(state['position'])
        goal[0] += 0.4
        goal[6] = 0.05

        def write() -> None:
            measurement = backend.read(monotonic_now())
            assert measurement.foreign == () and measurement.faults == ()
            assert measurement.powered
            state['position'] = measurement.position
            backend.write(goal, monotonic_now())

        until(lambda: np.abs(state['position'] - goal).max() < math.radians(0.1), 'arrival',
              write)
    finally:
        backend.close()
