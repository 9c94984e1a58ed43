"""``mivla doctor``: check this machine."""

from __future__ import annotations

from collections.abc import Sequence

from mivla_bringup.cli import Parser

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """Print one line per check; exit code 1 when one of them is bad."""
    Parser(prog=f'mivla {verb}', description='Check this machine, say what to mend, and remove '
           'dead shared-memory segments.').parse_args(argv)

    from mivla_bringup.checks import CHECKS, Level, run_checks
    worst = 0
    for check in CHECKS:
        finding = run_checks([check])[0]
        print(f'{finding.level.value:<5} {finding.name:<10} {finding.text}', flush=True)
        if finding.hint:
            print(f'{"":<16} -> {finding.hint}')
        worst |= finding.level is Level.BAD
    print('something has to be mended' if worst else 'this machine can run the suite')
    return int(worst)
