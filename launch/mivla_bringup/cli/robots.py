"""``mivla robots``: the robots that have a profile."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mivla_bringup.cli import Parser
from mivla_core.errors import MivlaError
from mivla_core.profile import available_profiles, load_profile

__all__ = ['main']


def main(verb: str, argv: Sequence[str]) -> int:
    """List profiles; exit code 1 when one of them is invalid."""
    Parser(prog=f'mivla {verb}', description='List the robots that have a profile.'
           ).parse_args(argv)
    broken = 0
    for name, path in available_profiles().items():
        try:
            profile = load_profile(name)
        except MivlaError as err:
            print(f'mivla {verb}: {err}', file=sys.stderr)
            broken += 1
            continue
        cameras = ', '.join(f'{camera.role} {camera.width}x{camera.height}@{camera.fps:g}'
                            for camera in profile.cameras)
        print(f'{name}\n  {profile.description}\n  {len(profile.joints)} joints at '
              f'{profile.rates.control:g} Hz · driver {profile.driver.backend} on '
              f'{profile.driver.interface}:{profile.driver.channel} · cameras '
              f'{cameras or "none"}\n  {path} (hash {profile.hash})')
    return 1 if broken else 0
