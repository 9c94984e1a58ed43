"""
One episode of a LeRobot data set as it waits to be put together: videos, numbers, counts.

A part is a folder that appears under its name when it is whole, so an interrupted export goes on
behind the last one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mivla_core.errors import ImageError
from mivla_core.images import decode_jpeg
from mivla_policy.core.episode import POLICY, Episode, FrameTrack
from mivla_policy.errors import EpisodeError, FormatError
from mivla_policy.formats.export import Source
from mivla_policy.formats.rows import Rows, to_rows
from mivla_policy.formats.schema import Schema
from mivla_policy.formats.statistics import histogram, sampled
from mivla_policy.formats.video import VideoSettings, VideoWriter

__all__ = ['Part', 'PartMaker', 'load_part', 'part_folder']

NUMBERS, FACTS = 'rows.npz', 'facts.json'
MAX_FACTS = 1 << 20


@dataclass(frozen=True)
class Part:
    """
    An episode that was made ready.

    :param folder: holds ``<camera>.mp4`` per camera of the data set.
    :param states: float32 (N, D), observation.state.
    :param actions: float32 (N, D).
    :param interventions: bool (N,), see ``formats.rows.Rows``.
    :param counts: camera -> int64 (3, 256), histogram of the sampled pictures.
    :param facts: source, task, profile_hash, assumed, pictures sampled, sizes, and whether a
        policy commanded in it.
    """

    folder: Path
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    interventions: NDArray[np.bool_]
    counts: Mapping[str, NDArray[np.int64]]
    facts: Mapping[str, Any]

    def __len__(self) -> int:
        """Return N."""
        return len(self.states)

    def video(self, camera: str) -> Path:
        """Return a camera's video."""
        return self.folder / f'{camera}.mp4'


def part_folder(root: Path, number: int) -> Path:
    """Return where a part waits."""
    return root / '.parts' / f'episode-{number:06d}'


@dataclass(frozen=True)
class PartMaker:
    """
    Makes parts, in whichever process.

    :param root: of the data set.
    :param threads: cameras of one episode that are encoded at a time; the codecs run without the
        interpreter's lock.
    """

    root: Path
    schema: Schema
    fps: int
    settings: VideoSettings
    threads: int

    def __call__(self, number: int, source: Source) -> None:
        """Read an episode and make its part."""
        episode = source.load()
        rows = to_rows(episode, self.fps, tuple(self.schema.cameras))
        folder = part_folder(self.root, number)
        draft = folder.with_name(f'.{folder.name}.{os.getpid()}')
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            self._write(draft, episode, rows)
            os.replace(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _write(self, folder: Path, episode: Episode, rows: Rows) -> None:
        def film(role: str) -> tuple[str, NDArray[np.int64], tuple[int, int]]:
            name = self.schema.cameras[role]
            counts, size = self._film(folder / f'{name}.mp4', episode.cameras[role],
                                      rows.frames[role], f'{episode.source}: camera {role}')
            return name, counts, size

        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            films = list(pool.map(film, self.schema.cameras))
        names = episode.joint_names
        with open(folder / NUMBERS, 'wb') as file:
            numbers: dict[str, Any] = {
                'states': self.schema.outward(rows.states, names).astype(np.float32),
                'actions': self.schema.outward(rows.actions, names).astype(np.float32),
                'interventions': rows.interventions,
                **{f'counts.{name}': counts for name, counts, _ in films}}
            np.savez(file, **numbers)
        facts = {'source': episode.source, 'task': episode.instruction.strip(),
                 'profile_hash': episode.profile_hash, 'assumed': episode.states.assumed,
                 'policy': episode.sources is not None and bool((episode.sources == POLICY).any()),
                 'stamp_ns': int(rows.stamps_ns[0]), 'pictures': len(sampled(len(rows))),
                 'sizes': {name: size for name, _, size in films}}
        (folder / FACTS).write_text(json.dumps(facts), encoding='utf-8')

    def _film(self, path: Path, track: FrameTrack, chosen: NDArray[np.int64],
              what: str) -> tuple[NDArray[np.int64], tuple[int, int]]:
        """Encode one camera's pictures; return their histogram and size."""
        counts = np.zeros((3, 256), dtype=np.int64)
        wanted = sampled(len(chosen))
        last, picture = -1, np.zeros((0, 0, 3), dtype=np.uint8)
        # One encoder thread each: cameras and episodes are what runs at the same time.
        with VideoWriter(path, self.fps, self.settings, 1) as video:
            for row, index in enumerate(chosen.tolist()):
                if index != last:
                    try:
                        picture, last = decode_jpeg(track.frames[index]), index
                    except ImageError as error:
                        raise EpisodeError(f'{what}, frame {index}: {error}') from error
                if row in wanted:
                    counts += histogram(picture)
                video.add(picture)
        return counts, video.size


def load_part(root: Path, number: int) -> Part:
    """Read a part back; raise FormatError when it is damaged."""
    folder = part_folder(root, number)
    try:
        if (folder / FACTS).stat().st_size > MAX_FACTS:
            raise FormatError(f'{folder}: larger than it can be')
        facts = json.loads((folder / FACTS).read_text(encoding='utf-8'))
        with np.load(folder / NUMBERS, allow_pickle=False) as data:
            return Part(folder, data['states'], data['actions'], data['interventions'],
                        {name: data[f'counts.{name}'] for name in facts['sizes']}, facts)
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f'{folder} is damaged ({error}); remove it and export again') from error
