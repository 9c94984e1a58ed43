"""One run of a policy: every way in and out, with time passed in."""

import pytest

from mivla_core.timing import NowNs
from mivla_policy.core.session import Do, DriverView, Outcome, Phase, Session, SessionLimits

S = 1_000_000_000
T0 = NowNs(100 * S)
IDLE = DriverView(True, False, 'HOLDING in mode idle')
POLICY = DriverView(True, True, 'HOLDING in mode policy')
STOPPED = DriverView(False, True, 'STOPPED in mode policy: pedal')
TAKEN = DriverView(True, False, 'MOVING in mode teleop')


def running() -> Session:
    session = Session(SessionLimits())
    session.driver(IDLE, T0)
    assert session.begin(T0, 60 * S) is Do.ASK_POLICY
    assert session.mode_answer(Do.ASK_POLICY, True, '', T0) is Do.NOTHING
    assert not session.running
    assert session.driver(POLICY, T0) is Do.NOTHING
    assert session.running
    return session


def test_the_state_may_come_before_the_answer() -> None:
    session = Session(SessionLimits())
    session.begin(T0, S)
    session.driver(POLICY, T0)
    assert not session.running
    session.mode_answer(Do.ASK_POLICY, True, '', T0)
    assert session.running


def test_done_when_the_time_is_over_and_gives_the_robot_back() -> None:
    session = running()
    session.fed(T0 + 59 * S)
    session.driver(POLICY, T0 + 59 * S)
    assert session.tick(T0 + 60 * S - 1, '') is Do.NOTHING
    assert session.tick(T0 + 60 * S, '') is Do.ASK_IDLE
    assert session.phase is Phase.LEAVING and not session.running
    assert session.mode_answer(Do.ASK_IDLE, True, '', T0 + 60 * S) is Do.FINISH
    assert (session.phase, session.outcome) == (Phase.IDLE, Outcome.DONE)


def test_refused_by_the_driver() -> None:
    session = Session(SessionLimits())
    session.begin(T0, S)
    assert session.mode_answer(Do.ASK_POLICY, False, 'DISABLED: enable first', T0) is Do.FINISH
    assert session.outcome is Outcome.FAILED and 'enable first' in session.message


def test_driver_that_does_not_answer() -> None:
    session = Session(SessionLimits())
    session.begin(T0, 60 * S)
    assert session.tick(T0 + 3 * S, '') is Do.NOTHING
    assert session.tick(T0 + 3 * S + 1, '') is Do.ASK_IDLE
    assert session.tick(T0 + 6 * S + 2, '') is Do.FINISH
    assert session.outcome is Outcome.FAILED
    assert 'did not answer within 3.0 s' in session.message


@pytest.mark.parametrize('view, todo', [(STOPPED, Do.ASK_IDLE), (TAKEN, Do.FINISH)])
def test_driver_stopped_or_taken_over(view: DriverView, todo: Do) -> None:
    """A takeover is not undone: idle is asked for only while the mode is still policy."""
    session = running()
    assert session.driver(view, T0 + S) is todo
    assert not session.running
    assert session.outcome is Outcome.STOPPED and view.words in session.message


def test_cancel_while_running_and_while_entering() -> None:
    session = running()
    assert session.cancel('cancelled', T0 + S) is Do.ASK_IDLE
    assert session.cancel('again', T0 + S) is Do.NOTHING
    assert session.outcome is Outcome.CANCELLED and session.message == 'cancelled'
    entering = Session(SessionLimits())
    entering.begin(T0, S)
    assert entering.cancel('cancelled', T0) is Do.ASK_IDLE
    # The answer to the first question is no answer to the second.
    assert entering.mode_answer(Do.ASK_POLICY, True, '', T0) is Do.NOTHING
    assert entering.mode_answer(Do.ASK_IDLE, True, '', T0) is Do.FINISH


def test_starvation_says_what_was_lacking() -> None:
    session = running()
    for second in range(1, 15):
        session.driver(POLICY, T0 + second * S)
    session.fed(T0 + 4 * S)
    assert session.tick(T0 + 14 * S, 'no pictures') is Do.NOTHING
    assert session.tick(T0 + 14 * S + 1, 'no pictures') is Do.ASK_IDLE
    assert session.outcome is Outcome.FAILED and 'no pictures' in session.message


def test_silent_driver_ends_the_run() -> None:
    session = running()
    session.fed(T0 + 3 * S)
    assert session.tick(T0 + 3 * S + S // 2, '') is Do.NOTHING
    assert session.tick(T0 + 3 * S + S // 2 + 1, '') is Do.ASK_IDLE
    assert session.outcome is Outcome.STOPPED and 'nothing heard' in session.message


def test_fail_and_a_driver_that_does_not_go_idle() -> None:
    session = running()
    assert session.fail('wrong profile', T0) is Do.ASK_IDLE
    assert session.mode_answer(Do.ASK_IDLE, False, 'busy', T0) is Do.FINISH
    assert session.message == 'wrong profile; the driver did not go idle: busy'
    assert session.fail('late', T0) is Do.NOTHING


def test_a_second_run_starts_clean() -> None:
    session = running()
    session.cancel('cancelled', T0)
    session.mode_answer(Do.ASK_IDLE, True, '', T0)
    assert session.begin(T0 + S, 10 * S) is Do.ASK_POLICY
    assert (session.outcome, session.message) == (Outcome.DONE, '')
    assert session.elapsed_ns(T0 + 3 * S) == 2 * S
    assert not session.running


def test_outcomes_are_those_of_the_action() -> None:
    actions = pytest.importorskip('mivla_msgs.action')
    for outcome in Outcome:
        assert getattr(actions.RunPolicy.Result, outcome.name) == outcome.value


def test_follows_a_mode_that_somebody_else_set_and_asks_for_nothing() -> None:
    session = Session(SessionLimits())
    assert session.driver(POLICY, T0) is Do.NOTHING
    assert session.running and session.following
    session.driver(POLICY, T0 + 100 * S)
    assert session.tick(T0 + 100 * S, 'no pictures') is Do.NOTHING
    assert session.fail('unknown instruction', T0 + 100 * S) is Do.NOTHING
    assert session.running
    assert session.driver(IDLE, T0 + 101 * S) is Do.FINISH
    assert not session.running and not session.following
    assert session.driver(STOPPED, T0 + 102 * S) is Do.NOTHING
    assert session.phase is Phase.IDLE


def test_following_ends_with_a_stop_or_a_silent_driver() -> None:
    session = Session(SessionLimits())
    session.driver(POLICY, T0)
    assert session.driver(STOPPED, T0 + S) is Do.FINISH
    session.driver(POLICY, T0 + 2 * S)
    assert session.tick(T0 + 6 * S, '') is Do.FINISH
    assert not session.running


def test_a_goal_takes_a_followed_mode_over_and_gives_it_back() -> None:
    session = Session(SessionLimits())
    session.driver(POLICY, T0)
    assert session.begin(T0 + S, 10 * S) is Do.ASK_POLICY
    assert not session.running
    session.mode_answer(Do.ASK_POLICY, True, '', T0 + S)
    assert session.running and not session.following
    assert session.cancel('cancelled', T0 + 2 * S) is Do.ASK_IDLE
