"""Scatter and gather without Ray: every row finds its group, whatever units and buckets there are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bizllm.infer.groups import AnswerGroups, Scatter, ScatterEarlier, gathered
from bizllm.infer.receipts import Receipt, sum_rejects
from bizllm.infer.work import StepContext
from bizllm.tables.contract import output_schema, reject_schema
from bizllm.tables.manifest import Unit, freeze
from bizllm.tables.settings import SourceSettings
from bizllm.tables.source import Source
from bizllm.tasks.base import Combined, Groups, Outcome, Reject, Shape, StepInput, Task, TaskSettings

NIGHT = date(2026, 3, 10)
Row = dict[str, Any]


class TotalSettings(TaskSettings):
    """What `task: total` takes."""

    per: list[str]


@dataclass
class Total(Task):
    """Sums `value` for each group; what it sees of yesterday it hands on. Rows without a value are unusable."""

    name: ClassVar[str] = "total"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[TaskSettings]] = TotalSettings
    prior_columns: ClassVar[tuple[str, ...]] = ("total",)
    shape: ClassVar[Shape] = "group"  # type: ignore[assignment]

    def reads(self) -> list[str]:
        return [*self.settings.per, "value"]

    def check(self) -> list[tuple[str, object, str, str]]:
        return []

    def group_by(self) -> list[str]:
        return list(self.settings.per)

    def columns(self) -> pa.Schema:
        return pa.schema([("total", pa.int64()), ("rows", pa.int64()), ("yesterday", pa.int64())])

    def combine(self, rows: pa.Table) -> Combined:
        usable = rows["value"].is_valid()
        bad = np.flatnonzero(~usable.to_numpy())
        return Combined(rows.filter(usable), [Reject(int(i), "no_value", "no value") for i in bad])

    def answer(self, batch: Groups) -> Outcome:
        values = batch.rows["value"].to_numpy()
        sums = [int(values[a:b].sum()) for a, b in zip(batch.starts[:-1], batch.starts[1:], strict=True)]
        sizes = np.diff(batch.starts)
        full = np.flatnonzero(sizes)
        assert batch.prior is not None
        columns = {
            "total": pa.array(np.array(sums, np.int64)[full]),
            "rows": pa.array(sizes[full]),
            "yesterday": batch.prior["total"].take(pa.array(full)),
        }
        rejects = [Reject(int(i), "empty", "nothing usable") for i in np.flatnonzero(sizes == 0)]
        return Outcome(full, pa.table(columns), rejects)


def step(folder: Path, per: list[str], run: str = "r1") -> StepContext:
    """A step `total` over the files in `folder/in`."""
    source = Source("lines", SourceSettings(path=str(folder / "in"), key=["id"]), lambda *keys: ".".join(keys))
    task = Total(
        TotalSettings(task="total", input="lines", per=per), StepInput("lines", source.schema(), ("id",)), NIGHT
    )
    fields = {field.name: field for field in source.schema()}
    here = str(folder / run)
    return StepContext(
        job="shop",
        step="total",
        run_id=run,
        run_date=NIGHT,
        task=task,
        source=source,
        model=None,
        model_version=None,
        schema=output_schema([fields[name] for name in per], task.columns()),
        reject_schema=reject_schema([fields[name] for name in [*per, "id"]]),
        data_url=f"{here}/data",
        reject_url=f"{here}/rejects",
        state_url=f"{here}/state",
    )


def write(folder: Path, rows: Sequence[Row], row_group_size: int = 3) -> None:
    (folder / "in").mkdir(exist_ok=True)
    kinds = [("id", pa.string()), ("store", pa.string()), ("sku", pa.int32()), ("value", pa.int64())]
    pq.write_table(
        pa.Table.from_pylist(list(rows), pa.schema(kinds)), folder / "in/a.parquet", row_group_size=row_group_size
    )


@dataclass
class Answers:
    """What a step left: rows of its table, rejects, receipts, and the groups of each bucket."""

    table: list[Row]
    rejects: list[Row]
    receipts: list[Receipt]
    buckets: list[set[Any]]


def work(context: StepContext, buckets: int, unit_rows: int, earlier: Source | None = None) -> Answers:
    """Every stage by hand, each unit as a worker would have it."""

    def done(stage: Any, units: Sequence[Any]) -> list[Receipt]:
        return [Receipt.from_json(stage.work(unit, stage.read(unit)).to_json()) for unit in units]

    def frozen(source: Source, columns: list[str]) -> tuple[Unit, ...]:
        return freeze(source, NIGHT, "all", columns, unit_rows, 10**9).units

    group = context.task.group_by()
    scattered = done(Scatter(context, buckets), frozen(context.source, ["id", *context.task.reads()]))
    prior = (
        []
        if earlier is None
        else done(ScatterEarlier(context, earlier, buckets, ("total",), "prior"), frozen(earlier, [*group, "total"]))
    )
    units = gathered(scattered, prior)
    stage = AnswerGroups(context)
    seen = [{tuple(key[k] for k in sorted(group)) for key in stage.read(unit)[0].to_pylist()} for unit in units]
    receipts = [*scattered, *done(stage, units)]

    def rows(files: Any) -> list[Row]:
        return [row for file in files for row in pq.read_table(file.url).to_pylist()]

    table = rows(file for receipt in receipts for file in receipt.files)
    return Answers(table, rows(f for r in receipts for f in r.reject_files), receipts, seen)


def bare(rows: Sequence[Row]) -> list[Row]:
    """Without what differs between two runs, in one order."""
    return sorted(({k: v for k, v in row.items() if k != "produced_at"} for row in rows), key=repr)


LINES: list[Row] = [
    {"id": f"l{i}", "store": ["SHA", "LON", "北京"][i % 3], "sku": i % 4, "value": None if i % 12 == 5 else i}
    for i in range(60)
]
LOST: list[Row] = [
    {"id": "n1", "store": None, "sku": 1, "value": 5},
    {"id": "n2", "store": "SHA", "sku": None, "value": 5},
    {"id": None, "store": None, "sku": None, "value": None},
]


def expected(rows: Sequence[Row]) -> tuple[dict[Any, tuple[int, int]], set[Any]]:
    """By plain Python: (group → sum and number of usable values, groups with none)."""
    values: defaultdict[Any, list[int]] = defaultdict(list)
    for row in rows:
        if row["store"] is not None and row["sku"] is not None:
            values[row["store"], row["sku"]] += [] if row["value"] is None else [row["value"]]
    return {k: (sum(v), len(v)) for k, v in values.items() if v}, {k for k, v in values.items() if not v}


def check(answers: Answers, rows: Sequence[Row]) -> None:
    totals, empty = expected(rows)
    assert {(r["store"], r["sku"]): (r["total"], r["rows"]) for r in answers.table} == totals
    assert len(answers.table) == len(totals), "a group is answered once"
    groups = [group for bucket in answers.buckets for group in bucket]
    assert Counter(groups) == Counter((sku, store) for store, sku in (*totals, *empty)), "a group lies in one bucket"
    told = Counter((r["scope"], r["code"]) for r in answers.rejects)
    no_key = [r for r in rows if r["store"] is None or r["sku"] is None]
    unusable = [r for r in rows if r not in no_key and r["value"] is None]
    wanted = {("row", "no_key"): no_key, ("row", "no_value"): unusable, ("group", "empty"): empty}
    assert told == Counter({k: len(v) for k, v in wanted.items() if v})
    for row in answers.rejects:
        kind = (row["scope"], row["code"])
        if kind != ("group", "empty"):
            assert (row["id"], row["store"], row["sku"]) in {(r["id"], r["store"], r["sku"]) for r in wanted[kind]}
    counted = sum_rejects(answers.receipts)
    assert {(s, c): n for (s, c, _), n in counted.items()} == dict(told)


def test_rows_find_their_group(tmp_path: Path) -> None:
    """Two group columns, groups without a usable row, rows without a group; against plain Python."""
    write(tmp_path, [*LINES, *LOST])
    answers = work(step(tmp_path, ["store", "sku"]), buckets=4, unit_rows=7)
    check(answers, [*LINES, *LOST])
    assert {(r["store"], r["sku"]) for r in answers.rejects if r["scope"] == "group"} == {("北京", 1)}
    assert len(answers.buckets) == 4 and len(answers.receipts) > 10, "several units and buckets took part"
    found = {r["id"]: (r["store"], r["sku"]) for r in answers.rejects if r["code"] == "no_key"}
    assert found == {"n1": (None, 1), "n2": ("SHA", None), None: (None, None)}, "the source's own key finds them again"
    assert all(len(r["input_hash"]) == 32 for r in answers.table)


def test_yesterday_is_aligned(tmp_path: Path) -> None:
    """`prior` is what was published for the same group, of another width, in another order; null for the new."""
    write(tmp_path, LINES)
    context = step(tmp_path, ["store", "sku"])
    totals, _ = expected(LINES)
    known = [k for k in totals if k != ("LON", 1)]
    earlier = [{"store": s, "sku": k, "total": 1_000 * k + len(s.encode())} for s, k in reversed(known)]
    earlier.append({"store": "CLOSED", "sku": 9, "total": -1})
    (tmp_path / "earlier").mkdir()
    kinds = pa.schema([("store", pa.string()), ("sku", pa.int64()), ("total", pa.int64())])
    table = pa.Table.from_pylist(earlier, kinds)
    pq.write_table(table, tmp_path / "earlier/a.parquet", row_group_size=4)
    prior = Source(
        "total", SourceSettings(path=str(tmp_path / "earlier"), key=["store", "sku"]), lambda *keys: ".".join(keys)
    )
    answers = work(context, buckets=3, unit_rows=5, earlier=prior)
    seen = {(r["store"], r["sku"]): r["yesterday"] for r in answers.table}
    assert seen == {(s, k): 1_000 * k + len(s.encode()) if (s, k) in known else None for s, k in totals}
    check(answers, LINES)


@pytest.mark.parametrize("values", [[None, None], []])
def test_nothing_usable(tmp_path: Path, values: list[None]) -> None:
    """Groups whose rows are all unusable are still subjects; no rows give no buckets."""
    write(tmp_path, [{"id": str(i), "store": "SHA", "sku": 1, "value": v} for i, v in enumerate(values)])
    answers = work(step(tmp_path, ["store", "sku"]), buckets=4, unit_rows=10)
    assert not answers.table and len(answers.buckets) == (1 if values else 0)
    assert Counter(r["scope"] for r in answers.rejects) == Counter({"row": len(values), "group": len(answers.buckets)})
    assert sum(r.rows_in for r in answers.receipts if r.stage == "answer") == len(answers.buckets)


CELLS = st.builds(
    lambda store, sku, value: {"store": store, "sku": sku, "value": value},
    st.none() | st.sampled_from(["a", "", " a", "é", "上海", "a:1", "~"]),
    st.none() | st.integers(-2, 2),
    st.none() | st.integers(-(10**12), 10**12),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(CELLS, max_size=25),
    cut=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6)),
    per=st.sampled_from([["store", "sku"], ["sku", "store"]]),
)
def test_units_and_buckets_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, cells: list[Row], cut: tuple[int, int, int], per: list[str]
) -> None:
    """Rows in one bucket and one unit, or cut up in any way and in another order: the same rows and hashes."""
    buckets, unit_rows, row_group_size = cut
    folder = tmp_path_factory.mktemp("lines")
    rows = [{"id": str(i), **cell} for i, cell in enumerate(cells)]
    write(folder, rows, row_group_size=10**6)
    whole = work(step(folder, per, "whole"), buckets=1, unit_rows=10**6)
    write(folder, rows[::-1], row_group_size)
    parts = work(step(folder, per, "whole"), buckets, unit_rows)
    check(whole, rows)
    check(parts, rows)
    assert bare(parts.table) == bare(whole.table)


def test_a_registered_group_task_goes_through_the_same_stages(
    tmp_path: Path, context: Callable[..., StepContext]
) -> None:
    """summarize `per` two columns: one summary a group, of its own texts alone."""
    (tmp_path / "in").mkdir()
    rows = [
        {"id": f"r{i}", "product": i % 3, "shop": i % 2, "text": f"Product {i % 3} in shop {i % 2} is fine. Nice."}
        for i in range(30)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in/a.parquet", row_group_size=4)
    made = context(tmp_path / "in", ["id"], task="summarize", text="text", per=["product", "shop"], max_sentences=1)
    answers = work(made, buckets=5, unit_rows=4)
    assert sorted((r["product"], r["shop"]) for r in answers.table) == [(p, s) for p in range(3) for s in (0, 1)]
    for row in answers.table:
        assert row["summary"] in ("Nice.", f"Product {row['product']} in shop {row['shop']} is fine.")
