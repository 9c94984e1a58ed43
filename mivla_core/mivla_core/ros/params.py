"""
Node parameters as one frozen dataclass: declaration, default, range and documentation.

    @dataclass(frozen=True)
    class CameraParams:
        robot: str = param('piper', 'Robot profile: a name or a path.')
        rate_hz: float = param(30.0, 'Frame rate [Hz].', low=1.0, high=240.0)

    params = declare(node, CameraParams)

Parameters are read only: a change of meaning while a robot runs is a restart.
"""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from typing import Any, Optional, Sequence, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from mivla_core.errors import MivlaError

__all__ = ['ParameterError', 'declare', 'param']

_P = TypeVar('_P')


class ParameterError(MivlaError):
    """A node parameter has a value it cannot have."""


def param(default: Any, description: str, *, low: Optional[float] = None,
          high: Optional[float] = None, choices: Optional[Sequence[Any]] = None) -> Any:
    """
    Describe one parameter; use as the default of a dataclass field.

    :param default: its type is the parameter's type (bool, int, float, str or list of one).
    :param low: least value, inclusive.
    :param high: greatest value, inclusive.
    :param choices: the valid values, where they are finite.
    """
    metadata = {'description': description, 'low': low, 'high': high, 'choices': choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def declare(node: Node, cls: type[_P]) -> _P:
    """
    Declare every field of ``cls`` on ``node`` and return the values as an instance.

    :raises ParameterError: a value outside its range or choices, or of the wrong type.
    """
    values = {}
    for spec in fields(cls):  # type: ignore[arg-type]
        default = spec.default if spec.default is not MISSING else (
            spec.default_factory())  # type: ignore[misc]
        meta = spec.metadata
        descriptor = ParameterDescriptor(description=meta['description'], read_only=True)
        if meta['choices'] is not None:
            descriptor.additional_constraints = f'one of {list(meta["choices"])}'
        low, high = meta['low'], meta['high']
        if low is not None or high is not None:
            if isinstance(default, float):
                descriptor.floating_point_range = [FloatingPointRange(
                    from_value=float(low if low is not None else -1e308),
                    to_value=float(high if high is not None else 1e308))]
            else:
                descriptor.integer_range = [IntegerRange(
                    from_value=int(low if low is not None else -2**63),
                    to_value=int(high if high is not None else 2**63 - 1))]
        try:
            value = node.declare_parameter(spec.name, default, descriptor).value
        except Exception as err:  # rclpy has one exception class per kind of refusal
            raise ParameterError(f'{node.get_name()}: parameter {spec.name}: {err}') from err
        if meta['choices'] is not None and value not in meta['choices']:
            raise ParameterError(f'{node.get_name()}: parameter {spec.name}={value!r}; '
                                 f'valid: {list(meta["choices"])}')
        values[spec.name] = list(value) if isinstance(default, list) else value
    return cls(**values)
