"""
PiPER's firmware text: 0x4AF, asked with one frame, answered with eleven of eight bytes.

Layout of the 88 bytes: hardware at 0, batch at 16, board at 32, software 'S-Va.b-c' at 60, build
date at 68, node at 76.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from mivla_drivers.codec.scaling import whole
from mivla_drivers.errors import CodecError

__all__ = ['DH_OFFSET_SINCE', 'FRAMES', 'Firmware', 'FirmwareQuery', 'FirmwareText',
           'compose_firmware', 'parse_firmware', 'software_version']

CAN_ID = 0x4AF
FRAMES = 11
# From this firmware on the zero marks of J2 and J3 are shifted by 2 degrees.
DH_OFFSET_SINCE = (1, 6, 3)
_VERSION = re.compile(r'S-V(\d+)\.(\d+)-(\d+)')
_QUERY = b'\x01\0\0\0\0\0\0\0'


@dataclass(frozen=True, slots=True)
class FirmwareQuery:
    """0x4AF from a host."""


@dataclass(frozen=True, slots=True)
class FirmwareText:
    """0x4AF from the arm: the next eight bytes of its firmware text."""

    chunk: bytes


@dataclass(frozen=True, slots=True)
class Firmware:
    """What the firmware text says; ``version`` compares as (a, b, c) of 'S-Va.b-c'."""

    software: str
    version: tuple[int, int, int]
    hardware: str
    board: str
    built: str


def software_version(text: str) -> tuple[int, int, int]:
    """
    Parse 'S-V1.8-8' into (1, 8, 8).

    :raises CodecError: the text is not of that form.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise CodecError(f'firmware {text!r} is not of the form S-V1.8-8')
    return int(match[1]), int(match[2]), int(match[3])


def parse_firmware(chunks: Sequence[bytes]) -> Firmware:
    """
    Read the text of eleven chunks.

    :raises CodecError: too few chunks, or no software version in them.
    """
    data = b''.join(chunks)
    if len(data) < FRAMES * 8:
        raise CodecError(f'firmware text has {len(data)} of {FRAMES * 8} bytes')
    # Searched for everywhere: a second host's query interleaves another copy of the text.
    text = data.decode('ascii', errors='replace')
    start = text.find('S-V')
    # Eight characters wide, and the date follows without a gap: 'S-V1.8-8250101'.
    match = _VERSION.match(text[start:start + 8]) if start >= 0 else None
    if match is None:
        raise CodecError(f'no software version S-Va.b-c in the firmware text {data!r}')
    built = text[start + 8:start + 16].strip('\0 ')
    return Firmware(match[0], software_version(match[0]), _text(data[0:16]), _text(data[32:48]),
                    built)


def compose_firmware(software: str, hardware: str = 'H-V1.2-1', board: str = 'ARM_MC',
                     built: str = '250101') -> list[bytes]:
    """Compose the eleven chunks an arm would answer with."""
    software_version(software)
    data = bytearray(FRAMES * 8)
    for offset, room, text in ((0, 16, hardware), (32, 16, board), (60, 8, software),
                               (68, 8, built)):
        raw = text.encode('ascii')
        whole('firmware field length', len(raw), 0, room)
        data[offset:offset + len(raw)] = raw
    return [bytes(data[i:i + 8]) for i in range(0, FRAMES * 8, 8)]


def _text(raw: bytes) -> str:
    return raw.replace(b'\0', b' ').decode('ascii', errors='replace').strip()


def decode_firmware(can_id: int, data: bytes) -> Union[FirmwareQuery, FirmwareText]:
    """Tell a query (1 and zeros, or a single byte 1) from a piece of text."""
    if data[:1] == b'\x01' and not any(data[1:]):
        return FirmwareQuery()
    if len(data) != 8:
        raise CodecError(f'0x4AF with {len(data)} data bytes; expected 8')
    return FirmwareText(bytes(data))


def encode_query(frame: FirmwareQuery) -> tuple[int, bytes]:
    """Encode the query as the vendor's SDK does, eight bytes long."""
    return CAN_ID, _QUERY


def encode_text(frame: FirmwareText) -> tuple[int, bytes]:
    """Encode one piece of text."""
    whole('firmware chunk length', len(frame.chunk), 8, 8)
    return CAN_ID, bytes(frame.chunk)
