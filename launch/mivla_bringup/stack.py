"""
The stack: which nodes run, with what names, parameters and environment.

``build`` is a pure function of its options and the robot profiles; ``bringup.launch.py`` turns its
answer into ``launch_ros`` nodes and ``mivla up`` into supervised processes, so both start the same
graph. Names: per robot a namespace ``/<robot>`` with ``driver``, ``cameras``, ``policy_runner``,
``expert``, ``recorder`` and, simulated, ``world``; the policy server is global and serves
robots that share the first one's profile hash.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Union

from can.interfaces import VALID_INTERFACES

from mivla_bringup.arguments import ARGUMENTS, Value, listed, parse
from mivla_bringup.errors import UsageError
from mivla_core.profile import RobotProfile, available_profiles, config_dir, load_profile
from mivla_drivers.sim.locoman_wires import INTERFACE as LOCOMAN_INTERFACE
from mivla_drivers.sim.locoman_wires import locoman_wires

__all__ = ['MODULES', 'NodeSpec', 'RESPAWN_DELAY', 'RESPAWN_LIMIT', 'Stack', 'StackOptions',
           'StopOrder', 'build', 'load_robot']

Parameter = Union[bool, int, float, str, list[str]]

RESPAWN_DELAY = 1.0    # s before the first respawn
RESPAWN_LIMIT = 3      # respawns after which a node is given up

# What teleoperates every robot, whatever its profile lists: the buttons of the web console.
TELEOP_OF_ALL = ('jog',)

# The name of the python-can interface on loopback multicast, registered by mivla_drivers.
LOOPBACK_CAN = 'mivla_loopback'

# Executables of the packages and the modules that they run.
MODULES: Mapping[tuple[str, str], str] = {
    ('mivla_drivers', 'world'): 'mivla_drivers.sim.world_process',
    ('mivla_drivers', 'driver'): 'mivla_drivers.ros.driver_node',
    ('mivla_drivers', 'cameras'): 'mivla_drivers.ros.camera_node',
    ('mivla_policy', 'policy_server'): 'mivla_policy.ros.server_node',
    ('mivla_policy', 'policy_runner'): 'mivla_policy.ros.runner_node',
    ('mivla_teleop', 'expert'): 'mivla_teleop.ros.expert_node',
    ('mivla_teleop', 'recorder'): 'mivla_teleop.ros.recorder_node',
    ('mivla_teleop', 'jog'): 'mivla_teleop.ros.jog_node',
    ('mivla_drivers', 'leader_reader'): 'mivla_drivers.ros.leader_node',
    ('mivla_drivers', 'leader_world'): 'mivla_drivers.ros.emulated_leader',
    ('mivla_teleop', 'leader'): 'mivla_teleop.ros.leader_node',
    ('mivla_teleop', 'headset'): 'mivla_teleop.ros.headset_node',
    ('mivla_teleop', 'headset_replay'): 'mivla_teleop.ros.replay_node',
    ('mivla_teleop', 'vision_pro'): 'mivla_teleop.ros.vision_pro_node',
    ('mivla_teleop', 'console'): 'mivla_teleop.console.ros.console_node',
}


class StopOrder(IntEnum):
    """
    Who stops when; equal numbers stop together.

    What commands the robot goes first, then who answers it, then who watches; the driver brakes
    and holds after all sources are silent, and the world it moves in is the last.
    """

    SOURCE = 0
    SERVER = 1
    RECORDER = 2
    CAMERAS = 3
    DRIVER = 4
    WORLD = 5


@dataclass(frozen=True)
class NodeSpec:
    """
    One process of the stack.

    :param parameters: ROS parameters, name to value.
    :param remappings: pairs (from, to).
    :param environment: variables this process has in addition to the starter's own.
    :param respawn: it is started again when it dies.
    :param essential: when it is dead for good, the stack is taken down.
    :param stop_timeout: s that it may take to stop when asked.
    """

    package: str
    executable: str
    name: str
    namespace: str
    stop_order: StopOrder
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    essential: bool = False
    stop_timeout: float = 5.0

    @property
    def full_name(self) -> str:
        """Name in the graph, '/piper/driver'."""
        return f'{self.namespace.rstrip("/")}/{self.name}'

    @property
    def module(self) -> str:
        """Python module that the executable runs."""
        return MODULES[self.package, self.executable]


@dataclass(frozen=True)
class StackOptions:
    """
    What to start; the fields are described in ``arguments.ARGUMENTS``.

    :param extra: node name to further parameters of it; for programs, not for the command line.
    """

    robots: tuple[str, ...] = ('piper',)
    standby: tuple[str, ...] = ()
    sim: bool = False
    interface: str = ''
    port: str = ''
    policy: str = ''
    policy_parameters: str = ''
    openpi_port: int = 0
    teleop: str = 'none'
    leader: str = ''
    leader_bus: str = ''
    leader_map: str = ''
    headset: str = ''
    hand: str = 'wave'
    record: bool = False
    target: int = 30
    sound: str = 'off'
    console: bool = False
    console_port: int = 8700
    console_host: str = '127.0.0.1'
    console_token: str = ''
    cameras: bool = True
    role: str = 'all'
    task: str = 'click_bell'
    seed: int = 0
    level: str = 'easy'
    disturbance: float = 0.0
    instruction: str = ''
    realtime: bool = True
    bags: str = '~/mivla/episodes'
    camera_width: int = 0
    camera_height: int = 0
    camera_fps: float = 0.0
    domain: str = ''
    peers: tuple[str, ...] = ()
    extra: Mapping[str, Mapping[str, Parameter]] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> StackOptions:
        """
        Build options from typed arguments.

        :raises UsageError: unknown argument or invalid value.
        """
        values: dict[str, Value] = parse(texts)
        robots = listed(str(values.pop('robot')))
        standby = listed(str(values.pop('standby')))
        peers = listed(str(values.pop('peers')))
        return cls(robots=robots, standby=standby, peers=peers, **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stack:
    """
    All nodes of one starter.

    :param robots: robot names; each is a namespace.
    :param environment: variables that every node has, and that whoever looks at the graph needs.
    """

    options: StackOptions
    robots: tuple[str, ...]
    nodes: tuple[NodeSpec, ...]
    environment: Mapping[str, str]

    def node(self, full_name: str) -> NodeSpec:
        """Return the node of a full name; raises UsageError when there is none."""
        for node in self.nodes:
            if node.full_name == full_name:
                return node
        raise UsageError(f'no node {full_name!r} in this stack; it has '
                         f'{", ".join(node.full_name for node in self.nodes)}')


def build(options: StackOptions) -> Stack:
    """
    Describe the stack of some options.

    :raises UsageError: an option has no such value or contradicts another.
    :raises ProfileError: a robot's profile is invalid.
    """
    environment = _environment(options)
    profiles = [load_robot(text) for text in options.robots]
    names = [profile.name for profile in profiles]
    if not names:
        raise UsageError(f'robot:= is empty; valid: {", ".join(available_profiles())}')
    if len(set(names)) != len(names):
        raise UsageError(f'robot:={",".join(options.robots)} names a robot twice; every robot '
                         'needs a profile with a name of its own')
    _check(options)
    _check_shared(profiles)
    nodes: list[NodeSpec] = []
    if options.role != 'policy':
        for text, profile in zip(options.robots, profiles):
            nodes += _robot_nodes(options, _reference(text), profile, environment)
    if options.policy and options.role != 'robot':
        nodes.append(NodeSpec(
            'mivla_policy', 'policy_server', 'policy_server', '/', StopOrder.SERVER,
            {'robots': _served(options),
             'policy': _policy(options.policy), 'openpi_port': options.openpi_port,
             'policy_parameters': options.policy_parameters.split(';'), **_realtime(options)}, (),
            environment, respawn=True))
    if options.console and options.role != 'policy':
        nodes.append(_console(options, environment))
    return Stack(options, tuple(names), _with_extra(nodes, options.extra), environment)


def _served(options: StackOptions) -> list[str]:
    """Return the robots that the policy server is made ready for."""
    known = {load_robot(robot).hash for robot in options.robots}
    more = {load_robot(robot).hash: robot for robot in options.standby}
    return [_reference(robot) for robot in (
        *options.robots, *(robot for key, robot in more.items() if key not in known))]


def _with_extra(nodes: Sequence[NodeSpec],
                extra: Mapping[str, Mapping[str, Parameter]]) -> tuple[NodeSpec, ...]:
    names = [node.name for node in nodes]
    for name in extra:
        if name not in names:
            raise UsageError(f'extra parameters for {name!r}, which is not in this stack; it has '
                             f'{", ".join(names)}')
    return tuple(replace(node, parameters={**node.parameters, **extra.get(node.name, {})})
                 for node in nodes)


def _robot_nodes(options: StackOptions, reference: str, profile: RobotProfile,
                 environment: Mapping[str, str]) -> list[NodeSpec]:
    """Nodes of one robot; the world comes first, because the others need it."""
    space = f'/{profile.name}'
    robot: dict[str, Parameter] = {'robot': reference}
    source = {**robot, **_realtime(options)}
    # Only processes that publish pictures get the large shared-memory segments.
    pictures = {**environment, **_fastdds('fastdds.xml')}
    nodes = []
    if options.sim:
        nodes.append(_world(options, profile, robot, environment))
    nodes.append(_driver(options, profile, robot, environment))
    if options.cameras and any(not camera.shared for camera in profile.cameras):
        nodes.append(_cameras(options, profile, source, pictures))
    if options.policy:
        nodes.append(NodeSpec('mivla_policy', 'policy_runner', 'policy_runner', space,
                              StopOrder.SOURCE, {**source, 'instruction': options.instruction},
                              _shared(profile), pictures, respawn=True))
    if options.teleop != 'none':
        if options.teleop not in (*profile.teleop.methods, *TELEOP_OF_ALL):
            raise UsageError(f'teleop:={options.teleop} is not a way to teleoperate '
                             f'{profile.name}; its profile has: '
                             f'{", ".join(("none", *profile.teleop.methods, *TELEOP_OF_ALL))}')
        # Imported here: that module makes NodeSpecs, too.
        from mivla_bringup.teleop_nodes import teleop_nodes
        nodes += teleop_nodes(options, reference, profile, source, environment)
    if options.record:
        folder = str(Path(options.bags).expanduser().absolute())
        nodes.append(NodeSpec('mivla_teleop', 'recorder', 'recorder', space, StopOrder.RECORDER,
                              {**robot, 'root': folder, 'sim': options.sim,
                               'target': options.target, 'sound': options.sound}, _shared(profile),
                              environment, respawn=True, stop_timeout=15.0))
    return nodes


def _console(options: StackOptions, environment: Mapping[str, str]) -> NodeSpec:
    """Return the web console, one for all robots; its death is no robot's."""
    token = str(Path(options.console_token).expanduser().absolute()) if options.console_token \
        else ''
    return NodeSpec('mivla_teleop', 'console', 'console', '/', StopOrder.RECORDER, {
        'robots': [_reference(robot) for robot in dict.fromkeys(
            (*options.robots, *options.standby))], 'host': options.console_host,
        'port': options.console_port, 'token_file': token,
        'bags': str(Path(options.bags).expanduser().absolute()), 'task': options.task,
        'instruction': options.instruction, 'teleop': options.teleop}, (), environment,
        respawn=True)


def _shared(profile: RobotProfile) -> tuple[tuple[str, str], ...]:
    """Return the remappings to cameras that somebody else publishes."""
    return tuple((f'{camera.role}/{topic}', f'{camera.shared}/{topic}')
                 for camera in profile.cameras if camera.shared
                 for topic in ('image_raw/compressed', 'camera_info'))


def _check_shared(profiles: Sequence[RobotProfile]) -> None:
    """Refuse a shared camera of a robot of this stack that has none of that role."""
    own = {profile.name: [camera.role for camera in profile.cameras if not camera.shared]
           for profile in profiles}
    for profile in profiles:
        for camera in profile.cameras:
            robot, _, role = camera.shared.lstrip('/').rpartition('/')
            if robot in own and role not in own[robot]:
                raise UsageError(f'camera {camera.role} of {profile.name} is shared from '
                                 f'{camera.shared}, but the cameras of {robot} are: '
                                 f'{", ".join(own[robot]) or "none"}')


def _realtime(options: StackOptions) -> dict[str, Parameter]:
    """Each node knows the priority that it needs; 0 is none."""
    return {} if options.realtime else {'realtime_priority': 0}


def _world(options: StackOptions, profile: RobotProfile, robot: Mapping[str, Parameter],
           environment: Mapping[str, str]) -> NodeSpec:
    """Return the simulated world; its death is the end, since the arm's state goes with it."""
    return NodeSpec('mivla_drivers', 'world', 'world', f'/{profile.name}', StopOrder.WORLD,
                    {**robot, 'task': options.task, 'seed': options.seed, 'level': options.level,
                     'disturbance_sigma': options.disturbance, 'disturbance_seed': options.seed,
                     'interface': LOOPBACK_CAN, 'channel': profile.name,
                     'realtime': options.realtime}, (), environment, essential=True)


def _cameras(options: StackOptions, profile: RobotProfile, robot: Mapping[str, Parameter],
             environment: Mapping[str, str]) -> NodeSpec:
    rendering = {'MUJOCO_GL': 'egl'} if options.sim else {}
    return NodeSpec('mivla_drivers', 'cameras', 'cameras', f'/{profile.name}', StopOrder.CAMERAS,
                    {**robot, 'source': 'sim' if options.sim else '',
                     'width': options.camera_width, 'height': options.camera_height,
                     'fps': options.camera_fps}, (), {**environment, **rendering}, respawn=True)


def _driver(options: StackOptions, profile: RobotProfile, robot: Mapping[str, Parameter],
            environment: Mapping[str, str]) -> NodeSpec:
    """
    Return the driver: a respawned one comes back holding, never enabled.

    Simulated, its bus is the loopback one that the emulated device sits on; driver and world
    start at the same instant, so the driver is given time to find its arm.
    """
    # Published by a thread of the middleware: a reader that hangs must not hold up the control
    # loop (with a frozen recorder it came 15 ms late when it published by itself).
    own = {**environment, 'RMW_FASTRTPS_PUBLICATION_MODE': 'ASYNCHRONOUS'}
    bus: dict[str, Parameter] = {**_bus(options), 'connect_timeout': 2.0}
    if options.sim:
        bus = {**_emulated_bus(profile, environment), 'connect_timeout': 20.0}
    return NodeSpec('mivla_drivers', 'driver', 'driver', f'/{profile.name}', StopOrder.DRIVER,
                    {**robot, **bus, 'realtime': options.realtime}, (), own,
                    respawn=True, essential=True, stop_timeout=8.0)


def _emulated_bus(profile: RobotProfile,
                  environment: Mapping[str, str]) -> dict[str, Parameter]:
    """Return where the driver finds its simulated robot: on CAN, or LocoMan's two wires."""
    if profile.driver.backend != 'locoman':
        return {'interface': LOOPBACK_CAN, 'channel': profile.name}
    domain = environment.get('ROS_DOMAIN_ID') or os.environ.get('ROS_DOMAIN_ID') or '0'
    wires = locoman_wires(int(domain), profile.name)
    return {'interface': LOCOMAN_INTERFACE, 'channel': wires.channel}


def _bus(options: StackOptions) -> dict[str, Parameter]:
    """Return the driver's bus as it was typed; what is empty is as the profile says."""
    interface, port = options.interface, options.port
    if not interface or interface in VALID_INTERFACES:
        return {'interface': interface, 'channel': port}
    if port:
        raise UsageError(f'interface:={interface} is a network interface and port:={port} a '
                         'device: give one, or the name of a python-can interface with port:=')
    return {'interface': 'socketcan', 'channel': interface}


def _environment(options: StackOptions) -> dict[str, str]:
    """Variables of every node."""
    found = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
             # One thread each: two numerical libraries that spin up a pool beside a 200 Hz loop
             # thrash on a small machine.
             'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1',
             **_fastdds('fastdds_nodes.xml')}
    if options.domain:
        if not options.domain.isdecimal() or int(options.domain) > 101:
            raise UsageError(f'domain:={options.domain} is not valid; use 0 to 101')
        found['ROS_DOMAIN_ID'] = str(int(options.domain))
    if options.peers:
        found['ROS_STATIC_PEERS'] = ';'.join(options.peers)
    return found


def _fastdds(name: str) -> dict[str, str]:
    """Return the variables that name a Fast DDS profile."""
    path = str(config_dir() / name)
    # Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted) the second.
    return {'FASTRTPS_DEFAULT_PROFILES_FILE': path, 'FASTDDS_DEFAULT_PROFILES_FILE': path}


def _check(options: StackOptions) -> None:
    for argument in ARGUMENTS:
        if argument.choices and argument.kind == 'text':
            argument.parse(getattr(options, argument.name))
    if (options.interface or options.port) and options.sim:
        raise UsageError('interface:= and port:= are for hardware; a simulated robot has a bus of '
                         'its own')
    if (options.interface or options.port) and len(options.robots) > 1:
        raise UsageError('interface:= and port:= are for one robot; of several, each profile '
                         'names its bus')
    if options.role == 'policy' and not options.policy:
        raise UsageError('role:=policy needs policy:=, a checkpoint folder or plug-in')
    if options.policy and options.role != 'policy' and not options.cameras:
        raise UsageError('policy:= needs the pictures of the robot; leave cameras:=true')


def load_robot(text: str) -> RobotProfile:
    """Load a profile by name or path; an unknown name raises UsageError with the valid ones."""
    if os.sep not in text and not text.endswith(('.yaml', '.yml')):
        known = available_profiles()
        if text not in known:
            raise UsageError(f'unknown robot {text!r}; valid: {", ".join(sorted(known))}, or the '
                             'path of a profile')
    return load_profile(text)


def _reference(text: str) -> str:
    """Return what a node needs to load the same profile from any working directory."""
    if os.sep in text or text.endswith(('.yaml', '.yml')):
        return str(Path(text).absolute())
    return text


def _policy(text: str) -> str:
    """Return the absolute folder of a checkpoint; a plug-in's name stays as it is."""
    path = Path(text).expanduser()
    if path.is_dir():
        return str(path.absolute())
    if path.exists() or os.sep in text or text.startswith(('.', '~')):
        raise UsageError(f'policy:={text}: no such checkpoint folder; give the folder that holds '
                         'config.json and model.safetensors')
    return text
