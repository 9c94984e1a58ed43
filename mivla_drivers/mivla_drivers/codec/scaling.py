"""Turning SI values into wire integers, with a refusal that names the field and its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mivla_drivers.errors import CodecError

__all__ = ['Decoder', 'Encoder', 'to_wire', 'whole']

Encoder = Callable[[Any], tuple[int, bytes]]
Decoder = Callable[[int, bytes], Any]


def to_wire(name: str, value: float, per_unit: float, low: int, high: int) -> int:
    """
    Round ``value`` to the wire's integer.

    :param per_unit: counts per SI unit.
    :param low: smallest count the field carries; ``high`` the largest.
    :raises CodecError: not finite or out of range.
    """
    if not math.isfinite(value):
        raise CodecError(f'{name} is {value}; send a finite number')
    raw = round(value * per_unit)
    if not low <= raw <= high:
        raise CodecError(f'{name} {value:g} lies outside '
                         f'[{low / per_unit:g}, {high / per_unit:g}]')
    return raw


def whole(name: str, value: int, low: int, high: int) -> int:
    """Check an integer field; raises CodecError outside [low, high]."""
    if not low <= value <= high:
        raise CodecError(f'{name} {value} lies outside [{low}, {high}]')
    return int(value)
