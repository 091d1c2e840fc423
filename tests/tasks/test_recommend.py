"""The recommend task as the engine runs it: learn of the history, combine in batches, answer by customer or item."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.infer.learned import load, to_bytes
from bizllm.models.load import ModelLoader
from bizllm.tables import storage
from bizllm.tasks.base import Groups, Outcome, StepInput, task_class
from bizllm.tasks.recommend import TASK, Recommend, RecommendSettings

D = date(2026, 6, 30)
SHELVES = {"tea": ["kettle", "teapot", "cup", "oolong"], "garden": ["spade", "hose", "seeds", "gloves"]}
NEW = {"teapot_blue": "A blue teapot of stoneware, for loose tea", "喷壶": "给花园浇水的喷壶"}
TEXTS = {
    "kettle": "An electric kettle for boiling water",
    "teapot": "A white teapot of stoneware, for loose tea",
    "cup": "A thin porcelain cup",
    "oolong": "乌龙茶叶，清香型",
    "spade": "A steel spade",
    "hose": "给花园浇水的软管",
    "seeds": "Seeds of wild flowers",
    "gloves": "Leather gloves",
    **NEW,
}
Row = tuple[str | None, str | None, date | None, float | None]


def shop(customers: int = 60) -> list[Row]:
    """Each customer buys from one shelf: two or three of its items, some again."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for number in range(customers):
        shelf = [*SHELVES.values()][number % 2]
        for item in rng.permutation(shelf)[: 2 + number % 2]:
            for _ in range(1 + int(rng.integers(0, 2))):
                rows.append((f"c{number:02d}", str(item), D - timedelta(days=int(rng.integers(0, 90))), 1.0))
    return rows


def table(rows: list[Row]) -> pa.Table:
    who, what, when, many = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "customer": pa.array(who, pa.string()),
            "sku": pa.array(what, pa.string()),
            "day": pa.array(when, pa.date32()),
            "quantity": pa.array(many, pa.float64()),
        }
    )


def catalogue(texts: dict[str, str] = TEXTS) -> pa.Table:
    return pa.table({"sku": [*texts], "about": [*texts.values()], "name": [name.title() for name in texts]})


def task(rows: pa.Table, items: pa.Table | None = None, run_date: date = D, **settings: Any) -> Recommend:
    """Opened, with what it learned as a worker gets it."""
    step = unopened(rows.schema, items, run_date, **settings)
    assert step.check() == []
    step.open(ModelLoader())
    learned = step.learn({"history": rows} | ({"items": items} if items is not None else {}))
    worker = unopened(rows.schema, items, run_date, **settings)
    worker.learned = kept(learned)
    worker.open(ModelLoader())
    return worker


def kept(learned: dict[str, Any]) -> dict[str, Any]:
    """As it is read from its file."""
    url = "memory.safetensors"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storage, "read_bytes", lambda _: to_bytes(learned))
        load.cache_clear()
        return load(url)


def unopened(schema: pa.Schema, items: pa.Table | None = None, run_date: date = D, **settings: Any) -> Recommend:
    given = {"task": "recommend", "input": "orders", "entity": "customer", "item": "sku", "time": "day", "k": 3}
    if items is not None:
        given["items"] = {"input": "products", "item": "sku", "text": "about", "title": "name"}
    others = {"history": StepInput("orders", schema)}
    if items is not None:
        others["items"] = StepInput("products", items.schema)
    return Recommend(RecommendSettings(**(given | settings)), StepInput("orders", schema), run_date, others)


def answered(step: Recommend, rows: pa.Table, batches: int = 1) -> tuple[dict[str, list[dict[str, Any]]], Outcome]:
    """Records of each group, and the outcome."""
    key = step.group_by()[0]
    size = max(1, -(-rows.num_rows // batches))
    parts = pa.concat_tables([step.combine(rows.slice(i * size, size)).rows for i in range(batches)]).sort_by(key)
    keys = sorted({value for value in rows[key].to_pylist() if value is not None})
    starts = np.append(np.searchsorted(np.array(parts[key].to_pylist(), object), np.array(keys, object)), len(parts))
    outcome = step.answer(Groups(parts, starts.astype(np.int64), pa.table({key: pa.array(keys, pa.string())})))
    assert outcome.columns.schema == step.columns()
    assert sorted({*outcome.subject.tolist(), *(r.subject for r in outcome.rejects)}) == list(range(len(keys)))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in keys}
    for at, row in zip(outcome.subject.tolist(), outcome.columns.to_pylist(), strict=True):
        found[keys[at]].append(row)
    return found, outcome


def test_it_is_found_by_its_name() -> None:
    assert task_class("recommend") is TASK
    step = unopened(table([]).schema)
    assert (step.shape, step.keys(), step.reads()) == ("group", ["customer", "rank"], ["customer", "sku", "day"])
    assert step.settings.tables()["history"].input == "orders", "by default it learns of its input"
    assert unopened(table([]).schema, per="item").keys() == ["sku", "rank"]


def test_customers_get_what_goes_with_their_shelf(broken_rules: Callable[..., dict[str, int]]) -> None:
    rows = table(shop())
    step = task(rows, k=2)
    found, outcome = answered(step, rows)
    for name, of in found.items():
        shelf = [*SHELVES.values()][int(name[1:]) % 2]
        bought = {what for who, what, *_ in shop() if who == name}
        assert of[0]["item"] in set(shelf) - bought, "never what was bought, first what goes with it"
        assert of[0]["reason"] == "bought_together" and of[0]["because"] in bought
        assert [row["rank"] for row in of] == [1, 2]
        assert of[0]["score"] >= of[1]["score"]
    buyers: dict[str, set[str | None]] = {}
    for who, what, *_ in shop():
        buyers.setdefault(str(what), set()).add(who)
    some = found["c00"][0]
    assert some["together"] == len(buyers[some["item"]] & buyers[some["because"]])
    assert broken_rules(step, outcome.columns) == {}
    itself = outcome.columns.set_column(5, "because", outcome.columns["item"])
    assert broken_rules(step, itself)["no item speaks for itself"] == len(itself)


def test_what_was_bought_comes_again_only_where_it_may() -> None:
    rows = table(shop())
    again, _ = answered(task(rows, repurchase=True, k=8), rows)
    assert {row["reason"] for of in again.values() for row in of} >= {"bought_before", "bought_together"}
    bought = {(who, what) for who, what, *_ in shop()}
    assert all(
        ((name, row["item"]) in bought) == (row["reason"] == "bought_before")
        for name, of in again.items()
        for row in of
    )
    never, _ = answered(task(rows, k=8), rows)
    assert not {(name, row["item"]) for name, of in never.items() for row in of} & bought


def test_items_that_are_bought_together(broken_rules: Callable[..., dict[str, int]]) -> None:
    rows = table([*shop(), ("c99", "lonely", D, 1.0), ("c98", None, D, 1.0), ("c97", "sent_back", D, -1.0)])
    step = task(rows, catalogue({**TEXTS, "lonely": "Alone"}), per="item", k=2, weight="quantity")
    assert step.combine(rows).rows["sku"].null_count == 0, "the engine finds each row's group"
    found, outcome = answered(step, rows)
    for item, of in found.items():
        if item not in ("lonely", "sent_back"):
            shelf = next(shelf for shelf in SHELVES.values() if item in shelf)
            assert of and {row["item"] for row in of} <= set(shelf) - {item}
            assert {(row["because"], row["because_title"], row["method"]) for row in of} == {
                (item, item.title(), "item_neighbours")
            }
    assert [reject.code for reject in outcome.rejects] == ["too_short", "empty"]
    assert found["lonely"] == []
    assert broken_rules(step, outcome.columns) == {}


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_a_new_item_is_reached_by_its_text(model: str | None) -> None:
    """A teapot nobody bought goes where the other teapot goes, a watering can where the hose goes, in Chinese."""
    rows = table(shop())
    step = task(rows, catalogue(), k=8, model=model)
    found, _ = answered(step, rows)
    first: dict[str, list[str]] = {"teapot_blue": [], "喷壶": []}
    for name, of in found.items():
        for row in of:
            if row["item"] in first and row["score"] > 0.1:
                assert row["reason"] == "similar" and row["together"] is None
                first[row["item"]].append(name)
                assert row["because_title"] == row["because"].title()
    assert first["teapot_blue"] and all(int(name[1:]) % 2 == 0 for name in first["teapot_blue"])
    assert first["喷壶"] and all(int(name[1:]) % 2 == 1 for name in first["喷壶"])
    near = {row["because"] for of in found.values() for row in of if row["item"] == "teapot_blue"}
    assert "teapot" in near


def test_new_items_have_the_last_places() -> None:
    rows = table(shop())
    plain, _ = answered(task(rows, catalogue(), k=3), rows)
    found, _ = answered(task(rows, catalogue(), k=3, new_places=1), rows)
    assert any(row["reason"] != "similar" for of in plain.values() for row in of[2:]), "else nothing is tested"
    for name, (first, second, last) in found.items():
        old = [row["item"] for row in plain[name] if row["item"] != last["item"]]
        assert [first["item"], second["item"]] == old[:2]
        assert (last["rank"], last["reason"]) == (3, "similar")
        assert last["item"] == [*NEW][int(name[1:]) % 2]


def test_nothing_outside_the_catalogue_is_recommended() -> None:
    rows = table(shop())
    some = catalogue({name: text for name, text in TEXTS.items() if name not in ("cup", "seeds")})
    found, _ = answered(task(rows, some, k=20), rows)
    assert not {row["item"] for of in found.values() for row in of} & {"cup", "seeds"}
    only = catalogue({"cup": "A cup"})
    _, outcome = answered(task(rows, only), rows)
    assert {reject.code for reject in outcome.rejects} == {"no_answer"}, "who has it is told of nothing else"


def test_nothing_after_the_run_date_is_read() -> None:
    rows = shop()
    later: list[Row] = [(f"c{n:02d}", "spade", D + timedelta(days=1 + n % 20), 50.0) for n in range(0, 60, 2)]
    later.append(("c98", "kettle", D + timedelta(days=1), 1.0))
    before, _ = answered(task(table(rows), repurchase=True), table(rows))
    after, outcome = answered(task(table([*rows, *later]), repurchase=True), table([*rows, *later]))
    assert after.pop("c98") == [] and [reject.code for reject in outcome.rejects] == ["empty"]
    assert after == before
    whole, _ = answered(task(table(rows), run_date=D + timedelta(days=400)), table(rows))
    assert all(row["score"] >= 0 for of in whole.values() for row in of)


def test_a_customer_without_a_purchase_gets_what_sells() -> None:
    """Known by a row without an item, or by returns alone."""
    sold: list[Row] = [(f"d{n}", "cup", D, 1.0) for n in range(40)]
    rows = table([*shop(), *sold, ("z1", None, D, 1.0), ("z2", "hose", D, -1.0), ("z3", "  ", D, 1.0)])
    step = task(rows, weight="quantity")
    found, _ = answered(step, rows)
    for name in ("z1", "z2", "z3"):
        assert found[name][0]["item"] == "cup"
        assert {row["reason"] for row in found[name]} == {"popular"}


def test_rows_that_cannot_be_used_are_rejected() -> None:
    rows = table([("a", "cup", None, 1.0), ("a", "cup", D, float("nan")), ("a", "cup", D, None), ("a", "cup", D, 2.0)])
    step = unopened(rows.schema, weight="quantity")
    combined = step.combine(rows)
    assert [(reject.subject, reject.code) for reject in combined.rejects] == [
        (0, "no_time"),
        (1, "no_value"),
        (2, "no_value"),
    ]
    assert combined.rows.num_rows == 1 and combined.rows["__weight"].to_pylist() == [pytest.approx(np.log2(3))]
    assert step.combine(combined.rows).rows.equals(combined.rows)


def test_the_order_of_rows_and_batches_changes_nothing() -> None:
    rows = table([*shop(), *shop()[:20]])
    shuffled = rows.take(np.random.default_rng(3).permutation(rows.num_rows))
    one, _ = answered(task(rows, catalogue()), rows)
    other, _ = answered(task(shuffled, catalogue()), shuffled, batches=4)
    assert one == other


@pytest.mark.parametrize("rows", [[], [("a", "cup", D, 1.0)], [("a", None, D, 1.0)], [("a", "cup", D, 1e300)] * 3])
@pytest.mark.parametrize("per", ["customer", "item"])
def test_hardly_any_rows(rows: list[Row], per: str) -> None:
    given = table(rows)
    found, outcome = answered(task(given, per=per, weight="quantity"), given)
    assert not any(found.values()), "there is nothing else to recommend"
    assert {reject.code for reject in outcome.rejects} <= {"no_answer", "too_short"}


def test_the_backtest_stands_beside_each_answer() -> None:
    rows = table(shop(400))
    found, _ = answered(task(rows, k=2), rows)
    row = found["c000" if "c000" in found else "c00"][0]
    assert row["method"] in ("neighbours", "factors", "neighbours and factors")
    assert 0 < row["backtest_popular"] < row["backtest_ndcg"] <= 1
    few, _ = answered(task(table(shop(12)), k=2), table(shop(12)))
    assert few["c00"][0]["backtest_ndcg"] is None and few["c00"][0]["method"] == "neighbours"


def test_whole_numbers_and_timestamps() -> None:
    rows = table(shop())
    codes = {name: 1000 + i for i, name in enumerate(sorted(TEXTS))}
    times = [datetime(d.year, d.month, d.day, 23, 30) for d in rows["day"].to_pylist()]
    numbered = rows.set_column(1, "sku", pa.array([codes[name] for name in rows["sku"].to_pylist()], pa.int64()))
    numbered = numbered.set_column(2, "day", pa.array(times, pa.timestamp("us", "UTC")))
    named, _ = answered(task(rows), rows)
    found, _ = answered(task(numbered), numbered)
    assert {name: [row["item"] for row in of] for name, of in found.items()} == {
        name: [codes[row["item"]] for row in of] for name, of in named.items()
    }


@pytest.mark.parametrize(
    ("settings", "setting", "said"),
    [
        ({"entity": "custmer"}, "entity", "customer"),
        ({"item": "quantity"}, "item", "expected a column of string or whole numbers, not double"),
        ({"item": "customer"}, "item", "another column than the entity's"),
        ({"time": "sku"}, "time", "dates or timestamps"),
        ({"weight": "sku"}, "weight", "a column of numbers"),
        ({"per": "item", "repurchase": True}, "repurchase", "per: customer"),
    ],
)
def test_faults_name_the_setting(settings: dict[str, Any], setting: str, said: str) -> None:
    faults = unopened(table([]).schema, **settings).check()
    assert [fault[0] for fault in faults] == [setting]
    assert said in " ".join(map(str, faults[0]))


def test_faults_of_further_tables() -> None:
    rows = table([])
    numbers = pa.table({"sku": pa.array([], pa.int64()), "about": pa.array([], pa.int32()), "name": []})
    faults = {fault[0]: fault[2] for fault in unopened(rows.schema, numbers).check()}
    assert "expected string, as in the input; it is int64" in faults["items.item"]
    assert "expected a string column" in faults["items.text"]
    step = unopened(rows.rename_columns(["rank", "sku", "day", "quantity"]).schema, entity="rank")
    assert "no output column" in step.check()[0][2]


@pytest.mark.parametrize(
    "settings", [{"k": 0}, {"per": "shop"}, {"model": "builtin:minilm"}, {"horizon": 3}, {"new_places": 1}]
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        unopened(table([]).schema, **settings)


def test_a_history_of_its_own_takes_the_columns_of_the_step() -> None:
    step = unopened(table([]).schema, history={"input": "sampled", "entity": "who"}, weight="quantity", dates="all")
    history = step.settings.tables()["history"]
    assert history.columns() == {"entity": "who", "item": "sku", "time": "day", "weight": "quantity"}
    assert (history.input, history.dates) == ("sampled", None)


def test_what_was_bought_is_barred_though_it_was_not_learned_of() -> None:
    """The history is a sample without the blue teapot, which one customer of the input has."""
    rows = table(shop())
    step = task(rows, catalogue(), k=8)
    more = table([*shop(), ("c00", "teapot_blue", D, 1.0)])
    found, _ = answered(step, more)
    assert "teapot_blue" not in {row["item"] for row in found["c00"]}
    assert "teapot_blue" in {row["item"] for row in found["c02"]}


def test_more_items_than_can_be_learned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that fewer customers bought are reached through their texts, and never come to who has them."""
    monkeypatch.setattr("bizllm.methods.together.MOST_ITEMS", 6)
    rows = table([*shop(), *((f"c{n:02d}", "kettle", D, 1.0) for n in range(0, 40, 2))])
    step = task(rows, catalogue(), k=10)
    assert step.learned is not None and len(step.learned["popular"]) == 6
    found, _ = answered(step, rows)
    bought = {(row["customer"], row["sku"]) for row in rows.to_pylist()}
    assert not {(name, row["item"]) for name, of in found.items() for row in of} & bought
