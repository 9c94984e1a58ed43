"""Pictures and joint positions of a running robot, for calibrating it."""

from __future__ import annotations

import threading
import time
from typing import Optional

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, JointState

from mivla_core.calibration import CalibrationError
from mivla_core.ros.qos import LATCHED, stream
from mivla_core.timing import StampNs
from mivla_core.timing import seconds as seconds_of
from mivla_msgs.msg import DriverState

__all__ = ['RobotWatch']

STILL = 0.02            # rad or m that a joint may move within the window
WINDOW_S = 0.3
_WAIT_S = 3.0
_KEPT = 4000            # readings: ten seconds of the fastest robot


class RobotWatch:
    """
    What one robot publishes; its node is spun elsewhere.

    :param role: of the camera; '' for none.
    """

    def __init__(self, node: Node, robot: str, role: str = '') -> None:
        self._robot, self._role = robot, role
        self._lock = threading.Lock()
        self._picture: Optional[tuple[float, bytes]] = None
        self._joints: list[tuple[StampNs, dict[str, float]]] = []
        self._state: Optional[DriverState] = None
        node.create_subscription(JointState, f'/{robot}/joint_states', self._take_joints,
                                 stream(100))
        node.create_subscription(DriverState, f'/{robot}/driver/state', self._take_state, LATCHED)
        if role:
            node.create_subscription(CompressedImage, f'/{robot}/{role}/image_raw/compressed',
                                     self._take_picture, stream(30))

    def _take_picture(self, message: CompressedImage) -> None:
        with self._lock:
            self._picture = (time.monotonic(), bytes(message.data))

    def _take_state(self, message: DriverState) -> None:
        with self._lock:
            self._state = message

    def _take_joints(self, message: JointState) -> None:
        with self._lock:
            self._joints.append((StampNs.from_msg(message.header.stamp),
                                 dict(zip(message.name, message.position))))
            del self._joints[:-_KEPT]

    def picture(self) -> bytes:
        """
        Wait for the next picture.

        :raises CalibrationError: none comes.
        """
        asked = time.monotonic()
        while time.monotonic() < asked + _WAIT_S:
            with self._lock:
                newest = self._picture
            if newest is not None and newest[0] > asked:
                return newest[1]
            time.sleep(0.01)
        raise CalibrationError(f'no picture on /{self._robot}/{self._role}/image_raw/compressed; '
                               f'is "mivla up robot:={self._robot}" running with its cameras?')

    def joints(self) -> dict[str, float]:
        """
        Wait for a moment in which the robot stands still; returns the mean positions in it.

        :raises CalibrationError: nothing heard, or it goes on moving.
        """
        for _ in range(round(_WAIT_S / WINDOW_S)):
            names, readings = self.readings(WINDOW_S)
            moved = readings.max(axis=0) - readings.min(axis=0)
            if moved.max() <= STILL:
                return dict(zip(names, map(float, readings.mean(axis=0))))
        worst = int(moved.argmax())
        raise CalibrationError(f'{names[worst]} moves ({moved[worst]:.3f} within {WINDOW_S} s); '
                               'wait until the robot stands still')

    def readings(self, seconds: float) -> tuple[tuple[str, ...], np.ndarray]:
        """
        Listen for some seconds; returns the joints' names and their positions (N, J).

        Only what was measured from now on counts, by its stamp: what was still on its way may be
        of before the robot was moved.

        :raises CalibrationError: nothing heard.
        """
        since = StampNs.wall()
        time.sleep(seconds)
        with self._lock:
            newest = self._joints[-1][0] if self._joints else None
            heard = [joints for stamp, joints in self._joints if stamp >= since]
        if not heard and newest is not None:
            raise CalibrationError(
                f'the newest on /{self._robot}/joint_states was measured '
                f'{seconds_of(StampNs.wall() - newest):.2f} s ago by its stamp; has its driver '
                'stopped, or does its machine have another time? See "mivla doctor"')
        if not heard:
            raise CalibrationError(f'nothing on /{self._robot}/joint_states; is "mivla up '
                                   f'robot:={self._robot}" running, in this ROS domain?')
        names = tuple(heard[-1])
        return names, np.array([[joints[name] for name in names] for joints in heard
                                if tuple(joints) == names])

    def refuse_power(self) -> None:
        """
        See that torque is off: joints are about to be moved by hand.

        :raises CalibrationError: it is on, or not known.
        """
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            with self._lock:
                state = self._state
            if state is not None:
                break
            time.sleep(0.02)
        else:
            raise CalibrationError(f'no driver of {self._robot} is running; start "mivla up '
                                   f'robot:={self._robot}" and leave it disabled')
        if state.powered:
            raise CalibrationError(f'{self._robot} has torque; "mivla rest && mivla disable" '
                                   'first, then move it by hand')
