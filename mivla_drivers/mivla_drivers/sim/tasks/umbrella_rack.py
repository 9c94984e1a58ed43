"""``umbrella_rack``: tidy a folded umbrella away: lay it into the rack."""

from __future__ import annotations

import numpy as np

from mivla_drivers.sim.tasks.base import Place, Scenario, Task, generator
from mivla_drivers.sim.tasks.clutter import CLUTTER_XML, SURROUND, draw_clutter, no_clutter
from mivla_drivers.sim.tasks.decoys import DECOYS, draw_decoys, no_decoys
from mivla_drivers.sim.tasks.look import PLAIN, Rgb, draw_look, varied
from mivla_drivers.sim.tasks.transfer import TransferRules, transfer_judge

__all__ = ['RACK_X', 'RACK_Y', 'RULES', 'TASK', 'UMBRELLA_X', 'UMBRELLA_Y']

# Middle of umbrella and rack in the base frame [m]; both point away from the arm's base, turned by
# up to ``_TURN`` [rad]. An ARX-5 reaches all of it with its gripper leaning 0.45 rad outwards.
UMBRELLA_X, UMBRELLA_Y = (0.29, 0.39), (-0.19, -0.07)
RACK_X, RACK_Y = (0.29, 0.39), (0.07, 0.19)
_TURN = 0.20
_UNSEEN = 0.035                 # m beyond an edge of those ranges
TABLE_DZ = (-0.03, 0.03)        # of 'hard'

# It lies on two blocks [m]: fingers have to reach under its axis and stay off the table.
_BLOCK = 0.050
_RADIUS = 0.014
_RACK = 0.070                   # bottom of the rack's notches over the table [m]
_NOTCH = 0.030                  # half of their width at the bottom [m]
_CANOPY: Rgb = (0.13, 0.45, 0.30)
_STRAP: Rgb = (0.92, 0.85, 0.30)
_FRAME: Rgb = (0.75, 0.62, 0.25)
_NOVEL: tuple[tuple[str, Rgb], ...] = (
    ('umbrella_stick', (0.50, 0.34, 0.18)), ('umbrella_long', (0.72, 0.12, 0.30)))
_DECOY_TINTS: tuple[Rgb, ...] = ((0.20, 0.35, 0.70), (0.70, 0.40, 0.15))
# Umbrellas of another colour that lie about, so far from all others [m].
_DECOY_X, _DECOY_Y, _DECOY_APART = (0.18, 0.48), (-0.36, 0.36), 0.17

_GRIP = 'user="3 3" contype="3" conaffinity="3" condim="4" friction="1.2 0.02 0.001" priority="1"'
_SEEN = 'contype="0" conaffinity="0" user="0 0"'
_SHAPES = {
    'umbrella_canopy': ('umbrella_grip', 'umbrella_canopy', 'umbrella_strap', 'umbrella_tip',
                        'umbrella_handle', 'umbrella_hook'),
    'umbrella_stick': ('umbrella_stick',),
    'umbrella_long': ('umbrella_long',),
}


def _umbrella_xml() -> str:
    # Its origin is the middle of its axis projected on the table it lies over; x to the handle.
    # Without the strap that holds it folded, a shaft looks alike all along to the wrist's camera.
    z = _BLOCK + _RADIUS
    return f'''
    <body name="umbrella" pos="0.34 -0.13 0">
      <freejoint name="umbrella"/>
      <inertial mass="0.15" pos="0 0 {z}" diaginertia="4e-5 7e-4 7e-4"/>
      <geom name="umbrella_grip" type="capsule" size="{_RADIUS}"
        fromto="-0.085 0 {z} 0.075 0 {z}" group="4" {_GRIP}/>
      <geom name="umbrella_canopy" type="capsule" size="{_RADIUS}"
        fromto="-0.085 0 {z} 0.045 0 {z}" {_SEEN}/>
      <geom name="umbrella_strap" type="cylinder" size="{_RADIUS + 0.0008}"
        fromto="-0.012 0 {z} 0.012 0 {z}" {_SEEN}/>
      <geom name="umbrella_tip" type="cylinder" size="0.003" fromto="-0.115 0 {z} -0.095 0 {z}"
        rgba="0.7 0.7 0.7 1" {_SEEN}/>
      <geom name="umbrella_handle" type="capsule" size="0.008" fromto="0.05 0 {z} 0.115 0 {z}"
        rgba="0.35 0.22 0.12 1" {_SEEN}/>
      <geom name="umbrella_hook" type="capsule" size="0.007" fromto="0.115 0 {z} 0.115 0.030 {z}"
        rgba="0.35 0.22 0.12 1" {_SEEN}/>
      <geom name="umbrella_stick" type="capsule" size="0.011" fromto="-0.100 0 {z} 0.100 0 {z}"
        {_GRIP}/>
      <geom name="umbrella_long" type="capsule" size="0.018" fromto="-0.085 0 {z} 0.085 0 {z}"
        {_GRIP}/>
    </body>'''


def _bar(x: float) -> str:
    """Return one of the rack's two bars: a floor between two slanting walls."""
    walls = ''.join(
        f'<geom type="box" size="0.006 0.004 0.018" '
        f'pos="{x} {side * (_NOTCH + 0.008)} {_RACK + 0.014}" euler="{-0.45 * side} 0 0" '
        f'material="arm_metal" {SURROUND}/>' for side in (-1.0, 1.0))
    return (f'<geom name="rack_{"fore" if x < 0 else "aft"}" type="box" '
            f'size="0.006 {_NOTCH + 0.004} {_RACK / 2}" pos="{x} 0 {_RACK / 2}" {SURROUND}/>'
            f'{walls}')


def _table_xml() -> str:
    blocks = ''.join(
        f'<geom type="box" size="0.010 0.020 {_BLOCK / 2}" pos="{x} 0 {_BLOCK / 2}" '
        f'rgba="0.45 0.38 0.30 1" {SURROUND}/>' for x in (-0.065, 0.065))
    decoys = ''.join(f'''
      <body name="{name}" pos="6 0 -3">
        <geom name="{name}" type="capsule" size="{_RADIUS}"
          fromto="-0.08 0 {_RADIUS} 0.05 0 {_RADIUS}" {SURROUND}/>
      </body>''' for name in DECOYS)
    return f'''
      <body name="blocks" pos="0.34 -0.13 0">{blocks}</body>
      <body name="rack" pos="0.34 0.13 0">{_bar(-0.055)}{_bar(0.055)}
        <geom type="box" size="0.070 0.012 0.003" pos="0 0 0.003" material="arm_metal" {SURROUND}/>
      </body>{decoys}{CLUTTER_XML}'''


def _spot(rng: np.random.Generator, x: tuple[float, float], y: tuple[float, float],
          beyond: float = 0.0) -> tuple[float, float]:
    """
    Draw a place.

    :param beyond: so far outside of the range at most, nearer or farther along x [m]; 0: inside.
    """
    spot = float(rng.uniform(*x)), float(rng.uniform(*y))
    if beyond:
        away = float(rng.uniform(0.3, 1.0)) * beyond
        spot = (x[0] - away if rng.uniform() < 0.5 else x[1] + away), spot[1]
    return spot


def _outwards(spot: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.arctan2(spot[1], spot[0]) + rng.uniform(-_TURN, _TURN))


def _draw(seed: int, level: str) -> Scenario:
    place = generator('umbrella_rack', seed, 0)
    umbrella, rack = _spot(place, UMBRELLA_X, UMBRELLA_Y), _spot(place, RACK_X, RACK_Y)
    look, table_dz, (others, more) = PLAIN, 0.0, no_clutter()
    tint, strap, frame, shape = _CANOPY, _STRAP, _FRAME, 'umbrella_canopy'
    tints: dict[str, Rgb] = {**dict(zip(DECOYS, _DECOY_TINTS)), **dict(_NOVEL)}
    decoys = no_decoys()
    if level == 'hard':
        look = draw_look(generator('umbrella_rack', seed, 1))
        around = generator('umbrella_rack', seed, 2)
        table_dz = float(around.uniform(*TABLE_DZ))
        tint, frame = varied(around, tint), varied(around, frame)
        others, more = draw_clutter(around)
        strap = varied(around, strap)
    elif level == 'unseen_pose':
        odd = generator('umbrella_rack', seed, 3)
        umbrella = _spot(odd, UMBRELLA_X, UMBRELLA_Y, _UNSEEN)
        rack = _spot(odd, RACK_X, RACK_Y, _UNSEEN)
    elif level == 'novel_object':
        odd = generator('umbrella_rack', seed, 3)
        shape, _ = _NOVEL[int(odd.integers(len(_NOVEL)))]
    elif level == 'distractor':
        decoys = draw_decoys(generator('umbrella_rack', seed, 3), _DECOY_X, _DECOY_Y,
                             _DECOY_APART, (umbrella, rack), turned=True)
    turned = _outwards(umbrella, place), _outwards(rack, place)
    tints.update({'umbrella_canopy': tint, 'umbrella_strap': strap, 'rack_fore': frame,
                  'rack_aft': frame, **more})
    return Scenario(
        'umbrella_rack', seed, level, table_dz, look,
        (Place('umbrella', umbrella, turned[0]), Place('blocks', umbrella, turned[0]),
         Place('rack', rack, turned[1]), *decoys, *others), tints, _SHAPES[shape])


def _spots(scenario: Scenario) -> tuple[float, ...]:
    return tuple((value - low) / (high - low) for value, (low, high) in zip(
        (*scenario.at('umbrella'), *scenario.at('rack')),
        (UMBRELLA_X, UMBRELLA_Y, RACK_X, RACK_Y)))


RULES = TransferRules(
    thing='umbrella', goal='rack',
    stages=('reached', 'grasped', 'lifted', 'over the rack', 'racked'),
    grasp=(0.0, 0.0, _BLOCK + _RADIUS), reached=0.030, lifted=0.020, within=(0.045, _NOTCH),
    # Its origin lies a block lower than its underside.
    heights=(_RACK - _BLOCK - 0.006, _RACK - _BLOCK + 0.022), axis=0, off=np.radians(20.0),
    # Wherever it is taken: what counts is that it lies in the rack.
    along=(-0.085, 0.075))

TASK = Task(
    name='umbrella_rack',
    instruction='lay the umbrella into the rack',
    robots=('arx5_x5',),
    stages=RULES.stages,
    limit_s=16.0,
    draw=_draw,
    spots=_spots,
    judge=transfer_judge(RULES),
    things=('umbrella', 'rack', *DECOYS),
    on_table=_table_xml(),
    loose=_umbrella_xml(),
    variants=tuple(name for names_ in _SHAPES.values() for name in names_),
)
