"""LeRobot data sets, version 3.0, read: of whoever made them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mivla_core.images import encode_jpeg
from mivla_policy.core.episode import POLICY, TELEOP, Episode
from mivla_policy.errors import FormatError
from mivla_policy.formats import lerobot_layout as layout
from mivla_policy.formats.lerobot_layout import ACTION, IMAGES, STATE
from mivla_policy.formats.rows import from_rows
from mivla_policy.formats.schema import Schema
from mivla_policy.formats.video import read_frames

__all__ = ['assumed_states', 'episode_count', 'read']

JPEG_QUALITY = 95
MAX_JSON = 64 << 20
MAX_TABLE_ROWS = 50_000_000
MAX_TABLE_BYTES = 8 << 30
MAX_EPISODE = 1_000_000


def episode_count(folder: Path) -> int:
    """Return how many episodes a data set says that it has; raise FormatError."""
    path = folder / 'meta' / 'info.json'
    count = _whole(_json(path), 'total_episodes', path)
    if not 0 < count <= MAX_TABLE_ROWS:
        raise FormatError(f'{folder} has {count} episodes')
    return count


def assumed_states(folder: Path) -> list[str]:
    """Return why states of a data set of ours are no measurements; nothing where all are."""
    found = _own(folder)
    return sorted({str(one.get('assumed')) for one in found if one.get('assumed')})


def read(folder: Path, schema: Schema, joints: Sequence[str],
         episodes: Optional[Sequence[int]] = None) -> Iterator[Episode]:
    """
    Read the episodes of a data set, one after the other.

    :param schema: which of its columns and cameras are the robot's.
    :param joints: of the robot, in the order that is wanted.
    :param episodes: numbers; None: all.
    :raises FormatError: another version, damaged, or it does not fit the schema.
    """
    return _Reader(folder, schema, tuple(joints)).episodes(episodes)


class _Reader:
    """A data set that was opened."""

    def __init__(self, folder: Path, schema: Schema, joints: tuple[str, ...]) -> None:
        self.folder, self.schema, self.joints = folder, schema, joints
        self.info = _json(folder / 'meta' / 'info.json')
        version = self.info.get('codebase_version')
        if version != layout.VERSION:
            hint = ('; LeRobot has a converter, lerobot.scripts.convert_dataset_v21_to_v30'
                    if version == 'v2.1' else '')
            raise FormatError(f'{folder}: version {version} of the format, {layout.VERSION} is '
                              f'read{hint}')
        # A path from a file of a stranger: only the one that the format itself has.
        for name, wanted in (('data_path', layout.DATA_PATH), ('video_path', layout.VIDEO_PATH)):
            if self.info.get(name) != wanted:
                raise FormatError(f'{folder}: its {name} is {self.info.get(name)!r}; only '
                                  f'{wanted} is followed')
        self.fps = self._rate()
        features = self.info.get('features')
        if not isinstance(features, dict):
            raise FormatError(f'{folder}: info.json describes no features')
        self.features: dict[str, Any] = features
        self.names = {key: self._names(key) for key in (STATE, ACTION)}
        self.cameras = {role: self._camera(name) for role, name in schema.cameras.items()}
        table = _table(folder / 'meta' / 'tasks.parquet')
        self.tasks = dict(zip(table['task_index'].to_pylist(), table[
            'task' if 'task' in table.column_names else '__index_level_0__'].to_pylist(),
            strict=True))
        self.own = _own(folder)

    def _rate(self) -> float:
        fps = self.info.get('fps')
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps <= 1000:
            raise FormatError(f'{self.folder}: {fps!r} rows per second')
        return float(fps)

    def _names(self, key: str) -> Optional[tuple[str, ...]]:
        """Return the names of a vector's numbers; None where the data set has none."""
        found = self.features.get(key)
        if not isinstance(found, dict):
            raise FormatError(f'{self.folder}: no {key}; there is '
                              f'{", ".join(map(str, self.features))}')
        names = found.get('names')
        # Older sets have a mapping of one name to the list.
        if isinstance(names, dict) and len(names) == 1:
            names = next(iter(names.values()))
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
        return None

    def _camera(self, name: str) -> str:
        """Return the key of a camera."""
        for key in (name, f'{IMAGES}{name}'):
            if isinstance(self.features.get(key), dict) and self.features[key].get(
                    'dtype') in ('video', 'image'):
                return key
        there = [key for key, value in self.features.items()
                 if isinstance(value, dict) and value.get('dtype') in ('video', 'image')]
        raise FormatError(f'{self.folder}: no camera {name}; it has {", ".join(there) or "none"}')

    def episodes(self, wanted: Optional[Sequence[int]]) -> Iterator[Episode]:
        """Yield episodes in the order of their numbers."""
        chosen = None if wanted is None else set(wanted)
        seen = set()
        tables = sorted((self.folder / 'meta' / 'episodes').glob('chunk-*/file-*.parquet'))
        if not tables:
            raise FormatError(f'{self.folder}: no meta/episodes')
        for path in tables:
            table = _table(path)
            keep = [name for name in table.column_names if not name.startswith('stats/')]
            for row in table.select(keep).to_pylist():
                number = _whole(row, 'episode_index', path)
                if chosen is None or number in chosen:
                    seen.add(number)
                    yield self._episode(number, row, path)
        if chosen is not None and chosen != seen:
            raise FormatError(f'{self.folder}: no episode {sorted(chosen - seen)}')

    def _episode(self, number: int, row: Mapping[str, Any], path: Path) -> Episode:
        where = f'{self.folder.name}: episode {number}'
        data = _table(self.folder / layout.DATA_PATH.format(
            chunk_index=_whole(row, 'data/chunk_index', path),
            file_index=_whole(row, 'data/file_index', path)))
        mine = data.filter(pa.compute.equal(data['episode_index'], number))
        length = _whole(row, 'length', path)
        if not 0 < length <= MAX_EPISODE or mine.num_rows != length:
            raise FormatError(f'{where}: {mine.num_rows} rows, {length} are said')
        self._check_times(mine, where)
        states, actions = (self.schema.inward(_vectors(mine[key], f'{where}: {key}'), self.joints,
                                              self.names[key]) for key in (STATE, ACTION))
        pictures = {role: self._pictures(key, mine, row, path)
                    for role, key in self.cameras.items()}
        task = self.tasks.get(mine['task_index'][0].as_py())
        own = self.own[number] if number < len(self.own) else {}
        # In a set of ours, demonstrations may stand beside a policy's episodes.
        sources = self._sources(mine, where) if own.get('policy', True) else None
        return from_rows(
            str(own.get('source') or where), str(task or ''), self.fps, self.joints, states,
            actions, pictures, str(own.get('profile_hash') or ''), str(own.get('assumed') or ''),
            sources=sources)

    def _sources(self, rows: pa.Table, where: str) -> Optional[NDArray[np.uint8]]:
        """Return who gave each action; None where the data set does not tell."""
        key = next((name for name in layout.INTERVENTIONS if name in self.features), '')
        if not key:
            return None
        if key not in rows.column_names:
            raise FormatError(f'{where}: no column {key}, which info.json describes')
        marks = _vectors(rows[key], f'{where}: {key}')
        if marks.shape[1] != 1:
            raise FormatError(f'{where}: {key}: {marks.shape[1]} numbers a row, expected one')
        return np.where(marks[:, 0] > 0.5, TELEOP, POLICY).astype(np.uint8)

    def _check_times(self, rows: pa.Table, where: str) -> None:
        times = rows['timestamp'].to_numpy()
        late = np.abs(times - np.arange(len(times)) / self.fps)
        if not (late < 0.5 / self.fps).all():
            raise FormatError(f'{where}: row {int(np.argmax(late))} is at '
                              f'{times[int(np.argmax(late))]} s, which is not its place at '
                              f'{self.fps} rows per second')

    def _pictures(self, key: str, rows: pa.Table, row: Mapping[str, Any],
                  path: Path) -> tuple[bytes, ...]:
        """Return one camera's pictures as JPEG."""
        if self.features[key]['dtype'] == 'image':
            return tuple(_embedded(cell.as_py(), f'{self.folder.name}: {key}')
                         for cell in rows[key])
        video = self.folder / layout.VIDEO_PATH.format(
            video_key=_plain_name(key), chunk_index=_whole(row, f'videos/{key}/chunk_index', path),
            file_index=_whole(row, f'videos/{key}/file_index', path))
        begin = row.get(f'videos/{key}/from_timestamp')
        if not isinstance(begin, float) or not 0 <= begin < 1e7:
            raise FormatError(f'{path}: videos/{key}/from_timestamp is {begin!r}')
        return tuple(encode_jpeg(frame, JPEG_QUALITY) for frame in read_frames(
            video, round(begin * self.fps), rows.num_rows))


def _own(folder: Path) -> list[Mapping[str, Any]]:
    """Return what we wrote of each episode; nothing where somebody else wrote the data set."""
    path = folder / 'meta' / 'mivla.json'
    found = _json(path).get('episodes') if path.is_file() else []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise FormatError(f'{path}: expected a list of episodes')
    return found


def _embedded(cell: Any, where: str) -> bytes:
    """Return a picture that stands in the table as JPEG; a path beside it is not followed."""
    data = cell.get('bytes') if isinstance(cell, dict) else None
    if not isinstance(data, bytes):
        raise FormatError(f'{where}: a picture outside of the table, which is not followed')
    if data[:2] == b'\xff\xd8':
        return data
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise FormatError(f'{where}: a picture that cannot be decoded')
    return encode_jpeg(np.asarray(picture, dtype=np.uint8), JPEG_QUALITY)


def _vectors(column: pa.ChunkedArray, where: str) -> NDArray[np.float64]:
    """Return a column of vectors as (N, D); raise FormatError."""
    rows = column.to_pylist()
    try:
        values = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise FormatError(f'{where}: rows of different lengths, or no numbers') from error
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not np.isfinite(values).all():
        raise FormatError(f'{where}: expected finite vectors')
    return values


@lru_cache(maxsize=4)
def _table(path: Path) -> pa.Table:
    """Read a table; raise FormatError when it is damaged or too large."""
    try:
        told = pq.read_metadata(path)
        size = sum(told.row_group(i).total_byte_size for i in range(told.num_row_groups))
        if told.num_rows > MAX_TABLE_ROWS or size > MAX_TABLE_BYTES:
            raise FormatError(f'{path}: {told.num_rows} rows of {size} bytes')
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f'{path} cannot be read: {" ".join(str(error).split())}') from error


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f'{path}: larger than {MAX_JSON} bytes')
        data = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise FormatError(f'{path} cannot be read: {error}') from error
    if not isinstance(data, dict):
        raise FormatError(f'{path}: expected a mapping')
    return data


def _whole(row: Mapping[str, Any], name: str, path: Path) -> int:
    """Return a count; raise FormatError."""
    value = row.get(name)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if not isinstance(value, int) or not 0 <= value < 1 << 40:
        raise FormatError(f'{path}: {name} is {value!r}')
    return value


def _plain_name(key: str) -> str:
    """Return a key that is one folder's name; raise FormatError."""
    if '/' in key or '\\' in key or key in ('.', '..') or '\0' in key:
        raise FormatError(f'camera {key!r} is no name of a folder')
    return key
