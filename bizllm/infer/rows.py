"""The stage of a row task: read, check keys, prepare each different row on CPU; then answer and stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.infer.buckets import Piece, read_pieces, write_buckets
from bizllm.infer.receipts import Receipt
from bizllm.infer.subjects import Subjects, answered
from bizllm.infer.work import StepContext, TaskStage, Writer
from bizllm.tables import hashing, storage
from bizllm.tables.hashing import HI, LO
from bizllm.tables.manifest import Unit, checked
from bizllm.tasks.base import Outcome, Reject

KEY = "__key_"  # before the names of key columns, which may be those of columns that the task reads
CODE, MESSAGE = "__code", "__message"  # of a reject, among answers that other units take
OTHERS_WAIT = "__others_wait"  # of a hash that a unit is told of: it answers it for others; else it leaves it out
SOME_ROWS = 4_096  # what engines are chosen on
_OWN, _FOR_OTHERS, _LEFT_OUT = 0, 1, 2


@dataclass(frozen=True)
class RowUnit:
    """A unit of the manifest. told: pieces with the hashes that are not this unit's own affair; see `reuse.Match`."""

    unit: Unit
    told: tuple[Piece, ...] = ()

    @property
    def id(self) -> str:
        return self.unit.id


@dataclass
class AnswerRows(TaskStage):
    """Units of the manifest → staged answers. buckets: of what goes to `reuse.Spread`."""

    name: str = "answer"
    buckets: int = 1

    def read(self, unit: RowUnit) -> list[pa.Table]:
        """[what the task prepared of each different row, every row: key columns (`__key_NAME`), hash words, `__at` its
        row in the first table, `__affair`]. Of a row that is left out, or has no key, `__at` is −1."""
        context = self.context
        reads = context.task.reads()
        with checked(unit.unit):
            rows = context.source.read(unit.unit, list(dict.fromkeys([*context.source_key, *reads])))
        hi, lo = hashing.row_hashes(rows, reads)
        keys = pa.table({_key(name): rows[name] for name in context.source_key})
        affair = _affairs(hi, lo, unit.told)
        asked = np.flatnonzero(keyed(keys, keys.column_names) & (affair != _LEFT_OUT))
        words = np.stack([hi[asked], lo[asked]], axis=1)
        _, first, place = np.unique(words, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)  # in the order of the rows
        at = np.full(len(hi), -1, np.int64)
        at[asked] = np.argsort(order)[place.reshape(-1)]
        different = rows.select(reads).take(pa.array(asked[first[order]]))
        prepared = context.task.prepare(different)
        assert prepared.num_rows == different.num_rows, "prepare keeps every row"
        every = keys.append_column(HI, pa.array(hi)).append_column(LO, pa.array(lo))
        return [prepared, every.append_column("__at", pa.array(at)).append_column("__affair", pa.array(affair))]

    def work(self, unit: RowUnit, tables: list[pa.Table]) -> Receipt:
        """Answer the different rows, give each row its answer, stage answers and rejects."""
        batch, rows = tables
        context = self.context
        writer = Writer(context, self.name, unit.id)
        has_key = keyed(rows, [_key(name) for name in context.source_key])
        missing = np.flatnonzero(~has_key)
        writer.reject(
            "row",
            keys_of(rows, context),
            [Reject(int(i), "no_key", "a key column is null or not valid UTF-8") for i in missing],
            hashing.hex(rows[HI].to_numpy(), rows[LO].to_numpy()) if len(missing) else None,
        )
        rows = rows.filter(pa.array(has_key))
        affair = rows["__affair"].to_numpy()
        own = rows.filter(pa.array(affair != _LEFT_OUT))
        subjects = Subjects(keys_of(own, context), own[HI].to_numpy(), own[LO].to_numpy())
        with self.remembering(unit.unit):
            made = answered(context.task.answer, batch, batch.num_rows, lambda a, b: batch.slice(a, b - a))
        outcome = _each(made, own["__at"].to_numpy(), batch.num_rows)
        writer.reject("row", subjects.keys, list(outcome.rejects), hashing.hex(subjects.hi, subjects.lo))
        extra = self.engines()
        if (affair == _LEFT_OUT).any():
            waiting = rows.filter(pa.array(affair == _LEFT_OUT)).drop_columns(["__at", "__affair"])
            extra["waiting"] = self._write(waiting, writer, "-waiting.parquet")
        if (affair == _FOR_OTHERS).any():
            given = own["__affair"].to_numpy() == _FOR_OTHERS
            extra["shared"] = self._write(_offers(writer, subjects, outcome, given), writer, "-shared.parquet")
        return writer.receipt(len(own) + len(missing), outcome, subjects, extra=extra)

    def few(self, tables: list[pa.Table]) -> list[pa.Table]:
        """What `read` gave, of some rows only."""
        batch, rows = tables
        return [batch.slice(0, SOME_ROWS), rows.filter(pc.less(rows["__at"], SOME_ROWS))]

    def _write(self, table: pa.Table, writer: Writer, suffix: str) -> dict[str, object]:
        number = (table[LO].to_numpy() % np.uint64(self.buckets)).astype(np.int32)
        url = storage.join(self.context.state_url, "buckets", writer.file_name(suffix))
        return write_buckets(table, number, url)


def _affairs(hi: npt.NDArray[np.uint64], lo: npt.NDArray[np.uint64], told: tuple[Piece, ...]) -> npt.NDArray[np.int8]:
    """(rows,) whose affair each row is: _OWN, _FOR_OTHERS or _LEFT_OUT."""
    affair = np.full(len(hi), _OWN, np.int8)
    hashes = read_pieces(told)
    if hashes is not None:
        rows = pa.table({HI: hi, LO: lo, "__i": np.arange(len(hi))}).join(hashes, keys=[HI, LO], join_type="inner")
        affair[rows["__i"].to_numpy()] = np.where(rows[OTHERS_WAIT].to_numpy(), _FOR_OTHERS, _LEFT_OUT)
    return affair


def _each(made: Outcome, at: npt.NDArray[np.int64], different: int) -> Outcome:
    """The outcome of every row from that of the different rows. at: (rows,) which of them each row is."""
    if len(at) == different:  # no row was there twice
        return made
    answer = np.full(different, -1, np.int64)
    answer[made.subject] = np.arange(len(made.subject))
    why = {reject.subject: reject for reject in made.rejects}
    place = answer[at]
    subject = np.flatnonzero(place >= 0)
    rejects = [Reject(int(i), why[k].code, why[k].message) for i, k in enumerate(at.tolist()) if k in why]
    columns = made.columns.take(pa.array(place[subject])) if len(made.subject) else made.columns
    return Outcome(subject, columns, rejects, made.tokens, made.exhibit)


def _offers(writer: Writer, subjects: Subjects, outcome: Outcome, given: npt.NDArray[np.bool_]) -> pa.Table:
    """Answers and rejects of the `given` subjects, with their hash words: for rows of other units."""
    kept = np.flatnonzero(given[outcome.subject]) if len(outcome.subject) else np.zeros(0, np.int64)
    records = (
        writer.records(subjects, outcome).take(pa.array(kept)) if len(kept) else writer.context.schema.empty_table()
    )
    records = records.drop_columns([name for name in records.column_names if name in _of_a_row(writer.context)])
    # Beside a reject they are null.
    records = records.cast(pa.schema([field.with_nullable(True) for field in records.schema]))
    where = outcome.subject[kept]
    records = records.append_column(HI, pa.array(subjects.hi[where])).append_column(LO, pa.array(subjects.lo[where]))
    rejects = [reject for reject in outcome.rejects if given[reject.subject]]
    at = [reject.subject for reject in rejects]
    refused = pa.table(
        {
            HI: subjects.hi[at],
            LO: subjects.lo[at],
            CODE: pa.array([reject.code for reject in rejects], pa.string()),
            MESSAGE: pa.array([reject.message for reject in rejects], pa.string()),
        }
    )
    return pa.concat_tables([records, refused], promote_options="default")


def _of_a_row(context: StepContext) -> set[str]:
    """Columns of the table that belong to a row and a run, not to an answer."""
    return {*context.task.keys(), "run_date", "run_id"}


def _key(name: str) -> str:
    return f"{KEY}{name}"


def keys_of(table: pa.Table, context: StepContext) -> pa.Table:
    """The key columns under their own names."""
    return pa.table({name: table[_key(name)] for name in context.source_key})


def keyed(table: pa.Table, columns: list[str]) -> npt.NDArray[np.bool_]:
    """(rows,) whether every one of the columns has a value."""
    has_key = np.ones(table.num_rows, bool)
    for name in columns:
        has_key &= pc.is_valid(table[name]).to_numpy()
    return has_key
