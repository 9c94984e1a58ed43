"""
The arguments of the stack, once: ``mivla up`` and ``bringup.launch.py`` both read this table.

Values are typed as ROS users type them, ``name:=value``, so a value is text until ``parse`` has
turned it into what the table says.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Union

from mivla_bringup.errors import UsageError

__all__ = ['ARGUMENTS', 'Argument', 'Value', 'listed', 'parse', 'split_assignments']

Value = Union[bool, int, float, str]
Kind = Literal['text', 'bool', 'int', 'float']

BOOL = ('true', 'false')


@dataclass(frozen=True)
class Argument:
    """
    One described argument.

    :param default: as text, the way it would be typed.
    :param choices: all valid values; () where they are not finite.
    :param bounds: lowest and highest value of a number, inclusive.
    """

    name: str
    description: str
    default: str = ''
    choices: tuple[str, ...] = ()
    kind: Kind = 'text'
    bounds: tuple[float, float] = (float('-inf'), float('inf'))

    def parse(self, text: str) -> Value:
        """
        Return the value that ``text`` stands for.

        :raises UsageError: not one of the choices, not a number, or out of bounds.
        """
        if self.kind == 'bool':
            text = text.lower()
        if self.choices and text not in self.choices:
            raise UsageError(f'{self.name}:={text} is not valid; use one of: '
                             f'{", ".join(choice or "(empty)" for choice in self.choices)}')
        if self.kind == 'bool':
            return text == 'true'
        if self.kind == 'text':
            return text
        try:
            number = int(text) if self.kind == 'int' else float(text)
        except ValueError as err:
            raise UsageError(f'{self.name}:={text} is not a number '
                             f'({"whole" if self.kind == "int" else "decimal"})') from err
        low, high = self.bounds
        if not low <= number <= high:
            raise UsageError(f'{self.name}:={text} is outside {low:g} to {high:g}')
        return number


ARGUMENTS: tuple[Argument, ...] = (
    Argument('robot', 'Robot profile: a name (see "mivla robots") or the path of a YAML file; '
             'several separated by commas.', 'piper'),
    Argument('sim', 'Simulated world and emulated devices instead of hardware.', 'false', BOOL,
             'bool'),
    Argument('interface', 'Bus of the robot instead of its profile\'s: a CAN network interface '
             '(can0), several in the order of the arms (can0,can1), or the name of a python-can '
             'interface (slcan), whose device port:= names.'),
    Argument('port', 'Device of the bus instead of its profile\'s: a serial port '
             '(/dev/ttyUSB0).'),
    Argument('policy', 'Policy to run: a checkpoint folder or the name of a plug-in; empty: '
             'none.'),
    Argument('standby', 'Robots that "mivla switch" may change to, separated by commas: the '
             'policy server is made ready for them, too.'),
    Argument('policy_parameters', "Parameters of the policy plug-in: 'key=value;key=value'."),
    Argument('openpi_port', 'Port of the door for openpi clients, on 127.0.0.1; 0: closed.', '0',
             (), 'int', (0, 65535)),
    Argument('teleop', 'What drives the teleop input.', 'none',
             ('none', 'expert', 'jog', 'leader', 'vision_pro')),
    Argument('leader', 'Of teleop:=leader: profile of the arm that is led by hand; empty: of the '
             'same kind as the robot.'),
    Argument('leader_bus', 'Of teleop:=leader: its own bus: a CAN network interface (can1), or '
             'INTERFACE:CHANNEL of python-can; of several arms separated by commas.'),
    Argument('leader_map', 'Of teleop:=leader: YAML file that maps its joints; empty: one to one, '
             'or by the pose of the hand for arms of another kind.'),
    Argument('headset', 'Of teleop:=vision_pro: address of the headset, replay for a simulated '
             'one, or replay:FILE for a recorded one.'),
    Argument('hand', 'Simulated: what the hand at leader or headset does; expert demonstrates '
             'the task.',
             'wave', ('wave', 'still', 'expert')),
    Argument('record', 'Start the recorder (episodes are started with "mivla record").', 'false',
             BOOL, 'bool'),
    Argument('target', 'Good episodes that are wanted of a task; 0: no matter.', '30', (), 'int',
             (0, 100_000)),
    Argument('sound', "Cues by the recorder's machine: started, saved, lost, rejected.", 'off',
             ('off', 'auto', 'paplay', 'aplay', 'bell')),
    Argument('console', 'Start the web console.', 'false', BOOL, 'bool'),
    Argument('console_port', 'Port of the web console; 0: any free one.', '8700', (), 'int',
             (0, 65535)),
    Argument('console_host', 'Address that the web console listens at; any but loopback needs '
             'console_token:=.', '127.0.0.1'),
    Argument('console_token', 'File of mode 0600 that holds the token of the web console; empty: '
             'none.'),
    Argument('cameras', 'Start the cameras of the robot profile.', 'true', BOOL, 'bool'),
    Argument('role', 'Which part runs on this machine: everything, all but the policy server, or '
             'the policy server alone.', 'all', ('all', 'robot', 'policy')),
    Argument('task', 'Task of the simulated scene and of the scripted expert.', 'click_bell',
             ('bottle_on_pad', 'click_bell', 'gather_objects', 'umbrella_rack')),
    Argument('seed', 'Seed of the simulated scene.', '0', (), 'int', (0, 2**63 - 1)),
    Argument('level', 'Randomisation of the simulated scene.', 'easy',
             ('easy', 'hard', 'novel_object', 'unseen_pose', 'distractor')),
    Argument('disturbance', 'Spread of the noise on the targets of the simulated motors, for '
             'recording demonstrations [rad]; 0: none.', '0.0', (), 'float', (0.0, 0.2)),
    Argument('instruction', 'What the policy is asked to do; empty: what the task says.'),
    Argument('realtime', 'Control loops, and all from pictures to actions but the model, ask for '
             'real-time priority (SCHED_FIFO).', 'true', BOOL, 'bool'),
    Argument('bags', 'Folder that episodes are recorded into.', '~/mivla/episodes'),
    Argument('camera_width', 'Picture width [px]; 0: as in the robot profile.', '0', (), 'int',
             (0, 8192)),
    Argument('camera_height', 'Picture height [px]; 0: as in the robot profile.', '0', (), 'int',
             (0, 8192)),
    Argument('camera_fps', 'Pictures per second; 0: as in the robot profile.', '0', (), 'float',
             (0.0, 1000.0)),
    Argument('domain', 'ROS domain id, 0 to 101; empty: $ROS_DOMAIN_ID, else 0.'),
    Argument('peers', 'Other hosts to discover, separated by commas; empty: this host only.'),
)


def parse(texts: Mapping[str, str],
          table: Sequence[Argument] = ARGUMENTS) -> dict[str, Value]:
    """
    Turn what was typed into values, with the defaults for what was not.

    :raises UsageError: unknown name or invalid value; lists the valid ones.
    """
    known = {argument.name for argument in table}
    for name in texts:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f' (did you mean {near[0]}?)' if near else ''
            raise UsageError(f'unknown argument {name!r}{hint}; valid: '
                             f'{", ".join(argument.name for argument in table)}')
    return {argument.name: argument.parse(texts.get(argument.name, argument.default))
            for argument in table}


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a list with commas, without spaces around them; '' has none."""
    return tuple(word for part in text.split(',') if (word := part.strip()))


def split_assignments(words: Iterable[str]) -> dict[str, str]:
    """
    Split ``name:=value`` words as they stand on a command line.

    :raises UsageError: a word without ``:=``, or a name given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition(':=')
        if not separator or not name:
            raise UsageError(f'{word!r} is not of the form name:=value; '
                             'example: robot:=piper sim:=true')
        if name in found:
            raise UsageError(f'argument {name!r} is given twice: {found[name]!r} and {value!r}')
        found[name] = value
    return found
