"""
A robot's worth of messages with counters of their own, for the recording benchmark.

    python -m mivla_bringup.bench.sender ROBOT FILE

Publishes two cameras (JPEG, 640x480, 30 Hz), joint states and commands (200 Hz) in the robot's
namespace until SIGTERM, then writes the stamp of every message it published, by topic (JSON).
"""

from __future__ import annotations

import array
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, JointState

from mivla_core.images import encode_jpeg
from mivla_core.profile import load_profile
from mivla_core.ros.qos import LATCHED, stream
from mivla_core.timing import StampNs
from mivla_msgs.msg import JointCommand, ProfileText

RATE_HZ = 200.0
FRAME_HZ = 30.0
SIZE = (480, 640, 3)


def main() -> int:
    """Publish until SIGTERM; returns the exit code."""
    robot, path = sys.argv[1], Path(sys.argv[2])
    profile = load_profile(robot)
    running = True

    def stop(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('sender', namespace=f'/{profile.name}')
    node.create_publisher(ProfileText, 'profile', LATCHED).publish(
        ProfileText(name=profile.name, hash=profile.hash, text=profile.text))
    sent: dict[str, list[int]] = {}
    publishers: dict[str, Any] = {}
    names = list(profile.joint_names)
    zeros = array.array('d', bytes(8 * len(names)))
    fast: list[tuple[str, Any]] = [
        ('joint_states', JointState(name=names, position=zeros, velocity=zeros)),
        ('command/policy', JointCommand(name=names, position=zeros, source=3)),
        ('command/applied', JointCommand(name=names, position=zeros, source=3))]
    slow: list[tuple[str, Any]] = []
    # Noise compresses badly: about the size of a busy picture.
    picture = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    data = array.array('B', encode_jpeg(picture // 4, 60))
    for camera in profile.cameras:
        slow.append((f'{camera.role}/image_raw/compressed',
                     CompressedImage(format='jpeg', data=data)))
        slow.append((f'{camera.role}/camera_info', CameraInfo()))
    for rate, messages in ((RATE_HZ, fast), (FRAME_HZ, slow)):
        for topic, message in messages:
            publishers[topic] = node.create_publisher(type(message), topic, stream(rate))
            sent[topic] = []

    def publish(messages: list[tuple[str, Any]]) -> None:
        for topic, message in messages:
            stamp = StampNs.wall()
            stamp.fill(message.header.stamp)
            if isinstance(message, JointCommand):
                message.sequence = len(sent[topic]) + 1
            publishers[topic].publish(message)
            sent[topic].append(int(stamp))

    due = frame_due = time.monotonic()
    while running:
        publish(fast)
        if time.monotonic() >= frame_due:
            publish(slow)
            frame_due += 1.0 / FRAME_HZ
        due += 1.0 / RATE_HZ
        time.sleep(max(0.0, due - time.monotonic()))
    path.write_text(json.dumps(sent))
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
