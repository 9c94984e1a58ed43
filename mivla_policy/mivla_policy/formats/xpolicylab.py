"""
RoboTwin's new HDF5 files, version 1.0, which XPolicyLab reads.

::

    data/episode_0000000.hdf5
        state/left_arm_joint_states (T, 6), left_ee_joint_states (T, 1), right_...   measured
        action/...                  the same names, commanded: of the next row
        vision/<cam_head|cam_left_wrist|cam_right_wrist>/colors    JPEGs, shape (2,)
        instructions                a JSON list
        additional_info/frequency   rows per second
        data_format_version         v1.0

RoboTwin itself stores its drive targets as states and shifts them for the actions. Here the two
groups hold what they are called. JPEGs are swapped, as RoboTwin's are: OpenCV's decoder gives RGB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import h5py
import numpy as np

from mivla_core.images import decode_jpeg
from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Episode
from mivla_policy.errors import FormatError
from mivla_policy.formats import hdf5
from mivla_policy.formats.arms import (
    arm_schema,
    check_arms,
    chosen_pictures,
    episode_files,
    jpeg_column,
    write_jpegs,
)
from mivla_policy.formats.export import Progress, Source, hdf5_files
from mivla_policy.formats.rows import from_rows, to_rows
from mivla_policy.formats.schema import Schema

__all__ = ['default_schema', 'read', 'write']

VERSION = 'v1.0'
FPS = 15
CAMERAS = {'head': 'cam_head', 'left_wrist': 'cam_left_wrist', 'right_wrist': 'cam_right_wrist',
           'third_view': 'cam_third_view'}
PARTS = {'left_arm_joint_states': slice(0, 6), 'left_ee_joint_states': slice(6, 7),
         'right_arm_joint_states': slice(7, 13), 'right_ee_joint_states': slice(13, 14)}
ASSUMED = "the file's states are drive targets (RoboTwin's, shifted by a row)"
OURS = 'MiVLA'


def default_schema(profile: RobotProfile) -> Schema:
    """Return a robot's schema under XPolicyLab's names."""
    return arm_schema(profile, CAMERAS)


def write(sources: Sequence[Source], folder: Path, schema: Schema, fps: int,
          colours: str = 'swapped', workers: int = 1,
          progress: Optional[Progress] = None) -> int:
    """
    Write one file per episode, or those that an interrupted export left out.

    :param colours: one of ``arms.COLOURS``.
    :return: episodes.
    :raises FormatError: another number of columns than two arms have.
    """
    check_arms(schema, colours)
    return len(hdf5_files(
        'xpolicylab-v1.0', lambda number: f'data/episode_{number:07d}.hdf5',
        _Writer(schema, fps, colours), sources, folder,
        {'fps': fps, 'colours': colours, 'schema': asdict(schema)}, workers, progress))


@dataclass(frozen=True)
class _Writer:
    """Writes one file."""

    schema: Schema
    fps: int
    colours: str

    def __call__(self, path: Path, episode: Episode) -> None:
        rows = to_rows(episode, self.fps, tuple(self.schema.cameras))
        words = h5py.string_dtype('utf-8')
        with hdf5.new_file(path) as file:
            file.attrs.update(source_format=OURS, source_path=episode.source,
                              colours=self.colours)
            file.create_dataset('data_format_version', data=VERSION, dtype=words)
            file.create_dataset('instructions', data=json.dumps([episode.instruction]),
                                dtype=words)
            file['additional_info/frequency'] = np.int32(self.fps)
            for group, values in (('state', rows.states), ('action', rows.actions)):
                numbers = self.schema.outward(values, episode.joint_names)
                for name, columns in PARTS.items():
                    file[f'{group}/{name}'] = numbers[:, columns]
            for role, camera in self.schema.cameras.items():
                pictures = chosen_pictures(episode, rows, role, self.colours)
                write_jpegs(file, f'vision/{camera}/colors', pictures)
                file[f'vision/{camera}/shape'] = np.array(decode_jpeg(pictures[0]).shape[:2])


def read(path: Path, schema: Schema, joints: Sequence[str], fps: float = 0.0,
         instruction: str = '', colours: str = '') -> Iterator[Episode]:
    """
    Read a file, or every one below a folder.

    :param fps: rows per second; 0: what the file says.
    :param instruction: what was done; '': the file's first sentence.
    :param colours: one of ``arms.COLOURS``; '': what the file says, else 'swapped'.
    :raises FormatError: another version, or something is missing or does not fit.
    """
    for name in episode_files(path, 'episode_*.hdf5'):
        with hdf5.open_file(name) as file:
            version = hdf5.text(hdf5.dataset(file, 'data_format_version')[()], str(name))
            if version != VERSION:
                raise FormatError(f'{name}: version {version} of the format, {VERSION} is read')
            states = _vectors(file, 'state')
            actions = _vectors(file, 'action')
            if states.shape != actions.shape:
                raise FormatError(f'{name}: state {states.shape}, action {actions.shape}')
            ours = hdf5.attribute(file, 'source_format') == OURS
            told = colours or hdf5.attribute(file, 'colours') or 'swapped'
            pictures = {role: jpeg_column(file, f'vision/{camera}/colors', len(states), told)
                        for role, camera in schema.cameras.items()}
            rate = fps or float(hdf5.array(file, 'additional_info/frequency', ()))
            source = hdf5.attribute(file, 'source_path') if ours else str(name)
            sentence = instruction or _sentence(file, name)
        yield from_rows(source, sentence, rate, joints, schema.inward(states, joints),
                        schema.inward(actions, joints), pictures, assumed='' if ours else ASSUMED)


def _vectors(file: hdf5.Node, group: str) -> np.ndarray:
    """Return the two arms and grippers of a group (T, D)."""
    return np.column_stack([hdf5.array(file, f'{group}/{name}', (None, None)) for name in PARTS])


def _sentence(file: hdf5.Node, path: Path) -> str:
    """Return the first of a file's sentences."""
    told = hdf5.text(hdf5.dataset(file, 'instructions')[()], f'{path}: instructions')
    try:
        found: Any = json.loads(told)
    except ValueError as error:
        raise FormatError(f'{path}: instructions are no JSON: {error}') from error
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise FormatError(f'{path}: instructions {told[:80]!r}; expected a list of sentences')
    return found[0]
