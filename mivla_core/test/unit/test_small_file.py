"""Small files: whatever is wrong with one is a single error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mivla_core.errors import MivlaError, ProfileError
from mivla_core.small_file import read_json, read_yaml


def test_what_they_hold_is_returned(tmp_path: Path) -> None:
    path = tmp_path / 'file'
    path.write_text('{"a": [1, 2.5, "x", null]}')
    for read in (read_json, read_yaml):
        assert read(path, 26, ProfileError, 'a profile') == {'a': [1, 2.5, 'x', None]}


@pytest.mark.parametrize('read', [read_json, read_yaml])
@pytest.mark.parametrize('content, said', [
    (None, 'No such file'), (b'\xff', "can't decode"), (b'[' * 4000, 'recursion'),
    (b'[1,', ''), (b' ' * 5000, 'larger than 4999 bytes'),
    (b'2026-13-01', '')])
def test_every_fault_is_the_error_that_was_asked_for(
        tmp_path: Path, read: object, content: bytes | None, said: str) -> None:
    path = tmp_path / 'file'
    if content is not None:
        path.write_bytes(content)
    assert callable(read)
    with pytest.raises(ProfileError) as caught:
        read(path, 4999, ProfileError, 'a profile')
    text = str(caught.value)
    assert isinstance(caught.value, MivlaError) and '\n' not in text
    assert text.startswith(f'{path}: ') and 'a profile' in text and said in text
