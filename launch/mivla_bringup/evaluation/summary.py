"""The numbers of an evaluation: rates with their intervals, scores, times, and comparisons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from mivla_bringup.bench.result import Metric, Result, wilson
from mivla_bringup.evaluation.episodes import Request
from mivla_bringup.evaluation.journal import KINDS, PROTOCOL, WITHOUT, Journal, Row
from mivla_bringup.evaluation.paired import Comparison, compare
from mivla_bringup.evaluation.policies import PolicyRef

__all__ = ['Cell', 'cells_of', 'comparisons_of', 'result_of']

# Published aims: (task, level) -> least success rate of the policy. Controls must stay below.
AIMS = {('click_bell', 'hard'): '>=0.95', ('click_bell', 'easy'): '>=0.95',
        ('bottle_on_pad', 'easy'): '>=0.9', ('bottle_on_pad', 'hard'): '>=0.7'}
CONTROL_AIM = '<=0.25'


@dataclass(frozen=True)
class Cell:
    """
    One policy, or a control of it, on one level.

    :param rows: its episodes by seed.
    """

    policy: PolicyRef
    kind: str
    level: str
    rows: tuple[Row, ...]

    @property
    def wins(self) -> int:
        """How many episodes succeeded."""
        return sum(row.success for row in self.rows)

    @property
    def rate(self) -> float:
        """The success rate."""
        return self.wins / len(self.rows)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the success rate."""
        return wilson(self.wins, len(self.rows))

    @property
    def score(self) -> float:
        """The mean of the partial scores."""
        return float(np.mean([row.score for row in self.rows]))

    @property
    def seconds(self) -> list[float]:
        """Completion times of the successes [s]."""
        return [row.seconds for row in self.rows if row.success]

    @property
    def verdicts(self) -> Counter[str]:
        """What the guard said, over all episodes."""
        total: Counter[str] = Counter()
        for row in self.rows:
            total.update(row.verdicts)
        return total

    @property
    def stages(self) -> Counter[str]:
        """Where the episodes that failed came to."""
        return Counter(row.stage or 'none' for row in self.rows if not row.success)

    def words(self) -> str:
        """Return wins, episodes and interval."""
        low, high = self.interval
        return (f'{self.wins} of {len(self.rows)}, 95 % Wilson interval [{low:.3f}, {high:.3f}]')


def cells_of(request: Request, journal: Journal) -> list[Cell]:
    """Return what was measured, in the order of the request; without what was not."""
    cells = []
    for policy in request.policies:
        for kind in (*KINDS, *(f'{WITHOUT}{role}' for role in request.without)):
            for level in request.levels:
                rows = tuple(row for row in journal.of(policy.digest, kind, request.task, level)
                             if row.job.seed in request.seeds)
                if rows:
                    cells.append(Cell(policy, kind, level, rows))
    return cells


def comparisons_of(request: Request, cells: Sequence[Cell]) -> dict[str, Comparison]:
    """
    Return level -> how two policies compare on the seeds that both were run on.

    Of several levels there is one for all of them together, ``all``, too.
    """
    if len(request.policies) != 2:
        return {}
    found: dict[str, Comparison] = {}
    pooled: tuple[list[tuple[bool, float]], list[tuple[bool, float]]] = ([], [])
    for level in request.levels:
        sides = []
        for policy in request.policies:
            rows = next((cell.rows for cell in cells if cell.policy is policy
                         and cell.kind == 'policy' and cell.level == level), ())
            sides.append({row.job.seed: (row.success, row.score) for row in rows})
        shared = sorted(set(sides[0]) & set(sides[1]))
        if shared:
            pairs = [[side[seed] for seed in shared] for side in sides]
            found[level] = compare(pairs[0], pairs[1])
            for total, more in zip(pooled, pairs, strict=True):
                total.extend(more)
    if len(found) > 1:
        found['all'] = compare(*pooled)
    return found


def result_of(request: Request, journal: Journal) -> Result:
    """
    Return the numbers as every benchmark has them.

    One policy on one level has ``success_rate``, ``success_blind`` and ``success_replay``; of
    several levels the name of the level follows, of a second policy ``other_`` comes first.
    """
    cells = cells_of(request, journal)
    metrics: dict[str, Metric] = {}
    notes: list[str] = []
    series: dict[str, tuple[Sequence[float], str]] = {}
    several = len(request.levels) > 1
    for cell in cells:
        other = cell.policy is not request.policies[0]
        word = {'policy': 'rate'}.get(cell.kind, cell.kind)
        name = f'{"other_" if other else ""}success_{word}{f"_{cell.level}" if several else ""}'
        aim = {'policy': '' if other else AIMS.get((request.task, cell.level), ''),
               'blind': CONTROL_AIM, 'replay': CONTROL_AIM}.get(cell.kind, '')
        metrics[name] = Metric(cell.rate, '', aim)
        notes.append(f'{name}: {cell.words()}, mean score {cell.score:.3f}')
        if cell.kind == 'policy':
            if cell.seconds:
                series[f'time, {cell.level}{", other" if other else ""}'] = (cell.seconds, 's')
            notes.append(f'{cell.policy.name} ({cell.policy.digest}), {cell.level}: guard '
                         + (', '.join(f'{k} {n}' for k, n in sorted(cell.verdicts.items()))
                            or 'said nothing'))
    _realtime_aims(cells, metrics, several)
    for level, found in comparisons_of(request, cells).items():
        metrics[f'difference_{level}'] = Metric(found.difference, '')
        metrics[f'p_{level}'] = Metric(found.p, '')
        notes.append(f'{level}: {found.words(*(p.name for p in request.policies))}')
    main = [row for cell in cells if cell.kind == 'policy' for row in cell.rows]
    metrics['episodes'] = Metric(len(main), '')
    timed = [row for row in main if row.cpu_s > 0.0]
    if timed:
        simulated = sum(row.seconds for row in timed)
        # Of processor time: what a core does that has nothing else to do.
        metrics['evaluate_speed'] = Metric(simulated / sum(row.cpu_s for row in timed), 'x', '>=5')
        metrics['evaluate_speed_wall'] = Metric(
            simulated / max(1e-9, sum(row.wall_s for row in timed)), 'x')
    notes.append(_software(cells))
    raw = {'episodes': [asdict(row) for cell in cells for row in cell.rows],
           'policies': [_published(policy) for policy in request.policies],
           'comparisons': {k: asdict(v) for k, v in comparisons_of(request, cells).items()}}
    return Result(f'evaluate {request.task}', len(main), metrics, series, raw, notes)


def _published(policy: PolicyRef) -> dict[str, object]:
    """Return a policy without where it lay on this machine: its digest says which it was."""
    folder = {} if policy.checkpoint is None else {'checkpoint': policy.checkpoint.name}
    return asdict(replace(policy, parameters={**policy.parameters, **folder}))


def _realtime_aims(cells: Sequence[Cell], metrics: dict[str, Metric], several: bool) -> None:
    """What runs in real time should do as well as lockstep: its interval's lower end at least."""
    for cell in cells:
        if cell.kind != 'realtime':
            continue
        beside = next((other for other in cells if other.kind == 'policy'
                       and (other.policy, other.level) == (cell.policy, cell.level)), None)
        name = f'success_realtime{f"_{cell.level}" if several else ""}'
        if beside is not None and name in metrics:
            metrics[name] = Metric(cell.rate, '', f'>={beside.interval[0]:.4f}')
            metrics[name.replace('success_realtime', 'realtime_factor')] = Metric(
                min(row.realtime_factor for row in cell.rows), '')


def _software(cells: Sequence[Cell]) -> str:
    found = sorted({row.revision for cell in cells for row in cell.rows})
    mixed = '; ROWS OF SEVERAL REVISIONS: --fresh runs them all again' if len(found) > 1 else ''
    seeds = [row.job.seed for cell in cells for row in cell.rows]
    return (f'lockstep, protocol {PROTOCOL}, seeds {min(seeds)} to {max(seeds)}, software '
            f'{", ".join(found)}{mixed}')
