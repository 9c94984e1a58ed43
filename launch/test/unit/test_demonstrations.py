"""From recorded episodes to training episodes."""

from pathlib import Path

import numpy as np
import pytest

from mivla_bringup.demonstrations import DemonstrationError, episode_folders, to_training_episode
from mivla_core.profile import load_profile
from mivla_teleop.recording.reader import CameraSeries, CommandSeries, EpisodeData, JointSeries

PROFILE = load_profile('piper')
J = len(PROFILE.joints)
TICK = 5_000_000
FRAME = 33_333_333
START = 1_000_000_000_000


def recorded(positions):
    """Return an episode whose teleop commands are ``positions`` at 200 Hz."""
    count = len(positions)
    stamps = START + TICK * np.arange(count)
    zeros = np.zeros(count, dtype=np.uint64)
    commands = CommandSeries(stamps, stamps, positions, np.zeros((count, J)),
                             np.full(count, 2, np.uint8), np.arange(1, count + 1, dtype=np.uint64),
                             zeros, np.zeros(count, dtype=np.int64))
    frames = np.arange(START, stamps[-1], FRAME)
    series = CameraSeries(frames, frames, tuple(b'jpeg' for _ in frames))
    return EpisodeData(
        path=Path('episode_000007'), sha256='ab' * 32, task='click_bell',
        instruction='press the bell', outcome='success', state='finished', verdict='accepted',
        reasons=(), profile_name='piper', profile_hash=PROFILE.hash, profile_text=PROFILE.text,
        simulated=True, joint_names=PROFILE.joint_names,
        cameras={'head': series, 'wrist': series},
        joint_states=JointSeries(stamps, positions + 0.001, np.zeros((count, J))),
        commands={'teleop': commands, 'applied': commands})


def motion(before, moving, after):
    """Return commands that stand, move at 0.5 rad/s and stand; lengths in ticks."""
    ramp = 0.0025 * np.arange(1, moving + 1)
    path = np.concatenate([np.zeros(before), ramp, np.full(after, ramp[-1])])
    return np.tile(path[:, None], (1, J))


def test_idle_time_around_the_motion_is_left_out():
    episode = to_training_episode(recorded(motion(400, 300, 600)))
    stamps = episode.commands.stamps_ns
    assert stamps[0] == pytest.approx(START + 400 * TICK - 0.05e9, abs=2 * TICK)
    assert stamps[-1] == pytest.approx(START + 700 * TICK + 0.35e9, abs=2 * TICK)
    for track in episode.cameras.values():
        assert track.stamps_ns[0] >= stamps[0] and track.stamps_ns[-1] <= stamps[-1]


def test_actions_are_commands_and_states_are_measured():
    data = recorded(motion(100, 300, 100))
    episode = to_training_episode(data)
    row = np.searchsorted(data.commands['teleop'].stamps, episode.commands.stamps_ns[50])
    np.testing.assert_array_equal(episode.commands.values[50],
                                  data.commands['teleop'].position[row])
    both = np.intersect1d(episode.states.stamps_ns, episode.commands.stamps_ns)
    states = episode.states.values[np.isin(episode.states.stamps_ns, both)]
    commands = episode.commands.values[np.isin(episode.commands.stamps_ns, both)]
    np.testing.assert_allclose(states - commands, 0.001, atol=1e-9)


def test_provenance_names_bag_and_digest():
    assert to_training_episode(recorded(motion(50, 100, 50))).source == (
        'episode_000007:' + 'ab' * 32)


def test_an_episode_that_never_moves_is_refused():
    with pytest.raises(DemonstrationError, match='never move'):
        to_training_episode(recorded(np.zeros((200, J))))


def test_no_episode_is_said(tmp_path):
    with pytest.raises(DemonstrationError, match='no episode below'):
        episode_folders([tmp_path])
