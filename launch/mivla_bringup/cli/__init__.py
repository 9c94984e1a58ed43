"""
The ``mivla`` command: one verb, one thin module; the work is in the packages.

Exit codes: 0 done; 1 it failed, with one line on standard error that says why; 2 what was typed is
not valid; 130 Ctrl-C. Verbs are imported when they are used, so that ``mivla --help`` is quick.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, Optional

__all__ = ['Parser', 'VERBS', 'main']

# verb: (module, line of help). The order is that of the help page.
VERBS: dict[str, tuple[str, str]] = {
    'up': ('up', 'start the stack and keep it running; space bar stops the robot'),
    'switch': ('switch', 'another robot in a running stack; the policy server stays warm'),
    'stop': ('stop', 'stop every robot, now (a software stop)'),
    'status': ('status', 'all running robots on one screen'),
    'enable': ('operate', 'switch torque on; the arm holds where it is'),
    'disable': ('operate', 'switch torque off, in the rest pose: "mivla rest" goes there'),
    'reset': ('operate', 'resume after a stop or a fault; never moves the robot'),
    'home': ('operate', 'move to the home pose, where work begins'),
    'rest': ('operate', 'move to the rest pose, where "mivla disable" lets nothing fall'),
    'posture': ('operate', 'change the posture of a robot on legs: stance, locomotion, ...'),
    'mode': ('operate', 'name the source that may command: idle, teleop, policy'),
    'blackbox': ('blackbox', 'what a robot saw and did before its last stops and faults'),
    'record': ('record', 'record episodes of a running robot'),
    'episodes': ('episodes', 'list, check, repair, replay, trim, report recorded episodes'),
    'dataset': ('dataset', 'report on a data set; export and import other formats'),
    'demonstrate': ('learning', 'record the scripted expert of a simulated task'),
    'generate-hands': ('learning', 'draw hands that do a simulated task, as EgoDex has them'),
    'pretrain': ('learning', 'let hands and robots learn from each other'),
    'finetune': ('learning', 'train a policy from recorded episodes'),
    'train-demo': ('learning', 'make the demo policy: record, train, evaluate'),
    'evaluate': ('learning', 'measure the success rate of a policy'),
    'ablation': ('learning', 'measure what mutual-imitation pre-training is worth'),
    'robotwin': ('robotwin', 'our policies in RoboTwin 2.0: install, run, table'),
    'bench': ('learning', 'run a benchmark'),
    'demo': ('learning', 'watch a simulated robot do its task'),
    'policy': ('policy', 'list policy plug-ins, check one on an episode, calibrate its warning'),
    'instructions': ('instructions', 'encode or list instructions for policies that read T5'),
    'robots': ('robots', 'list the robots that have a profile'),
    'profile': ('profile', 'show, compare or validate robot profiles'),
    'doctor': ('doctor', 'check this machine, or a robot; says what to mend'),
    'calibrate': ('calibrate', 'measure cameras, where they sit, grippers and servos'),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(2, f'{self.prog}: {message}; see "{self.prog} --help"\n')


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ('-h', '--help', 'help'):
        print(_help())
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f' (did you mean {near[0]}?)' if near else ''
        print(f'mivla: unknown command {verb!r}{hint}; valid: {", ".join(VERBS)}',
              file=sys.stderr)
        return 2
    return _run(verb, rest)


def _run(verb: str, rest: Sequence[str]) -> int:
    from mivla_bringup.errors import UsageError
    from mivla_core.errors import MivlaError
    try:
        module = import_module(f'mivla_bringup.cli.{VERBS[verb][0]}')
        code = int(module.main(verb, rest))
        # Here, where a reader that has gone can still be handled, not at the interpreter's exit.
        sys.stdout.flush()
        return code
    except MivlaError as err:
        print(f'mivla {verb}: {err}', file=sys.stderr)
        return 2 if isinstance(err, UsageError) else 1
    except KeyboardInterrupt:
        print(f'mivla {verb}: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (a pager, head): not an error, but nothing more can
        # be written, not even by the interpreter on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _help() -> str:
    width = max(map(len, VERBS))
    lines = ['usage: mivla COMMAND ...', '', 'commands:']
    lines += [f'  {verb:<{width}}  {text}' for verb, (_, text) in VERBS.items()]
    lines += ['', 'mivla COMMAND --help says more. Example:',
              '  mivla up robot:=piper sim:=true teleop:=expert']
    return '\n'.join(lines)
