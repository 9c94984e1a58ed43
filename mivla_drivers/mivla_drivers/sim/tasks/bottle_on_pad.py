"""``bottle_on_pad``: pick a small bottle up and put it upright on a coloured pad."""

from __future__ import annotations

import numpy as np

from mivla_drivers.sim.tasks.base import Place, Scenario, Task, generator
from mivla_drivers.sim.tasks.clutter import CLUTTER_XML, SURROUND, draw_clutter, no_clutter
from mivla_drivers.sim.tasks.decoys import DECOYS, draw_decoys, no_decoys
from mivla_drivers.sim.tasks.look import PLAIN, Rgb, draw_look, varied
from mivla_drivers.sim.tasks.transfer import TransferRules, transfer_judge

__all__ = ['BOTTLE_X', 'BOTTLE_Y', 'PAD_HALF', 'PAD_X', 'PAD_Y', 'TASK']

# Where bottle and pad stand in the base frame [m]: a PiPER leans its gripper 1.0 rad outwards from
# straight down there, at the grasp and at the hover, with 0.2 rad to every limit of its joints.
BOTTLE_X, BOTTLE_Y = (0.33, 0.45), (-0.20, -0.06)
PAD_X, PAD_Y = (0.34, 0.44), (0.07, 0.19)
# Outside of them and reachable still: by so much nearer, farther, or to the side [m].
_UNSEEN = 0.035
TABLE_DZ = (-0.03, 0.03)        # of 'hard'; the table of 'easy' is where the profile has it
PAD_HALF = 0.065
# Bottles of another colour, about and so far from all others [m].
_DECOY_X, _DECOY_Y, _DECOY_APART = (0.30, 0.48), (-0.27, 0.27), 0.10

_RADIUS = 0.020
_BOTTLE: Rgb = (0.80, 0.16, 0.12)
_PAD: Rgb = (0.15, 0.35, 0.78)
_NOVEL: tuple[tuple[str, Rgb], ...] = (
    ('bottle_can', (0.15, 0.55, 0.22)), ('bottle_carton', (0.92, 0.78, 0.20)))
_DECOY_TINTS: tuple[Rgb, ...] = ((0.92, 0.60, 0.12), (0.50, 0.18, 0.55))

# A round hull for the fingers, which a capsule has at no cost, and a foot of four points, on
# which it stands without a wobble. The friction is rubber's: its own decides (priority).
_GRIP = 'user="3 3" contype="3" conaffinity="3" condim="4" friction="1.2 0.03 0.001" priority="1"'
_FOOT = 'contype="2" conaffinity="3" condim="3" friction="0.8 0.01 0.001" priority="1"'
_SEEN = 'contype="0" conaffinity="0" user="0 0"'


def _bottle_xml() -> str:
    feet = ''.join(
        f'<geom type="sphere" size="0.004" pos="{x} {y} 0.004" group="4" {_FOOT}/>'
        for x, y in ((0.014, 0.0), (-0.014, 0.0), (0.0, 0.014), (0.0, -0.014)))
    return f'''
    <body name="bottle" pos="0.39 -0.13 0">
      <freejoint name="bottle"/>
      <inertial mass="0.12" pos="0 0 0.045" diaginertia="1.6e-4 1.6e-4 3e-5"/>
      {feet}
      <geom name="bottle_grip" type="capsule" size="{_RADIUS}" fromto="0 0 0.024 0 0 0.080"
        group="4" {_GRIP}/>
      <geom name="bottle_hull" type="cylinder" size="{_RADIUS}" fromto="0 0 0.001 0 0 0.088"
        {_SEEN}/>
      <geom name="bottle_neck" type="cylinder" size="0.011" fromto="0 0 0.088 0 0 0.106"
        {_SEEN}/>
      <geom name="bottle_cap" type="cylinder" size="0.013" fromto="0 0 0.106 0 0 0.118"
        rgba="0.95 0.95 0.95 1" {_SEEN}/>
      <geom name="bottle_can_grip" type="capsule" size="0.025" fromto="0 0 0.028 0 0 0.072"
        group="4" {_GRIP}/>
      <geom name="bottle_can" type="cylinder" size="0.025" fromto="0 0 0.001 0 0 0.098" {_SEEN}/>
      <geom name="bottle_carton_grip" type="capsule" size="0.018" fromto="0 0 0.022 0 0 0.100"
        group="4" {_GRIP}/>
      <geom name="bottle_carton" type="box" size="0.018 0.018 0.064" pos="0 0 0.065" {_SEEN}/>
    </body>'''


_SHAPES = {
    'bottle_hull': ('bottle_grip', 'bottle_hull', 'bottle_neck', 'bottle_cap'),
    'bottle_can': ('bottle_can_grip', 'bottle_can'),
    'bottle_carton': ('bottle_carton_grip', 'bottle_carton'),
}


def _table_xml() -> str:
    decoys = ''.join(f'''
      <body name="{name}" pos="6 0 -3">
        <geom name="{name}" type="cylinder" size="0.021" fromto="0 0 0 0 0 0.092" {SURROUND}/>
        <geom name="{name}_neck" type="cylinder" size="0.011" fromto="0 0 0.092 0 0 0.116"
          {SURROUND}/>
      </body>''' for name in DECOYS)
    return f'''
      <body name="pad" pos="0.39 0.13 0">
        <geom name="pad" type="box" size="{PAD_HALF} {PAD_HALF} 0.0006" pos="0 0 0.0004"
          contype="0" conaffinity="0"/>
      </body>{decoys}{CLUTTER_XML}'''


def _spread(rng: np.random.Generator, x: tuple[float, float],
            y: tuple[float, float]) -> tuple[float, float]:
    return float(rng.uniform(*x)), float(rng.uniform(*y))


def _outside(rng: np.random.Generator, x: tuple[float, float], y: tuple[float, float],
             side: float) -> tuple[float, float]:
    """Draw a place beyond one of three edges of a range: nearer, farther or to the side."""
    away = float(rng.uniform(0.3, 1.0)) * _UNSEEN
    spot = list(_spread(rng, x, y))
    edge = int(rng.integers(3))
    if edge < 2:
        spot[0] = (x[0] - away, x[1] + away)[edge]
    else:
        spot[1] = (max(y) + away) if side > 0.0 else (min(y) - away)
    return spot[0], spot[1]


def _draw(seed: int, level: str) -> Scenario:
    place = generator('bottle_on_pad', seed, 0)
    bottle, pad = _spread(place, BOTTLE_X, BOTTLE_Y), _spread(place, PAD_X, PAD_Y)
    look, table_dz, (others, more) = PLAIN, 0.0, no_clutter()
    bottle_tint, pad_tint, shape = _BOTTLE, _PAD, 'bottle_hull'
    tints: dict[str, Rgb] = {**dict(zip(DECOYS, _DECOY_TINTS)), **dict(_NOVEL)}
    decoys = no_decoys()
    if level == 'hard':
        look = draw_look(generator('bottle_on_pad', seed, 1))
        around = generator('bottle_on_pad', seed, 2)
        table_dz = float(around.uniform(*TABLE_DZ))
        bottle_tint, pad_tint = varied(around, _BOTTLE), varied(around, _PAD)
        others, more = draw_clutter(around)
    elif level == 'unseen_pose':
        odd = generator('bottle_on_pad', seed, 3)
        bottle, pad = (_outside(odd, BOTTLE_X, BOTTLE_Y, -1.0),
                       _outside(odd, PAD_X, PAD_Y, 1.0))
    elif level == 'novel_object':
        odd = generator('bottle_on_pad', seed, 3)
        shape, _ = _NOVEL[int(odd.integers(len(_NOVEL)))]
    elif level == 'distractor':
        decoys = draw_decoys(generator('bottle_on_pad', seed, 3), _DECOY_X, _DECOY_Y,
                             _DECOY_APART, (bottle, pad))
    tints.update({'pad': pad_tint, 'bottle_hull': bottle_tint, 'bottle_neck': bottle_tint})
    tints.update(more)
    tints.update({f'{name}_neck': tint for name, tint in zip(DECOYS, _DECOY_TINTS)})
    return Scenario('bottle_on_pad', seed, level, table_dz, look,
                    (Place('bottle', bottle), Place('pad', pad), *decoys, *others), tints,
                    _SHAPES[shape])


def _spots(scenario: Scenario) -> tuple[float, ...]:
    return tuple((value - low) / (high - low) for value, (low, high) in zip(
        (*scenario.at('bottle'), *scenario.at('pad')), (BOTTLE_X, BOTTLE_Y, PAD_X, PAD_Y)))


RULES = TransferRules(
    thing='bottle', goal='pad',
    stages=('reached', 'grasped', 'lifted', 'over the pad', 'placed'),
    grasp=(0.0, 0.0, 0.072), reached=0.030, lifted=0.020, within=(0.050, 0.050),
    heights=(-0.008, 0.008), axis=2, off=np.radians(15.0))

TASK = Task(
    name='bottle_on_pad',
    instruction='put the bottle on the blue pad',
    robots=('piper',),
    stages=RULES.stages,
    limit_s=16.0,
    draw=_draw,
    spots=_spots,
    judge=transfer_judge(RULES),
    things=('bottle', *DECOYS),
    on_table=_table_xml(),
    loose=_bottle_xml(),
    variants=tuple(name for names_ in _SHAPES.values() for name in names_),
)
