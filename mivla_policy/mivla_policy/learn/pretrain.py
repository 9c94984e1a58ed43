"""
Mutual-imitation pre-training: robots' and hands' demonstrations in, a trunk to fine-tune out.

Four variants, as MiVLA's ablation has them: ``human``: hands, their own actions; ``h2r``: hands,
their own and the robot's; ``r2h``: robots, their own and the hands'; ``both``. Scratch is to do
without. What comes out is a checkpoint that ``mivla finetune --from`` begins with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Episode
from mivla_policy.core.normalize import Normalizer
from mivla_policy.core.packing import SlotMap
from mivla_policy.errors import ConfigError, EpisodeError
from mivla_policy.formats.egodex import HandEpisode
from mivla_policy.human.episodes import (
    HAND_SPACE,
    as_hand,
    as_robot,
    hand_demonstration,
    hand_slots,
)
from mivla_policy.human.mapping import HandMapping
from mivla_policy.human.settings import MappingSettings
from mivla_policy.learn.curve import EVENTS, write_curve
from mivla_policy.learn.dataset import build_training_set
from mivla_policy.learn.devices import Devices
from mivla_policy.learn.loop import Plan, Trainer
from mivla_policy.learn.mutual import MutualObjective, MutualSource, View, normalizers_of
from mivla_policy.learn.objective import Towers
from mivla_policy.learn.recipe import Recipe
from mivla_policy.learn.train import LOSSES, check_robot, digest_of, training_folder
from mivla_policy.model.checkpoint import CheckpointInfo, save_checkpoint
from mivla_policy.model.config import MiVLAConfig, Preset
from mivla_policy.model.embodiment import Embodiment, camera_places
from mivla_policy.model.mivla import MiVLA

__all__ = ['VARIANTS', 'Material', 'pretrain']

# variant: (what hands answer to their pictures, what robots answer to theirs)
VARIANTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'human': (('hand',), ()),
    'h2r': (('hand', 'robot'), ()),
    'r2h': ((), ('robot', 'hand')),
    'both': (('hand', 'robot'), ('robot', 'hand')),
}
HANDS = 'hands'     # as an embodiment of the checkpoint


@dataclass(frozen=True)
class Material:
    """
    What is learned from.

    :param profile: of the robot.
    :param mapping: between hands and that robot.
    :param robot: its demonstrations.
    :param hands: demonstrations by hand, with pictures.
    :param role: camera of the robot whose place the hands' pictures take.
    """

    profile: RobotProfile
    mapping: HandMapping
    robot: Sequence[Episode] = ()
    hands: Sequence[HandEpisode] = ()
    role: str = 'head'
    unreached: list[str] = field(default_factory=list)

    def views(self, variant: str, config: MiVLAConfig, every_frame: bool) -> list[View]:
        """
        Return the views of a variant; notes in ``unreached`` what the robot could not follow.

        :raises EpisodeError: nothing to learn from, or an episode that does not fit.
        """
        of_hands, of_robots = VARIANTS[variant]
        found = []
        if of_robots:
            for episode in self.robot:
                check_robot(episode, self.profile)
            found.append(self._robot_view('hand' in of_robots, config, every_frame))
        if of_hands:
            found.append(self._hand_view('robot' in of_hands, config, every_frame))
        return found

    def _robot_view(self, mapped: bool, config: MiVLAConfig, every_frame: bool) -> View:
        if not self.robot:
            raise EpisodeError('no demonstration of a robot to learn from')
        roles = [camera.role for camera in self.profile.cameras]
        places = camera_places(config.cameras, roles)
        own = build_training_set(
            self.robot, config, SlotMap.of(self.profile.packing, self.profile.joint_names),
            places, every_frame)
        other = None if not mapped else replace(build_training_set(
            [as_hand(episode, self.mapping) for episode in self.robot], config,
            hand_slots(self.mapping.sides), places, every_frame), images=own.images)
        return View('robot', own, other)

    def _hand_view(self, mapped: bool, config: MiVLAConfig, every_frame: bool) -> View:
        if not self.hands:
            raise EpisodeError('no demonstration by hand to learn from')
        if self.role not in config.cameras:
            raise ConfigError(f'no camera {self.role!r} among {list(config.cameras)}')
        places = [self.role if name == self.role else '' for name in config.cameras]
        kept, moved = list(self.hands), []
        if mapped:
            kept = []
            for hands in self.hands:
                episode, motion = as_robot(hands, self.mapping, self.role)
                share = float(motion.reached.mean())
                if share < self.mapping.settings.inverse.reached_share:
                    self.unreached.append(f'{hands.source}: {share:.0%} of its frames reached')
                    continue
                kept.append(hands)
                moved.append(episode)
            if not kept:
                raise EpisodeError(
                    f'{self.profile.name} cannot follow any of {len(self.hands)} demonstrations '
                    f'by hand ({self.unreached[0]}); see "start", "heading" and "scale" of the '
                    'mapping')
        own = build_training_set(
            [hand_demonstration(hands, self.role, self.mapping.sides) for hands in kept], config,
            hand_slots(self.mapping.sides), places, every_frame)
        other = None if not mapped else replace(build_training_set(
            moved, config, SlotMap.of(self.profile.packing, self.profile.joint_names), places,
            every_frame), images=own.images)
        return View('hand', own, other)


def pretrain(material: Material, preset: Preset, out_dir: Path, *, variant: str, name: str,
             seed: int, steps: int | None = None, threads: int = 2,
             plan: Plan | None = None, towers: Towers | None = None,
             provenance: Mapping[str, Any] | None = None, events: bool = True) -> Path:
    """
    Pre-train a network and write its checkpoint and training curve.

    :param preset: network and recipe; the network gets the spaces of the variant.
    :param out_dir: of the checkpoint; while it runs, ``training_folder(out_dir)`` holds its state.
    :param variant: of ``VARIANTS``.
    :param name: of the checkpoint.
    :param steps: length of the schedule; default: the recipe's.
    :param threads: of torch.
    :param plan: how it is run; its folder is set here.
    :param towers: of a network that sees features.
    :param provenance: more of it, stored as given.
    :param events: keep TensorBoard's files.
    :return: the checkpoint's directory.
    :raises ConfigError: an unknown variant, or the checkpoint exists.
    :raises EpisodeError: nothing to learn from, or an episode that does not fit.
    :raises TrainingStopped: ``plan.stop`` said so; the state is kept.
    """
    if variant not in VARIANTS:
        raise ConfigError(f'unknown variant {variant!r}; known: {", ".join(VARIANTS)}')
    folder = training_folder(out_dir)
    plan = replace(plan or Plan(), folder=folder)
    if out_dir.exists() or (folder.exists() and not plan.resume):
        raise ConfigError(f'{out_dir} or {folder} exists; choose another directory, or resume')
    recipe = Recipe.from_preset(preset.training, f'preset {preset.name}: training')
    config = _config(preset, material.profile, variant)
    recipe.check_cameras(len(config.cameras))
    torch.set_num_threads(threads)
    views = material.views(variant, config, recipe.every_frame)
    normalizers = normalizers_of(views)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MiVLA(config)
    devices = Devices()
    objective = MutualObjective(network, views, recipe, towers)
    source = MutualSource(objective, views, recipe, normalizers, devices.part)
    record = _record(material, preset, recipe, variant, seed, views)
    trainer = Trainer(objective, source, recipe, torch.Generator().manual_seed(seed), devices,
                      plan=plan, what=LOSSES[config.kind], identity={
                          'model': config.to_json(), 'recipe': asdict(recipe), 'seed': seed,
                          'steps': steps, 'variant': variant, 'data': [
                              digest_of(data) for view in views for data in view.answers]})
    average, running = trainer.run(steps)
    average = average.cpu()
    assert isinstance(average, MiVLA)
    if devices.main:
        bodies, means = _bodies(material, views, normalizers)
        save_checkpoint(out_dir, average, CheckpointInfo(
            name=name, model=config, embodiments=bodies, provenance={
                **record, 'steps': len(running.losses), 'seconds': round(running.seconds, 1),
                'threads': threads, **(provenance or {})}), means)
        write_curve(out_dir, running, LOSSES[config.kind])
        if events:
            (folder / EVENTS).replace(out_dir / EVENTS)
        shutil.rmtree(folder)
    return out_dir.absolute()


def _config(preset: Preset, profile: RobotProfile, variant: str) -> MiVLAConfig:
    """Return the preset's network with the spaces that the variant has answers in."""
    space = profile.packing.space
    config = preset.config(space, [camera.role for camera in profile.cameras])
    if config.kind != 'mivla':
        raise ConfigError(f'preset {preset.name} makes a network of kind {config.kind!r}; '
                          'mutual imitation needs the trunk and heads of kind \'mivla\'')
    answers = {answer for part in VARIANTS[variant] for answer in part}
    return replace(config, spaces=tuple(
        name for name, kind in ((space, 'robot'), (HAND_SPACE, 'hand')) if kind in answers))


def _record(material: Material, preset: Preset, recipe: Recipe, variant: str, seed: int,
            views: Sequence[View]) -> dict[str, Any]:
    """Return the provenance."""
    return {
        'pretraining': variant, 'preset': preset.name, 'recipe': asdict(recipe), 'seed': seed,
        'mapping': asdict(material.mapping.settings), 'torch': torch.__version__,
        'samples': {view.name: len(view.own) for view in views},
        'robot_episodes': [episode.source for episode in material.robot],
        'hand_episodes': [Path(hands.source).name for hands in material.hands],
        'unreached': list(material.unreached)}


def _bodies(material: Material, views: Sequence[View], normalizers: Mapping[str, Normalizer],
            ) -> tuple[tuple[Embodiment, ...], dict[str, dict[str, NDArray[np.uint8]]]]:
    """Return the embodiments of the checkpoint and their mean pictures."""
    bodies: list[Embodiment] = []
    means: dict[str, dict[str, NDArray[np.uint8]]] = {}
    profile = material.profile
    for space in normalizers:
        # A robot that was seen itself lends its cameras; else those of the hands are all it has.
        view = next(view for wanted in ('own', 'other') for view in views
                    if (data := getattr(view, wanted)) is not None
                    and data.packed.space == space)
        data = next(data for data in view.answers if data.packed.space == space)
        if space == HAND_SPACE:
            text = json.dumps(asdict(material.mapping.settings))
            identity, names = hands_hash(material.mapping.settings), tuple(
                f'hand48.{slot}' for slot in data.packed.slots)
            robot = HANDS
        else:
            identity, text, robot = profile.hash, profile.text, profile.name
            names = profile.joint_names
        bodies.append(Embodiment(robot, identity, text, names, space, data.packed.slots,
                                 data.camera_roles, normalizers[space], data.instructions))
        means[identity] = view.own.mean_images()
    return tuple(bodies), means


def hands_hash(settings: MappingSettings) -> str:
    """Return what stands for a profile hash where the body is a person's hands."""
    text = json.dumps(asdict(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

