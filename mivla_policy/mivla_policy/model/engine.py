"""
The network as it is served: the same function as ``model.mivla``, computed once where it can be.

Keys and values of the pictures are made once per observation, those of an instruction once per
instruction, shifts, scales and gates once per step count: none of them depends on the noisy
actions. The layers are those of ``model.folded``. Shapes as in ``model.mivla``.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mivla_policy.errors import ConfigError
from mivla_policy.model.folded import (
    Affine,
    FoldedBlock,
    FoldedHead,
    ModulatedHead,
    Pair,
    folded,
)
from mivla_policy.model.kernels import Linear, packing_available
from mivla_policy.model.mivla import MiVLA, Slots, by_space, sincos
from mivla_policy.model.sampler import Guidance, euler

__all__ = ['COMPILE', 'DTYPES', 'Engine', 'EngineSettings', 'Memory', 'Scene', 'Sentence']

COMPILE = ('off', 'eager', 'inductor', 'cudagraphs')
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
MAX_SCHEDULES = 16


@dataclass(frozen=True)
class EngineSettings:
    """
    How the network is run.

    :param device: of torch: 'cpu', 'cuda', 'cuda:1'.
    :param dtype: of weights and activations: 'float32' or 'bfloat16'.
    :param compile: 'off'; 'inductor': ``torch.compile`` of all steps of a chunk together;
        'cudagraphs': the same, with the launches recorded once; 'eager': traced but not
        compiled, for tests. Guided chunks are not compiled.
    :param instructions: whose keys and values are kept, at most.
    :param packed: oneDNN's packed weights where they can be had (``model.kernels``).
    """

    device: str = 'cpu'
    dtype: str = 'float32'
    compile: str = 'off'
    instructions: int = 64
    packed: bool = True

    def __post_init__(self) -> None:
        """Raise ConfigError for unknown names."""
        if self.dtype not in DTYPES:
            raise ConfigError(f'dtype is {self.dtype!r}; known: {", ".join(DTYPES)}')
        if self.compile not in COMPILE:
            raise ConfigError(f'compile is {self.compile!r}; known: {", ".join(COMPILE)}')
        if not 1 <= self.instructions <= 100_000:
            raise ConfigError(f'instructions is {self.instructions}; expected 1 to 100000')


class Sentence(NamedTuple):
    """
    An instruction as its language model says it.

    :param key: what it is remembered by.
    :param words: (L, width of the language model).
    """

    key: Hashable
    words: Tensor


class Scene(NamedTuple):
    """
    A batch of observations as tokens, before any block has seen them.

    :param state: (B, 1, D), with its position.
    :param image: (B, N, D).
    :param image_mask: bool (B, N); None: all there.
    :param sentences: B of them.
    :param slots: of the actions.
    """

    state: Tensor
    image: Tensor
    image_mask: Tensor | None
    sentences: tuple[Sentence, ...]
    slots: Slots


class Memory(NamedTuple):
    """
    All that the steps of the sampler look at.

    :param state: (B, 1, D), with its position.
    :param image: per block keys and values (B, K, N, E).
    :param image_mask: bool (B, N); None: all there.
    :param language: per block keys and values (B, K, L, E).
    :param language_mask: bool (B, L); None: all there.
    :param slots: of the actions.
    """

    state: Tensor
    image: tuple[Pair, ...]
    image_mask: Tensor | None
    language: tuple[Pair, ...]
    language_mask: Tensor | None
    slots: Slots

    def repeat(self, times: int) -> Memory:
        """Return each observation ``times`` times in a row; of a single one nothing is copied."""
        def again(part: Tensor) -> Tensor:
            return part[:, None].expand(-1, times, *part.shape[1:]).flatten(0, 1)

        def pairs(parts: tuple[Pair, ...]) -> tuple[Pair, ...]:
            return tuple((again(keys), again(values)) for keys, values in parts)

        return Memory(again(self.state), pairs(self.image),
                      None if self.image_mask is None else again(self.image_mask),
                      pairs(self.language),
                      None if self.language_mask is None else again(self.language_mask),
                      self.slots.repeat(times))


class Step(NamedTuple):
    """What one flow time makes of every block (self-attention, picture, feed-forward) and head."""

    blocks: tuple[tuple[Affine, Affine, Affine], ...]
    heads: dict[str, Affine]


class Engine:
    """
    A network, ready to be asked. Called by one thread at a time.

    :param network: with its weights; not to be changed afterwards, and may be dropped.
    :param settings: how to run it.
    """

    def __init__(self, network: MiVLA, settings: EngineSettings | None = None) -> None:
        """Copy and fold the weights."""
        self.settings = settings or EngineSettings()
        self.config = config = network.config
        self.device, self.dtype = torch.device(self.settings.device), DTYPES[self.settings.dtype]
        packed = self.settings.packed and packing_available()

        def linear(weight: Tensor, bias: Tensor | None, rows: int) -> Linear:
            return Linear(self._there(weight), None if bias is None else self._there(bias), rows,
                          packed)

        tokens, pictures = 1 + config.chunk, config.image_tokens
        words = config.language.max_tokens
        self._language_adapter = folded(network.language_adapter, linear, words)
        if config.vision.kind == 'keypoints':
            self._image = nn.ModuleList(self._place(m) for m in network.image_encoders)
        else:
            self._image = nn.ModuleList([folded(network.image_adapter, linear, pictures)])
        self._state_adapters = self._place(network.state_adapters)
        self._action_adapters = self._place(network.action_adapters)
        self._positions = {name: self._there(getattr(network, f'{name}_position'))
                           for name in ('token', 'image', 'language')}
        self._blocks: Any = nn.ModuleList(
            FoldedBlock(block, linear, self._there, tokens, pictures, words)  # type: ignore[arg-type]
            for block in network.blocks)
        self._heads: Any = nn.ModuleDict(
            {space: FoldedHead(head, linear, tokens)  # type: ignore[arg-type]
             for space, head in network.heads.items()})
        # A third of the weights serves the flow time only: it stays where it is, and what it
        # says of each step is kept.
        self._time_embedder: Any = network.time_embedder
        self._modulated: list[tuple[Any, list[Any]]] = [
            (block.modulation, [block.attn_norm, block.img_cross_norm, block.ffn_norm])
            for block in network.blocks]
        self._modulated_heads: dict[str, tuple[Any, Any]] = {
            space: (head.modulation, head.ffn_norm) for space, head in network.heads.items()}
        self._schedules: OrderedDict[int, tuple[Step, ...]] = OrderedDict()
        self._heard: OrderedDict[Hashable, tuple[Tensor, Tensor]] = OrderedDict()
        self._integrate: Callable[..., Tensor] = self._integrate_plain
        if self.settings.compile != 'off':
            backend = 'eager' if self.settings.compile == 'eager' else 'inductor'
            mode = 'reduce-overhead' if self.settings.compile == 'cudagraphs' else None
            self._integrate = torch.compile(
                self._integrate_plain, backend=backend, mode=mode, dynamic=False)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights on the device."""
        parts = [self._language_adapter, self._image, self._state_adapters, self._action_adapters,
                 self._blocks, self._heads]
        return sum(t.nbytes if t.layout == torch.strided else t.numel() * t.element_size()
                   for part in parts for t in (*part.parameters(), *part.buffers()))

    @property
    def peak_bytes(self) -> int | None:
        """Most memory that was in use on the device; None on a processor."""
        if self.device.type != 'cuda':
            return None
        return int(torch.cuda.max_memory_allocated(self.device))

    @torch.no_grad()
    def look(self, images: Tensor, states: Tensor, sentences: Sequence[Sentence], slots: Slots,
             cameras: Tensor | None = None) -> Scene:
        """
        Turn a batch of observations into tokens.

        :param images: pictures (B, C, 3, height, width) in [0, 1], or features (B, N, F).
        :param states: (B, A), normalized.
        :param sentences: B instructions.
        :param slots: which slots the robots have.
        :param cameras: bool (B, C), True where a robot has the camera; None: every one.
        """
        slots = Slots(slots.spaces, self._there(slots.mask))
        images, positions = self._there(images), self._positions
        if self.config.vision.kind == 'keypoints':
            image = torch.cat([encoder(images[:, i]) for i, encoder in enumerate(self._image)], 1)
        else:
            image = self._image[0](images)
        state = by_space(self._state_adapters, slots, self._there(states) * slots.mask)
        mask = None if cameras is None or bool(cameras.all()) else cameras.to(
            self.device).repeat_interleave(self.config.vision.tokens, dim=1)
        return Scene(state[:, None] + positions['token'][:, :1], image + positions['image'], mask,
                     tuple(sentences), slots)

    @torch.no_grad()
    def remember(self, scene: Scene) -> Memory:
        """Make the keys and values of all blocks, those of a known instruction from memory."""
        language, mask = self._listen([self._hear(sentence) for sentence in scene.sentences])
        return Memory(scene.state, self._see(scene.image), scene.image_mask, language, mask,
                      scene.slots)

    @torch.no_grad()
    def denoise(self, memory: Memory, noise: Tensor, steps: int = 0,
                guidance: Guidance | None = None) -> Tensor:
        """
        Return actions (B, T, A), normalized, by Euler steps from ``noise`` (B, T, A).

        Steps are summed up in float32, whatever the network computes in.

        :param steps: their number; 0: the config's.
        :param guidance: what the rows are pulled to.
        """
        x = self._start(noise, memory.slots)
        schedule = self.schedule(steps or self.config.steps)
        if guidance is None:
            if self.settings.compile == 'cudagraphs':
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            return self._integrate(x, memory, schedule).clone()
        target, weight = (part.to(self.device, torch.float32)
                          for part in (guidance.target, guidance.weight))
        guidance = Guidance(target, weight, guidance.exact, guidance.cap)
        return euler(lambda y, k: self.velocity(y, schedule[k], memory), x, len(schedule),
                     guidance)

    @torch.no_grad()
    def denoise_uncached(self, scene: Scene, noise: Tensor, steps: int = 0) -> Tensor:
        """Return what ``denoise`` does, with everything made anew in each step."""
        x, count = self._start(noise, scene.slots), steps or self.config.steps

        def velocity(y: Tensor, k: int) -> Tensor:
            language, mask = self._listen([self._tell(s) for s in scene.sentences])
            memory = Memory(scene.state, self._see(scene.image), scene.image_mask, language, mask,
                            scene.slots)
            return self.velocity(y, self._steps([k / count])[0], memory)
        return euler(velocity, x, count)

    def velocity(self, x: Tensor, step: Step, memory: Memory) -> Tensor:
        """Return the velocity (B, T, A) at ``x`` (B, T, A)."""
        slots, mask = memory.slots, memory.slots.mask[:, None, :]
        actions = by_space(self._action_adapters, slots, (x * mask).to(self.dtype))
        actions = actions + self._positions['token'][:, 1:]
        tokens = torch.cat((memory.state, actions), dim=1)                     # (B, 1 + T, D)
        for block, parts, image, language in zip(self._blocks, step.blocks, memory.image,
                                                 memory.language, strict=True):
            tokens = block(tokens, parts, image, memory.image_mask, language,
                           memory.language_mask)
        heads = {space: ModulatedHead(self._heads[space], step.heads[space])
                 for space in set(slots.spaces)}
        return by_space(heads, slots, tokens[:, 1:]) * mask

    @torch.no_grad()
    def schedule(self, steps: int) -> tuple[Step, ...]:
        """Return what each of ``steps`` flow times makes of the blocks."""
        if steps not in self._schedules:
            self._schedules[steps] = self._steps([k / steps for k in range(steps)])
            if len(self._schedules) > MAX_SCHEDULES:
                self._schedules.popitem(last=False)
        return self._schedules[steps]

    def forget(self) -> None:
        """Drop what is kept of instructions."""
        self._heard.clear()

    def _start(self, noise: Tensor, slots: Slots) -> Tensor:
        """Return the noise in the slots that there are, float32."""
        return noise.to(self.device, torch.float32) * slots.mask[:, None, :].float()

    def _integrate_plain(self, x: Tensor, memory: Memory, schedule: tuple[Step, ...]) -> Tensor:
        return euler(lambda y, k: self.velocity(y, schedule[k], memory), x, len(schedule))

    def _steps(self, times: Sequence[float]) -> tuple[Step, ...]:
        """Return what these flow times make of the blocks."""
        weight = self._time_embedder[0].weight
        t = torch.tensor(times, device=weight.device, dtype=torch.float32)
        angles = sincos(t * self.config.time_scale, self.config.time_features)
        time = self._time_embedder(angles.to(weight.dtype))                    # (S, D)

        def fold(norm: nn.LayerNorm, shift: Tensor, scale: Tensor, gate: Tensor) -> list[Affine]:
            weights = self._there(norm.weight * (1.0 + scale))
            biases = self._there(norm.bias * (1.0 + scale) + shift)
            gates = self._there(gate)
            return [Affine(*rows) for rows in zip(weights, biases, gates, strict=True)]

        blocks = []
        for modulation, norms in self._modulated:
            nine = [part[:, 0] for part in modulation(time)]                   # (S, D) each
            blocks.append(list(zip(*(fold(norm, *nine[3 * i:3 * i + 3])
                                     for i, norm in enumerate(norms)), strict=True)))
        heads = {}
        for space, (modulation, norm) in self._modulated_heads.items():
            shift, scale = (part[:, 0] for part in modulation(time))
            heads[space] = fold(norm, shift, scale, torch.ones_like(scale))
        return tuple(Step(tuple(block[k] for block in blocks),
                          {space: affine[k] for space, affine in heads.items()})
                     for k in range(len(times)))

    def _see(self, image: Tensor) -> tuple[Pair, ...]:
        """Return keys and values (B, K, N, E) of image tokens (B, N, D) for every block."""
        # One normalization serves all blocks: what they differ in is folded into their products.
        bare = functional.layer_norm(image, image.shape[-1:], eps=self.config.norm_eps)
        return tuple(block.see(bare) for block in self._blocks)

    def _hear(self, sentence: Sentence) -> tuple[Tensor, Tensor]:
        """Return keys and values (depth, K, L, E) of an instruction, kept by its key."""
        if sentence.key not in self._heard:
            self._heard[sentence.key] = self._tell(sentence)
            if len(self._heard) > self.settings.instructions:
                self._heard.popitem(last=False)
        self._heard.move_to_end(sentence.key)
        return self._heard[sentence.key]

    def _tell(self, sentence: Sentence) -> tuple[Tensor, Tensor]:
        """Return keys and values (depth, K, L, E) of an instruction."""
        words = self._there(sentence.words)[None]
        tokens = self._language_adapter(words) + self._positions['language'][:, :words.shape[1]]
        bare = functional.layer_norm(tokens, tokens.shape[-1:], eps=self.config.norm_eps)
        pairs = [block.hear(bare) for block in self._blocks]
        return torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs])

    def _listen(self, heard: Sequence[Pair]) -> tuple[tuple[Pair, ...], Tensor | None]:
        """Return per block keys and values (B, K, L, E), and bool (B, L) where they differ."""
        lengths = [keys.shape[2] for keys, _ in heard]
        longest = max(lengths)
        if self.settings.compile != 'off':
            longest = -(-longest // 8) * 8      # few shapes are compiled
        if all(pair is heard[0] for pair in heard) and longest == lengths[0]:
            keys, values = (part[:, None].expand(-1, len(heard), -1, -1, -1) for part in heard[0])
        else:
            keys, values = (torch.stack(
                [functional.pad(pair[i], (0, 0, 0, longest - pair[i].shape[2])) for pair in heard],
                dim=1) for i in (0, 1))
        mask = None
        if min(lengths) < longest:
            mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
            mask = mask.to(self.device)
        return tuple(zip(keys.unbind(), values.unbind(), strict=True)), mask

    def _there(self, tensor: Tensor) -> Tensor:
        """Return a tensor in the engine's place and precision."""
        return tensor.detach().to(self.device, self.dtype)

    def _place(self, module: nn.Module) -> Any:
        """Return a frozen copy of a module in the engine's place and precision."""
        return copy.deepcopy(module).to(self.device, self.dtype).eval().requires_grad_(False)
