"""Which policy is measured, and a digest that tells it from any other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mivla_bringup.errors import UsageError
from mivla_core.profile import RobotProfile
from mivla_policy.serve.port import Policy, available_policies, make_policy

__all__ = ['PolicyRef', 'parameters_of', 'policy_ref']

# Beside a checkpoint, but no part of what it does.
_ASIDE = ('evaluation.json', 'training.png', 'training.json')
# The plug-ins whose networks take the number of their threads: one each, since every core has a
# worker of its own.
_THREADED = ('act', 'bc', 'mivla', 'hrdt')


@dataclass(frozen=True)
class PolicyRef:
    """
    A policy as it was named, to be made in any process.

    :param name: for people.
    :param plug_in: of the entry points ``mivla.policies``.
    :param parameters: of the plug-in.
    :param digest: of all that decides what it does, 16 characters.
    """

    name: str
    plug_in: str
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    digest: str = ''

    @property
    def checkpoint(self) -> Path | None:
        """Its folder; None where it has none."""
        path = self.parameters.get('checkpoint')
        return Path(str(path)) if path else None

    def open(self, profile: RobotProfile) -> Policy:
        """Make it for a robot; raises PolicyError or CheckpointError."""
        threads = {'threads': 1} if self.plug_in in _THREADED else {}
        return make_policy(self.plug_in, [profile], {**threads, **self.parameters})


def parameters_of(given: Sequence[str]) -> dict[str, Any]:
    """
    Return the parameters of a plug-in as they were typed.

    :param given: KEY=VALUE each; a value is YAML.
    :raises UsageError: something else.
    """
    parameters: dict[str, Any] = {}
    for pair in given:
        key, found, value = pair.partition('=')
        if not found:
            raise UsageError(f'--parameter {pair!r}; expected KEY=VALUE')
        try:
            parameters[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as err:
            raise UsageError(f'--parameter {pair!r}: {" ".join(str(err).split())}') from err
    return parameters


def policy_ref(text: str, given: Sequence[str] = ()) -> PolicyRef:
    """
    Return the policy that was typed.

    :param text: a checkpoint's folder, whose network says the plug-in; or the name of a plug-in.
    :param given: its parameters, each KEY=VALUE.
    :raises UsageError: there is no such folder or plug-in.
    """
    parameters = parameters_of(given)
    name = plug_in = text
    if text not in available_policies() or os.sep in text:
        folder = Path(text).expanduser()
        if not (folder / 'config.json').is_file():
            raise UsageError(f'{text}: neither a checkpoint folder (config.json) nor a policy '
                             f'plug-in ({", ".join(available_policies())})')
        plug_in, name = _kind(folder), folder.name
        parameters = {'checkpoint': str(folder.absolute()), **parameters}
    elif parameters.get('checkpoint'):
        path = Path(str(parameters['checkpoint'])).expanduser().absolute()
        parameters['checkpoint'], name = str(path), f'{text} {path.name}'
    return PolicyRef(name, plug_in, parameters, _digest(plug_in, parameters))


def _kind(folder: Path) -> str:
    """Return the plug-in of a checkpoint: networks and plug-ins share their names."""
    try:
        kind = json.loads((folder / 'config.json').read_text()).get('model', {}).get('kind')
    except (OSError, ValueError, AttributeError) as err:
        raise UsageError(f'{folder}/config.json cannot be read: {err}') from err
    if kind is not None and kind not in available_policies():
        raise UsageError(f'{folder} holds a network of kind {kind!r}; installed are '
                         f'{", ".join(available_policies())}')
    return kind or 'mivla'


def _digest(plug_in: str, parameters: Mapping[str, Any]) -> str:
    """Hash plug-in, parameters and the checkpoint's files, wherever the folder stands."""
    rest = {key: value for key, value in parameters.items() if key != 'checkpoint'}
    digest = hashlib.sha256(json.dumps([plug_in, rest], sort_keys=True, default=str).encode())
    folder = Path(str(parameters.get('checkpoint') or ''))
    if parameters.get('checkpoint'):
        files = [folder] if folder.is_file() else sorted(
            path for path in folder.rglob('*') if path.is_file() and path.name not in _ASIDE
            and path.relative_to(folder).parts[0] != 'events')
        for path in files:
            digest.update(str(path.relative_to(folder)).encode() + b'\0')
            with path.open('rb') as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]
