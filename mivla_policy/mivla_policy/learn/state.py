"""
What resumes a training: a folder with the last state, as plain numbers and JSON.

``state.json`` names the file of tensors beside it and is replaced last, so that a save that is cut
short leaves the one before it. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mivla_core.small_file import read_json
from mivla_policy.errors import CheckpointError
from mivla_policy.model.tensor_file import read_tensors

__all__ = ['Running', 'State', 'load_state', 'save_state']

FORMAT, VERSION = 'mivla-training', 1
STATE = 'state.json'
MAX_JSON_BYTES = 256 << 20
MOMENTS = ('exp_avg', 'exp_avg_sq', 'step')      # of AdamW, per parameter


@dataclass
class Running:
    """
    Where a training stands, as numbers.

    :param losses: of every step.
    :param holdout: (step, loss) on episodes left out.
    :param seconds: spent on the steps.
    :param waited: seconds of them spent waiting for batches.
    :param best: lowest loss on episodes left out.
    :param since_best: looks since then.
    """

    losses: list[float] = field(default_factory=list)
    holdout: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0
    best: float = float('inf')
    since_best: int = 0


@dataclass(frozen=True)
class State:
    """
    Everything that decides how a training goes on.

    :param running: numbers.
    :param tensors: of the network, its average, the best one, the optimizer and the batches.
    :param identity: what must be the same when it is resumed: configuration, recipe, seed, data.
    """

    running: Running
    tensors: Mapping[str, Tensor]
    identity: Mapping[str, Any]


def named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Return a network's tensors under a prefix."""
    return {f'{prefix}.{name}': value for name, value in module.state_dict().items()}


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it."""
    return {name[len(prefix) + 1:]: value for name, value in tensors.items()
            if name.startswith(f'{prefix}.')}


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's memory by the number of the parameter."""
    return {f'optimizer.{number}.{name}': values[name]
            for number, values in optimizer.state_dict()['state'].items() for name in MOMENTS}


def restore_moments(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer the memory that ``moments`` returned."""
    memory: dict[int, dict[str, Tensor]] = {}
    for name, value in part(tensors, 'optimizer').items():
        number, _, kind = name.partition('.')
        memory.setdefault(int(number), {})[kind] = value
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': memory, 'param_groups': groups})


def save_state(folder: Path, state: State) -> Path:
    """
    Write a state; it replaces the one that is there, or nothing does.

    :raises CheckpointError: the folder cannot be written.
    """
    step = len(state.running.losses)
    name = f'state-{step:08d}.safetensors'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f'.{name}.part'
        save_file({key: value.detach().cpu().contiguous()
                   for key, value in state.tensors.items()}, scratch)
        _replace(scratch, folder / name)
        data = {'format': FORMAT, 'version': VERSION, 'tensors': name,
                'identity': dict(state.identity), **vars(state.running)}
        scratch = folder / f'.{STATE}.part'
        scratch.write_text(json.dumps(data) + '\n', encoding='utf-8')
        _replace(scratch, folder / STATE)
        for old in folder.glob('state-*.safetensors'):
            if old.name != name:
                old.unlink()
    except OSError as error:
        raise CheckpointError(f'{folder}: the training cannot be saved: {error}') from error
    return folder / name


def load_state(folder: Path, identity: Optional[Mapping[str, Any]] = None) -> State:
    """
    Read what ``save_state`` wrote.

    :param identity: of the training that goes on.
    :raises CheckpointError: absent, damaged, or of another training: names what differs.
    """
    file = folder / STATE
    if not file.exists():
        raise CheckpointError(f'{folder}: no training to resume: {STATE} is not there')
    data = read_json(file, MAX_JSON_BYTES, CheckpointError, 'the state of a training')
    if not isinstance(data, dict) or (data.get('format'), data.get('version')) != (
            FORMAT, VERSION):
        raise CheckpointError(f'{file}: not version {VERSION} of {FORMAT}')
    try:
        running = Running(
            losses=[float(v) for v in data['losses']],
            holdout=[(int(step), float(loss)) for step, loss in data['holdout']],
            seconds=float(data['seconds']), waited=float(data['waited']),
            best=float(data['best']), since_best=int(data['since_best']))
        name, known = str(data['tensors']), dict(data['identity'])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f'{file}: damaged: {error!r}') from error
    if identity is not None:
        # Through JSON, as the stored one has been.
        ours = json.loads(json.dumps(dict(identity)))
        for key in sorted(set(ours) | set(known)):
            if ours.get(key) != known.get(key):
                raise CheckpointError(
                    f'{folder}: the training there has another {key}: '
                    f'{json.dumps(known.get(key))[:200]}, not {json.dumps(ours.get(key))[:200]}; '
                    'resume it with what it was started with, or begin anew elsewhere')
    if Path(name).name != name:
        raise CheckpointError(f'{file}: names the file {name!r}, which is not beside it')
    return State(running, read_tensors(folder / name), known)


def _replace(scratch: Path, target: Path) -> None:
    """Put a file in its place, on the disk."""
    with scratch.open('rb') as file:
        os.fsync(file.fileno())
    scratch.replace(target)
