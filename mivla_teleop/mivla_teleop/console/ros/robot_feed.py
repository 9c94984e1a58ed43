"""
Listens to one robot: what the console shows of it.

Streams are polled, not called back: at the page's rate most messages have been replaced by newer
ones before anybody looks. Only the newest of each is turned into a message; of the others the
publication number is enough, which tells rate and loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String

from mivla_core.profile import RobotProfile
from mivla_core.ros.polled import PolledSubscription, stamp_of
from mivla_core.ros.qos import LATCHED
from mivla_core.timing import NowNs, StampNs, monotonic_now, seconds
from mivla_msgs.msg import (
    DriverState,
    GuardStatus,
    JointCommand,
    PolicyStatus,
    RecorderStatus,
    SimState,
    TeleopStatus,
)
from mivla_teleop.console.core.streams import StreamMeter
from mivla_teleop.console.core.trial import DESK_TOPIC, Slip
from mivla_teleop.console.core.view import RobotView, plain
from mivla_teleop.console.errors import RequestError

__all__ = ['DRIVER_STATES', 'Picture', 'RobotFeed', 'constants']

# Deep enough that nothing is overwritten between two polls of an idle console (4 Hz).
_SECONDS_DEEP = 0.5


def constants(message: Any, names: tuple[str, ...]) -> dict[int, str]:
    """Map the values of a message's constants to their names in small letters."""
    return {getattr(message, name): name.lower() for name in names}


DRIVER_STATES = constants(DriverState, ('DISABLED', 'HOLDING', 'MOVING', 'STOPPED', 'FAULT'))
_MODES = {DriverState.MODE_IDLE: 'idle', DriverState.MODE_TELEOP: 'teleop',
          DriverState.MODE_POLICY: 'policy'}
_SOURCES = {JointCommand.SOURCE_NONE: 'none', JointCommand.SOURCE_OPERATOR: 'operator',
            JointCommand.SOURCE_TELEOP: 'teleop', JointCommand.SOURCE_POLICY: 'policy'}
_POLICY = constants(PolicyStatus, ('IDLE', 'WAITING', 'RUNNING', 'FAULT'))
_RECORDER = constants(RecorderStatus, ('IDLE', 'PREPARING', 'RECORDING', 'FAULT'))


@dataclass(frozen=True)
class Picture:
    """The newest picture of a camera: the bytes that were published."""

    stamp: StampNs
    jpeg: bytes


class _Stream:
    """One polled topic with its meter."""

    def __init__(self, node: Node, kind: Any, topic: str, rate: float, meter: StreamMeter) -> None:
        depth = max(4, math.ceil(_SECONDS_DEEP * rate))
        self._input = PolledSubscription(node, kind, topic, depth)
        self.kind, self.meter = kind, meter

    def newest(self, now: NowNs) -> Optional[bytes]:
        """Empty the queue; returns the newest message, serialized."""
        taken = self._input.drain_numbered()
        newest = taken[-1][0] if taken else None
        self.meter.look([number for _, number in taken],
                        stamp_of(newest) if newest is not None else None, now)
        return newest

    def destroy(self) -> None:
        self._input.destroy()


class RobotFeed:
    """
    The subscriptions of one robot.

    ``poll`` belongs to one thread; what it fills, ``view``, is read by the same.

    :param asked: called with every slip of trials, from the executor's thread.
    """

    def __init__(self, node: Node, profile: RobotProfile,
                 asked: Callable[[Slip], None] = lambda slip: None) -> None:
        self._node, self.profile, self._asked = node, profile, asked
        self.view = RobotView(profile)
        self.pictures: dict[str, Picture] = {}
        space, control = f'/{profile.name}', profile.rates.control
        self._index = {name: j for j, name in enumerate(profile.joint_names)}
        self._streams: dict[str, _Stream] = {}
        for name, kind, rate in (('joint_states', JointState, control),
                                 ('command/applied', JointCommand, control),
                                 ('command/teleop', JointCommand, 0.0),
                                 ('command/policy', JointCommand, 0.0)):
            self._add(name, kind, f'{space}/{name}', rate, control)
        for camera in profile.cameras:
            where = camera.shared or f'{space}/{camera.role}'
            self._add(camera.role, CompressedImage, f'{where}/image_raw/compressed', camera.fps,
                      camera.fps)
        self._guard = PolledSubscription(node, GuardStatus, f'{space}/guard/status', 1)
        self._scene = PolledSubscription(node, SimState, f'{space}/sim/state', 1)
        self._latched = [
            node.create_subscription(kind, f'{space}/{name}', take, qos)
            for kind, name, take, qos in (
                (DriverState, 'driver/state', self._on_driver, LATCHED),
                (PolicyStatus, 'policy/status', self._on_policy, LATCHED),
                (RecorderStatus, 'recorder/status', self._on_recorder, LATCHED),
                (TeleopStatus, 'teleop/status', self._on_teleop, LATCHED),
                (String, DESK_TOPIC, self._on_slip, LATCHED))]

    def _add(self, name: str, kind: Any, topic: str, nominal: float, rate: float) -> None:
        meter = self.view.meters[name] = StreamMeter(name, nominal)
        self._streams[name] = _Stream(self._node, kind, topic, rate, meter)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for stream in self._streams.values():
            stream.destroy()
        self._guard.destroy()
        self._scene.destroy()
        for subscription in self._latched:
            self._node.destroy_subscription(subscription)

    def poll(self, now: NowNs, told: Callable[[str, Picture], None]) -> None:
        """
        Empty the queues and renew the view.

        :param told: called with the role and picture of every camera that has a new one.
        """
        view = self.view
        for name, stream in self._streams.items():
            data = stream.newest(now)
            if data is None:
                continue
            if stream.kind is CompressedImage:
                picture = Picture(stamp_of(data), bytes(
                    deserialize_message(data, CompressedImage).data))
                self.pictures[name] = picture
                told(name, picture)
            elif name == 'joint_states':
                view.measured = self._ordered(deserialize_message(data, JointState))
            elif name == 'command/applied':
                self._take_applied(deserialize_message(data, JointCommand))
        for data in self._guard.drain()[-1:]:
            view.guard = _guard(deserialize_message(data, GuardStatus))
        for data in self._scene.drain()[-1:]:
            view.scene = _scene(deserialize_message(data, SimState))

    def _ordered(self, message: Any) -> np.ndarray:
        """Return positions in profile order; NaN where there is none."""
        values = np.full(len(self._index), math.nan)
        for name, position in zip(message.name, message.position):
            if name in self._index:
                values[self._index[name]] = position
        return values

    def _take_applied(self, message: JointCommand) -> None:
        view = self.view
        view.applied = self._ordered(message)
        view.source = _SOURCES.get(message.source, 'none')
        observation = StampNs.from_msg(message.observation_stamp)
        view.action_age = (seconds(StampNs.from_msg(message.header.stamp) - observation)
                           if observation > 0 else None)

    def _on_driver(self, message: DriverState) -> None:
        self.view.driver = {
            'state': DRIVER_STATES.get(message.state, str(message.state)),
            'mode': _MODES.get(message.mode, str(message.mode)), 'braking': message.braking,
            'ramping': message.ramping, 'powered': message.powered, 'detail': message.detail,
            'faults': list(message.faults), 'posture': message.posture,
            'postures': list(message.postures), 'bus': message.bus, 'firmware': message.firmware}
        self.view.driver_heard = monotonic_now()

    def _on_policy(self, message: PolicyStatus) -> None:
        self.view.policy = {
            'state': _POLICY.get(message.state, str(message.state)), 'detail': message.detail,
            'instruction': message.instruction, 'policy': message.policy,
            'chunks': message.chunks, 'refused': message.refused, 'starved': message.starved,
            'timeouts': message.timeouts, 'chunk_seconds': plain(message.chunk_seconds),
            'forward_seconds': plain(message.forward_seconds), 'seam': plain(message.seam),
            'delay_p50': plain(message.delay_p50), 'delay_p99': plain(message.delay_p99),
            'novelty': plain(message.novelty), 'warning': message.warning}

    def _on_recorder(self, message: RecorderStatus) -> None:
        self.view.recorder = {
            'state': _RECORDER.get(message.state, str(message.state)), 'detail': message.detail,
            'episode': message.episode, 'duration': round(message.duration, 1),
            'messages': message.messages, 'bytes': message.bytes, 'free': message.free_bytes,
            'lost': sum(topic.lost for topic in message.topics), 'episodes': message.episodes}

    def _on_teleop(self, message: TeleopStatus) -> None:
        self.view.teleop = {'method': message.method, 'phase': message.phase,
                            'detail': message.detail, 'gesture': message.gesture,
                            'gestures': list(message.gestures)}

    def _on_slip(self, message: String) -> None:
        try:
            slip = Slip.from_text(message.data)
        except RequestError as err:
            self._node.get_logger().warning(f'{self.profile.name}/{DESK_TOPIC}: {err}')
            return
        self.view.slip, self.view.slip_heard = slip, monotonic_now()
        self._asked(slip)


def _guard(message: GuardStatus) -> dict[str, Any]:
    loop = message.loop
    return {'verdict': message.last_verdict, 'reason': message.last_reason,
            'command_age': plain(message.command_age),
            'counts': {count.name: count.count for count in message.verdicts if count.count},
            'loop': {'hz': loop.target_hz, 'p50': plain(loop.interval_p50, 6),
                     'p99': plain(loop.interval_p99, 6), 'max': plain(loop.interval_max, 6),
                     'missed': loop.missed, 'ticks': loop.ticks, 'realtime': loop.realtime}}


def _scene(message: SimState) -> dict[str, Any]:
    return {'task': message.task, 'seed': message.seed, 'level': message.level,
            'factor': plain(message.realtime_factor, 2), 'success': message.success,
            'progress': plain(message.progress)}
