"""
What PiPER's firmware versions change about the meaning of its numbers.

Zero marks: with ``dh_offset`` 0 (firmware before S-V1.6-3) the modified-DH offsets of J2 and J3
are -174.22 and -100.78 degrees, with 1 they are -172.22 and -102.78. The same physical pose reads
``q(1) = q(0) - 2`` degrees at J2 and ``q(0) + 2`` at J3. Profiles use convention 1.

Effort: current times a constant per motor size; firmware up to S-V1.8-2 reports a quarter of the
current of J1-J3. Source: the vendor SDK and its release notes (reference facts, not measured).
"""

from __future__ import annotations

import math

import numpy as np

from mivla_drivers.codec.piper_firmware import DH_OFFSET_SINCE

__all__ = ['JOINTS', 'PROFILE_ZERO', 'dh_offset_of', 'effort_per_ampere', 'flange_pose',
           'profile_shift']

JOINTS = 6
PROFILE_ZERO = 'piper-mdh-offset1'

_SHIFT = {
    1: np.zeros(JOINTS),
    0: np.array([0.0, math.radians(-2.0), math.radians(2.0), 0.0, 0.0, 0.0]),
}
_EFFORT = np.array([1.18125, 1.18125, 1.18125, 0.95844, 0.95844, 0.95844])    # N·m/A
_QUARTER_UNTIL = (1, 8, 2)


def dh_offset_of(version: tuple[int, int, int]) -> int:
    """Return the zero convention (0 or 1) that a firmware version uses."""
    return 1 if version >= DH_OFFSET_SINCE else 0


def profile_shift(dh_offset: int) -> np.ndarray:
    """Return (6,) rad to add to a device's joint angles to get the profile's."""
    return _SHIFT[dh_offset].copy()


def effort_per_ampere(version: tuple[int, int, int]) -> np.ndarray:
    """Return (6,) N·m per reported ampere."""
    factor = _EFFORT.copy()
    if version <= _QUARTER_UNTIL:
        factor[:3] *= 4.0
    return factor


# Modified DH (Craig) of convention 1: alpha [rad], a [m], theta offset [rad], d [m].
_MDH = (
    (0.0, 0.0, 0.0, 0.123),
    (-math.pi / 2, 0.0, math.radians(-172.22), 0.0),
    (0.0, 0.28503, math.radians(-102.78), 0.0),
    (math.pi / 2, -0.02198, 0.0, 0.25075),
    (-math.pi / 2, 0.0, 0.0, 0.0),
    (math.pi / 2, 0.0, 0.0, 0.091),
)


def flange_pose(q: np.ndarray) -> tuple[float, float, float, float, float, float]:
    """
    Return the flange pose the arm itself reports: x, y, z [m], rx, ry, rz [rad], R = Rz Ry Rx.

    :param q: (6,) or longer, profile convention.
    """
    r: tuple[tuple[float, ...], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    x = y = z = 0.0
    for angle, (alpha, a, offset, d) in zip(q.tolist(), _MDH):
        ct, st = math.cos(angle + offset), math.sin(angle + offset)
        ca, sa = math.cos(alpha), math.sin(alpha)
        px, py, pz = a, -sa * d, ca * d
        x += r[0][0] * px + r[0][1] * py + r[0][2] * pz
        y += r[1][0] * px + r[1][1] * py + r[1][2] * pz
        z += r[2][0] * px + r[2][1] * py + r[2][2] * pz
        # Columns of Rx(alpha) Rz(theta).
        first, second, third = (ct, st * ca, st * sa), (-st, ct * ca, ct * sa), (0.0, -sa, ca)
        r = tuple(tuple(row[0] * c[0] + row[1] * c[1] + row[2] * c[2]
                        for c in (first, second, third)) for row in r)
    return (x, y, z, math.atan2(r[2][1], r[2][2]),
            math.atan2(-r[2][0], math.hypot(r[0][0], r[1][0])), math.atan2(r[1][0], r[0][0]))
