"""The ``mivla`` plug-in: a checkpoint that runs in this process, for one robot or several."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mivla_core.profile import RobotProfile
from mivla_policy.core.familiar import Familiar
from mivla_policy.core.instructions import InstructionCache, instruction_tokens
from mivla_policy.core.language import canonical
from mivla_policy.core.novelty import joined
from mivla_policy.core.observation import Observation
from mivla_policy.errors import ConfigError, UnknownPolicy
from mivla_policy.model.checkpoint import load_checkpoint, read_info
from mivla_policy.model.engine import Engine, EngineSettings, Memory, Sentence
from mivla_policy.model.mivla import Slots, pixels
from mivla_policy.model.novelty import disagreements, distances, read_familiar
from mivla_policy.model.sampler import Guidance, PrefixPlan, RealTimeSettings, plan_prefix
from mivla_policy.policies.direct import DIRECT_PARAMETERS, DirectPolicy, direct_policy
from mivla_policy.policies.robot import Robot, robots_of
from mivla_policy.serve.port import Inference, PolicySpec, Query, take_parameters

__all__ = ['ENGINE_PARAMETERS', 'MivlaPolicy', 'engine_settings', 'mivla_policy',
           'serve_options', 'set_threads']

Towers = Callable[[Tensor], Tensor]

# Below this many bytes of weights a second thread costs more than it brings: measured with the
# preset tiny, 2 cores.
SMALL_MODEL_BYTES = 64 << 20

# What every plug-in that runs a network here takes, with its default.
ENGINE_PARAMETERS: Mapping[str, Any] = {
    'threads': 0, 'device': 'auto', 'dtype': 'auto', 'compile': 'off', 'steps': 0,
    'guidance': 'exact', 'schedule': 'linear', 'cap': 5.0, 'vision': '', 'instructions': '',
    'disagreement': False}


class MivlaPolicy:
    """
    A MiVLA network behind the policy protocol.

    :param engine: the network.
    :param name: in chunks and reports.
    :param robots: with different profile hashes.
    :param real_time: how a chunk is joined to what a robot is doing.
    :param steps: of the sampler; 0: the network's.
    :param towers: uint8 pictures (B, C, height, width, 3) -> features (B, C * tokens, F); for
        networks that see features.
    :param cache: of encoded instructions, for networks that read a language model's.
    :param image_means: of the first robot: camera role -> mean training picture.
    :param familiar: profile hash -> what it has seen, for robots of which that is known.
    :param disagreement: draw more answers to each question and tell how far apart they are, for
        the warning; the answer that is given stays the same.
    """

    def __init__(self, engine: Engine, name: str, robots: Sequence[Robot],
                 real_time: Optional[RealTimeSettings] = None, steps: int = 0,
                 towers: Optional[Towers] = None, cache: Optional[InstructionCache] = None,
                 image_means: Optional[Mapping[str, NDArray[np.uint8]]] = None,
                 familiar: Optional[Mapping[str, Familiar]] = None,
                 disagreement: bool = False) -> None:
        """
        Raise ConfigError for what it cannot do.

        That is: it sees features and there is nothing to make them, or disagreement is asked for
        and nobody has measured what is usual.
        """
        self.engine, self.image_means = engine, dict(image_means or {})
        self._real_time, self._steps = real_time or RealTimeSettings(), steps
        if (engine.config.vision.kind == 'keypoints') != (towers is None):
            raise ConfigError(f'policy {name}: its network sees {engine.config.vision.kind}; '
                              "give the parameter 'vision' (the folder of both towers) for "
                              "'dinov2+siglip', and only then")
        self._towers, self._cache, self._name = towers, cache, name
        self._sentences: dict[str, Sentence] = {}
        self._familiar, self._disagreement = dict(familiar or {}), disagreement
        if disagreement and not any(one.doubt > 0.0 for one in self._familiar.values()):
            raise ConfigError(f'policy {name}: how far apart its answers usually are has not been '
                              'measured; run "mivla policy calibrate" with episodes that it has '
                              'not learned from, or leave the parameter disagreement off')
        self._robots = {robot.body.profile_hash: robot for robot in robots}
        self._specs = tuple(robot.spec(name, engine.config) for robot in robots)
        for spec in self._specs:
            for text in spec.instructions:
                self._sentence(text)

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        """What it needs and gives, per robot."""
        return self._specs

    @property
    def memory(self) -> int:
        """Bytes on the device: the most that was in use on a GPU, else the weights."""
        return self.engine.peak_bytes or self.engine.weight_bytes

    def infer(self, queries: Sequence[Query]) -> Inference:
        """Answer a batch: see ``Policy.infer``."""
        if not queries:
            return Inference([])
        count, compiled = len(queries), self.engine.settings.compile != 'off'
        if compiled and count & (count - 1):
            # Powers of two: every size of a batch would be compiled for itself.
            filled = [*queries, *[queries[-1]] * ((1 << count.bit_length()) - count)]
            answer = self.infer(filled)
            return Inference(answer.chunks[:count], answer.seconds, answer.notes[:count],
                             answer.novelty[:count], {
                                 sign: values[:count] for sign, values in answer.signs.items()})
        begin = time.perf_counter()
        robots = [self._robots[query.spec.profile_hash] for query in queries]
        ready = [query.spec.prepare(query.observation) for query in queries]
        slots, width = self._slots(robots), self.engine.config.action_width
        states = torch.from_numpy(np.stack([
            robot.body.packed.spread(robot.body.normalizer.state_in(o.joints), width)
            for robot, o in zip(robots, ready)]))
        images, cameras = self._images(robots, ready)
        scene = self.engine.look(
            images, states, [self._sentence(o.instruction) for o in ready], slots, cameras)
        memory = self.engine.remember(scene)
        hashes = [robot.body.profile_hash for robot in robots]
        signs = {'distance': distances(self._familiar, hashes, scene.image,
                                       len(self.engine.config.cameras))}
        self._wait()
        encoded = time.perf_counter()
        # NumPy's generator per request: its answer does not depend on who else is in the batch.
        chunk = self.engine.config.chunk
        noise = np.stack([
            robot.body.packed.spread(np.random.default_rng(query.seed).standard_normal(
                (chunk, len(robot.body.slots))), width)
            for robot, query in zip(robots, queries)])
        plans = [None if query.prefix is None else plan_prefix(
            chunk, len(query.prefix.position), query.prefix.delay, self._real_time)
            for query in queries]
        actions = self.engine.denoise(
            memory, torch.from_numpy(noise), self._steps,
            self._guidance(robots, ready, queries, plans)).cpu().numpy()
        denoised = time.perf_counter()
        seconds = {'encode': encoded - begin, 'denoise': denoised - encoded}
        if self._disagreement:
            signs['disagreement'] = self._doubts(robots, memory, [q.seed for q in queries])
            seconds['disagreement'] = time.perf_counter() - denoised
        chunks = [robot.targets(observation, rows, self._name)
                  for robot, observation, rows in zip(robots, ready, actions)]
        return Inference(chunks, seconds, [plan.note if plan else '' for plan in plans],
                         [joined(*values) for values in zip(*signs.values())]
                         if self._disagreement else signs['distance'], signs)

    def _doubts(self, robots: Sequence[Robot], memory: Memory,
                seeds: Sequence[int]) -> list[float]:
        """Return how far apart answers are, in parts of the limit; NaN where there is none."""
        apart = disagreements(self.engine, memory, [robot.body.packed for robot in robots], seeds,
                              self._steps)
        known = [self._familiar.get(robot.body.profile_hash) for robot in robots]
        return [float('nan') if one is None else float(value) / one.doubt
                for one, value in zip(known, apart)]

    def _slots(self, robots: Sequence[Robot]) -> Slots:
        """Return the action spaces of a batch."""
        mask = np.stack([robot.body.packed.spread(np.ones(len(robot.body.slots)),
                                                  self.engine.config.action_width)
                         for robot in robots])
        return Slots(tuple(robot.body.space for robot in robots), torch.from_numpy(mask))

    def _images(self, robots: Sequence[Robot],
                ready: Sequence[Observation]) -> tuple[Tensor, Optional[Tensor]]:
        """Return what the network sees of a batch, and bool (B, C) where robots lack a camera."""
        config = self.engine.config
        there = np.array([[bool(role) for role in robot.body.cameras] for robot in robots])
        pictures = torch.from_numpy(np.stack([
            o.images[role] for robot, o in zip(robots, ready) for role in robot.body.cameras
            if role]))                                                 # (P, height, width, 3)
        cameras = None if there.all() else torch.from_numpy(there)
        if self._towers is None:
            seen = pixels(pictures)                                    # (P, 3, height, width)
        else:
            # One pass for all pictures of all robots.
            seen = self._towers(pictures[:, None].to(self.engine.device))
        if cameras is not None:
            full = seen.new_zeros((there.size, *seen.shape[1:]))
            full[torch.from_numpy(there.reshape(-1)).to(full.device)] = seen
            seen = full
        seen = seen.view(len(robots), len(config.cameras), *seen.shape[1:])
        return (seen if self._towers is None else seen.flatten(1, 2)), cameras

    def _sentence(self, instruction: str) -> Sentence:
        """Return an instruction as the network reads it."""
        text = canonical(instruction)
        if text not in self._sentences:
            words, mask = instruction_tokens(self.engine.config.language, [instruction],
                                             self._cache)
            if len(self._sentences) >= self.engine.settings.instructions:
                self._sentences.pop(next(iter(self._sentences)))
            self._sentences[text] = Sentence(text, torch.from_numpy(words[0][mask[0]]))
        return self._sentences[text]

    def _guidance(self, robots: Sequence[Robot], ready: Sequence[Observation],
                  queries: Sequence[Query],
                  plans: Sequence[Optional[PrefixPlan]]) -> Optional[Guidance]:
        """Return what the batch is pulled to; None when nobody is."""
        config = self.engine.config
        target = np.zeros((len(queries), config.chunk, config.action_width))
        weight = np.zeros((len(queries), config.chunk))
        for row, (robot, o, query, plan) in enumerate(zip(robots, ready, queries, plans)):
            if query.prefix is None or plan is None or not plan.guide.any():
                continue
            rows = query.prefix.position[:config.chunk]
            target[row, :len(rows)] = robot.body.packed.spread(
                robot.body.normalizer.actions_in(rows, o.joints), config.action_width)
            weight[row] = plan.guide
        if not weight.any():
            return None
        return Guidance(torch.from_numpy(target), torch.from_numpy(weight),
                        self._real_time.guidance == 'exact', self._real_time.cap)

    def _wait(self) -> None:
        """Wait for the device, so that times are of the work and not of its launch."""
        if self.engine.device.type == 'cuda':
            torch.cuda.synchronize(self.engine.device)


def mivla_policy(profiles: Sequence[RobotProfile],
                 parameters: Mapping[str, Any]) -> MivlaPolicy | DirectPolicy:
    """
    Load a checkpoint for one robot or several; entry point ``mivla`` of ``mivla.policies``.

    A baseline's goes to its own plug-in, so that a checkpoint folder is all one has to name.
    Parameters: ``checkpoint`` (directory), ``accept_profile_difference`` (an engineer's explicit
    word), and those of ``engine_settings`` and ``serve_options``.
    """
    values = take_parameters('mivla', parameters, {
        'checkpoint': '', 'accept_profile_difference': False, **ENGINE_PARAMETERS})
    if not values['checkpoint']:
        raise UnknownPolicy("policy mivla needs the parameter 'checkpoint' (a directory)")
    settings = engine_settings('mivla', values)
    path = Path(values['checkpoint']).expanduser()
    kind = read_info(path).model.kind
    if kind != 'mivla':
        if values['disagreement']:
            raise UnknownPolicy(f'policy {kind}: one observation has one answer, so there is no '
                                'disagreement; its warning goes by the pictures alone')
        return direct_policy(kind, profiles, {name: value for name, value in parameters.items()
                                              if name in DIRECT_PARAMETERS})
    network, info, means = load_checkpoint(path)
    name, robots = robots_of(info, profiles, values['accept_profile_difference'])
    engine = Engine(network, settings)
    set_threads('mivla', values['threads'], engine)
    first = robots[0].body if robots else info.embodiments[0]
    seen = next((means[body.profile_hash] for body in info.embodiments
                 if body.profile_text == first.profile_text and body.profile_hash in means), {})
    return MivlaPolicy(engine, name, robots, image_means=seen, familiar=read_familiar(path),
                       **serve_options('mivla', values, engine))


def engine_settings(plug_in: str, values: Mapping[str, Any]) -> EngineSettings:
    """
    Return how to run a network by a plug-in's parameters.

    ``device`` ('auto': the first GPU, else the processor), ``dtype`` ('auto': bfloat16 on a GPU,
    float32 else), ``compile`` (see ``EngineSettings``).
    """
    device = values['device']
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    dtype = values['dtype']
    if dtype == 'auto':
        dtype = 'float32' if device == 'cpu' else 'bfloat16'
    try:
        torch.empty(0, device=device)
        return EngineSettings(device=device, dtype=dtype, compile=values['compile'])
    except (ConfigError, RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UnknownPolicy(f'policy {plug_in}: device {device!r}: {reason}') from error


def set_threads(plug_in: str, threads: int, engine: Engine) -> None:
    """Set torch's threads: 0 is one for a small network, all cores for a large one."""
    if not 0 <= threads <= 256:
        raise UnknownPolicy(f'policy {plug_in}: threads is {threads}; expected 0 (chosen by the '
                            'size of the network) to 256')
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads or (1 if engine.weight_bytes < SMALL_MODEL_BYTES else cores))


def serve_options(plug_in: str, values: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """
    Return the keywords of ``MivlaPolicy`` by a plug-in's parameters.

    ``disagreement`` (a second sign for the warning, see ``core.novelty``),
    ``steps`` of the sampler (0: the network's), ``guidance``, ``schedule`` and ``cap`` of
    real-time chunking, ``vision`` (folder of the towers), ``instructions`` (folder of encoded
    instructions; '': the user's).
    """
    if not 0 <= values['steps'] <= 1000:
        raise UnknownPolicy(f'policy {plug_in}: steps is {values["steps"]}; expected 0 to 1000')
    try:
        real_time = RealTimeSettings(values['guidance'], values['schedule'], values['cap'])
    except ConfigError as error:
        raise UnknownPolicy(f'policy {plug_in}: {error}') from error
    towers = None
    if values['vision']:
        # transformers is slow to import, and small policies do without.
        from mivla_policy.model.vision import load_towers
        towers = load_towers(Path(values['vision']).expanduser(), engine.config.vision,
                             engine.dtype, engine.device)
    return {'real_time': real_time, 'steps': values['steps'], 'towers': towers,
            'cache': InstructionCache(values['instructions'] or None),
            'disagreement': values['disagreement']}
