"""Episodes in lockstep on all cores: what was asked for, less what the journal has already."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional

from mivla_bringup.bench.result import revision
from mivla_bringup.errors import BringupError
from mivla_bringup.evaluation.journal import WITHOUT, Job, Journal, Row
from mivla_bringup.evaluation.policies import PolicyRef
from mivla_core.errors import MivlaError
from mivla_core.profile import RobotProfile, load_profile
from mivla_drivers.sim.scenario import EVAL_SEEDS

__all__ = ['EvaluationError', 'Request', 'controls_of', 'held', 'jobs_of', 'run_job', 'run_jobs',
           'worker_pool']

# What a worker process holds between its jobs.
_held: dict[str, Any] = {}


class EvaluationError(BringupError):
    """An evaluation cannot be run as it was asked for."""


@dataclass(frozen=True)
class Request:
    """
    What is to be measured.

    :param policies: one, or two that are compared over the same seeds.
    :param robot: profile, a name or a path.
    :param episodes: seeds of every level.
    :param controls: of these, for each control.
    :param limit_s: that a policy is given [s].
    :param without: cameras whose worth is measured: the policy runs on the controls' seeds with
        such a camera's pictures replaced by their mean.
    :param first: of the seeds; another than the default to tune on scenes that the published
        numbers are not of.
    :raises EvaluationError: seeds that are not the evaluation's own.
    """

    policies: tuple[PolicyRef, ...]
    robot: str
    task: str
    levels: tuple[str, ...]
    episodes: int
    controls: int
    limit_s: float
    first: int = EVAL_SEEDS.start
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        last = self.first + self.episodes - 1
        if self.first not in EVAL_SEEDS or last not in EVAL_SEEDS:
            raise EvaluationError(
                f'seeds {self.first} to {last}: an evaluation takes {EVAL_SEEDS.start} to '
                f'{EVAL_SEEDS[-1]}, with which no demonstration is recorded')

    @property
    def seeds(self) -> range:
        """The evaluation's seeds, which no demonstration was recorded with."""
        return range(self.first, self.first + self.episodes)


def jobs_of(request: Request, robot_hash: str, kinds: Mapping[str, Sequence[str]]) -> list[Job]:
    """
    Return every episode of a request, in the order in which they are worth most.

    Seed by seed, so that an evaluation that is cut short has compared like with like.

    :param kinds: digest of a policy -> controls that can be run with it.
    """
    jobs = []
    for index, seed in enumerate(request.seeds):
        for level in request.levels:
            for policy in request.policies:
                controls = kinds[policy.digest] if index < request.controls else ()
                jobs += [Job(policy.digest, kind, robot_hash, request.task, level, seed,
                             request.limit_s) for kind in ('policy', *controls)]
    return jobs


def run_jobs(request: Request, jobs: Sequence[Job], journal: Journal, workers: int,
             say: Callable[[str], None]) -> None:
    """
    Run the jobs that the journal does not have, each as soon as a core is free.

    Ctrl-C ends it when the episodes under way have ended, and what was done stays done.

    :raises EvaluationError: a worker died.
    :raises MivlaError: a policy cannot be made, or a job cannot be run.
    """
    todo = [job for job in jobs if job not in journal.rows]
    if len(todo) < len(jobs):
        say(f'{len(jobs) - len(todo)} of {len(jobs)} episodes are in {journal.path} already')
    if not todo:
        return
    begun = shown = time.monotonic()
    done = 0
    with worker_pool(request, min(workers, len(todo))) as pool:
        waiting: set[Future[Row]] = set()
        left = iter(todo)
        try:
            for job in left:
                waiting.add(pool.submit(_run, job))
                # No more ahead than workers can take: so Ctrl-C has little to wait for.
                while len(waiting) > workers:
                    done += _gather(waiting, journal)
                if time.monotonic() - shown > 5.0:
                    shown = time.monotonic()
                    say(_progress(request, journal, len(jobs) - len(todo) + done, len(jobs),
                                  shown - begun, done))
            while waiting:
                done += _gather(waiting, journal)
        except KeyboardInterrupt:
            say('interrupted: waiting for the episodes under way')
            while waiting:
                _gather(waiting, journal)
            say(f'{len([job for job in jobs if job in journal.rows])} of {len(jobs)} episodes '
                'are done; the same command goes on from there')
            raise
        except BrokenProcessPool as err:
            raise EvaluationError('a worker process died (out of memory?); what was done is '
                                  'kept, and the same command goes on from there') from err
    say(_progress(request, journal, len(jobs), len(jobs), time.monotonic() - begun, done))


def _gather(waiting: set[Future[Row]], journal: Journal) -> int:
    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in finished:
        waiting.discard(future)
        journal.add(future.result())
    return len(finished)


def _progress(request: Request, journal: Journal, done: int, of: int, seconds: float,
              fresh: int) -> str:
    wins = []
    for policy in request.policies:
        rows = [row for level in request.levels
                for row in journal.of(policy.digest, 'policy', request.task, level)]
        wins.append(f'{policy.name} {sum(row.success for row in rows)} of {len(rows)}')
    left = f', about {seconds * (of - done) / fresh:.0f} s left' if fresh and done < of else ''
    return f'{done} of {of} episodes, {", ".join(wins)}, {seconds:.0f} s{left}'


@contextmanager
def worker_pool(request: Request, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Hand over fresh processes that leave Ctrl-C to this one."""
    # Fresh interpreters: neither GL contexts nor torch survive a fork.
    context = multiprocessing.get_context('spawn')
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin,
                               initargs=(request, revision()))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(request: Request, software: str) -> None:
    """Keep what one worker needs; it is made when a job asks for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import cv2
    cv2.setNumThreads(1)    # a worker per core: more would only get into each other's way
    _held.clear()
    _held.update(request=request, revision=software, made={})


def _run(job: Job) -> Row:
    return run_job(job, *held())


def held() -> tuple[Request, str, dict[Any, Any]]:
    """Return what a worker holds: the request, the software's revision, rig and policies."""
    return _held['request'], _held['revision'], _held['made']


def run_job(job: Job, request: Request, software: str, made: dict[Any, Any],
            film: Optional[Callable[[Any], Callable[[], None]]] = None) -> Row:
    """
    Run one episode in this process.

    :param made: rig and policies that were made before; is added to.
    :param film: given the rig, returns what is called at every frame.
    """
    from mivla_bringup.lockstep import LockstepError, run_policy
    if 'rig' not in made:
        made['rig'] = _rig(load_profile(request.robot), request.task)
    rig = made['rig']
    policy = _policy(job, request, rig.profile, made)
    begun, worked = time.monotonic(), time.process_time()
    try:
        outcome = run_policy(rig, policy, job.seed, job.level, task=job.task,
                             limit_s=job.limit_s, arm=rig.start(job.seed),
                             film=film(rig) if film is not None else None)
    except LockstepError as err:
        # The driver faulted, which ends an episode on a real robot as well. The next one gets a
        # rig of its own: what this one is left in is nobody's business.
        made.pop('rig').close()
        return Row(job, False, job.limit_s, 0.0, stopped=str(err), revision=software,
                   wall_s=time.monotonic() - begun, cpu_s=time.process_time() - worked)
    return Row(job, outcome.success, outcome.seconds, outcome.score, outcome.stage,
               outcome.progress, outcome.chunks, outcome.dry_ticks, outcome.verdicts,
               outcome.stopped, time.monotonic() - begun, time.process_time() - worked,
               software)


def _rig(profile: RobotProfile, task: str) -> Any:
    from mivla_bringup.lockstep import LockstepRig
    from mivla_bringup.task_episodes import PICTURES
    size = (PICTURES['camera_width'], PICTURES['camera_height'])
    return LockstepRig(profile, {camera.role: size for camera in profile.cameras}, task=task)


def _policy(job: Job, request: Request, profile: RobotProfile, made: dict[Any, Any]) -> Any:
    """Return the policy of a job, or the control made of it."""
    from mivla_policy.learn.controls import BlindPolicy, ReplayPolicy, load_demonstrations
    ref = next(policy for policy in request.policies if policy.digest == job.policy)
    key = (job.policy, job.kind)
    if (job.policy, 'policy') not in made:
        made[job.policy, 'policy'] = ref.open(profile)
    if key not in made:
        whole = made[job.policy, 'policy']
        if job.kind == 'blind' or job.kind.startswith(WITHOUT):
            made[key] = BlindPolicy(whole, whole.image_means, job.kind.partition(WITHOUT)[2])
        else:
            assert job.kind == 'replay' and ref.checkpoint is not None
            made[key] = ReplayPolicy(load_demonstrations(ref.checkpoint), whole.specs[0])
    return made[key]


def controls_of(policy: Any, ref: PolicyRef, without: Sequence[str] = ()) -> tuple[
        tuple[str, ...], tuple[str, ...]]:
    """
    Return the controls that can be made of a policy, and why the others cannot.

    :param policy: as ``ref.open`` gives it.
    :param without: cameras, as of ``Request``.
    :raises PolicyError: the policy looks at no such camera.
    """
    from mivla_policy.learn.controls import BlindPolicy, load_demonstrations
    kinds, why = [], []
    try:
        if not any(spec.camera_roles for spec in policy.specs):
            raise EvaluationError('it looks at no camera')
        BlindPolicy(policy, getattr(policy, 'image_means', {}))
        kinds.append('blind')
    except MivlaError as err:
        why.append(f'{ref.name}: no blind control: {err}')
    try:
        if ref.checkpoint is None:
            raise EvaluationError('it has no checkpoint with demonstrations beside it')
        load_demonstrations(ref.checkpoint)
        kinds.append('replay')
    except MivlaError as err:
        why.append(f'{ref.name}: no replay control: {err}')
    for role in without:
        BlindPolicy(policy, getattr(policy, 'image_means', {}), role)
        kinds.append(f'{WITHOUT}{role}')
    return tuple(kinds), tuple(why)

