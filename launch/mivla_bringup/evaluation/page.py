"""
One self-contained HTML page about an evaluation: films inside, no script, no link to anywhere.

What is on it is what the journal holds; a reader can follow every number to its seeds.
"""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mivla_bringup.bench.result import Result, hardware
from mivla_bringup.evaluation.charts import difference_bar, histogram, whiskers
from mivla_bringup.evaluation.episodes import Request
from mivla_bringup.evaluation.films import Film
from mivla_bringup.evaluation.journal import WITHOUT
from mivla_bringup.evaluation.paired import Comparison
from mivla_bringup.evaluation.summary import Cell
from mivla_bringup.session_report import STYLE

__all__ = ['PAGE_STYLE', 'write_page']

PAGE_STYLE = STYLE + '''
svg text.row { fill: var(--ink); font-size: 13px; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 18px; }
@media (max-width: 760px) { .two { grid-template-columns: 1fr; } }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 14px; }
.films figure { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; overflow: hidden; } .films figcaption { padding: 8px 12px; font-size: 13px; }
.films video { width: 100%; display: block; background: #000; }
.scroll { overflow-x: auto; } code { font-size: 12.5px; overflow-wrap: anywhere; }
.verdict { font-size: 16px; }
'''
_KIND = {'policy': '', 'blind': ' (blind control)', 'replay': ' (replay control)',
         'realtime': ' (real time)'}


def write_page(request: Request, cells: Sequence[Cell], comparisons: Mapping[str, Comparison],
               films: Sequence[Film], result: Result, command: str, path: Path) -> Path:
    """
    Write the page.

    :param command: that made the numbers, as it was typed.
    :return: ``path``.
    """
    text = ''.join(_page(request, cells, comparisons, films, result, command))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    return path


def _page(request: Request, cells: Sequence[Cell], comparisons: Mapping[str, Comparison],
          films: Sequence[Film], result: Result, command: str) -> Iterable[str]:
    names = ' against '.join(policy.name for policy in request.policies)
    yield ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
           '<meta name="viewport" content="width=device-width, initial-scale=1">'
           f'<title>{_e(request.task)} · {_e(names)}</title><style>{PAGE_STYLE}</style></head>'
           f'<body><h1>{_e(request.task)} · {_e(names)}</h1>')
    yield (f'<p class="soft">{time.strftime("%A %d %B %Y, %H:%M")} · robot {_e(request.robot)} · '
           f'{_e(", ".join(request.levels))} · simulated</p>')
    yield _tiles(cells, result)
    yield '<h2>Success</h2>' + whiskers([
        (f'{_short(cell, request)}', cell.rate, *cell.interval, _colour(cell, request))
        for cell in cells])
    yield ('<p class="soft">Whiskers are 95 % Wilson intervals. The blind control sees mean '
           'pictures, the replay control plays the nearest demonstration; both should fail.</p>')
    yield _table(cells, request)
    if comparisons:
        yield _compared(comparisons, request)
    yield _spreads(cells, request)
    yield _failures(cells, films, request)
    yield _guard(cells, request)
    yield _how(request, result, command)
    yield '</body></html>\n'


def _tiles(cells: Sequence[Cell], result: Result) -> str:
    main = [cell for cell in cells if cell.kind == 'policy']
    rows = [row for cell in main for row in cell.rows]
    speed = result.metrics.get('evaluate_speed')
    tiles = [(f'{cell.rate:.1%}', f'{cell.policy.name}, {cell.level}') for cell in main[:4]]
    tiles += [(str(len(rows)), 'episodes'),
              (f'{np.mean([row.score for row in rows]):.2f}' if rows else '', 'mean score')]
    if speed is not None:
        tiles.append((f'{speed.value:.1f}x', 'real time, per core'))
    return '<div class="tiles">' + ''.join(
        f'<div class="tile"><b>{_e(value)}</b><span class="soft">{_e(name)}</span></div>'
        for value, name in tiles) + '</div>'


def _table(cells: Sequence[Cell], request: Request) -> str:
    lines = []
    for cell in cells:
        low, high = cell.interval
        times = f'{np.median(cell.seconds):.1f}' if cell.seconds else ''
        stopped = sum(bool(row.stopped) for row in cell.rows)
        lines.append(
            f'<tr><td>{_e(_short(cell, request))}</td><td class="n">{cell.wins}</td>'
            f'<td class="n">{len(cell.rows)}</td><td class="n">{cell.rate:.1%}</td>'
            f'<td class="n">{low:.1%} … {high:.1%}</td><td class="n">{cell.score:.3f}</td>'
            f'<td class="n">{times}</td><td class="n">{stopped or ""}</td></tr>')
    return ('<div class="scroll"><table><tr><th></th><th class="n">succeeded</th>'
            '<th class="n">of</th><th class="n">rate</th><th class="n">95 % interval</th>'
            '<th class="n">mean score</th><th class="n">median time [s]</th>'
            f'<th class="n">stopped</th></tr>{"".join(lines)}</table></div>')


def _compared(comparisons: Mapping[str, Comparison], request: Request) -> str:
    first, second = (policy.name for policy in request.policies)
    text = '<h2>Compared on the same scenes</h2>'
    for level, found in comparisons.items():
        grade = {1: 'good', -1: 'bad', 0: 'plain'}[found.ahead]
        low, high = found.score_interval
        text += (
            f'<article class="card {grade}"><div class="head"><h3>{_e(level)}</h3></div>'
            f'<p class="verdict">{_e(found.words(first, second))}</p>'
            f'{difference_bar(found.interval[0], found.difference, found.interval[1], grade)}'
            f'<p class="soft">Both {found.both}, only {_e(first)} {found.first}, only '
            f'{_e(second)} {found.second}, neither {found.neither}. Mean score '
            f'{found.score_difference:+.3f} ({low:+.3f} to {high:+.3f}).</p></article>')
    if len(comparisons) > 1:
        text += ('<p class="soft">Every level is a test of its own at 5 %; of several, one may '
                 'well come out by chance. “all” puts them together.</p>')
    return text + ('<p class="soft">McNemar\'s exact test; intervals of rates after '
                   'Newcombe (1998), of scores by resampling scenes; scenes needed after Connor '
                   '(1987), 5 %, 80 %. Of few scenes an interval may leave out zero where the '
                   'exact test finds no difference: the test decides.</p>')


def _spreads(cells: Sequence[Cell], request: Request) -> str:
    text = ''
    for cell in cells:
        if cell.kind == 'policy':
            text += (f'<div><h2>Time to success, {_e(_short(cell, request))}</h2>'
                     f'{histogram(cell.seconds, 0.0, request.limit_s, "s")}</div>'
                     f'<div><h2>Score, {_e(_short(cell, request))}</h2>'
                     f'{histogram([row.score for row in cell.rows], 0.0, 1.0, "")}</div>')
    return f'<div class="two">{text}</div>'


def _failures(cells: Sequence[Cell], films: Sequence[Film], request: Request) -> str:
    failed = [(cell, row) for cell in cells if cell.kind == 'policy' for row in cell.rows
              if not row.success]
    text = f'<h2>Failures: {len(failed)}</h2>'
    if not failed:
        return text + '<p>None.</p>'
    figures = ''
    for film in films:
        job = film.row.job
        data = base64.b64encode(film.path.read_bytes()).decode()
        odd = '' if film.same else ' <span class="lost">not the same episode again</span>'
        figures += (
            '<figure><video controls muted loop playsinline preload="metadata" '
            f'src="data:video/mp4;base64,{data}"></video><figcaption><b>{_e(job.level)}, seed '
            f'{job.seed}</b><br>score {film.row.score:.2f}, stage '
            f'{_e(film.row.stage or "none")}'
            f'{", " + _e(film.row.stopped) if film.row.stopped else ""}{odd}</figcaption>'
            '</figure>')
    stages = '; '.join(
        f'{_short(cell, request)}: '
        + ', '.join(f'{name} {count}' for name, count in cell.stages.most_common())
        for cell in cells if cell.kind == 'policy' and cell.stages)
    rows = ''.join(
        f'<tr><td>{_e(_short(cell, request))}</td><td class="n">{row.job.seed}</td>'
        f'<td class="n">{row.score:.2f}</td><td>{_e(row.stage or "none")}</td>'
        f'<td>{_e(row.stopped)}</td></tr>' for cell, row in failed)
    return (f'{text}<p>Last stage reached: {_e(stages)}.</p><div class="films">{figures}</div>'
            f'<details><summary>all {len(failed)}</summary><table><tr><th></th>'
            '<th class="n">seed</th><th class="n">score</th><th>last stage</th><th>stopped</th>'
            f'</tr>{rows}</table></details>')


def _guard(cells: Sequence[Cell], request: Request) -> str:
    kinds = sorted({name for cell in cells for name in cell.verdicts})
    if not kinds:
        return ''
    head = ''.join(f'<th class="n">{_e(name)}</th>' for name in kinds)
    lines = ''.join(
        f'<tr><td>{_e(_short(cell, request))}</td>'
        + ''.join(f'<td class="n">{cell.verdicts.get(name, 0) or ""}</td>' for name in kinds)
        + '</tr>' for cell in cells if cell.verdicts)
    return ('<h2>Guard</h2><p class="soft">Set-points by what the guard made of them.</p>'
            f'<div class="scroll"><table><tr><th></th>{head}</tr>{lines}</table></div>')


def _how(request: Request, result: Result, command: str) -> str:
    seeds = request.seeds
    facts = [
        f'<code>{_e(command)}</code>',
        f'seeds {seeds[0]} to {seeds[-1]} of each level; a policy is given '
        f'{request.limit_s:g} s; one answer takes 70 ms of simulated time',
        *(f'{_e(policy.name)}: <code>{_e(policy.plug_in)}</code>, digest '
          f'<code>{_e(policy.digest)}</code>' for policy in request.policies),
        _e(hardware()), *(_e(note) for note in result.notes)]
    return '<h2>How it was measured</h2><ul>' + ''.join(
        f'<li>{fact}</li>' for fact in facts) + '</ul>'


def _short(cell: Cell, request: Request) -> str:
    name = f'{cell.policy.name}, ' if len(request.policies) > 1 else ''
    return f'{name}{cell.level}' + _KIND.get(
        cell.kind, f' (without the camera {cell.kind.removeprefix(WITHOUT)})')


def _colour(cell: Cell, request: Request) -> str:
    if cell.kind not in ('policy', 'realtime'):
        return 'plain'
    return 'measured' if cell.policy is request.policies[0] else 'applied'


def _e(text: str) -> str:
    return html.escape(str(text), quote=True)
