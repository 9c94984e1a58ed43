"""The respawn rule, without processes or a clock."""

import pytest

from mivla_bringup.respawn import Respawner, RespawnRule, describe_exit

RULE = RespawnRule(delay=1.0, limit=3, window=60.0, settle=20.0)


def test_delay_doubles_and_the_limit_ends_it() -> None:
    judge = Respawner(RULE, True)
    assert [judge.died(-9, now, now + 1.0) for now in (0.0, 5.0, 10.0, 15.0)] == [
        1.0, 2.0, 4.0, None]


def test_old_deaths_are_forgiven() -> None:
    judge = Respawner(RULE, True)
    assert [judge.died(-9, at, at) for at in (0.0, 100.0, 200.0, 300.0, 400.0)] == [1.0] * 5


@pytest.mark.parametrize(('code', 'lived', 'refused'), [
    (1, 3.0, True), (1, 30.0, False), (-9, 3.0, False), (0, 3.0, False)])
def test_refusal_is_an_error_code_soon_after_the_first_start(code: int, lived: float,
                                                             refused: bool) -> None:
    judge = Respawner(RULE, True)
    assert (judge.died(code, 100.0, 100.0 + lived) is None) is refused
    assert judge.refused is refused


def test_an_error_code_in_a_later_life_is_a_death_like_any_other() -> None:
    judge = Respawner(RULE, True)
    judge.died(-9, 0.0, 50.0)
    assert judge.died(1, 51.0, 52.0) is not None
    assert not judge.refused


def test_a_child_that_is_not_to_be_respawned_is_not() -> None:
    assert Respawner(RULE, False).died(-9, 0.0, 100.0) is None


def test_descriptions() -> None:
    assert describe_exit(-11) == 'killed by SIGSEGV'
    assert describe_exit(-62) == 'killed by signal 62'
    assert describe_exit(3) == 'exit code 3'
