"""The stages that table tasks add: fit once on a sample of the features, then answer every group from its features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.infer.receipts import Receipt
from bizllm.infer.subjects import Subjects, answered
from bizllm.infer.work import PlainStage, TaskStage, Writer
from bizllm.tables import hashing, storage
from bizllm.tables.hashing import HI, LO

FIT_SAMPLE_ROWS = 200_000  # groups that a fit sees at most: bounds its memory whatever the table's size


@dataclass(frozen=True)
class FeatureFile:
    """Features of one bucket's groups."""

    id: str
    url: str
    rows: int


def feature_files(receipts: Sequence[Receipt]) -> list[FeatureFile]:
    """What the features stage left, bucket by bucket."""
    return [FeatureFile(r.unit, r.extra["features"], r.extra["rows"]) for r in receipts if r.extra]


def read_features(url: str) -> pa.Table:
    """(groups,) group columns, features, hash words."""
    with storage.open_input(url) as source:
        return pq.read_table(source)


@dataclass(frozen=True)
class FitUnit:
    """All features of a step."""

    files: tuple[FeatureFile, ...]
    id: str = "all"


@dataclass
class Fit(PlainStage):
    """One unit: features of all groups, or a sample of them → the fit, as JSON beside the table."""

    fit_url: str
    previous: dict[str, Any] | None
    name: str = "fit"

    def read(self, unit: FitUnit) -> list[pa.Table]:
        """The same share of every bucket, evenly spaced in key order, so that row order does not matter."""
        share = min(1.0, FIT_SAMPLE_ROWS / max(1, sum(f.rows for f in unit.files)))
        return [pa.concat_tables([self._sample(f, share) for f in unit.files])]

    def _sample(self, file: FeatureFile, share: float) -> pa.Table:
        table = read_features(file.url).drop_columns([HI, LO])
        if share >= 1.0:
            return table
        table = table.sort_by([(name, "ascending") for name in self.context.task.group_by()])
        return table.take(pa.array(np.arange(0, table.num_rows, 1 / share).astype(np.int64)))

    def work(self, unit: FitUnit, tables: list[pa.Table]) -> Receipt:
        """Fit, and write the fit."""
        writer = Writer(self.context, self.name, unit.id)
        (features,) = tables
        fitted = self.context.task.fit(features, self.previous)
        storage.write_bytes(self.fit_url, json.dumps(fitted, ensure_ascii=False, sort_keys=True).encode())
        return writer.receipt(0, extra={"fit": self.fit_url})


@dataclass
class AnswerFeatures(TaskStage):
    """Feature files → staged answers, with `task.fitted` set."""

    name: str = "answer"

    def read(self, unit: FeatureFile) -> list[pa.Table]:
        """The bucket's features."""
        return [read_features(unit.url)]

    def work(self, unit: FeatureFile, tables: list[pa.Table]) -> Receipt:
        """Answer every group."""
        context = self.context
        writer = Writer(context, self.name, unit.id)
        (table,) = tables
        subjects = Subjects(table.select(context.task.group_by()), table[HI].to_numpy(), table[LO].to_numpy())
        batch = table.drop_columns([HI, LO])
        outcome = answered(context.task.answer, batch, len(subjects), lambda a, b: batch.slice(a, b - a))
        writer.reject("group", subjects.keys, list(outcome.rejects), hashing.hex(subjects.hi, subjects.lo))
        return writer.receipt(len(subjects), outcome, subjects)
