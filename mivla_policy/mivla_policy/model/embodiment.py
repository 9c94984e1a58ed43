"""What must fit one robot that a checkpoint can move."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mivla_core.profile import RobotProfile
from mivla_policy.core.normalize import Normalizer
from mivla_policy.core.packing import SlotMap
from mivla_policy.core.plain_data import check_keys
from mivla_policy.errors import ConfigError
from mivla_policy.model.config import MiVLAConfig

__all__ = ['Embodiment', 'camera_places']


@dataclass(frozen=True)
class Embodiment:
    """
    One robot that a checkpoint can move.

    :param robot: name of its profile.
    :param profile_hash: of the profile it was trained for.
    :param profile_text: that profile's canonical YAML.
    :param joint_names: J of them, order of states and actions.
    :param space: action space it acts in.
    :param slots: of its joints in that space.
    :param cameras: its camera role for each of the network's C pictures; '' where it has none.
    :param normalizer: statistics of states and actions (J,).
    :param instructions: sentences it was trained on.
    """

    robot: str
    profile_hash: str
    profile_text: str
    joint_names: tuple[str, ...]
    space: str
    slots: tuple[int, ...]
    cameras: tuple[str, ...]
    normalizer: Normalizer
    instructions: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise ConfigError when the parts contradict each other."""
        joints = len(self.joint_names)
        if self.normalizer.joints != joints or len(self.slots) != joints:
            raise ConfigError(f'robot {self.robot}: {joints} joint names, statistics of '
                              f'{self.normalizer.joints} joints and {len(self.slots)} slots')
        if not self.instructions:
            raise ConfigError(f'robot {self.robot}: no instruction: nothing could be asked of '
                              'this policy')
        roles = self.camera_roles
        if not roles or len(set(roles)) != len(roles):
            raise ConfigError(f'robot {self.robot}: cameras must be different roles, got '
                              f'{list(self.cameras)}')
        SlotMap(self.space, self.slots)

    @classmethod
    def of(cls, profile: RobotProfile, config: MiVLAConfig, normalizer: Normalizer,
           instructions: tuple[str, ...]) -> Embodiment:
        """
        Describe a robot for a network.

        The profile's cameras take the network's places of the same name; those without take the
        free places in order.
        """
        places = camera_places(config.cameras, [camera.role for camera in profile.cameras])
        packed = SlotMap.of(profile.packing, profile.joint_names)
        return cls(profile.name, profile.hash, profile.text, profile.joint_names, packed.space,
                   packed.slots, places, normalizer, instructions)

    @property
    def camera_roles(self) -> tuple[str, ...]:
        """The robot's cameras, in the order of the network's pictures."""
        return tuple(role for role in self.cameras if role)

    @property
    def packed(self) -> SlotMap:
        """Where its joints stand in the action space."""
        return SlotMap(self.space, self.slots)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that ``from_json`` reads back to an equal value."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data = {key: list(value) if isinstance(value, tuple) else value
                for key, value in data.items() if key != 'normalizer'}
        return data | {'normalization': self.normalizer.to_json()}

    @classmethod
    def from_json(cls, data: Any, where: str) -> Embodiment:
        """
        Read what ``to_json`` wrote; unknown and missing keys are errors.

        :param where: named in errors.
        """
        if not isinstance(data, dict):
            raise ConfigError(f'{where}: expected an object, got {type(data).__name__}')
        names = [f.name for f in fields(cls) if f.name != 'normalizer']
        check_keys(data, {*names, 'normalization'}, where)
        for key in names:
            value, one = data[key], (int if key == 'slots' else str)
            if key in ('joint_names', 'slots', 'cameras', 'instructions') and not isinstance(
                    value, list):
                raise ConfigError(f'{where}: {key} must be a list')
            if not all(type(v) is one for v in (value if isinstance(value, list) else [value])):
                raise ConfigError(f'{where}: {key} must be {one.__name__}, or a list of them')
        values: dict[str, Any] = {
            key: tuple(data[key]) if isinstance(data[key], list) else data[key] for key in names}
        try:
            return cls(**values, normalizer=Normalizer.from_json(
                data['normalization'], f'{where}: normalization'))
        except ConfigError as error:
            raise ConfigError(str(error) if where in str(error) else f'{where}: {error}'
                              ) from error


def camera_places(names: tuple[str, ...], roles: list[str]) -> tuple[str, ...]:
    """
    Return the camera role for each of a network's pictures, '' for none.

    :raises ConfigError: more cameras than pictures.
    """
    if len(roles) > len(names):
        raise ConfigError(f'{len(roles)} cameras for a network of {len(names)} pictures')
    places = [name if name in roles else '' for name in names]
    for role in roles:
        if role not in places:
            places[places.index('')] = role
    return tuple(places)
