"""The scripted demonstrators' ways, and what the benchmark makes of the bags of an afternoon."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

msgs = pytest.importorskip('mivla_msgs.msg', reason='mivla_msgs is not built or not sourced')
if not hasattr(msgs, 'HandTracking'):     # the source folder of the same name, or an old build
    pytest.skip('mivla_msgs is not built or not sourced', allow_module_level=True)

from episode_maker import BEGIN, make_episode  # noqa: E402

from mivla_bringup.bench.afternoon import accounts  # noqa: E402
from mivla_bringup.bench.demonstrator import make_demonstrator  # noqa: E402
from mivla_bringup.bench.hand import Way, draw_way  # noqa: E402
from mivla_bringup.errors import BringupError  # noqa: E402
from mivla_core.profile import load_profile  # noqa: E402
from mivla_drivers.core.robot_envelope import envelope_of  # noqa: E402
from mivla_teleop.recording.metadata import bag_file  # noqa: E402

PROFILE = load_profile('arx5_x5')
SPREAD = np.array([0.25] * 6 + [0.03])


def test_a_way_rests_at_its_points_and_its_velocity_is_its_own() -> None:
    way = Way(np.array([[0.0, 1.0], [0.5, 1.0], [0.2, 0.4]]))
    for t, point in ((-1.0, 0), (0.0, 0), (1.5, 1), (way.duration, 2), (99.0, 2)):
        position, velocity = way.at(t)
        np.testing.assert_allclose(position, way.points[point], atol=1e-9)
        np.testing.assert_allclose(velocity, 0.0, atol=1e-9)
    times = np.arange(0.0, way.duration, 1e-3)
    path = np.array([way.at(t)[0] for t in times])
    speed = np.array([way.at(t)[1] for t in times])
    np.testing.assert_allclose(np.gradient(path, 1e-3, axis=0)[1:-1], speed[1:-1], atol=5e-3)
    assert np.abs(np.diff(speed, axis=0)).max() / 1e-3 < PROFILE.acceleration[0]


def test_a_drawn_way_is_clear_and_another_seed_is_another() -> None:
    def draw(seed: int) -> Way:
        return draw_way(PROFILE, PROFILE.home, SPREAD, 3, np.random.default_rng(seed))

    way, envelope = draw(1), envelope_of(PROFILE)
    assert len(way.points) == 4 and np.ptp(way.points[:, 0]) > 0.02
    assert min(envelope.clearance([float(value) for value in way.at(t)[0]])
               for t in np.arange(0.0, way.duration, 0.05)) > 0.0
    assert not np.allclose(way.points, draw(2).points)
    below = PROFILE.home.copy()
    below[1] += 1.2                 # the tool in the table
    with pytest.raises(BringupError, match='no clear way'):
        draw_way(PROFILE, below, 0.01 * SPREAD, 3, np.random.default_rng(1))


def test_nobody_demonstrates_on_a_robot_that_nobody_knows() -> None:
    with pytest.raises(BringupError, match='no demonstrator'):
        make_demonstrator('toaster')


def test_the_account_counts_what_is_good_lost_and_damaged(tmp_path: Path) -> None:
    root = tmp_path / 'bags'
    make_episode(root)
    make_episode(root, 1.0, BEGIN + 60 * 10**9, verdict='rejected', lost=4)
    found = accounts(root, 'piper', tmp_path / 'report.html')
    assert (found['episodes'], found['good'], found['lost'], found['lost_in_good']) == (2, 1, 4, 0)
    assert list(found['rejected']) == ['click_bell/episode_000002']
    assert found['joint_states_hz'] == pytest.approx([50.0, 50.0], rel=0.05)
    assert (tmp_path / 'report.html').stat().st_size > 1000
    errors = len(found['damaged'])
    path = bag_file(root / 'click_bell' / 'episode_000001')
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert len(accounts(root, 'piper', tmp_path / 'report.html')['damaged']) > errors
