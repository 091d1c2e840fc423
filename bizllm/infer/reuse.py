"""Answers that are there already are copied, not computed: of an earlier night, or of another unit of this run.

A row task's answer depends on the columns that it reads and on the step's fingerprint alone, so rows of equal input
hash have equal answers, whatever their keys. Which unit answers a hash that several have, and which hashes an earlier
night answered, is decided by bucket of the hash before any model is asked:

* **hashes**: units of the manifest → their different hashes, by bucket.
* **earlier**: files of the earlier night → their hashes, by bucket.
* **match**: a bucket → for each unit the hashes that it must leave out, and those whose answers others wait for.
* **answer** (`rows.AnswerRows`): units → staged answers; rows that were left out go into buckets, with their keys.
* **carry**: files of the earlier night → their answers, by bucket. Only where a row waits for one.
* **spread**: a bucket → the rows that wait, with the answers of `carry` and of the other units.

Identical rows of one unit need none of this: `AnswerRows` asks for each different row once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bizllm.errors import RunError
from bizllm.infer.buckets import Piece, read_pieces, write_buckets
from bizllm.infer.receipts import Receipt
from bizllm.infer.rows import CODE, MESSAGE, OTHERS_WAIT, RowUnit, keyed, keys_of
from bizllm.infer.subjects import Subjects
from bizllm.infer.work import KEPT, PlainStage, Writer
from bizllm.tables import hashing, storage
from bizllm.tables.hashing import HI, LO
from bizllm.tables.manifest import Unit, checked
from bizllm.tasks.base import Outcome, Reject

BUCKET_HASHES = 4_000_000  # about 200 MB while they are matched
BUCKET_BYTES = 48 << 20  # of an earlier night: its answers are spread a bucket at a time, by all workers at once
MOST_BUCKETS = 256


def bucket_count(rows: int, size: int) -> int:
    """How many buckets so many hashes are matched in, and answers of so many bytes are spread."""
    return max(1, min(MOST_BUCKETS, max(-(-rows // BUCKET_HASHES), -(-size // BUCKET_BYTES))))


@dataclass
class Hashes(PlainStage):
    """Units of the manifest → the different hashes of their rows that have a key, by bucket."""

    buckets: int
    name: str = "hashes"

    def read(self, unit: Unit) -> list[pa.Table]:
        """What the task reads, and the key: (rows,)."""
        context = self.context
        with checked(unit):
            return [context.source.read(unit, list(dict.fromkeys([*context.source_key, *context.task.reads()])))]

    def work(self, unit: Unit, tables: list[pa.Table]) -> Receipt:
        """Hash, drop repetitions, write by bucket."""
        (table,) = tables
        context = self.context
        writer = Writer(context, self.name, unit.id)
        hi, lo = hashing.row_hashes(table, context.task.reads())
        rows = pa.table({HI: hi, LO: lo}).filter(pa.array(keyed(table, list(context.source_key))))
        different = rows.group_by([HI, LO], use_threads=False).aggregate([])
        return writer.receipt(0, extra={"hashes": _write(writer, different, self.buckets)})


@dataclass(frozen=True)
class EarlierFile:
    """A published file of the earlier night."""

    number: int
    url: str

    @property
    def id(self) -> str:
        return f"f{self.number:05d}"


@dataclass
class Earlier(PlainStage):
    """Files of the earlier night → the hashes that they answer, by bucket."""

    buckets: int
    name: str = "earlier"

    def read(self, unit: EarlierFile) -> list[pa.Table]:
        """The input hashes: (rows,)."""
        return [_hashed(_read_file(unit.url, ["input_hash"]))]

    def work(self, unit: EarlierFile, tables: list[pa.Table]) -> Receipt:
        """Write them by bucket."""
        writer = Writer(self.context, self.name, unit.id)
        rows = tables[0].select([HI, LO]).group_by([HI, LO], use_threads=False).aggregate([])
        return writer.receipt(0, extra={"earlier": _write(writer, rows, self.buckets)})


@dataclass
class Carry(PlainStage):
    """Files of the earlier night → their answers, by bucket."""

    buckets: int
    name: str = "carry"

    def read(self, unit: EarlierFile) -> list[pa.Table]:
        """Hash words, the task's columns and those of `KEPT`: (rows,)."""
        return [_hashed(_read_file(unit.url, [*self.context.task.columns().names, *KEPT]))]

    def work(self, unit: EarlierFile, tables: list[pa.Table]) -> Receipt:
        """Write them by bucket."""
        writer = Writer(self.context, self.name, unit.id)
        return writer.receipt(0, extra={"answers": _write(writer, tables[0], self.buckets)})


@dataclass(frozen=True)
class Pair:
    """A bucket's hashes. units: of the units that have any, by number."""

    number: int
    units: tuple[tuple[int, Piece], ...]
    earlier: tuple[Piece, ...]

    @property
    def id(self) -> str:
        return f"b{self.number:05d}"


@dataclass
class Match(PlainStage):
    """A bucket's hashes → for each unit what it leaves out, and what others wait for. `extra["found"]`: how many hashes
    an earlier night answered; `left_out`: how many (unit, hash) are left out."""

    name: str = "match"

    def read(self, unit: Pair) -> list[pa.Table]:
        """[hashes with their unit's number, hashes of the earlier night]."""
        mine = []
        for number, piece in unit.units:
            table = read_pieces([piece])
            assert table is not None
            mine.append(table.append_column("unit", pa.array(np.full(table.num_rows, number, np.int32))))
        earlier = read_pieces(unit.earlier)
        return [pa.concat_tables(mine), mine[0].select([HI, LO]).slice(0, 0) if earlier is None else earlier]

    def work(self, unit: Pair, tables: list[pa.Table]) -> Receipt:
        """The first unit that has a hash answers it, unless an earlier night did."""
        mine, earlier = tables
        writer = Writer(self.context, self.name, unit.id)
        known = earlier.group_by([HI, LO], use_threads=False).aggregate([])
        known = known.append_column("known", pa.array(np.ones(len(known), bool)))
        owners = mine.group_by([HI, LO], use_threads=False).aggregate([("unit", "min"), ("unit", "count")])
        joined = mine.join(owners, keys=[HI, LO]).join(known, keys=[HI, LO])
        found = pc.fill_null(joined["known"], False).to_numpy()
        number = joined["unit"].to_numpy()
        owns = ~found & (number == joined["unit_min"].to_numpy())
        told = ~owns | (joined["unit_count"].to_numpy() > 1)
        rows = joined.select([HI, LO]).append_column(OTHERS_WAIT, pa.array(owns)).filter(pa.array(told))
        url = storage.join(self.context.state_url, "buckets", writer.file_name())
        index = write_buckets(rows, number[told], url)
        return writer.receipt(0, extra={"match": index, "found": int(found.sum()), "left_out": int((~owns).sum())})


def pairs(units: Sequence[Receipt], earlier: Sequence[Receipt]) -> list[Pair]:
    """The buckets in which any unit has a hash. units: receipts of `hashes`, in the order of their unit's number."""
    found: dict[int, tuple[list[tuple[int, Piece]], list[Piece]]] = {}
    for number, receipt in enumerate(units):
        index = receipt.extra["hashes"]
        for bucket, row_group in index["groups"].items():
            found.setdefault(int(bucket), ([], []))[0].append((number, (index["url"], row_group)))
    for receipt in earlier:
        index = receipt.extra["earlier"]
        for bucket, row_group in index["groups"].items():
            if int(bucket) in found:
                found[int(bucket)][1].append((index["url"], row_group))
    return [Pair(number, tuple(mine), tuple(theirs)) for number, (mine, theirs) in sorted(found.items())]


def row_units(units: Sequence[Unit], matched: Sequence[Receipt]) -> list[RowUnit]:
    """The manifest's units, each with where it is told what to leave out. The order is that of `pairs`' numbers."""
    told: list[list[Piece]] = [[] for _ in units]
    for receipt in matched:
        index = receipt.extra["match"]
        for number, row_group in index["groups"].items():
            told[int(number)].append((index["url"], row_group))
    return [RowUnit(unit, tuple(pieces)) for unit, pieces in zip(units, told, strict=True)]


@dataclass(frozen=True)
class Waiting:
    """A bucket of rows that wait, and where their answers are."""

    number: int
    rows: tuple[Piece, ...]
    answers: tuple[Piece, ...]  # of the earlier night
    shared: tuple[Piece, ...]  # of other units

    @property
    def id(self) -> str:
        return f"b{self.number:05d}"


@dataclass
class Spread(PlainStage):
    """A bucket of rows that wait → their answers, staged. What another unit rejected is rejected here, too."""

    name: str = "spread"

    def read(self, unit: Waiting) -> list[pa.Table]:
        """[rows that wait: keys and hash words, answers of other units, answers of the earlier night]."""
        rows = read_pieces(unit.rows)
        assert rows is not None, "somebody waits"
        answers = (read_pieces(pieces) for pieces in (unit.shared, unit.answers))
        return [rows, *(pa.table({}) if table is None else table for table in answers)]

    def work(self, unit: Waiting, tables: list[pa.Table]) -> Receipt:
        """Every row that waits has exactly one answer, or reject, to take."""
        rows, shared, earlier = tables
        writer = Writer(self.context, self.name, unit.id)
        subjects = Subjects(keys_of(rows, self.context), rows[HI].to_numpy(), rows[LO].to_numpy())
        offered = _offered(shared, earlier)
        at = _position(rows, offered)
        assert (at >= 0).all(), "every row that waits is answered by an earlier night or another unit"
        code = offered[CODE].take(pa.array(at))
        answered = pc.is_null(code).to_numpy()
        message = offered[MESSAGE].take(pa.array(at))
        rejects = [Reject(int(i), code[i].as_py(), message[i].as_py()) for i in np.flatnonzero(~answered)]
        writer.reject("row", subjects.keys, rejects, hashing.hex(subjects.hi, subjects.lo))
        subject = np.flatnonzero(answered)
        columns = offered.drop_columns([HI, LO, CODE, MESSAGE, OLD]).take(pa.array(at[subject]))
        reused = int(offered[OLD].take(pa.array(at[subject])).to_numpy().sum())
        receipt = writer.receipt(rows.num_rows, Outcome(subject, columns, rejects), subjects)
        return replace(receipt, rows_reused=reused)


OLD = "__old"


def _offered(shared: pa.Table, earlier: pa.Table) -> pa.Table:
    """All answers and rejects of a bucket, one of each hash: this run's before the earlier night's, which has only what
    this run was told to leave out."""
    parts = [
        t.append_column(OLD, pa.array(np.full(len(t), old))) for t, old in ((shared, False), (earlier, True)) if len(t)
    ]
    if not parts:
        return pa.table({name: [] for name in (HI, LO, CODE, MESSAGE, OLD)})
    whole = pa.concat_tables(parts, promote_options="default")
    for name in (CODE, MESSAGE):
        if name not in whole.column_names:
            whole = whole.append_column(name, pa.nulls(len(whole), pa.string()))
    return whole


def _position(rows: pa.Table, offered: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(rows,) where each row's hash stands first in `offered`; −1 where it doesn't."""
    places = offered.select([HI, LO]).append_column("__at", pa.array(np.arange(len(offered))))
    first = places.group_by([HI, LO], use_threads=False).aggregate([("__at", "min")])
    asked = rows.select([HI, LO]).append_column("__i", pa.array(np.arange(len(rows))))
    joined = asked.join(first, keys=[HI, LO])
    position = np.full(len(rows), -1, np.int64)
    position[joined["__i"].to_numpy()] = pc.fill_null(joined["__at_min"], -1).to_numpy()
    return position


def _hashed(rows: pa.Table) -> pa.Table:
    """The rows with the words of their `input_hash`."""
    hi, lo = hashing.words(rows["input_hash"])
    return rows.append_column(HI, pa.array(hi)).append_column(LO, pa.array(lo))


def _read_file(url: str, columns: Sequence[str]) -> pa.Table:
    try:
        with storage.open_input(url) as source:
            file = pq.ParquetFile(source)
            there = set(file.schema_arrow.names)
            return file.read([name for name in columns if name in there])
    except FileNotFoundError:
        raise RunError(f"{url}: a file of the earlier night is gone; --fresh computes every row anew") from None


def _write(writer: Writer, table: pa.Table, buckets: int) -> dict[str, Any]:
    number = (table[LO].to_numpy() % np.uint64(buckets)).astype(np.int32)
    return write_buckets(table, number, storage.join(writer.context.state_url, "buckets", writer.file_name()))
