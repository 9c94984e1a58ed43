"""
What every benchmark prints and keeps.

A table for people, then one JSON object on the last line of standard output for machines:
``{"benchmark", "revision", "hardware", "samples", "metrics": {name: {"value", "unit", "aim",
"met"}}, "raw": file}``. The raw samples are kept beside it, so a number can be looked into later.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mivla_core.profile import config_dir

__all__ = ['Metric', 'Result', 'hardware', 'percentiles', 'results_folder', 'revision', 'wilson']


@dataclass(frozen=True)
class Metric:
    """
    One number of a benchmark.

    :param aim: '<20', '>=0.95', '=0' in the metric's unit; '' when it is only reported.
    """

    value: float
    unit: str
    aim: str = ''

    @property
    def met(self) -> Optional[bool]:
        """Whether the aim is met; None without one or without a value."""
        if not self.aim or not np.isfinite(self.value):
            return None if not self.aim else False
        for sign, test in (('<=', np.less_equal), ('>=', np.greater_equal), ('<', np.less),
                           ('>', np.greater), ('=', np.equal)):
            if self.aim.startswith(sign):
                return bool(test(self.value, float(self.aim[len(sign):])))
        raise ValueError(f'aim {self.aim!r} begins with none of <= >= < > =')


@dataclass
class Result:
    """
    The outcome of one benchmark run.

    :param series: named samples of which the table shows p50/p95/p99/max, with their unit.
    :param raw: everything worth keeping, as plain data.
    :param notes: sentences a reader needs to judge the numbers.
    """

    benchmark: str
    samples: int
    metrics: dict[str, Metric]
    series: dict[str, tuple[Sequence[float], str]] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> Path:
        """Write the raw data and summary as one JSON file; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(timezone.utc).strftime('%Y%m%d-%H%M%S')
        path = folder / f'{self.benchmark.replace(" ", "_")}-{stamp}.json'
        data = {**self.summary(None), 'notes': self.notes, 'data': self.raw,
                'series': {name: {'unit': unit, 'values': [float(v) for v in values]}
                           for name, (values, unit) in self.series.items()}}
        path.write_text(json.dumps(data, allow_nan=True) + '\n')
        return path

    def summary(self, raw: Optional[Path]) -> dict[str, Any]:
        """Return the object that goes on the last line of standard output."""
        metrics = {name: {'value': _plain(metric.value), 'unit': metric.unit, 'aim': metric.aim,
                          'met': metric.met} for name, metric in self.metrics.items()}
        return {'benchmark': self.benchmark, 'revision': revision(), 'hardware': hardware(),
                'samples': self.samples, 'metrics': metrics,
                'raw': str(raw) if raw is not None else None}

    def table(self) -> str:
        """Return the table for people."""
        lines = [f'{self.benchmark}  ({self.samples} samples; {hardware()})', '']
        if self.series:
            lines.append(f'  {"":26}{"p50":>10}{"p95":>10}{"p99":>10}{"max":>10}')
            for name, (values, unit) in self.series.items():
                row = percentiles(values)
                cells = ''.join(f'{row[key]:>10.3f}' for key in ('p50', 'p95', 'p99', 'max'))
                lines.append(f'  {name + " [" + unit + "]":26}{cells}')
            lines.append('')
        for name, metric in self.metrics.items():
            verdict = {None: '', True: 'met', False: 'NOT MET'}[metric.met]
            aim = f'aim {metric.aim}' if metric.aim else ''
            lines.append(f'  {name:26}{metric.value:>10.3f} {metric.unit:6}{aim:14}{verdict}')
        lines += ['', *(f'  note: {note}' for note in self.notes)]
        return '\n'.join(lines).rstrip()


def _plain(value: float) -> Optional[float]:
    return round(float(value), 6) if np.isfinite(value) else None


def percentiles(values: Sequence[float]) -> Mapping[str, float]:
    """Return p50, p95, p99 and max of some samples; NaN without any."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return dict.fromkeys(('p50', 'p95', 'p99', 'max'), float('nan'))
    p50, p95, p99 = np.percentile(array, (50, 95, 99))
    return {'p50': float(p50), 'p95': float(p95), 'p99': float(p99), 'max': float(array.max())}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate."""
    if trials == 0:
        return 0.0, 1.0
    z, p = 1.959963984540054, successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * float(np.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def revision() -> str:
    """Return the git revision of the checkout, '+' appended when it has changes."""
    root = config_dir().resolve().parent
    try:
        head = subprocess.run(['git', 'rev-parse', '--short=12', 'HEAD'], cwd=root, text=True,
                              capture_output=True, timeout=5.0, check=True).stdout.strip()
        dirty = subprocess.run(['git', 'status', '--porcelain', '--untracked-files=no'], cwd=root,
                               text=True, capture_output=True, timeout=5.0, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 'unknown'
    return head + ('+' if dirty.strip() else '')


def hardware() -> str:
    """Return the machine in words: processor, cores, memory, real-time permission, kernel."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                model = line.partition(':')[2].strip()
                break
        pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        memory = f'{pages / 2**30:.0f} GiB'
    except (OSError, ValueError):
        memory = 'unknown memory'
    cores = len(os.sched_getaffinity(0))
    return f'{model}, {cores} cores, {memory}, Linux {platform.release().split("-")[0]}'


def results_folder() -> Path:
    """Return where results are kept: benchmarks/results of the checkout, else the user's state."""
    checkout = config_dir().resolve().parent / 'benchmarks'
    if checkout.is_dir():
        return checkout / 'results'
    return Path(os.environ.get('XDG_STATE_HOME', Path.home() / '.local/state')) / 'mivla/bench'
