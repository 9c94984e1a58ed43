"""
``bench drivers``: what each robot's driver costs, and how evenly its control loop runs.

First what needs no graph: codecs per frame, guard per tick. Then, robot by robot, the whole
simulated stack with a policy that moves it: the intervals of the control loop as the driver
publishes them, a bare loop of the same rate and priority beside it, and the processor time of the
driver's processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from mivla_bringup.arguments import listed
from mivla_bringup.bench.driver_costs import CODECS, codec_us, guard_us
from mivla_bringup.bench.graph import bench_stack
from mivla_bringup.bench.result import Metric, Result, percentiles
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_bringup.task_episodes import bring_up
from mivla_core.errors import MivlaError
from mivla_core.profile import RobotProfile, config_dir, load_profile
from mivla_drivers.ros.control_thread import STATS_WINDOW_S
from mivla_drivers.ros.driver_node import PRIORITY

__all__ = ['run']

GUARD_TICKS = 6000
CODEC_BATCHES = 40
GUARD_JOINTS = 14       # the aim is for robots of this many joints and more
CAN_CODECS = ('piper', 'damiao', 'encos')
CPU_AIM = {'locoman': '<80'}        # percent of a core; else:
CPU_AIM_ELSE = '<35'


@dataclass
class _Run:
    """
    One robot's stack as it ran.

    :param windows: per window of the driver's statistics its end [monotonic ns] and the loop's
        p99 and maximum [ms].
    :param cpu: percent of a core, all processes of the driver.
    """

    windows: list[tuple[int, float, float]] = field(default_factory=list)
    missed: int = 0
    ticks: int = 0
    cpu: float = float('nan')
    realtime: bool = False
    hz: float = 0.0
    busy_p99_ms: float = float('nan')


def run(seconds: float, domain: str, robots: str = '', graph: bool = True) -> Result:
    """
    Measure the robots named, else all in config/robots, each for ``seconds``.

    :param robots: names, separated by commas.
    :param graph: False measures codecs and guards only.
    """
    names = listed(robots) or sorted(
        path.stem for path in (config_dir() / 'robots').glob('*.yaml'))
    profiles = [load_profile(name) for name in names]
    result = Result('drivers', 0, {}, notes=[
        'codecs and guard in processor time of their thread; intervals are those between wake-ups '
        f'of the control loop, in windows of {STATS_WINDOW_S:g} s; excess: median over the '
        'windows of p99 less that of a bare loop beside it'])
    _codecs(result)
    for profile in profiles:
        _guard(result, profile)
    for profile in profiles if graph else ():
        try:
            _stack(result, profile, seconds, domain)
        except MivlaError as err:
            # The first line: what follows are logs and where they lie on this machine.
            result.notes.append(f'{profile.name}: not measured: {str(err).partition(chr(10))[0]}')
    return result


def _codecs(result: Result) -> None:
    spent = {name: codec_us(name, CODEC_BATCHES) for name in CODECS}
    worst = {'can': max(float(np.median(spent[name])) for name in CAN_CODECS),
             'dxl': float(np.median(spent['dynamixel'])), 'go1': float(np.median(spent['go1']))}
    for name, aim in (('can', '<10'), ('dxl', '<30'), ('go1', '<120')):
        result.metrics[f'{name}_codec_us'] = Metric(worst[name], 'us', aim)
    result.raw['codecs_us'] = {name: float(np.median(values)) for name, values in spent.items()}
    result.samples += sum(map(len, spent.values()))
    result.notes.append('a frame: one command encoded and one answer decoded; CAN: the slowest '
                        f'of {", ".join(CAN_CODECS)}; medians of batches')


def _guard(result: Result, profile: RobotProfile) -> None:
    spent, moved = guard_us(profile, GUARD_TICKS)
    if moved < 0.99:
        result.notes.append(f'{profile.name}: the guard let only {moved:.0%} of the ticks move')
    aim = '<150' if len(profile.joints) >= GUARD_JOINTS else ''
    result.metrics[f'{profile.name} guard_p99_us'] = Metric(
        float(np.percentile(spent, 99)), 'us', aim)
    result.series[f'{profile.name} guard'] = (spent.tolist(), 'us')
    result.samples += len(spent)


def _stack(result: Result, profile: RobotProfile, seconds: float, domain: str) -> None:
    """Run a robot's stack and add its rows."""
    rate = profile.rates.control
    with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
        folder = Path(text)
        bare = folder / 'bare.npy'
        stack = bench_stack('constant_time', domain, folder / 'bags', {
            'policy_server': {'policy_parameters': ['sway=0.2']}}, robots=(profile.name,))
        measured, _ = with_stack(stack, lambda rig: _measure(rig, rate, seconds, bare),
                                 on_event=warnings_to())
        stamps = np.load(bare, allow_pickle=False)
    width = round(STATS_WINDOW_S * 1e9)
    theirs = []
    for end, _, _ in measured.windows:
        inside = np.diff(stamps[(stamps >= end - width) & (stamps < end)]) * 1e-6
        theirs.append(percentiles(inside.tolist())['p99'])
    excess = [ours - bare_p99 for (_, ours, _), bare_p99 in zip(measured.windows, theirs)]
    name = profile.name
    result.metrics[f'{name} excess_p99_ms'] = Metric(float(np.median(excess)), 'ms', '<=1')
    result.metrics[f'{name} gap_ms'] = Metric(max(top for _, _, top in measured.windows), 'ms')
    result.metrics[f'{name} missed_ticks'] = Metric(float(measured.missed), '')
    result.metrics[f'{name} rate_hz'] = Metric(measured.hz, 'Hz', f'>={0.99 * rate:g}')
    result.metrics[f'{name} busy_p99_ms'] = Metric(measured.busy_p99_ms, 'ms')
    result.metrics[f'{name} cpu_percent'] = Metric(measured.cpu, '%',
                                                   CPU_AIM.get(name, CPU_AIM_ELSE))
    result.raw[name] = {'windows': measured.windows, 'bare_p99_ms': theirs}
    result.samples += measured.ticks
    if not measured.realtime:
        result.notes.append(f'{name}: SCHED_FIFO was refused')


def _measure(rig: Rig, rate: float, seconds: float, bare: Path) -> _Run:
    # Nobody is enabled before all processes are up: a device that is silent for a moment, because
    # its world does not get to run, is rightly refused.
    rig.wait('policy/status', lambda message: True, 60.0, 'the policy runner')
    bring_up(rig, lambda text: print(f'{rig.robot}: {text}', flush=True), 60.0)
    rig.client.home()
    rig.client.set_instruction('sway')
    rig.client.set_mode('policy')
    before = rig.newest('policy/status').chunks
    rig.wait('policy/status', lambda m: m.chunks > before, 15.0, 'a chunk of the policy')
    process = subprocess.Popen([sys.executable, '-m', 'mivla_bringup.bench.bare_loop', str(rate),
                                str(PRIORITY), str(bare)])
    try:
        rig.pause(2.0)
        return _watch(rig, seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10.0)


def _watch(rig: Rig, seconds: float) -> _Run:
    """Take the driver's statistics at the end of each of its windows."""
    done = _Run()
    first = rig.newest('guard/status').loop
    begin, spent = time.monotonic_ns(), _cpu_seconds(rig.robot)
    for number in range(max(1, round(seconds / STATS_WINDOW_S))):
        rig.pause(max(0.0, begin * 1e-9 + (number + 1) * STATS_WINDOW_S - time.monotonic()))
        loop = rig.newest('guard/status').loop
        done.windows.append((time.monotonic_ns(), loop.interval_p99 * 1e3,
                             loop.interval_max * 1e3))
        done.busy_p99_ms = float(np.nanmax([done.busy_p99_ms, loop.busy_p99 * 1e3]))
    length = (time.monotonic_ns() - begin) * 1e-9
    after = _cpu_seconds(rig.robot)
    if spent is not None and after is not None:
        done.cpu = 100.0 * (after - spent) / length
    done.ticks, done.missed = int(loop.ticks - first.ticks), int(loop.missed - first.missed)
    done.hz, done.realtime = done.ticks / length, bool(loop.realtime)
    return done


def _cpu_seconds(robot: str) -> Optional[float]:
    """Return the processor time of a robot's driver and all its descendants in this domain [s]."""
    table = {pid: stat for pid in map(int, filter(str.isdigit, os.listdir('/proc')))
             if (stat := _stat(pid)) is not None}
    wanted = [pid for pid in table if _is_driver(pid, robot)]
    if not wanted:
        return None
    found = set(wanted)
    while more := {pid for pid, (parent, _) in table.items()
                   if parent in found and pid not in found}:
        found |= more
    return sum(table[pid][1] for pid in found)


def _stat(pid: int) -> Optional[tuple[int, float]]:
    """Return the parent and the processor time [s] of a process; None when it has ended."""
    try:
        words = Path('/proc', str(pid), 'stat').read_text().rpartition(')')[2].split()
    except OSError:
        return None
    return int(words[1]), (int(words[11]) + int(words[12])) / os.sysconf('SC_CLK_TCK')


def _is_driver(pid: int, robot: str) -> bool:
    words = _words(pid, 'cmdline')
    return '__node:=driver' in words and f'__ns:=/{robot}' in words and (
        f'ROS_DOMAIN_ID={os.environ.get("ROS_DOMAIN_ID", "0")}' in _words(pid, 'environ'))


def _words(pid: int, name: str) -> Sequence[str]:
    try:
        return Path('/proc', str(pid), name).read_bytes().decode(errors='replace').split('\0')
    except OSError:
        return ()
