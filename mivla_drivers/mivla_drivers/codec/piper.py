"""
The PiPER codec: ``encode(frame) -> (can_id, data)`` and ``decode(can_id, data) -> frame``.

One frozen dataclass per kind of frame, SI units, both directions; what an id means stands at the
class. ``decode`` returns None for an id that is none of PiPER's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mivla_drivers.codec import piper_command, piper_feedback, piper_firmware
from mivla_drivers.codec.piper_command import *  # noqa: F403 (re-exported)
from mivla_drivers.codec.piper_feedback import *  # noqa: F403 (re-exported)
from mivla_drivers.codec.piper_firmware import *  # noqa: F403 (re-exported)
from mivla_drivers.codec.piper_words import *  # noqa: F403 (re-exported)
from mivla_drivers.codec.scaling import Decoder, Encoder
from mivla_drivers.errors import CodecError

_MIT_IDS = range(0x15A, 0x160)
_ENCODERS: Mapping[type, Encoder] = MappingProxyType({
    **piper_feedback.ENCODERS, **piper_command.ENCODERS,
    piper_firmware.FirmwareQuery: piper_firmware.encode_query,
    piper_firmware.FirmwareText: piper_firmware.encode_text,
})
# A plain dict: looked up 3,000 times a second.
_DECODERS: dict[int, Decoder] = {**piper_feedback.DECODERS, **piper_command.DECODERS}

FRAME_KINDS = tuple(_ENCODERS)
IDS = frozenset({*_DECODERS, *_MIT_IDS, piper_firmware.CAN_ID})


def encode(frame: Any) -> tuple[int, bytes]:
    """
    Encode a frame.

    :raises CodecError: a value does not fit (names it and its range), or no frame of PiPER's.
    """
    encoder = _ENCODERS.get(type(frame))
    if encoder is None:
        raise CodecError(f'{type(frame).__name__} is no frame of PiPER\'s')
    return encoder(frame)


def decode(can_id: int, data: bytes, *, mit_wide: bool = False) -> Any:
    """
    Decode a frame; None when the id is none of PiPER's.

    :param mit_wide: read 0x15A-0x15F as firmware S-V1.8-8 and newer packs them.
    :raises CodecError: wrong length, or a command with a value outside its range.
    """
    decoder = _DECODERS.get(can_id)
    if decoder is not None and len(data) == 8:
        try:
            return decoder(can_id, data)
        except struct.error as err:
            raise CodecError(f'0x{can_id:03X} {bytes(data).hex()}: {err}') from err
    if can_id == piper_firmware.CAN_ID:
        return piper_firmware.decode_firmware(can_id, data)
    if can_id not in IDS:
        return None
    if len(data) != 8:
        raise CodecError(f'0x{can_id:03X} with {len(data)} data bytes; expected 8')
    return piper_command.decode_mit(can_id, data, mit_wide)
