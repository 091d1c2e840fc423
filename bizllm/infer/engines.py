"""Which engines a step's models run on: asked of the step's own rows, by one worker, before the others begin."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from bizllm.errors import RunError
from bizllm.infer.kept_engines import Kept, keep
from bizllm.infer.receipts import Receipt
from bizllm.infer.work import StepContext
from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.encoder import unit_length
from bizllm.models.engines.base import Engine, Network
from bizllm.models.engines.choice import Choice, Wanted, choose
from bizllm.models.engines.torch_engine import TorchEngine
from bizllm.models.load import ModelLoader


class Sampled(RunError):
    """What a model was asked first; ends the work that asked."""

    def __init__(self, network: Network, windows: Windows) -> None:
        super().__init__("sampled")
        self.network, self.windows = network, windows


@dataclass
class ChooseEngine:
    """A unit of `inner` → the choice of engine for each model, kept in the warehouse. Answers nothing.

    urls: where the choice for each model is kept, by its URI.
    shared: its vectors are for other steps, too: they must agree as such, whatever this step's head makes of them.
    """

    inner: Any  # AnswerRows, AnswerGroups: a stage that has a context
    wanted: Wanted
    urls: Mapping[str, str]
    shared: bool = False
    name: str = "engine"
    holds_model: bool = True
    uses_gpu: bool = True  # what an endpoint computes needs no choice

    def open(self) -> None:
        """Each model is loaded when it is its turn."""

    def read(self, unit: Any) -> list[pa.Table]:
        """As the stage itself, but few."""
        tables: list[pa.Table] = self.inner.few(self.inner.read(unit))
        return tables

    def work(self, unit: Any, tables: list[pa.Table]) -> Receipt:
        """Ask until each model was asked something; one that is never asked gets no choice."""
        import torch

        context: StepContext = self.inner.context
        choices = {}
        for uri, url in self.urls.items():
            sampled = self._asked(uri, unit, tables)
            if sampled is None:
                continue
            with tempfile.TemporaryDirectory(prefix="bizllm-engines-") as work:
                threads = torch.get_num_threads()
                network = sampled.network
                if self.shared:
                    network = replace(network, kind="vectors", finish=unit_length)
                choice = choose(network, sampled.windows, self.wanted, Path(work), threads)
                choices[uri] = keep(url, choice, Path(work)).choice.to_json()
        return Receipt(self.name, unit.id, context.run_id, extra={"choices": choices})

    def _asked(self, uri: str, unit: Any, tables: list[pa.Table]) -> Sampled | None:
        context: StepContext = self.inner.context

        def engine(asked: str, network: Network) -> Engine:
            return _Sampling(network) if asked == uri else TorchEngine(network)

        context.opened(ModelLoader(pinned=context.pinned, engine=engine))
        try:
            self.inner.work(unit, tables)
        except Sampled as sampled:
            return sampled
        return None


class _Sampling(TorchEngine):
    """Ends the work at the first windows that are asked about."""

    def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
        raise Sampled(self.network, windows)


def choices_of(receipt: Receipt, urls: Mapping[str, str]) -> dict[str, Kept]:
    """What a receipt of `ChooseEngine` tells, by the model's URI."""
    said: dict[str, str] = receipt.extra["choices"]
    return {uri: Kept(urls[uri], Choice.from_json(text)) for uri, text in said.items()}
