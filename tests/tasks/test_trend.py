from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.tasks.base import Groups, Outcome, StepInput, task_class
from bizllm.tasks.trend import TASK, TrendSettings

NIGHT = date(2026, 6, 30)
SCHEMA = pa.schema([("brand", pa.string()), ("day", pa.date32()), ("score", pa.float64()), ("label", pa.string())])
TARGET = {"input": "prices", "time": "day", "value": "change"}


def make(
    schema: pa.Schema = SCHEMA, others: dict[str, StepInput] | None = None, night: date = NIGHT, **settings: Any
) -> TASK:
    given = {"task": "trend", "input": "r", "per": ["brand"], "time": "day", "value": "score", "label": "label"}
    return TASK(TrendSettings(**{**given, **settings}), StepInput("r", schema), night, others or {})


def posts(days: int = 100, seed: int = 0, brands: str = "ab", last: date = NIGHT) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {
            "brand": brand,
            "day": last - timedelta(days=days - 1 - i),
            "score": score,
            "label": "好" if score > 0 else "差",
        }
        for brand in brands
        for i in range(days)
        for score in np.clip(rng.normal(0.2, 0.4, rng.poisson(12)), -1, 1).tolist()
    ]


def answered(task: TASK, rows: pa.Table, brands: str = "ab") -> Outcome:
    combined = task.combine(rows).rows.sort_by("brand")
    names = np.array(combined["brand"].to_pylist(), object)
    starts = np.r_[0, np.cumsum([(names == brand).sum() for brand in brands])].astype(np.int64)
    outcome = task.answer(Groups(combined, starts, pa.table({"brand": list(brands)})))
    assert outcome.columns.schema == task.columns()
    return outcome


def rows_of(outcome: Outcome, **where: Any) -> list[dict[str, Any]]:
    rows = outcome.columns.append_column("at", pa.array(outcome.subject)).to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in where.items())]


def test_volume_mean_and_shares_are_those_of_sql(broken_rules: Callable[..., dict[str, int]]) -> None:
    posted = pa.Table.from_pylist(posts(), schema=SCHEMA)
    task = make(periods=1000)
    assert task_class("trend") is TASK and task.check() == [] and task.keys() == ["brand", "day", "measure"]
    outcome = answered(task, posted)
    expected = duckdb.sql(
        "select day, count(*) n, avg(score) s, avg((label = '好')::int) g from posted where brand = 'b'"
        " group by 1 order by 1"
    ).fetchall()
    for measure, place in (("volume", 1), ("score", 2), ("share:好", 3)):
        found = rows_of(outcome, at=1, measure=measure, kind="history")
        assert [(row["day"], row["rows"]) for row in found] == [(day, n) for day, n, *_ in expected]
        assert [row["value"] for row in found] == pytest.approx([row[place] for row in expected])
    assert broken_rules(task, outcome.columns) == {}
    assert {row["measure"] for row in rows_of(outcome)} == {"volume", "score", "share:好", "share:差"}
    future = rows_of(outcome, at=0, measure="volume", kind="forecast")
    assert [row["day"] for row in future] == [NIGHT + timedelta(days=i + 1) for i in range(14)]


def test_what_is_planted_is_told() -> None:
    rows = posts(200)
    rows += [{"brand": "a", "day": NIGHT - timedelta(days=2), "score": 0.2, "label": "好"}] * 60
    for row in rows:
        if row["brand"] == "b" and row["day"] > NIGHT - timedelta(days=20):
            row["score"] = max(-1.0, row["score"] - 0.8)
    outcome = answered(make(), pa.Table.from_pylist(rows, schema=SCHEMA))
    assert [row["day"] for row in rows_of(outcome, at=0, measure="volume", alert="high")] == [NIGHT - timedelta(days=2)]
    (fall,) = [row for row in rows_of(outcome, at=1, measure="score") if row["change"] is not None]
    assert abs((fall["day"] - (NIGHT - timedelta(days=19))).days) <= 1 and fall["change"] < -0.5
    assert rows_of(outcome, at=1, measure="score", alert="low") and not rows_of(
        outcome, at=0, measure="score", alert="low"
    )
    assert outcome.exhibit is not None and outcome.exhibit["title"][0].as_py() in ("a, volume", "b, score")


def test_few_rows_are_no_alert() -> None:
    """One angry row of a quiet brand is a mean of -1, and no news."""
    rows = [row for row in posts(150, brands="a") if row["day"] < NIGHT]
    loud = rows + [{"brand": "a", "day": NIGHT, "score": -0.5, "label": "差"}] * 12
    quiet = [*rows, {"brand": "a", "day": NIGHT, "score": -0.5, "label": "差"}]
    told = [
        rows_of(answered(make(), pa.Table.from_pylist(r, schema=SCHEMA), "a"), measure="score", day=NIGHT)[0]["alert"]
        for r in (loud, quiet)
    ]
    assert told == ["low", None]


def test_nothing_after_the_run_date_counts() -> None:
    rows = posts(120, last=NIGHT + timedelta(days=20))
    before = [row for row in rows if row["day"] <= NIGHT]
    found, expected = (answered(make(), pa.Table.from_pylist(r, schema=SCHEMA)) for r in (rows, before))
    assert found.columns.equals(expected.columns)


def test_an_earlier_night_expected_the_same() -> None:
    """What a period's past lets expect does not move when the future comes, but for what is told of levels."""
    rows = pa.Table.from_pylist(posts(160, last=NIGHT), schema=SCHEMA)
    later, earlier = (answered(make(night=night, periods=300, horizon=0), rows) for night in (NIGHT, date(2026, 6, 1)))
    known = {(row["at"], row["day"], row["measure"]): row for row in rows_of(later)}
    for row in rows_of(earlier):
        same = known[row["at"], row["day"], row["measure"]]
        for name in ("value", "expected", "z", "alert"):
            assert row[name] == pytest.approx(same[name]), name


@pytest.mark.parametrize(("freq", "last"), [("W", date(2026, 6, 22)), ("M", date(2026, 6, 1))])
def test_whole_weeks_and_months_only(freq: str, last: date) -> None:
    rows = pa.Table.from_pylist(posts(400, brands="a"), schema=SCHEMA)
    outcome = answered(make(freq=freq), rows, "a")
    history = [row["day"] for row in rows_of(outcome, measure="volume", kind="history")]
    assert history[-1] == last  # the week of June 29th ends in July
    assert rows_of(outcome, measure="volume", kind="forecast")[0]["day"] > last


def test_order_and_halves_decide_nothing() -> None:
    table = pa.Table.from_pylist(posts(), schema=SCHEMA)
    order = np.random.default_rng(1).permutation(len(table))
    task = make()
    expected = answered(task, table).columns
    assert answered(task, table.take(pa.array(order))).columns.equals(expected)
    halves = pa.concat_tables([task.combine(table.slice(0, 700)).rows, task.combine(table.slice(700)).rows])
    twice = task.combine(halves).rows
    assert twice.num_rows == task.combine(table).rows.num_rows
    for name in ("value", "expected", "level", "mean"):
        found, wanted = (np.array(c[name].to_pylist(), float) for c in (answered(task, halves).columns, expected))
        assert np.allclose(found, wanted, equal_nan=True), name


def test_a_target_that_follows() -> None:
    rng = np.random.default_rng(5)
    mood = rng.normal(0, 0.3, 150)
    days = [NIGHT - timedelta(days=149 - i) for i in range(150)]
    rows = [
        {"brand": brand, "day": day, "score": float(m + rng.normal(0, 0.1)), "label": "x"}
        for brand in "ab"
        for day, m in zip(days, mood, strict=True)
        for _ in range(5)
    ]
    follows = np.r_[rng.normal(size=2), mood[:-2] * 3 + rng.normal(0, 0.3, 148)]
    prices = pa.table(
        {
            "day": days * 2 + [NIGHT + timedelta(days=1), None],
            "change": [*follows, *rng.normal(size=150), 1e9, 1.0],
            "of": ["a"] * 150 + ["b"] * 150 + ["a", "a"],
        }
    )
    others = {"target": StepInput("prices", prices.schema)}
    task = make(others=others, target={**TARGET, "series": "of"})
    assert task.check() == []
    task.learned = task.learn({"target": prices})
    outcome = answered(task, pa.Table.from_pylist(rows, schema=SCHEMA))
    (a,) = {(r["lead"], round(r["lead_p"], 6)) for r in rows_of(outcome, at=0, measure="score")}
    (b,) = {(r["lead"], round(r["lead_p"], 6)) for r in rows_of(outcome, at=1, measure="score")}
    assert a[0] == 2 and a[1] < 0.01 and b[1] > 0.05
    plain = make(others=others, target=TARGET)
    plain.learned = plain.learn({"target": prices.slice(0, 150)})
    same = answered(plain, pa.Table.from_pylist(rows, schema=SCHEMA))
    assert {r["lead"] for r in rows_of(same, measure="score")} == {2}


def test_unusable_rows_and_groups() -> None:
    rows = [
        {"brand": "a", "day": None, "score": 1.0, "label": "x"},
        {"brand": "a", "day": NIGHT, "score": None, "label": None},
        {"brand": "a", "day": NIGHT, "score": float("inf"), "label": "x"},
        {"brand": "b", "day": NIGHT + timedelta(days=1), "score": 1.0, "label": "x"},
    ]
    task, table = make(), pa.Table.from_pylist(rows, schema=SCHEMA)
    assert [(r.subject, r.code) for r in task.combine(table).rejects] == [(0, "no_time")]
    outcome = answered(task, table)
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty")]
    assert [(r["measure"], r["value"]) for r in rows_of(outcome)] == [("volume", 2.0), ("share:x", 1.0)]
    empty = task.combine(SCHEMA.empty_table())
    assert empty.rows.num_rows == 0 and answered(task, SCHEMA.empty_table(), "").columns.num_rows == 0


def test_volume_alone_of_timestamps() -> None:
    schema = pa.schema([("brand", pa.string()), ("at", pa.timestamp("us", "Asia/Shanghai"))])
    rows = pa.table(
        {"brand": ["a"] * 3, "at": [datetime(2026, 6, 29, 15), datetime(2026, 6, 29, 17), None]}, schema=schema
    )
    task = make(schema, time="at", value=None, label=None, horizon=0)
    found = rows_of(answered(task, rows, "a"))
    assert [(row["measure"], row["value"]) for row in found] == [
        ("volume", 1.0),
        ("volume", 1.0),
    ]  # 17:00 UTC is the next day in Shanghai


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"time": "dya"}, "time", "no such column"),
        ({"time": "score", "value": None}, "time", "expected a date or timestamp column"),
        ({"value": "label"}, "value", "expected a column of numbers"),
        ({"label": "score"}, "label", "expected a string column"),
        ({"per": ["brnad"]}, "per", "no such column"),
        ({"per": ["brand", "brand"]}, "per", "each once"),
        ({"target": {**TARGET, "value": "none"}}, "target.value", "no such column"),
        ({"target": {**TARGET, "time": "change"}}, "target.time", "expected a date"),
    ],
)
def test_faults(settings: dict[str, Any], place: str, said: str) -> None:
    prices = StepInput("prices", pa.schema([("day", pa.date32()), ("change", pa.float64())]))
    faults = make(others={"target": prices}, **settings).check()
    assert [fault[0] for fault in faults] == [place] and said in faults[0][2]


def test_names_of_output_columns_are_taken() -> None:
    schema = pa.schema([("Level", pa.string()), ("day", pa.date32())])
    assert [f[0] for f in make(schema, per=["Level"], value=None, label=None).check()] == ["per"]


@pytest.mark.parametrize(
    "settings",
    [
        {"per": []},
        {"freq": "H"},
        {"horizon": -1},
        {"alert_z": 0},
        {"per": ["a", "b"], "target": {**TARGET, "series": "s"}},
    ],
)
def test_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**settings)


def test_rules_see_what_is_wrong(broken_rules: Callable[..., dict[str, int]]) -> None:
    task = make(periods=3, horizon=1)
    rows = rows_of(answered(task, pa.Table.from_pylist(posts(60, brands="a"), schema=SCHEMA), "a"))
    volume, forecast = rows[0], next(row for row in rows if row["kind"] == "forecast")
    share = next(row for row in rows if row["measure"] == "share:好")
    changes = [
        {**volume, "kind": "guess"},
        {**volume, "value": volume["value"] + 1},
        {**share, "value": 1.2},
        {**volume, "alert": "high", "z": 1.0},
        {**forecast, "q10": forecast["q90"] + 1},
        {**volume, "lead_p": 0.0},
    ]
    for rule, changed in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([volume, changed], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}
