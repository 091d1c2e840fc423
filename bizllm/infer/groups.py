"""The stages of group and table tasks: scatter rows into key-hash buckets, gather each bucket, then answer or fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.infer.buckets import Piece, pieces, read_pieces, write_buckets
from bizllm.infer.receipts import Receipt
from bizllm.infer.rows import keyed
from bizllm.infer.subjects import Subjects, answered
from bizllm.infer.work import (
    PlainStage,
    StepContext,
    TaskStage,
    Writer,
    conform,
    write_parquet,
)
from bizllm.tables import hashing, storage
from bizllm.tables.hashing import HI, LO
from bizllm.tables.manifest import Unit, checked
from bizllm.tables.source import Source
from bizllm.tables.types import text_or_null
from bizllm.tasks.base import Groups, Outcome, Reject


@dataclass(frozen=True)
class Bucket:
    """All rows of the groups whose key hashes to `number`. prior, kept: what an earlier night published for them."""

    number: int
    rows: tuple[Piece, ...] = ()
    tallies: tuple[Piece, ...] = ()
    prior: tuple[Piece, ...] = ()
    kept: tuple[Piece, ...] = ()

    @property
    def id(self) -> str:
        return f"b{self.number:05d}"


@dataclass
class Scatter(PlainStage):
    """Units of the manifest → combined rows, and tallies of what came in, by bucket."""

    buckets: int
    name: str = "scatter"

    def open(self) -> None:
        """What the task learned may decide how it combines."""
        self.context.knowing()

    def read(self, unit: Unit) -> list[pa.Table]:
        """The columns that the task reads, and those that find a row again."""
        context = self.context
        with checked(unit):
            rows = context.source.read(unit, list(dict.fromkeys([*context.reject_keys, *context.task.reads()])))
        for name in context.task.group_by():
            rows = rows.set_column(rows.column_names.index(name), rows.field(name), text_or_null(rows[name]))
        return [rows]

    def work(self, unit: Unit, tables: list[pa.Table]) -> Receipt:
        """Drop rows without a group, combine the rest, write both by bucket."""
        (table,) = tables
        context, task = self.context, self.context.task
        writer = Writer(context, self.name, unit.id)
        group = task.group_by()
        has_key = keyed(table, group)
        missing = [
            Reject(int(i), "no_key", "a group column is null or not valid UTF-8") for i in np.flatnonzero(~has_key)
        ]
        writer.reject("row", table.select(context.reject_keys), missing)
        rows = table if has_key.all() else table.filter(pa.array(has_key))
        combined = task.combine(rows.select(task.reads()))
        writer.reject("row", rows.select(context.reject_keys), list(combined.rejects))
        tallies = hashing.group_tallies(rows, group, task.reads())
        index = {
            "rows": self._write(combined.rows, group, writer.file_name("-rows.parquet")),
            "tallies": self._write(tallies, group, writer.file_name("-tallies.parquet")),
        }
        return writer.receipt(table.num_rows, extra=index)

    def _write(self, table: pa.Table, group: list[str], name: str) -> dict[str, Any]:
        number = hashing.bucket_of(table, group, self.buckets)
        return write_buckets(table, number, storage.join(self.context.state_url, "buckets", name))


@dataclass
class ScatterEarlier(PlainStage):
    """A slice that this step published earlier, by the same buckets. name: also that of the pieces.

    columns: of the slice, beside the group's.
    """

    earlier: Source
    buckets: int
    columns: tuple[str, ...]
    name: str

    def read(self, unit: Unit) -> list[pa.Table]:
        """Group columns and `columns`."""
        rows = self.earlier.read(unit, list(dict.fromkeys([*self.context.task.group_by(), *self.columns])))
        return [rows.cast(pa.schema([self._field(f) for f in rows.schema]))]

    def _field(self, f: pa.Field) -> pa.Field:
        source = self.context.task.source.schema
        return source.field(f.name) if f.name in self.context.task.group_by() else f

    def work(self, unit: Unit, tables: list[pa.Table]) -> Receipt:
        """Write the rows by bucket."""
        (table,) = tables
        writer = Writer(self.context, self.name, unit.id)
        url = storage.join(self.context.state_url, "buckets", writer.file_name(f"-{self.name}.parquet"))
        number = hashing.bucket_of(table, self.context.task.group_by(), self.buckets)
        return writer.receipt(0, extra={self.name: write_buckets(table, number, url)})


def gathered(scattered: Sequence[Receipt], earlier: Sequence[Receipt]) -> list[Bucket]:
    """The buckets that hold any group, with where their pieces lie."""
    return [
        Bucket(number, *(tuple(of.get(kind, ())) for kind in ("rows", "tallies", "prior", "kept")))
        for number, of in pieces([*scattered, *earlier]).items()
        if of.get("tallies")
    ]


@dataclass
class AnswerGroups(TaskStage):
    """Buckets → staged answers (group tasks), or features of the groups (table tasks)."""

    features: bool = False

    @property
    def name(self) -> str:
        """Of the stage."""
        return "features" if self.features else "answer"

    def read(self, unit: Bucket) -> list[pa.Table]:
        """[one row a group: keys, hash words, `__prior_NAME`; the combined rows, sorted by their group `__group`; the
        table's rows of groups that an earlier night answered, which are in neither of the first two]."""
        group = self.context.task.group_by()
        tallies = read_pieces(unit.tallies)
        assert tallies is not None, "a bucket has groups"
        groups = hashing.merge_tallies([tallies], group).select([*group, HI, LO])
        if self.context.task.depends_on_date():
            groups = dated(groups, self.context)
        copied, groups = self._copied(unit, groups)
        numbered = groups.select(group).append_column("__group", pa.array(np.arange(groups.num_rows)))
        earlier = read_pieces(unit.prior)
        if earlier is not None:
            at = _position(earlier, numbered, group)
            slot = np.full(len(groups), -1)
            slot[at[at >= 0]] = np.flatnonzero(at >= 0)
            for name in self.context.task.prior_columns:
                groups = groups.append_column(f"__prior_{name}", earlier[name].take(pa.array(slot, mask=slot < 0)))
        rows = read_pieces(unit.rows)
        if rows is None:
            return [groups, pa.table({}), copied]
        at = _position(rows, numbered, group)
        assert copied.num_rows or (at >= 0).all(), "every combined row belongs to a tallied group"
        order = np.argsort(at, kind="stable")[np.count_nonzero(at < 0) :]
        return [groups, rows.take(pa.array(order)).append_column("__group", pa.array(at[order])), copied]

    def _copied(self, unit: Bucket, groups: pa.Table) -> tuple[pa.Table, pa.Table]:
        """(rows of the table that answer unchanged groups, the groups that are to be answered)."""
        context, group = self.context, self.context.task.group_by()
        kept = read_pieces(unit.kept)
        if kept is None:
            return context.schema.empty_table(), groups
        at = _position(kept, groups.select(group).append_column("__group", pa.array(np.arange(len(groups)))), group)
        hi, lo = hashing.words(kept["input_hash"])
        same = (at >= 0) & (groups[HI].to_numpy()[at] == hi) & (groups[LO].to_numpy()[at] == lo)
        kept = kept.filter(pa.array(same))
        values = {name: kept[name] for name in kept.column_names}
        values["run_date"] = pa.array([context.run_date] * len(kept), pa.date32())
        values["run_id"] = pa.array([context.run_id] * len(kept))
        left = np.ones(len(groups), bool)
        left[at[same]] = False
        return conform(values, context.schema, len(kept)), groups.filter(pa.array(left))

    def work(self, unit: Bucket, tables: list[pa.Table]) -> Receipt:
        """Answer every group of the bucket, or make its features."""
        context, task = self.context, self.context.task
        writer = Writer(context, self.name, unit.id)
        *fresh, copied = tables
        groups, subjects = self._unpack(*fresh)
        reused = len(copied.select(task.group_by()).group_by(task.group_by()).aggregate([])) if len(copied) else 0
        answer = task.features if self.features else task.answer
        outcome = answered(answer, groups, len(groups), lambda a, b: cut(groups, a, b))
        writer.reject("group", subjects.keys, list(outcome.rejects), hashing.hex(subjects.hi, subjects.lo))
        if not self.features:
            return writer.receipt(len(groups) + reused, outcome, subjects, copied, reused, extra=self.engines())
        url = storage.join(context.state_url, "features", writer.file_name())
        where = pa.array(outcome.subject)
        features = subjects.keys.take(where)
        for name in outcome.columns.column_names:
            features = features.append_column(name, outcome.columns[name])
        features = features.append_column(HI, pa.array(subjects.hi[outcome.subject]))
        features = features.append_column(LO, pa.array(subjects.lo[outcome.subject]))
        staged: dict[str, Any] = self.engines()
        if features.num_rows:
            write_parquet(features, url)
            staged |= {"features": url, "rows": features.num_rows}
        plain = Outcome(
            outcome.subject, pa.table({}), outcome.rejects, outcome.tokens, outcome.exhibit, outcome.skipped
        )
        return writer.receipt(len(groups), plain, subjects, extra=staged)

    def few(self, tables: list[pa.Table]) -> list[pa.Table]:
        """What `read` gave: a bucket is little enough."""
        return tables

    def _unpack(self, own: pa.Table, rows: pa.Table) -> tuple[Groups, Subjects]:
        task = self.context.task
        keys = own.select(task.group_by())
        starts = np.zeros(len(own) + 1, np.int64)
        if not rows.num_columns:
            rows = task.combine(task.source.schema.empty_table().select(task.reads())).rows
        else:
            np.cumsum(np.bincount(rows["__group"].to_numpy(), minlength=len(own)), out=starts[1:])
            rows = rows.drop_columns(["__group"])
        prior = None
        if task.prior_columns:
            columns = task.columns()
            prior = pa.table(
                {
                    name: own[f"__prior_{name}"]
                    if f"__prior_{name}" in own.column_names
                    else pa.nulls(len(own), columns.field(name).type)
                    for name in task.prior_columns
                }
            )
        return Groups(rows, starts, keys, prior), Subjects(keys, own[HI].to_numpy(), own[LO].to_numpy())


def dated(groups: pa.Table, context: StepContext) -> pa.Table:
    """The same, with the run date in the hash words: the answer may change with it although the rows do not."""
    hi, lo = hashing.row_hashes(pa.table({"run_date": pa.array([context.run_date])}), ["run_date"])
    for name, word in ((HI, hi), (LO, lo)):  # uint64: wraps around
        groups = groups.set_column(groups.column_names.index(name), name, pa.array(groups[name].to_numpy() + word))
    return groups


def cut(groups: Groups, start: int, stop: int) -> Groups:
    """Groups start … stop − 1."""
    first, last = int(groups.starts[start]), int(groups.starts[stop])
    return Groups(
        groups.rows.slice(first, last - first),
        groups.starts[start : stop + 1] - first,
        groups.keys.slice(start, stop - start),
        None if groups.prior is None else groups.prior.slice(start, stop - start),
    )


def _position(rows: pa.Table, groups: pa.Table, group: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(rows,) the position `__group` of each row's group among `groups`; −1 where it is none of them."""
    numbered = rows.select(group).append_column("__i", pa.array(np.arange(rows.num_rows)))
    joined = numbered.join(groups, keys=group, join_type="left outer")
    position = np.full(rows.num_rows, -1, np.int64)
    position[joined["__i"].to_numpy()] = pc.fill_null(joined["__group"], -1).to_numpy()
    return position
