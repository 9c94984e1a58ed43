"""
PiPER's state codes as enumerations, and as words that an operator can act on.

A code that the tables do not know stays a plain int: firmware adds codes, and a state frame must
never be lost because of one. Source: the vendor SDK's frame descriptions (protocol V2).
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ['ArmState', 'CtrlMode', 'DRIVER_ENABLED', 'MoveMode', 'arm_faults', 'control_words',
           'driver_faults', 'gripper_faults', 'joints_of', 'known']

DRIVER_ENABLED = 0x40


class CtrlMode(IntEnum):
    """Who controls the arm (0x2A1 byte 0, 0x151 byte 0)."""

    STANDBY = 0
    CAN = 1
    TEACH = 2
    ETHERNET = 3
    WIFI = 4
    REMOTE = 5
    LEADER = 6
    OFFLINE_TRAJECTORY = 7


class ArmState(IntEnum):
    """Overall state (0x2A1 byte 1)."""

    OK = 0x0
    EMERGENCY_STOP = 0x1
    NO_SOLUTION = 0x2
    SINGULARITY = 0x3
    TARGET_OVER_LIMIT = 0x4
    JOINT_COMMUNICATION = 0x5
    BRAKE_NOT_RELEASED = 0x6
    COLLISION = 0x7
    DRAG_OVERSPEED = 0x8
    JOINT_STATUS = 0x9
    OTHER = 0xA
    TEACH_RECORD = 0xB
    TEACH_EXECUTE = 0xC
    TEACH_PAUSE = 0xD
    MAIN_OVERTEMPERATURE = 0xE
    RESISTOR_OVERTEMPERATURE = 0xF


class MoveMode(IntEnum):
    """What target frames mean (0x2A1 byte 2, 0x151 byte 1)."""

    POINT = 0
    JOINT = 1
    LINE = 2
    CIRCLE = 3
    MIT = 4              # firmware before S-V1.8-8
    CPV = 5
    MIT_WIDE = 6         # firmware S-V1.8-8 and newer


_TABLES: dict[type[IntEnum], dict[int, IntEnum]] = {
    kind: {int(member): member for member in kind} for kind in (CtrlMode, ArmState, MoveMode)}

_ARM_WORDS = {
    ArmState.EMERGENCY_STOP: 'emergency stop is latched: support the arm, reset it (it falls), '
                             'then enable it',
    ArmState.NO_SOLUTION: 'the last pose target has no joint solution: send another one',
    ArmState.SINGULARITY: 'the arm is at a singularity: move it away in joint space',
    ArmState.TARGET_OVER_LIMIT: 'the arm refused a target beyond its stored limits: compare the '
                                'profile with the limits stored in the arm',
    ArmState.JOINT_COMMUNICATION: 'the arm lost a joint\'s communication: check the arm\'s '
                                  'internal cable, power-cycle it',
    ArmState.BRAKE_NOT_RELEASED: 'a brake is not released: power-cycle the arm',
    ArmState.COLLISION: 'the arm reports a collision: clear the way, then reset it (it falls)',
    ArmState.DRAG_OVERSPEED: 'dragged too fast: let go of the arm, then reset it (it falls)',
    ArmState.JOINT_STATUS: 'a joint driver reports an error: see the joint\'s own words',
    ArmState.OTHER: 'the arm reports an unspecified error: power-cycle it',
    ArmState.MAIN_OVERTEMPERATURE: 'the main board is too hot: let the arm cool down',
    ArmState.RESISTOR_OVERTEMPERATURE: 'the brake resistor is too hot: let the arm cool down',
}

_DRIVER_WORDS = (
    (0x01, 'supply voltage too low: check the power supply'),
    (0x02, 'motor too hot: rest the arm and let it cool down'),
    (0x04, 'over-current: free the joint, then clear the error'),
    (0x08, 'motor driver too hot: let it cool down'),
    (0x10, 'collision protection tripped: clear the way, then clear the error'),
    (0x20, 'driver error: reset the arm (it falls)'),
    (0x80, 'stalled: free the joint, then clear the error'),
)

_GRIPPER_WORDS = (
    (0x01, 'supply voltage too low: check the power supply'),
    (0x02, 'motor too hot: open it and let it cool down'),
    (0x04, 'over-current: free the fingers, then disable with clear and enable'),
    (0x08, 'motor driver too hot: let it cool down'),
    (0x10, 'sensor error: power-cycle the arm'),
    (0x20, 'driver error: disable with clear, then enable'),
)


def known(kind: type[IntEnum], value: int) -> int:
    """Return the enumeration's member for ``value``, or ``value`` itself when it has none."""
    return _TABLES[kind].get(value, value)


def _name(kind: type[IntEnum], value: int) -> str:
    member = _TABLES[kind].get(value)
    return f'0x{value:02X}' if member is None else member.name.lower().replace('_', ' ')


def joints_of(bits: int) -> tuple[int, ...]:
    """Return the joint numbers (from 1) whose bit is set; bit 0 is joint 1."""
    return tuple(joint for joint in range(1, 7) if bits >> (joint - 1) & 1)


def control_words(ctrl_mode: int, arm_state: int, move_mode: int,
                  limit_bits: int) -> tuple[str, ...]:
    """Describe a status frame for the operator, e.g. ('control can', 'move joint', 'arm ok')."""
    words = [f'control {_name(CtrlMode, ctrl_mode)}', f'move {_name(MoveMode, move_mode)}',
             f'arm {_name(ArmState, arm_state)}']
    words += [f'joint{joint} at its limit' for joint in joints_of(limit_bits)]
    return tuple(words)


def arm_faults(arm_state: int, comm_bits: int) -> tuple[str, ...]:
    """Return what the status frame reports as wrong; () when nothing is."""
    faults = []
    if arm_state in _ARM_WORDS:
        faults.append(_ARM_WORDS[ArmState(arm_state)])
    elif arm_state not in _TABLES[ArmState]:
        faults.append(f'arm state 0x{arm_state:02X} is not known: look it up in the manual of '
                      'this firmware')
    faults += [f'joint{joint}: no communication inside the arm: check its cable, power-cycle it'
               for joint in joints_of(comm_bits)]
    return tuple(faults)


def driver_faults(joint: int, bits: int) -> tuple[str, ...]:
    """Return the faults in a joint driver's status byte (0x261-0x266 byte 5)."""
    if not bits & ~DRIVER_ENABLED:
        return ()
    return tuple(f'joint{joint}: {words}' for bit, words in _DRIVER_WORDS if bits & bit)


def gripper_faults(bits: int) -> tuple[str, ...]:
    """Return the faults in the gripper's status byte (0x2A8 byte 6)."""
    if not bits & 0x3F:
        return ()
    return tuple(f'gripper: {words}' for bit, words in _GRIPPER_WORDS if bits & bit)
