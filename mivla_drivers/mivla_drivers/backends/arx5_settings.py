"""The ARX-5 backend's driver parameters, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from mivla_core.robot_parts import BodyKinematics
from mivla_drivers.backends.arx5_gravity import GravityModel
from mivla_drivers.core.arx_units import MODELS, GripperMap, Motor, arx_motors, gripper_map
from mivla_drivers.errors import DriverError

if TYPE_CHECKING:
    from mivla_core.profile import RobotProfile

__all__ = ['ArxSettings', 'settings_of']

_DEFAULTS: dict[str, Any] = {
    'gripper_width': 0.088, 'gripper_open': 5.03, 'gravity_compensation': True, 'links': None,
    'gravity': [0.0, 0.0, -9.81], 'spacing': 150e-6, 'damping': 2.0, 'motor_timeout': 0.0,
    'temperature_warning': 70.0, 'temperature_limit': 90.0,
}
_NUMBERS = {'gripper_width': (0.01, 0.2), 'gripper_open': (-12.0, 12.0), 'spacing': (0.0, 1e-3),
            'damping': (0.0, 10.0), 'motor_timeout': (0.0, 10.0),
            'temperature_warning': (30.0, 150.0), 'temperature_limit': (30.0, 150.0)}


@dataclass(frozen=True)
class ArxSettings:
    """
    What the profile says about its ARX-5.

    :param gravity: None where compensation was switched off.
    :param spacing: s between two frames. :param damping: s of damping before power goes off.
    :param motor_timeout: s without a frame after which Damiao motors drop; 0 leaves theirs as is.
    :param warm: °C from which an operator is told; from ``hot`` on it is a fault.
    """

    model: str
    motors: tuple[Motor, ...]
    gripper: GripperMap
    gravity: Optional[GravityModel]
    spacing: float
    damping: float
    motor_timeout: float
    warm: float
    hot: float


def settings_of(profile: RobotProfile, parameters: Mapping[str, Any]) -> ArxSettings:
    """
    Check profile and parameters.

    :raises DriverError: names what does not fit an ARX-5.
    """
    unknown = sorted(set(parameters) - set(_DEFAULTS) - {'model'})
    if unknown:
        raise DriverError(f'driver.parameters: unknown {unknown} for arx5; known: '
                          f'{sorted([*_DEFAULTS, "model"])}')
    model = parameters.get('model')
    if model not in MODELS:
        raise DriverError(f'driver.parameters.model {model!r} is none of {sorted(MODELS)}')
    settings = {**_DEFAULTS, **parameters}
    for key, (low, high) in _NUMBERS.items():
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (
                math.isfinite(value) and low <= value <= high):
            raise DriverError(f'driver.parameters.{key} {value!r} is not within [{low}, {high}]')
    if abs(settings['gripper_open']) < 0.5:
        raise DriverError('driver.parameters.gripper_open is the motor\'s angle with the gripper '
                          f'open; {settings["gripper_open"]} rad is no travel: calibrate it')
    if settings['temperature_warning'] > settings['temperature_limit']:
        raise DriverError('driver.parameters.temperature_warning lies above temperature_limit')
    kinematics = profile.kinematics
    if profile.arm_joints != 6 or profile.gripper_index != 6 or not isinstance(
            kinematics, BodyKinematics):
        raise DriverError(f'robot {profile.name}: an ARX-5 has six arm joints and a gripper, and '
                          'its kinematics is given as bodies')
    width = settings['gripper_width']
    if profile.upper[6] > width + 1e-9 or profile.joints[6].unit != 'm':
        raise DriverError(f'robot {profile.name}: the gripper opens to {profile.upper[6]}, but '
                          f'driver.parameters.gripper_width is {width} m')
    gravity = None
    if settings['gravity_compensation']:
        if settings['links'] is None:
            raise DriverError('driver.parameters.links (mass and centre of mass per link) is '
                              'missing; give it, or set gravity_compensation to false')
        gravity = GravityModel(kinematics, settings['links'], settings['gravity'],
                               profile.only_arm.rpy)
    return ArxSettings(
        model, arx_motors(model), gripper_map(settings), gravity,
        settings['spacing'], settings['damping'], settings['motor_timeout'],
        settings['temperature_warning'], settings['temperature_limit'])
