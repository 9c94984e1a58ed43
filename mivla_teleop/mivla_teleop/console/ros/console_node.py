"""
The web console as a node; executable ``console``.

Threads: the executor's takes latched states and answers of services; ``console pump`` empties the
streams and posts what is shown; ``console web`` serves the pages and publishes stops at once. None
of them is in the way of a robot: the node subscribes best effort, and commands nothing but through
the services and topics that every operator has.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

from rclpy.serialization import deserialize_message

from mivla_core.profile import RobotProfile, load_profile
from mivla_core.ros.lifecycle import ManagedNode, run_node
from mivla_core.ros.params import declare, param
from mivla_core.ros.polled import PolledSubscription
from mivla_core.timing import NowNs, StampNs, monotonic_now
from mivla_msgs.msg import ActionChunk
from mivla_teleop.console.core.access import Access, read_token
from mivla_teleop.console.core.commands import Request
from mivla_teleop.console.core.desk import Desk
from mivla_teleop.console.core.hotkeys import table
from mivla_teleop.console.core.trial import TrialAnswers
from mivla_teleop.console.core.view import describe, thin_chunk
from mivla_teleop.console.errors import ConsoleError
from mivla_teleop.console.ros.jog_topics import JogTopics
from mivla_teleop.console.ros.robot_feed import Picture, RobotFeed
from mivla_teleop.console.ros.services import TIMEOUT, TIMEOUTS, Answer, RobotServices
from mivla_teleop.console.shelf import Shelf
from mivla_teleop.console.web.port import Done
from mivla_teleop.console.web.server import LARGEST_PICTURE, WebServer, pack_picture

__all__ = ['ConsoleNode', 'ConsoleParams', 'main']

BUSY_PERIOD = 0.05      # s between two looks at the streams while somebody watches
IDLE_PERIOD = 0.25      # s otherwise: just so that counts stay right
STATES_EVERY = 2        # looks per state that is sent to the pages
SHELF_PERIOD = 2.0      # s between two looks at the episodes


@dataclass(frozen=True)
class ConsoleParams:
    """Parameters of the console."""

    robots: list[str] = param(['piper'], 'Robot profiles: names or paths; a tab each.')
    host: str = param('127.0.0.1', 'Address to listen at; any but loopback needs a token.')
    port: int = param(8700, 'Port to listen at; 0: any free one.', low=0, high=65535)
    token_file: str = param('', 'File of mode 0600 with the token; empty: none, loopback only.')
    names: list[str] = param([''], 'Further host names under which the page is reached.')
    bags: str = param('~/mivla/episodes', 'Folder that the recorder writes to.')
    task: str = param('task', 'Task that episodes are recorded for, until a page changes it.')
    instruction: str = param('', 'Instruction stored with episodes while no policy tells one.')
    teleop: str = param('none', 'What drives the teleop input: jog shows the jog controls.')


class ConsoleNode(ManagedNode):
    """Lifecycle node ``console``; implements the server's ``Backend``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('console', **kwargs)
        self.params = declare(self, ConsoleParams)
        self._profiles: dict[str, RobotProfile] = {}
        for text in self.params.robots:
            profile = load_profile(text)
            self._profiles[profile.name] = profile
        if not self._profiles or len(self._profiles) != len(self.params.robots):
            raise ConsoleError('the console needs robots, each once')
        self.robots = tuple(self._profiles)
        self._feeds: dict[str, RobotFeed] = {}
        self._offers: dict[str, RobotServices] = {}
        self._jogs: dict[str, JogTopics] = {}
        self._release: list[Callable[[], Any]] = []
        self._desks = {robot: Desk(task=self.params.task) for robot in self.robots}
        self._instructions = {robot: self.params.instruction for robot in self.robots}
        self._answers = {robot: TrialAnswers() for robot in self.robots}
        self._numbers: dict[tuple[str, str], int] = {}
        self._server: Optional[WebServer] = None
        self._ended = threading.Event()
        self._look = threading.Event()          # the episodes may have changed
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """The port that is listened at; 0 before."""
        return 0 if self._server is None else self._server.port

    # Lifecycle ------------------------------------------------------------------------------

    def setup(self) -> None:
        """Subscribe, listen, begin to serve."""
        params = self.params
        token = read_token(Path(params.token_file).expanduser()) if params.token_file else None
        access = Access(params.host, [name for name in params.names if name], token)
        self._server = WebServer(params.host, params.port, access, self)
        self._shelf = Shelf(Path(params.bags))
        for robot, profile in self._profiles.items():
            self._feeds[robot] = RobotFeed(self, profile, self._answers[robot].settle)
            self._offers[robot] = RobotServices(self, robot)
            self._jogs[robot] = JogTopics(self, profile)
            self._release += [self._feeds[robot].close, self._offers[robot].close,
                              self._jogs[robot].close]
        self._chunks = PolledSubscription(self, ActionChunk, '/policy_server/chunk', 8)
        self._release.append(self._chunks.destroy)
        self._ended.clear()
        self._server.start()
        self._threads = [threading.Thread(target=self._guard_thread, args=(work,), daemon=True,
                                          name=name)
                         for name, work in (('console pump', self._pump),
                                            ('console shelf', self._keep_shelf))]
        for thread in self._threads:
            thread.start()
        host = f'[{params.host}]' if ':' in params.host else params.host
        # Printed, not logged: "mivla up" shows its operator what is not from the logger.
        print(f'open http://{host}:{self._server.port}/ '
              + ('with the token' if token else '(anybody with an account on this machine can; '
                 'console_token:= asks for a token)'), flush=True)

    def teardown(self) -> None:
        """Let the pages go and release everything."""
        self._ended.set()
        self._look.set()
        for thread in self._threads:
            thread.join(2.0)
        self._threads = []
        if self._server is not None and not self._server.stop():
            self.get_logger().warning('the web server hangs; left behind')
        self._server = None
        while self._release:
            self._release.pop()()
        self._feeds, self._offers, self._jogs = {}, {}, {}

    # Backend: called in the server's thread ---------------------------------------------------

    def hello(self) -> Mapping[str, Any]:
        """Return what a page needs once."""
        return {'robots': [describe(profile) for profile in self._profiles.values()],
                'keys': table(), 'jog': self.params.teleop == 'jog',
                'teleop': self.params.teleop}

    def publish_stop(self, robot: str, reason: str) -> None:
        """Publish a stop, now."""
        self._offers[robot].publish_stop(reason)

    def timeout(self, do: str) -> float:
        """Return how long an answer may take [s]."""
        return TIMEOUTS.get(do, TIMEOUT)

    def ask(self, request: Request, done: Done) -> Callable[[], None]:
        """Ask a service of a robot, or change what is kept here."""
        robot = request.robot
        if request.do == 'desk':
            values = request.values
            self._desks[robot] = Desk(values['task'], values['operator'], values['target'])
            self._post_desk(robot)
            self._look.set()
            done(True, f'task {values["task"]}, {values["target"]} episodes', {})
            return _nothing
        if request.do == 'instruction' and not self._has_policy(robot):
            self._instructions[robot] = request.values['text']
            self._post_desk(robot)
            done(True, 'the instruction is stored with the next episode', {})
            return _nothing
        if request.do == 'trial':
            return self._answer(robot, request.values['number'], request.values['answer'], done)

        def answered(answer: Answer) -> None:
            if request.do in ('finish', 'undo', 'discard_last'):
                self._look.set()
            if request.do == 'instruction' and answer.ok:
                self._instructions[robot] = request.values['text']
                self._post_desk(robot)
            done(answer.ok, answer.message, answer.facts)

        return self._offers[robot].ask(request, self._desks[robot], self._instruction(robot),
                                         answered)

    def _answer(self, robot: str, number: int, answer: str, done: Done) -> Callable[[], None]:
        """Send a page's answer to who does trials; done when they say that they have taken it."""
        answers = self._answers[robot]
        sent = answers.ask(self._feeds[robot].view.trial(monotonic_now()), number, answer,
                           lambda ok, message: done(ok, message, {}))
        self._offers[robot].publish_answer(number, answer)
        return partial(answers.forget, sent)

    def jog(self, request: Request) -> None:
        """Pass a deflection on to the jog node, which stops by itself when none comes."""
        if self.params.teleop != 'jog':
            raise ConsoleError('this stack was not started with teleop:=jog')
        self._jogs[request.robot].jog(request)

    def held(self, robot: str) -> None:
        """Say that somebody holds the enable of a robot's policy."""
        self._jogs[robot].held()

    def thumbnail(self, robot: str, task: str, episode: str) -> Optional[bytes]:
        """Return a picture of an episode."""
        del robot     # the store names episodes by task
        return self._shelf.thumbnail(task, episode)

    def _has_policy(self, robot: str) -> bool:
        return self._feeds[robot].view.policy is not None

    def _instruction(self, robot: str) -> str:
        policy = self._feeds[robot].view.policy
        return str(policy['instruction']) if policy else self._instructions[robot]

    # What is shown: threads of their own -------------------------------------------------------

    def _guard_thread(self, work: Callable[[], None]) -> None:
        """Run a thread's work; a bug in it ends the node, so that its starter hears."""
        try:
            work()
        except Exception:  # rclpy and DDS have many ways; silence would show old pictures
            if not self._ended.is_set():
                self.failure = f'{threading.current_thread().name} failed'
                self.get_logger().fatal(f'{self.failure}\n{traceback.format_exc()}')
                self.broken = True

    def _pump(self) -> None:
        server, count = self._server, 0
        assert server is not None
        for robot in self.robots:
            self._post_desk(robot)
        while not self._ended.wait(BUSY_PERIOD if server.viewers else IDLE_PERIOD):
            now, stamp = monotonic_now(), StampNs.wall()
            for robot, feed in self._feeds.items():
                feed.poll(now, partial(self._post_picture, robot))
            self._post_chunks()
            if server.failure:
                raise ConsoleError(server.failure)
            count += 1
            if server.viewers and count % STATES_EVERY == 0:
                self._post_states(now, stamp)

    def _post_states(self, now: NowNs, stamp: StampNs) -> None:
        assert self._server is not None
        robots = {}
        for robot, feed in self._feeds.items():
            robots[robot] = {**feed.view.snapshot(now, stamp),
                             'instruction': self._instruction(robot)}
        self._server.post('state', _text('state', {
            'time': int(stamp) * 1e-6, 'robots': robots, 'pages': self._server.viewers}))

    def _post_picture(self, robot: str, role: str, picture: Picture) -> None:
        server = self._server
        if server is None or not server.viewers or len(picture.jpeg) > LARGEST_PICTURE:
            return
        roles = [camera.role for camera in self._profiles[robot].cameras]
        number = self._numbers[robot, role] = self._numbers.get((robot, role), 0) + 1
        server.post_picture(robot, role, pack_picture(
            self.robots.index(robot), roles.index(role), number, picture.stamp, picture.jpeg))

    def _post_chunks(self) -> None:
        """Show the newest chunk of each robot."""
        assert self._server is not None
        newest: dict[str, ActionChunk] = {}
        for data in self._chunks.drain():
            chunk = deserialize_message(data, ActionChunk)
            if chunk.code == ActionChunk.OK and chunk.robot.strip('/') in self._profiles:
                newest[chunk.robot.strip('/')] = chunk
        for robot, chunk in newest.items():
            trial = self._feeds[robot].view.trial(monotonic_now())
            if trial is not None and trial.hidden:
                continue      # its length and its manner would tell which policy it is
            names = self._profiles[robot].joint_names
            thin = thin_chunk(chunk.position, len(chunk.joint_names), chunk.dt,
                              StampNs.from_msg(chunk.header.stamp))
            if thin is not None and tuple(chunk.joint_names) == names:
                self._server.post(f'chunk/{robot}', _text(
                    f'chunk/{robot}', {'robot': robot, 'id': chunk.chunk_id, **thin}))

    def _post_desk(self, robot: str) -> None:
        desk, server = self._desks[robot], self._server
        if server is not None:
            server.post(f'desk/{robot}', _text(f'desk/{robot}', {
                'robot': robot, 'task': desk.task, 'operator': desk.operator,
                'target': desk.target}))

    def _keep_shelf(self) -> None:
        """Look at the episodes, now and then, and when one has been finished."""
        shown: dict[str, str] = {}
        with contextlib.suppress(OSError, AttributeError):     # reading waits, robots do not
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while not self._ended.is_set():
            self._look.clear()
            for robot in self.robots:
                found = self._shelf.look(robot, self._desks[robot].task)
                text = _text(f'episodes/{robot}', {'robot': robot, **found})
                if self._server is not None and shown.get(robot) != text:
                    shown[robot] = text
                    self._server.post(f'episodes/{robot}', text)
            self._look.wait(SHELF_PERIOD)
            time.sleep(0.05)     # the recorder's answer comes before its folder is in its place


def _text(key: str, data: Mapping[str, Any]) -> str:
    return json.dumps({'key': key, 'data': data}, allow_nan=False, separators=(',', ':'))


def _nothing() -> None:
    """There is nothing to forget."""


def main(args: Optional[list[str]] = None) -> int:
    """Run the console; returns the exit code."""
    return run_node(ConsoleNode, args)


if __name__ == '__main__':
    sys.exit(main())
