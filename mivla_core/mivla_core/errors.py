"""
The root of the suite's error tree.

A message says what failed, which value did it, and what to do; it is one line, because a command
line prints it as it is.

    MivlaError
    ├── ProfileError      robot profile: unknown, malformed, inconsistent
    ├── ImageError        picture that cannot be decoded or converted
    └── (each package adds its own: DriverError, CheckpointError, RecordingError, ...)
"""

__all__ = ['ImageError', 'MivlaError', 'ProfileError']


class MivlaError(Exception):
    """Something that an operator or engineer can act on; never a programming mistake."""


class ProfileError(MivlaError):
    """A robot profile is unknown, malformed or contradicts itself."""


class ImageError(MivlaError):
    """A picture cannot be decoded, encoded or converted."""
