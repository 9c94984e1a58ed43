"""
Scripted demonstrators for ``bench afternoon``: hands at the input devices of a robot.

A demonstrator moves what a person would move: the emulated leader arm, whose frames go out on its
own bus, or the head and hands that the emulated headset sends. It never speaks to the robot.
What it decides by, it sees on the console's page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from std_msgs.msg import String

from mivla_bringup.bench.hand import HandStream, Way, draw_way
from mivla_bringup.bench.pages import Page
from mivla_bringup.errors import BringupError
from mivla_bringup.operate import OperateError
from mivla_bringup.rig import Rig
from mivla_core.kinematics import Chain
from mivla_core.profile import load_profile
from mivla_core.ros.qos import COMMAND
from mivla_drivers.sim.scenario import DEMO_SEEDS, INSTRUCTIONS

__all__ = ['Demonstrator', 'make_demonstrator', 'options_of']

SEEN_S = 0.6            # that a person looks at the end of a motion
NEAR_RAD, NEAR_M = 0.06, 0.03


class Demonstrator(Protocol):
    """
    Somebody at the device.

    :ivar task: names the folder of the episodes.
    :ivar posture: that the robot is to be in; '' for robots without.
    """

    task: str
    instruction: str
    posture: str

    def engage(self) -> None:
        """Begin to move the robot; teleoperation has just been engaged on the page."""
        ...

    def prepare(self, number: int) -> None:
        """Bring hand and scene to the beginning of an episode."""
        ...

    def perform(self) -> bool:
        """Demonstrate once; False: it went wrong."""
        ...

    def close(self) -> None:
        """Stand up."""
        ...


class BellDemonstrator:
    """Presses the bell of the simulated scene with a PiPER's leader, moved by the expert."""

    task, posture = 'click_bell', ''
    instruction = INSTRUCTIONS['click_bell']

    def __init__(self, rig: Rig, page: Page) -> None:
        self._rig, self._page = rig, page

    def engage(self) -> None:
        """See ``Demonstrator``."""
        _follows(self._page, self._rig.robot)

    def prepare(self, number: int) -> None:
        """Put the bell elsewhere, as somebody beside the robot would."""
        client, seed = self._rig.client, DEMO_SEEDS[0] + number
        try:
            client.reset_scene(self.task, seed, 'easy')
        except OperateError:      # the arm is in the way of the bell
            client.trigger('expert/prepare', 30.0)
            self._rig.pause(SEEN_S)
            client.reset_scene(self.task, seed, 'easy')
        client.trigger('expert/prepare', 30.0)

    def perform(self) -> bool:
        """See ``Demonstrator``."""
        self._rig.pause(SEEN_S)
        self._rig.client.trigger('expert/perform', 30.0)
        self._rig.pause(2.0 * SEEN_S)
        return bool(self._page.state(self._rig.robot)['scene']['success'])

    def close(self) -> None:
        """Nothing is held."""


class LeaderHand:
    """Leads an arm through points by its leader; right is who ends where the hand does."""

    task, posture = 'three_points', ''
    instruction = 'go to three points'

    def __init__(self, rig: Rig, page: Page) -> None:
        self._rig, self._page = rig, page
        self._profile = load_profile(rig.robot)
        self._spread = np.array([0.25 if joint.unit == 'rad' else 0.03
                                 for joint in self._profile.joints])
        self._at = self._profile.home.copy()
        self._chance = np.random.default_rng(5)
        self._stream = HandStream(rig, self._profile)

    def engage(self) -> None:
        """See ``Demonstrator``."""
        _follows(self._page, self._rig.robot)

    def prepare(self, number: int) -> None:
        """Come back to near home."""
        start = self._profile.home + 0.2 * self._spread * self._chance.uniform(
            -1.0, 1.0, len(self._spread))
        start = np.clip(start, self._profile.lower, self._profile.upper)
        self._move(Way(np.array([self._at, start])))

    def perform(self) -> bool:
        """See ``Demonstrator``."""
        self._move(draw_way(self._profile, self._at, self._spread, 3, self._chance))
        measured = np.array(self._page.state(self._rig.robot)['measured'], dtype=np.float64)
        near = np.array([NEAR_RAD if joint.unit == 'rad' else 0.1 * NEAR_RAD
                         for joint in self._profile.joints])
        return bool(np.all(np.abs(measured - self._at) < near))

    def _move(self, way: Way) -> None:
        self._stream.move(way)
        self._rig.pause(way.duration + SEEN_S)
        self._at = way.points[-1]

    def close(self) -> None:
        """See ``Demonstrator``."""
        self._stream.close()


class HeadsetHand:
    """Moves LocoMan's right arm by the right hand in front of a headset; the left one gestures."""

    task, posture = 'reach_about', 'manipulate_right'
    instruction = 'reach to three places'

    def __init__(self, rig: Rig, page: Page) -> None:
        self._rig, self._page = rig, page
        self._profile = load_profile(rig.robot)
        arm = self._profile.arm('right')
        self._chain, self._place = Chain(arm.kinematics), self._profile.place_of(arm)
        self._spread = np.zeros(len(self._profile.joints))
        self._spread[self._place] = [0.06, 0.1, 0.1, 0.2, 0.2, 0.3, 0.8][:len(
            self._profile.joints[self._place])]
        self._at = self._profile.home.copy()
        self._chance = np.random.default_rng(5)
        self._stream = HandStream(rig, self._profile)
        self._gestures = rig.node.create_publisher(String, f'/{rig.robot}/hand/gesture', COMMAND)

    def engage(self) -> None:
        """Put the hand where the arm is, then pinch and hold still."""
        robot = self._rig.robot
        state = self._page.wait(robot, lambda s: s.get('measured') and (
            s.get('teleop') or {}).get('phase') == 'holding', 20.0, 'the headset')
        self._at = np.array(state['measured'], dtype=np.float64)
        self._stream.move(Way(np.array([self._at, self._at])))
        self._rig.pause(0.6)
        self.gesture('index')
        _follows(self._page, robot)

    def gesture(self, finger: str) -> None:
        """Bring thumb and a finger of the left hand together for a moment."""
        self._gestures.publish(String(data=finger))
        self._rig.pause(0.5)
        self._gestures.publish(String(data=''))
        self._rig.pause(0.3)

    def prepare(self, number: int) -> None:
        """Engage anew now and then: hands tire."""
        if number % 5 == 0:
            self.gesture('little')
            self._page.wait(self._rig.robot, lambda s: s['teleop']['phase'] == 'holding', 5.0,
                            'the pause')
            self.engage()

    def perform(self) -> bool:
        """Reach to three places and back; right is a tip that went as far as the hand did."""
        way = draw_way(self._profile, self._at, self._spread, 2, self._chance)
        before = self._tip()
        for points in (way.points, np.array([way.points[-1], self._at])):
            part = Way(points)
            self._stream.move(part)
            self._rig.pause(part.duration + SEEN_S)
            ours = self._chain.tip(points[-1][self._arm_joints])[:3, 3] - self._chain.tip(
                self._at[self._arm_joints])[:3, 3]
            off = float(np.linalg.norm(self._tip() - before - ours))
            if off > NEAR_M:
                return False
        return True

    @property
    def _arm_joints(self) -> slice:
        return slice(self._place.start, self._place.start + self._chain.joints)

    def _tip(self) -> np.ndarray:
        measured = np.array(self._page.state(self._rig.robot)['measured'], dtype=np.float64)
        tip: np.ndarray = self._chain.tip(measured[self._arm_joints])[:3, 3]
        return tip

    def close(self) -> None:
        """See ``Demonstrator``."""
        self._stream.close()


def _follows(page: Page, robot: str) -> None:
    page.wait(robot, lambda s: (s.get('teleop') or {}).get('phase') == 'following', 30.0,
              'following')


def make_demonstrator(name: str) -> Callable[[Rig, Page], Any]:
    """
    Return who demonstrates on a robot.

    :raises BringupError: nobody has learnt to.
    """
    known: dict[str, Callable[[Rig, Page], Any]] = {
        'piper': BellDemonstrator, 'arx5_x5': LeaderHand, 'locoman': HeadsetHand}
    if name not in known:
        raise BringupError(f'no demonstrator for {name!r}; there are some for: '
                           f'{", ".join(known)}')
    return known[name]


def options_of(name: str) -> dict[str, Any]:
    """Return how the stack of a robot is teleoperated by its demonstrator."""
    return {'piper': {'teleop': 'leader', 'hand': 'expert'},
            'arx5_x5': {'teleop': 'leader', 'hand': 'still'},
            'locoman': {'teleop': 'vision_pro', 'headset': 'replay'}}[name]
