"""``click_bell``: press the button of a bell that stands on the table."""

from __future__ import annotations

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.bench import BELL
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.tasks.base import Place, Scenario, Task, TaskState, generator, thing_geoms
from mivla_drivers.sim.tasks.clutter import SURROUND
from mivla_drivers.sim.tasks.decoys import DECOYS, draw_decoys, no_decoys
from mivla_drivers.sim.tasks.hands import Hands
from mivla_drivers.sim.tasks.look import PLAIN, draw_look

__all__ = ['BELL_X', 'BELL_Y', 'PRESS_DEPTH', 'TABLE_DZ', 'TASK', 'TIP_DISTANCE', 'target_of']

# Centre of the bell in the base frame and height of the table against the profile's plane [m].
BELL_X = (0.24, 0.44)
BELL_Y = (-0.125, 0.125)
TABLE_DZ = (-0.01, 0.01)
# Reachable, and where no demonstration has one.
_UNSEEN_X = (0.21, 0.46)
_UNSEEN_Y = (0.140, 0.165)
# Of other bells: where they stand, and how far from all others [m].
_DECOY_Y, _DECOY_APART = (-0.22, 0.22), 0.11
_OTHER = (0.28, 0.45, 0.72)

# Success: button this deep [m], touched by a finger, tip this near to the button's top [m].
PRESS_DEPTH = 0.003
TIP_DISTANCE = 0.020
_NEAR = 0.040           # m from the tip to the button: the first stage


def _xml() -> str:
    dome = f'{BELL.DOME_RADIUS} {BELL.DOME_RADIUS} 0.033'
    decoys = ''.join(f'''
      <body name="{name}" pos="6 0 -3">
        <geom type="cylinder" size="{BELL.BASE_RADIUS} 0.005" pos="0 0 0.005"
          material="bell_base" {SURROUND}/>
        <geom name="{name}" type="ellipsoid" size="{dome}" pos="0 0 0.008" rgba="0.5 0.5 0.5 1"
          material="bell_dome" {SURROUND}/>
        <geom type="cylinder" size="{BELL.BUTTON_RADIUS} 0.007" pos="0 0 0.046"
          material="bell_button" {SURROUND}/>
      </body>''' for name in DECOYS)
    return f'''
      <body name="bell" pos="0.34 0 0">
        <geom name="bell_base" type="cylinder" size="{BELL.BASE_RADIUS} 0.005" pos="0 0 0.005"
          material="bell_base" {SURROUND}/>
        <geom name="bell_dome" type="ellipsoid" size="{dome}"
          pos="0 0 0.008" material="bell_dome" user="2 1" {SURROUND}/>
        <geom name="bell_box" type="box" size="0.032 0.032 0.018" pos="0 0 0.020"
          material="bell_dome" user="2 1" {SURROUND}/>
        <body name="button">
          <joint name="button" type="slide" axis="0 0 1" range="{-BELL.TRAVEL} 0" stiffness="350"
            springref="0.003" damping="2.5" armature="0.005" solreflimit="0.003 1"/>
          <geom name="button" type="cylinder" size="{BELL.BUTTON_RADIUS} 0.007"
            pos="0 0 {BELL.BUTTON_TOP - 0.007:.6g}" mass="0.012" material="bell_button"
            friction="0.9 0.01 0.001" {SURROUND}/>
        </body>
      </body>{decoys}'''


def _draw(seed: int, level: str) -> Scenario:
    """
    Draw a scene; the placement depends on the seed only, so that easy and hard differ in looks.

    Its order of draws is part of what a seed means: a policy was measured on these.
    """
    place, odd = generator('click_bell', seed, 0), generator('click_bell', seed, 3)
    bell = (float(place.uniform(*BELL_X)), float(place.uniform(*BELL_Y)))
    table_dz = float(place.uniform(*TABLE_DZ))
    look = draw_look(generator('click_bell', seed, 1)) if level == 'hard' else PLAIN
    if level == 'unseen_pose':
        side = 1.0 if odd.uniform() < 0.5 else -1.0
        bell = (float(odd.uniform(*_UNSEEN_X)), side * float(odd.uniform(*_UNSEEN_Y)))
    decoys = no_decoys()
    if level == 'distractor':
        decoys = draw_decoys(odd, BELL_X, _DECOY_Y, _DECOY_APART, (bell,))
    novel = level == 'novel_object'
    return Scenario(
        'click_bell', seed, level, table_dz, look, (Place('bell', bell), *decoys),
        {'bell_dome': look.bell, 'bell_box': _OTHER, **{name: _OTHER for name in DECOYS}},
        ('bell_box',) if novel else ('bell_dome',))


def target_of(scenario: Scenario, table_z: float) -> np.ndarray:
    """
    Return the centre of the button's top (3,) in the base frame [m], unpressed.

    :param table_z: ``profile.workspace.table_z``.
    """
    return np.array([*scenario.at('bell'), table_z + scenario.table_dz + BELL.BUTTON_TOP])


def _spots(scenario: Scenario) -> tuple[float, ...]:
    x, y = scenario.at('bell')
    return ((x - BELL_X[0]) / (BELL_X[1] - BELL_X[0]), (y - BELL_Y[0]) / (BELL_Y[1] - BELL_Y[0]))


class _Judge:
    """Success: the button pressed deep enough by contact with a finger whose tip is near."""

    def __init__(self, profile: RobotProfile, model: mujoco.MjModel,
                 data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        joint = int(names(model, mujoco.mjtObj.mjOBJ_JOINT, ('button',))[0])
        self._q = int(model.jnt_qposadr[joint])
        self._geom = int(names(model, mujoco.mjtObj.mjOBJ_GEOM, ('button',))[0])
        self._hands = Hands(profile, model, data, thing_geoms(model, ('button',)))
        self.restart()

    def restart(self) -> None:
        self._score = 0.0
        self._success = False

    def _top(self) -> np.ndarray:
        top = self._data.geom_xpos[self._geom].copy()
        top[2] += self._model.geom_size[self._geom, 1]
        return top

    def state(self) -> TaskState:
        depth = max(0.0, -float(self._data.qpos[self._q]))
        target = self._top()
        away = float(np.linalg.norm(self._hands.tips() - target, axis=1).min())
        touched = depth > 0.0 and self._hands.touching() != 0
        if touched and depth >= PRESS_DEPTH:
            self._success = self._success or away <= TIP_DISTANCE
        reached = [away <= _NEAR, touched and away <= _NEAR, self._success]
        self._score = max(self._score, sum(reached) / 3.0 if not self._success else 1.0)
        stage = ('', *TASK.stages)[round(3.0 * self._score)]
        return TaskState(tuple(target.tolist()), depth, touched, self._success, self._score,
                         stage)

    def places(self) -> np.ndarray:
        return np.array([[*self._top(), 1.0, 0.0, 0.0, 0.0]])

    def room(self, tip: np.ndarray) -> float:
        return float(np.linalg.norm(tip - self._data.geom_xpos[self._geom]))


TASK = Task(
    name='click_bell',
    instruction='press the bell',
    robots=('piper', 'arx5_x5', 'arx5_l5'),
    stages=('reached', 'touched', 'pressed'),
    limit_s=10.0,
    draw=_draw,
    spots=_spots,
    judge=_Judge,
    things=('bell',),
    on_table=_xml(),
    contact='<exclude body1="button" body2="bell"/><exclude body1="button" body2="table"/>',
    variants=('bell_dome', 'bell_box'),
)
