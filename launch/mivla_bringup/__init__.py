"""Bring-up of the MiVLA suite: the stack, its two starters and the ``mivla`` command."""
