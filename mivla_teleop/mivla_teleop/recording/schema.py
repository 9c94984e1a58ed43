"""
Message definitions as MCAP's ``ros2msg`` schema text, from the installed ``.msg`` files.

The text of a type is its own definition followed by those of every type it uses, each behind a
line of 80 ``=`` and ``MSG: package/Name``. Comments stay, so that a bag carries its own units.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mivla_teleop.recording.errors import RecordingError

__all__ = ['MessageSchemas']

_SEPARATOR = '=' * 80
_PRIMITIVES = frozenset((
    'bool', 'byte', 'char', 'float32', 'float64', 'int8', 'uint8', 'int16', 'uint16', 'int32',
    'uint32', 'int64', 'uint64', 'string', 'wstring'))
_FIELD = re.compile(r'^(?P<type>[A-Za-z][A-Za-z0-9_/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]')


class MessageSchemas:
    """
    Build schema texts of message types.

    :param share: maps a package to its share folder, for instance
        ``ament_index_python.get_package_share_directory``.
    """

    def __init__(self, share: Callable[[str], str | Path]) -> None:
        self._share = share
        self._texts: dict[str, str] = {}

    def text(self, msgtype: str) -> str:
        """
        Return the ``ros2msg`` text of a type.

        :param msgtype: 'package/msg/Name'.
        :raises RecordingError: its definition, or one it uses, is not installed.
        """
        parts = [self._definition(msgtype)]
        seen = {msgtype}
        todo = self._uses(msgtype)
        while todo:
            name = todo.pop(0)
            if name in seen:
                continue
            seen.add(name)
            package, _, short = name.split('/')
            parts.append(f'{_SEPARATOR}\nMSG: {package}/{short}\n{self._definition(name)}')
            todo.extend(self._uses(name))
        return '\n'.join(parts)

    def _definition(self, msgtype: str) -> str:
        if msgtype not in self._texts:
            package, _, name = msgtype.split('/')
            try:
                path = Path(self._share(package), 'msg', f'{name}.msg')
                self._texts[msgtype] = path.read_text(encoding='utf-8').strip('\n')
            except (OSError, LookupError) as err:
                raise RecordingError(
                    f'no definition of {msgtype}: {err}; is {package} installed and sourced?'
                ) from err
        return self._texts[msgtype]

    def _uses(self, msgtype: str) -> list[str]:
        package = msgtype.split('/')[0]
        used = []
        for line in self._definition(msgtype).splitlines():
            match = _FIELD.match(line.split('#')[0].strip())
            if match is None or match['type'] in _PRIMITIVES:
                continue
            steps = match['type'].split('/')
            if len(steps) == 1:
                owner = 'std_msgs' if steps[0] == 'Header' else package
                used.append(f'{owner}/msg/{steps[0]}')
            else:
                used.append(f'{steps[0]}/msg/{steps[-1]}')
        return used
