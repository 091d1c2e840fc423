"""torch: float32, or bfloat16 by autocast; on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bizllm.models import batches
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import CPU_BUDGET, GPU_BUDGET, Name, Network, Precision

if TYPE_CHECKING:
    import torch


class TorchEngine:
    """The network itself."""

    name: Name = "torch"

    def __init__(self, network: Network, device: str | None = None, precision: str | None = None) -> None:
        """device, precision: by default a GPU where there is one, and the fastest that it computes natively."""
        self.device, found = batches.placement(device, precision)
        self.precision: Precision = "bfloat16" if found == "bfloat16" else "float32"
        self.on_gpu = self.device != "cpu"
        self.budget = GPU_BUDGET if self.on_gpu else CPU_BUDGET
        self.network = network
        self.module = network.module.to(self.device)

    def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
        """As of `Engine`. On a GPU a batch is begun before the outputs of the one before it are waited for."""
        before: tuple[Whole, torch.Tensor] | None = None
        for batch in batches.by_budget(windows.lengths, self.budget):
            for rows, made in batches.within_memory(lambda rows: self._begin(windows, rows), batch):
                if before is not None:
                    yield before[0], before[1].cpu().numpy()
                before = rows, made
        if before is not None:
            yield before[0], before[1].cpu().numpy()

    def _begin(self, windows: Windows, rows: Whole) -> torch.Tensor:
        import torch

        inputs = {
            name: torch.from_numpy(array).to(self.device, non_blocking=True)
            for name, array in batches.padded(windows, rows, self.network.pad).items()
        }
        low = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=low):
            made: torch.Tensor = self.module(**inputs).float()
        return made


def exact(network: Network) -> TorchEngine:
    """float32 on the CPU: what every other engine is held against."""
    return TorchEngine(network, "cpu", "float32")
