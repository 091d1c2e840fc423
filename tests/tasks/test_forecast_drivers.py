"""What each forecast is made of."""

from __future__ import annotations

from datetime import timedelta

import duckdb
import pyarrow as pa
import pytest

from tests.tasks.forecasting import TODAY, answered, gathered, new_task, rows_of, shop


def test_drivers_add_up_to_the_mean() -> None:
    shops = {("a", 1): shop(), ("b", 2): shop(seed=1) * 3, ("c", 3): [5.0] * 9, ("d", 4): [0.0, 0, 0, 4, 0, 0] * 6}
    task, plain = new_task(explain=True), new_task()
    outcome = answered(task, rows_of(shops))
    assert outcome.columns.schema == task.columns()
    assert outcome.columns.drop_columns(["drivers"]).equals(answered(plain, rows_of(shops)).columns)
    for row in outcome.columns.to_pylist():
        effects = [driver["effect"] for driver in row["drivers"]]
        assert sum(effects) == pytest.approx(row["mean"], abs=1e-9)
        assert effects == sorted(effects, key=lambda effect: -abs(effect))
    first = {d["driver"]: d["effect"] for d in outcome.columns["drivers"].to_pylist()[5]}  # a Saturday
    assert first.keys() == {"level", "recent", "season", "trend"}
    assert 20 < first["level"] < 29 and 10 < first["season"] < 20, "24.9 on average, 40 on Saturdays"
    for rule in task.rules().values():
        assert duckdb.from_arrow(outcome.columns).filter(f"({rule}) is not true").fetchall() == []
    wrong = [{"driver": "level", "effect": 1.0}]
    broken = outcome.columns.slice(0, 1).set_column(
        len(outcome.columns.schema) - 1, "drivers", pa.array([wrong], outcome.columns["drivers"].type)
    )
    assert len(duckdb.from_arrow(broken).filter(f"({task.rules()['drivers add up to the mean']}) is not true")) == 1


def test_drivers_of_a_series_that_ended_and_of_the_largest() -> None:
    rows = rows_of({("a", 1): shop()}, end=TODAY - timedelta(days=4))
    task = new_task(explain=True, fill="missing")
    for row in answered(task, rows).columns.to_pylist():
        assert sum(driver["effect"] for driver in row["drivers"]) == pytest.approx(row["mean"])
        season = next(driver["effect"] for driver in row["drivers"] if driver["driver"] == "season")
        assert (season > 5) == (row["mean"] > 31), "each day of the week has its own season, after the gap, too"
    task = new_task(explain=True, top=1)
    groups = gathered(task, [rows_of({("a", 1): shop(), ("b", 2): shop() * 3})])
    features = task.features(groups).columns
    for name in task.group_by():
        features = features.append_column(name, groups.keys[name])
    task.fitted = task.fit(features, None)
    outcome = task.answer(features)
    assert outcome.columns.num_rows == 7 and outcome.columns["drivers"].null_count == 0


def test_drivers_is_a_column_only_of_those_who_ask() -> None:
    schema = pa.schema([("drivers", pa.string()), ("day", pa.date32()), ("units", pa.float64())])
    assert new_task(schema, series=["drivers"]).check() == []
    assert new_task(schema, series=["drivers"], explain=True).check()[0][0] == "series"
