"""
LeRobot data sets, version 3.0, written: parquet tables and MP4 videos, several episodes to a file.

States are what was measured, actions what was commanded; see ``formats.rows`` for which row holds
which. Where a policy commanded in an episode, rows in which a person took over are marked, as in
LeRobot's own rollouts. ``meta/mivla.json`` says of which recordings the episodes are made; LeRobot
passes it over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mivla_policy.errors import FormatError
from mivla_policy.formats import lerobot_layout as layout
from mivla_policy.formats.export import Progress, Source, each, open_ledger, replace_json
from mivla_policy.formats.lerobot_layout import ACTION, IMAGES, INTERVENTION, STATE
from mivla_policy.formats.lerobot_parts import Part, PartMaker, load_part, part_folder
from mivla_policy.formats.lerobot_read import assumed_states, episode_count, read
from mivla_policy.formats.schema import Schema
from mivla_policy.formats.statistics import Stats, of_histograms, of_vectors
from mivla_policy.formats.video import VideoSettings, join_videos

__all__ = ['assumed_states', 'episode_count', 'read', 'write']

FORMAT = 'lerobot-v3.0'
MB = 1 << 20


def write(sources: Sequence[Source], folder: Path, schema: Schema, fps: int,
          settings: Optional[VideoSettings] = None, workers: int = 1, threads: int = 1,
          progress: Optional[Progress] = None) -> int:
    """
    Write a data set, or go on with one that was interrupted; of a finished one nothing is touched.

    :param schema: its columns and cameras.
    :param fps: rows per second.
    :param workers: processes, each with an episode of its own.
    :param threads: cameras of an episode that are encoded at a time.
    :return: episodes in it.
    :raises FormatError: something else is in the folder, or episodes do not fit together.
    :raises EpisodeError: an episode cannot be written.
    """
    settings = settings or VideoSettings()
    open_ledger(folder, FORMAT, {'fps': fps, 'video': asdict(settings), 'schema': asdict(schema)},
                sources, may_grow=False)
    info = folder / 'meta' / 'info.json'
    if not info.is_file():
        todo = [(number, source) for number, source in enumerate(sources)
                if not part_folder(folder, number).is_dir()]
        maker = PartMaker(folder, schema, fps, settings, threads)
        for _ in each(maker, todo, len(sources), workers, progress):
            pass
        _assemble(folder, [load_part(folder, number) for number in range(len(sources))], schema,
                  fps, settings)
    shutil.rmtree(folder / '.parts', ignore_errors=True)
    return int(pq.read_metadata(
        folder / layout.EPISODES_PATH.format(**layout.chunk_file(0))).num_rows)


def _assemble(folder: Path, parts: Sequence[Part], schema: Schema, fps: int,
              settings: VideoSettings) -> None:
    """Put the parts together; ``info.json`` comes last, and with it the data set is finished."""
    cameras = tuple(schema.cameras.values())
    sizes = _sizes(parts, cameras)
    tasks = list(dict.fromkeys(part.facts['task'] for part in parts))
    firsts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).tolist()
    rows: list[dict[str, Any]] = [
        {'episode_index': number, 'tasks': [part.facts['task']], 'length': len(part),
         'dataset_from_index': firsts[number], 'dataset_to_index': firsts[number + 1]}
        for number, part in enumerate(parts)]
    _write_data(folder, parts, rows, tasks, fps)
    for camera in cameras:
        _write_videos(folder, parts, rows, camera, fps)
    for row in rows:
        row['meta/episodes/chunk_index'] = row['meta/episodes/file_index'] = 0
    marked = _marked(parts)
    stats = [_statistics([part], [number], firsts, tasks, fps, cameras, marked)
             for number, part in enumerate(parts)]
    _replace_table(folder / layout.EPISODES_PATH.format(**layout.chunk_file(0)),
                   layout.episode_table(rows, stats))
    _replace_table(folder / 'meta' / 'tasks.parquet', layout.tasks_table(tasks))
    whole = _statistics(parts, range(len(parts)), firsts, tasks, fps, cameras, marked)
    replace_json(folder / 'meta' / 'stats.json', layout.statistics_json(whole))
    replace_json(folder / 'meta' / 'mivla.json', {
        'robot': schema.robot_type, 'episodes': [
            {name: part.facts[name]
             for name in ('source', 'profile_hash', 'assumed', 'policy', 'stamp_ns')}
            for part in parts]})
    replace_json(folder / 'meta' / 'info.json', {
        'codebase_version': layout.VERSION, 'fps': fps,
        'features': layout.features(schema.names, sizes, fps, settings, _marked(parts)),
        'total_episodes': len(parts), 'total_frames': firsts[-1], 'total_tasks': len(tasks),
        'chunks_size': layout.CHUNK, 'data_files_size_in_mb': layout.DATA_MB,
        'video_files_size_in_mb': layout.VIDEO_MB, 'data_path': layout.DATA_PATH,
        'video_path': layout.VIDEO_PATH, 'robot_type': schema.robot_type,
        'splits': {'train': f'0:{len(parts)}'}})


def _marked(parts: Sequence[Part]) -> bool:
    """Return whether rows are marked in which a person took over: where a policy commanded."""
    return any(part.facts['policy'] for part in parts)


def _sizes(parts: Sequence[Part], cameras: Sequence[str]) -> dict[str, Sequence[int]]:
    """Return (height, width) per camera; raise FormatError where episodes differ."""
    sizes: dict[str, Sequence[int]] = {}
    for part in parts:
        for camera in cameras:
            size = list(part.facts['sizes'][camera])
            if sizes.setdefault(camera, size) != size:
                raise FormatError(f'{part.facts["source"]}: camera {camera} is {size}, in the '
                                  f'episodes before {sizes[camera]}; a data set has one size')
    return sizes


def _write_data(folder: Path, parts: Sequence[Part], rows: Sequence[dict[str, Any]],
                tasks: Sequence[str], fps: int) -> None:
    """Write the tables, and into ``rows`` which file each episode is in."""
    # Uncompressed, so that a file is never larger than is promised.
    widths = [part.states.nbytes + part.actions.nbytes + 37 * len(part) for part in parts]
    marked = _marked(parts)
    for file, numbers in enumerate(_filled(widths, layout.DATA_MB * MB)):
        place = layout.chunk_file(file)
        path = folder / layout.DATA_PATH.format(**place)
        tables = []
        for number in numbers:
            part, row = parts[number], rows[number]
            tables.append(layout.data_table(
                part.states, part.actions, fps, number, row['dataset_from_index'],
                tasks.index(part.facts['task']), part.interventions if marked else None))
            row['data/chunk_index'], row['data/file_index'] = place.values()
        _replace_table(path, *tables)


def _write_videos(folder: Path, parts: Sequence[Part], rows: Sequence[dict[str, Any]],
                  camera: str, fps: int) -> None:
    """Join the videos of a camera, and write into ``rows`` where each episode is."""
    key = f'{IMAGES}{camera}'
    bytes_of = [part.video(camera).stat().st_size for part in parts]
    for file, numbers in enumerate(_filled(bytes_of, layout.VIDEO_MB * MB)):
        place = layout.chunk_file(file)
        path = folder / layout.VIDEO_PATH.format(video_key=key, **place)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f'.{path.name}.part')
        join_videos([parts[number].video(camera) for number in numbers], draft, fps,
                    [len(parts[number]) for number in numbers])
        os.replace(draft, path)
        first = 0
        for number in numbers:
            row, count = rows[number], len(parts[number])
            row[f'videos/{key}/chunk_index'], row[f'videos/{key}/file_index'] = place.values()
            row[f'videos/{key}/from_timestamp'] = first / fps
            row[f'videos/{key}/to_timestamp'] = (first + count) / fps
            first += count


def _statistics(parts: Sequence[Part], numbers: Sequence[int], firsts: Sequence[int],
                tasks: Sequence[str], fps: int, cameras: Sequence[str],
                marked: bool) -> Mapping[str, Stats]:
    """Return the statistics of some episodes, by column."""
    found = {STATE: of_vectors([part.states for part in parts]),
             ACTION: of_vectors([part.actions for part in parts])}
    for camera in cameras:
        found[f'{IMAGES}{camera}'] = of_histograms(
            np.sum([part.counts[camera] for part in parts], axis=0),
            sum(part.facts['pictures'] for part in parts))
    if marked:
        found[INTERVENTION] = of_vectors([part.interventions.astype(float) for part in parts])
    frames = [np.arange(len(part)) for part in parts]
    found['timestamp'] = of_vectors([frame / fps for frame in frames])
    found['frame_index'] = of_vectors(frames)
    found['episode_index'] = of_vectors(
        [np.full(len(part), number) for number, part in zip(numbers, parts, strict=True)])
    found['index'] = of_vectors(
        [frame + firsts[number] for number, frame in zip(numbers, frames, strict=True)])
    found['task_index'] = of_vectors(
        [np.full(len(part), tasks.index(part.facts['task'])) for part in parts])
    return found


def _filled(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Return which things, in their order, go into which file of at most ``most`` bytes."""
    files: list[list[int]] = [[]]
    filled = 0
    for number, size in enumerate(sizes):
        if files[-1] and filled + size > most:
            files.append([])
            filled = 0
        files[-1].append(number)
        filled += size
    return files


def _replace_table(path: Path, *tables: pa.Table) -> None:
    """Write tables of one schema as row groups of a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f'.{path.name}.part')
    with pq.ParquetWriter(draft, tables[0].schema, compression='snappy') as writer:
        for table in tables:
            writer.write_table(table)
    os.replace(draft, path)
