"""Fine-tuning: demonstrations in, a checkpoint with its training curve out."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Episode
from mivla_policy.core.normalize import Normalizer
from mivla_policy.core.packing import SlotMap
from mivla_policy.errors import ConfigError, EpisodeError
from mivla_policy.learn.controls import save_demonstrations
from mivla_policy.learn.curve import EVENTS, write_curve
from mivla_policy.learn.dataset import TrainingSet, build_training_set
from mivla_policy.learn.devices import Devices
from mivla_policy.learn.familiar import doubt_of, familiar_of
from mivla_policy.learn.features import feature_table
from mivla_policy.learn.loop import Plan, Trainer
from mivla_policy.learn.objective import Towers, make_network, make_objective
from mivla_policy.learn.progress import Progress
from mivla_policy.learn.recipe import Recipe
from mivla_policy.learn.samples import Samples
from mivla_policy.learn.start import Start
from mivla_policy.learn.state import Running
from mivla_policy.model.checkpoint import CheckpointInfo, save_checkpoint
from mivla_policy.model.config import MiVLAConfig, Preset
from mivla_policy.model.embodiment import Embodiment, camera_places
from mivla_policy.model.novelty import save_familiar

__all__ = ['Plan', 'TrainingResult', 'check_robot', 'digest_of', 'finetune', 'train',
           'training_folder']

LOSSES = {'mivla': 'flow-matching loss', 'act': 'L1 + KL', 'bc': 'squared error'}
LOOK_ROWS = 128      # samples per pass over the episodes left out


@dataclass(frozen=True)
class TrainingResult:
    """
    What came out of a training.

    :param network: with the averaged weights, in evaluation mode.
    :param normalizer: statistics of the training samples.
    :param losses: of every step.
    :param holdout: (step, loss) on episodes left out; empty without any.
    :param seconds: spent on the steps.
    :param waited: seconds of them spent waiting for batches.
    """

    network: nn.Module
    normalizer: Normalizer
    losses: list[float]
    holdout: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    waited: float = 0.0


def training_folder(out_dir: Path) -> Path:
    """Return where a training that makes this checkpoint keeps its state until it is done."""
    return out_dir.with_name(f'{out_dir.name}.training')


def finetune(episodes: Sequence[Episode], profile: RobotProfile, preset: Preset, out_dir: Path,
             *, name: str, seed: int, steps: int | None = None,
             time_budget_s: float | None = None, threads: int = 2,
             progress: Callable[[Progress], None] = lambda _: None,
             provenance: Mapping[str, Any] | None = None, overwrite: bool = False,
             plan: Plan | None = None, start: Start | None = None, towers: Towers | None = None,
             cache: Path | None = None, events: bool = True) -> Path:
    """
    Train a policy for a robot and write its checkpoint, training curve and demonstrations.

    While it runs, ``training_folder(out_dir)`` holds its state, curve and event files; it goes
    into the checkpoint, or is removed, when the training is done.

    :param preset: network and recipe.
    :param out_dir: of the checkpoint; ``training.json``, ``training.png``, ``events`` (of
        TensorBoard) and ``demonstrations.safetensors`` (for the replay control) and
        ``novelty.safetensors`` (for the warning at run time) are written beside the weights.
    :param name: of the policy.
    :param steps: length of the schedule; default: the recipe's.
    :param time_budget_s: the schedule follows the clock instead [s]; not reproducible.
    :param threads: of torch.
    :param progress: called after every step.
    :param provenance: more of it, stored as given.
    :param plan: how it is run; its folder and ``progress`` are set here.
    :param start: weights to begin with.
    :param towers: of a network that sees features.
    :param cache: folder for decoded pictures and features that are too many for memory.
    :param events: keep the event files.
    :return: the checkpoint's directory.
    :raises EpisodeError: an episode does not fit the profile or cannot be learned from.
    :raises TrainingStopped: ``plan.stop`` said so; the state is kept.
    """
    for episode in episodes:
        check_robot(episode, profile)
    recipe = Recipe.from_preset(preset.training, f'preset {preset.name}: training')
    roles = [camera.role for camera in profile.cameras]
    packed = SlotMap.of(profile.packing, profile.joint_names)
    config = preset.config(packed.space, roles)
    if out_dir.exists() and not overwrite:
        raise ConfigError(f'{out_dir} exists; choose another directory')
    folder = training_folder(out_dir)
    plan = replace(plan or Plan(), folder=folder, progress=progress)
    if folder.exists() and not plan.resume:
        if not overwrite:
            raise ConfigError(f'{folder} exists: a training that is not done; resume it, or '
                              'remove the folder')
        shutil.rmtree(folder)
    torch.set_num_threads(threads)
    data = build_training_set(episodes, config, packed, camera_places(config.cameras, roles),
                              recipe.every_frame, cache)
    result = train(data, config, recipe, seed, steps, time_budget_s, plan=plan, start=start,
                   towers=towers, cache=cache)
    record = {
        'preset': preset.name, 'recipe': asdict(recipe), 'seed': seed, 'threads': threads,
        'time_budget_s': time_budget_s, 'steps': len(result.losses),
        'seconds': round(result.seconds, 1), 'samples': len(data), 'torch': torch.__version__,
        'parameters': sum(p.numel() for p in result.network.parameters()),
        'episodes': [e.source for e in episodes],
        **({} if start is None else {'start': start.record()}), **(provenance or {})}
    info = CheckpointInfo(
        name=name, model=config, provenance=record, embodiments=(
            Embodiment.of(profile, config, result.normalizer, data.instructions),))
    if Devices().main:
        save_checkpoint(out_dir, result.network, info, {profile.hash: data.mean_images()},
                        overwrite)
        save_demonstrations(out_dir, episodes, config.dt_ns)
        known = familiar_of(result.network, data, towers)
        if known is not None:
            doubt = doubt_of(result.network, result.normalizer, data,
                             _split(data, recipe.holdout_episodes)[1], towers,
                             str(Devices().device))
            save_familiar(out_dir, {profile.hash: known if doubt is None else replace(
                known, doubt=doubt)})
        write_curve(out_dir, Running(result.losses, result.holdout, result.seconds,
                                     result.waited), LOSSES[config.kind])
        if events:
            (folder / EVENTS).replace(out_dir / EVENTS)
        shutil.rmtree(folder)
    return out_dir.absolute()


def train(data: TrainingSet, config: MiVLAConfig, recipe: Recipe, seed: int,
          steps: int | None = None, time_budget_s: float | None = None,
          progress: Callable[[Progress], None] | None = None,
          clock: Callable[[], float] = time.monotonic, *, plan: Plan | None = None,
          start: Start | None = None, towers: Towers | None = None,
          cache: Path | None = None) -> TrainingResult:
    """
    Train a network.

    With ``steps`` the result depends on seed, data, recipe and the number of torch threads only,
    whether it was stopped and resumed or not; with ``time_budget_s`` the learning rate follows the
    clock, which shared cores can keep.

    :param progress: called after every step; default: the plan's.
    :param clock: seconds; used for the time budget and for reports.
    :param plan: how it is run.
    :param start: weights to begin with; default: drawn from the seed.
    :param towers: of a network that sees features.
    :param cache: folder for features that are too many for memory.
    """
    plan = replace(plan or Plan(), clock=clock)
    plan = plan if progress is None else replace(plan, progress=progress)
    _check(data, config, recipe, steps, time_budget_s, towers)
    learn, unseen = _split(data, recipe.holdout_episodes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_network(config)
    normalizer = None if start is None else start.load(network, data.packed.space)
    if normalizer is None:
        normalizer = Normalizer.of(data.states[learn], data.commands[learn], data.inside[learn])
    if not recipe.train_vision and config.vision.kind == 'keypoints':
        network.image_encoders.requires_grad_(False)
    devices = Devices()
    if min(recipe.batch_size, len(learn)) % devices.part[1]:
        raise ConfigError(f'batch_size {recipe.batch_size} cannot be shared by '
                          f'{devices.part[1]} processes')
    features = None
    if towers is not None and not recipe.augmentation.varies:
        # What never changes is computed once.
        features, towers = feature_table(data, config, towers, devices.device, cache), None
    objective = make_objective(network, data, recipe, towers)

    def source(part: tuple[int, int], rows: NDArray[np.int64]) -> Samples:
        return Samples(data, config, recipe, normalizer, objective, rows, features, part)
    looking = make_objective(network, data, recipe, towers).to(devices.device)
    everything = source((0, 1), unseen)

    def look(average: nn.Module) -> float:
        """Return the loss on samples left out, always with the same noise."""
        looking.network = average
        generator, total = torch.Generator().manual_seed(0), 0.0
        for rows in torch.split(torch.from_numpy(unseen), LOOK_ROWS):
            drawn = {'rows': rows, **looking.draw(len(rows), generator)}
            batch = {name: value.to(devices.device)
                     for name, value in everything.collect(drawn).items()}
            total += len(rows) * float(looking(batch))
        return total / len(unseen)
    trainer = Trainer(
        objective, source(devices.part, learn), recipe, torch.Generator().manual_seed(seed),
        devices, look if len(unseen) else None, plan, what=LOSSES[config.kind], identity={
            'model': config.to_json(), 'recipe': asdict(recipe), 'seed': seed, 'steps': steps,
            'time_budget_s': time_budget_s, 'data': digest_of(data),
            'start': None if start is None else start.record()})
    average, running = trainer.run(steps, time_budget_s)
    return TrainingResult(average.cpu(), normalizer, running.losses, running.holdout,
                          running.seconds, running.waited)


def _check(data: TrainingSet, config: MiVLAConfig, recipe: Recipe, steps: int | None,
           time_budget_s: float | None, towers: Optional[Towers]) -> None:
    """Raise ConfigError for what contradicts itself."""
    recipe.check_cameras(len(config.cameras))
    if (config.vision.kind == 'keypoints') != (towers is None):
        raise ConfigError(f'the network sees {config.vision.kind}; give the folder of both towers '
                          "for 'dinov2+siglip' (--vision), and only then")
    if time_budget_s is not None and (steps is not None or time_budget_s <= 0):
        raise ConfigError(f'give steps or a time budget > 0, got {steps} and {time_budget_s}')
    if not len(data):
        raise ConfigError('no sample to learn from')


def _split(data: TrainingSet,
           holdout: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the samples to learn from and those of the last ``holdout`` episodes."""
    episodes = int(data.episode.max()) + 1
    if holdout >= episodes:
        raise ConfigError(f'holdout_episodes is {holdout} of {episodes}: nothing is left to '
                          'learn from')
    left_out = data.episode >= episodes - holdout
    return np.flatnonzero(~left_out), np.flatnonzero(left_out)


def digest_of(data: TrainingSet) -> str:
    """Return what tells this training set from another: its motions and sentences."""
    digest = hashlib.sha256(repr((data.instructions, data.camera_roles, data.packed)).encode())
    for part in (data.states, data.commands, data.inside, data.instruction, data.episode):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def check_robot(episode: Episode, profile: RobotProfile) -> None:
    """Raise EpisodeError unless the episode was recorded with this meaning of the profile."""
    if episode.joint_names != profile.joint_names:
        raise EpisodeError(f'{episode.source}: joints {list(episode.joint_names)}, profile '
                           f'{profile.name} has {list(profile.joint_names)}')
    if episode.profile_hash and episode.profile_hash != profile.hash:
        raise EpisodeError(f'{episode.source}: recorded with profile {episode.profile_hash}, '
                           f'{profile.name} is {profile.hash}; see "mivla profile diff"')
