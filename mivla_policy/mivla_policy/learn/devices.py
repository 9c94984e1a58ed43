"""The processes and the device of a training, by accelerate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ['Devices']


class Devices:
    """
    Who computes, and where.

    Started plainly it is one process; ``accelerate launch`` and ``torchrun`` make it many, one per
    GPU, which share every batch.
    """

    def __init__(self) -> None:
        # Not where a policy is only loaded: it takes a while to import.
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs
        # Heads of spaces that a batch does not have get no gradient.
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self._accelerator.device

    @property
    def part(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return self._accelerator.process_index, self._accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self._accelerator.is_main_process

    def share(self, module: nn.Module) -> nn.Module:
        """Return the module on the device, with gradients averaged over the processes."""
        shared: nn.Module = self._accelerator.prepare(module)
        return shared

    def agree(self, value: float) -> float:
        """Return the main process's value in every process."""
        if self.part[1] == 1:
            return value
        from accelerate.utils import broadcast
        return float(broadcast(torch.tensor([value], dtype=torch.float64, device=self.device)))

    def mean(self, value: Tensor) -> float:
        """Return the mean of a number over the processes."""
        if self.part[1] == 1:
            return float(value)
        return float(self._accelerator.reduce(value.detach(), reduction='mean'))

    def any(self, value: bool) -> bool:
        """Return whether it is true in one process."""
        if self.part[1] == 1:
            return value
        flag = torch.tensor([float(value)], device=self.device)
        return bool(self._accelerator.reduce(flag, reduction='sum') > 0)
