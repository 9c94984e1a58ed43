"""``mivla policy``, the check behind it, and the replay plug-in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from test_demonstrations import FRAME, PROFILE, START, motion, recorded

from mivla_bringup import cli
from mivla_bringup.demonstrations import DemonstrationError, to_training_episode
from mivla_bringup.policy_check import check, draw, read_recorded
from mivla_bringup.replay import confined, replay_policy
from mivla_core.images import encode_jpeg
from mivla_policy.core.observation import Observation
from mivla_policy.errors import PolicyError, UnknownPolicy, WrongProfile
from mivla_policy.policies.constant_time import constant_time_policy
from mivla_policy.policies.hold import hold_policy
from mivla_policy.policies.replay import BagPolicy
from mivla_policy.serve.port import Policy, Query
from mivla_teleop.recording.reader import CameraSeries, EpisodeData

TICKS = 600
PICTURE = encode_jpeg(np.full((48, 64, 3), 90, np.uint8))


def episode_data(**changes: Any) -> EpisodeData:
    """Return an episode of the PiPER that moves after 0.5 s, with pictures that decode."""
    data = recorded(motion(100, 400, 100))
    frames = np.arange(START, START + TICKS * 5_000_000, FRAME)
    series = CameraSeries(frames, frames, (PICTURE,) * len(frames))
    return replace(data, **{'cameras': {'head': series, 'wrist': series}, **changes})


class Oracle:
    """Answers what was demonstrated, with a known error in joint 2."""

    def __init__(self, policy: BagPolicy, error: float) -> None:
        self.specs, self._policy, self._error = policy.specs, policy, error

    def infer(self, queries: Any) -> Any:
        inference = self._policy.infer(queries)
        for chunk in inference.chunks:
            chunk[:, 1] += self._error
        return inference


def test_the_numbers_are_those_of_a_known_error(tmp_path: Path) -> None:
    episode = to_training_episode(episode_data())
    held = check(hold_policy([PROFILE], {}), PROFILE, episode, 'hold')
    # The motion is 0.5 rad/s: a policy that holds is behind by the time of the row.
    summary = held.summary()
    assert summary['chunks'] == held.predicted.shape[0] > 10
    assert list(summary['rmse']) == ['1', '4', '8', '16']
    assert 0.01 < summary['rmse']['1']['joint1'] < summary['rmse']['8']['joint1']
    assert json.loads(json.dumps(summary)) == summary
    assert 'row 16' in held.table() and 'gripper' in held.table()
    picture = cv2.imread(str(draw(held, tmp_path / 'new' / 'check.png')))
    assert picture is not None and picture.shape[0] > 500 and picture.std() > 5.0


def test_a_policy_that_knows_the_episode_has_no_error_but_its_own(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr('mivla_bringup.replay.read_episode',
                        lambda *args: episode_data(cameras={}, instruction=''))
    monkeypatch.setenv('MIVLA_BAGS', str(tmp_path))
    (tmp_path / 'bag').mkdir()
    policy = replay_policy([PROFILE], {'bag': 'bag', 'horizon': 8, 'start_tolerance': 0.2})
    episode = to_training_episode(episode_data())
    # Bit-exact it is not: the motion was resampled at the policy's rate, and asked for between.
    result = check(Oracle(policy, 0.125), PROFILE, episode, 'oracle')
    for row in (1, 4, 8):
        error = result.rmse(row)
        assert error is not None
        np.testing.assert_allclose(error[1], 0.125, atol=0.03)
        assert np.delete(error, 1).max() < 0.03
    assert result.rmse(16) is None


def test_pictures_go_through_the_policys_own_preparation() -> None:
    seen: list[tuple[int, ...]] = []
    policy = constant_time_policy([PROFILE], {'compute_ms': 0.0, 'image_size': 32})
    answer = policy.infer

    def infer(queries: Any) -> Any:
        seen.extend(np.asarray(picture).shape for query in queries
                    for picture in query.observation.images.values())
        return answer(queries)

    policy.infer = infer    # type: ignore[method-assign]
    check(policy, PROFILE, to_training_episode(episode_data()), 'constant time')
    assert set(seen) == {(32, 32, 3)}


def test_what_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    policy: Policy = constant_time_policy([PROFILE], {'compute_ms': 0.0})
    data = episode_data()
    with pytest.raises(DemonstrationError, match='no pictures of camera wrist'):
        check(policy, PROFILE, to_training_episode(
            replace(data, cameras={'head': data.cameras['head']})), 'x')
    monkeypatch.setattr('mivla_bringup.policy_check.read_episode',
                        lambda *args: replace(data, profile_hash='ffff'))
    with pytest.raises(DemonstrationError, match='ffff'):
        read_recorded(Path('bag'), PROFILE)


def test_replay_plays_whoever_moved_the_robot(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = episode_data()
    data = replace(data, cameras={}, commands={'policy': data.commands['teleop'],
                                   'applied': data.commands['applied']})
    monkeypatch.setattr('mivla_bringup.replay.read_episode', lambda *args: data)
    (tmp_path / 'bag').mkdir()
    monkeypatch.setenv('MIVLA_BAGS', str(tmp_path))
    policy = replay_policy([PROFILE], {'bag': 'bag'})
    observation = Observation(10**18, np.zeros(7) + 0.001, {}, '')
    rows = policy.infer([Query(policy.specs[0], observation)]).chunks[0]
    assert rows.shape == (16, 7) and (np.diff(rows[:, 0]) >= 0).all() and rows[-1, 0] > 0.2
    with pytest.raises(DemonstrationError, match='no command of teleop'):
        replay_policy([PROFILE], {'bag': 'bag', 'commands': 'teleop'})
    monkeypatch.setattr('mivla_bringup.replay.read_episode',
                        lambda *args: replace(data, profile_hash='ffff'))
    with pytest.raises(WrongProfile, match='ffff'):
        replay_policy([PROFILE], {'bag': 'bag'})


@pytest.mark.parametrize('parameters, reason', [
    ({}, "parameter 'bag'"), ({'bag': 'x', 'commands': 'me'}, 'commands'),
    ({'bag': 'x', 'horizon': 0}, 'horizon'), ({'bag': 'x', 'pause': float('inf')}, 'pause'),
    ({'bag': 'x', 'knob': 1}, 'no parameter')])
def test_replay_parameters(parameters: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnknownPolicy, match=reason):
        replay_policy([PROFILE], parameters)


def test_replay_opens_no_bag_outside_its_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / 'bags', tmp_path / 'outside'
    good = root / 'task' / 'episode_000001'
    good.mkdir(parents=True)
    outside.mkdir()
    (outside / 'secret.mcap').write_bytes(b'x')
    assert confined('task/episode_000001', root) == good.resolve()
    assert confined(str(good), root) == good.resolve()
    (root / 'link').symlink_to(outside)
    astray = root / 'task' / 'episode_000002'
    astray.mkdir()
    (astray / 'bag.mcap').symlink_to(outside / 'secret.mcap')
    for text in ('../outside', str(outside), 'link', 'task/../../outside', '.', '/etc',
                 'task/episode_000002', '/', '~'):
        with pytest.raises(PolicyError, match='outside'):
            confined(text, root)
    for text in ('absent', 'nul\0byte', 'x' * 5000):
        with pytest.raises(PolicyError, match='not an episode folder'):
            confined(text, root)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                     tmp_path: Path) -> None:
    assert cli.main(['policy', 'list']) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {'mivla', 'hold', 'replay', 'openpi', 'lerobot', 'constant_time'} <= lines.keys()
    assert not [line for line in lines.values() if 'cannot be loaded' in line]
    monkeypatch.setattr('mivla_bringup.policy_check.read_episode', lambda *args: episode_data())
    plot = tmp_path / 'check.png'
    words = ['policy', 'check', '--bag', 'x', '--policy', 'hold', '--parameter', 'horizon=8',
             '--plot', str(plot)]
    assert cli.main(words) == 0 and plot.is_file()
    assert 'hold on episode_000007' in capsys.readouterr().out
    assert cli.main([*words, '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert said['horizon'] == 8 and said['plot'] == str(plot)
    assert cli.main([*words, '--parameter', 'horizon']) == 2
    assert cli.main([*words, '--parameter', 'horizon=[']) == 2
    assert cli.main([*words, '--policy', 'unheard-of']) == 1
