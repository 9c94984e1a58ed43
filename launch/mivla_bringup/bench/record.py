"""
``bench record``: is everything in the bag, and is every loss reported?

A process publishes a robot's worth of messages (two cameras JPEG 640x480 at 30 Hz, joint states
and commands at 200 Hz) and keeps the stamp of each. The first episode is left alone: whatever was
published between its first and last message of a topic and is not in the closed bag was lost. In
the second one losses are injected: the recorder is frozen until its queues have overflowed, so
the middleware really drops messages. What is then missing in the bag must be what the recorder
reports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rosbags.highlevel import AnyReader

from mivla_bringup.bench.result import Metric, Result
from mivla_bringup.operate import RobotClient
from mivla_bringup.session import session
from mivla_core.ros.qos import LATCHED
from mivla_core.timing import NS_PER_S
from mivla_msgs.msg import RecorderStatus

__all__ = ['run']

ROBOT = 'piper'
FREEZE_S = 4.0    # queues are two seconds deep


def run(seconds: float, domain: str) -> Result:
    """Record one quiet episode of ``seconds`` and one with injected losses."""
    os.environ['ROS_DOMAIN_ID'] = domain
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
        folder = Path(text)
        log = folder / 'sent.json'
        sender = subprocess.Popen([sys.executable, '-m', 'mivla_bringup.bench.sender', ROBOT,
                                   str(log)])
        recorder = subprocess.Popen(
            [sys.executable, '-m', 'mivla_teleop.ros.recorder_node', '--ros-args', '-r',
             f'__ns:=/{ROBOT}', '-p', f'robot:={ROBOT}', '-p', f'root:={folder / "bags"}'])
        try:
            with session('mivla_bench') as node:
                quiet, _ = _episode(node, seconds, 0)
                injected, reported = _episode(node, FREEZE_S + 6.0, recorder.pid)
        finally:
            for process in (recorder, sender):
                process.send_signal(signal.SIGTERM)
                process.wait(15.0)
        sent = json.loads(log.read_text())
        lost = _missing(sent, quiet)
        dropped = _missing(sent, injected)
    total = sum(lost.values())
    return Result(
        'record', sum(lost.values()) + quiet['messages'],
        {'lost': Metric(total, '', '=0'), 'injected': Metric(sum(dropped.values()), '', '>0'),
         'reported': Metric(sum(reported.values()), '', f'={sum(dropped.values())}')},
        {}, {'lost_by_topic': lost, 'injected_by_topic': dropped, 'reported_by_topic': reported,
             'seconds': seconds},
        [f'{quiet["messages"]} messages in the quiet episode; losses are injected by freezing the '
         f'recorder for {FREEZE_S:g} s, which overflows its two-second queues: counted are the '
         'messages that were published between the first and last one of a topic in the bag'])


def _episode(node: Node, seconds: float, freeze: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Record one episode; returns what its bag holds and the losses that were reported."""
    newest: list[RecorderStatus] = []
    subscription = node.create_subscription(
        RecorderStatus, f'/{ROBOT}/recorder/status',
        lambda message: newest.__setitem__(slice(None), [message]), LATCHED)
    client = RobotClient(node, ROBOT, timeout=20.0)
    deadline = time.monotonic() + 20.0
    while not newest and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)    # until every topic has been heard
    client.start_episode('bench_record', 'publish', 'bench')
    if freeze:
        time.sleep(2.0)
        os.kill(freeze, signal.SIGSTOP)
        time.sleep(FREEZE_S)
        os.kill(freeze, signal.SIGCONT)
        time.sleep(seconds - FREEZE_S - 2.0)
    else:
        time.sleep(seconds)
    finished = client.finish_episode('success')
    time.sleep(0.3)
    reported = {topic.topic: int(topic.lost) for topic in newest[0].topics if topic.lost}
    client.close()
    node.destroy_subscription(subscription)
    return _content(Path(finished.folder)), reported


def _content(folder: Path) -> dict[str, Any]:
    """Return the header stamps of every stamped message of a bag, by topic."""
    stamps: dict[str, list[int]] = {}
    count = 0
    with AnyReader([folder]) as reader:
        for connection, _, raw in reader.messages():
            count += 1
            message = reader.deserialize(raw, connection.msgtype)
            if hasattr(message, 'header'):
                stamp = message.header.stamp
                stamps.setdefault(connection.topic, []).append(
                    stamp.sec * NS_PER_S + stamp.nanosec)
    return {'messages': count, 'stamps': stamps}


def _missing(sent: Mapping[str, list[int]], bag: Mapping[str, Any]) -> dict[str, int]:
    """Count what was published between a topic's first and last message and is not in the bag."""
    found = {}
    for topic, published in sent.items():
        recorded = set(bag['stamps'].get(f'/{ROBOT}/{topic}', ()))
        if not recorded:
            found[topic] = len(published)
            continue
        first, last = min(recorded), max(recorded)
        missing = sum(first <= stamp <= last and stamp not in recorded for stamp in published)
        if missing:
            found[topic] = missing
    return found
