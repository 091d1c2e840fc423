"""What a model is trained for: how rows become examples, the loss, and what the answers are worth.

An objective file holds one `Objective` subclass named `OBJECTIVE` and is found by its file name. It knows nothing of
DeepSpeed, Ray, files or schedules: the loop hands it a callable network and batches of examples.

Losses are *sums* over the units that count (rows, or answer tokens): the loop divides the sum over all workers by the
units of the whole batch, so that neither padding nor the number of workers changes a gradient.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.models.saved import ModelInfo

if TYPE_CHECKING:
    import torch

    from bizllm.models.network import Network
    from bizllm.train.recipe import Recipe

Array = npt.NDArray[Any]
Batch = dict[str, "torch.Tensor"]
Forward = Callable[..., "torch.Tensor"]
Faults = list[tuple[str, object, str, str]]  # column role, value, what was expected, suggestion

IGNORED = -100  # a token whose label does not count

STRING = (pa.types.is_string, pa.types.is_large_string)
NUMBER = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


@dataclass
class Objective(ABC):
    """One objective of one training. `info` is complete but for what validation decides (temperature, threshold).

    Rows are tables of canonical columns: `text`, and as the objective needs them `pair` and `label`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    metric: ClassVar[str]  # of validation and promotion, where the recipe names none
    needs: ClassVar[tuple[str, ...]] = ("text", "label")
    learns_labels: ClassVar[bool] = False  # whether train's labels decide the outputs
    tokens_at_once: ClassVar[int] = 8_192  # of a batch that is scored, padding included

    recipe: Recipe
    tokenizer: Any
    info: ModelInfo

    # -- before the work ------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        """What is wrong with the canonical columns' types: the role, what it is, what was expected, a suggestion."""

    @classmethod
    def labels(cls, rows: pa.Table) -> tuple[str, ...]:
        """The classes (or tags) of train, in the order of the outputs."""
        return ()

    @classmethod
    def horizon(cls, rows: pa.Table) -> int:
        """Numbers that a row's answer has."""
        return 1

    @classmethod
    def strata(cls, rows: pa.Table) -> Array | None:
        """(rows,) int codes of what a split should keep in proportion; None where there is no such thing."""
        return None

    @abstractmethod
    def encode(self, rows: pa.Table) -> pa.Table:
        """Examples: `input_ids` (list<int32>, special tokens included), and what `collate` wants beside them. A row
        may give no example or several only where `packs` says so."""

    @property
    def packs(self) -> bool:
        """Whether an example may hold several rows."""
        return False

    def units(self, examples: pa.Table) -> npt.NDArray[np.float64]:
        """(examples,) how much each adds to the loss's denominator."""
        return np.ones(len(examples))

    # -- the work -------------------------------------------------------------------------------------------------

    def prepare(self, units: npt.NDArray[np.float64], examples: pa.Table) -> None:
        """What the loss needs to know of train as a whole (class weights); called once before the first batch."""

    def start(self, network: Network, examples: pa.Table, carried: bool) -> None:
        """Fit a network's head to train before training, where there is something to fit. carried: the head is that of
        an earlier training."""

    @abstractmethod
    def collate(self, examples: pa.Table) -> Batch:
        """Tensors of one micro-batch, padded to its longest row."""

    @abstractmethod
    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        """The summed loss of a micro-batch. `network(**inputs)` gives logits."""

    @abstractmethod
    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        """What validation keeps of a micro-batch: arrays whose first axis is its examples. Always with `loss`, the
        summed loss of each example, and `units`."""

    @abstractmethod
    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        """Metrics of a whole part: `outputs` of `predict` in the order of `rows`."""


def mean_loss(outputs: Mapping[str, Array]) -> float:
    """The loss of a part: sums over examples, divided once."""
    return float(np.sum(outputs["loss"], dtype=np.float64) / max(np.sum(outputs["units"], dtype=np.float64), 1e-12))


def objective_names() -> list[str]:
    """Every objective that a training file may name: the files of this folder."""
    folder = importlib.import_module("bizllm.train.objectives").__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if m.name not in ("base", "tensors"))


def objective_class(name: str) -> type[Objective]:
    """The objective of that name."""
    cls: type[Objective] = importlib.import_module(f"bizllm.train.objectives.{name}").OBJECTIVE
    assert issubclass(cls, Objective) and cls.name == name
    return cls


def is_kind(kind: pa.DataType, tests: tuple[Callable[[pa.DataType], bool], ...]) -> bool:
    """Whether a type is one of `STRING` or `NUMBER`."""
    return any(test(kind) for test in tests)


def is_list_of(kind: pa.DataType, tests: tuple[Callable[[pa.DataType], bool], ...]) -> bool:
    """Whether a type is a list of one of them."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return listed and is_kind(kind.value_type, tests)
