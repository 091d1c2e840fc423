"""The stage of a row task: read, check keys, prepare on CPU; then answer and stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.infer.receipts import Receipt
from bizllm.infer.work import StepContext, Subjects, TaskStage, Writer, answered
from bizllm.tables import hashing
from bizllm.tables.hashing import HI, LO
from bizllm.tables.manifest import Unit, verify
from bizllm.tasks.base import Reject


@dataclass
class AnswerRows(TaskStage):
    """Units of the manifest → staged answers."""

    name: str = "answer"

    def read(self, unit: Unit) -> list[pa.Table]:
        """One table: key columns (`__key_NAME`), hash words and what the task prepared: (rows,)."""
        context = self.context
        reads = context.task.reads()
        verify(unit)
        rows = context.source.read(unit, list(dict.fromkeys([*context.source_key, *reads])))
        hi, lo = hashing.row_hashes(rows, reads)
        prepared = context.task.prepare(rows.select(reads))
        assert prepared.num_rows == rows.num_rows, "prepare keeps every row"
        for name in context.source_key:
            prepared = prepared.append_column(_key(name), rows[name])
        return [prepared.append_column(HI, pa.array(hi)).append_column(LO, pa.array(lo))]

    def work(self, unit: Unit, tables: list[pa.Table]) -> Receipt:
        """Answer the rows that have a key, stage answers and rejects."""
        (table,) = tables
        context = self.context
        writer = Writer(context, self.name, unit.id)
        has_key = keyed(table, [_key(name) for name in context.source_key])
        missing = np.flatnonzero(~has_key)
        writer.reject(
            "row",
            _keys(table, context),
            [Reject(int(i), "no_key", "a key column is null") for i in missing],
            hashing.hex(table[HI].to_numpy(), table[LO].to_numpy()) if len(missing) else None,
        )
        rows = table if has_key.all() else table.filter(pa.array(has_key))
        subjects = Subjects(_keys(rows, context), rows[HI].to_numpy(), rows[LO].to_numpy())
        batch = rows.drop_columns([HI, LO, *(_key(name) for name in context.source_key)])
        outcome = answered(context.task.answer, batch, len(subjects), lambda a, b: batch.slice(a, b - a))
        writer.reject("row", subjects.keys, list(outcome.rejects), hashing.hex(subjects.hi, subjects.lo))
        return writer.receipt(table.num_rows, outcome, subjects)


def _key(name: str) -> str:
    return f"__key_{name}"


def _keys(table: pa.Table, context: StepContext) -> pa.Table:
    return pa.table({name: table[_key(name)] for name in context.source_key})


def keyed(table: pa.Table, columns: list[str]) -> npt.NDArray[np.bool_]:
    """(rows,) whether every one of the columns has a value."""
    has_key = np.ones(table.num_rows, bool)
    for name in columns:
        has_key &= pc.is_valid(table[name]).to_numpy()
    return has_key
