"""
What a scripted demonstrator does at the console's page, and what came of it.

The page is worked as a person works it: enable, home, posture, teleop, start and save; discard,
bring back, record again, stop and resume. Whatever the device in the hand does is the
demonstrator's (``bench.demonstrator``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mivla_bringup.bench.pages import Page
from mivla_bringup.errors import BringupError
from mivla_bringup.rig import Rig
from mivla_core.profile import load_profile

__all__ = ['Desk', 'Sitting']

OPERATOR = 'scripted demonstrator'


@dataclass
class Sitting:
    """What happened on one robot, and what is on the disk of it."""

    robot: str
    wanted: int
    missed: list[int] = field(default_factory=list)        # demonstrations that went wrong
    told: list[str] = field(default_factory=list)          # what the recorder said of each
    verdicts: dict[str, int] = field(default_factory=dict)
    gestures: int = 0       # episodes that gestures started and saved
    seconds: float = 0.0
    pictures: int = 0
    account: dict[str, Any] = field(default_factory=dict)


class Desk:
    """A demonstrator at the page of one robot."""

    def __init__(self, rig: Rig, page: Page, person: Any, sitting: Sitting) -> None:
        self._rig, self._page, self._person, self._sitting = rig, page, person, sitting
        self._robot = rig.robot

    def good(self) -> int:
        """Return the good episodes as the recorder counts them."""
        return int(self._rig.newest('recorder/status').good)

    def _ask(self, do: str, **fields: Any) -> str:
        return self._page.ask(self._robot, do, **fields)

    def _wait(self, wanted: Callable[[Any], bool], timeout: float, what: str) -> None:
        self._page.wait(self._robot, wanted, timeout, what)

    def _holds(self, timeout: float, what: str) -> None:
        self._rig.pause(0.4)     # until the driver says that it has begun
        self._wait(lambda s: s['driver'] and s['driver']['state'] == 'holding', timeout, what)

    def sit_down(self) -> None:
        """Bring the robot up and hand it to the device."""
        person, robot = self._person, self._robot
        self._wait(lambda s: s.get('driver') and s.get('recorder') and s.get('measured'), 60.0,
                   'driver and recorder')
        self._wait(lambda s: not [stream for stream in s['streams'] if stream['name'] in (
            camera.role for camera in load_profile(robot).cameras) and stream['late']], 30.0,
            'the pictures')
        self._ask('desk', task=person.task, operator=OPERATOR, target=self._sitting.wanted)
        self._ask('instruction', text=person.instruction)
        if self._page.state(robot)['driver']['state'] in ('fault', 'stopped'):
            self._ask('reset')     # it missed something of its device while everything started
        self._wait(lambda s: s['driver']['state'] == 'disabled', 10.0, 'a robot to enable')
        self._ask('enable')
        self._holds(20.0, 'enabled')
        self._ask('pose', pose='home')
        self._holds(60.0, 'home')
        if person.posture:
            self._ask('posture', posture=person.posture)
            self._holds(60.0, person.posture)
        self._take_over()

    def _take_over(self) -> None:
        self._ask('mode', mode='teleop')
        self._person.engage()

    def episode(self, number: int, outcome: str = '') -> bool:
        """Record one; what went wrong is discarded, and the robot is taken up again."""
        before = self._counts()
        try:
            self._person.prepare(number)
            right = self._record(number, outcome)
        except BringupError as err:
            self._rig.check()
            right = False
            self._take_up_again(str(err))
        for name, count in self._counts().items():
            self._sitting.verdicts[name] = (self._sitting.verdicts.get(name, 0) + count
                                            - before.get(name, 0))
        if not right:
            self._sitting.missed.append(number)
        return right

    def _record(self, number: int, outcome: str) -> bool:
        """Start, demonstrate, save: every third time by gestures, of whom makes them."""
        gesture = getattr(self._person, 'gesture', None) if number % 3 == 2 else None
        if gesture is None:
            self._ask('start')
        else:
            gesture('middle')
            self._wait(lambda s: s['recorder']['state'] == 'recording', 5.0, 'the start')
        right = bool(self._person.perform())
        if gesture is not None and right and not outcome:
            gesture('middle')
            self._wait(lambda s: s['recorder']['state'] == 'idle', 5.0, 'the save')
            self._sitting.told.append(self._page.state(self._robot)['recorder']['detail'])
            self._sitting.gestures += 1
        else:
            self._sitting.told.append(self._ask('finish', outcome=outcome or (
                'success' if right else 'discard'), note=''))
        return right

    def _take_up_again(self, why: str) -> None:
        """After a fault: discard, resume, engage anew, as somebody at the page would."""
        self._sitting.told.append(why)
        state = self._page.state(self._robot)
        print(f'{self._robot}: {why}', flush=True)
        if state['recorder']['state'] == 'recording':
            self._ask('finish', outcome='discard', note=why[:200])
        if state['driver']['state'] in ('fault', 'stopped'):
            self._wait(lambda s: not s['driver']['faults'] and not s['driver']['braking'], 20.0,
                       'the end of the fault')
            self._ask('reset')
            self._holds(10.0, 'resumed')
        state = self._page.state(self._robot)
        if state['driver']['mode'] != 'teleop' or state['teleop']['phase'] != 'following':
            self._take_over()

    def _counts(self) -> dict[str, int]:
        return {count.name: int(count.count)
                for count in self._rig.newest('guard/status').verdicts}

    def discard_and_bring_back(self) -> None:
        """Press discard instead of save, and mend that."""
        right = self.episode(1000, 'discard')
        self._ask('undo')
        self._ask('finish', outcome='success' if right else 'failure', note='brought back')

    def stop_and_resume(self) -> None:
        """Stop on the page, wait for the stand, resume and take over again."""
        self._page.ask('*', 'stop', reason='somebody walked by')
        self._wait(lambda s: s['driver']['state'] == 'stopped' and not s['driver']['braking'],
                   5.0, 'the stop')
        self._ask('reset')
        self._holds(5.0, 'resumed')
        self._take_over()

    def stand_up(self) -> None:
        """Leave the robot as it may be left."""
        self._ask('mode', mode='idle')
        self._ask('pose', pose='rest')
        self._holds(60.0, 'rest')
        self._ask('disable', force=False)
