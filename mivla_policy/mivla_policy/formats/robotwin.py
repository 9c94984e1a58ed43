"""
RoboTwin's classic HDF5 files, and the folders that H-RDT trains from, which are the same files.

::

    <folder>/data/episode<i>.hdf5
        joint_action/left_arm (T, 6), left_gripper (T,), right_arm, right_gripper, vector (T, 14)
        observation/<head_camera|left_camera|right_camera>/rgb    JPEGs, strings of one length
    <folder>/instructions/episode<i>.json    {"seen": [...], "unseen": [...]}

``joint_action`` is the drive's target at that row, and who trains from it takes the same numbers
for state and action. That is so in these files too, since their readers expect it; what was
measured stands beside it in ``measured/vector``, a group of ours that nobody else reads, and is
what ``read`` takes for the states. Of a file without it the states are said to be assumed.

Colours: RoboTwin gives RGB to an encoder that takes BGR, so its JPEGs are swapped, and OpenCV's
decoder gives RGB of them. H-RDT's data set exchanges the channels once more after decoding, so it
trains on BGR from RoboTwin's files while its deployment feeds RGB. Files for H-RDT are therefore
ordinary JPEGs ('jpeg'): it then trains on RGB, as it is deployed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mivla_core.images import decode_jpeg, encode_jpeg
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
from mivla_policy.formats.export import Progress, Source, hdf5_files, replace_json
from mivla_policy.formats.rows import from_rows, to_rows
from mivla_policy.formats.schema import Schema

__all__ = ['FPS', 'default_schema', 'read', 'write', 'write_hrdt']

FPS = 250 / 15      # steps of the simulator per second, and how often one is saved
CAMERAS = {'head': 'head_camera', 'left_wrist': 'left_camera', 'right_wrist': 'right_camera',
           'front': 'front_camera'}
HRDT_CAMERAS = ('head_camera', 'left_camera', 'right_camera')
PARTS: dict[str, Any] = {'left_arm': slice(0, 6), 'left_gripper': 6, 'right_arm': slice(7, 13),
                         'right_gripper': 13}
ASSUMED = 'the file holds drive targets only'
MAX_JSON = 16 << 20


def default_schema(profile: RobotProfile) -> Schema:
    """Return a robot's schema under RoboTwin's names; H-RDT has the same ones."""
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
    return _write('robotwin', sources, folder, _Writer(schema, fps, colours, ()), workers,
                  progress)


def write_hrdt(sources: Sequence[Source], folder: Path, schema: Schema, fps: int, task: str,
               workers: int = 1, progress: Optional[Progress] = None) -> int:
    """
    Write what H-RDT's RobotwinAgilexDataset reads: ``<folder>/<task>/mivla/data/episode<i>.hdf5``.

    A camera that the robot lacks is black, since that class refuses a file without one. The
    sentence is encoded by H-RDT's own script, as ``lang_embeddings/<task>.pt``.

    :param task: name of the folder, by which that class finds the encoded sentence.
    """
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_-]{0,99}', task):
        raise FormatError(f'task {task!r}: letters, digits, _ and - are expected')
    return _write('hrdt', sources, folder / task / 'mivla',
                  _Writer(schema, fps, 'jpeg', HRDT_CAMERAS), workers, progress)


def _write(kind: str, sources: Sequence[Source], folder: Path, writer: _Writer, workers: int,
           progress: Optional[Progress]) -> int:
    check_arms(writer.schema, writer.colours)
    settings = {'fps': writer.fps, 'colours': writer.colours, 'schema': asdict(writer.schema)}
    return len(hdf5_files(kind, lambda number: f'data/episode{number}.hdf5', writer, sources,
                          folder, settings, workers, progress))


@dataclass(frozen=True)
class _Writer:
    """Writes one file and the sentences beside it."""

    schema: Schema
    fps: int
    colours: str
    black: tuple[str, ...]      # cameras that must be there, black where the robot has none

    def __call__(self, path: Path, episode: Episode) -> None:
        rows = to_rows(episode, self.fps, tuple(self.schema.cameras))
        targets = self.schema.outward(rows.targets, episode.joint_names)
        sentences = {'seen': [episode.instruction], 'unseen': [episode.instruction]}
        # First, so that a file never stands there without its sentences.
        replace_json(path.parents[1] / 'instructions' / f'{path.stem}.json', sentences)
        with hdf5.new_file(path) as file:
            file.attrs.update(fps=self.fps, colours=self.colours, source=episode.source)
            for name, columns in PARTS.items():
                file[f'joint_action/{name}'] = targets[:, columns]
            file['joint_action/vector'] = targets
            file['measured/vector'] = self.schema.outward(rows.states, episode.joint_names)
            pictures: list[bytes] = []
            for role, camera in self.schema.cameras.items():
                pictures = chosen_pictures(episode, rows, role, self.colours)
                write_jpegs(file, f'observation/{camera}/rgb', pictures)
            black = encode_jpeg(np.zeros_like(decode_jpeg(pictures[0])))
            for camera in set(self.black) - set(self.schema.cameras.values()):
                write_jpegs(file, f'observation/{camera}/rgb', [black] * len(rows))


def read(path: Path, schema: Schema, joints: Sequence[str], fps: float = 0.0,
         instruction: str = '', colours: str = '') -> Iterator[Episode]:
    """
    Read a file, or every one below a folder.

    :param fps: rows per second; 0: what the file says, else RoboTwin's 250 / 15.
    :param instruction: what was done; '': the first sentence of the file beside it.
    :param colours: one of ``arms.COLOURS``; '': what the file says, else 'swapped'.
    :raises FormatError: something is missing or does not fit.
    """
    for name in episode_files(path, 'episode*.hdf5'):
        with hdf5.open_file(name) as file:
            targets = np.column_stack([
                _column(file, f'joint_action/{part}') for part in PARTS])
            assumed = '' if 'measured' in file else ASSUMED
            states = (hdf5.array(file, 'measured/vector', targets.shape) if not assumed
                      else targets)
            told = colours or hdf5.attribute(file, 'colours') or 'swapped'
            pictures = {role: jpeg_column(file, f'observation/{camera}/rgb', len(targets), told)
                        for role, camera in schema.cameras.items()}
            rate = fps or float(file.attrs.get('fps', FPS))
            source = hdf5.attribute(file, 'source') or str(name)
        yield from_rows(source, instruction or _sentence(name), rate, joints,
                        schema.inward(states, joints), schema.inward(targets, joints), pictures,
                        assumed=assumed, lead=0)


def _column(file: hdf5.Node, name: str) -> np.ndarray:
    """Return an arm (T, n) or a gripper (T,) as (T, n)."""
    shape: tuple[Optional[int], ...] = (None,) * hdf5.dataset(file, name).ndim
    if len(shape) not in (1, 2):
        raise FormatError(f'{file.file.filename}: {name} has {len(shape)} axes')
    values = hdf5.array(file, name, shape)
    return values[:, None] if values.ndim == 1 else values


def _sentence(path: Path) -> str:
    """Return the first sentence in the file beside an episode."""
    beside = path.parents[1] / 'instructions' / f'{path.stem}.json'
    try:
        if beside.stat().st_size > MAX_JSON:
            raise FormatError(f'{beside}: larger than {MAX_JSON} bytes')
        told: Any = json.loads(beside.read_text(encoding='utf-8'))
        found = [*told.get('seen', ()), *told.get('unseen', ())]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise FormatError(f'{beside} cannot be read ({error}); give an instruction') from error
    if not found or not isinstance(found[0], str):
        raise FormatError(f'{beside} holds no sentence; give an instruction')
    return found[0]
