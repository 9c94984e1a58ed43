"""What the formats of two arms share: fourteen numbers a row, and pictures in HDF5 files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mivla_core.errors import ImageError
from mivla_core.images import MAX_IMAGE_PIXELS, decode_jpeg, encode_jpeg
from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Episode
from mivla_policy.errors import FormatError
from mivla_policy.formats import hdf5
from mivla_policy.formats.rows import Rows
from mivla_policy.formats.schema import Column, Schema

__all__ = ['ARM_COLUMNS', 'COLOURS', 'arm_schema', 'check_arms', 'chosen_pictures',
           'episode_files', 'jpeg_column', 'swapped', 'write_jpegs']

ARM_COLUMNS = (*(f'left_joint{i + 1}' for i in range(6)), 'left_gripper',
               *(f'right_joint{i + 1}' for i in range(6)), 'right_gripper')
# 'jpeg': an ordinary JPEG, which any viewer shows in true colours. 'swapped': RGB was given to an
# encoder that takes BGR, so that OpenCV's decoder, which gives BGR, gives RGB.
COLOURS = ('jpeg', 'swapped')
JPEG_QUALITY = 95
MAX_JPEG = 32 << 20


def arm_schema(profile: RobotProfile, cameras: Mapping[str, str], fps: int = 0) -> Schema:
    """
    Return a robot's schema in the formats of two arms.

    Its packing tells which of the fourteen numbers a joint is; an arm that it lacks stands still
    at 0. Grippers go from 0 (closed) to 1 (as wide as the profile permits).

    :param cameras: role -> name in the data set; roles that the robot lacks are left out.
    :raises FormatError: the robot has more than two arms of six joints and a gripper.
    """
    slots = {slot: name for name, slot in profile.packing.slots.items()}
    if profile.packing.space != 'joint14':
        raise FormatError(f'{profile.name} has {len(slots)} numbers in the space '
                          f'{profile.packing.space}, this format has two arms of six joints and a '
                          'gripper; say with a schema which of them go where')
    joints = {joint.name: joint for joint in profile.joints}
    columns = []
    for slot, column in enumerate(ARM_COLUMNS):
        name = slots.get(slot, '')
        wide = joints[name].upper if column.endswith('gripper') and name else 1.0
        columns.append(Column(column, name, 1.0 / wide))
    roles = {camera.role for camera in profile.cameras}
    # The only wrist of a single arm is that of the side on which its numbers stand.
    side = 'left' if profile.packing.side == 'left' else 'right'
    named = {'wrist': cameras[f'{side}_wrist'], **cameras}
    return Schema(tuple(columns), {role: name for role, name in named.items() if role in roles},
                  robot_type=profile.name, fps=fps)


def check_arms(schema: Schema, colours: str) -> None:
    """Raise FormatError unless there are the columns of two arms, and such colours."""
    if colours not in COLOURS or len(schema.columns) != len(ARM_COLUMNS):
        raise FormatError(f'{len(schema.columns)} columns, colours {colours!r}; expected the '
                          f'{len(ARM_COLUMNS)} of two arms, and one of {", ".join(COLOURS)}')


def chosen_pictures(episode: Episode, rows: Rows, role: str, colours: str) -> list[bytes]:
    """
    Return a camera's pictures of the rows as JPEG; ordinary ones are the bytes of the recording.

    :param colours: one of ``COLOURS``; 'swapped' costs a second encoding, of quality 95.
    """
    frames = episode.cameras[role].frames
    if colours == 'jpeg':
        return [frames[index] for index in rows.frames[role].tolist()]
    made: dict[int, bytes] = {}
    for index in rows.frames[role].tolist():
        if index not in made:
            made[index] = swapped(frames[index], f'{episode.source}: camera {role}')
    return [made[index] for index in rows.frames[role].tolist()]


def swapped(picture: bytes, where: str) -> bytes:
    """Return a JPEG with red and blue exchanged; raise FormatError where it is none."""
    try:
        return encode_jpeg(decode_jpeg(picture)[..., ::-1], JPEG_QUALITY)
    except ImageError as error:
        raise FormatError(f'{where}: {error}') from error


def write_jpegs(node: hdf5.Node, name: str, pictures: Sequence[bytes]) -> None:
    """Write pictures as strings of one length, padded with zeros, as RoboTwin does."""
    longest = max(map(len, pictures))
    node.create_dataset(name, data=np.array(pictures, dtype=f'S{longest}'))


def jpeg_column(node: hdf5.Node, name: str, rows: int, colours: str) -> list[bytes]:
    """
    Read pictures that are stored one per row, in any of the ways that are met.

    Strings of one length, byte rows padded with zeros, arrays of bytes of any length, or pictures
    as they are (rows, H, W, 3) RGB; the last are encoded, of quality 95.

    :param colours: of what is stored as JPEG.
    :raises FormatError: other rows, another kind, or too large.
    """
    found = hdf5.dataset(node, name)
    where = f'{node.file.filename}: {found.name}'
    if not found.shape or found.shape[0] != rows:
        raise FormatError(f'{where} has shape {found.shape}; {rows} pictures are needed')
    if found.ndim == 4:
        return [_encode(found, row, where) for row in range(rows)]
    if found.ndim > 2 or (found.dtype.kind == 'S' and found.dtype.itemsize > MAX_JPEG) or (
            found.ndim == 2 and (found.dtype != np.uint8 or found.shape[1] > MAX_JPEG)):
        raise FormatError(f'{where} holds {found.dtype} {found.shape}; expected JPEGs')
    pictures = [_bytes(found[row], where) for row in range(rows)]
    if colours == 'swapped':
        pictures = [swapped(picture, where) for picture in pictures]
    return pictures


def _encode(found: h5py.Dataset, row: int, where: str) -> bytes:
    """Return one stored picture as JPEG."""
    height, width, channels = found.shape[1:]
    if found.dtype != np.uint8 or channels != 3 or not 0 < height * width <= MAX_IMAGE_PIXELS:
        raise FormatError(f'{where} holds {found.dtype} {found.shape}; expected uint8 pictures')
    picture: NDArray[np.uint8] = found[row]
    return encode_jpeg(picture, JPEG_QUALITY)


def _bytes(value: Any, where: str) -> bytes:
    """Return one stored JPEG; zeros behind it are padding."""
    data = value.tobytes() if isinstance(value, np.ndarray) else value
    if not isinstance(data, bytes) or not data[:2] == b'\xff\xd8' or len(data) > MAX_JPEG:
        raise FormatError(f'{where} holds something else than JPEGs')
    return data.rstrip(b'\0')


def episode_files(path: Path, pattern: str) -> list[Path]:
    """
    Return the HDF5 files of a data set in the order of their numbers.

    :param pattern: of the file's name, such as 'episode*.hdf5'; looked for in every folder.
    :raises FormatError: there is none.
    """
    found = [path] if path.is_file() else sorted(
        path.rglob(pattern), key=lambda file: (str(file.parent), _number(file), file.name))
    if not found:
        raise FormatError(f'{path}: no file {pattern}')
    return found


def _number(path: Path) -> int:
    digits = re.findall(r'\d+', path.stem)
    return int(digits[-1]) if digits else -1
