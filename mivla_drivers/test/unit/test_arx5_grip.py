"""A gripper that presses is not driven further, and does not strike when the press gives way."""

from __future__ import annotations

import numpy as np
import pytest
from arx_rig import POSE, ArxBench, GravityPlant
from hypothesis import given
from hypothesis import strategies as st

from mivla_drivers.backends.arx5_grip import GRIP_TORQUE, Grip
from mivla_drivers.core.arx_units import GripperMap
from mivla_drivers.devices.arx5_device import EmulatedArx

STEP = 0.0002      # m in one set-point at 0.05 m/s and 250 Hz


@pytest.fixture
def grip() -> Grip:
    return Grip(0.004, 0.05)


@pytest.mark.parametrize('side', [-1.0, 1.0])
def test_while_it_presses_it_goes_no_further_but_back_at_once(grip: Grip, side: float) -> None:
    assert grip.limit(0.04 + side * 0.01, 0.04, side * 0.8) == 0.04
    assert grip.limit(0.04 - side * 0.01, 0.04, side * 0.8) == 0.04 - side * 0.01


@pytest.mark.parametrize('side', [-1.0, 1.0])
def test_what_was_kept_back_is_made_good_slowly(grip: Grip, side: float) -> None:
    sent = grip.limit(0.04 + side * 0.001, 0.04, side * 0.8)
    way = []
    for _ in range(8):
        sent = grip.limit(0.04 + side * 0.001, sent, side * 0.5)
        way.append(round((sent - 0.04) * side, 9))
    assert way == [0.0002, 0.0004, 0.0006, 0.0008, 0.001, 0.001, 0.001, 0.001]
    # Then as fast as it is told.
    assert grip.limit(0.04 + side * 0.0025, sent, side * 0.5) == 0.04 + side * 0.0025


def test_letting_go_is_never_slowed_down(grip: Grip) -> None:
    sent = grip.limit(0.0, 0.04, -0.8)
    assert grip.limit(0.0412, sent, -0.7) == 0.0412
    assert grip.limit(0.0, 0.0412, 0.0) == 0.0       # nothing is owed any more


def test_new_torque_owes_nothing(grip: Grip) -> None:
    grip.limit(0.0, 0.04, -0.8)
    grip.forget()
    assert grip.limit(0.01, 0.04, 0.0) == 0.01


@given(st.lists(st.tuples(st.floats(0.0, 0.088), st.floats(-4.0, 4.0)), max_size=40))
def test_it_sends_the_last_or_the_wanted_or_between(ticks: list[tuple[float, float]]) -> None:
    grip, sent = Grip(0.004, 0.05), 0.04
    for wanted, press in ticks:
        out = grip.limit(wanted, sent, press)
        assert min(sent, wanted) - 1e-12 <= out <= max(sent, wanted) + 1e-12
        if abs(press) > GRIP_TORQUE and (wanted - sent) * press > 0.0:
            assert out == sent
        sent = out


class HeldPlant(GravityPlant):
    """Between the fingers is something that gives way a little, all the time."""

    def __init__(self, turns: GripperMap) -> None:
        super().__init__('X5', turns=turns)
        self.wall = turns.to_motor(0.025)

    def step(self, dt: float) -> None:
        super().step(dt)
        if not self.propped:
            self.wall -= np.sign(self.wall) * 0.05 * dt
            if abs(self.q[6]) < abs(self.wall):
                self.q[6], self.v[6] = self.wall, 0.0


@pytest.mark.parametrize('turn', [5.03, -3.4])
def test_squeezing_what_gives_way_slowly_never_ends_in_over_torque(turn: float) -> None:
    """In one leap to where the commands had gone it once did."""
    bench = ArxBench('X5', gripper_open=turn)
    bench.plant = HeldPlant(GripperMap(open_readout=turn))
    bench.device = EmulatedArx(bench.plant, 'X5')
    bench.ready()
    goal, hardest = POSE.copy(), 0.0
    for tick in range(800):
        goal[6] = max(0.0, POSE[6] - 0.1 * 0.005 * tick)
        measured = bench.control(0.005, goal)
        assert not measured.faults
        hardest = max(hardest, abs(float(measured.effort[6])))
    assert GRIP_TORQUE < hardest < 1.5
    assert measured.position[6] < 0.0245      # it went on pressing as that gave way
