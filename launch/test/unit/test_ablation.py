"""``mivla ablation``: what is compared with what, and what is refused before hours of work."""

from __future__ import annotations

from pathlib import Path

import pytest

from mivla_bringup.ablation import ARMS, main, pairs
from mivla_bringup.errors import UsageError
from mivla_core.errors import MivlaError


def test_every_arm_is_compared_with_scratch_of_as_many_steps_too() -> None:
    assert pairs(('scratch', 'longer', 'both')) == [
        ('longer', 'scratch'), ('both', 'scratch'), ('both', 'longer')]
    assert pairs(('r2h', 'longer')) == [('r2h', 'longer')]
    assert pairs(('human', 'both')) == []
    assert len(pairs(ARMS)) == 5 + 4


def test_unknown_arms_and_missing_hands_are_refused() -> None:
    with pytest.raises(UsageError, match='--arms h2x: expected scratch, longer'):
        main(['--arms', 'scratch,h2x'])
    with pytest.raises(UsageError, match='--hands: name a folder'):
        main(['--arms', 'both'])


def test_a_robot_that_hands_cannot_stand_for_is_refused_before_it_is_shown_how(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The task's robot, as none is named.
    with pytest.raises(MivlaError, match='locoman: .* hands cannot stand for it'):
        main(['--task', 'gather_objects', '--arms', 'scratch,human', '--hands', str(tmp_path),
              '--out', str(tmp_path / 'out')])
    assert 'demonstration' not in capsys.readouterr().out
