"""
``mivla evaluate --real``: an operator at the robot, one trial after the other.

The stack is started here, so that the policy behind the server can be exchanged between trials;
the driver, the recorder and the cameras run on. Before every trial the robot goes home and the
operator is told how to place the scene; what came of it is asked at once and kept (``trials``).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Optional

from mivla_bringup.cli import Parser
from mivla_bringup.errors import UsageError
from mivla_bringup.evaluation.desk import Card, Desk
from mivla_bringup.evaluation.page_desk import desk_at
from mivla_bringup.evaluation.policies import PolicyRef, policy_ref
from mivla_bringup.evaluation.realtime import stack_words
from mivla_bringup.evaluation.trials import FAILURES, Answer, Plan, Trial, TrialLog
from mivla_bringup.operate import OperateError
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_bringup.stack import NodeSpec, Stack, StackOptions, build
from mivla_bringup.task_episodes import PICTURES
from mivla_core.ros.qos import LATCHED
from mivla_core.timing import StampNs
from mivla_drivers.sim.tasks import TASKS
from mivla_msgs.msg import DriverState, RecorderStatus, ServerStatus

__all__ = ['Trials', 'main', 'run_trials']

_STILL = (DriverState.HOLDING, DriverState.MOVING)
_SERVER = '/policy_server'
_READY_S = 300.0     # a large model takes minutes to load
_POLL = 0.1          # s


class Trials:
    """
    Carries a plan out on a running rig.

    :param servers: node of the policy server, for each policy of the plan.
    :param operator: name of who answers, for the bags.
    :param simulated: scenes are seeds of the simulated world (``SEED`` or ``SEED LEVEL``), and are
        placed by it.
    """

    def __init__(self, rig: Rig, log: TrialLog, desk: Desk, servers: Sequence[NodeSpec],
                 operator: str = '', simulated: bool = False) -> None:
        self._rig, self._log, self._desk = rig, log, desk
        self._servers, self._serving = servers, 0
        self._operator, self._simulated = operator, simulated
        self._stages = stage_scores(log.plan.task)
        self._status: Optional[ServerStatus] = None
        rig.node.create_subscription(ServerStatus, f'{_SERVER}/status', self._on_status, LATCHED)

    def run(self) -> bool:
        """Do trials until the rule says that it is over; return False where it was left."""
        while (trial := self._log.next) is not None:
            if not self._one(trial):
                self._desk.say('left; the same command goes on from here')
                return False
        self._desk.say(f'That is all: {self._log.judgement().text}.')
        return True

    def _one(self, trial: Trial) -> bool:
        """Do one trial; return False when the operator leaves instead."""
        plan, client = self._log.plan, self._rig.client
        told = not plan.blinded and len(plan.policies) > 1
        self._desk.show(Card(
            trial.number, len(self._log.trials), len(self._log.counted),
            self._log.judgement().text, trial.scene,
            plan.policies[trial.policy] if told else '', plan.blinded))
        self._ready()
        client.set_mode('idle')
        client.home()
        self._serve(trial.policy)
        self._place(trial)
        key = self._desk.choose(f'Scene: {trial.scene}', {
            'g': 'it is placed: go', 'q': 'leave it for now'})
        if key == 'q':
            return False
        self._ready()
        self._log.record(self._carry_out(trial))
        return True

    def _ready(self) -> None:
        """Have the operator put right what stopped the robot."""
        while (state := self._rig.newest('driver/state')).state not in _STILL:
            self._desk.choose(f'The driver has stopped: {state.detail}. Look at the robot.',
                              {'r': 'reset and enable it'})
            try:
                _release(self._rig)
            except OperateError as err:
                self._desk.say(str(err))

    def _serve(self, policy: int) -> None:
        """Have the server answer with a policy."""
        # Kept blind, an operator must not tell by the wait whether it is the same as before.
        if policy == self._serving and not self._log.plan.blinded:
            return
        self._rig.replace_node(_SERVER, self._servers[policy])
        self._serving, since, waited = policy, StampNs.wall(), 0.0
        # It says so after it has loaded the policy and run it once.
        while self._status is None or StampNs.from_msg(self._status.header.stamp) <= since:
            self._rig.pause(_POLL)
            waited += _POLL
            if waited > _READY_S:
                raise OperateError(f'the policy server is not ready after {_READY_S:.0f} s; its '
                                   f'log is in {self._rig.folder}')

    def _on_status(self, status: ServerStatus) -> None:
        self._status = status

    def _place(self, trial: Trial) -> None:
        if not self._simulated:
            return
        seed, _, level = trial.scene.partition(' ')
        before = self._rig.newest('sim/state').episode
        self._rig.client.reset_scene(self._log.plan.task, int(seed), level or 'easy')
        self._rig.wait('sim/state', lambda m: m.episode > before, 5.0, f'scene {trial.scene}')

    def _carry_out(self, trial: Trial) -> Answer:
        plan, client, desk = self._log.plan, self._rig.client, self._desk
        begun = time.strftime('%Y-%m-%dT%H:%M:%S%z')
        client.set_instruction(plan.instruction)
        client.start_episode(plan.task, plan.instruction, self._operator, json.dumps(
            {'plan': plan.key, 'trial': trial.number, 'scene': trial.scene}))
        key, seconds = '', 0.0
        desk.forget()
        try:
            client.set_mode('policy')
            start = time.monotonic()
            key = desk.watch('running', {'s': 'success', 'f': 'failure', ' ': 'STOP'},
                             self._stopped, plan.limit_s)
            seconds = time.monotonic() - start
            if key == ' ':
                self._stop()
        finally:
            if self._rig.newest('driver/state').state in _STILL:
                client.set_mode('idle')
            finished = client.finish_episode('success' if key == 's' else 'failure')
        return self._answer(trial, key, min(seconds, plan.limit_s), finished.folder, begun)

    def _stop(self) -> None:
        try:
            self._rig.client.stop('mivla evaluate', 'the operator stopped the trial')
        except OperateError as err:
            self._desk.say(f'STOP NOT CONFIRMED: {err}. Use the hardware emergency stop')
            raise

    def _stopped(self) -> bool:
        return self._rig.newest('driver/state').state not in _STILL

    def _stopped_on_page(self) -> bool:
        state = self._rig.newest('driver/state')
        return self._stopped() and state.detail.startswith('stopped: console')

    def _answer(self, trial: Trial, key: str, seconds: float, folder: str,
                begun: str) -> Answer:
        """Ask what came of a trial."""
        desk, path = self._desk, os.path.relpath(folder, self._log.folder)
        if key == '' and not self._stopped():
            desk.say(f'the time is over ({self._log.plan.limit_s:g} s)')
            key = desk.choose('Had it succeeded by then?', {'s': 'yes', 'f': 'no'})
        if key == 's':
            counts = desk.choose('Does the trial count?', {'y': 'yes', 'v': 'void: do it again'})
            void = self._why_void() if counts == 'v' else ''
            return Answer(trial.number, True, 1.0, seconds, void=void, folder=path, begun=begun)
        default = ('operator' if key == ' ' or self._stopped_on_page()
                   else 'guard' if self._stopped() else '')
        kinds = dict(zip('123456789', FAILURES))
        said = desk.choose('What went wrong?', {
            **{number: FAILURES[kind] for number, kind in kinds.items()},
            **({'d': FAILURES[default]} if default else {}), 'v': 'void: do it again'})
        void = self._why_void() if said == 'v' else ''
        kind = default if said == 'd' else kinds.get(said, 'other')
        score = 0.0 if void else self._score()
        note = '' if void else desk.ask('A note, or Enter:')
        return Answer(trial.number, False, score, seconds, kind, note, void, path, begun)

    def _why_void(self) -> str:
        while not (words := self._desk.ask('Why does it not count?')):
            pass
        return words

    def _score(self) -> float:
        while True:
            words = self._desk.ask('How much of it was done, 0 to 100?', self._stages)
            if words.isdecimal() and int(words) <= 100:
                return int(words) / 100.0
            self._desk.say(f'{words!r} is no number from 0 to 100')


def stage_scores(task: str) -> dict[str, str]:
    """
    Return scores that an operator may give by one press -> the stage that each stands for.

    Of a task that the suite simulates they are its judge's, so that a real 60 means what a
    simulated one does; of others they are quarters.
    """
    if task not in TASKS:
        return {'0': '', '25': '', '50': '', '75': ''}
    stages = TASKS[task].stages
    return {'0': 'nothing', **{str(round(100 * (place + 1) / len(stages))): stage
                               for place, stage in enumerate(stages[:-1])}}


def run_trials(stack: Stack, policies: Sequence[PolicyRef], log: TrialLog,
               desk_of: Callable[[Rig], AbstractContextManager[Desk]],
               operator: str = '') -> bool:
    """
    Bring a stack up and carry a plan out; return whether it is over.

    :param stack: with a policy server, for the first policy.
    :param desk_of: gives the desk once the rig is there, for as long as the trials go on.
    """
    servers = [_served(stack, policy) for policy in policies]

    def job(rig: Rig) -> bool:
        with desk_of(rig) as desk:
            _bring_up(rig, desk, stack.options.sim)
            try:
                return Trials(rig, log, desk, servers, operator, stack.options.sim).run()
            finally:
                if rig.newest('driver/state').state in _STILL:
                    rig.client.set_mode('idle')
                    rig.client.home()

    over, _ = with_stack(stack, job, on_event=warnings_to())
    return over


def _bring_up(rig: Rig, desk: Desk, simulated: bool) -> None:
    """Wait for every part; a real robot is enabled at the operator's word alone."""
    desk.say('waiting for the stack')
    if simulated:
        rig.wait('sim/state', lambda message: True, 60.0, 'the simulated world')
    state = rig.wait('driver/state', lambda message: True, 60.0, 'the driver')
    rig.wait('recorder/status', lambda m: m.state == RecorderStatus.IDLE, 60.0, 'the recorder')
    rig.wait('policy/status', lambda message: True, 60.0, 'the policy runner')
    if state.state not in _STILL:
        desk.choose(f'The driver is not enabled: {state.detail or "torque is off"}. Is the way '
                    'to the home pose clear?', {'e': 'enable it'})
        _release(rig)


def _release(rig: Rig) -> None:
    """Resume after a stop, enable, and wait until the driver holds."""
    if rig.newest('driver/state').state in (DriverState.STOPPED, DriverState.FAULT):
        rig.client.reset()
        rig.wait('driver/state', lambda m: m.state not in (
            DriverState.STOPPED, DriverState.FAULT), 5.0, 'the end of the stop')
    if rig.newest('driver/state').state == DriverState.DISABLED:
        rig.client.enable()
    rig.wait('driver/state', lambda m: m.state in _STILL, 5.0, 'a driver that holds')


def _served(stack: Stack, policy: PolicyRef) -> NodeSpec:
    words = stack_words(policy)
    spec = stack.node(_SERVER)
    return replace(spec, parameters={**spec.parameters, 'policy': words['policy'],
                                     'policy_parameters': words['policy_parameters'].split(';')})


def main(argv: Sequence[str]) -> int:
    """Carry trials out; returns 0 when the plan is over, 3 when it was left before."""
    arguments, robot_words = _parser().parse_known_args(argv)
    policies = tuple(policy_ref(text) for text in (arguments.policy, arguments.against) if text)
    scenes = tuple(arguments.scene)
    if arguments.scenes:
        scenes += tuple(line.strip() for line in Path(arguments.scenes).read_text().splitlines()
                        if line.strip() and not line.startswith('#'))
    plan = Plan(arguments.task, arguments.instruction or arguments.task.replace('_', ' '),
                arguments.robot, tuple(policy.name for policy in policies),
                tuple(policy.digest for policy in policies), scenes, arguments.rounds,
                arguments.seed, arguments.blinded, arguments.limit)
    folder = Path(arguments.out or f'runs/trials/{plan.task}-{plan.key}').expanduser().absolute()
    log = TrialLog(folder, plan)
    stack = build(_options(arguments, robot_words, policies[0], folder))
    over = run_trials(stack, policies, log, lambda rig: desk_at(rig, stack.options),
                      arguments.operator)
    from mivla_bringup.evaluation.trial_page import write_trial_page
    print(f'report: {write_trial_page(log, folder / "report.html")}')
    return 0 if over else 3


def _options(arguments: object, words: Sequence[str], first: PolicyRef,
             folder: Path) -> StackOptions:
    """Return the stack of some trials; words such as ``interface:=can0`` are handed on."""
    given = dict(word.split(':=', 1) for word in words if ':=' in word)
    odd = next((word for word in words if ':=' not in word), '')
    if odd:
        raise UsageError(f'unrecognized argument {odd!r}; see "mivla evaluate --real --help"')
    simulated = bool(getattr(arguments, 'sim', False))
    own = {'robot': str(getattr(arguments, 'robot', '')), 'sim': str(simulated).lower(),
           'record': 'true', 'bags': str(folder / 'bags'),
           'task': str(getattr(arguments, 'task', '')), **stack_words(first)}
    if simulated:
        own.update({name: str(value) for name, value in PICTURES.items()})
    return StackOptions.parse({**given, **own})


def _parser(prog: Optional[str] = None) -> Parser:
    parser = Parser(prog=prog or 'mivla evaluate --real', description=(
        'Trials on a real robot, with an operator who says what came of each. What the stack '
        'needs besides is given as for "mivla up": interface:=can0; with console:=true the page '
        'of the console asks as well'))
    parser.add_argument('--task', required=True, help='name, for bags and report')
    parser.add_argument('--instruction', default='', help='what the policy is told')
    parser.add_argument('--robot', default='piper', help='profile: a name or a path')
    parser.add_argument('--policy', required=True, help='checkpoint folder or plug-in')
    parser.add_argument('--against', default='', help='a second policy')
    parser.add_argument('--scene', action='append', default=[], metavar='WORDS',
                        help='how to place things; may be given several times')
    parser.add_argument('--scenes', default='', help='file with one such line per scene')
    parser.add_argument('--rounds', type=int, default=20, help='trials of each policy')
    parser.add_argument('--blinded', action='store_true',
                        help='do not tell the operator which policy it is')
    parser.add_argument('--seed', type=int, default=0, help='of the order')
    parser.add_argument('--limit', type=float, default=60.0, help='s that a policy is given')
    parser.add_argument('--operator', default='', help='your name, for the bags')
    parser.add_argument('--out', default='', help='folder of plan, answers, bags and report')
    parser.add_argument('--sim', action='store_true',
                        help='rehearse on the simulated robot; scenes are seeds: "200000 hard"')
    return parser
