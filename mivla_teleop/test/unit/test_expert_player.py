"""What the scripted expert streams, with time passed in."""

import numpy as np

from mivla_core.timing import StampNs
from mivla_teleop.core.expert_player import ExpertPlayer

T0 = StampNs(10**18)
S = 10**9


class Line:
    """From 0 to ``duration`` at 1 rad/s."""

    duration = 2.0

    def position(self, t: float) -> np.ndarray:
        return np.array([min(max(t, 0.0), 2.0)])

    def velocity(self, t: float) -> np.ndarray:
        return np.array([1.0 if 0.0 <= t < 2.0 else 0.0])


def test_nothing_before_it_is_asked() -> None:
    player = ExpertPlayer()
    assert player.sample(T0) is None and player.finished(T0) and player.end is None


def test_plan_then_its_last_pose_for_ever() -> None:
    player = ExpertPlayer()
    player.play(Line(), T0)
    point = player.sample(T0 + S)
    assert point is not None and point[0][0] == 1.0 and point[1][0] == 1.0
    assert not player.finished(T0 + S) and player.finished(T0 + 2 * S)
    held = player.sample(T0 + 100 * S)
    assert held is not None and held[0][0] == 2.0 and held[1][0] == 0.0
    assert player.end is not None and player.end[0] == 2.0


def test_hold_replaces_a_plan_and_clear_ends_the_stream() -> None:
    player = ExpertPlayer()
    player.play(Line(), T0)
    pose = np.array([0.4])
    player.hold(pose)
    pose[0] = 9.0
    point = player.sample(T0 + S)
    assert point is not None and point[0][0] == 0.4 and point[1][0] == 0.0
    player.clear()
    assert player.sample(T0 + S) is None
