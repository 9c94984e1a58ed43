"""
A training step of ``mivla finetune`` beside one of a plain PyTorch loop; for ``bench train``.

Same network (preset ``tiny``), weights, batch, augmentation (H-RDT's), precision, cores and number
of workers; one flow sample per observation. The plain loop (``benchmarks/plain_training.py``) runs
in processes of its own, with its worker processes and, because on few cores those can cost more
than they bring, once more without; the faster one counts. Every round measures each way once, in
an order that moves on by one; who is not measured is stopped, workers and all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from mivla_core.images import encode_jpeg
from mivla_core.profile import RobotProfile
from mivla_policy.core.episode import Commanded, Episode, FrameTrack, Measured
from mivla_policy.core.normalize import Normalizer
from mivla_policy.core.observation import model_image
from mivla_policy.core.packing import SlotMap
from mivla_policy.errors import PolicyError, TrainingStopped
from mivla_policy.learn.dataset import TrainingSet, build_training_set
from mivla_policy.learn.devices import Devices
from mivla_policy.learn.loop import Plan, Trainer
from mivla_policy.learn.objective import FlowObjective
from mivla_policy.learn.progress import Progress
from mivla_policy.learn.recipe import Recipe
from mivla_policy.learn.samples import Samples
from mivla_policy.model.config import MiVLAConfig, load_preset, load_recipe
from mivla_policy.model.mivla import MiVLA

__all__ = ['TrainingTimes', 'measure']

EPISODES, FRAMES = 8, 64
PICTURE = (240, 320)       # px, height and width: H-RDT's frames
STEPS, ROUNDS = 10, 4      # steps per way and round; rounds at least
WORKERS = 2
SEED = 0
OURS = 'mivla finetune'


@dataclass
class TrainingTimes:
    """
    What was measured.

    :param times: of each way, seconds per step [ms], a number per round.
    :param waited: part of our time spent waiting for batches.
    :param losses: of each way on the same samples with the same noise, before training.
    :param threads: of torch, in each way.
    """

    threads: int
    times: dict[str, list[float]] = field(default_factory=dict)
    waited: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)


def measure(seconds: float, script: Path, profile: RobotProfile, steps: int = STEPS,
            rounds: int = ROUNDS) -> TrainingTimes:
    """
    Measure for about ``seconds``.

    :param script: the plain loop.
    :param profile: of a robot with two cameras.
    :param steps: per way and round.
    :param rounds: at least, whatever the time.
    :raises PolicyError: it does not run.
    """
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    preset = load_preset('tiny')
    packed = SlotMap.of(profile.packing, profile.joint_names)
    config = preset.config(packed.space, [camera.role for camera in profile.cameras])
    recipe = replace(Recipe.from_preset(preset.training), noise_samples=1, augmentation=(
        Recipe.from_preset(load_recipe('hrdt')).augmentation))
    episodes = [_episode(number, profile) for number in range(EPISODES)]
    data = build_training_set(episodes, config, packed, every_frame=True)
    torch.manual_seed(SEED)
    network = MiVLA(config)
    normalizer = Normalizer.of(data.states, data.commands, data.inside)
    objective = FlowObjective(network, data, recipe)
    samples = Samples(data, config, recipe, normalizer, objective, np.arange(len(data)))
    result = TrainingTimes(threads)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='mivla-bench-')))
        fixed = _write(folder, episodes, data, samples, objective, recipe)
        ways = {f'plain loop, {workers} workers': stack.enter_context(
            _Plain(script, folder, workers, threads)) for workers in (WORKERS, 0)}
        for name, way in ways.items():
            result.losses[name] = way.check()
            way.steps(steps)     # warm-up
        with torch.no_grad():
            result.losses[OURS] = float(objective(fixed))
        trainer = Trainer(objective, samples, recipe, torch.Generator().manual_seed(SEED),
                          Devices())
        _rounds(result, ways, trainer, seconds, steps, rounds)
    return result


def _rounds(result: TrainingTimes, ways: Mapping[str, _Plain], trainer: Trainer,
            seconds: float, steps: int, least: int) -> None:
    """Let every way make its steps in turn until the time is over."""
    end = time.monotonic() + seconds
    begin, waited, spent, before = [0.0], [0.0], [0.0], [0.0]
    over: list[bool] = []

    def progress(state: Progress) -> None:
        if state.step % steps:
            return
        if state.step > steps:     # the first ones warm up
            took = time.perf_counter() - begin[0]
            result.times.setdefault(OURS, []).append(1e3 * took / steps)
            spent[0] += took
            waited[0] += trainer.running.waited - before[0]
        names = list(ways)
        if (state.step // steps) % 2:
            names.reverse()
        for name in names:
            result.times.setdefault(name, []).append(1e3 * ways[name].steps(steps) / steps)
        if time.monotonic() > end and len(result.times.get(OURS, ())) >= least:
            over.append(True)
        before[0], begin[0] = trainer.running.waited, time.perf_counter()
    # The budget of steps is never reached: the time is.
    trainer.plan = Plan(progress=progress, stop=lambda: bool(over))
    try:
        trainer.run(steps=10**6)
    except TrainingStopped:
        result.waited = waited[0] / spent[0]
    # The plain loops ran once more than we did, before our first round.
    rounds = len(result.times[OURS])
    for name in ways:
        result.times[name] = result.times[name][:rounds]


class _Plain:
    """The plain loop in a process of its own, stopped between its rounds."""

    def __init__(self, script: Path, folder: Path, workers: int, threads: int) -> None:
        """Raise PolicyError when the script is not there."""
        if not script.is_file():
            raise PolicyError(f'{script}: the plain loop is not there; it is part of a checkout')
        self._script = script
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(folder), str(workers), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def __enter__(self) -> _Plain:
        """Wait until it has loaded."""
        self._line()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and its workers."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def steps(self, count: int) -> float:
        """Make steps; returns their seconds. Its workers run as long as it does."""
        os.killpg(self._process.pid, signal.SIGCONT)
        seconds = self._ask(str(count))
        os.killpg(self._process.pid, signal.SIGSTOP)
        return seconds

    def check(self) -> float:
        """Return the loss of the fixed samples."""
        return self._ask('check')

    def _ask(self, text: str) -> float:
        print(text, file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        text = self._process.stdout.readline().strip()
        if not text:
            raise PolicyError(f'{self._script} ended; its error is above')
        return text


def _episode(number: int, profile: RobotProfile) -> Episode:
    """Return an episode of smooth random pictures and motions, of the size of real ones."""
    rng = np.random.default_rng(number)
    stamps = 10**18 + 33_333_333 * np.arange(FRAMES + 40)
    steps = rng.standard_normal((len(stamps), len(profile.joints)))
    path = profile.home + 0.1 * np.cumsum(0.05 * steps, axis=0)

    def frame() -> bytes:
        coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, PICTURE[::-1], interpolation=cv2.INTER_CUBIC)
        grain = rng.integers(0, 12, picture.shape)
        return encode_jpeg(np.minimum(picture + grain, 255).astype(np.uint8))
    frames = {camera.role: FrameTrack(stamps[2:2 + FRAMES], tuple(
        frame() for _ in range(FRAMES))) for camera in profile.cameras}
    return Episode(
        source=f'bench {number}', instruction='press the bell', cameras=frames,
        states=Measured(stamps, path), commands=Commanded(stamps + 5_000_000, path),
        joint_names=profile.joint_names, profile_hash=profile.hash)


def _write(folder: Path, episodes: list[Episode], data: TrainingSet, samples: Samples,
           objective: FlowObjective, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Write what the plain loop reads; returns the batch of the fixed samples."""
    config: MiVLAConfig = objective.config
    generator = torch.Generator().manual_seed(SEED)
    rows = torch.arange(recipe.batch_size)
    fixed = dict(samples.collect({'rows': rows, **objective.draw(len(rows), generator)}))
    everything = samples.collect({'rows': torch.arange(len(data))})
    for number, episode in enumerate(episodes):
        mine = np.flatnonzero(data.episode == number)
        with h5py.File(folder / f'episode_{number:03d}.h5', 'w') as file:
            for role in data.camera_roles:
                # Samples and frames are one to one here.
                shown = file.create_dataset(role, (len(mine),), h5py.vlen_dtype(np.uint8))
                for row, jpeg in enumerate(_shown(episode, role, data, mine)):
                    shown[row] = np.frombuffer(jpeg, np.uint8)
            file['state'] = everything['state'][mine].numpy()
            file['action'] = everything['action'][mine].numpy()
    save_file({name: value.contiguous() for name, value in
               objective.network.state_dict().items()}, folder / 'weights.safetensors')
    save_file({'words': objective.words[0].contiguous()}, folder / 'words.safetensors')
    save_file({name: fixed[name].contiguous() for name in ('noise', 'time')},
              folder / 'noise.safetensors')
    frames = {int(count) for count in np.bincount(data.episode)}
    if len(frames) != 1:
        raise PolicyError(f'episodes of {sorted(frames)} samples; the plain loop expects one size')
    (folder / 'plan.json').write_text(json.dumps({
        'model': config.to_json(), 'frames': frames.pop(), 'cameras': list(data.camera_roles),
        'size': config.vision.height, 'slots': objective.slots.tolist(),
        'augmentation': asdict(recipe.augmentation), 'batch_size': recipe.batch_size,
        'learning_rate': recipe.learning_rate, 'betas': list(recipe.betas),
        'weight_decay': recipe.weight_decay, 'warm_up_steps': recipe.warm_up_steps,
        'gradient_clip': recipe.gradient_clip}), encoding='utf-8')
    return fixed


def _shown(episode: Episode, role: str, data: TrainingSet,
           mine: NDArray[np.int64]) -> list[bytes]:
    """Return the JPEGs of an episode's samples, found by what they decode to."""
    place = data.camera_roles.index(role)
    size = data.images.shape[2], data.images.shape[3]
    decoded = {model_image(jpeg, size).tobytes(): jpeg for jpeg in episode.cameras[role].frames}
    return [decoded[data.images[row, place].tobytes()] for row in mine]
