"""
What ROS sees of the simulated LocoMan, and the process around it: part of the executable
``world``.

``sim/state`` as for the arms and, with a task, ``sim/places``; ``sim/trunk`` (true pose of the
trunk in the world), ``sim/fallen`` (latched), services ``sim/reset`` and ``sim/fault``. A reset
to a task places its things, the robot stays where it is; another word is the pose in which the
robot is put back: stance, lying, or '' for that of the start.
"""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional, get_args

from geometry_msgs.msg import PoseArray, PoseStamped
from rclpy.node import Node
from std_msgs.msg import Bool

from mivla_core.profile import RobotProfile
from mivla_core.ros.params import declare, param
from mivla_core.ros.qos import LATCHED, stream
from mivla_core.timing import monotonic_now
from mivla_drivers.devices.go1_device import CommandLoss, Go1Options
from mivla_drivers.ros.fault_service import FaultService
from mivla_drivers.ros.task_messages import fill_state, places_of
from mivla_drivers.ros.world_serving import serve_world
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.disturbance import Disturbance
from mivla_drivers.sim.locoman_runtime import LocomanRuntime
from mivla_drivers.sim.locoman_scene import TASK, has_stand, scene_id
from mivla_drivers.sim.locoman_wires import locoman_wires
from mivla_drivers.sim.locoman_world import LocomanLoop, Reset, Wires, commanded, measured
from mivla_drivers.sim.state_block import StateWriter, block_path
from mivla_drivers.sim.tasks import Scenario
from mivla_drivers.sim.witness import Witness
from mivla_msgs.msg import SimState
from mivla_msgs.srv import ResetScene

__all__ = ['run_locoman']

_STATE_HZ = 20.0
_RESET_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class LocomanParams:
    """Parameters that only a simulated LocoMan has."""

    pose: str = param('lying', 'How the robot is found: lying or in stance.',
                      choices=('lying', 'stance'))
    on_loss: str = param('limp', 'What the legs do when commands stop; not established for the '
                         'real robot.', choices=get_args(CommandLoss))
    loss_timeout: float = param(0.1, 'Age of the last command at which they do it [s].',
                                low=0.005, high=10.0)


class _Voice:
    """Publishers and services on the world's node; called in the ROS thread."""

    def __init__(self, node: Node, loop: LocomanLoop) -> None:
        self._loop = loop
        self._fallen: bool | None = None
        self._state = node.create_publisher(SimState, 'sim/state', stream(_STATE_HZ))
        self._places = node.create_publisher(PoseArray, 'sim/places', stream(_STATE_HZ))
        self._trunk = node.create_publisher(PoseStamped, 'sim/trunk', stream(_STATE_HZ))
        self._fell = node.create_publisher(Bool, 'sim/fallen', LATCHED)
        self._timer = node.create_timer(1.0 / _STATE_HZ, self._publish)
        self._service = node.create_service(ResetScene, 'sim/reset', self._reset)
        self._faults = FaultService(node, loop.faults)

    def _publish(self) -> None:
        latest = self._loop.latest
        report, truth = latest.report, latest.report.truth
        message = SimState()
        latest.stamp.fill(message.header.stamp)
        message.header.frame_id = 'world'
        message.task, message.seed, message.level = TASK, report.seed, 'easy'
        message.realtime_factor, message.realtime_factor_min = latest.factor, latest.worst
        # On a bare floor there is nothing to act on.
        message.target.x = message.target.y = message.target.z = math.nan
        message.success_seconds, message.episode = math.nan, report.episode
        if report.task is not None:
            fill_state(message, report.task)
            self._places.publish(places_of(message, report.task))
        self._state.publish(message)
        pose = PoseStamped(header=message.header)
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = truth.position.tolist()
        half = [angle / 2.0 for angle in truth.rpy.tolist()]
        (cr, cp, cy), (sr, sp, sy) = map(math.cos, half), map(math.sin, half)
        turn = pose.pose.orientation
        turn.w = cr * cp * cy + sr * sp * sy
        turn.x = sr * cp * cy - cr * sp * sy
        turn.y = cr * sp * cy + sr * cp * sy
        turn.z = cr * cp * sy - sr * sp * cy
        self._trunk.publish(pose)
        if truth.fallen != self._fallen:
            self._fallen = truth.fallen
            self._fell.publish(Bool(data=truth.fallen))

    def _reset(self, request: ResetScene.Request,
               response: ResetScene.Response) -> ResetScene.Response:
        try:
            reset = _asked(request)
        except SimError as error:
            response.ok, response.message = False, str(error)
            return response
        self._loop.resets.put(reset)
        if not reset.done.wait(_RESET_TIMEOUT_S):
            reset.error = f'the world did not answer within {_RESET_TIMEOUT_S:g} s'
        response.ok, response.message = not reset.error, reset.error
        self._publish()
        return response


def _asked(request: ResetScene.Request) -> Reset:
    """Return what was asked for; raises SimError for a task that cannot be drawn."""
    if has_stand(request.task):
        return Reset(int(request.seed), '', Scenario.draw(request.task, int(request.seed),
                                                          request.level))
    return Reset(int(request.seed), '' if request.task in ('', TASK) else request.task)


def run_locoman(node: Node, profile: RobotProfile, robot: str,
                scene: Optional[tuple[Scenario, Disturbance]], *, realtime: bool,
                witness_file: str) -> None:
    """
    Run the simulated LocoMan until a signal comes.

    :param node: the world's node; parameters of its own are declared on it here.
    :param robot: name of the robot in the graph.
    :param scene: of a task, and what disturbs the arm in it; None: a bare floor.
    :raises MivlaError: a wire, the shared memory or a parameter is refused.
    """
    params = declare(node, LocomanParams)
    domain = int(os.environ.get('ROS_DOMAIN_ID') or 0)
    options = Go1Options(on_loss=params.on_loss,        # type: ignore[arg-type]
                         loss_timeout=params.loss_timeout)
    scenario, disturbance = scene or (None, Disturbance())
    runtime = LocomanRuntime(monotonic_now(), options=options,
                             pose=params.pose,          # type: ignore[arg-type]
                             profile=profile, scenario=scenario, disturbance=disturbance)
    witness = None
    if witness_file:
        witness = Witness(Path(witness_file), profile.joint_names, partial(commanded, runtime),
                          partial(measured, runtime),
                          lambda: float(runtime.plant.data.qpos[2]))
    with ExitStack() as opened:
        block = StateWriter(block_path(domain, robot), scene_id=scene_id(runtime.task),
                            positions=runtime.plant.model.nq)
        opened.callback(block.close)
        if witness is not None:
            opened.callback(witness.save)
        wires = Wires(locoman_wires(domain, robot))
        opened.callback(wires.close)
        loop = LocomanLoop(runtime, wires, block, witness)
        voice = _Voice(node, loop)      # kept: a node does not own its publishers
        serve_world(node, loop, realtime)
        del voice
