"""
``mivla evaluate``: how often a policy does its task, with an interval and with controls.

In lockstep (simulated time, all cores) over many unseen seeds; some of the same seeds in real time
through the graph; and two controls that must fail: the same policy with its pictures replaced by
their training mean (does it look?), and the nearest demonstration replayed (is it needed?).
With ``--against`` a second policy meets the same scenes; with ``--real`` an operator at a real
robot says what came of each trial.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from mivla_bringup.arguments import listed
from mivla_bringup.bench.result import Result, results_folder
from mivla_bringup.cli import Parser
from mivla_bringup.errors import UsageError
from mivla_bringup.evaluation.episodes import Request, controls_of, jobs_of, run_jobs
from mivla_bringup.evaluation.journal import Journal
from mivla_bringup.evaluation.policies import PolicyRef, policy_ref
from mivla_bringup.evaluation.summary import cells_of, comparisons_of, result_of
from mivla_core.profile import load_profile
from mivla_drivers.sim.scenario import EVAL_SEEDS, INSTRUCTIONS, LEVELS
from mivla_drivers.sim.tasks import task_of

__all__ = ['evaluate_lockstep', 'main']

CONTROLS = 40
REALTIME_DOMAIN = '44'
JOURNAL = 'episodes.jsonl'


def main(argv: Sequence[str]) -> int:
    """Evaluate a policy; returns 0 when it ran, whatever the numbers are."""
    words = list(argv)
    if '--real' in words:
        from mivla_bringup.evaluation.real import main as real_main
        return real_main([word for word in words if word != '--real'])
    parser = _parser()
    arguments = parser.parse_args(words)
    for name in ('episodes', 'workers'):
        if getattr(arguments, name) < 1:
            parser.error(f'--{name} {getattr(arguments, name)}: expected at least 1')
    levels = tuple(dict.fromkeys(listed(arguments.level)))
    for level in levels or ('',):
        if level not in LEVELS:
            parser.error(f'--level {level}: expected {", ".join(LEVELS)}, or several with commas')
    request = Request(_policies(arguments), arguments.robot or robot_of(arguments.task),
                      arguments.task, levels, arguments.episodes,
                      min(arguments.controls, arguments.episodes),
                      arguments.limit or task_of(arguments.task).limit_s, arguments.first_seed,
                      tuple(dict.fromkeys(listed(arguments.without))))
    folder = Path(arguments.out or _default_folder(request)).expanduser()
    # Who ends it politely finds the same order as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.fresh:
        (folder / JOURNAL).unlink(missing_ok=True)
    with Journal(folder / JOURNAL) as journal:
        aside = measure(request, journal, arguments.workers)
        if arguments.realtime > 0:
            from mivla_bringup.evaluation.realtime import measure_realtime
            measure_realtime(request, journal, min(arguments.realtime, arguments.episodes),
                             arguments.domain, folder, _say)
        result = result_of(request, journal)
        result.notes += aside
        page = _report(request, journal, result, folder, arguments.films, words)
    raw = result.save(results_folder())
    print(result.table())
    print(f'report: {page}')
    if arguments.json:
        print(json.dumps(result.summary(raw)))
    return 0


def _parser() -> Parser:
    parser = Parser(prog='mivla evaluate', description=__doc__.partition('\n\n')[0])
    parser.add_argument('--task', default='click_bell', choices=sorted(INSTRUCTIONS))
    parser.add_argument('--robot', default='', help='profile: a name or a path (default: the '
                                                    'task\'s)')
    parser.add_argument('--policy', default='', help='checkpoint folder, or plug-in (default: the '
                                                     'demo\'s checkpoint)')
    parser.add_argument('--parameter', action='append', default=[], metavar='KEY=VALUE',
                        help='of the plug-in; may be given several times')
    parser.add_argument('--against', default='', help='a second policy, over the same seeds')
    parser.add_argument('--against-parameter', action='append', default=[], metavar='KEY=VALUE',
                        help='the same of the second policy')
    parser.add_argument('--episodes', type=int, default=100, help='seeds of each level')
    parser.add_argument('--first-seed', type=int, default=EVAL_SEEDS.start, metavar='SEED',
                        help=f'{EVAL_SEEDS.start} (the default) and on are what is published: '
                             'tune on others')
    parser.add_argument('--level', default='hard',
                        help=f'one or several with commas: {", ".join(LEVELS)}')
    parser.add_argument('--realtime', type=int, default=20,
                        help='of the same seeds, in real time through the graph; 0: none')
    parser.add_argument('--controls', type=int, default=CONTROLS,
                        help='seeds of each control; 0: none')
    parser.add_argument('--without', default='', metavar='CAMERA',
                        help='one or several with commas: on the seeds of the controls, what the '
                             'policy does without its pictures')
    parser.add_argument('--limit', type=float, default=0.0,
                        help='s that a policy is given (default: the task\'s)')
    parser.add_argument('--films', type=int, default=4, help='failures to film; 0: none')
    parser.add_argument('--workers', type=int, default=max(1, os.cpu_count() or 1))
    parser.add_argument('--out', default='', help='folder of journal, films and report (default: '
                                                  'runs/evaluate/TASK-POLICY)')
    parser.add_argument('--fresh', action='store_true', help='begin anew, not where it was left')
    parser.add_argument('--domain', default=os.environ.get('ROS_DOMAIN_ID', REALTIME_DOMAIN))
    parser.add_argument('--real', action='store_true',
                        help='trials on a real robot: see "mivla evaluate --real --help"')
    parser.add_argument('--json', action='store_true',
                        help='one JSON object on the last line of standard output')
    return parser


def robot_of(task: str) -> str:
    """Return the profile that a task is measured with where none is named."""
    return task_of(task).robots[0]


def _policies(arguments: argparse.Namespace) -> tuple[PolicyRef, ...]:
    from mivla_bringup.demo import demo_checkpoint
    first = policy_ref(arguments.policy or str(demo_checkpoint()), arguments.parameter)
    if not arguments.against:
        return (first,)
    second = policy_ref(arguments.against, arguments.against_parameter)
    if second.digest == first.digest:
        raise UsageError('--policy and --against are the same policy')
    return first, second


def _default_folder(request: Request) -> Path:
    names = '-'.join(policy.name.replace(' ', '_') for policy in request.policies)
    return Path.cwd() / 'runs' / 'evaluate' / f'{request.task}-{names}'


def measure(request: Request, journal: Journal, workers: int) -> list[str]:
    """
    Run what the journal lacks of a request in lockstep.

    :returns: why controls were left out, a sentence each.
    :raises MivlaError: a policy cannot be made, or is of another robot.
    """
    profile = load_profile(request.robot)
    kinds: dict[str, tuple[str, ...]] = {}
    aside: list[str] = []
    for policy in request.policies:
        # Made here once, and so refused in one line: a worker that cannot load it would die.
        whole = policy.open(profile)
        possible, why = controls_of(whole, policy, request.without)
        kinds[policy.digest] = possible
        if request.controls > 0:
            aside += why
    run_jobs(request, jobs_of(request, profile.hash, kinds), journal, workers, _say)
    return aside


def evaluate_lockstep(policy: Path, task: str, level: str, episodes: int,
                      controls: int = CONTROLS, workers: int | None = None) -> Result:
    """
    Run a checkpoint, and the two controls, over the first unseen seeds in simulated time.

    Nothing is kept: for programs that evaluate what they have just trained.

    :param episodes: seeds for the policy.
    :param controls: seeds for each control, at most ``episodes``.
    :param workers: processes; default one per core.
    :raises CheckpointError: not a checkpoint, damaged, or of another robot.
    """
    import tempfile
    request = Request((policy_ref(str(policy)),), robot_of(task), task, (level,), episodes,
                      min(controls, episodes), task_of(task).limit_s)
    with tempfile.TemporaryDirectory(prefix='mivla-evaluate-') as folder, Journal(
            Path(folder) / JOURNAL) as journal:
        aside = measure(request, journal, workers or max(1, os.cpu_count() or 1))
        result = result_of(request, journal)
    result.notes += aside
    return result


def _report(request: Request, journal: Journal, result: Result, folder: Path, films: int,
            words: Sequence[str]) -> Path:
    """Film the last failures and write the page."""
    from mivla_bringup.evaluation.films import films_of
    from mivla_bringup.evaluation.page import write_page
    cells = cells_of(request, journal)
    failures = [row for cell in cells if cell.kind == 'policy' for row in cell.rows
                if not row.success]
    shot = films_of(request, failures[-films:] if films > 0 else [], folder / 'films', _say)
    return write_page(request, cells, comparisons_of(request, cells), shot, result,
                      f'mivla evaluate {" ".join(words)}', folder / 'report.html')


def _say(text: str) -> None:
    print(f'evaluate: {text}', file=sys.stderr if not sys.stdout.isatty() else sys.stdout,
          flush=True)
