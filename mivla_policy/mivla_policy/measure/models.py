"""Models for the serving benchmarks: real networks, in part untrained, for several robots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mivla_core.profile import RobotProfile
from mivla_policy.core.normalize import Normalizer, Statistics
from mivla_policy.errors import UnknownPolicy
from mivla_policy.model.checkpoint import load_checkpoint
from mivla_policy.model.config import LanguageConfig, MiVLAConfig, VisionConfig
from mivla_policy.model.embodiment import Embodiment
from mivla_policy.model.engine import Engine
from mivla_policy.model.mivla import MiVLA
from mivla_policy.policies.mivla import (
    ENGINE_PARAMETERS,
    MivlaPolicy,
    engine_settings,
    set_threads,
)
from mivla_policy.policies.robot import Robot

__all__ = ['has_gpu', 'large', 'tiny']

INSTRUCTION = 'press the bell'
CAMERAS = ('head', 'wrist', 'left')
# Heads and the width of tokens as in H-RDT; what is not said here is the default.
GEOMETRY = {
    'base-512': {'width': 512, 'depth': 8, 'heads': 16, 'kv_heads': 8, 'multiple_of': 256},
    'base': {'width': 2176, 'depth': 16, 'heads': 16, 'kv_heads': 8, 'multiple_of': 256}}


def has_gpu() -> bool:
    """Say whether the models run on a GPU here."""
    return torch.cuda.is_available()


def tiny(profiles: Sequence[RobotProfile], checkpoint: Path) -> MivlaPolicy:
    """
    Return a checkpoint's policy, which takes every robot for the one it was trained for.

    Cameras and slots are those of each robot's own profile: the chunks mean nothing, the work is
    the same.
    """
    network, info, _ = load_checkpoint(checkpoint)
    known = info.embodiments[0]
    return _policy('tiny (benchmark)', network, profiles, known.normalizer, known.instructions)


def large(name: str, profiles: Sequence[RobotProfile]) -> MivlaPolicy:
    """Return an untrained network of one of ``GEOMETRY``, with image tokens made beforehand."""
    if name not in GEOMETRY:
        raise UnknownPolicy(f'no benchmark model {name!r}; known: tiny, wire, '
                            f'{", ".join(GEOMETRY)}')
    torch.manual_seed(0)
    joints = len(profiles[0].joints)
    numbers = Statistics(np.zeros(joints), np.ones(joints))
    config = MiVLAConfig(
        spaces=tuple(sorted({profile.packing.space for profile in profiles})), cameras=CAMERAS,
        vision=VisionConfig(kind='dinov2+siglip', height=384, width=384),
        language=LanguageConfig(width=64, max_tokens=16), **GEOMETRY[name])
    return _policy(f'{name} (benchmark, untrained)', MiVLA(config).eval(), profiles,
                   Normalizer(numbers, numbers), (INSTRUCTION,))


def _policy(name: str, network: MiVLA, profiles: Sequence[RobotProfile], normalizer: Normalizer,
            instructions: tuple[str, ...]) -> MivlaPolicy:
    engine = Engine(network, engine_settings('mivla', ENGINE_PARAMETERS))
    set_threads('mivla', 0, engine)
    robots = [Robot(Embodiment.of(profile, network.config, normalizer, instructions),
                    profile.lower, profile.upper) for profile in profiles]
    towers = None
    if network.config.vision.kind != 'keypoints':
        vision = network.config.vision
        tokens = torch.randn(64, vision.tokens, vision.feature_width).to(
            engine.device, engine.dtype)

        def towers(pictures: Tensor) -> Tensor:
            count = len(pictures)
            return tokens.repeat(-(-count // len(tokens)), 1, 1)[:count]

    return MivlaPolicy(engine, name, robots, towers=towers)
