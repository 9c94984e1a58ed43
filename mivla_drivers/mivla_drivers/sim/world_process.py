"""
The executable ``world``: the emulated arms on their buses and the simulated bench, in wall time.

The main thread keeps to the clock: it takes frames the moment they arrive, answers what is
answered at once, runs devices and physics at the devices' rate and publishes the state in shared
memory at 200 Hz. A second thread speaks ROS: ``sim/state`` (20 Hz and at success) and the service
``sim/reset``.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import can
import rclpy
from geometry_msgs.msg import PoseArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from mivla_core.errors import MivlaError
from mivla_core.profile import RobotProfile, load_profile
from mivla_core.ros.params import declare, param
from mivla_core.ros.qos import stream
from mivla_core.timing import monotonic_now
from mivla_drivers.can.loopback import INTERFACE, open_bus
from mivla_drivers.ros.fault_service import FaultService
from mivla_drivers.ros.locoman_world import run_locoman
from mivla_drivers.ros.task_messages import fill_state, places_of
from mivla_drivers.ros.world_serving import serve_world
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.disturbance import Disturbance
from mivla_drivers.sim.faults import FaultLayer, Faults
from mivla_drivers.sim.faulty_bus import FaultyBus
from mivla_drivers.sim.faulty_devices import commanded_by_arm, faulty_devices
from mivla_drivers.sim.frame_log import FrameLog
from mivla_drivers.sim.locoman_scene import has_stand, is_locoman
from mivla_drivers.sim.runtime import WorldRuntime, device_makers
from mivla_drivers.sim.scenario import INSTRUCTIONS, LEVELS, Scenario
from mivla_drivers.sim.scene import scene_id
from mivla_drivers.sim.state_block import StateWriter, block_path
from mivla_drivers.sim.witness import Witness
from mivla_drivers.sim.world_loop import Reset, WorldLoop
from mivla_msgs.msg import SimState
from mivla_msgs.srv import ResetScene

__all__ = ['main']

_STATE_HZ = 20.0
_RESET_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class WorldParams:
    """Parameters of the node."""

    robot: str = param('piper', 'Robot profile: a name or a path.')
    task: str = param('click_bell', 'Task to place.', choices=sorted(INSTRUCTIONS))
    seed: int = param(0, 'Seed of the first scene.', low=0)
    level: str = param('easy', 'How much light and colours vary.', choices=LEVELS)
    interface: str = param(INTERFACE, "python-can interface of the emulated arm's bus.")
    channel: str = param('', 'Channel of that bus; empty: the name of the robot in the graph.')
    realtime: bool = param(True, 'Ask for SCHED_FIFO.')
    disturbance_sigma: float = param(
        0.0, 'Spread of the noise on motor targets (DART) [rad].', low=0.0, high=0.2
    )
    disturbance_seed: int = param(0, 'Seed of that noise.', low=0)
    frame_log: str = param('', 'File (.npy) for the received frames, written at the end.')
    witness: str = param('', 'File (.npz) for what the judge of a fault needs, written likewise.')


class _WorldNode(Node):
    """
    The ROS side: ground truth out, scene resets in. No arithmetic, and nothing that the loop waits
    for.
    """

    def __init__(self) -> None:
        super().__init__('world')
        self.params = declare(self, WorldParams)
        self._loop: WorldLoop | None = None

    @property
    def robot(self) -> str:
        """Name of the robot in the graph; the namespace, or empty."""
        return self.get_namespace().strip('/').replace('/', '_')

    def serve(self, loop: WorldLoop) -> None:
        """Begin to publish and to answer."""
        self._loop = loop
        self._publisher = self.create_publisher(SimState, 'sim/state', stream(_STATE_HZ))
        self._places = self.create_publisher(PoseArray, 'sim/places', stream(_STATE_HZ))
        self._timer = self.create_timer(1.0 / _STATE_HZ, self._publish_state)
        self._succeeded = self.create_guard_condition(self._publish_state)
        self._service = self.create_service(ResetScene, 'sim/reset', self._reset)
        self._faults = FaultService(self, loop.faults)
        loop.on_success = self._succeeded.trigger

    def _publish_state(self) -> None:
        assert self._loop is not None
        latest = self._loop.latest
        report, message = latest.report, SimState()
        latest.stamp.fill(message.header.stamp)
        message.header.frame_id = 'base_link'
        message.realtime_factor, message.realtime_factor_min = latest.factor, latest.worst
        fill_state(message, report)
        self._publisher.publish(message)
        self._places.publish(places_of(message, report))

    def _reset(
        self, request: ResetScene.Request, response: ResetScene.Response
    ) -> ResetScene.Response:
        assert self._loop is not None
        reset = Reset(request.task, request.seed, request.level, threading.Event())
        self._loop.resets.put(reset)
        if not reset.done.wait(_RESET_TIMEOUT_S):
            reset.error = f'the world did not answer within {_RESET_TIMEOUT_S:g} s'
        response.ok, response.message = not reset.error, reset.error
        self._publish_state()
        return response


def _run(node: _WorldNode) -> None:
    """Set everything up, run until a signal comes, and take it down in the opposite order."""
    params = node.params
    profile = load_profile(params.robot)
    robot = node.robot or profile.name
    disturbance = Disturbance(params.disturbance_sigma, params.disturbance_seed)
    if is_locoman(profile):
        scene = None
        if has_stand(params.task):
            scene = (Scenario.draw(params.task, params.seed, params.level), disturbance)
        run_locoman(node, profile, robot, scene, realtime=params.realtime,
                    witness_file=params.witness)
        return
    scenario = Scenario.draw(params.task, params.seed, params.level)
    log = FrameLog(Path(params.frame_log)) if params.frame_log else None
    runtime = WorldRuntime(profile, scenario, device_makers(profile, disturbance),
                           monotonic_now())
    layers = {name: FaultLayer() for name in _wires(profile)}
    faults = Faults(layers, faulty_devices(runtime.devices))
    witness = None
    if params.witness:
        witness = Witness(Path(params.witness), profile.joint_names,
                          commanded_by_arm(profile, runtime.devices), runtime.world.position)
    domain = int(os.environ.get('ROS_DOMAIN_ID') or 0)
    with ExitStack() as opened:
        block = StateWriter(block_path(domain, robot), scene_id=scene_id(profile, params.task),
                            positions=runtime.world.model.nq)
        opened.callback(block.close)
        if log is not None:
            opened.callback(log.save)
        if witness is not None:
            opened.callback(witness.save)
        buses = []
        for layer, channel in zip(layers.values(), _channels(profile, params.channel or robot)):
            buses.append(_open(params.interface, channel, layer))
            opened.callback(buses[-1].shutdown)
        loop = WorldLoop(runtime, buses, block, log, faults, witness)
        node.serve(loop)
        serve_world(node, loop, params.realtime)


def _wires(profile: RobotProfile) -> list[str]:
    """Name the buses, one per arm."""
    if len(profile.arms) == 1:
        return ['can']
    return [f'can_{arm.name}' for arm in profile.arms]


def _channels(profile: RobotProfile, channel: str) -> list[str]:
    """Return the channel of each arm's bus; the driver of several arms makes the same names."""
    if len(profile.arms) == 1:
        return [channel]
    return [f'{channel}_{arm.name}' for arm in profile.arms]


def _open(interface: str, channel: str, layer: FaultLayer) -> can.BusABC:
    try:
        return FaultyBus(open_bus(interface, channel), layer)
    except (can.CanError, ValueError) as error:
        raise SimError(f'cannot open the bus {interface}:{channel}: {error}') from error


def main(args: list[str] | None = None) -> int:
    """Run the simulated world until Ctrl-C or SIGTERM; returns 0, or 1 when it could not start."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node: _WorldNode | None = None
    try:
        node = _WorldNode()
        _run(node)
        return 0
    except MivlaError as error:
        print(f'world: {error}', file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C before the loop had its handlers.
        return 0
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
