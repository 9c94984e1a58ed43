"""
How a node of the stack becomes a child process: its command line and its environment.

The module is run by the interpreter that runs the supervisor, with ROS arguments for name,
namespace and parameters: what ``launch_ros`` does with the installed executable.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from mivla_bringup.stack import NodeSpec, Parameter
from mivla_bringup.supervisor import ChildSpec

__all__ = ['child_of', 'command', 'parameter_text']

# Lines of a node must arrive when they are written, also through a pipe.
_PIPED = {'PYTHONUNBUFFERED': '1', 'RCUTILS_COLORIZED_OUTPUT': '0'}


def parameter_text(value: Parameter) -> str:
    """
    Return a value as the YAML scalar that rcl parses to the same type.

    Text is quoted, lest 'true' become a bool and '7' an int; a float always has its point.
    """
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):
        return f'[{", ".join(parameter_text(item) for item in value)}]'
    return json.dumps(value, ensure_ascii=False)


def command(spec: NodeSpec) -> list[str]:
    """Return the command line that runs a node with the supervisor's interpreter."""
    words = [sys.executable, '-m', spec.module, '--ros-args',
             '-r', f'__node:={spec.name}', '-r', f'__ns:={spec.namespace}']
    for source, target in spec.remappings:
        words += ['-r', f'{source}:={target}']
    for name, value in spec.parameters.items():
        words += ['-p', f'{name}:={parameter_text(value)}']
    return words


def child_of(spec: NodeSpec, inherited: Mapping[str, str]) -> ChildSpec:
    """
    Return the child process of a node.

    :param inherited: the starter's environment. It holds what the interpreter's own start-up hook
        has set, so that a child does not have to start twice.
    """
    return ChildSpec(name=spec.full_name.lstrip('/'), argv=tuple(command(spec)),
                     environment={**inherited, **_PIPED, **spec.environment},
                     respawn=spec.respawn, essential=spec.essential,
                     stop_order=int(spec.stop_order), stop_timeout=spec.stop_timeout)
