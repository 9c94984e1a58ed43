"""
The scripted expert as a node, in the place of a human demonstrator.

It streams to ``command/teleop`` and does nothing else: modes, enabling and recording are the
business of whoever asks it. ``expert/start`` begins to hold the applied pose, ``expert/prepare``
moves to the start pose of the scene's seed, ``expert/perform`` does the scene's task; these two
answer when the motion has ended and say whether the driver followed. Afterwards the last set-point
is held until ``expert/stop``.
"""

from __future__ import annotations

import array
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from mivla_core.errors import MivlaError
from mivla_core.profile import load_profile
from mivla_core.ros.lifecycle import ManagedNode, run_node
from mivla_core.ros.params import declare, param
from mivla_core.ros.periodic import PeriodicThread
from mivla_core.ros.polled import PolledSubscription, stamp_of
from mivla_core.ros.qos import NEWEST, stream
from mivla_core.timing import NowNs, StampNs, monotonic_now
from mivla_msgs.msg import JointCommand, SimState
from mivla_teleop.core.expert_motion import ExpertError, plan_move
from mivla_teleop.core.expert_player import ExpertPlayer, Plan
from mivla_teleop.core.experts import plan_task, task_start

__all__ = ['ExpertNode', 'ExpertParams', 'main']

FRESH_NS = 1_000_000_000
FOLLOW_TIMEOUT_S = 1.0
LONGEST_PLAN_S = 60.0


@dataclass(frozen=True)
class ExpertParams:
    """Parameters of the scripted expert."""

    robot: str = param('piper', 'Robot profile: a name or a path.')
    follow_tolerance: float = param(
        0.01, 'How near the applied set-point must come to the end of a motion [rad, m].',
        low=1e-4, high=1.0)
    realtime_priority: int = param(40, 'SCHED_FIFO priority of the stream; 0: do not ask.',
                                   low=0, high=99)


class ExpertNode(ManagedNode):
    """Lifecycle node; executable ``expert``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('expert', **kwargs)
        self.params = declare(self, ExpertParams)
        self.profile = load_profile(self.params.robot)
        self._player = ExpertPlayer()
        self._lock = threading.Lock()
        self._scene: Optional[SimState] = None
        self._places: Optional[PoseArray] = None
        self._seen: Optional[NowNs] = None
        self._applied: Optional[bytes] = None
        self._ended = threading.Event()
        self._release: list[Callable[[], Any]] = []
        self._thread: Optional[PeriodicThread] = None

    def setup(self) -> None:
        """Create the stream and its inputs."""
        rate = self.profile.rates.control
        self._command = self.create_lifecycle_publisher(JointCommand, 'command/teleop',
                                                        stream(rate))
        self._message = JointCommand(
            source=JointCommand.SOURCE_TELEOP, name=list(self.profile.joint_names),
            profile_hash=self.profile.hash)
        self._applied_input = PolledSubscription(self, JointCommand, 'command/applied', 1)
        self._states = PolledSubscription(self, JointState, 'joint_states', 1)
        scene = self.create_subscription(SimState, 'sim/state', self._on_scene, NEWEST)
        places = self.create_subscription(PoseArray, 'sim/places', self._on_places, NEWEST)
        self._release = [partial(self.destroy_publisher, self._command),
                         partial(self.destroy_subscription, scene),
                         partial(self.destroy_subscription, places),
                         self._applied_input.destroy, self._states.destroy]
        # Motions block their service until they end; stop must be answered meanwhile.
        motions, others = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        for name, group, action in (
                ('start', others, self._hold_still), ('stop', others, self._stop_streaming),
                ('prepare', motions, self._prepare), ('perform', motions, self._perform)):
            service = self.create_service(Trigger, f'expert/{name}',
                                          partial(self._answer, name, action),
                                          callback_group=group)
            self._release.append(partial(self.destroy_service, service))
        self._thread = PeriodicThread('expert stream', rate, self._send,
                                      self.params.realtime_priority, self.get_logger().warning)
        self._thread.start()

    def halt(self) -> None:
        """Stop streaming: the guard brakes and holds."""
        self._stop_streaming()

    def teardown(self) -> None:
        """End the stream's thread and release every ROS entity."""
        self._ended.set()
        if self._thread is not None and not self._thread.stop():
            self.get_logger().warning('the expert\'s stream hangs; left behind')
        self._thread = None
        while self._release:
            self._release.pop()()

    def _on_scene(self, message: SimState) -> None:
        self._scene, self._seen = message, monotonic_now()

    def _on_places(self, message: PoseArray) -> None:
        self._places = message

    def _answer(self, name: str, action: Callable[[], str], request: Trigger.Request,
                response: Trigger.Response) -> Trigger.Response:
        del request
        try:
            response.message = action()
            response.success = True
        except MivlaError as err:
            response.message = str(err)
        # Two call sites: rclpy refuses one that changes its severity.
        if response.success:
            self.get_logger().info(f'{name}: {response.message}')
        else:
            self.get_logger().error(f'{name}: {response.message}')
        return response

    def _hold_still(self) -> str:
        pose = self._pose()
        with self._lock:
            self._player.hold(pose)
        self._switch(True)
        return 'holding the applied pose'

    def _stop_streaming(self) -> str:
        self._switch(False)
        self._ended.set()
        with self._lock:
            self._player.clear()
        return 'not streaming'

    def _prepare(self) -> str:
        scene = self._fresh_scene()
        here = self._pose()
        goal = task_start(scene.task, self.profile, here, scene.seed)
        return self._play(plan_move(self.profile, here, goal),
                          f'start pose of seed {scene.seed}')

    def _perform(self) -> str:
        scene = self._fresh_scene()
        plan = plan_task(scene.task, self.profile, self._pose(), self._fresh_places(scene),
                         scene.seed)
        return self._play(plan, f'{scene.task} of seed {scene.seed}')

    def _play(self, plan: Plan, what: str) -> str:
        """Stream a plan, wait for its end, and see whether the driver followed."""
        if not self._command.is_activated:
            raise ExpertError('the expert is not active')
        if plan.duration > LONGEST_PLAN_S:
            raise ExpertError(f'{what} would take {plan.duration:.1f} s; at most '
                              f'{LONGEST_PLAN_S:g}')
        self._ended.clear()
        with self._lock:
            self._player.play(plan, StampNs.wall())
        self._switch(True)
        if self._ended.wait(plan.duration):
            raise ExpertError(f'{what}: stopped before its end')
        deadline = time.monotonic() + FOLLOW_TIMEOUT_S
        end = plan.position(plan.duration)
        while (off := float(np.abs(self._pose() - end).max())) > self.params.follow_tolerance:
            if time.monotonic() > deadline:
                raise ExpertError(f'{what}: streamed, but the applied set-point is {off:.3f} from '
                                  'its end; is the driver enabled and in mode teleop?')
            if self._ended.wait(0.02):
                raise ExpertError(f'{what}: stopped before its end')
        return f'{what} done in {plan.duration:.2f} s'

    def _fresh_scene(self) -> SimState:
        scene, seen = self._scene, self._seen
        if scene is None or seen is None or monotonic_now() - seen > FRESH_NS:
            raise ExpertError('sim/state is absent or older than 1 s; is the world running?')
        return scene

    def _fresh_places(self, scene: SimState) -> np.ndarray:
        """Return the poses (N, 7) of a scene; those of the one before have another stamp."""
        deadline = time.monotonic() + FOLLOW_TIMEOUT_S
        while (places := self._places) is None or (
                StampNs.from_msg(places.header.stamp) < StampNs.from_msg(scene.header.stamp)):
            if time.monotonic() > deadline:
                raise ExpertError('sim/places is absent or older than sim/state; is the world '
                                  'running?')
            time.sleep(0.005)
        return np.array([[pose.position.x, pose.position.y, pose.position.z, pose.orientation.w,
                          pose.orientation.x, pose.orientation.y, pose.orientation.z]
                         for pose in places.poses]).reshape(-1, 7)

    def _pose(self) -> np.ndarray:
        """Return the last applied set-point, or where there is none yet the measured pose."""
        with self._lock:
            newest = self._applied_input.drain()
            self._applied = newest[-1] if newest else self._applied
            serialized = self._applied
        if serialized is not None and StampNs.wall() - stamp_of(serialized) < FRESH_NS:
            return self._ordered(deserialize_message(serialized, JointCommand))
        states = self._states.drain()
        if not states:
            raise ExpertError('neither command/applied nor joint_states is being received; '
                              'is the driver running?')
        return self._ordered(deserialize_message(states[-1], JointState))

    def _ordered(self, message: Any) -> np.ndarray:
        known = dict(zip(message.name, message.position))
        missing = [name for name in self.profile.joint_names if name not in known]
        if missing:
            raise ExpertError(f'the driver does not report {", ".join(missing)}')
        return np.array([known[name] for name in self.profile.joint_names])

    def _switch(self, on: bool) -> None:
        if self._thread is not None:
            self._thread.switch(on)

    def _send(self, now: StampNs) -> None:
        """Publish what is due; called in the stream's thread."""
        with self._lock:
            point = self._player.sample(now)
        if point is None:
            return
        message = self._message
        now.fill(message.header.stamp)
        message.sequence += 1
        message.position = array.array('d', point[0].tobytes())
        message.velocity = array.array('d', point[1].tobytes())
        self._command.publish(message)


def main(args: Optional[list[str]] = None) -> int:
    """Run the scripted expert."""
    sys.setswitchinterval(5e-4)
    return run_node(ExpertNode, args, threads=3)


if __name__ == '__main__':
    raise SystemExit(main())
