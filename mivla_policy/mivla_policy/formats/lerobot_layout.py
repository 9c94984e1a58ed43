"""
Names, tables and descriptions of a LeRobot data set, version 3.0.

Facts from LeRobot 0.6.1 (Apache-2.0), compared file by file with what its own writer makes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mivla_policy.formats.statistics import Stats
from mivla_policy.formats.video import VideoSettings

__all__ = ['ACTION', 'CHUNK', 'DATA_MB', 'DATA_PATH', 'EPISODES_PATH', 'IMAGES', 'INTERVENTION',
           'INTERVENTIONS', 'STATE', 'VERSION', 'VIDEO_MB', 'VIDEO_PATH', 'chunk_file',
           'data_table', 'episode_table', 'features', 'statistics_json', 'tasks_table']

VERSION = 'v3.0'
STATE, ACTION, IMAGES = 'observation.state', 'action', 'observation.images.'
# Rows in which a person took over from a policy: as LeRobot's own rollouts mark them, bool. In
# the recordings of others, and of HIL-SERL's followers, it is a float of the second name.
INTERVENTION = 'intervention'
INTERVENTIONS = (INTERVENTION, 'complementary_info.is_intervention')
DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
EPISODES_PATH = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
CHUNK = 1000            # files of one folder
DATA_MB, VIDEO_MB = 100, 200
COUNTERS = ('frame_index', 'episode_index', 'index', 'task_index')
FFMPEG_NAMES = {'libx264': 'h264', 'libx265': 'hevc', 'libsvtav1': 'av1', 'libaom-av1': 'av1'}


def chunk_file(number: int) -> dict[str, int]:
    """Return folder and file of the n-th file."""
    return {'chunk_index': number // CHUNK, 'file_index': number % CHUNK}


def features(names: Sequence[str], sizes: Mapping[str, Sequence[int]], fps: int,
             settings: VideoSettings, interventions: bool = False) -> dict[str, Any]:
    """
    Return what the columns of a data set are.

    :param names: of the numbers of state and action.
    :param sizes: camera -> (height, width).
    :param interventions: some episodes are a policy's, with a person's corrections.
    """
    vector = {'dtype': 'float32', 'shape': [len(names)], 'names': list(names)}
    films = {f'{IMAGES}{camera}': {
        'dtype': 'video', 'shape': [*size, 3], 'names': ['height', 'width', 'channels'],
        'info': {'video.height': size[0], 'video.width': size[1],
                 'video.codec': FFMPEG_NAMES.get(settings.codec, settings.codec),
                 'video.pix_fmt': 'yuv420p', 'video.fps': fps, 'video.channels': 3,
                 'has_audio': False, 'video.g': settings.group, 'video.crf': settings.crf,
                 'video.preset': settings.preset, 'video.fast_decode': 0,
                 'video.video_backend': 'pyav', 'video.extra_options': {},
                 'is_depth_map': False}} for camera, size in sizes.items()}
    single = {'shape': [1], 'names': None}
    marks = {INTERVENTION: {'dtype': 'bool', **single}} if interventions else {}
    return {STATE: vector, ACTION: dict(vector), **films, **marks,
            'timestamp': {'dtype': 'float32', **single},
            **{name: {'dtype': 'int64', **single} for name in COUNTERS}}


def data_table(states: np.ndarray, actions: np.ndarray, fps: int, episode: int, first: int,
               task: int, interventions: np.ndarray | None = None) -> pa.Table:
    """
    Return the rows of one episode.

    :param states: float32 (N, D); actions float32 (N, D).
    :param first: rows of the episodes before it.
    :param task: index of its sentence.
    :param interventions: bool (N,); None where the data set has no such column.
    """
    count, width = states.shape
    frames = np.arange(count, dtype=np.int64)

    def vectors(values: np.ndarray) -> pa.Array:
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, width)

    marks = {} if interventions is None else {INTERVENTION: pa.array(interventions, pa.bool_())}
    columns = {STATE: vectors(states), ACTION: vectors(actions), **marks,
               'timestamp': pa.array((frames / fps).astype(np.float32)),
               'frame_index': pa.array(frames),
               'episode_index': pa.array(np.full(count, episode, dtype=np.int64)),
               'index': pa.array(frames + first),
               'task_index': pa.array(np.full(count, task, dtype=np.int64))}
    # What the datasets library finds in files of its own: the columns without a guess.
    value = {'dtype': 'float32', '_type': 'Value'}
    told = {name: {'feature': value, 'length': width, '_type': 'List'} for name in (STATE, ACTION)}
    told.update({name: {'dtype': 'bool', '_type': 'Value'} for name in marks})
    told['timestamp'] = dict(value)
    told.update({name: {'dtype': 'int64', '_type': 'Value'} for name in COUNTERS})
    table = pa.table(columns)
    return table.replace_schema_metadata(
        {'huggingface': json.dumps({'info': {'features': told}})})


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """Return the table of sentences; pandas takes them for its index."""
    columns = [{'name': name, 'field_name': name, 'pandas_type': kind, 'numpy_type': numpy,
                'metadata': None}
               for name, kind, numpy in (('task_index', 'int64', 'int64'),
                                         ('task', 'unicode', 'object'))]
    index = {'name': None, 'field_name': None, 'pandas_type': 'unicode', 'numpy_type': 'object',
             'metadata': {'encoding': 'UTF-8'}}
    told = {'index_columns': ['task'], 'column_indexes': [index], 'columns': columns,
            'creator': {'library': 'pyarrow', 'version': pa.__version__},
            'pandas_version': '2.0.0'}
    table = pa.table({'task_index': pa.array(range(len(tasks)), pa.int64()),
                      'task': pa.array(list(tasks), pa.string())})
    return table.replace_schema_metadata({'pandas': json.dumps(told)})


def episode_table(rows: Sequence[Mapping[str, Any]],
                  stats: Sequence[Mapping[str, Stats]]) -> pa.Table:
    """
    Return the table of episodes.

    :param rows: numbers, and 'tasks', a list of sentences.
    :param stats: of each episode, by column of the data.
    """
    columns: dict[str, pa.Array] = {}
    for name in rows[0]:
        kind: pa.DataType = pa.int64()
        if name == 'tasks':
            kind = pa.list_(pa.string())
        elif name.endswith('_timestamp'):
            kind = pa.float64()
        columns[name] = pa.array([row[name] for row in rows], kind)
    for column in stats[0]:
        for name, value in stats[0][column].items():
            kind = pa.int64() if name == 'count' else pa.float64()
            for _ in range(np.ndim(value)):
                kind = pa.list_(kind)
            columns[f'stats/{column}/{name}'] = pa.array(
                [_plain(one[column][name]) for one in stats], kind)
    return pa.table(columns)


def statistics_json(stats: Mapping[str, Stats]) -> dict[str, Any]:
    """Return statistics as ``meta/stats.json`` has them."""
    return {column: {name: _plain(value) for name, value in one.items()}
            for column, one in stats.items()}


def _plain(value: np.ndarray) -> Any:
    return np.asarray(value).tolist()
