"""The bench that stands around the arm, as MJCF: floor, wall, table with the things of a task."""

from __future__ import annotations

import cv2
import numpy as np

from mivla_drivers.sim.arm_model import SimError

__all__ = ['ASSETS', 'BELL', 'TABLE_ASSETS', 'TABLE_MATERIALS', 'bench_xml', 'textures']

# Table surfaces between which a scenario chooses.
TABLE_MATERIALS = ('table_wood', 'table_speckle', 'table_plain')


class BELL:
    """Dimensions of the bell [m]; heights above the table."""

    BASE_RADIUS = 0.042
    DOME_RADIUS = 0.037
    BUTTON_RADIUS = 0.012
    BUTTON_TOP = 0.053
    TRAVEL = 0.006


_SKY = """
    <texture name="sky" type="skybox" builtin="gradient" rgb1="0.86 0.90 0.95"
      rgb2="0.55 0.62 0.70" width="64" height="384"/>"""
_TABLE_TEXTURES = """
    <texture name="wood" type="2d" file="wood.png"/>
    <texture name="speckle" type="2d" file="speckle.png"/>"""
_CHECKER = """
    <texture name="checker" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0.86 0.86 0.86"
      width="64" height="64"/>"""
_TABLE_MATERIALS = """
    <material name="table_wood" texture="wood" specular="0.15" shininess="0.3"/>
    <material name="table_speckle" texture="speckle" specular="0.1" shininess="0.2"/>
    <material name="table_plain" specular="0.2" shininess="0.3"/>"""
# What a scenario chooses between, for scenes that have a sky and a floor of their own.
TABLE_ASSETS = _TABLE_TEXTURES + _TABLE_MATERIALS
ASSETS = _SKY + _TABLE_TEXTURES + _CHECKER + _TABLE_MATERIALS + """
    <material name="floor" texture="checker" texrepeat="10 10" rgba="0.62 0.62 0.60 1"
      specular="0.05"/>
    <material name="wall" rgba="0.80 0.79 0.75 1" specular="0"/>
    <material name="leg" rgba="0.22 0.22 0.24 1" specular="0.2"/>
    <material name="arm_dark" rgba="0.13 0.14 0.16 1" specular="0.45" shininess="0.5"/>
    <material name="arm_light" rgba="0.93 0.93 0.92 1" specular="0.35" shininess="0.5"/>
    <material name="arm_metal" rgba="0.62 0.64 0.67 1" specular="0.7" shininess="0.7"/>
    <material name="arm_pad" rgba="0.16 0.16 0.17 1" specular="0.1"/>
    <material name="bell_base" rgba="0.10 0.09 0.08 1" specular="0.4" shininess="0.4"/>
    <material name="bell_dome" rgba="0.83 0.64 0.22 1" specular="0.9" shininess="0.8"/>
    <material name="bell_button" rgba="0.90 0.89 0.86 1" specular="0.8" shininess="0.8"/>
"""


def bench_xml(table_z: float, on_table: str) -> str:
    """
    Return table, things, floor and wall; the table top stands at ``table_z`` [m].

    Floor and wall come last because they are drawn in this order and the software renderer then
    skips what is hidden: a quarter of the cost of a picture.

    :param on_table: MJCF of bodies, in the frame of the table's top.
    """
    ghost = 'contype="0" conaffinity="0"'
    legs = ''.join(
        f'<geom type="box" size="0.03 0.03 0.34" pos="{x} {y} -0.38" material="leg" {ghost}/>'
        for x in (-0.10, 0.72)
        for y in (-0.46, 0.46)
    )
    surround = 'contype="2" conaffinity="1"'
    return f'''
    <body name="bench" pos="0 0 {table_z:.6g}">
    <body name="table">
      <geom name="table" type="box" size="0.48 0.55 0.02" pos="0.31 0 -0.02"
        material="{TABLE_MATERIALS[0]}" rgba="0.80 0.62 0.44 1"
        friction="0.9 0.01 0.001" {surround}/>
      {legs}
      {on_table}
    </body>
    </body>
    <body name="room">
      <geom name="floor" type="plane" size="4 4 0.1" pos="0 0 -0.72" material="floor" {surround}/>
      <geom name="wall" type="box" size="0.02 3 2" pos="-1.1 0 0.9" material="wall" {ghost}/>
    </body>'''


def _png(grey: np.ndarray) -> bytes:
    done, data = cv2.imencode('.png', np.clip(grey, 0, 255).astype(np.uint8))
    if not done:
        raise SimError('OpenCV could not encode a table texture as PNG')
    return data.tobytes()


def _smooth_noise(rng: np.random.Generator, rows: int, columns: int, size: int) -> np.ndarray:
    coarse = rng.normal(size=(rows, columns)).astype(np.float32)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def textures() -> dict[str, bytes]:
    """Return grey, tileless textures that a scenario tints: wood grain and speckled laminate."""
    size, rng = 512, np.random.default_rng(7)
    rows = np.linspace(0.0, 1.0, size, dtype=np.float32)[:, None]
    bend = 0.030 * _smooth_noise(rng, 6, 3, size)
    rings = np.sin(2.0 * np.pi * 26.0 * (rows + bend))
    fibre = _smooth_noise(rng, 512, 12, size)
    planks = 0.06 * rng.normal(size=5)[np.minimum((rows * 5).astype(int), 4)]
    seams = np.where(np.abs((rows * 5) % 1.0) < 0.012, -0.25, 0.0)
    wood = 218.0 * (1.0 + 0.055 * rings + 0.045 * fibre + planks + seams)
    speckle = (
        225.0 + 16.0 * _smooth_noise(rng, 256, 256, size) + 8.0 * _smooth_noise(rng, 24, 24, size)
    )
    return {'wood.png': _png(np.broadcast_to(wood, (size, size))), 'speckle.png': _png(speckle)}
