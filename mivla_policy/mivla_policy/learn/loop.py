"""
The loop of every training: steps, averaged weights, looks at unseen episodes, saves.

What is learned from which samples is an objective and a source (``learn.objective``,
``learn.samples``); this module knows neither robots nor pictures.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor, nn

from mivla_policy.errors import ConfigError, TrainingStopped
from mivla_policy.learn.curve import Events
from mivla_policy.learn.devices import Devices
from mivla_policy.learn.progress import Progress
from mivla_policy.learn.recipe import Recipe
from mivla_policy.learn.samples import Loader, Source
from mivla_policy.learn.state import (
    Running,
    State,
    load_state,
    moments,
    named,
    part,
    restore_moments,
    save_state,
)

__all__ = ['Plan', 'Trainer']

Look = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Plan:
    """
    How a training is run: what does not change what comes out of it.

    :param folder: for states, curve and event files; None: nothing is written.
    :param resume: go on with the state in ``folder``.
    :param stop: asked after every step; True: save, and raise TrainingStopped.
    :param progress: called after every step.
    :param workers: threads that make batches ahead; 0: none.
    :param clock: seconds.
    """

    folder: Optional[Path] = None
    resume: bool = False
    stop: Callable[[], bool] = lambda: False
    progress: Callable[[Progress], None] = lambda _: None
    workers: int = 0
    clock: Callable[[], float] = time.monotonic


@dataclass
class Trainer:
    """
    A training.

    :param objective: with ``network``, what is trained; called with a batch it returns the loss.
    :param source: of the batches.
    :param recipe: numbers.
    :param generator: of all that is random, on the processor.
    :param devices: processes and device.
    :param look: returns the loss of a network on episodes left out; None: without any.
    :param plan: how it is run.
    :param identity: what must be the same when it is resumed.
    :param what: name of the loss.
    """

    objective: nn.Module
    source: Source
    recipe: Recipe
    generator: torch.Generator
    devices: Devices
    look: Optional[Look] = None
    plan: Plan = field(default_factory=Plan)
    identity: Mapping[str, Any] = field(default_factory=dict)
    what: str = 'loss'

    def __post_init__(self) -> None:
        """Make the average and the optimizer."""
        self.network: nn.Module = self.objective.network    # type: ignore[assignment]
        self.objective.to(self.devices.device)
        decayed = self.recipe.ema_decay > 0
        self.average = copy.deepcopy(self.network).requires_grad_(False) if decayed else (
            self.network)
        self.learned = [p for p in self.network.parameters() if p.requires_grad]
        self.best: dict[str, Tensor] = {}
        self.optimizer = torch.optim.AdamW(
            self.learned, lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay,
            betas=(self.recipe.betas[0], self.recipe.betas[1]), fused=True)
        self.running = Running()

    def run(self, steps: Optional[int] = None,
            time_budget_s: Optional[float] = None) -> tuple[nn.Module, Running]:
        """
        Train; returns the network with the weights that count, in evaluation mode.

        :param steps: length of the schedule; default: the recipe's.
        :param time_budget_s: the schedule follows the clock instead.
        :raises TrainingStopped: ``plan.stop`` said so; the state is saved.
        :raises CheckpointError: what should be resumed is not there, or of another training.
        """
        recipe, total = self.recipe, steps or self.recipe.steps
        with ExitStack() as stack:
            loader = stack.enter_context(
                Loader(self.source, self.generator, self.plan.workers))
            if self.plan.resume:
                self._restore(loader)
            events = None
            if self.plan.folder is not None and self.devices.main:
                events = stack.enter_context(Events(self.plan.folder, self.what))
            shared = self.devices.share(self.objective)
            running, clock = self.running, self.plan.clock
            started, waited = clock() - running.seconds, running.waited
            while not self._ended():
                step = len(running.losses)
                done = step / total if time_budget_s is None else (
                    self.devices.agree((clock() - started) / time_budget_s))
                if done >= 1.0:
                    break
                rate = recipe.learning_rate * schedule(step, done, recipe)
                gradient = self._step(shared, loader, rate, step)
                running.waited = waited + loader.waited_s
                if self.look is not None and (step + 1) % recipe.holdout_every == 0:
                    self._look(step + 1)
                running.seconds = clock() - started
                if events is not None:
                    events.step(running, rate, gradient)
                self.plan.progress(Progress(
                    step + 1, min(1.0, (step + 1) / total if time_budget_s is None
                                  else running.seconds / time_budget_s),
                    running.seconds, running.losses[-1],
                    running.holdout[-1][1] if running.holdout else math.nan,
                    running.waited / max(running.seconds, 1e-9)))
                self._save(loader, step + 1 < total)
            running.seconds = clock() - started
            if events is not None:
                events.draw(running)
        if recipe.patience and self.best:
            self.average.load_state_dict(self.best)
        return self.average.eval(), running

    def _step(self, shared: nn.Module, loader: Loader, rate: float, step: int) -> float:
        """Make one step; returns the gradient's norm."""
        for group in self.optimizer.param_groups:
            group['lr'] = rate
        device = self.devices.device
        batch = {name: value.to(device, non_blocking=True)
                 for name, value in loader.next().items()}
        with self._precision():
            loss = shared(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self.learned, self.recipe.gradient_clip)
        self.optimizer.step()
        self._follow(min(self.recipe.ema_decay, (1 + step) / (10 + step)))
        value = self.devices.mean(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(f'the loss of step {step + 1} is {value}: the training has '
                              'diverged; lower learning_rate, or train in float32')
        self.running.losses.append(value)
        return float(gradient)

    def _precision(self) -> Any:
        """Return the context of the forward pass."""
        if self.recipe.precision == 'float32':
            return nullcontext()
        return torch.autocast(self.devices.device.type, torch.bfloat16)

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Move the averaged weights towards the network's."""
        if self.average is not self.network:
            torch._foreach_lerp_(list(self.average.parameters()),
                                 list(self.network.parameters()), 1.0 - decay)

    def _look(self, step: int) -> None:
        """Measure the loss on episodes left out."""
        assert self.look is not None
        self.average.eval()
        with torch.no_grad(), self._precision():
            loss = self.devices.agree(self.look(self.average))
        self.network.train()
        running = self.running
        running.holdout.append((step, loss))
        if loss < running.best:
            running.best, running.since_best = loss, 0
            if self.recipe.patience:
                self.best = {name: value.clone()
                             for name, value in self.average.state_dict().items()}
        else:
            running.since_best += 1

    def _ended(self) -> bool:
        """Return whether episodes left out have not got better for long enough."""
        return 0 < self.recipe.patience <= self.running.since_best

    def _save(self, loader: Loader, more: bool) -> None:
        """Save where it is due; raise TrainingStopped where that was asked."""
        step, folder, every = len(self.running.losses), self.plan.folder, self.recipe.save_every
        stopped = more and self.devices.any(self.plan.stop())
        due = folder is not None and (stopped or (every and step % every == 0 and more))
        if due and folder is not None and self.devices.main:
            save_state(folder, self._state(loader))
        if stopped:
            raise TrainingStopped(step, folder)

    def _state(self, loader: Loader) -> State:
        """Return everything that decides how it goes on."""
        tensors = {**named('network', self.network), **moments(self.optimizer)}
        if self.average is not self.network:
            tensors |= named('average', self.average)
        tensors |= {f'best.{name}': value for name, value in self.best.items()}
        tensors |= {f'batches.{name}': value for name, value in loader.state().items()}
        return State(self.running, tensors, self.identity)

    def _restore(self, loader: Loader) -> None:
        """Go on from the saved state."""
        if self.plan.folder is None:
            raise ConfigError('nothing to resume from: the training has no folder')
        state = load_state(self.plan.folder, self.identity)
        self.network.load_state_dict(part(state.tensors, 'network'))
        if self.average is not self.network:
            self.average.load_state_dict(part(state.tensors, 'average'))
        self.best = part(state.tensors, 'best')
        restore_moments(self.optimizer, state.tensors)
        loader.restore(part(state.tensors, 'batches'))
        self.running = state.running


def schedule(step: int, done: float, recipe: Recipe) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine, or constant."""
    warm_up = min(1.0, (step + 1) / max(1, recipe.warm_up_steps))
    if recipe.schedule == 'constant':
        return warm_up
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return warm_up * (recipe.final_rate + (1.0 - recipe.final_rate) * cosine)
