"""
``bench afternoon``: thirty good episodes through the console, and what became of their messages.

A scripted demonstrator sits at the input device of each simulated robot (an emulated leader arm on
a bus of its own, an emulated headset) and works the console as its page does: logs in with the
token, opens the websocket, presses session, enable, home, posture, teleop, start and save. It
discards, brings back, records again, and stops the robot once, as people do. Afterwards every
episode is checked byte by byte, and the report of the session is written.
"""

from __future__ import annotations

import math
import secrets
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mivla_bringup.arguments import listed
from mivla_bringup.bench.demonstrator import make_demonstrator, options_of
from mivla_bringup.bench.pages import Page
from mivla_bringup.bench.result import Metric, Result
from mivla_bringup.bench.sitting import Desk, Sitting
from mivla_bringup.errors import BringupError
from mivla_bringup.rig import Rig, warnings_to, with_stack
from mivla_bringup.session_report import write_report
from mivla_bringup.stack import StackOptions, build
from mivla_bringup.task_episodes import PICTURES
from mivla_core.profile import load_profile
from mivla_teleop.recording.check import check_episode
from mivla_teleop.recording.metadata import read_metadata
from mivla_teleop.recording.sittings import good_episodes, sittings
from mivla_teleop.recording.store import EpisodeStore

__all__ = ['ROBOTS', 'accounts', 'run']

ROBOTS = ('piper', 'arx5_x5', 'locoman')
EPISODES = 30
SLOW_CAMERAS = {'locoman': 10}      # Hz
# Of its 400 Hz beside everything else; what was reached is in the result.
RATE_SHARE = {'locoman': 0.5}
DISCARDED, REGRETTED, STOPPED = 4, 11, 17      # episodes after which something happens
MISSES = 0.3            # share of the episodes that may go wrong before it is given up
CONSOLE_S = 30.0        # until the console listens
REPORT_ROOM = 20 << 20  # bytes that a report may have


def run(seconds: float, domain: str, robots: str = '', episodes: int = 0) -> Result:
    """
    Record an afternoon on each robot.

    :param seconds: not used: the number of episodes says how long it takes.
    :param robots: names, separated by commas; '': all of ``ROBOTS``.
    :param episodes: good ones that are wanted; 0: thirty.
    """
    del seconds
    names = listed(robots) or ROBOTS
    done = [_afternoon(name, domain, episodes or EPISODES) for name in names]
    metrics: dict[str, Metric] = {}
    for one in done:
        account = one.account
        metrics |= {
            f'{one.robot}_good': Metric(account['good'], '', f'>={one.wanted}'),
            f'{one.robot}_lost_in_good': Metric(account['lost_in_good'], '', '=0'),
            f'{one.robot}_damaged': Metric(len(account['damaged']), '', '=0'),
            f'{one.robot}_rejected': Metric(len(account['rejected']), ''),
            f'{one.robot}_lost_in_rejected': Metric(account['lost'] - account['lost_in_good'], ''),
            f'{one.robot}_missed': Metric(len(one.missed), ''),
            f'{one.robot}_limited': Metric(_limited(one.verdicts), '%'),
            f'{one.robot}_states_hz': Metric(
                float(np.median(account['joint_states_hz'] or [math.nan])), 'Hz'),
            f'{one.robot}_minutes': Metric(one.seconds / 60.0, 'min'),
        }
    return Result(
        'afternoon', sum(one.account['episodes'] for one in done), metrics,
        {f'{one.robot} episodes': (one.account['durations'], 's') for one in done},
        {one.robot: {'verdicts': one.verdicts, 'missed': one.missed, 'told': one.told,
                     'by_gesture': one.gestures,
                     'pictures_on_the_page': one.pictures, **one.account} for one in done},
        ['good: called a success and accepted by the recorder; missed: demonstrations that went '
         'wrong and were discarded; limited: ticks in which the guard had to limit something, of '
         'all that followed the demonstrator',
         'lost: by the publishers\' own sequence numbers, all topics; an episode that lost what '
         'training reads was rejected at once, in words, and recorded again',
         *(f'{one.robot}: {one.account["messages"]} messages in {one.account["episodes"]} '
           f'episodes' for one in done)])


def _limited(verdicts: dict[str, int]) -> float:
    """Return how many of a hundred ticks the guard limited."""
    moved = sum(count for name, count in verdicts.items()
                if name == 'passed' or name.startswith('limited'))
    limited = sum(count for name, count in verdicts.items() if name.startswith('limited'))
    return 100.0 * limited / moved if moved else float('nan')


def _afternoon(robot: str, domain: str, wanted: int) -> Sitting:
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix='mivla-bench-') as text:
        folder = Path(text)
        token = secrets.token_hex(16)
        (folder / 'token').touch(mode=0o600)
        (folder / 'token').write_text(token)
        stack = build(StackOptions(**{
            'sim': True, 'robots': (_profile(robot, folder),), 'record': True,
            'bags': str(folder / 'bags'), 'target': wanted, 'console': True, 'console_port': port,
            'console_token': str(folder / 'token'), 'domain': domain, **PICTURES,
            'camera_fps': 0.0, **options_of(robot),
            'extra': {'recorder': {'rate_share': RATE_SHARE.get(robot, 0.9)}}}))
        sitting = Sitting(robot, wanted)
        with_stack(stack, lambda rig: _sit(rig, f'127.0.0.1:{port}', token, sitting),
                   on_event=warnings_to())
        sitting.account = accounts(folder / 'bags', robot, folder / 'report.html')
    return sitting


def _profile(robot: str, folder: Path) -> str:
    """Return the profile to use: two cores carry LocoMan's 400 Hz only beside slower cameras."""
    if robot not in SLOW_CAMERAS:
        return robot
    data = yaml.safe_load(load_profile(robot).text)
    for camera in data['cameras']:
        camera['fps'] = SLOW_CAMERAS[robot]
    path = folder / f'{robot}.yaml'
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(path)


def _sit(rig: Rig, host: str, token: str, sitting: Sitting) -> None:
    """Do what a demonstrator does from sitting down to standing up."""
    rig.wait('recorder/status', lambda message: True, 60.0, 'the recorder')
    _wait_for_console(rig, host)
    _refuses_strangers(host)
    page = Page(host, token)
    person = make_demonstrator(sitting.robot)(rig, page)
    desk = Desk(rig, page, person, sitting)
    begun = time.monotonic()
    try:
        desk.sit_down()
        number = 0
        while (good := desk.good()) < sitting.wanted:
            number += 1
            desk.episode(number)
            if number == DISCARDED:
                desk.discard_and_bring_back()
            elif number == REGRETTED:
                page.ask(rig.robot, 'discard_last')
            elif number == STOPPED:
                desk.stop_and_resume()
            print(f'{rig.robot}: {good} of {sitting.wanted}, {sitting.told[-1]}', flush=True)
            if len(sitting.missed) > 3 + MISSES * sitting.wanted:
                raise BringupError(f'{rig.robot}: {len(sitting.missed)} demonstrations of '
                                   f'{number} went wrong')
        desk.stand_up()
    finally:
        person.close()
        sitting.seconds = time.monotonic() - begun
        sitting.pictures = page.pictures
        page.close()


def _wait_for_console(rig: Rig, host: str) -> None:
    name, _, port = host.rpartition(':')
    deadline = time.monotonic() + CONSOLE_S
    while True:
        try:
            socket.create_connection((name, int(port)), 1.0).close()
            return
        except OSError as err:
            if time.monotonic() > deadline:
                raise BringupError(f'no console at {host} after {CONSOLE_S:g} s') from err
        rig.pause(0.1)


def _refuses_strangers(host: str) -> None:
    """Make sure that the page that follows is let in by its token."""
    for token in ('', 'not-the-token-at-all'):
        try:
            Page(host, token).close()
        except BringupError:
            continue
        raise BringupError(f'the console let a page in with the token {token!r}')


def accounts(bags: Path, robot: str, report: Path) -> dict[str, Any]:
    """
    Check every episode and return what there is: plain data.

    :param report: file for the page about the sitting.
    """
    store = EpisodeStore(bags)
    records, problems = store.survey()
    damaged, messages, rates = list(problems), 0, []
    for record in records:
        checked = check_episode(store.path(record))
        rates.append(_rate(store.path(record)))
        messages += checked.messages
        damaged += [f'{record.name}: {text}' for text in checked.errors]
    found = [item for item in sittings(records) if item.profile_name == robot]
    if len(found) != 1:
        raise BringupError(f'{robot}: {len(found)} sittings were found, expected one')
    good = good_episodes(records, found[0].task, robot)
    write_report(found[0], store.path, report, len(good), len(good))
    if not 0 < report.stat().st_size < REPORT_ROOM:
        raise BringupError(f'the report has {report.stat().st_size} bytes')
    return {'episodes': len(records), 'good': len(good), 'messages': messages,
            'lost': sum(record.lost for record in records), 'damaged': damaged,
            'joint_states_hz': [round(rate, 1) for rate in rates],
            'lost_in_good': sum(record.lost for record in good),
            'rejected': {record.name: list(record.reasons) for record in records
                         if record.verdict != 'accepted'},
            'hints': {record.name: list(record.hints) for record in records if record.hints},
            'discarded': len(store.discarded()),
            'megabytes': sum(record.bytes for record in records) / 1e6,
            'report_kilobytes': report.stat().st_size / 1e3,
            'durations': [round(record.duration, 2) for record in records]}


def _rate(episode: Path) -> float:
    """Return how many joint states a second an episode holds."""
    info = read_metadata(episode)
    count = sum(int(topic['message_count']) for topic in info['topics_with_message_count']
                if topic['topic_metadata']['name'].endswith('/joint_states')
                and '/leader/' not in topic['topic_metadata']['name'])
    return count / max(1e-9, int(info['duration']['nanoseconds']) * 1e-9)
