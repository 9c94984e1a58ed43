"""What happens when a process is killed: the arm holds, the rest goes on or goes down in order."""

import os
import signal
import time

import pytest

from mivla_bringup.bench.fault_acts import node_pid
from mivla_bringup.errors import BringupError
from mivla_bringup.rig import StackDied, with_stack
from mivla_bringup.task_episodes import bring_up
from mivla_msgs.msg import DriverState

pytestmark = pytest.mark.timeout(240)


def test_killed_sources_leave_the_arm_holding_and_come_back(stack):
    seen = {}

    def job(rig):
        bring_up(rig, print)
        rig.wait('policy/status', lambda m: True, 30.0, 'the runner')
        rig.client.set_mode('policy')
        rig.wait('policy/status', lambda m: m.chunks > 0, 10.0, 'chunks')
        first = node_pid('policy_runner')
        os.kill(first, signal.SIGKILL)
        latched = rig.client.wait_state(lambda s: s.state == DriverState.STOPPED, 5.0, 'STOPPED')
        seen['powered'], seen['detail'] = latched.powered, latched.detail
        deadline = time.monotonic() + 30.0
        while pid_or_none('policy_runner') in (None, first):
            assert time.monotonic() < deadline, 'the runner was not respawned'
            rig.pause(0.2)
        rig.client.reset()
        state = rig.client.wait_state(lambda s: s.state == DriverState.HOLDING, 3.0, 'HOLDING')
        seen['after'] = state.mode
        # The driver itself: it comes back without moving or dropping the arm, and says so.
        driver = node_pid('driver')
        os.kill(driver, signal.SIGKILL)
        rig.pause(0.5)
        back = rig.client.wait_state(lambda s: s.detail != 'x' and pid_or_none(
            'driver') not in (None, driver), 30.0, 'a new driver')
        rig.pause(1.0)
        back = rig.client.state
        seen['driver'] = (back.state, back.mode)
        seen['said'], seen['held'] = back.detail, back.powered
        # Enable takes the arm over where it is; then it is parked and let go without force.
        rig.client.enable()
        rig.client.rest()
        rig.client.disable()
        off = rig.client.wait_state(lambda s: not s.powered, 3.0, 'torque off')
        seen['off'] = (off.state, off.detail)

    def pid_or_none(name):
        try:
            return node_pid(name)
        except BringupError:
            return None

    _, outcome = with_stack(stack(), job)
    assert outcome.exit_code == 0, outcome
    assert seen['powered']
    assert seen['after'] == DriverState.MODE_IDLE
    assert seen['driver'] == (DriverState.DISABLED, DriverState.MODE_IDLE)
    assert seen['held'] and 'motors are powered, the arm holds' in seen['said']
    assert seen['off'] == (DriverState.DISABLED, '')


def test_the_death_of_the_world_takes_the_stack_down_and_says_so(stack):
    def job(rig):
        bring_up(rig, print)
        os.kill(node_pid('world'), signal.SIGKILL)
        rig.pause(30.0)

    with pytest.raises(StackDied, match='world'):
        with_stack(stack(policy='', record=True), job)
