"""Properties of select and guard: only safe set-points go out, and the valid ones do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from driver_rig import PROFILE, TICK_NS, Rig
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mivla_core.kinematics import Chain
from mivla_core.timing import StampNs
from mivla_drivers.core.machine import Mode, State
from mivla_drivers.core.setpoint import Source

DT = TICK_NS * 1e-9
CHAIN = Chain(PROFILE.kinematics)
LOWER, UPPER, SPAN = PROFILE.lower, PROFILE.upper, PROFILE.upper - PROFILE.lower


def examples(count: int) -> settings:
    """
    Return settings for a busy machine: no deadline, no database, the same examples every time.

    A failure is not shrunk, which would take minutes; add Phase.shrink to study one.
    """
    return settings(max_examples=count, deadline=None, database=None, derandomize=True,
                    phases=(Phase.explicit, Phase.generate),
                    suppress_health_check=list(HealthCheck))



share = st.floats(0.0, 1.0)
pose = st.tuples(*[share] * 7).map(lambda s: LOWER + np.array(s) * SPAN)
wild = st.tuples(*[st.floats(-0.3, 1.3)] * 7).map(lambda s: LOWER + np.array(s) * SPAN)
rates = st.tuples(*[st.floats(-6.0, 6.0)] * 7).map(np.array)
garbage = st.lists(st.one_of(st.floats(), st.floats(-1e308, 1e308)), min_size=0, max_size=9)


def jump(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Stream one far target, velocity and all."""
    for _ in range(ticks):
        rig.submit(rig.command(q, v))
        rig.tick()


def jump_plain(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Stream one far target without velocity."""
    for _ in range(ticks):
        rig.submit(rig.command(q))
        rig.tick()


def swing(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Stream a fast oscillation about a pose, with its velocity, jumping there."""
    for k in range(ticks):
        w = 2.0 * math.pi * (k / 40.0)
        rig.submit(rig.command(q + 0.2 * v * math.sin(w), 0.2 * v * math.cos(w) * 31.4))
        rig.tick()


def noise(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Stream another pose every tick."""
    for k in range(ticks):
        rig.submit(rig.command(q + 0.5 * v * math.cos(37.0 * k * k), v))
        rig.tick()


def rush(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Accelerate from where the arm is, at up to the limit, until something says no."""
    start = np.array(rig.controller._guard.position)
    acceleration = np.clip(v / 4.0, -1.0, 1.0) * PROFILE.acceleration
    for k in range(2 * ticks):
        t = k * DT
        goal = start + 0.5 * acceleration * t * t
        rig.submit(rig.command(np.clip(goal, LOWER - 0.04 * SPAN, UPPER + 0.04 * SPAN),
                               acceleration * t))
        rig.tick()


def cross(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Go straight to a pose as fast as the joints can, whatever lies between."""
    start = np.array(rig.controller._guard.position)
    q = np.clip(q, LOWER, UPPER)
    need = np.maximum(1.875 * np.abs(q - start) / PROFILE.velocity,
                      np.sqrt(5.8 * np.abs(q - start) / PROFILE.acceleration))
    steps = math.ceil(need.max() / DT) + 2
    for k in range(steps):
        s = k / steps
        rig.submit(rig.command(start + (q - start) * s**3 * (10 - 15 * s + 6 * s * s),
                               (q - start) * 30 * (s * (1 - s))**2 / (steps * DT)))
        rig.tick()


def silence(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Send nothing."""
    rig.tick(ticks)


def stall(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Let the loop stand for a while in mid-stream, then stream on."""
    jump(rig, 10, q, v)
    rig.advance(ticks * TICK_NS)
    jump(rig, 10, q, v)


def late_ticks(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Miss every third tick."""
    for k in range(ticks):
        rig.submit(rig.command(q, v))
        rig.tick(1, TICK_NS * (1 + (k % 3 == 0)))


def stop(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Stop, and try to go on without resuming."""
    rig.controller.request_stop('property')
    jump(rig, ticks, q, v)


def resume(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Resume, engage and stream."""
    rig.controller.reset()
    rig.controller.set_mode(Mode.POLICY)
    rig.tick()
    jump(rig, ticks, q, v)


def home(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Go home in the middle of anything, and engage again in the middle of that."""
    rig.controller.home()
    jump(rig, ticks, q, v)
    rig.controller.set_mode(Mode.POLICY)
    rig.tick()


def takeover(rig: Rig, ticks: int, q: np.ndarray, v: np.ndarray) -> None:
    """Two sources at once, and a change between them."""
    for k in range(ticks):
        if k == ticks // 2:
            rig.controller.set_mode(Mode.TELEOP)
        rig.submit(rig.command(q, v))
        rig.submit(rig.command(PROFILE.home, source=Source.TELEOP))
        rig.tick()
    rig.controller.set_mode(Mode.POLICY)
    rig.tick()


SEGMENTS = (rush, rush, cross, cross, jump, jump_plain, swing, noise, silence, stall, late_ticks,
            stop, resume, home, takeover)
segment = st.tuples(st.sampled_from(SEGMENTS), st.integers(1, 60), st.one_of(pose, wild), rates)


def check_applied(rig: Rig) -> None:
    """Every set-point that was sent: limits, and every sphere above the table and in the box."""
    intervals, path = [], []
    for a, b in zip([None, *rig.results], rig.results):
        if b.setpoint is not None:
            path.append(b.setpoint.position)
            intervals.append((b.stamp - a.stamp) * 1e-9 if a is not None else DT)
    q = np.array(path)
    assert (q >= LOWER).all() and (q <= UPPER).all()
    step = np.diff(q, axis=0)
    # A stalled loop counts as one period: the device stood still in between.
    dt = np.array([t if t <= 4.5 * DT else DT for t in intervals[1:]])[:, None]
    v = step / dt
    assert (np.abs(v) <= PROFILE.velocity * (1 + 1e-6) + 1e-9).all()
    rest_before = np.array([t > 4.5 * DT for t in intervals[2:]])
    change = v[1:] - np.where(rest_before[:, None], 0.0, v[:-1])
    top = np.maximum(PROFILE.acceleration, PROFILE.deceleration)
    assert (np.abs(change) <= top * np.maximum(dt[1:], dt[:-1]) * (1 + 1e-6) + 1e-9).all()
    check_clear(q)


def check_clear(q: np.ndarray) -> None:
    """Table, box and self-collision of all spheres by the other implementation."""
    space = PROFILE.workspace
    for pose_ in q[::3]:
        frames = CHAIN.frames(pose_)
        centres = [frames[p.frame][:3, :3] @ p.offset + frames[p.frame][:3, 3]
                   for p in space.points]
        for point, centre in zip(space.points, centres):
            if point.frame:
                assert centre[2] - point.radius >= space.table_z
                assert (centre - point.radius >= space.box_lower).all()
                assert (centre + point.radius <= space.box_upper).all()
        for i, j in space.self_pairs:
            apart = np.linalg.norm(centres[i] - centres[j])
            assert apart >= space.points[i].radius + space.points[j].radius


def check_braking_ends(rig: Rig) -> None:
    """Whatever happened: a stop ends at rest, within the time that the limits allow."""
    rig.controller.request_stop('end of the property')
    rig.tick(2 + math.ceil(max(PROFILE.velocity / PROFILE.deceleration) / DT))
    assert rig.controller.standing
    end = rig.results[-1].setpoint.position
    rig.tick(5)
    assert rig.results[-1].setpoint.position == end


@examples(70)
@given(st.lists(segment, min_size=1, max_size=7))
def test_nothing_unsafe_goes_out_whatever_comes_in(segments: list[tuple]) -> None:
    rig = Rig().engaged()
    for play, ticks, q, v in segments:
        if rig.controller.state is State.STOPPED and play is not stop:
            resume(rig, 1, q, v)
        play(rig, ticks, q, v)
    check_braking_ends(rig)
    check_applied(rig)


@examples(60)
@given(garbage, garbage,
       st.lists(st.sampled_from([*PROFILE.joint_names, 'elbow', '']), max_size=9),
       st.integers(-10**12, 10**12), st.sampled_from(list(Source)), st.booleans(), st.booleans())
def test_a_malformed_command_moves_nothing(position: list[float], velocity: list[float],
                                           names: list[str], lead_ns: int, source: Source,
                                           named: bool, hashed: bool) -> None:
    """Whatever its fields hold: refused, or inside the limits and safe."""
    rig = Rig().engaged()
    command = rig.command(PROFILE.home)
    command = replace(
        command, position=tuple(position), velocity=tuple(velocity), source=source,
        stamp=StampNs(max(0, rig.stamp + lead_ns)),
        names=PROFILE.joint_names if named else tuple(names),
        profile_hash=PROFILE.hash if hashed else 'other')
    refusal = rig.controller.submit(command, rig.now, rig.stamp)
    rig.tick(30)
    if refusal is not None:
        assert rig.count(refusal.value) == 1
        assert {tuple(q) for q in rig.arm.written} == {tuple(PROFILE.home)}
    check_braking_ends(rig)
    check_applied(rig)


@examples(30)
@given(pose, rates, st.integers(1, 40))
def test_a_stale_source_moves_nothing(q: np.ndarray, v: np.ndarray, ticks: int) -> None:
    """No set-point follows a command older than the ride-through age; then the arm stands."""
    rig = Rig().engaged()
    jump(rig, ticks, q, v)
    last = rig.now
    rig.tick(90)
    ride_ns = round(PROFILE.ride_through * 1e9)
    for k, result in enumerate(rig.results[-90:]):
        if last + (k + 1) * TICK_NS - (last - TICK_NS) > ride_ns:
            assert result.setpoint.source is Source.NONE and result.state is not State.MOVING
    # The command arrived one tick before its due instant.
    brake_s = max(PROFILE.velocity / PROFILE.deceleration)
    rig.tick(math.ceil(brake_s / DT))
    assert rig.controller.standing
    assert rig.controller.state is State.STOPPED or ticks == 0


class Wave:
    """A valid stream: a sum of slow oscillations about the home pose, inside every limit."""

    def __init__(self, phases: tuple[float, ...], speed: float) -> None:
        self.phases = np.array(phases)
        self.size = np.array([0.25, 0.15, 0.15, 0.2, 0.2, 0.3, 0.01])
        self.middle = PROFILE.home + [0, 0.1, -0.1, 0, 0, 0, 0.03]
        self.w = speed

    def at(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return position and velocity at ``t`` seconds."""
        angle = self.w * t + self.phases
        return self.middle + self.size * np.sin(angle), self.size * self.w * np.cos(angle)


waves = st.builds(Wave, st.tuples(*[st.floats(0.0, 6.28)] * 7), st.floats(0.5, 3.0))


def flow(rig: Rig, wave: Wave, ticks: int, plain: bool = False) -> None:
    """Stream a wave in step with the ticks."""
    for _ in range(ticks):
        q, v = wave.at((rig.stamp + TICK_NS) * 1e-9 % 1000.0)
        rig.submit(rig.command(q, None if plain else v))
        rig.tick()


@examples(25)
@given(waves, st.booleans())
def test_a_fresh_valid_stream_passes_unchanged(wave: Wave, plain: bool) -> None:
    """After the ramp, with velocities or without: within 1e-9, for as long as it lasts."""
    rig = Rig().engaged()
    flow(rig, wave, 500, plain)
    assert rig.results[-1].verdict.value == 'passed', rig.results[-1].verdict
    for _ in range(200):
        q, v = wave.at((rig.stamp + TICK_NS) * 1e-9 % 1000.0)
        result = rig.send(q, None if plain else v)
        assert np.abs(np.array(result.setpoint.position) - q).max() <= 1e-9
        assert result.verdict.value == 'passed' and not result.ramping
    check_applied(rig)


@examples(20)
@given(waves, st.integers(0, TICK_NS - 1), st.lists(st.integers(0, 4_000_000), min_size=50,
                                                    max_size=50))
def test_arrival_jitter_does_not_become_acceleration(wave: Wave, phase: int,
                                                     delays: list[int]) -> None:
    """Commands of a 200 Hz stream that arrive up to 4 ms late leave the path where it was."""
    rig = Rig().engaged()
    pending: list[tuple[int, StampNs]] = []
    for k in range(700):
        due = StampNs(rig.stamp + phase)
        pending.append((due + delays[k % 50], due))
        for item in list(pending):
            arrival, stamp = item
            if arrival <= rig.stamp + TICK_NS:
                pending.remove(item)
                q, v = wave.at(stamp * 1e-9 % 1000.0)
                command = replace(rig.command(q, v), stamp=stamp)
                rig.controller.submit(command, rig.now, StampNs(arrival))
        result = rig.tick()
        if k >= 500:
            assert result.verdict.value == 'passed', rig.controller.report(rig.now).reason
            ideal = wave.at(rig.stamp * 1e-9 % 1000.0)[0]
            assert np.abs(np.array(result.setpoint.position) - ideal).max() < 1e-3
    check_applied(rig)


def gap(rig: Rig) -> None:
    rig.tick(60)


def long_gap(rig: Rig) -> None:
    rig.tick(150)
    assert rig.controller.state is State.STOPPED


def loop_stall(rig: Rig) -> None:
    rig.advance(80_000_000)
    rig.tick()
    assert rig.count('stall') == 1


def not_finite(rig: Rig) -> None:
    for _ in range(40):
        rig.submit(rig.command([math.nan] * 7))
        rig.tick()
    assert rig.count('not_finite') == 40


def second_publisher(rig: Rig) -> None:
    for _ in range(40):
        rig.submit(replace(rig.command(PROFILE.home), publisher=b'two'))
        rig.tick()
    assert rig.count('second_publisher') == 40


def under_the_table(rig: Rig) -> None:
    for _ in range(200):
        rig.send([0.0, 2.6, -0.6, 0.0, 0.6, 0.0, 0.0])
    assert rig.controller.state is State.HOLDING and rig.count('below_table') > 0


def stopped(rig: Rig) -> None:
    rig.controller.request_stop('test')
    rig.tick(150)


def overheated(rig: Rig) -> None:
    rig.arm.faults = ('overheated',)
    rig.tick(150)
    rig.arm.faults = ()


def foreign(rig: Rig) -> None:
    rig.arm.foreign = (0x151, 0x155)
    rig.tick(5)
    rig.arm.foreign = ()
    rig.tick(150)


def unplugged(rig: Rig) -> None:
    rig.arm.down = True
    rig.tick(50)
    rig.arm.down = False


def silent(rig: Rig) -> None:
    rig.arm.silent = True
    rig.tick(150)
    assert rig.controller.state is State.FAULT
    rig.arm.silent = False


def torque_lost(rig: Rig) -> None:
    rig.arm.powered = False
    rig.tick(20)


def pushed_away(rig: Rig) -> None:
    rig.arm.stuck = True
    rig.arm.position = rig.arm.position + [0.5, 0, 0, 0, 0, 0, 0]
    rig.tick(150)
    assert rig.controller.state in (State.FAULT, State.STOPPED)
    rig.arm.stuck = False


def operator_resumes(rig: Rig) -> None:
    """What a person does: reset where latched, enable where torque is off, engage."""
    if rig.controller.state in (State.STOPPED, State.FAULT):
        request = rig.ask(rig.controller.reset())
        assert request.ok, request.message
    if rig.controller.state is State.DISABLED:
        request = rig.controller.enable()
        rig.tick(3)
        assert request.ok, request.message
    if rig.controller.mode is not Mode.POLICY:
        request = rig.ask(rig.controller.set_mode(Mode.POLICY))
        assert request.ok, request.message


FAULTS = (gap, long_gap, loop_stall, not_finite, second_publisher, under_the_table, stopped,
          overheated, foreign, unplugged, silent, torque_lost, pushed_away)


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.__name__)
def test_flow_returns_after_every_recoverable_fault(fault) -> None:
    wave = Wave((0.0,) * 7, 2.0)
    rig = Rig().engaged()
    flow(rig, wave, 400)
    assert rig.results[-1].verdict.value == 'passed'
    fault(rig)
    moved = len(rig.arm.written)
    operator_resumes(rig)
    flow(rig, wave, 600)
    assert rig.results[-1].verdict.value == 'passed', (rig.results[-1], rig.controller.detail)
    assert rig.controller.state is State.MOVING and len(rig.arm.written) > moved
    q, _ = wave.at(rig.stamp * 1e-9 % 1000.0)
    assert np.abs(rig.arm.position - q).max() <= 1e-9


@examples(10)
@given(st.permutations(FAULTS), waves)
def test_flow_returns_after_faults_in_any_order(faults: list, wave: Wave) -> None:
    rig = Rig().engaged()
    flow(rig, wave, 100)
    for fault in faults[:3]:
        fault(rig)
        operator_resumes(rig)
        flow(rig, wave, 600)
        assert rig.results[-1].verdict.value == 'passed', (fault, rig.controller.detail)
