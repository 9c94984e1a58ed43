"""
Plain data (of JSON, of YAML) as dataclasses; what is unknown, missing or mistyped is an error.

The annotations of a dataclass are its schema: numbers, texts, tuples and mappings of them, and
other dataclasses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mivla_policy.errors import ConfigError

__all__ = ['LATER', 'check_keys', 'from_mapping']

T = TypeVar('T')

# Metadata of a field that older checkpoints lack: its default is what they were made with.
LATER = {'later': True}


def from_mapping(cls: type[T], data: Any, where: str, complete: bool = False) -> T:
    """
    Build a dataclass from a JSON or YAML object; unknown keys and wrong types are errors.

    :param where: named in errors.
    :param complete: every field must be there, even one with a default (but ``LATER`` ones).
    :raises ConfigError: naming the key.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f'{where}: expected an object, got {type(data).__name__}')
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(map(str, data)) - set(fields))
    if unknown:
        raise ConfigError(f'{where}: unknown key {unknown[0]!r}; known: {", ".join(fields)}')
    needed = [name for name, f in fields.items() if (complete and f.metadata != LATER) or (
        f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)]
    missing = [name for name in needed if name not in data]
    if missing:
        raise ConfigError(f'{where}: key {missing[0]!r} is missing')
    hints = get_type_hints(cls)
    values = {name: _value(value, hints[name], f'{where}.{name}', complete)
              for name, value in data.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}') from error


def _value(value: Any, kind: Any, where: str, complete: bool) -> Any:
    """Return ``value`` as the annotated type ``kind``, or raise ConfigError."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_mapping(kind, value, where, complete)
    outer = get_origin(kind) or kind
    if outer is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{where}: expected a list, got {value!r:.80}')
        return tuple(_value(v, get_args(kind)[0], where, complete) for v in value)
    if outer is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f'{where}: expected an object, got {value!r:.80}')
        return dict(value)
    accepted = (int, float) if outer is float else outer
    # bool is an int to Python, but 'depth: yes' is a mistake.
    if not isinstance(value, accepted) or (isinstance(value, bool) and outer is not bool):
        raise ConfigError(f'{where}: expected {outer.__name__}, got {value!r:.80}')
    if outer is float:
        value = float(value)
        if not math.isfinite(value):
            raise ConfigError(f'{where}: must be finite, got {value}')
    return value


def check_keys(data: Mapping[str, Any], known: set[str], where: str) -> None:
    """Raise ConfigError unless ``data`` has the known keys and no other."""
    for key in sorted(known ^ set(data)):
        raise ConfigError(f'{where}: key {key!r} is {"missing" if key in known else "unknown"}')
