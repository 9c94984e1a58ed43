"""From shots and readings to calibrations, and to the words that an operator reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mivla_bringup.calibrate.shots import Shot, tip_pose
from mivla_core.calibration import CalibrationError, CameraCalibration, Mount
from mivla_core.profile import RobotProfile
from mivla_core.robot_parts import Arm
from mivla_drivers.calibration.board import Board, detect
from mivla_drivers.calibration.camera import Intrinsics, board_pose, calibrate_camera
from mivla_drivers.calibration.hand_eye import HandEye, Setup, quaternion_of, solve_hand_eye
from mivla_drivers.core.inspection import inspection_of
from mivla_drivers.core.port import backend_class

__all__ = ['camera_words', 'find_intrinsics', 'find_mount', 'mount_words', 'pick_arm',
           'refuse_other_kinds']


def find_intrinsics(shots: Sequence[Shot], board: Board, role: str, made: str) -> Intrinsics:
    """Fit a camera to pictures; raises CalibrationError."""
    return calibrate_camera([detect(shot.picture, board) for shot in shots], board, role, made)


def camera_words(found: Intrinsics, shots: Sequence[Shot]) -> list[str]:
    """Tell what was found, how well, and what was left out."""
    camera, spread = found.calibration, found.spread
    words = [f'{camera.pictures} of {len(shots)} pictures, corners in {found.coverage:.0%} of the '
             f'picture, error {camera.error:.3f} px (rms)',
             f'fx {camera.fx:.2f} ± {spread[0]:.2f}, fy {camera.fy:.2f} ± {spread[1]:.2f}, cx '
             f'{camera.cx:.2f} ± {spread[2]:.2f}, cy {camera.cy:.2f} ± {spread[3]:.2f} px',
             'distortion ' + ' '.join(f'{value:.4f}' for value in camera.distortion)]
    return words + [f'left out {shots[i].name}: {reason}'
                    for i, reason in sorted(found.left_out.items())]


def find_mount(profile: RobotProfile, arm: Arm, shots: Sequence[Shot], board: Board,
               camera: CameraCalibration, setup: Setup,
               made: str) -> tuple[Mount, HandEye, list[str]]:
    """
    Find where a camera sits, from shots with poses.

    :returns: the mount, all that was found, and the names of the shots used.
    :raises CalibrationError: too few, too much alike, contradicting, or without poses.
    """
    tips, boards, used = [], [], []
    for shot in shots:
        detection = detect(shot.picture, board)
        if shot.joints is None:
            raise CalibrationError(f'{shot.name} has no pose in poses.yaml')
        try:
            pose = board_pose(detection, board, camera)
        except CalibrationError:
            continue    # the board is not in this one; too few are refused below
        tips.append(tip_pose(profile, arm, shot.joints))
        boards.append(pose)
        used.append(shot.name)
    found = solve_hand_eye(tips, boards, setup)
    place = found.camera
    mount = Mount(
        parent='tip' if setup == 'eye_in_hand' else 'base', arm=arm.name,
        position=(float(place[0, 3]), float(place[1, 3]), float(place[2, 3])),
        quaternion=quaternion_of(place[:3, :3]), translation_error=found.translation_error,
        rotation_error=found.rotation_error, poses=len(used), made=made)
    return mount, found, used


def mount_words(mount: Mount, found: HandEye, used: Sequence[str]) -> list[str]:
    """Tell where the camera is and how far each pose misses."""
    x, y, z = mount.position
    words = [f'{mount.poses} poses; camera in the {mount.parent}\'s frame at {x:.4f} {y:.4f} '
             f'{z:.4f} m, quaternion ' + ' '.join(f'{value:.4f}' for value in mount.quaternion),
             f'misses {mount.translation_error * 1e3:.1f} mm, '
             f'{np.degrees(mount.rotation_error):.2f} degrees (rms)']
    return words + [f'{name}: {shift * 1e3:.1f} mm, {np.degrees(turn):.2f} degrees'
                    for name, shift, turn in zip(used, found.shifts, found.turns)]


def pick_arm(profile: RobotProfile, name: str) -> Arm:
    """Return the arm of a name, or the only one; raises CalibrationError."""
    if not name and len(profile.arms) == 1:
        return profile.arms[0]
    names = [arm.name for arm in profile.arms]
    if name not in names:
        raise CalibrationError(f'--arm {name or "is missing"}: {profile.name} has the arms '
                               f'{", ".join(names)}')
    return profile.arm(name)


def refuse_other_kinds(profile: RobotProfile, what: str) -> None:
    """See that a robot's backend takes what ``mivla calibrate WHAT`` finds."""
    backend = backend_class(profile.driver.backend)
    if what not in inspection_of(backend).calibrates:
        raise CalibrationError(f'the backend {profile.driver.backend} of {profile.name} has '
                               f'nothing that "mivla calibrate {what}" finds; its page in '
                               'docs/how-to says what its maker\'s tool is for')
