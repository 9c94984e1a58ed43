"""
The services of one robot, asked without waiting.

``RobotServices.ask`` hands a request over and returns at once; the answer comes by a callback, in
the executor's thread, or never, which whoever asked has to bound (``forget``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mivla_core.ros.qos import COMMAND
from mivla_core.timing import StampNs
from mivla_msgs.msg import DriverState, Stop
from mivla_msgs.srv import (
    Disable,
    Enable,
    FinishEpisode,
    Home,
    Reset,
    SetInstruction,
    SetMode,
    SetPosture,
    StartEpisode,
    StopRobot,
)
from mivla_teleop.console.core.commands import Request
from mivla_teleop.console.core.desk import Desk
from mivla_teleop.console.core.trial import ANSWER_TOPIC, answer_text
from mivla_teleop.console.errors import ConsoleError

__all__ = ['Answer', 'RobotServices', 'TIMEOUTS']

_MODES = {'idle': DriverState.MODE_IDLE, 'teleop': DriverState.MODE_TELEOP,
          'policy': DriverState.MODE_POLICY}
_POSES = {'home': Home.Request.HOME, 'rest': Home.Request.REST}
_OUTCOMES = {'success': FinishEpisode.Request.SUCCESS, 'failure': FinishEpisode.Request.FAILURE,
             'discard': FinishEpisode.Request.DISCARD}
_KINDS: Mapping[str, tuple[Any, str]] = {
    'stop': (StopRobot, 'driver/stop'), 'enable': (Enable, 'driver/enable'),
    'disable': (Disable, 'driver/disable'), 'reset': (Reset, 'driver/reset'),
    'pose': (Home, 'driver/home'), 'posture': (SetPosture, 'driver/set_posture'),
    'mode': (SetMode, 'driver/set_mode'),
    'instruction': (SetInstruction, 'policy/set_instruction'),
    'start': (StartEpisode, 'recorder/start_episode'),
    'finish': (FinishEpisode, 'recorder/finish_episode'),
    'undo': (Trigger, 'recorder/undo_discard'),
    'discard_last': (Trigger, 'recorder/discard_last'),
    'engage': (Trigger, 'teleop/engage'), 'pause': (Trigger, 'teleop/pause'),
}
# s until an answer is given up: enabling waits for the device, finishing for the disk.
TIMEOUTS: Mapping[str, float] = {'enable': 15.0, 'start': 15.0, 'finish': 30.0}
TIMEOUT = 4.0


@dataclass(frozen=True)
class Answer:
    """What came of a request; ``facts`` are further plain data for the page."""

    ok: bool
    message: str
    facts: Mapping[str, Any]


class RobotServices:
    """
    Clients of one robot's services, its stop topic, and answers to who does trials.

    :param robot: its namespace.
    """

    def __init__(self, node: Node, robot: str) -> None:
        self._node, self._robot = node, robot
        self._stop = node.create_publisher(Stop, f'/{robot}/stop', COMMAND)
        self._answer = node.create_publisher(String, f'/{robot}/{ANSWER_TOPIC}', COMMAND)
        self._clients = {do: node.create_client(kind, f'/{robot}/{name}')
                         for do, (kind, name) in _KINDS.items()}

    def close(self) -> None:
        """Remove everything from the node."""
        self._node.destroy_publisher(self._stop)
        self._node.destroy_publisher(self._answer)
        for client in self._clients.values():
            self._node.destroy_client(client)

    def publish_stop(self, reason: str) -> None:
        """Publish a stop and return; from any thread."""
        message = Stop(source='console', reason=reason)
        StampNs.wall().fill(message.header.stamp)
        self._stop.publish(message)

    def publish_answer(self, number: int, answer: str) -> None:
        """Publish the answer to a question of trials; from any thread."""
        self._answer.publish(String(data=answer_text(number, answer)))

    def ask(self, request: Request, desk: Desk, instruction: str,
            done: Callable[[Answer], None]) -> Callable[[], None]:
        """
        Ask for what a page asks.

        :param done: called with the answer, from the executor's thread.
        :returns: what makes the request forgotten when nobody waits for it any more.
        :raises ConsoleError: nobody offers the service.
        """
        client = self._clients[request.do]
        if not client.service_is_ready():
            raise ConsoleError(f'nobody offers {client.srv_name}; is that part of the stack up?')
        future = client.call_async(_message(request, desk, instruction))
        future.add_done_callback(lambda ended: done(_answer(ended)))
        return lambda: client.remove_pending_request(future)


def _message(request: Request, desk: Desk, instruction: str) -> Any:
    """Return the service request of a page's request."""
    kind, values = _KINDS[request.do][0].Request, request.values
    if request.do == 'stop':
        return kind(reason=f'console: {values["reason"] or "asked on the page"}')
    if request.do == 'disable':
        return kind(force=values['force'])
    if request.do == 'pose':
        return kind(pose=_POSES[values['pose']])
    if request.do == 'posture':
        return kind(posture=values['posture'])
    if request.do == 'mode':
        return kind(mode=_MODES[values['mode']])
    if request.do == 'instruction':
        return kind(instruction=values['text'])
    if request.do == 'start':
        return kind(task=desk.task, instruction=instruction, operator_name=desk.operator)
    if request.do == 'finish':
        return kind(outcome=_OUTCOMES[values['outcome']], note=values['note'])
    return kind()


def _answer(future: Any) -> Answer:
    """Return what a service said, whichever of our kinds it is."""
    if future.cancelled() or future.exception() is not None:
        return Answer(False, f'the request failed: {future.exception() or "cancelled"}', {})
    response = future.result()
    ok = bool(response.success if hasattr(response, 'success') else response.ok)
    facts = {name: value for name in ('episode', 'rejected', 'reasons')
             if (value := getattr(response, name, None))}
    return Answer(ok, str(response.message), facts)
