"""Judging, at connect time, whether the PiPER on the bus is the one the profile describes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

import numpy as np

from mivla_drivers.codec import piper as codec
from mivla_drivers.core.piper_units import JOINTS, PROFILE_ZERO
from mivla_drivers.errors import DriverError

if TYPE_CHECKING:
    from mivla_core.profile import RobotProfile

__all__ = ['LIMIT_TOLERANCE', 'OLDEST_FIRMWARE', 'check_limits', 'check_profile', 'check_stroke',
           'explain_silence']

OLDEST_FIRMWARE = (1, 5, 2)         # before it the wire protocol is another one (V1)
LIMIT_TOLERANCE = math.radians(0.11)    # limits are stored in steps of 0.1 degree
_CORRUPT = math.radians(-0.1)       # what a lost parameter block reads as, for every limit
_STROKE_TOLERANCE = 0.0005

_LEADER_IDS = frozenset({0x151, 0x155, 0x156, 0x157, 0x159})
_OFFSET_IDS = frozenset(range(0x2B1, 0x2B9)) | frozenset(range(0x2C1, 0x2C9))


def check_profile(profile: RobotProfile) -> None:
    """
    Refuse a profile that no PiPER can serve.

    :raises DriverError: number of joints, units or zero convention do not fit.
    """
    units = [joint.unit for joint in profile.joints]
    if profile.arm_joints != JOINTS or units not in (['rad'] * JOINTS, ['rad'] * JOINTS + ['m']):
        raise DriverError(f'profile {profile.name}: PiPER has six joints in rad and optionally a '
                          f'gripper in m, the profile has {units}; correct joints or the backend')
    if profile.zero != PROFILE_ZERO:
        raise DriverError(f'profile {profile.name}: zero {profile.zero!r} is not the convention '
                          f'this backend converts to; set zero: {PROFILE_ZERO}')


def check_limits(profile: RobotProfile, limits: Mapping[int, codec.LimitReply],
                 shift: np.ndarray) -> None:
    """
    Compare the limits stored in the arm with the profile's.

    :param limits: joint number to reply, all six.
    :param shift: (6,) rad from the device's angles to the profile's.
    :raises DriverError: stored limits are lost or narrower than the profile; lists each joint.
    """
    if all(abs(reply.upper - _CORRUPT) < 1e-6 and abs(reply.lower - _CORRUPT) < 1e-6
           for reply in limits.values()):
        raise DriverError('the arm has lost its stored joint limits (all read -0.1 degree): reset '
                          'them with parameter command 0x477 00 02 (vendor tool: reset joint '
                          'limits), power-cycle, and connect again')
    narrower = []
    for joint, reply in sorted(limits.items()):
        index = joint - 1
        lower, upper = reply.lower + shift[index], reply.upper + shift[index]
        wanted = profile.joints[index]
        if lower > wanted.lower + LIMIT_TOLERANCE or upper < wanted.upper - LIMIT_TOLERANCE:
            narrower.append(f'{wanted.name}: arm [{lower:.4f}, {upper:.4f}], '
                            f'profile [{wanted.lower:.4f}, {wanted.upper:.4f}] rad')
    if narrower:
        raise DriverError('the limits stored in the arm are narrower than the profile\'s, so it '
                          'would refuse targets the guard allows: ' + '; '.join(narrower)
                          + '; narrow the profile or store wider limits in the arm')


def check_stroke(profile: RobotProfile, reply: Optional[codec.TeachReply]) -> str:
    """
    Compare the gripper's configured stroke with the profile's; returns it in words.

    :raises DriverError: not configured (the gripper would read 0 and ignore commands) or shorter.
    """
    if profile.gripper_index is None:
        return 'no gripper in the profile'
    if reply is None:
        return 'not reported'
    wanted = profile.joints[profile.gripper_index].upper
    if reply.max_stroke == 0.0:
        raise DriverError('the gripper\'s stroke is not configured in the arm (0 mm): it would '
                          'read 0 and ignore commands; set it once (0x47D, 70 or 100 mm)')
    if reply.max_stroke < wanted - _STROKE_TOLERANCE:
        raise DriverError(f'the arm\'s gripper opens {reply.max_stroke * 1e3:.0f} mm, the profile '
                          f'wants {wanted * 1e3:.0f} mm; correct the gripper\'s upper limit')
    return f'{reply.max_stroke * 1e3:.0f} mm'


def explain_silence(where: str, heard: Mapping[int, int], errors: int,
                    missing: list[str]) -> DriverError:
    """
    Turn what was (not) heard on the bus into advice.

    :param heard: frame counts by id during the wait.
    :param errors: CAN error frames during the wait.
    :param missing: what a first measurement still lacks.
    """
    ids = set(heard)
    if ids & _OFFSET_IDS or (ids and ids <= _LEADER_IDS):
        return DriverError(f'{where}: the arm on this bus is a leader (it sends targets and no '
                           'plain feedback); connect the follower\'s bus, or make it a follower '
                           '(0x470 FC), power-cycle it and connect again')
    if not ids and errors:
        return DriverError(f'{where}: {errors} CAN error frames and no data: bitrate (1 Mbit/s), '
                           'termination or cable is wrong')
    if not ids:
        return DriverError(f'{where}: no CAN frame: switch the arm on, check the cable, and bring '
                           'the bus up with 1 Mbit/s')
    listed = ', '.join(f'0x{can_id:X}' for can_id in sorted(ids)[:12])
    return DriverError(f'{where}: no complete PiPER feedback; missing {", ".join(missing)}; heard '
                       f'{listed}: is another device on this bus, or a joint driver down?')
