"""``mivla bench NAME``: the benchmarks, one module each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mivla_bringup.bench.result import Result, results_folder
from mivla_bringup.cli import Parser
from mivla_bringup.errors import UsageError

__all__ = ['BENCHMARKS', 'main']

# name: (module with ``run(seconds, domain) -> Result``, default seconds, what it measures)
BENCHMARKS: dict[str, tuple[str, float, str]] = {
    'latency': ('latency', 120.0, 'oldest picture to first bus frame, less the forward pass'),
    'jitter': ('jitter', 60.0, 'intervals of joint frames at the bus against a bare loop'),
    'record': ('record', 600.0, 'messages lost by the recorder, and injected losses it reports'),
    'crash': ('crash', 600.0, 'finished and cut episodes after kills and a full disk'),
    'start': ('start', 60.0, 'second "mivla up" to the first command of a real chunk'),
    'stop': ('stop', 120.0, 'stop message to braking at the bus, stack under load'),
    'policy': ('policy', 60.0, 'image tokens to chunk: caches on, off, public H-RDT code'),
    'serve': ('serve', 60.0, 'chunks per second of 1 to 32 robots, batched and not; shares'),
    'execute': ('execute', 120.0, 'late chunks that disagree, joined in four ways; success'),
    'drivers': ('drivers', 60.0, 'control loop, processor time, guard and codecs of each robot'),
    'faults': ('faults', 60.0, 'every fault of every robot, judged at the emulated device'),
    'switch': ('switch', 60.0, 'another robot in a running stack: request to active'),
    'console': ('console', 20.0, 'page stop to braking at the bus; what twenty pages cost'),
    'teleop': ('teleop', 60.0, 'leader\'s joint, and hand in a headset, to the follower\'s bus'),
    'afternoon': ('afternoon', 60.0, 'thirty episodes a robot through the console, by a script'),
    'wire': ('wire', 30.0, 'request to answer over ROS, less decoding and the forward pass'),
    'data': ('data', 60.0, 'observations made again from bags that differ from those asked'),
    'export': ('export', 60.0, 'bags to LeRobot v3.0: seconds per GB, and LeRobot\'s own writer'),
    'train': ('train', 90.0, 'training steps: mivla finetune, a plain PyTorch loop; loader wait'),
    'human': ('human', 60.0, 'what the mapping between hands and robots loses, there and back'),
    'novelty': ('novelty', 240.0, 'warnings of unfamiliar scenes: false ones, and right ones'),
    'walk': ('walk', 60.0, 'trot of the emulated LocoMan: 0.2 m/s and 0.3 rad/s, 10 seeds'),
}
BENCH_DOMAIN = '45'


def main(argv: Sequence[str]) -> int:
    """Run one benchmark or all; returns 0 when they ran, whether aims were met or not."""
    parser = Parser(prog='mivla bench', description='Measure the suite on this machine.',
                    epilog='; '.join(f'{name}: {what}'
                                     for name, (_, _, what) in BENCHMARKS.items()))
    parser.add_argument('name', choices=[*BENCHMARKS, 'all'], metavar='NAME',
                        help=', '.join([*BENCHMARKS, 'all']))
    parser.add_argument('--seconds', type=float, default=None, help='length of the measurement')
    parser.add_argument('--minutes', type=float, default=None, help='the same in minutes')
    parser.add_argument('--json', action='store_true',
                        help='one JSON object on the last line of standard output')
    parser.add_argument('--episodes', type=int, default=0,
                        help='of execute, in closed loop per method and delay; of afternoon, good '
                        'ones per robot (default 30); of novelty, of each level')
    parser.add_argument('--noise', type=float, default=1.0,
                        help='of execute: multiplies how much the chunks disagree')
    parser.add_argument('--policy', default='', metavar='DIR',
                        help='novelty: a checkpoint (default: the shipped one)')
    parser.add_argument('--task', default='click_bell', help='novelty: what the policy does')
    parser.add_argument('--domain', default=BENCH_DOMAIN, help='ROS domain id')
    parser.add_argument('--reference', default='', metavar='DIR',
                        help='policy: a checkout of HongzheBi/H_RDT to compare with')
    parser.add_argument('--robots', default='', metavar='NAMES',
                        help='drivers, faults, afternoon: robots, separated by commas '
                        '(default: all); faults: also "codecs", their fuzz alone; '
                        'switch: two of them')
    parser.add_argument('--no-graph', action='store_true',
                        help='drivers: only what needs no running stack')
    parser.add_argument('--cases', default='', metavar='REGEX', help='faults: cases to run')
    parser.add_argument('--count', type=int, default=200, help='crash: kills')
    parser.add_argument('--cycles', type=int, default=100,
                        help='record: short episodes whose head and tail are compared')
    parser.add_argument('--frames', type=int, default=1_000_000,
                        help='faults: random frames per codec')
    parser.add_argument('--bags', default='', metavar='DIR',
                        help='data, export: these bags instead of others')
    arguments = parser.parse_args(argv)
    if arguments.minutes is not None:
        arguments.seconds = 60.0 * arguments.minutes
    for name, value, least in (('count', arguments.count, 1), ('cycles', arguments.cycles, 0)):
        if not least <= value <= 10_000:
            raise UsageError(f'--{name} {value} is not {least} to 10000')
    if arguments.seconds is not None and not 1.0 <= arguments.seconds <= 3600.0:
        raise UsageError(f'--seconds {arguments.seconds:g} is not 1 to 3600')
    names = list(BENCHMARKS) if arguments.name == 'all' else [arguments.name]
    done: list[tuple[Result, Path]] = []
    for name in names:
        module, seconds, what = BENCHMARKS[name]
        print(f'bench {name}: {what}', flush=True)
        options = {'execute': {'episodes': arguments.episodes, 'noise': arguments.noise},
                   'faults': {'robots': arguments.robots, 'cases': arguments.cases,
                              'frames': arguments.frames},
                   'switch': {'robots': arguments.robots if arguments.name == name else ''},
                   'drivers': {'robots': arguments.robots, 'graph': not arguments.no_graph},
                   'afternoon': {'robots': arguments.robots if arguments.name == name else '',
                                 'episodes': arguments.episodes},
                   'crash': {'count': arguments.count},
                   'record': {'cycles': arguments.cycles},
                   'data': {'bags': arguments.bags},
                   'export': {'bags': arguments.bags},
                   'novelty': {'policy': arguments.policy, 'task': arguments.task,
                               'episodes': arguments.episodes},
                   'policy': {'reference': arguments.reference}}.get(name, {})
        result: Result = import_module(f'mivla_bringup.bench.{module}').run(
            arguments.seconds or seconds, arguments.domain, **options)
        raw = result.save(results_folder())
        print(result.table(), flush=True)
        done.append((result, raw))
    if arguments.json:
        objects = [result.summary(raw) for result, raw in done]
        print(json.dumps(objects[0] if len(objects) == 1 else objects))
    return 0
