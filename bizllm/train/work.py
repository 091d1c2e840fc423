"""What the workers of a training read: the folder that the driver prepared, and workers copy where they don't see it.

work.json                     recipe, model info
base/                         the base model, where it is not on every machine (else work.json says where it lies)
{train,validation,test}.arrow examples; {validation,test}.rows.arrow the rows that scores are told of
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.models.saved import ModelInfo, info_of
from bizllm.train.objectives.base import Objective, objective_class
from bizllm.train.recipe import Recipe

if TYPE_CHECKING:
    from bizllm.models.network import Network

PARTS = ("train", "validation", "test")
FILE = "work.json"
BASE = "base"


@dataclass(frozen=True)
class Work:
    """One training's frozen input."""

    folder: Path
    recipe: Recipe
    info: ModelInfo
    base: Path

    @classmethod
    def load(cls, folder: Path) -> Work:
        """Read `work.json`."""
        said = json.loads((folder / FILE).read_text("utf-8"))
        inside = folder / BASE
        base = inside if inside.is_dir() else Path(said["base"])
        return cls(folder, Recipe.model_validate(said["recipe"]), info_of(said["info"]), base)

    def save(self) -> None:
        """Write `work.json`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        said = {"recipe": self.recipe.model_dump(mode="json"), "info": asdict(self.info), "base": str(self.base)}
        (self.folder / FILE).write_text(json.dumps(said, ensure_ascii=False, indent=1), "utf-8")

    @cached_property
    def tokenizer(self) -> Any:
        """Of the base model."""
        return load_tokenizer(self.base)

    @cached_property
    def objective(self) -> Objective:
        """The objective, knowing labels and window."""
        return objective_class(self.recipe.objective)(self.recipe, self.tokenizer, self.info)

    def network(self) -> Network:
        """The base model with a head, before any training. The head's weights follow from the seed."""
        import torch

        from bizllm.models import heads
        from bizllm.models.network import new_network

        torch.manual_seed(self.recipe.seed)
        network = new_network(self.base, self.info, self.recipe.optim.dropout)
        self.objective.start(network, self.examples("train"), heads.earlier(self.base, self.info) is not None)
        return network

    def write(self, part: str, examples: pa.Table, rows: pa.Table | None = None) -> None:
        """Keep a part's examples, and where scores need them its rows."""
        for name, table in ((f"{part}.arrow", examples), (f"{part}.rows.arrow", rows)):
            if table is not None:
                with pa.OSFile(str(self.folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table, max_chunksize=1 << 20)

    def examples(self, part: str) -> pa.Table:
        """A part's examples, mapped into memory: workers of a machine share it, and it may be larger than memory."""
        return _mapped(self.folder / f"{part}.arrow")

    def rows(self, part: str) -> pa.Table:
        """A part's rows, in canonical columns."""
        return _mapped(self.folder / f"{part}.rows.arrow")


def take(examples: pa.Table, rows: npt.NDArray[np.int64]) -> pa.Table:
    """`examples.take(rows)`, at the cost of those rows: Arrow's own walks a whole table of several chunks."""
    batches = examples.to_batches()
    ends = np.cumsum([len(batch) for batch in batches])
    chunk = np.searchsorted(ends, rows, side="right")
    parts = [batches[c].take(pa.array(rows[chunk == c] - (ends[c] - len(batches[c])))) for c in np.unique(chunk)]
    place = np.argsort(np.argsort(chunk, kind="stable"))
    return pa.Table.from_batches(parts).combine_chunks().take(pa.array(place))


def lengths(examples: pa.Table) -> npt.NDArray[np.int64]:
    """(examples,) tokens of each, special tokens included; of the longer one of a pair that is read apart."""
    longest: npt.NDArray[np.int64] = pc.list_value_length(examples["input_ids"]).to_numpy().astype(np.int64)
    if "pair_ids" in examples.column_names:
        longest = np.maximum(longest, pc.list_value_length(examples["pair_ids"]).to_numpy())
    return longest


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; none of its code is run. A tokenizer without padding pads with its end."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _mapped(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all()
