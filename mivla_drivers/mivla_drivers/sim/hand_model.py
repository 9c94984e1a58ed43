"""
A person's right hand in the simulated scenes: who it is, what it looks like, how it is posed.

It has no weight and touches nothing: a generator puts it where it is to be and draws it. The
bones are those of an adult of average size; axes of the wrist: x to the fingertips, y to the left
of the hand held palm down (the thumb's side), z out of its back. Lengths in metres, angles in
radians.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np

from mivla_core.profile import RobotProfile
from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.bench import textures
from mivla_drivers.sim.lookup import names
from mivla_drivers.sim.scene import scene_xml

__all__ = ['Appearance', 'Finger', 'HandBody', 'HandPose', 'TIPS', 'hand_model']

Rgb = tuple[float, float, float]
TIPS = ('thumb', 'index', 'middle', 'ring', 'little')
_SEEN = 'contype="0" conaffinity="0" group="2"'
_FOREARM = 0.40


@dataclass(frozen=True)
class Finger:
    """
    One finger.

    :param root: of its first joint, in the wrist's axes [m].
    :param axes: direction of its first bone, then about which it bends; both unit, orthogonal.
    :param bones: lengths from the root to the tip [m].
    :param radius: of its capsules [m].
    :param closed: angles of its joints when thumb and index meet [rad].
    :param open: the same when they are apart.
    """

    root: tuple[float, float, float]
    axes: tuple[tuple[float, float, float], tuple[float, float, float]]
    bones: tuple[float, ...]
    radius: float
    closed: tuple[float, ...]
    open: tuple[float, ...]


_AHEAD = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
# The thumb leans out of the palm towards its side, and bends across to the index finger. Its first
# joint is its knuckle (ARKit's thumbKnuckle): it does not bend here, so that the knuckle is one
# rigid piece with the wrist.
_THUMB = np.array([0.70, 0.45, -0.55]) / np.linalg.norm([0.70, 0.45, -0.55])
_BEND = np.cross(_THUMB, [0.60, -0.35, -0.35])
_BEND /= np.linalg.norm(_BEND)

FINGERS: Mapping[str, Finger] = {
    'thumb': Finger((0.025, 0.028, -0.012), (tuple(_THUMB.tolist()), tuple(_BEND.tolist())),
                    (0.046, 0.036, 0.028), 0.0095, (0.0, 0.50, 0.42), (0.0, 0.05, 0.05)),
    'index': Finger((0.092, 0.025, 0.0), _AHEAD, (0.045, 0.026, 0.022), 0.0080,
                    (0.70, 0.70, 0.38), (0.18, 0.22, 0.10)),
    'middle': Finger((0.095, 0.003, 0.0), _AHEAD, (0.050, 0.030, 0.023), 0.0082,
                     (1.15, 1.25, 0.60), (0.40, 0.45, 0.25)),
    'ring': Finger((0.089, -0.018, 0.0), _AHEAD, (0.046, 0.028, 0.023), 0.0078,
                   (1.25, 1.30, 0.65), (0.50, 0.55, 0.30)),
    'little': Finger((0.080, -0.037, 0.0), _AHEAD, (0.036, 0.021, 0.020), 0.0068,
                     (1.25, 1.30, 0.65), (0.55, 0.60, 0.30)),
}


@dataclass(frozen=True)
class Appearance:
    """
    How a hand looks; components 0..1.

    :param size: factor on everything against the average hand.
    """

    skin: Rgb = (0.82, 0.62, 0.50)
    sleeve: Rgb = (0.25, 0.30, 0.42)
    size: float = 1.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Appearance:
        """Return somebody: skin from light to dark, any sleeve, hands of 90 to 110 %."""
        light = rng.uniform(0.0, 1.0)
        skin = (1.0 - light) * np.array([0.93, 0.76, 0.66]) + light * np.array([0.30, 0.19, 0.14])
        skin += rng.uniform(-0.03, 0.03, size=3)
        sleeve = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.0, 0.7), rng.uniform(0.1, 0.9))
        return cls(tuple(np.clip(skin, 0.0, 1.0).tolist()), sleeve,
                   float(rng.uniform(0.90, 1.10)))


@dataclass(frozen=True)
class HandPose:
    """
    Where a hand is.

    :param wrist: pose (4, 4) in the base frame.
    :param opening: 0: thumb and index meet, 1: as far apart as they go.
    :param elbow: (3,) to where the forearm reaches, in the base frame.
    """

    wrist: np.ndarray
    opening: float
    elbow: np.ndarray


def _numbers(values: object) -> str:
    return ' '.join(f'{float(value):.7g}' for value in np.ravel(np.asarray(values)))


def _capsule(start: object, end: object, radius: float, material: str) -> str:
    return (f'<geom type="capsule" fromto="{_numbers(start)} {_numbers(end)}" '
            f'size="{radius:.6g}" material="{material}" {_SEEN} mass="0.01"/>')


def _finger_xml(name: str, finger: Finger, size: float) -> str:
    """Return nested bodies, each with its bone along x and its joint about y."""
    along, about = finger.axes
    head, tail = '', ''
    place = (f'pos="{_numbers(size * np.array(finger.root))}" '
             f'xyaxes="{_numbers(along)} {_numbers(about)}"')
    for k, length in enumerate(size * np.array(finger.bones)):
        head += (f'<body name="{name}_{k}" {place}><joint name="{name}_{k}" axis="0 1 0"/>'
                 + _capsule((0, 0, 0), (length, 0, 0), size * finger.radius, 'skin'))
        place = f'pos="{length:.7g} 0 0"'
        tail += '</body>'
    return f'{head}<site name="{name}_tip" pos="{length:.7g} 0 0" size="0.002" group="4"/>{tail}'


def _hand_xml(look: Appearance) -> str:
    size = look.size
    roots = [size * np.array(FINGERS[name].root) for name in TIPS[1:]]
    palm = ''.join(_capsule((0.010 * size, 0.3 * root[1], 0.0), root, size * 0.0135, 'skin')
                   for root in roots)
    palm += _capsule((0.012 * size, 0.012 * size, -0.004 * size),
                     size * np.array(FINGERS['thumb'].root), size * 0.014, 'skin')
    fingers = ''.join(_finger_xml(name, finger, size) for name, finger in FINGERS.items())
    return f'''
    <body name="drawn_hand"><freejoint name="drawn_hand"/>{palm}{fingers}</body>
    <body name="forearm"><freejoint name="forearm"/>
      {_capsule((0, 0, 0), (0.06 * size, 0, 0), 0.024 * size, 'skin')}
      {_capsule((0.06 * size, 0, 0), (_FOREARM, 0, 0), 0.036 * size, 'sleeve')}
    </body>'''


def hand_model(profile: RobotProfile, task: str, look: Appearance) -> mujoco.MjModel:
    """
    Compile the scene of a robot and a task with a hand in the robot's place.

    Room, things and the cameras that stand in the room are the robot's own scene.

    :raises SimError: the scene does not compile, with MuJoCo's own words.
    """
    xml = scene_xml(profile, task)
    xml = xml.replace('</asset>', f'''
      <material name="skin" rgba="{_numbers(look.skin)} 1" specular="0.1" shininess="0.2"/>
      <material name="sleeve" rgba="{_numbers(look.sleeve)} 1" specular="0.05"/></asset>''')
    xml = xml.replace('</worldbody>', f'{_hand_xml(look)}</worldbody>')
    try:
        spec = mujoco.MjSpec.from_string(xml, assets=textures())
        # The robot goes, with all that moves it or names it.
        for parts in (spec.actuators, spec.tendons, spec.equalities, spec.pairs):
            for part in list(parts):
                spec.delete(part)
        for arm in profile.arms:
            ahead = f'{arm.name}_' if len(profile.arms) > 1 else ''
            spec.delete(spec.body(f'{ahead}base'))
        return spec.compile()
    except ValueError as error:
        raise SimError(f'the scene of a hand doing {task} does not compile: {error}') from error


class HandBody:
    """
    The hand of a compiled scene: puts it somewhere, and says where its joints are.

    :param model: of ``hand_model``.

    ``grip`` is the pose (4, 4) in the wrist's axes of a gripper in its place.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        kinds = mujoco.mjtObj
        self._model = model
        free = names(model, kinds.mjOBJ_JOINT, ('drawn_hand', 'forearm'))
        self._hand, self._forearm = (int(model.jnt_qposadr[joint]) for joint in free)
        self._bends = {name: model.jnt_qposadr[names(
            model, kinds.mjOBJ_JOINT, [f'{name}_{k}' for k in range(len(finger.bones))])]
            for name, finger in FINGERS.items()}
        self._tips = names(model, kinds.mjOBJ_SITE, [f'{name}_tip' for name in TIPS])
        self._wrist, self._knuckle = names(model, kinds.mjOBJ_BODY, ('drawn_hand', 'thumb_0'))
        self.grip = self._grip()

    def _grip(self) -> np.ndarray:
        """
        Return where a gripper would be (4, 4) in the wrist's axes.

        Its origin is where thumb and index end when they meet, y lies between them when they are
        apart, x leads away from the wrist.
        """
        data, tips = mujoco.MjData(self._model), []
        for opening in (0.0, 1.0):
            self.put(data, HandPose(np.eye(4), opening, np.array([-1.0, 0.0, 0.0])))
            mujoco.mj_kinematics(self._model, data)
            tips.append(self.tips(data)[:2])
        (thumb, index), (far_thumb, far_index) = tips
        across = (far_thumb - far_index) / np.linalg.norm(far_thumb - far_index)
        along = thumb + index - across * float((thumb + index) @ across)
        along /= np.linalg.norm(along)
        out = np.eye(4)
        out[:3, :3] = np.column_stack([along, across, np.cross(along, across)])
        out[:3, 3] = 0.5 * (thumb + index) + FINGERS['index'].radius * along
        return out

    def put(self, data: mujoco.MjData, pose: HandPose) -> None:
        """Put the hand there; ``mj_kinematics`` afterwards."""
        _place(data.qpos[self._hand:self._hand + 7], pose.wrist[:3, :3], pose.wrist[:3, 3])
        reach = pose.elbow - pose.wrist[:3, 3]
        along = reach / max(float(np.linalg.norm(reach)), 1e-9)
        side = np.cross([0.0, 0.0, 1.0], along)
        side = side / max(float(np.linalg.norm(side)), 1e-9)
        _place(data.qpos[self._forearm:self._forearm + 7],
               np.column_stack([along, side, np.cross(along, side)]), pose.wrist[:3, 3])
        for name, finger in FINGERS.items():
            closed, wide = np.array(finger.closed), np.array(finger.open)
            data.qpos[self._bends[name]] = closed + pose.opening * (wide - closed)

    def wrist(self, data: mujoco.MjData) -> np.ndarray:
        """Return the wrist's pose (4, 4)."""
        return _pose(data, self._wrist)

    def knuckle(self, data: mujoco.MjData) -> np.ndarray:
        """Return the pose (4, 4) of the thumb's knuckle: x along the thumb's first bone."""
        return _pose(data, self._knuckle)

    def tips(self, data: mujoco.MjData) -> np.ndarray:
        """Return the fingertips (5, 3), thumb to little finger."""
        return data.site_xpos[self._tips].copy()


def _place(qpos: np.ndarray, turn: np.ndarray, position: np.ndarray) -> None:
    qpos[:3] = position
    mujoco.mju_mat2Quat(qpos[3:7], np.ascontiguousarray(turn).ravel())


def _pose(data: mujoco.MjData, body: int) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = data.xmat[body].reshape(3, 3), data.xpos[body]
    return out
