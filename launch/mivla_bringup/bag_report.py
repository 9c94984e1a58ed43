"""
What an episode's bag tells about the rig: latencies, chunks, and a picture of what was done.

Everything is computed from the recorded messages, so any bag can be looked at later with the same
eyes; nothing here needs ROS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader

from mivla_core.images import decode_jpeg
from mivla_core.timing import NS_PER_S
from mivla_teleop.recording.reader import EpisodeData, read_episode

__all__ = ['ChunkRecord', 'EpisodeReport', 'analyse', 'draw']

CHUNK_TYPE = 'mivla_msgs/msg/ActionChunk'
OK = 0    # ActionChunk.OK


@dataclass(frozen=True)
class ChunkRecord:
    """
    One chunk as it was answered.

    :param observation: stamp of the oldest source [ns].
    :param position: (T, J) [rad, m].
    :param seconds: queue, decode and forward [s].
    """

    chunk_id: int
    observation: int
    dt: float
    position: np.ndarray
    seconds: tuple[float, float, float]


@dataclass(frozen=True)
class EpisodeReport:
    """
    What one bag shows.

    :param latency: camera to command [s], one per chunk: stamp of the oldest picture or state to
        the stamp of the first applied set-point that names the chunk.
    :param chunk_seconds: time in the server [s], one per chunk.
    :param refused: answers with a code other than OK.
    """

    data: EpisodeData
    chunks: tuple[ChunkRecord, ...]
    latency: np.ndarray
    chunk_seconds: np.ndarray
    refused: int


def analyse(path: Path) -> EpisodeReport:
    """
    Read one finished episode of a policy.

    :raises BagError: damaged or not an episode.
    """
    data = read_episode(path)
    chunks, refused = _chunks(path)
    applied = data.commands.get('applied')
    latency = []
    if applied is not None:
        named = applied.chunk_id > 0
        ids, first = np.unique(applied.chunk_id[named], return_index=True)
        del ids
        stamps, observed = applied.stamps[named][first], applied.observation[named][first]
        latency = (stamps - observed) / NS_PER_S
    return EpisodeReport(data, tuple(chunks), np.asarray(latency, dtype=float),
                         np.array([sum(chunk.seconds) for chunk in chunks]), refused)


def _chunks(path: Path) -> tuple[list[ChunkRecord], int]:
    found, refused = [], 0
    with AnyReader([path]) as reader:
        wanted = [c for c in reader.connections if c.msgtype == CHUNK_TYPE]
        for connection, _, raw in reader.messages(wanted):
            message = reader.deserialize(raw, connection.msgtype)
            if message.code != OK:
                refused += 1
                continue
            stamp = message.header.stamp
            found.append(ChunkRecord(
                int(message.chunk_id), stamp.sec * NS_PER_S + stamp.nanosec, float(message.dt),
                np.asarray(message.position, dtype=float).reshape(
                    int(message.horizon), len(message.joint_names)),
                (float(message.queue_seconds), float(message.decode_seconds),
                 float(message.forward_seconds))))
    return found, refused


def draw(report: EpisodeReport, path: Path, title: str, columns: int = 6) -> Path:
    """
    Draw one episode: a strip of camera pictures over predicted against applied joints.

    :param columns: pictures per camera.
    :returns: ``path``.
    """
    # Drawn into a file only: the object interface needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = report.data
    applied = data.commands['applied']
    active = np.flatnonzero(applied.chunk_id > 0)
    begin = int(applied.stamps[active[0]] if len(active) else applied.stamps[0])
    end = int(applied.stamps[active[-1]] if len(active) else applied.stamps[-1])
    roles = sorted(data.cameras)
    arm = [i for i, name in enumerate(data.joint_names) if name != 'gripper']
    figure = Figure(figsize=(13.0, 2.0 * len(roles) + 1.1 * len(arm) + 0.8), dpi=100)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(roles) + len(arm), columns, hspace=0.12, wspace=0.04,
                               height_ratios=[2.0] * len(roles) + [1.1] * len(arm),
                               left=0.06, right=0.995, top=0.945, bottom=0.05)
    instants = np.linspace(begin, end, columns)
    for row, role in enumerate(roles):
        series = data.cameras[role]
        for column, instant in enumerate(instants):
            axes = figure.add_subplot(grid[row, column])
            nearest = int(np.argmin(np.abs(series.stamps - instant)))
            axes.imshow(decode_jpeg(series.jpeg[nearest]))
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(f'{(instant - begin) / NS_PER_S:.1f} s', fontsize=9, pad=3)
            if column == 0:
                axes.set_ylabel(role, fontsize=9)
    for k, joint in enumerate(arm):
        axes = figure.add_subplot(grid[len(roles) + k, :])
        _joint(axes, report, joint, begin, end)
        axes.set_ylabel(data.joint_names[joint], fontsize=8)
        axes.tick_params(labelsize=7)
        if k == 0:
            figure.legend(*axes.get_legend_handles_labels(), loc='upper right', fontsize=8,
                          ncols=3, frameon=False)
        if k < len(arm) - 1:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel('time [s]; joints in rad', fontsize=8)
    figure.suptitle(title, fontsize=11, x=0.06, ha='left')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _joint(axes: object, report: EpisodeReport, joint: int, begin: int, end: int) -> None:
    data = report.data
    applied, states = data.commands['applied'], data.joint_states
    plot = axes.plot  # type: ignore[attr-defined]
    label: str | None = 'predicted (chunks)'
    for chunk in report.chunks:
        rows = np.arange(1, len(chunk.position) + 1) * chunk.dt
        seconds = (chunk.observation - begin) / NS_PER_S + rows
        plot(seconds, chunk.position[:, joint], color='tab:orange', alpha=0.8, linewidth=1.6,
             label=label)
        label = None
    for series, colour, name in ((states, '0.6', 'measured'), (applied, 'tab:blue', 'applied')):
        inside = (series.stamps >= begin) & (series.stamps <= end)
        plot((series.stamps[inside] - begin) / NS_PER_S, series.position[inside, joint],
             color=colour, linewidth=1.4, label=name)
    axes.set_xlim(0.0, (end - begin) / NS_PER_S)  # type: ignore[attr-defined]
    axes.grid(alpha=0.25)  # type: ignore[attr-defined]
    values: Sequence[float] = applied.position[(applied.stamps >= begin)
                                               & (applied.stamps <= end), joint]
    if len(values):
        middle, half = (max(values) + min(values)) / 2, (max(values) - min(values)) / 2
        axes.set_ylim(middle - max(1.4 * half, 0.03),  # type: ignore[attr-defined]
                      middle + max(1.4 * half, 0.03))
