"""The cameras that a robot's profile names: there, readable, calibrated?"""

from __future__ import annotations

import os
from pathlib import Path

from mivla_bringup.doctor.finding import Finding, Level
from mivla_core.robot_parts import Camera
from mivla_drivers.cameras.source import CameraError
from mivla_drivers.cameras.v4l2 import FOLDER, resolve_device

__all__ = ['check_camera']


def check_camera(camera: Camera, folder: Path = FOLDER) -> Finding:
    """
    Judge one camera without opening it, so that a running stack keeps it.

    :param folder: where the links that name video devices for good are.
    """
    who = f'camera {camera.role}'
    if camera.shared:
        return Finding(who, Level.OK, f'published by somebody else as {camera.shared}')
    if camera.source == 'v4l2':
        return _video_device(who, camera, folder)
    if camera.source == 'replay':
        path = Path(camera.device).expanduser()
        if not path.exists():
            return Finding(who, Level.FAIL, f'{path} is absent', 'correct device in the profile')
        return Finding(who, Level.OK, f'replay of {path}')
    return Finding(who, Level.OK, f'source {camera.source}: no device to look at')


def _video_device(who: str, camera: Camera, folder: Path) -> Finding:
    try:
        path = resolve_device(camera, folder)
    except CameraError as err:
        text = str(err).removeprefix(f'{who}: ')
        return Finding(who, Level.FAIL, text, 'write the by-id path of this camera into the '
                       'profile (cameras: device), or start with cameras:=false')
    device = path.resolve()
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding(who, Level.FAIL, f'{path} may not be opened by this user',
                       'sudo usermod -aG video $USER, log in again; a container needs --device '
                       f'{device}')
    return Finding(who, Level.OK, f'{path} ({device}), {camera.width}x{camera.height} asked for')
