"""What the fault benchmark concludes from what it saw, and its codecs' fuzz, in small."""

from __future__ import annotations

import math

import pytest

from mivla_bringup.bench import faults
from mivla_bringup.bench.codec_fuzz import CODECS, fuzz
from mivla_bringup.bench.fault_cases import Age, Case, Expect, Signal, Wire, cases_of
from mivla_bringup.bench.fault_run import Outcome, measure
from mivla_bringup.bench.fault_watch import Applied, Said, Stated
from mivla_core.profile import available_profiles, load_profile
from mivla_drivers.sim.faults import MOTOR_FAULTS, WIRE_FAULTS
from mivla_msgs.msg import DriverState, JointCommand

PROFILE = load_profile('piper')
MS = 1_000_000
BEGUN = 1_700_000_000_000 * MS
POLICY, NONE = JointCommand.SOURCE_POLICY, JointCommand.SOURCE_NONE
SILENT = Case('bus silent', Wire('silent'), Expect.LATCH, 2.0, ('no feedback',), Age.FEEDBACK)
LOSS = Case('loss', Wire('loss', 0.05), Expect.RIDE, 2.0, ('incomplete',))
RUNNER = Case('runner', Signal('policy_runner', kill=True), Expect.LATCH, 3.0,
              ('no command',), Age.COMMAND)


def applied(until: int, end: int = 3000) -> list[Applied]:
    """Return set-points every 5 ms that follow the policy until ``until`` ms."""
    return [Applied(BEGUN + ms * MS, POLICY if ms < until else NONE, 0.2)
            for ms in range(-200, end, 5)]


def stated(ms: int, state: int, braking: bool = False, mode: int = 0) -> Stated:
    """Return a state published at ``ms``."""
    return Stated(BEGUN + ms * MS, BEGUN + ms * MS, state, braking, mode, 'why')


def outcome(case: Case, rows: list[Applied], states: list[Stated], said: list[Said],
            commands: tuple[int, ...] = ()) -> Outcome:
    """Return what is concluded."""
    found = Outcome(case, BEGUN, released=BEGUN + 3000 * MS)
    measure(found, PROFILE, rows, [BEGUN + ms * MS for ms in commands], states, said)
    return found


LATCHED = [stated(500, DriverState.FAULT, braking=True), stated(700, DriverState.FAULT)]
NAMED = [Said(BEGUN + 300 * MS, 'piper/driver: control', 'no feedback')]


def test_a_latch_in_time_is_what_it_should_be() -> None:
    found = outcome(SILENT, applied(100), LATCHED, NAMED)
    assert not found.problems and not found.unnamed and found.named == 'no feedback'
    assert found.latched == BEGUN + 700 * MS
    assert found.react == pytest.approx(0.1) and found.excess == pytest.approx(0.0)


def test_a_late_reaction_a_late_name_and_a_late_follower_are_found() -> None:
    late = [Said(BEGUN + 700 * MS, 'piper/driver: control', 'no feedback')]
    found = outcome(SILENT, applied(480), LATCHED, late)
    assert found.excess == pytest.approx(0.38) and found.unnamed
    rows = [*applied(100), Applied(BEGUN + 2500 * MS, POLICY, 0.2)]
    assert 'followed somebody' in outcome(SILENT, rows, LATCHED, NAMED).problems[0]


def test_what_did_not_latch_or_never_stood_is_found() -> None:
    assert outcome(SILENT, applied(3000), [], NAMED).problems == ['did not latch']
    assert 'never came to rest' in outcome(SILENT, applied(100), LATCHED[:1], NAMED).problems[0]


def test_riding_through_means_following_again_and_not_latching() -> None:
    said = [Said(BEGUN + 300 * MS, 'piper/driver: control', '3 incomplete joint sets')]
    assert not outcome(LOSS, applied(3000), [], said).problems
    assert 'latched' in outcome(LOSS, applied(3000), LATCHED, said).problems[0]
    assert 'does not follow' in outcome(LOSS, applied(100), [], said).problems[0]


def test_a_silent_source_is_detectable_from_its_last_command_on() -> None:
    said = [Said(BEGUN + 500 * MS, 'piper/driver: control', 'no command from policy')]
    found = outcome(RUNNER, applied(60), LATCHED, said, commands=(-5, 0, 5, 40))
    assert found.react == pytest.approx(0.020) and not found.unnamed


def test_a_driver_that_comes_back_must_not_go_on_by_itself() -> None:
    case = Case('driver killed', Signal('driver', kill=True), Expect.LATCH, 3.0, (), Age.HELD)
    good = [stated(2500, DriverState.DISABLED)]
    assert not outcome(case, applied(0, 0), good, []).problems
    bad = [stated(2500, DriverState.MOVING, mode=DriverState.MODE_POLICY)]
    assert 'by itself' in outcome(case, applied(0, 0), bad, []).problems[0]
    assert outcome(case, applied(0, 0), good, []).latched == BEGUN + 1000 * MS
    assert math.isnan(Age.HELD.seconds(PROFILE))


@pytest.mark.parametrize('robot', available_profiles())
def test_every_robot_has_cases_that_the_world_knows(robot: str) -> None:
    cases = cases_of(load_profile(robot))
    names = [case.name for case in cases]
    assert len(set(names)) == len(names) > 15
    for case in cases:
        assert case.named or case.why, f'{case.name}: unnamed without a reason'
        if isinstance(case.act, Wire):
            assert case.act.fault in WIRE_FAULTS or case.act.fault in MOTOR_FAULTS


def test_no_codec_fails_on_bytes() -> None:
    assert fuzz(5000, seed=7) == dict.fromkeys(CODECS, 0)


def test_the_fuzz_counts_what_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(chance: object) -> None:
        raise IndexError('as a careless codec would')

    monkeypatch.setitem(CODECS, 'piper', lambda: broken)
    assert fuzz(10)['piper'] == 10


def test_what_is_said_already_is_named_until_something_else_is_said() -> None:
    old = [Said(BEGUN - 400 * MS, 'piper/driver: control', 'no feedback')]
    assert not outcome(SILENT, applied(100), LATCHED, old).unnamed
    other = [*old, Said(BEGUN + 100 * MS, 'piper/driver: control', '')]
    assert outcome(SILENT, applied(100), LATCHED, other).unnamed
    assert not outcome(SILENT, applied(100), LATCHED,
                       [*old, Said(BEGUN + 100 * MS, 'piper/runner', '')]).unnamed


def test_a_case_in_which_the_machine_stood_still_is_run_again(
        monkeypatch: pytest.MonkeyPatch) -> None:
    class Machine:
        said = iter((0.0, 0.2, 0.0, 0.01))

        def worst(self) -> float:
            return next(self.said)

    runs = []
    monkeypatch.setattr(faults, '_one', lambda *words: runs.append(words) or Outcome(LOSS, BEGUN))
    monkeypatch.setattr(faults, '_recovered', lambda *words: '')
    outcomes: list[Outcome] = []
    why = faults._judgeable(None, LOSS, None, PROFILE, Machine(), outcomes)  # type: ignore[arg-type]
    assert not why and len(runs) == 2 and len(outcomes) == 1
    assert (outcomes[0].stood, outcomes[0].again) == (0.01, 1)
