"""What the simulation knows of an arm beyond its profile: shapes, masses, motors, cameras."""

from __future__ import annotations

from dataclasses import dataclass

from mivla_core.errors import MivlaError

__all__ = ['ArmModel', 'CameraMount', 'GripperModel', 'Motor', 'Shape', 'SimError', 'arm_model']

_DARK = 'arm_dark'
_LIGHT = 'arm_light'
_METAL = 'arm_metal'


class SimError(MivlaError):
    """The simulated world was asked for something that it cannot do."""


@dataclass(frozen=True)
class Shape:
    """
    One primitive of a link, in the link's MDH frame.

    :param kind: 'capsule' or 'cylinder' (with ``fromto``) or 'box' or 'sphere' (with ``pos``).
    :param size: radius, or the half sizes of a box [m].
    :param at: ``fromto`` (6 numbers) or ``pos`` (3 numbers) [m].
    :param mass: mass of the primitive [kg]; inertia follows from it and the shape.
    """

    kind: str
    size: tuple[float, ...]
    at: tuple[float, ...]
    mass: float = 0.0
    material: str = _LIGHT
    collide: bool = True


@dataclass(frozen=True)
class Motor:
    """
    Position servo of one joint.

    :param kp: stiffness [N m/rad].
    :param kv: damping of the servo [N m s/rad].
    :param friction: dry friction of the gear [N m].
    :param damping: viscous friction of the gear, which stays when the servo is off [N m s/rad].
    :param armature: inertia of the rotor at the joint [kg m^2].
    """

    kp: float
    kv: float
    friction: float
    damping: float
    armature: float


@dataclass(frozen=True)
class GripperModel:
    """
    Parallel gripper with two coupled fingers that slide along y of the flange frame.

    :param arm_m: lever that turns force on the stroke into the motor torque that the device
        reports [m].
    :param width: half width of a finger along x [m].
    :param thickness: half thickness of a finger along y [m].
    """

    base_mass: float
    finger_mass: float
    kp: float
    kv: float
    arm_m: float
    width: float
    thickness: float


@dataclass(frozen=True)
class CameraMount:
    """
    Where a simulated camera sits: MuJoCo convention, looking along -z with +y up.

    :param body: MJCF body it is fixed to ('world' or 'link6').
    :param xyaxes: x and y axis of the camera in the frame of the body.
    :param fovy: vertical field of view [deg].
    """

    body: str
    pos: tuple[float, float, float]
    xyaxes: tuple[float, float, float, float, float, float]
    fovy: float


@dataclass(frozen=True)
class ArmModel:
    """Bodies, motors and cameras of one kind of arm, in the order of its arm joints."""

    base: tuple[Shape, ...]
    links: tuple[tuple[Shape, ...], ...]
    motors: tuple[Motor, ...]
    gripper: GripperModel
    cameras: dict[str, CameraMount]


# Masses: the newer vendor URDF (its sum, 4.66 kg, includes the motors; the 2024 one lacks them).
# Its inertias of links 2, 3 and 5 are taken about the joint, not the centre of mass, so they are
# not used: MuJoCo computes inertias from these primitives. Torque limits are the profile's
# ``effort``. The vendor publishes no servo gains: these give a well damped step without overshoot
# and a lag of 15 to 40 ms.
_PIPER = ArmModel(
    base=(
        Shape('box', (0.075, 0.075, 0.006), (0.0, 0.0, 0.006), material=_DARK),
        Shape('cylinder', (0.050,), (0, 0, 0.012, 0, 0, 0.050), 1.02, _LIGHT),
        Shape('cylinder', (0.045,), (0, 0, 0.050, 0, 0, 0.080), material=_DARK),
    ),
    links=(
        (
            Shape('cylinder', (0.054,), (0, 0, -0.043, 0, 0, 0.010), 0.25, _LIGHT),
            Shape('capsule', (0.040,), (0, -0.030, 0, 0, 0.030, 0), 0.46, _DARK),
        ),
        (
            Shape('cylinder', (0.034,), (0, 0, -0.066, 0, 0, 0.066), 0.26, _LIGHT),
            Shape('capsule', (0.030,), (0.03, 0, 0, 0.262, 0, 0), 0.40, _LIGHT),
            Shape('capsule', (0.036,), (0.285, 0, -0.026, 0.285, 0, 0.026), 0.50, _DARK),
        ),
        (
            Shape('cylinder', (0.026,), (0, 0, -0.056, 0, 0, 0.056), 0.10, _LIGHT),
            Shape('capsule', (0.027,), (-0.006, -0.03, 0, -0.022, -0.175, 0), 0.40, _LIGHT),
        ),
        (
            Shape('cylinder', (0.028,), (0, 0, -0.085, 0, 0, -0.030), 0.10, _DARK),
            Shape('capsule', (0.027,), (0, -0.018, 0, 0, 0.018, 0), 0.28, _DARK),
        ),
        (
            Shape('cylinder', (0.022,), (0, 0, -0.040, 0, 0, 0.040), 0.083, _LIGHT),
            Shape('capsule', (0.024,), (0, -0.018, 0, 0, -0.058, 0), 0.30, _LIGHT),
        ),
        (
            Shape('cylinder', (0.026,), (0, 0, -0.014, 0, 0, 0.004), 0.007, _METAL),
            Shape('box', (0.026, 0.036, 0.020), (0, 0, 0.024), 0.30, _DARK),
            Shape('box', (0.018, 0.050, 0.012), (0, 0, 0.056), 0.15, _DARK),
            Shape('box', (0.010, 0.014, 0.010), (-0.078, 0, 0.016), material=_DARK, collide=False),
            Shape(
                'box', (0.028, 0.008, 0.003), (-0.050, 0, 0.010), material=_METAL, collide=False
            ),
        ),
    ),
    motors=(
        Motor(1200.0, 55.0, 0.15, 2.0, 0.10),
        Motor(1200.0, 55.0, 0.15, 2.0, 0.10),
        Motor(900.0, 32.0, 0.15, 1.5, 0.10),
        Motor(250.0, 7.0, 0.05, 0.3, 0.03),
        Motor(250.0, 7.0, 0.05, 0.3, 0.03),
        Motor(120.0, 4.0, 0.05, 0.3, 0.03),
    ),
    gripper=GripperModel(
        base_mass=0.45,
        finger_mass=0.025,
        kp=2000.0,
        kv=60.0,
        arm_m=0.02,
        width=0.009,
        thickness=0.005,
    ),
    cameras={
        'head': CameraMount('world', (0.80, 0.0, 0.55), (0, 1, 0, -0.647, 0, 0.762), 42.0),
        'wrist': CameraMount('link6', (-0.075, 0.0, 0.03), (0, 1, 0, 0.906, 0, -0.423), 75.0),
        # For pictures of the whole rig (README, evaluation films); no policy reads it.
        'overview': CameraMount(
            'world', (0.78, 0.72, 0.52), (-0.68, 0.73, 0, -0.30, -0.28, 0.91), 45.0
        ),
    },
)

_MODELS = {'piper': _PIPER}


def arm_model(backend: str) -> ArmModel:
    """
    Return the simulated body of the arms that a driver backend drives.

    :param backend: ``profile.driver.backend``.
    :raises SimError: when no model is known for that backend.
    """
    model = _MODELS.get(backend)
    if model is None:
        raise SimError(
            f'no simulated arm for driver backend {backend!r}; known: '
            f'{", ".join(sorted(_MODELS))}. Run with sim:=false '
            'or add a model to mivla_drivers.sim.arm_model.'
        )
    return model
