from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from scipy import stats

from bizllm.tasks.base import Groups, Outcome, StepInput, task_class
from bizllm.tasks.inventory import TASK, Inventory, InventorySettings

D = date(2026, 6, 30)
LEVELS = {"q5": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
STOCK = {"input": "stock", "on_hand": "there", "lead_time": "lead"}
Rows = list[dict[str, Any]]
Broken = Callable[..., dict[str, int]]


def forecast(store: str, sku: str, mean: float = 10.0, sd: float = 2.0, days: int = 28, **said: Any) -> Rows:
    return [
        {"store": store, "sku": sku, "day": D + timedelta(days=i + 1), "mean": mean}
        | {name: max(float(stats.norm(mean, sd).ppf(level)), 0.0) for name, level in LEVELS.items()}
        | said
        for i in range(days)
    ]


def stock(store: str, sku: str, there: float | None = 50, lead: float | None = 6, **said: Any) -> dict[str, Any]:
    return {"store": store, "sku": sku, "there": there, "lead": lead, **said}


SHOP = [*forecast("LON", "P1"), *forecast("上海", "水壶", 4.0, 3.0), *forecast("上海", "茶杯", 0.0, 1e-9)]
THERE = [stock("LON", "P1"), stock("上海", "水壶", 100), stock("上海", "茶杯", 0)]


def task(schema: pa.Schema, tables: dict[str, pa.Table], **said: Any) -> Inventory:
    given = {
        "task": "inventory",
        "input": "f",
        "item": ["store", "sku"],
        "time": "day",
        "review_days": 7,
        "stock": STOCK,
    }
    settings = InventorySettings.model_validate(given | said)
    others = {name: StepInput(name, table.schema) for name, table in tables.items()}
    return TASK(settings, StepInput("f", schema), D, others)


def answer(rows: Rows = SHOP, there: Rows = THERE, sold: Rows | None = None, **said: Any) -> tuple[Inventory, Outcome]:
    table = pa.Table.from_pylist(rows)
    tables = {"stock": pa.Table.from_pylist(there)}
    if sold is not None:
        tables["history"] = pa.Table.from_pylist(sold)
        said["history"] = {"input": "sales", "time": "day", "target": "units"} | said.get("history", {})
    made = task(table.schema, tables, **said)
    assert made.check() == []
    made.learned = made.learn(tables)
    combined = made.combine(table.select(made.reads())).rows
    keys = combined.select(made.group_by()).group_by(made.group_by(), use_threads=False).aggregate([])
    parts = []
    for key in keys.to_pylist():
        mask = [all(row[name] == key[name] for name in key) for row in combined.to_pylist()]
        parts.append(combined.filter(pa.array(mask)))
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    outcome = made.answer(Groups(pa.concat_tables(parts), starts, keys))
    assert outcome.columns.schema == made.columns()
    said_of = sorted([*outcome.subject.tolist(), *(r.subject for r in outcome.rejects), *outcome.skipped.tolist()])
    assert said_of == list(range(len(keys)))
    return made, outcome


def test_what_to_order_and_why(broken_rules: Broken) -> None:
    made, outcome = answer()
    assert task_class("inventory") is TASK
    kettle, jug, cups = outcome.columns.to_pylist()
    # Thirteen days of 10 ± 2, correlated by 0.3, with 95 %.
    sd = 2 * np.sqrt(13 + 13 * 12 * 0.3)
    assert kettle["reorder_point"] == pytest.approx(130 + 1.645 * sd, abs=2)
    assert kettle["demand_mean"] == pytest.approx(130, abs=0.1) and kettle["lead_days"] == 6
    assert kettle["safety_stock"] == pytest.approx(kettle["reorder_point"] - kettle["demand_mean"])
    assert kettle["order_up_to"] == kettle["reorder_point"]
    assert kettle["order_quantity"] == np.ceil(kettle["order_up_to"] - 50)
    assert kettle["stockout_risk"] == 1 and kettle["risk_with_order"] == pytest.approx(0.05, abs=0.01)
    assert kettle["status"] == "expedite" and kettle["risk_before_arrival"] == pytest.approx(
        stats.norm(60, 2 * np.sqrt(15)).sf(50), abs=0.02
    )
    assert kettle["days_of_cover"] == pytest.approx(5) and kettle["daily_cost"] is None
    assert kettle["reason"].startswith("50 on hand and 0 on order are not over the reorder point of 1")
    assert "13 days" in kettle["reason"] and "130 on average" in kettle["reason"] and "too late" in kettle["reason"]
    assert (
        jug["status"] == "enough"
        and jug["order_quantity"] == 0
        and jug["stockout_risk"] == pytest.approx(0.02, abs=0.01)
    )
    assert jug["risk_with_order"] == jug["stockout_risk"]
    assert cups["status"] == "enough" and cups["days_of_cover"] == 0.0 and cups["order_up_to"] == 0
    assert "no demand is expected" in cups["reason"]
    assert broken_rules(made, outcome.columns) == {}


def test_reasons_in_chinese() -> None:
    kettle, jug, cups = (row["reason"] for row in answer(language="zh")[1].columns.to_pylist())
    assert kettle.startswith("现有50，在途0，合计不高于再订货点1") and "今晚下的订单很可能来不及" in kettle
    assert "合计高于再订货点" in jug and "预计没有需求" in cups


def test_what_is_on_order_counts_and_packs_are_whole() -> None:
    there = [stock("LON", "P1", 50, coming=60, pack=24, least=100)]
    said = {"stock": {**STOCK, "on_order": "coming", "pack": "pack", "min_order": "least"}}
    (row,) = answer(forecast("LON", "P1"), there, **said)[1].columns.to_pylist()
    assert row["position"] == 110 and row["order_quantity"] % 24 == 0
    assert row["order_quantity"] >= 100 and row["status"] == "order" and row["days_of_cover"] == pytest.approx(5)


def test_costs_decide_where_they_are_known_and_the_service_level_elsewhere() -> None:
    there = [stock("LON", "P1", hold=0.02, short=1.26), stock("上海", "水壶", hold=0.02, short=None)]
    said = {"stock": {**STOCK, "holding_cost": "hold", "shortage_cost": "short"}, "service_level": 0.7}
    first, second = answer(SHOP[:56], there, **said)[1].columns.to_pylist()
    assert first["service_target"] == pytest.approx(1.26 / (1.26 + 0.14), abs=0.01)
    assert second["service_target"] == pytest.approx(0.7, abs=0.02) and second["daily_cost"] > 0
    fill = answer(SHOP[:28], there, service="fill", service_level=0.95)[1].columns.to_pylist()[0]
    assert fill["service_target"] < 0.95  # 5 % of 70 units may be short


def test_an_unsure_lead_time_needs_more_stock() -> None:
    sure, unsure = (
        answer(SHOP[:28], THERE[:1], stock={**STOCK, "lead_time_sd": sd})[1].columns.to_pylist()[0] for sd in (0, 3)
    )
    assert unsure["reorder_point"] > sure["reorder_point"] + 10
    rng = np.random.default_rng(0)
    days = 7 + np.ceil(rng.gamma(4, 1.5, 200_000))  # mean 6, standard deviation 3
    drawn = 10 * days + 2 * np.sqrt(days + days * (days - 1) * 0.3) * rng.standard_normal(len(days))
    assert unsure["reorder_point"] == pytest.approx(np.quantile(drawn, 0.95), rel=0.02)


def test_history_has_a_say_and_nothing_after_the_run_date_has() -> None:
    days = [D - timedelta(days=i) for i in range(168)]
    history = [{"store": "LON", "sku": "P1", "day": day, "units": 30} for day in days]
    (row,) = answer(forecast("LON", "P1", sd=0.01), THERE[:1], history)[1].columns.to_pylist()
    assert row["demand_mean"] == pytest.approx(13 * 20, abs=0.5)  # half of 10 a day, half of 30
    late = [{"store": "LON", "sku": "P1", "day": D + timedelta(days=i), "units": 10**6} for i in range(1, 90)]
    odd = [
        {"store": "LON", "sku": "P1", "day": None, "units": 10**6},
        {"store": "LON", "sku": "P1", "day": D, "units": None},
        {"store": "LON", "sku": "P2", "day": D, "units": 10**6},
        {"store": "LON", "sku": "P1", "day": D - timedelta(days=400), "units": 10**6},
    ]
    assert answer(forecast("LON", "P1", sd=0.01), THERE[:1], history + late + odd)[1].columns.to_pylist() == [row]
    split = [{**line, "units": line["units"] / 2} for line in history for _ in range(2)]
    assert answer(forecast("LON", "P1", sd=0.01), THERE[:1], split)[1].columns.to_pylist() == [row]
    other = [{"shop": row["store"], "article": row["sku"], "day": row["day"], "units": row["units"]} for row in history]
    renamed = answer(forecast("LON", "P1", sd=0.01), THERE[:1], other, history={"item": ["shop", "article"]})
    assert renamed[1].columns.to_pylist() == [row]


def test_the_newest_stock_up_to_the_run_date_counts() -> None:
    there = [
        stock("LON", "P1", n, at=at) for n, at in ((1, D - timedelta(9)), (2, D), (3, D + timedelta(1)), (4, None))
    ]
    made = answer(SHOP[:28], there, stock={**STOCK, "as_of": "at"})[1].columns.to_pylist()
    assert [row["position"] for row in made] == [2]
    times = [{**row, "at": datetime.combine(row["at"], datetime.max.time()) if row["at"] else None} for row in there]
    assert answer(SHOP[:28], times, stock={**STOCK, "as_of": "at"})[1].columns.to_pylist() == made


@pytest.mark.parametrize(
    ("rows", "there", "code"),
    [
        (forecast("LON", "P1"), [stock("LON", "P2")], "no_stock"),
        (forecast("LON", "P1"), [stock("LON", "P1"), stock("LON", "P1")], "several_stock"),
        (forecast("LON", "P1"), [stock("LON", "P1", None), stock("x", "x")], "bad_stock"),
        (forecast("LON", "P1"), [stock("LON", "P1", 1, None), stock("x", "x")], "bad_stock"),
        (forecast("LON", "P1"), [stock("LON", "P1", 1, -2)], "bad_stock"),
        (forecast("LON", "P1"), [stock("LON", "P1", float("nan"))], "bad_stock"),
        (forecast("LON", "P1", days=12), [stock("LON", "P1")], "short_horizon"),
        (forecast("LON", "P1", q25=None) + forecast("x", "x"), [stock("LON", "P1"), stock("x", "x")], "bad_forecast"),
        (forecast("LON", "P1", mean=float("inf")), [stock("LON", "P1")], "bad_forecast"),
        (forecast("LON", "P1", q25=99.0), [stock("LON", "P1")], "bad_forecast"),
        (forecast("LON", "P1")[::2], [stock("LON", "P1")], "bad_forecast"),
        (forecast("LON", "P1") * 2, [stock("LON", "P1")], "bad_forecast"),
        (
            [{**row, "day": row["day"] - timedelta(60)} for row in forecast("LON", "P1")],
            [stock("LON", "P1")],
            "short_horizon",
        ),
    ],
)
def test_rejects(rows: Rows, there: Rows, code: str) -> None:
    outcome = answer(rows, there)[1]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(0, code)]
    assert all(name not in outcome.rejects[0].message for name in ("LON", "P1", "99"))


def test_a_rare_seller_is_sold_by_the_piece() -> None:
    rows = forecast("LON", "P1", 0.05, 1e-9, **dict.fromkeys(LEVELS, 0.0))
    (row,) = answer(rows, [stock("LON", "P1", 0)])[1].columns.to_pylist()
    # On average one in twenty days: in thirteen days there is hardly ever a second, and often none.
    assert row["demand_mean"] == pytest.approx(0.65, abs=0.15) and row["stockout_risk"] < 0.5
    assert row["reorder_point"] == round(row["reorder_point"]) and row["order_quantity"] >= 1
    (loose,) = answer(rows, [stock("LON", "P1", 0)], stock={**STOCK, "pack": 0.5})[1].columns.to_pylist()
    assert loose["stockout_risk"] > row["stockout_risk"]


def test_items_without_stock_may_be_left_out() -> None:
    outcome = answer(SHOP, THERE[:1], missing_stock="skip")[1]
    assert outcome.subject.tolist() == [0] and outcome.skipped.tolist() == [1, 2] and not outcome.rejects


def test_one_number_for_all_and_debts() -> None:
    said = {"stock": {"input": "stock", "on_hand": "there", "lead_time": 6, "pack": 5.0}}
    (row,) = answer(SHOP[:28], [stock("LON", "P1", -20)], **said)[1].columns.to_pylist()
    assert row["position"] == -20 and row["order_quantity"] % 5 == 0 and row["order_quantity"] > 150


@pytest.mark.parametrize(
    ("freq", "starts", "mean"),
    [
        (
            "W",
            [date(2026, 6, 29) + timedelta(weeks=i) for i in range(6)],
            70.0,
        ),  # one is under way: 5 of 7 days are left
        ("W", [date(2026, 7, 3) + timedelta(weeks=i) for i in range(6)], 70.0),  # of the days before nothing was said
        ("M", [date(2026, m, 1) for m in (7, 8)], 310.0),
    ],
)
def test_other_periods(freq: str, starts: list[date], mean: float) -> None:
    rows = [{**forecast("LON", "P1", mean, 1, 1)[0], "day": day} for day in starts]
    (row,) = answer(rows, THERE[:1], freq=freq)[1].columns.to_pylist()
    assert row["demand_mean"] == pytest.approx(130, rel=0.02)


def test_hours_in_a_zone() -> None:
    zone = pa.timestamp("us", "Asia/Shanghai")
    first = datetime(2026, 6, 30, 16)  # midnight in Shanghai
    rows = [{**forecast("上海", "水壶", 1, 0.2, 1)[0], "day": first + timedelta(hours=i)} for i in range(24 * 14)]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(2, "day", table["day"].cast(pa.timestamp("us", "UTC")).cast(zone))
    made = task(table.schema, {"stock": pa.Table.from_pylist(THERE)}, freq="H")
    assert made.check() == []
    made.learned = made.learn({"stock": pa.Table.from_pylist(THERE)})
    keys = pa.table({"store": ["上海"], "sku": ["水壶"]})
    (row,) = made.answer(Groups(table, np.array([0, len(table)]), keys)).columns.to_pylist()
    assert row["demand_mean"] == pytest.approx(13 * 24, abs=0.1)


def test_answers_do_not_depend_on_the_order_of_anything() -> None:
    order = np.random.default_rng(3).permutation(len(SHOP)).tolist()
    one = {row["reason"]: row for row in answer()[1].columns.to_pylist()}
    other = answer([SHOP[i] for i in order], THERE[::-1])[1].columns.to_pylist()
    assert {row["reason"]: row for row in other} == one
    assert answer(SHOP[:28], THERE)[1].columns.to_pylist() == answer()[1].columns.to_pylist()[:1]


def test_nothing_in_nothing_out(broken_rules: Broken) -> None:
    schema = pa.Table.from_pylist(SHOP).schema
    tables = {"stock": pa.Table.from_pylist(THERE).slice(0, 0)}
    made = task(schema, tables)
    made.learned = made.learn(tables)
    outcome = made.answer(Groups(schema.empty_table(), np.array([0]), schema.empty_table().select(["store", "sku"])))
    assert len(outcome.columns) == 0 and broken_rules(made, outcome.columns) == {}


def test_huge_and_tiny_numbers(broken_rules: Broken) -> None:
    rows = forecast("LON", "P1", 1e12, 1e11) + forecast("LON", "P2", 1e-9, 1e-10)
    made, outcome = answer(rows, [stock("LON", "P1", 1e15), stock("LON", "P2", 0)])
    assert len(outcome.subject) == 2 and broken_rules(made, outcome.columns) == {}


def test_audit_rules_can_fail(broken_rules: Broken) -> None:
    made, outcome = answer()
    rows = outcome.columns.to_pylist()
    broken = {
        "levels are finite numbers": {"reorder_point": float("inf"), "order_up_to": float("inf")},
        "risks lie in [0, 1]": {"risk_before_arrival": 1.2},
        "an order comes with its quantity": {"status": "enough"},
        "the order-up-to level is not under the reorder point": {"order_up_to": rows[0]["order_up_to"] - 1},
        "an order lowers the risk": {"risk_with_order": 1.0, "stockout_risk": 0.5},
        "an order reaches its level": {"order_quantity": 1.0},
    }
    assert broken.keys() == made.rules().keys()
    for name, wrong in broken.items():
        found = broken_rules(made, pa.Table.from_pylist([{**rows[0], **wrong}], made.columns()))
        assert found.get(name) == 1, name


SCHEMA = pa.Table.from_pylist(SHOP).schema
TABLES = {"stock": pa.Table.from_pylist([stock("LON", "P1", name="x")])}


@pytest.mark.parametrize(
    ("said", "place", "expected", "hint"),
    [
        ({"item": ["store", "skv"]}, "item[1]", "expected a column of the input", "did you mean 'sku'?"),
        ({"time": "dya"}, "time", "expected a column of the input", "did you mean 'day'?"),
        ({"time": "mean"}, "time", "expected dates or timestamps, it is double", ""),
        (
            {"stock": {**STOCK, "on_hand": "name"}},
            "stock.on_hand",
            "expected a column of numbers, it is string",
            "cast",
        ),
        ({"stock": {**STOCK, "as_of": "name"}}, "stock.as_of", "expected dates or timestamps, it is string", "cast"),
        ({"stock": {**STOCK, "item": ["sku"]}}, "stock.item", "expected a column for each of store, sku", ""),
        (
            {"stock": {**STOCK, "item": ["store", "lead"]}},
            "stock.item[1]",
            "expected string as in the forecast",
            "cast",
        ),
        ({"stock": {**STOCK, "pack": 0}}, "stock.pack", "expected more than 0", ""),
    ],
)
def test_faults(said: dict[str, Any], place: str, expected: str, hint: str) -> None:
    (fault,) = task(SCHEMA, TABLES, **said).check()
    assert fault[0] == place and expected in fault[2] and hint in fault[3]


def test_a_forecast_is_needed() -> None:
    bare = pa.schema([(n, SCHEMA.field(n).type) for n in ("store", "sku", "day", "q50")])
    faults = task(bare, TABLES).check()
    assert [(f[0], f[3]) for f in faults] == [
        ("input", "give a `forecast` step"),
        ("input", "set `levels` of the forecast"),
    ]
    clash = SCHEMA.append(pa.field("status", pa.string()))
    (fault,) = task(clash, TABLES, item=["store", "status"]).check()
    assert fault[:2] == ("item[1]", "status")


def test_faults_of_the_history() -> None:
    tables = TABLES | {"history": pa.table({"store": ["a"], "sku": [1], "day": ["x"], "units": ["x"]})}
    faults = task(SCHEMA, tables, history={"input": "sales", "time": "day", "target": "units"}).check()
    assert [fault[0] for fault in faults] == ["history.item[1]", "history.time", "history.target"]


@pytest.mark.parametrize(
    "said",
    [
        {"item": []},
        {"item": ["sku", "sku"]},
        {"review_days": 0},
        {"service_level": 1.0},
        {"service": "total"},
        {"correlation": 1.0},
        {"stock": {**STOCK, "lead_time": -1}},
        {"stock": {**STOCK, "shortage_cost": 1.0}},
        {"stock": {**STOCK, "colour": "red"}},
    ],
)
def test_settings_that_mean_nothing(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task(SCHEMA, TABLES, **said)
