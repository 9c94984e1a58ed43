"""
``mivla generate-hands``: demonstrations by hand in the simulated scenes, as EgoDex has them.

A hand does the task in the robot's place, seen by the robot's camera in the room. The files are
read by the reader that real ones go through, so that the whole of mutual-imitation pre-training
runs without a recording. It is a drawing of a hand, not a person: what is learned from it says how
the recipe works, not how well it does on people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mujoco
import numpy as np

from mivla_bringup.cli import Parser
from mivla_bringup.errors import BringupError, UsageError
from mivla_bringup.evaluate import robot_of
from mivla_bringup.task_episodes import PICTURES
from mivla_core.images import encode_jpeg
from mivla_core.kinematics import Chain
from mivla_core.poses import pose_of
from mivla_core.profile import RobotProfile, load_profile
from mivla_core.timing import StampNs
from mivla_drivers.sim.hand_model import Appearance, HandBody, HandPose, hand_model
from mivla_drivers.sim.hand_plan import HAND_TASKS, HandPlan, plan_hand
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.render import CameraRenderer, intrinsics
from mivla_drivers.sim.scenario import INSTRUCTIONS, LEVELS, TRAIN_SEEDS, Scenario
from mivla_drivers.sim.scene import cameras
from mivla_drivers.sim.state_block import Snapshot
from mivla_policy.core.episode import FrameTrack
from mivla_policy.formats.egodex import HandEpisode, HandTrack, write_hand_file
from mivla_teleop.core.headset_frames import WORLD, raw_wrist

__all__ = ['HAND_SEEDS', 'generate_hand', 'main']

# Training scenes that no robot demonstration of this suite is recorded in.
HAND_SEEDS = TRAIN_SEEDS[50_000:]
RATE = 30.0
QUALITY = 95
_START_SPREAD = (0.06, 0.09, 0.05)      # m about the robot's tip at home
# MuJoCo's camera looks along -z with y up; the file's along z with y down, as OpenCV's.
_CAMERA = np.diag([1.0, -1.0, -1.0])


def main(argv: Sequence[str]) -> int:
    """Generate demonstrations; returns the exit code."""
    parser = Parser(prog='mivla generate-hands', description=__doc__.partition('\n\n')[0])
    parser.add_argument('--task', default='click_bell', choices=sorted(HAND_TASKS))
    parser.add_argument('--count', type=int, default=100, help='demonstrations')
    parser.add_argument('--out', required=True, help='folder of the files')
    parser.add_argument('--level', default='hard', choices=LEVELS)
    parser.add_argument('--robot', default='', help='whose bench and camera it is '
                        '(default: the robot of the task)')
    parser.add_argument('--first', type=int, default=0, help='number of the first scene')
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.first <= arguments.first + arguments.count <= len(HAND_SEEDS):
        raise UsageError(f'--first {arguments.first} and --count {arguments.count}: there are '
                         f'{len(HAND_SEEDS)} scenes')
    profile = load_profile(arguments.robot or robot_of(arguments.task))
    out = Path(arguments.out).expanduser()
    seeds = HAND_SEEDS[arguments.first:arguments.first + arguments.count]
    begun, frames = time.monotonic(), 0
    for number, seed in enumerate(seeds, 1):
        path = out / f'{arguments.task}_{arguments.level}_{seed}.hdf5'
        if path.exists():
            continue
        episode = generate_hand(profile, arguments.task, seed, arguments.level)
        write_hand_file(path, episode)
        frames += len(episode)
        if number % 10 == 0 or number == len(seeds):
            print(f'hands: {number} of {len(seeds)}, {frames} frames, '
                  f'{time.monotonic() - begun:.0f} s', flush=True)
    print(f'hand demonstrations: {out}')
    return 0


def generate_hand(profile: RobotProfile, task: str, seed: int, level: str,
                  pictures: bool = True) -> HandEpisode:
    """
    Let a hand do a task once.

    Scene, person and motion are decided by the seed.

    :param pictures: render them; without, the motion alone.
    :raises BringupError: the robot has no camera in the room.
    """
    room = [camera.role for camera in profile.cameras
            if cameras(profile)[camera.role].body == 'world']
    if not room:
        raise BringupError(f'{profile.name} has no camera in the room: a hand carries none')
    role, size = room[0], (PICTURES['camera_width'], PICTURES['camera_height'])
    rng = np.random.default_rng([seed, 7])
    model = hand_model(profile, task, Appearance.draw(rng))
    scenario = Scenario.draw(task, seed, level)
    home = Chain(profile.arms[0].kinematics).tip(profile.home[profile.place_of(profile.arms[0])])
    start = home[:3, 3] + rng.uniform(-1.0, 1.0, size=3) * _START_SPREAD
    plan = plan_hand(scenario, float(profile.workspace.table_z), start, rng)
    frames: list[bytes] = []
    if pictures:
        with CameraRenderer(profile, {role: size}, task=task, model=model) as renderer:

            def shoot(number: int, qpos: np.ndarray) -> None:
                renderer.place(Snapshot(StampNs(int(number / RATE * 1e9)), 0, task, seed, level,
                                        qpos))
                frames.append(encode_jpeg(renderer.render(role, number), QUALITY))
            hand, view = _act(model, role, plan, scenario, shoot)
    else:
        hand, view = _act(model, role, plan, scenario, lambda number, qpos: None)
    lens = intrinsics(profile, role, *size)
    stamps = np.round(np.arange(len(hand.wrist)) * 1e9 / RATE).astype(np.int64)
    return HandEpisode(
        f'{task}_{level}_{seed}', INSTRUCTIONS[task], stamps, {'right': hand},
        FrameTrack(stamps, tuple(frames)) if pictures else None,
        np.tile(view, (len(stamps), 1, 1)),
        np.array([[lens.fx, 0.0, lens.cx], [0.0, lens.fy, lens.cy], [0.0, 0.0, 1.0]]))


def _act(model: mujoco.MjModel, role: str, plan: HandPlan, scenario: Scenario,
         shoot: Callable[[int, np.ndarray], None]) -> tuple[HandTrack, np.ndarray]:
    """
    Play a plan frame by frame; return the hand and the camera's pose, as a file has them.

    :param shoot: called with each frame's number and all joint positions.
    """
    data = mujoco.MjData(model)
    body, things = HandBody(model), _Things(model, data, scenario, plan.thing)
    to_wrist = np.linalg.inv(body.grip)
    wrists, knuckles, tips = [], [], []
    for number in range(int(plan.duration * RATE) + 1):
        t = number / RATE
        grip, opening = plan.grip(t)
        wrist = grip @ to_wrist
        body.put(data, HandPose(wrist, opening, plan.elbow(wrist)))
        things.follow(grip, plan.holds(t))
        mujoco.mj_kinematics(model, data)
        things.yield_to(body.tips(data)[:2])
        shoot(number, data.qpos)
        wrists.append(raw_wrist(body.wrist(data), 'right'))
        knuckles.append(raw_wrist(body.knuckle(data), 'right'))
        tips.append(body.tips(data) @ WORLD)
    mujoco.mj_camlight(model, data)
    camera = int(names(model, mujoco.mjtObj.mjOBJ_CAMERA, (role,))[0])
    view = pose_of(WORLD.T @ data.cam_xmat[camera].reshape(3, 3) @ _CAMERA,
                   WORLD.T @ data.cam_xpos[camera])
    return HandTrack.certain(np.array(wrists), np.array(knuckles), np.array(tips)), view


class _Things:
    """What the hand moves: the thing that it carries, and the button that it presses."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, scenario: Scenario,
                 carried: str) -> None:
        self._model, self._data = model, data
        scenario.apply(model)
        scenario.put(model, data)
        mujoco.mj_kinematics(model, data)
        free = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, carried) if carried else -1
        self._free = int(model.jnt_qposadr[free]) if free >= 0 else None
        button = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, 'button')
        self._button = button if button >= 0 else None
        self._held: np.ndarray | None = None

    def follow(self, grip: np.ndarray, holds: bool) -> None:
        """Let the carried thing move with the grip (4, 4), or stand where it was let go."""
        if self._free is None:
            return
        place = self._data.qpos[self._free:self._free + 7]
        if not holds:
            self._held = None
            return
        if self._held is None:
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, place[3:7])
            self._held = np.linalg.inv(grip) @ pose_of(turn.reshape(3, 3), place[:3])
        moved = grip @ self._held
        # Nobody tips what they carry: it stays level, and turns as the hand does seen from above.
        place[:3] = moved[:3, 3]
        yaw = float(np.arctan2(moved[1, 0], moved[0, 0]))
        place[3:7] = [np.cos(yaw / 2.0), 0.0, 0.0, np.sin(yaw / 2.0)]

    def yield_to(self, tips: np.ndarray) -> None:
        """Let the button go down under the fingertips (2, 3)."""
        if self._button is None:
            return
        geom = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_GEOM, 'button')
        address = int(self._model.jnt_qposadr[self._button])
        radius, half = self._model.geom_size[geom, :2]
        place = self._data.geom_xpos[geom]
        top = place[2] + half - self._data.qpos[address]
        above = np.linalg.norm(tips[:, :2] - place[:2], axis=1) < radius + 0.006
        # The flesh of a fingertip ends some 8 mm from the bone's end.
        depth = max([0.0, *(top - (tips[above, 2] - 0.008))])
        self._data.qpos[address] = -min(depth, -float(self._model.jnt_range[self._button, 0]))
