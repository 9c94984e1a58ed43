"""
A folder of pictures with the joints' positions beside them: what a calibration is made from.

``mivla calibrate`` keeps what it took from a running robot in such a folder, so that it can be
computed again: pictures as they came, and ``poses.yaml`` (picture: {joint: position}).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import yaml

from mivla_core.calibration import CalibrationError
from mivla_core.kinematics import Chain, rotation
from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm

__all__ = ['Shot', 'keep_shot', 'read_shots', 'tip_pose']

POSES = 'poses.yaml'
MAX_PICTURES = 500
MAX_BYTES = 50 << 20


@dataclass(frozen=True)
class Shot:
    """
    One picture.

    :param picture: (H, W) uint8. :param joints: positions [rad, m] by name; None: not known.
    """

    name: str
    picture: np.ndarray
    joints: Optional[Mapping[str, float]] = None


def read_shots(folder: Path) -> list[Shot]:
    """
    Read the pictures (.jpg, .png) of a folder, in the order of their names.

    :raises CalibrationError: no folder, no picture, too many, or one that is none.
    """
    paths = sorted(path for path in folder.glob('*')
                   if path.suffix.lower() in ('.jpg', '.jpeg', '.png'))
    if not paths:
        raise CalibrationError(f'{folder}: no pictures (.jpg, .png) in it')
    if len(paths) > MAX_PICTURES:
        raise CalibrationError(f'{folder}: {len(paths)} pictures; at most {MAX_PICTURES}')
    poses = _poses(folder)
    shots = []
    for path in paths:
        if path.stat().st_size > MAX_BYTES:
            raise CalibrationError(f'{path}: larger than {MAX_BYTES} bytes')
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise CalibrationError(f'{path}: not a picture')
        shots.append(Shot(path.name, np.asarray(picture), poses.get(path.name)))
    return shots


def _poses(folder: Path) -> dict[str, dict[str, float]]:
    path = folder / POSES
    if not path.is_file():
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
        return {str(name): {str(joint): float(value) for joint, value in joints.items()}
                for name, joints in data.items()}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError,
            ValueError) as err:
        raise CalibrationError(f'{path}: expected picture: {{joint: position}}: '
                               f'{" ".join(str(err).split())}') from err


def keep_shot(folder: Path, data: bytes, joints: Optional[Mapping[str, float]]) -> str:
    """Add a JPEG and its pose to a folder; returns the picture's name."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f'{len(list(folder.glob("*.jpg"))):03}.jpg'
    (folder / name).write_bytes(data)
    if joints is not None:
        with open(folder / POSES, 'a', encoding='utf-8') as file:
            file.write(yaml.safe_dump({name: dict(joints)}, sort_keys=False))
    return name


def tip_pose(profile: RobotProfile, arm: Arm, joints: Mapping[str, float]) -> np.ndarray:
    """
    Return the tip's pose (4, 4) of an arm in the robot's base frame.

    :raises CalibrationError: a joint of the arm is not among those given.
    """
    missing = [name for name in arm.joints if name not in joints]
    if missing:
        raise CalibrationError(f'no position of {", ".join(missing)}; robot {profile.name} has '
                               f'the joints {", ".join(profile.joint_names)}')
    base = np.eye(4)
    base[:3, :3] = rotation(*arm.rpy)
    base[:3, 3] = arm.origin
    return base @ Chain(arm.kinematics).tip(np.array([joints[name] for name in arm.joints]))
