"""
The policy runner of one robot: observations out, chunks in, set-points at the control rate.

It runs while the driver is in mode policy: because a goal of ``policy/run`` asked for it, or
because somebody else put it there.

Everything but the stream happens in the executor's thread, driven by messages: a request leaves in
the callback of the last picture of a set, a chunk is joined in the callback that receives it. A
goal of ``policy/run`` stays in the action state ACCEPTED while it runs and is executed at its end,
because a waiting execute callback would keep rclpy's executor spinning; ``policy/status`` and the
feedback tell where it stands.
"""

from __future__ import annotations

import array
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

import numpy as np
from mivla_core.profile import load_profile
from mivla_core.ros.lifecycle import ManagedNode, run_node
from mivla_core.ros.params import declare, param
from mivla_core.ros.polled import PolledSubscription, stamp_of
from mivla_core.ros.qos import COMMAND, LATCHED, NEWEST, stream
from mivla_core.timing import StampNs, monotonic_now, to_ns
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, JointState

from mivla_msgs.action import RunPolicy
from mivla_msgs.msg import (
    ActionChunk,
    CameraImage,
    DriverState,
    JointCommand,
    PolicyRequest,
    PolicyStatus,
    SourceStamp,
)
from mivla_msgs.srv import SetInstruction, SetMode
from mivla_policy.core.chunk import Chunk, ChunkPlayer, SetPoint
from mivla_policy.core.request import (
    Frame,
    FrameSet,
    Gates,
    ObservationBuffer,
    PacerSettings,
    RequestPacer,
    select_state,
)
from mivla_policy.core.session import Do, DriverView, Outcome, Phase, Session, SessionLimits
from mivla_policy.errors import ChunkRefused, NotReady
from mivla_policy.ros.command_stream import CommandStream

__all__ = ['RunnerNode', 'RunnerParams', 'main']

MAX_INSTRUCTION = 1000
MAX_TIMEOUT_S = 86_400.0
APPLIED_AGE_NS = 500_000_000
STATES_KEPT = 64
STATE_NAMES = {getattr(DriverState, name): name for name in (
    'DISABLED', 'HOLDING', 'MOVING', 'STOPPED', 'FAULT')}
MODE_NAMES = {DriverState.MODE_IDLE: 'idle', DriverState.MODE_TELEOP: 'teleop',
              DriverState.MODE_POLICY: 'policy'}
HOPELESS = {ActionChunk.WRONG_PROFILE, ActionChunk.UNKNOWN_INSTRUCTION}


@dataclass(frozen=True)
class RunnerParams:
    """Parameters of the policy runner."""

    robot: str = param('piper', 'Robot profile: a name or a path.')
    server: str = param('/policy_server', 'Name of the policy server.')
    instruction: str = param('', 'What the robot is to do, until another is set.')
    replan_steps: int = param(8, 'Rows of a chunk executed before the next is asked for.',
                              low=1, high=1024)
    request_on_frame: bool = param(False, 'Ask for every set of pictures (benchmarks).')
    blend: float = param(0.08, 'Duration of the join of two chunks [s].', low=0.005, high=2.0)
    state_rows: int = param(1, 'Joint states in an observation.', low=1, high=32)
    image_age: float = param(0.3, 'Largest age of a picture [s].', low=0.01, high=10.0)
    camera_skew: float = param(0.05, 'Largest difference of the pictures\' stamps [s].',
                               low=0.001, high=1.0)
    starvation: float = param(10.0, 'A run without actions fails after this [s].',
                              low=1.0, high=600.0)
    realtime_priority: int = param(40, 'SCHED_FIFO priority of the stream; 0: do not ask.',
                                   low=0, high=99)


class RunnerNode(ManagedNode):
    """Lifecycle node; executable ``policy_runner``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('policy_runner', **kwargs)
        self.params = declare(self, RunnerParams)
        self.profile = load_profile(self.params.robot)
        self.robot = self.get_namespace().strip('/') or self.profile.name
        self._names = list(self.profile.joint_names)
        joints = len(self._names)
        self._player = ChunkPlayer(joints, to_ns(self.params.blend))
        self._player_lock = threading.Lock()
        self._buffer = ObservationBuffer(
            [camera.role for camera in self.profile.cameras],
            Gates(image_age_ns=to_ns(self.params.image_age),
                  skew_ns=to_ns(self.params.camera_skew)))
        self._pacer = RequestPacer(PacerSettings(self.params.replan_steps,
                                                 self.params.request_on_frame))
        self._session = Session(SessionLimits(starvation=to_ns(self.params.starvation)))
        self._states: deque[bytes] = deque(maxlen=STATES_KEPT)
        self._status = PolicyStatus(
            instruction=self.params.instruction, chunk_seconds=math.nan,
            forward_seconds=math.nan, seam=math.nan)
        self._published: tuple[Any, ...] = ()
        self._lacking = ''
        self._fault = ''
        self._starving = False
        self._goal: Any = None
        self._next_goal: Any = None
        self._run_chunks = 0
        self._ticks = 0
        self._newest_applied: Optional[bytes] = None
        self._release: list[Callable[[], Any]] = []
        self._stream: Optional[CommandStream] = None

    def setup(self) -> None:
        """Create publishers, subscriptions, services and the stream's thread."""
        server, rate = self.params.server, self.profile.rates.control
        self._request = self._publisher(PolicyRequest, f'{server}/request', COMMAND)
        self._command = self._publisher(JointCommand, 'command/policy', stream(rate))
        self._status_publisher = self.create_publisher(PolicyStatus, 'policy/status', LATCHED)
        self._release.append(partial(self.destroy_publisher, self._status_publisher))
        self._joint_states = PolledSubscription(self, JointState, 'joint_states', STATES_KEPT)
        self._applied = PolledSubscription(self, JointCommand, 'command/applied', 1)
        self._release += [self._joint_states.destroy, self._applied.destroy]
        for role in self._buffer.roles:
            self._subscribe(CompressedImage, f'{role}/image_raw/compressed',
                            partial(self._on_image, role), NEWEST, raw=True)
        self._subscribe(ActionChunk, f'{server}/chunk', self._on_chunk, COMMAND)
        self._subscribe(DriverState, 'driver/state', self._on_driver, LATCHED)
        self._serve()
        template = JointCommand(source=JointCommand.SOURCE_POLICY, name=self._names,
                                profile_hash=self.profile.hash)
        self._stream = CommandStream(self._command, template, self.profile.rates.control,
                                     self._sample, self.params.realtime_priority,
                                     self.get_logger().warning)
        self._stream.start()

    def start(self) -> None:
        """Accept goals."""
        self._publish_status(force=True)

    def halt(self) -> None:
        """End a run: stop the stream, and give the robot back without waiting."""
        if self._stream is not None:
            self._stream.switch(False)
        if self._session.phase is not Phase.IDLE:
            self._perform(self._session.cancel('the policy runner was stopped', monotonic_now()))

    def teardown(self) -> None:
        """Stop the stream's thread and release every ROS entity."""
        if self._stream is not None and not self._stream.stop():
            self.get_logger().warning('the command stream hangs; left behind')
        self._stream = None
        while self._release:
            self._release.pop()()

    def _publisher(self, kind: Any, topic: str, qos: Any) -> Any:
        publisher = self.create_lifecycle_publisher(kind, topic, qos)
        self._release.append(partial(self.destroy_publisher, publisher))
        return publisher

    def _subscribe(self, kind: Any, topic: str, callback: Any, qos: Any, **how: Any) -> None:
        subscription = self.create_subscription(kind, topic, callback, qos, **how)
        self._release.append(partial(self.destroy_subscription, subscription))

    def _serve(self) -> None:
        self._set_mode = self.create_client(SetMode, 'driver/set_mode')
        service = self.create_service(SetInstruction, 'policy/set_instruction',
                                      self._on_instruction)
        timer = self.create_timer(0.1, self._tick)
        actions = ActionServer(
            self, RunPolicy, 'policy/run', execute_callback=_never_called,
            goal_callback=self._on_goal, handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel)
        self._release += [partial(self.destroy_client, self._set_mode),
                          partial(self.destroy_service, service),
                          partial(self.destroy_timer, timer), actions.destroy]

    # Inputs.

    def _on_image(self, role: str, serialized: bytes) -> None:
        complete = self._buffer.add(Frame(role, stamp_of(serialized), serialized),
                                    StampNs.wall())
        if complete and self._session.running and not self._fault:
            self._maybe_request()

    def _on_driver(self, message: DriverState) -> None:
        willing = message.state in (DriverState.HOLDING, DriverState.MOVING)
        words = (f'{STATE_NAMES.get(message.state, message.state)} in mode '
                 f'{MODE_NAMES.get(message.mode, message.mode)}')
        view = DriverView(willing, message.mode == DriverState.MODE_POLICY,
                          f'{words}: {message.detail}' if message.detail else words)
        before = self._session.running
        action = self._session.driver(view, monotonic_now())
        if self._session.following and not before:
            self._fault, self._lacking = '', 'waiting for pictures'
            self._forget()
        self._perform(action)

    def _on_instruction(self, request: SetInstruction.Request,
                        response: SetInstruction.Response) -> SetInstruction.Response:
        problem = _instruction_problem(request.instruction)
        if problem:
            response.message = problem
            return response
        self._status.instruction = request.instruction
        self._fault = ''
        response.ok = True
        self._publish_status()
        return response

    def _on_chunk(self, message: ActionChunk) -> None:
        if message.robot != self.robot:
            return
        ok = message.code == ActionChunk.OK
        waited = self._pacer.answered(message.request_id, monotonic_now(),
                                      ok or message.code == ActionChunk.SUPERSEDED)
        if waited is None or not self._session.running:
            return
        status = self._status
        status.policy = message.policy
        status.chunk_seconds = waited * 1e-9
        if not ok:
            status.refused += 1
            self._lacking = f'the policy server answered: {message.reason}'
            if message.code in HOPELESS:
                self._fault = message.reason
                self._perform(self._session.fail(message.reason, monotonic_now()))
            return
        try:
            self._play(message)
        except (ChunkRefused, NotReady) as err:
            status.refused += 1
            self._lacking = str(err)
            self.get_logger().warning(str(err), throttle_duration_sec=2.0)

    # Requests.

    def _maybe_request(self) -> None:
        now = StampNs.wall()
        with self._player_lock:
            playing, executed = self._player.playing(now), self._player.executed_rows(now)
            slack = self._player.remaining_ns(now)
        if not self._pacer.wanted(monotonic_now(), playing, executed):
            return
        self._states.extend(self._joint_states.drain())
        try:
            frames = self._buffer.take(now)
            self._request.publish(self._assemble(frames, slack))
        except NotReady as err:
            self._lacking = str(err)

    def _assemble(self, frames: FrameSet, slack_ns: int) -> PolicyRequest:
        """Return the request for a set of frames; raises NotReady without a fitting state."""
        stamps = [stamp_of(state) for state in self._states]
        window = select_state(stamps, frames.oldest, self.params.state_rows, self._buffer.gates)
        rows = [self._positions(deserialize_message(self._states[i], JointState))
                for i in range(window.start, window.stop)]
        chosen = stamps[window]
        message = PolicyRequest(
            robot=self.robot, profile_hash=self.profile.hash,
            instruction=self._status.instruction, joint_names=self._names,
            prefix_dt=math.nan, slack_ns=slack_ns)
        min(frames.oldest, chosen[-1]).fill(message.header.stamp)
        message.images = [
            CameraImage(role=role, image=deserialize_message(frame.payload, CompressedImage))
            for role, frame in frames.frames.items()]
        message.state = array.array('d', np.concatenate(rows).tobytes())
        message.state_stamps = [_source_stamp('joint_states', stamp) for stamp in chosen]
        message.request_id = self._pacer.sent(monotonic_now())
        return message

    def _positions(self, state: JointState) -> np.ndarray:
        known = dict(zip(state.name, state.position))
        missing = [name for name in self._names if name not in known]
        if missing:
            raise NotReady(f'joint_states lacks {", ".join(missing)}')
        return np.array([known[name] for name in self._names])

    # Chunks.

    def _play(self, message: ActionChunk) -> None:
        """Join a chunk; raises ChunkRefused or NotReady."""
        if message.profile_hash != self.profile.hash:
            raise ChunkRefused(f'chunk {message.chunk_id} is for profile {message.profile_hash}, '
                               f'this robot has {self.profile.hash}')
        names = list(message.joint_names)
        if sorted(names) != sorted(self._names) or (
                len(message.position) != message.horizon * len(names)):
            raise ChunkRefused(f'chunk {message.chunk_id} has {len(message.position)} numbers for '
                               f'{message.horizon} rows of {", ".join(names) or "no joints"}')
        rows = np.asarray(message.position, dtype=np.float64).reshape(-1, len(names))
        dt = message.dt if math.isfinite(message.dt) else 0.0
        chunk = Chunk(message.chunk_id, StampNs.from_msg(message.header.stamp), to_ns(dt),
                      rows[:, [names.index(name) for name in self._names]])
        with self._player_lock:
            now = StampNs.wall()
            start = None if self._player.playing(now) else self._start_pose(now)
            join = self._player.accept(chunk, now, start)
        self._session.fed(monotonic_now())
        self._starving, self._lacking, self._fault = False, '', ''
        status = self._status
        status.chunks += 1
        self._run_chunks += 1
        status.forward_seconds = message.forward_seconds
        if not math.isnan(join.seam):
            status.seam = join.seam
        if self._stream is not None and self._session.running:
            self._stream.switch(True)

    def _start_pose(self, now: StampNs) -> np.ndarray:
        """Return the last applied set-point, or where it is not known the measured pose."""
        newest = self._applied.drain()
        if newest:
            self._newest_applied = newest[-1]
        if self._newest_applied is not None and (
                now - stamp_of(self._newest_applied) < APPLIED_AGE_NS):
            applied = deserialize_message(self._newest_applied, JointCommand)
            known = dict(zip(applied.name, applied.position))
            if all(name in known for name in self._names):
                return np.array([known[name] for name in self._names])
        self._states.extend(self._joint_states.drain())
        if not self._states:
            raise NotReady('neither command/applied nor joint_states is being received')
        return self._positions(deserialize_message(self._states[-1], JointState))

    def _sample(self, now: StampNs) -> Optional[SetPoint]:
        """Return what is due; called in the stream's thread."""
        with self._player_lock:
            point = self._player.sample(now)
            if point is None and not self._starving:
                self._starving = True
                self._status.starved += 1
        return point

    # Runs.

    def _on_goal(self, goal: RunPolicy.Goal) -> GoalResponse:
        problem = '' if not goal.instruction else _instruction_problem(goal.instruction)
        if not (math.isfinite(goal.timeout) and 0.0 < goal.timeout <= MAX_TIMEOUT_S):
            problem = f'timeout {goal.timeout} s; expected more than 0, at most {MAX_TIMEOUT_S:g}'
        elif not goal.instruction and not self._status.instruction:
            problem = 'no instruction: give one with the goal or by policy/set_instruction'
        elif not self._command.is_activated:
            problem = 'the policy runner is not active'
        if problem:
            self.get_logger().warning(f'goal refused: {problem}')
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _on_accepted(self, handle: Any) -> None:
        if self._goal is None:
            self._begin(handle)
            return
        if self._next_goal is not None:
            self._conclude(self._next_goal, Outcome.CANCELLED, 'replaced by a newer goal', 0)
        self._next_goal = handle
        self._perform(self._session.cancel('replaced by a newer goal', monotonic_now()))

    def _on_cancel(self, handle: Any) -> CancelResponse:
        # A goal that still waits for its predecessor is concluded when its turn comes.
        if self._goal is not None and handle == self._goal:
            self._perform(self._session.cancel('cancelled', monotonic_now()))
        return CancelResponse.ACCEPT

    def _begin(self, handle: Any) -> None:
        if handle.is_cancel_requested:
            self._conclude(handle, Outcome.CANCELLED, 'cancelled before it began', 0)
            return
        self._goal, self._run_chunks = handle, 0
        if handle.request.instruction:
            self._status.instruction = handle.request.instruction
        self._fault, self._lacking = '', 'waiting for pictures'
        self._forget()
        self._perform(self._session.begin(monotonic_now(), to_ns(handle.request.timeout)))

    def _forget(self) -> None:
        """Drop chunks, pictures and open requests of an earlier run."""
        with self._player_lock:
            self._player.clear()
            self._starving = True
        self._buffer.clear()
        self._pacer.reset()
        self._states.clear()

    def _perform(self, action: Do) -> None:
        """Do what an event of the session asks for."""
        if not self._session.running and self._stream is not None:
            self._stream.switch(False)
        if action is Do.ASK_POLICY:
            if self._set_mode.service_is_ready():
                self._ask(action, DriverState.MODE_POLICY)
            else:
                self._perform(self._session.mode_answer(
                    Do.ASK_POLICY, False, 'driver/set_mode is not there; is the driver running?',
                    monotonic_now()))
        elif action is Do.ASK_IDLE:
            self._ask(action, DriverState.MODE_IDLE)
        elif action is Do.FINISH:
            self._finish()
        self._publish_status()

    def _ask(self, asked: Do, mode: int) -> None:
        def answered(future: Any) -> None:
            answer = future.result()
            self._perform(self._session.mode_answer(asked, answer.ok, answer.message,
                                                    monotonic_now()))

        self._set_mode.call_async(SetMode.Request(mode=mode)).add_done_callback(answered)

    def _finish(self) -> None:
        handle, self._goal = self._goal, None
        self._forget()
        if handle is not None:
            self._conclude(handle, self._session.outcome, self._session.message,
                           self._run_chunks)
        following, self._next_goal = self._next_goal, None
        if following is not None:
            self._begin(following)

    def _conclude(self, handle: Any, outcome: Outcome, message: str, chunks: int) -> None:
        self.get_logger().info(f'run ended, {outcome.name}: {message} ({chunks} chunks)')

        def result(goal: Any) -> RunPolicy.Result:
            if goal.is_cancel_requested:
                goal.canceled()
            elif outcome is Outcome.DONE:
                goal.succeed()
            else:
                goal.abort()
            return RunPolicy.Result(code=int(outcome), message=message, chunks=chunks)

        handle.execute(result)

    def _tick(self) -> None:
        now = monotonic_now()
        self._ticks += 1
        with self._player_lock:
            playing = self._player.playing(StampNs.wall())
        if playing:
            self._session.fed(now)
        self._perform(self._session.tick(now, self._lacking))
        if self._goal is not None and self._ticks % 5 == 0:
            self._goal.publish_feedback(RunPolicy.Feedback(
                elapsed=self._session.elapsed_ns(now) * 1e-9, chunks=self._run_chunks,
                detail=self._status.detail))
        if self._ticks % 10 == 0:
            self._publish_status(force=True)

    def _publish_status(self, force: bool = False) -> None:
        status = self._status
        status.state, status.detail = self._judge()
        key = (status.state, status.detail, status.instruction, status.policy)
        if key == self._published and not force:
            return
        self._published = key
        with self._player_lock:
            chunk = self._player.chunk
        if chunk is not None:
            chunk.observation.fill(status.header.stamp)
        self._status_publisher.publish(status)

    def _judge(self) -> tuple[int, str]:
        phase = self._session.phase
        if self._fault:
            return PolicyStatus.FAULT, self._fault
        if phase is Phase.IDLE:
            return PolicyStatus.IDLE, ''
        if phase is not Phase.RUNNING:
            return PolicyStatus.WAITING, f'{phase.value} mode policy'
        with self._player_lock:
            playing = self._player.playing(StampNs.wall())
        if playing:
            return PolicyStatus.RUNNING, ''
        return PolicyStatus.WAITING, self._lacking or 'waiting for the next chunk'


def _source_stamp(name: str, stamp: StampNs) -> SourceStamp:
    message = SourceStamp(name=name)
    stamp.fill(message.stamp)
    return message


def _instruction_problem(text: str) -> str:
    if not text.strip():
        return 'the instruction is empty; say what the robot is to do'
    if len(text) > MAX_INSTRUCTION:
        return f'instruction of {len(text)} characters; at most {MAX_INSTRUCTION}'
    return ''


def _never_called(goal: Any) -> RunPolicy.Result:
    raise AssertionError('goals are executed with the result of their run')


def main(args: Optional[list[str]] = None) -> int:
    """Run the policy runner."""
    # The stream shares the interpreter with message conversion; the default of 5 ms is a period.
    sys.setswitchinterval(5e-4)
    return run_node(RunnerNode, args)


if __name__ == '__main__':
    raise SystemExit(main())
