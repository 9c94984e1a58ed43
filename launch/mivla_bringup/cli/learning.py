"""The verbs of learning and evaluation, handed on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from mivla_bringup.errors import BringupError

__all__ = ['TARGETS', 'main']

# verb: (module, function of the remaining words that returns the exit code)
TARGETS = {
    'demo': ('mivla_bringup.demo', 'main'),
    'demonstrate': ('mivla_bringup.learn', 'demonstrate_main'),
    'generate-hands': ('mivla_bringup.generate_hands', 'main'),
    'pretrain': ('mivla_bringup.pretrain', 'main'),
    'ablation': ('mivla_bringup.ablation', 'main'),
    'finetune': ('mivla_bringup.finetune', 'main'),
    'train-demo': ('mivla_bringup.learn', 'train_demo_main'),
    'evaluate': ('mivla_bringup.evaluate', 'main'),
    'bench': ('mivla_bringup.bench', 'main'),
}


def main(verb: str, argv: Sequence[str]) -> int:
    """Call the function behind a verb."""
    module, function = TARGETS[verb]
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as err:
        if err.name != module:
            raise
        raise BringupError(f'{module} is not part of this installation') from err
    return int(getattr(loaded, function)(list(argv)))
