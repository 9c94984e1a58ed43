"""
``gather_objects``: a robot on legs takes two blocks with one arm and puts them in a tray.

The things stand on a low stand in front of the robot, and the base frame is that of its
set-points: the trunk's in nominal stance, the floor 0.285 m below.
"""

from __future__ import annotations

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.core.locoman_kinematics import FOOT_RADIUS
from mivla_drivers.core.locoman_postures import NOMINAL_FEET, POSTURES, Posture
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.stance import Stance
from mivla_drivers.sim.tasks.base import Place, Scenario, Task, TaskState, generator, thing_geoms
from mivla_drivers.sim.tasks.clutter import CLUTTER_XML, SURROUND, draw_clutter, no_clutter
from mivla_drivers.sim.tasks.decoys import DECOYS, draw_decoys, no_decoys
from mivla_drivers.sim.tasks.look import PLAIN, Rgb, draw_look, varied

__all__ = ['BLOCKS', 'BLOCK_X', 'BLOCK_Y', 'GatherJudge', 'TASK', 'TRAY_HALF', 'TRAY_X', 'TRAY_Y']

# The arm that is used, and the posture that frees it.
_POSTURE, _SIDE = Posture.MANIPULATE_RIGHT, 'R'

# Where they stand [m]. With its fingers 0.9 rad out from straight down a right arm keeps 0.05 rad
# to every limit of its joints there, from the grasp up to where it carries them, on every height
# of the stand.
BLOCK_X, BLOCK_Y = ((0.360, 0.385), (0.435, 0.455)), (-0.265, -0.220)
TRAY_X, TRAY_Y = (0.415, 0.450), (-0.155, -0.135)
_UNSEEN = 0.015                 # so far outside of them at most
TABLE_DZ = (-0.03, 0.03)        # of 'hard'
TRAY_HALF, _RIM, _WALL = 0.050, 0.014, 0.003
# Left of the tray and behind everything, where clutter and decoys are out of the arm's way.
_BESIDE = ((0.42, 0.58), (-0.01, 0.12))
_DECOY_APART = 0.10

BLOCKS = ('block_0', 'block_1')
_TINTS: dict[str, Rgb] = {'block_0': (0.80, 0.16, 0.12), 'block_1': (0.15, 0.35, 0.78)}
_TRAY: Rgb = (0.25, 0.55, 0.30)
_NOVEL: dict[str, tuple[Rgb, Rgb]] = {'can': ((0.92, 0.78, 0.20), (0.50, 0.18, 0.55)),
                                      'stick': ((0.92, 0.60, 0.12), (0.10, 0.10, 0.12))}
_DECOY_TINTS: tuple[Rgb, ...] = ((0.92, 0.60, 0.12), (0.50, 0.18, 0.55))

# As the bottle's: a round hull for the fingers, and a foot of four points.
_GRIP = 'user="3 3" contype="3" conaffinity="3" condim="4" friction="1.2 0.03 0.001" priority="1"'
_FOOT = 'contype="2" conaffinity="3" condim="3" friction="0.5 0.01 0.001" priority="1"'
_SEEN = 'contype="0" conaffinity="0" user="0 0"'
# Shape -> radius and height of what the fingers meet [m], and how it looks.
_SHAPES = {'block': (0.011, 0.045, 'type="box" size="0.0105 0.0105 0.0225" pos="0 0 0.0225"'),
           'can': (0.014, 0.040, 'type="cylinder" size="0.014 0.020" pos="0 0 0.020"'),
           'stick': (0.008, 0.058, 'type="cylinder" size="0.008 0.029" pos="0 0 0.029"')}

_LIFTED = 0.015     # m
_SLOW = 0.05        # m/s
_STILL_S = 0.20     # in the tray and released for so long


def _block_xml(name: str) -> str:
    feet = ''.join(
        f'<geom type="sphere" size="0.003" pos="{x} {y} 0.003" group="4" {_FOOT}/>'
        for x, y in ((0.007, 0.007), (-0.007, 0.007), (0.007, -0.007), (-0.007, -0.007)))
    shapes = ''.join(
        f'<geom name="{name}_{shape}_grip" type="capsule" size="{radius}" '
        f'fromto="0 0 {radius + 0.002} 0 0 {height - radius}" group="4" {_GRIP}/>'
        f'<geom name="{name}_{shape}" {seen} {_SEEN}/>'
        for shape, (radius, height, seen) in _SHAPES.items())
    return f'''
    <body name="{name}" pos="0.4 -0.25 0.05">
      <freejoint name="{name}"/>
      <inertial mass="0.04" pos="0 0 0.018" diaginertia="1e-5 1e-5 6e-6"/>
      {feet}{shapes}
    </body>'''


def _tray_xml() -> str:
    at, half, high = TRAY_HALF + _WALL, TRAY_HALF + 2 * _WALL, _RIM / 2.0
    walls = ''.join(
        f'<geom name="tray_{n}" type="box" size="{sx} {sy} {high}" pos="{x} {y} {high}" '
        f'{SURROUND}/>' for n, (sx, sy, x, y) in enumerate((
            (half, _WALL, 0.0, at), (half, _WALL, 0.0, -at), (_WALL, half, at, 0.0),
            (_WALL, half, -at, 0.0))))
    return f'''
      <body name="tray" pos="0.43 -0.14 0">
        <geom name="tray" type="box" size="{TRAY_HALF} {TRAY_HALF} 0.0006" pos="0 0 0.0004"
          contype="0" conaffinity="0"/>{walls}
      </body>'''


def _table_xml() -> str:
    decoys = ''.join(
        f'<body name="{name}" pos="6 0 -3"><geom name="{name}" {_SHAPES["block"][2]} {SURROUND}/>'
        '</body>' for name in DECOYS)
    return f'{_tray_xml()}{decoys}{CLUTTER_XML}'


class GatherJudge:
    """
    Held, gathered, held, gathered; see ``Judge``.

    A block is gathered when it was lifted between both jaws before, and now stands or lies within
    the tray, slow, touched by no jaw, for a moment.
    """

    def __init__(self, profile: RobotProfile, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        del profile     # its hand is known: it is the one of the posture
        self._data = data
        bodies, joints, sites = (mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_JOINT,
                                 mujoco.mjtObj.mjOBJ_SITE)
        self._blocks = names(model, bodies, BLOCKS)
        self._tray = int(names(model, bodies, ('tray',))[0])
        self._tool = int(names(model, sites, (f'{_SIDE}_tool',))[0])
        self._dofs = model.jnt_dofadr[names(model, joints, BLOCKS)]
        self._stance = Stance(model, data, POSTURES[_POSTURE].support)
        # For every geom: bit 0 the fixed jaw, bit 1 the one that moves; and which block it is of.
        self._jaw = np.zeros(model.ngeom, dtype=int)
        for bit, body in enumerate((f'{_SIDE}_fixed_jaw', f'{_SIDE}_jaw')):
            self._jaw[thing_geoms(model, (body,))] = 1 << bit
        self._of = np.full(model.ngeom, -1)
        for number, name in enumerate(BLOCKS):
            self._of[thing_geoms(model, (name,))] = number
        self.restart()

    def restart(self) -> None:
        """Forget what was seen: a new scenario."""
        count = len(BLOCKS)
        self._stage = 0
        self._lay: np.ndarray | None = None         # heights at which they stood [m]
        self._lifted = [False] * count
        self._since: list[float | None] = [None] * count
        self._held = -1

    def _touching(self) -> list[int]:
        """Return which jaws touch each block, as bits."""
        found, count = [0] * len(BLOCKS), self._data.ncon
        for first, second in self._data.contact.geom[:count].tolist():
            for jaw, thing in ((first, second), (second, first)):
                if self._of[thing] >= 0:
                    found[self._of[thing]] |= int(self._jaw[jaw])
        return found

    def state(self) -> TaskState:
        """Return the task's state now."""
        heights = self._data.xpos[self._blocks][:, 2]
        if self._lay is None:
            self._lay = heights.copy()
        touching, self._held = self._touching(), -1
        for number, jaws in enumerate(touching):
            if jaws == 3:
                self._held = number
                self._lifted[number] |= bool(heights[number] - self._lay[number] >= _LIFTED)
        gathered = [self._gathered(number, jaws) and self._lifted[number]
                    for number, jaws in enumerate(touching)]
        done = 2 * sum(gathered) + any(up and not into for up, into
                                       in zip(self._lifted, gathered))
        self._stage = max(self._stage, done)
        stages = TASK.stages
        score = self._stage / len(stages)
        return TaskState(self._target(gathered), score, any(touching),
                         self._stage == len(stages), score, ('', *stages)[self._stage])

    def _gathered(self, number: int, jaws: int) -> bool:
        """Say whether a block has been in the tray, released, for a moment."""
        data, block, dof = self._data, self._blocks[number], self._dofs[number]
        turn = data.xmat[self._tray].reshape(3, 3)
        x, y, z = turn.T @ (data.xpos[block] - data.xpos[self._tray])
        # A block that has toppled lies up to half a tray's rim above its foot.
        inside = max(abs(x), abs(y)) <= TRAY_HALF and -0.005 <= z <= _RIM + 0.020
        speed = float(np.linalg.norm(data.qvel[dof:dof + 3]))
        if jaws or not inside or speed > _SLOW:
            self._since[number] = None
            return False
        since = self._since[number]
        if since is None:
            since = self._since[number] = float(data.time)
        return bool(data.time - since >= _STILL_S)

    def _target(self, gathered: list[bool]) -> tuple[float, float, float]:
        """Return where the next block is, as the scene was drawn: feet may have slipped since."""
        number = gathered.index(False) if False in gathered else len(BLOCKS) - 1
        x, y, z = self._data.xpos[self._blocks[number]].tolist()
        return x, y, z + NOMINAL_FEET[0][2] - FOOT_RADIUS

    def places(self) -> np.ndarray:
        """Return the poses of the blocks and of the tray, seen from where the robot stands."""
        stance, data = self._stance.pose(), self._data
        turned = np.zeros(4)
        found = []
        for body in (*self._blocks, self._tray):
            at = stance[:3, :3].T @ (data.xpos[body] - stance[:3, 3])
            mujoco.mju_mat2Quat(turned, (stance[:3, :3].T
                                         @ data.xmat[body].reshape(3, 3)).ravel())
            found.append([*at, *turned])
        return np.array(found)

    def room(self, tip: np.ndarray) -> float:
        """Free: the way to the nearest block. Held: the height it may still fall."""
        at = self._data.xpos[self._blocks]
        if self._held >= 0 and self._lay is not None:
            return max(0.0, float(at[self._held, 2] - self._lay[self._held]))
        return float(np.linalg.norm(at + (0.0, 0.0, 0.03) - tip, axis=1).min())


def _spread(rng: np.random.Generator, x: tuple[float, float],
            y: tuple[float, float]) -> tuple[float, float]:
    return float(rng.uniform(*x)), float(rng.uniform(*y))


def _beyond(rng: np.random.Generator, edge: float, side: float) -> float:
    return edge + side * float(rng.uniform(0.3, 1.0)) * _UNSEEN


def _draw(seed: int, level: str) -> Scenario:
    place = generator('gather_objects', seed, 0)
    spots = [_spread(place, x, BLOCK_Y) for x in BLOCK_X]
    tray = _spread(place, TRAY_X, TRAY_Y)
    look, table_dz, (others, more) = PLAIN, 0.0, no_clutter()
    tints, tray_tint, shape = dict(_TINTS), _TRAY, 'block'
    decoys = no_decoys()
    if level == 'hard':
        look = draw_look(generator('gather_objects', seed, 1))
        around = generator('gather_objects', seed, 2)
        table_dz = float(around.uniform(*TABLE_DZ))
        tints = {name: varied(around, tint) for name, tint in _TINTS.items()}
        tray_tint = varied(around, _TRAY)
        others, more = draw_clutter(around, lambda rng: _spread(rng, *_BESIDE))
    elif level == 'unseen_pose':
        odd = generator('gather_objects', seed, 3)
        # The near block nearer, the far one farther, the tray to the other side.
        spots = [(_beyond(odd, BLOCK_X[0][0], -1.0), spots[0][1]),
                 (_beyond(odd, BLOCK_X[1][1], 1.0), spots[1][1])]
        tray = (_beyond(odd, TRAY_X[0], -1.0), tray[1])
    elif level == 'novel_object':
        odd = generator('gather_objects', seed, 3)
        shape = sorted(_NOVEL)[int(odd.integers(len(_NOVEL)))]
        tints = dict(zip(BLOCKS, _NOVEL[shape]))
    elif level == 'distractor':
        decoys = draw_decoys(generator('gather_objects', seed, 3), *_BESIDE, _DECOY_APART,
                             [*spots, tray])
    coloured = {f'{name}_{kind}': tint for name, tint in tints.items() for kind in _SHAPES}
    coloured.update(dict(zip(DECOYS, _DECOY_TINTS)), tray=tray_tint, **more)
    coloured.update({f'tray_{n}': tray_tint for n in range(4)})
    return Scenario(
        'gather_objects', seed, level, table_dz, look,
        (*(Place(name, spot) for name, spot in zip(BLOCKS, spots)), Place('tray', tray), *decoys,
         *others), coloured,
        tuple(name for block in BLOCKS for name in (f'{block}_{shape}', f'{block}_{shape}_grip')))


def _spots(scenario: Scenario) -> tuple[float, ...]:
    ranges = (BLOCK_X[0], BLOCK_Y, BLOCK_X[1], BLOCK_Y, TRAY_X, TRAY_Y)
    values = [value for body in (*BLOCKS, 'tray') for value in scenario.at(body)]
    return tuple((value - low) / (high - low) for value, (low, high) in zip(values, ranges))


TASK = Task(
    name='gather_objects',
    instruction='gather the red and the blue block in the green tray',
    robots=('locoman',),
    stages=('one held', 'one gathered', 'both held', 'both gathered'),
    limit_s=40.0,
    draw=_draw,
    spots=_spots,
    judge=GatherJudge,
    things=(*BLOCKS, *DECOYS),
    on_table=_table_xml(),
    loose=''.join(map(_block_xml, BLOCKS)),
    variants=tuple(f'{block}_{shape}{end}' for block in BLOCKS for shape in _SHAPES
                   for end in ('', '_grip')),
    posture=_POSTURE.value,
)
