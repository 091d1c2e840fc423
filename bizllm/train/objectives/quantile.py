"""Quantiles for a row: the pinball loss (Koenker & Bassett 1978) of each level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import regression
from bizllm.train.objectives.base import Array, mean_loss
from bizllm.train.objectives.regression import Regression, values

if TYPE_CHECKING:
    import torch


class Quantile(Regression):
    """As regression; the outputs are (horizon × levels), a number's levels side by side."""

    name = "quantile"
    summary = "Quantiles of one number or several a row."
    metric = "pinball"

    def centre(self, target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(horizon × levels,) the labels' own quantiles."""
        return np.quantile(target, self.info.levels, axis=0).T.reshape(-1)

    def per_row(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(rows,) pinball loss, the mean over horizon and levels."""
        import torch

        levels = torch.tensor(self.info.levels, device=outputs.device)
        gap = target.unsqueeze(-1) - outputs.view(len(outputs), -1, len(levels))
        return torch.maximum(levels * gap, (levels - 1) * gap).mean((-1, -2))

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        histories = rows["text"].to_pylist() if self.info.inputs == "numbers" else None
        raw = outputs["numbers"].reshape(len(rows), self.info.horizon, len(self.info.levels))
        found = np.sort(raw, axis=-1) * self.scale(rows)[:, None, None]  # crossed quantiles are put in order
        scored = regression.quantile_scores(found, values(rows), self.info.levels, histories)
        return {**scored, "loss": mean_loss(outputs)}


OBJECTIVE = Quantile
