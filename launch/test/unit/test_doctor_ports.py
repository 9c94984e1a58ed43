"""What the doctor says of serial ports, robots' networks and cameras, on made-up systems."""

import os
from pathlib import Path
from typing import Optional

import pytest

from mivla_bringup.doctor import Level
from mivla_bringup.doctor.cameras import check_camera
from mivla_bringup.doctor.network import check_address, source_address
from mivla_bringup.doctor.serial_port import check_serial
from mivla_core.robot_parts import Camera
from mivla_drivers.devices.serial_pty import SerialPty


def adapter(root: Path, latency: Optional[int]) -> Path:
    """A /dev and a /sys with one FTDI adapter; returns its by-id name."""
    by_id = root / 'dev/serial/by-id'
    by_id.mkdir(parents=True)
    (root / 'dev/ttyUSB0').touch()
    name = by_id / 'usb-FTDI_USB__-__Serial_Converter_FT1-if00-port0'
    name.symlink_to(root / 'dev/ttyUSB0')
    timer = root / 'sys/bus/usb-serial/devices/ttyUSB0'
    timer.mkdir(parents=True)
    if latency is not None:
        (timer / 'latency_timer').write_text(f'{latency}\n')
    return name


def test_a_serial_port_that_is_well(tmp_path: Path) -> None:
    name = adapter(tmp_path, 1)
    found, = check_serial(str(name), tmp_path / 'dev', tmp_path / 'sys')
    assert found.level is Level.OK


def test_a_slow_latency_timer_fails_and_its_file_is_named(tmp_path: Path) -> None:
    name = adapter(tmp_path, 16)
    found, = check_serial(str(name), tmp_path / 'dev', tmp_path / 'sys')
    assert found.level is Level.FAIL and '16 ms' in found.text
    assert str(tmp_path / 'sys/bus/usb-serial/devices/ttyUSB0/latency_timer') in found.hint


def test_a_port_named_in_the_order_of_plugging_and_one_without_a_timer(tmp_path: Path) -> None:
    adapter(tmp_path, None)
    found = check_serial(str(tmp_path / 'dev/ttyUSB0'), tmp_path / 'dev', tmp_path / 'sys')
    assert [finding.level for finding in found] == [Level.WARN, Level.WARN]
    assert 'order of plugging' in found[0].text and 'not an FTDI' in found[1].text


def test_an_absent_port_names_those_that_are_there(tmp_path: Path) -> None:
    adapter(tmp_path, 1)
    found, = check_serial(str(tmp_path / 'dev/ttyUSB7'), tmp_path / 'dev', tmp_path / 'sys')
    assert found.level is Level.FAIL and 'ttyUSB0' in found.text


@pytest.mark.skipif(os.geteuid() == 0, reason='root may open everything')
def test_a_port_that_may_not_be_opened(tmp_path: Path) -> None:
    name = adapter(tmp_path, 1)
    name.resolve().chmod(0)
    found, = check_serial(str(name), tmp_path / 'dev', tmp_path / 'sys')
    assert found.level is Level.FAIL and 'dialout' in found.hint


def test_the_emulated_port_is_a_port(tmp_path: Path) -> None:
    with SerialPty() as port:
        found, = check_serial(port.path)
    assert found.level is Level.OK


def refused(host: str) -> str:
    raise OSError(101, 'Network is unreachable')


@pytest.mark.parametrize(('source', 'answers', 'level', 'text'), [
    (lambda host: '192.168.123.162', True, Level.OK, 'answers; this host is 192.168.123.162'),
    (lambda host: '192.168.123.162', False, Level.FAIL, 'does not answer'),
    (lambda host: '192.168.123.162', None, Level.WARN, 'not known'),
    (lambda host: '10.0.0.7', True, Level.FAIL, 'no address in 192.168.123.0/24'),
    (lambda host: '192.168.123.10', True, Level.FAIL, "the robot's address"),
    (refused, True, Level.FAIL, 'no route: Network is unreachable'),
])
def test_the_way_to_a_robot(source, answers, level, text) -> None:
    found, = check_address('192.168.123.10:8007', source, lambda host: answers)
    assert found.level is level and text in found.text
    assert level is Level.OK or found.hint


def test_an_emulated_robot_needs_no_network() -> None:
    found, = check_address('127.0.0.1:8007', refused)
    assert found.level is Level.OK
    assert source_address('127.0.0.1') == '127.0.0.1'


def test_cameras(tmp_path: Path) -> None:
    folder = tmp_path / 'v4l'
    (folder / 'by-id').mkdir(parents=True)
    (tmp_path / 'video0').touch()
    link = folder / 'by-id/usb-Maker_Cam_123-video-index0'
    link.symlink_to(tmp_path / 'video0')

    def camera(device: str, source: str = 'v4l2') -> Camera:
        return Camera(role='head', width=640, height=480, fps=30, source=source, device=device)
    assert check_camera(camera(str(link)), folder).level is Level.OK
    assert check_camera(camera('serial:123'), folder).level is Level.OK
    absent = check_camera(camera(f'{folder}/by-id/CHANGE-ME'), folder)
    assert absent.level is Level.FAIL and 'Maker_Cam' in absent.text
    assert 'for good' in check_camera(camera('/dev/video0'), folder).text
    assert check_camera(camera('', 'sim'), folder).level is Level.OK
    assert check_camera(camera(str(tmp_path / 'no'), 'replay'), folder).level is Level.FAIL
