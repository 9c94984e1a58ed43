"""Files that somebody wrote by hand or a program left: read whole, and only if small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mivla_core.errors import MivlaError

__all__ = ['read_json', 'read_yaml']


def read_yaml(path: Path, most: int, error: Callable[[str], MivlaError], what: str) -> Any:
    """
    Return what a YAML file holds, as plain data.

    :param most: a larger file is not opened [bytes].
    :param error: made and raised of a text that names the file.
    :param what: it should be, with its article; named in the text.
    """
    return _read(yaml.safe_load, path, most, error, what)


def read_json(path: Path, most: int, error: Callable[[str], MivlaError], what: str) -> Any:
    """Return what a JSON file holds; see ``read_yaml``."""
    return _read(json.loads, path, most, error, what)


def _read(parse: Callable[[str], Any], path: Path, most: int,
          error: Callable[[str], MivlaError], what: str) -> Any:
    try:
        if path.stat().st_size <= most:
            return parse(path.read_text(encoding='utf-8'))
    # ValueError: not UTF-8, not JSON, a date that is none; RecursionError: nested too deep.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as reason:
        raise error(f'{path}: cannot be read as {what}: '
                    f'{" ".join(str(reason).split())}') from reason
    raise error(f'{path}: larger than {most} bytes; not {what}')
