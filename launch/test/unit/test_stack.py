"""The stack description: arguments, nodes, errors."""

import itertools
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from mivla_bringup.arguments import ARGUMENTS, listed, parse, split_assignments
from mivla_bringup.errors import UsageError
from mivla_bringup.process import child_of, command, parameter_text
from mivla_bringup.stack import (
    LOOPBACK_CAN,
    MODULES,
    NodeSpec,
    Stack,
    StackOptions,
    StopOrder,
    build,
)
from mivla_core.errors import ProfileError
from mivla_core.profile import available_profiles, config_dir, load_profile

ROBOTS = sorted(available_profiles())
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
SPACE = '{http://www.eprosima.com}'


def stack_of(**texts: str) -> Stack:
    return build(StackOptions.parse(texts))


def by_name(stack: Stack) -> dict[str, NodeSpec]:
    return {node.full_name: node for node in stack.nodes}


@pytest.mark.parametrize(('texts', 'nodes'), [
    ({'teleop': 'leader'}, {'leader_world', 'leader_reader', 'leader'}),
    ({'teleop': 'leader', 'hand': 'expert'}, {'leader_world', 'leader_reader', 'expert',
                                              'leader'}),
    ({'teleop': 'vision_pro', 'headset': 'replay'}, {'headset_replay', 'headset', 'vision_pro'}),
    ({'teleop': 'vision_pro', 'headset': '10.0.0.7'}, {'headset', 'vision_pro'}),
    ({'teleop': 'vision_pro', 'headset': 'replay', 'hand': 'expert'},
     {'headset_replay', 'headset', 'expert', 'vision_pro'}),
])
def test_ways_to_teleoperate_are_several_nodes(texts: dict[str, str], nodes: set[str]) -> None:
    found = by_name(stack_of(sim='true', cameras='false', **texts))
    assert {name.removeprefix('/piper/') for name in found} == {'world', 'driver', *nodes}
    if 'expert' in nodes:    # the demonstrator moves the leader, not the robot
        assert found['/piper/expert'].remappings == (('command/teleop', 'hand/target'),)
    if 'leader_reader' in nodes:
        channels = {found[f'/piper/{name}'].parameters['channel']
                    for name in ('leader_reader', 'leader_world')}
        assert channels == {'piper_leader'}
    if 'headset' in nodes:
        assert found['/piper/headset'].parameters['address'] in ('127.0.0.1', '10.0.0.7')


def test_a_leader_on_hardware_has_a_bus_of_its_own() -> None:
    for text, expected in (('can1', ('socketcan', 'can1')),
                           ('slcan:/dev/ttyACM0', ('slcan', '/dev/ttyACM0'))):
        found = by_name(stack_of(teleop='leader', leader_bus=text))
        reader = found['/piper/leader_reader']
        assert (reader.parameters['interface'], reader.parameters['channel']) == expected
        assert '/piper/leader_world' not in found


@pytest.mark.parametrize(('texts', 'says'), [
    ({'teleop': 'leader'}, 'leader_bus'),
    ({'teleop': 'leader', 'sim': 'true', 'leader_bus': 'can1'}, 'bus of its own'),
    ({'teleop': 'leader', 'sim': 'true', 'robot': 'arx5_x5', 'leader': 'piper',
      'hand': 'expert'}, 'same kind'),
    ({'teleop': 'vision_pro'}, 'headset'),
    ({'teleop': 'vision_pro', 'headset': '10.0.0.7', 'hand': 'expert'}, 'replay'),
    ({'teleop': 'leader', 'robot': 'locoman', 'sim': 'true'}, 'not a way to teleoperate'),
])
def test_a_way_to_teleoperate_that_lacks_something_says_so(texts: dict[str, str],
                                                           says: str) -> None:
    with pytest.raises(UsageError, match=says):
        stack_of(**texts)


def test_options_and_table_have_the_same_names_and_defaults() -> None:
    names = {'robots' if argument.name == 'robot' else argument.name for argument in ARGUMENTS}
    assert names == {spec.name for spec in fields(StackOptions)} - {'extra'}
    assert StackOptions.parse({}) == StackOptions()


def test_every_argument_is_described_and_its_default_is_valid() -> None:
    for argument in ARGUMENTS:
        assert len(argument.description) > 15, argument.name
        argument.parse(argument.default)


@pytest.mark.parametrize('robot', ROBOTS)
@pytest.mark.parametrize(('sim', 'policy', 'teleop', 'record', 'role'), [
    case for case in itertools.product(
        ('true', 'false'), ('', 'plugin'), ('none', 'expert'), ('true', 'false'),
        ('all', 'robot', 'policy'))
    if case[1] or case[4] != 'policy'])
def test_every_robot_gives_a_valid_stack(robot: str, sim: str, policy: str, teleop: str,
                                         record: str, role: str) -> None:
    if teleop not in ('none', *load_profile(robot).teleop.methods):
        pytest.skip('this robot has no such teleop')
    stack = stack_of(robot=robot, sim=sim, policy=policy, teleop=teleop, record=record, role=role)
    nodes = by_name(stack)
    assert len(nodes) == len(stack.nodes), 'full names are unique'
    on_robot = role != 'policy'
    expected = {f'/{robot}/driver': on_robot, f'/{robot}/cameras': on_robot,
                f'/{robot}/world': on_robot and sim == 'true',
                f'/{robot}/policy_runner': on_robot and bool(policy),
                f'/{robot}/expert': on_robot and teleop == 'expert',
                f'/{robot}/recorder': on_robot and record == 'true',
                '/policy_server': role != 'robot' and bool(policy)}
    assert set(nodes) == {name for name, wanted in expected.items() if wanted}
    for node in stack.nodes:
        assert (node.package, node.executable) in MODULES
        assert node.environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
        assert node.environment['OMP_NUM_THREADS'] == '1'
        assert set(node.environment) >= set(stack.environment)


def test_large_segments_only_where_pictures_are_published() -> None:
    nodes = by_name(stack_of(sim='true', policy='plugin', teleop='expert', record='true'))
    large = str(config_dir() / 'fastdds.xml')
    for name, node in nodes.items():
        used, = {node.environment[key] for key in PROFILE_VARIABLES}
        assert (used == large) is (name in ('/piper/cameras', '/piper/policy_runner')), name


@pytest.mark.parametrize('name', ['fastdds.xml', 'fastdds_nodes.xml'])
def test_fast_dds_profiles_have_one_default_participant_that_repeats_itself(name: str) -> None:
    root = ElementTree.parse(config_dir() / name).getroot()
    participant, = root.iter(f'{SPACE}participant')
    assert participant.get('is_default_profile') == 'true'
    period = participant.find(f'.//{SPACE}leaseAnnouncement')
    assert period is not None
    assert [element.text for element in period] == ['0', '500000000']


def test_the_image_profile_has_a_large_segment_and_keeps_udp() -> None:
    root = ElementTree.parse(config_dir() / 'fastdds.xml').getroot()
    sizes = {d.findtext(f'{SPACE}transport_id'): d.findtext(f'{SPACE}segment_size')
             for d in root.iter(f'{SPACE}transport_descriptor')}
    assert sizes == {'mivla_shm': str(16 << 20), 'mivla_udp': None}
    used = root.findall(f'.//{SPACE}userTransports/{SPACE}transport_id')
    assert {element.text for element in used} == set(sizes)
    assert root.findtext(f'.//{SPACE}useBuiltinTransports') == 'false'


def test_sim_puts_driver_and_world_on_the_same_loopback_bus() -> None:
    nodes = by_name(stack_of(sim='true'))
    bus = {'interface': LOOPBACK_CAN, 'channel': 'piper'}
    assert nodes['/piper/driver'].parameters.items() >= bus.items()
    assert nodes['/piper/world'].parameters.items() >= bus.items()
    assert nodes['/piper/cameras'].parameters['source'] == 'sim'


def test_without_sim_the_profile_names_bus_and_cameras() -> None:
    nodes = by_name(stack_of())
    assert nodes['/piper/driver'].parameters['interface'] == ''
    assert nodes['/piper/cameras'].parameters['source'] == ''


def test_stop_order_is_sources_server_recorder_cameras_driver_world() -> None:
    stack = stack_of(sim='true', policy='plugin', teleop='expert', record='true')
    order = sorted(stack.nodes, key=lambda node: node.stop_order)
    names = [node.name for node in order]
    assert set(names[:2]) == {'expert', 'policy_runner'}
    assert names[2:] == ['policy_server', 'recorder', 'cameras', 'driver', 'world']
    assert order[-2].stop_order == StopOrder.DRIVER


def test_driver_and_world_are_essential_and_the_world_is_not_respawned() -> None:
    nodes = by_name(stack_of(sim='true', policy='plugin', teleop='expert', record='true'))
    assert {name for name, node in nodes.items() if node.essential} == {
        '/piper/driver', '/piper/world'}
    assert {name for name, node in nodes.items() if not node.respawn} == {'/piper/world'}


def test_several_robots_share_nothing_but_the_policy_server(tmp_path: Path) -> None:
    text = load_profile('piper').text.replace('name: piper', 'name: second', 1)
    second = tmp_path / 'second.yaml'
    second.write_text(text)
    stack = stack_of(robot=f'piper,{second}', sim='true', policy='plugin')
    assert stack.robots == ('piper', 'second')
    nodes = by_name(stack)
    assert nodes['/second/driver'].parameters['channel'] == 'second'
    assert nodes['/second/driver'].parameters['robot'] == str(second)
    assert [name for name in nodes if name.endswith('server')] == ['/policy_server']


def test_paths_are_absolute_because_nodes_may_run_elsewhere(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'checkpoint').mkdir()
    (tmp_path / 'mine.yaml').write_text(load_profile('piper').text)
    monkeypatch.chdir(tmp_path)
    nodes = by_name(stack_of(robot='mine.yaml', policy='checkpoint', record='true', bags='b'))
    assert nodes['/piper/driver'].parameters['robot'] == str(tmp_path / 'mine.yaml')
    assert nodes['/policy_server'].parameters['policy'] == str(tmp_path / 'checkpoint')
    assert nodes['/piper/recorder'].parameters['root'] == str(tmp_path / 'b')


def test_domain_and_peers_reach_every_node() -> None:
    for node in stack_of(sim='true', domain='7', peers='gpu-host, 10.0.0.2').nodes:
        assert node.environment['ROS_DOMAIN_ID'] == '7'
        assert node.environment['ROS_STATIC_PEERS'] == 'gpu-host;10.0.0.2'


@pytest.mark.parametrize(('texts', 'message'), [
    ({'robot': 'pipper'}, r"unknown robot 'pipper'; valid: .*piper"),
    ({'robot': ''}, 'robot:= is empty; valid: .*piper'),
    ({'robot': 'piper,piper'}, 'names a robot twice'),
    ({'sm': 'true'}, r"unknown argument 'sm' \(did you mean sim\?\); valid: robot, sim"),
    ({'sim': 'yes'}, 'sim:=yes is not valid; use one of: true, false'),
    ({'teleop': 'pedal'}, 'use one of: none, expert'),
    ({'level': 'medium'}, 'use one of: easy, hard'),
    ({'seed': 'x'}, 'seed:=x is not a number'),
    ({'seed': '-1'}, 'outside 0 to'),
    ({'camera_fps': 'nan'}, 'outside'),
    ({'policy': './none'}, 'no such checkpoint folder'),
    ({'role': 'policy'}, 'role:=policy needs policy:='),
    ({'policy': 'plugin', 'cameras': 'false'}, 'needs the pictures'),
    ({'domain': '102'}, 'use 0 to 101'),
    ({'domain': 'x'}, 'use 0 to 101'),
])
def test_bad_arguments_are_refused_with_what_would_be_valid(texts: dict[str, str],
                                                            message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        stack_of(**texts)
    assert '\n' not in str(caught.value)


def test_options_made_in_code_are_checked_as_well() -> None:
    with pytest.raises(UsageError, match='use one of: all, robot, policy'):
        build(StackOptions(role='both'))


def test_extra_parameters_reach_their_node_and_no_other() -> None:
    extra = {'world': {'frame_log': '/tmp/log.npy', 'seed': 9}}
    nodes = by_name(build(StackOptions(sim=True, extra=extra)))
    assert nodes['/piper/world'].parameters['frame_log'] == '/tmp/log.npy'
    assert nodes['/piper/world'].parameters['seed'] == 9
    assert 'frame_log' not in nodes['/piper/driver'].parameters
    with pytest.raises(UsageError, match="'worlds', which is not in this stack; it has world"):
        build(StackOptions(sim=True, extra={'worlds': {}}))


def test_a_teleop_that_the_robot_lacks_is_refused(tmp_path: Path) -> None:
    profile = yaml.safe_load(load_profile('piper').text)
    profile['teleop'] = {'methods': []}
    path = tmp_path / 'bare.yaml'
    path.write_text(yaml.safe_dump(profile))
    with pytest.raises(UsageError, match='not a way to teleoperate piper; its profile has: none'):
        stack_of(robot=str(path), teleop='expert')


def test_a_broken_profile_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / 'odd.yaml'
    path.write_text(load_profile('piper').text + 'colour: red\n')
    with pytest.raises(ProfileError, match=r'odd\.yaml.*unknown key colour'):
        stack_of(robot=str(path))


def test_assignments() -> None:
    assert split_assignments(['robot:=piper', 'instruction:=a:=b', 'policy:=']) == {
        'robot': 'piper', 'instruction': 'a:=b', 'policy': ''}
    with pytest.raises(UsageError, match='not of the form name:=value'):
        split_assignments(['robot=piper'])
    with pytest.raises(UsageError, match='given twice'):
        split_assignments(['sim:=true', 'sim:=false'])


def test_a_list_with_commas() -> None:
    assert listed(' piper, arx5_x5,,') == ('piper', 'arx5_x5')
    assert listed(' ') == ()


def test_bools_are_read_as_launch_users_write_them() -> None:
    assert parse({'sim': 'True'})['sim'] is True


@pytest.mark.parametrize('value', [
    True, False, 7, -7, 0.0, 30.0, 1e-9, 1e22, 'text', '', 'true', '7', '3.5', 'null', '~', "it's",
    'a "b" c', 'back\\slash', 'key: value', '# no comment', '[1, 2]', 'ä ö', 'tab\tnewline\n',
    ['head=/dev/video0', ''], ['1']])
def test_parameters_keep_value_and_type_through_yaml(value: object) -> None:
    back = yaml.safe_load(parameter_text(value))  # type: ignore[arg-type]
    if isinstance(value, float):
        assert float(back) == value    # PyYAML reads 1e+22 as text, rcl as a number
    else:
        assert back == value and type(back) is type(value)


def test_the_command_line_carries_name_namespace_and_parameters() -> None:
    spec = NodeSpec('mivla_drivers', 'driver', 'driver', '/piper', StopOrder.DRIVER,
                    {'robot': 'piper', 'realtime': True}, (('/tf', 'tf'),))
    words = command(spec)
    assert words[1:4] == ['-m', 'mivla_drivers.ros.driver_node', '--ros-args']
    assert words[4:] == ['-r', '__node:=driver', '-r', '__ns:=/piper', '-r', '/tf:=tf',
                         '-p', 'robot:="piper"', '-p', 'realtime:=true']


def test_a_child_inherits_the_environment_and_its_own_wins() -> None:
    spec = by_name(stack_of(sim='true', domain='7'))['/piper/driver']
    child = child_of(spec, {'LD_LIBRARY_PATH': '/x', 'ROS_DOMAIN_ID': '1'})
    assert child.name == 'piper/driver'
    assert child.environment['LD_LIBRARY_PATH'] == '/x'
    assert child.environment['ROS_DOMAIN_ID'] == '7'
    assert child.environment['PYTHONUNBUFFERED'] == '1'


@pytest.mark.parametrize(('typed', 'bus'), [
    ({}, ('', '')),
    ({'interface': 'can1'}, ('socketcan', 'can1')),
    ({'interface': 'can_left,can_right'}, ('socketcan', 'can_left,can_right')),
    ({'interface': 'socketcan', 'port': 'can1'}, ('socketcan', 'can1')),
    ({'interface': 'slcan', 'port': '/dev/ttyACM0'}, ('slcan', '/dev/ttyACM0')),
    ({'port': '/dev/ttyUSB0'}, ('', '/dev/ttyUSB0')),
])
def test_hardware_is_one_argument_away(typed: dict[str, str], bus: tuple[str, str]) -> None:
    driver = by_name(stack_of(**typed))['/piper/driver']
    assert (driver.parameters['interface'], driver.parameters['channel']) == bus


@pytest.mark.parametrize('typed', [
    {'interface': 'can0', 'sim': 'true'}, {'port': '/dev/ttyUSB0', 'sim': 'true'},
    {'interface': 'can0', 'port': '/dev/ttyUSB0'}])
def test_a_bus_that_contradicts_the_rest_is_refused(typed: dict[str, str]) -> None:
    with pytest.raises(UsageError, match='interface:='):
        stack_of(**typed)


def shared_camera(tmp_path, name: str) -> str:
    """Return a PiPER of another name that looks through a camera of somebody else."""
    text = load_profile('piper').text.replace('name: piper\n', 'name: second\n', 1)
    head = text.index('- role: head')
    wrist = text.index('- role: wrist')
    path = tmp_path / 'second.yaml'
    path.write_text(text[:head] + '- {role: head, width: 640, height: 480, fps: 30, '
                    f'shared: {name}}}\n' + text[wrist:])
    return str(path)


def test_a_shared_camera_is_read_where_it_is_and_opened_by_nobody_else(tmp_path) -> None:
    second = shared_camera(tmp_path, '/piper/head')
    stack = build(StackOptions(robots=('piper', second), sim=True, policy='hold', record=True))
    wanted = (('head/image_raw/compressed', '/piper/head/image_raw/compressed'),
              ('head/camera_info', '/piper/head/camera_info'))
    for name in ('policy_runner', 'recorder'):
        assert stack.node(f'/second/{name}').remappings == wanted
        assert stack.node(f'/piper/{name}').remappings == ()
    assert stack.node('/second/cameras').remappings == ()   # it has a wrist camera of its own


def test_a_shared_camera_that_nobody_has_is_refused(tmp_path) -> None:
    second = shared_camera(tmp_path, '/piper/ceiling')
    with pytest.raises(UsageError, match='ceiling, but the cameras of piper are: head, wrist'):
        build(StackOptions(robots=('piper', second), sim=True))
    # Somebody else's, in the cell: not for this stack to judge.
    assert build(StackOptions(robots=(shared_camera(tmp_path, '/cell/head'),), sim=True))


def test_a_camera_is_either_its_own_or_shared(tmp_path) -> None:
    path = Path(shared_camera(tmp_path, '/piper/head'))
    path.write_text(path.read_text().replace('shared: /piper/head', 'fps: 30', 1).replace(
        'fps: 30, fps: 30', 'fps: 30'))
    with pytest.raises(ProfileError, match='either source'):
        load_profile(path)


def test_the_web_console_serves_every_robot_and_is_asked_for() -> None:
    assert '/console' not in by_name(stack_of())
    console = by_name(stack_of(console='true', console_port='0', teleop='jog',
                               bags='/tmp/bags'))['/console']
    assert console.parameters['robots'] == ['piper']
    assert console.parameters['host'] == '127.0.0.1' and console.parameters['token_file'] == ''
    assert console.parameters['bags'] == '/tmp/bags' and console.parameters['teleop'] == 'jog'
    assert console.respawn and not console.essential


def test_every_robot_can_be_jogged() -> None:
    for robot in available_profiles():
        jog = by_name(stack_of(robot=robot, teleop='jog'))[f'/{robot}/jog']
        assert jog.module == 'mivla_teleop.ros.jog_node'
