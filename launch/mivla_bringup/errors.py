"""
Errors of bring-up and of the ``mivla`` command.

    MivlaError
    └── BringupError        the stack or a command could not do what was asked     exit code 1
        └── UsageError      what was typed is not valid; says what would be        exit code 2
"""

from mivla_core.errors import MivlaError

__all__ = ['BringupError', 'UsageError']


class BringupError(MivlaError):
    """The stack cannot be started or operated as asked."""


class UsageError(BringupError):
    """An argument is unknown or has no such value; the message lists the valid ones."""
