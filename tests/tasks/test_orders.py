from __future__ import annotations

import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.infer.learned import load, to_bytes
from bizllm.methods.orders.reasons import REASONS
from bizllm.tables import storage
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.orders import TASK, OrdersSettings

NIGHT = date(2026, 6, 30)
SCHEMA = pa.schema(
    [("id", pa.string()), ("who", pa.string()), ("at", pa.timestamp("us", "UTC")), ("body", pa.string())]
)
ARTICLES = pa.table(
    {
        "sku": ["P001", "P001", "P002", None, "P009", "P010"],
        "name": ["Larkfield kettle", "Larkfield kettle", "Brackley toaster", "nameless", "Night light", "Desk lamp"],
        "other": [["kettle", "水壶"], [], ["toaster", "烤面包机"], [], ["lamp"], ["lamp"]],
        "sold_in": ["pcs"] * 6,
        "price": [38.99, 349.0, 44.99, 1.0, 14.99, 48.99],
        "currency": ["GBP", "CNY", "GBP", "GBP", "GBP", "GBP"],
    }
)
CATALOGUE = {"input": "articles", "sku": "sku", "name": "name", "aliases": "other", "unit": "sold_in"}
PRICED = {**CATALOGUE, "price": "price", "currency": "currency"}
HISTORY = {"input": "mails", "text": "body", "customer": "who", "time": "at", "id": "id"}
WATCHED: dict[str, Any] = {"customer": "who", "time": "at", "history": HISTORY}


def settings(**more: Any) -> OrdersSettings:
    return OrdersSettings(**{"task": "orders", "input": "mails", "text": "body", "catalogue": PRICED, **more})


def mails(*rows: tuple[str, str | None, str | None, str | None]) -> pa.Table:
    """id, customer, when (ISO), body."""
    return pa.Table.from_pylist(
        [
            {"id": i, "who": who, "at": datetime.fromisoformat(at).replace(tzinfo=UTC) if at else None, "body": body}
            for i, who, at, body in rows
        ],
        schema=SCHEMA,
    )


def answered(rows: pa.Table, remembered: pa.Table | None = None, articles: pa.Table = ARTICLES, **more: Any) -> Any:
    """(task, outcome) of a task that learned as it does on a night."""
    given = settings(**more)
    tables = {"catalogue": articles}
    if given.history is not None:
        tables["history"] = rows if remembered is None else remembered
    if given.knowledge is not None:
        tables["knowledge"] = pa.table({"alias": ["boiler", "nothing"], "is": ["P001", "P999"]})
    others = {name: StepInput(name, table.schema) for name, table in tables.items()}
    source = StepInput("mails", SCHEMA, ("id",))
    first = TASK(given, source, NIGHT, others)
    assert first.check() == []
    first.open(None)  # type: ignore[arg-type]  # before it learned; it loads no model
    read = {
        name: table.select([*dict.fromkeys(given.tables()[name].columns().values())]) for name, table in tables.items()
    }
    task = TASK(given, source, NIGHT, others, learned=first.learn(read))
    task.open(None)  # type: ignore[arg-type]
    outcome = task.answer(task.prepare(rows.select(task.reads())))
    assert outcome.columns.schema == task.columns()
    return task, outcome


def bodies(*texts: str | None) -> pa.Table:
    return mails(*((str(i), None, None, text) for i, text in enumerate(texts)))


def test_lines_totals_and_status(broken_rules: Any) -> None:
    text = "Please send:\n- 12 x kettle @ £38.99\n- 4 toasters\n\nTotal: £647.84, our PO number is PO-4711."
    task, outcome = answered(bodies(text, "请发12个水壶，合计￥4188元", "3 lamps and 2 x boat", None, " "))
    assert task_class("orders") is TASK and not task.depends_on_date()
    assert outcome.subject.tolist() == [0, 1, 2]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(3, "empty"), (4, "empty")]
    english, chinese, doubtful = outcome.columns.to_pylist()
    assert (english["status"], english["reasons"], english["line_count"]) == ("accepted", [], 2)
    assert (english["total"], english["stated_total"], english["currency"]) == (647.84, 647.84, "GBP")
    assert (english["skus"], english["order_number"]) == (["P001", "P002"], "PO-4711")
    first, second = english["lines"]
    assert text[first["start"] : first["end"]] == first["text"] == "12 x kettle @ £38.99"
    assert (first["sku"], first["name"], first["quantity"]) == ("P001", "Larkfield kettle", 12.0)
    assert (first["unit_price"], first["list_price"], first["amount"], first["match"]) == (
        38.99,
        38.99,
        467.88,
        "alias",
    )
    assert (second["unit_price"], second["list_price"], second["score"]) == (None, 44.99, 1.0)
    assert (chinese["status"], chinese["total"], chinese["currency"]) == ("accepted", 4188.0, "CNY")
    assert (doubtful["status"], doubtful["reasons"]) == ("needs_review", ["unknown_item", "ambiguous_item"])
    assert doubtful["total"] is None and [line["sku"] for line in doubtful["lines"]] == [None, None]
    assert [line["reasons"] for line in doubtful["lines"]] == [["ambiguous_item"], ["unknown_item"]]
    assert broken_rules(task, outcome.columns) == {}


def test_an_order_that_came_before_is_a_duplicate() -> None:
    rows = mails(
        ("a", "C1", "2026-06-20 09:00", "12 kettles"),
        ("b", "C1", "2026-06-29 09:00", "12 kettles, 4 toasters"),
        ("c", "C1", "2026-06-30 09:00", "请发4台烤面包机和12个水壶"),
        ("d", "C2", "2026-06-30 10:00", "12 kettles, 4 toasters"),
        ("e", "C1", "2026-06-30 11:00", "12 kettles"),
        ("f", None, "2026-06-30 12:00", "12 kettles, 4 toasters"),
        ("g", "C1", None, "12 kettles, 4 toasters"),
        ("h", "C1", "2026-06-30 13:00", "12 kettles, 4 toasters"),
        ("i", "C1", "2026-06-30 14:00", "Thanks for everything"),
    )
    _, outcome = answered(rows, dates="all", **WATCHED)
    found = {
        row["id"]: of for row, of in zip(rows.to_pylist(), outcome.columns["duplicate_of"].to_pylist(), strict=True)
    }
    assert found == dict.fromkeys("abdefgi") | {"c": "b", "h": "c"}, "within seven days, of the same customer"
    reasons = outcome.columns["reasons"].to_pylist()
    assert reasons[2] == reasons[7] == ["duplicate"] and reasons[8] == ["no_items"]
    _, longer = answered(rows, dates="all", duplicate_days=30, **WATCHED)
    assert longer.columns["duplicate_of"].to_pylist()[4] == "a"
    assert not any(answered(rows)[1].columns["duplicate_of"].to_pylist()), "nothing without a history"


def test_order_numbers_tell_a_new_order_from_the_same_one() -> None:
    rows = mails(
        ("a", "C1", "2026-06-29 09:00", "12 kettles, PO number: PO-4711"),
        ("b", "C1", "2026-06-30 09:00", "12 kettles, PO number: PO-4712"),
        ("c", "C1", "2026-06-30 10:00", "12 kettles, PO number: PO-4711"),
        ("d", "C1", "2026-06-30 11:00", "15 kettles, PO number: PO-4711"),
        ("e", "C2", "2026-06-30 12:00", "15 kettles, PO number: PO-4711"),
    )
    _, outcome = answered(rows, dates="all", **WATCHED)
    assert outcome.columns["reasons"].to_pylist() == [[], [], ["duplicate"], ["number_again"], []]


def test_a_history_of_days_and_of_a_nights_own_reach() -> None:
    """Dates count in whole days; a step that reads one day remembers only what that day can need."""
    rows = mails(("a", "C1", "2026-06-01 09:00", "12 kettles"), ("b", "C1", "2026-06-29 09:00", "12 kettles"))
    given = settings(**WATCHED)
    others = {"catalogue": StepInput("c", ARTICLES.schema), "history": StepInput("h", SCHEMA)}
    task = TASK(given, StepInput("mails", SCHEMA), NIGHT, others)
    learned = task.learn({"catalogue": ARTICLES, "history": rows})
    assert learned["history"]["id"].to_pylist() == ["b"]
    days = rows.set_column(2, "at", rows["at"].cast(pa.timestamp("us")).cast(pa.date32()))
    by_day = TASK(given, StepInput("mails", days.schema), NIGHT, others | {"history": StepInput("h", days.schema)})
    assert by_day.check() == []
    assert by_day.learn({"catalogue": ARTICLES, "history": days})["history"]["time"].to_pylist() == [
        int(datetime(2026, 6, 29, tzinfo=UTC).timestamp()) * 1_000_000
    ]


def test_knowledge_names_articles_too() -> None:
    knowledge = {"input": "words", "term": "alias", "means": "is"}
    _, outcome = answered(bodies("12 x boiler"), knowledge=knowledge)
    assert outcome.columns["skus"].to_pylist() == [["P001"]]
    assert answered(bodies("12 x boiler"))[1].columns["reasons"].to_pylist() == [["unknown_item"]]


def test_a_catalogue_of_other_types() -> None:
    articles = pa.table({"no": [101, 102], "name": ["tin cup", "tin plate"], "more": ["mug|beaker; 杯子", None]})
    plain = {"input": "articles", "sku": "no", "name": "name", "aliases": "more"}
    _, outcome = answered(bodies("3 beakers and 2 tin plates", "杯子5个"), articles=articles, catalogue=plain)
    assert outcome.columns["skus"].to_pylist() == [["101", "102"], ["101"]]
    assert outcome.columns["status"].to_pylist() == ["accepted", "accepted"]
    assert outcome.columns["total"].to_pylist() == [None, None]


def test_order_of_rows_and_tables_changes_nothing() -> None:
    texts = ["12 kettles", "请发4台烤面包机", "3 lamps", "12 kettle @ £1.00", "hello", "12 kettles"]
    rows = mails(*((str(i), "C1", f"2026-06-{20 + i} 09:00", text) for i, text in enumerate(texts)))
    expected = answered(rows, dates="all", **WATCHED)[1].columns.to_pylist()
    for seed in range(3):
        order = random.Random(seed).sample(range(len(texts)), len(texts))
        shuffled = ARTICLES.take(random.Random(seed).sample(range(6), 6))
        rows_too = rows.take(order)
        again = answered(rows_too, dates="all", articles=shuffled, **WATCHED)[1].columns.to_pylist()
        assert again == [expected[i] for i in order]
        alone = [answered(rows.slice(i, 1), rows, dates="all", **WATCHED)[1].columns.to_pylist()[0] for i in order]
        assert alone == again
    assert answered(rows.slice(0, 0))[1].columns.num_rows == 0


def test_faults() -> None:
    given = settings(text="bdy", time="who", customer="whoo", history=None)
    faults = TASK(given, StepInput("mails", SCHEMA), NIGHT).check()
    assert [(f[0], f[1]) for f in faults] == [("text", "bdy"), ("customer", "whoo"), ("time", "who")]
    assert faults[1][3] == "did you mean 'who'?"
    wrong = pa.schema([("sku", pa.float64()), ("name", pa.int64()), ("other", pa.int64()), ("price", pa.string())])
    bad = {"input": "articles", "sku": "sku", "name": "name", "aliases": "other", "price": "price"}
    others = {"catalogue": StepInput("articles", wrong), "history": StepInput("mails", SCHEMA)}
    task = TASK(
        settings(catalogue=bad, **WATCHED | {"history": HISTORY | {"time": "who"}}),
        StepInput("m", SCHEMA),
        NIGHT,
        others,
    )
    assert [(f[0], f[1]) for f in task.check()] == [
        ("catalogue.sku", "sku"),
        ("catalogue.name", "name"),
        ("catalogue.aliases", "other"),
        ("catalogue.price", "price"),
        ("history.time", "who"),
    ]
    with pytest.raises(UserError, match="2 rows hold no article with a number and a name"):
        TASK(settings(), StepInput("m", SCHEMA), NIGHT).learn({"catalogue": ARTICLES.slice(3, 1).take([0, 0])})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"history": HISTORY}, "`history` needs `customer` and `time`"),
        ({"catalogue": CATALOGUE | {"currency": "currency"}}, "`catalogue.currency` is of"),
        ({"currency": "pounds"}, "is no ISO code that is known here"),
        ({"min_score": 2}, "less than or equal to 1"),
        ({"catalogue": {"input": "articles", "sku": "sku"}}, "Field required"),
        ({"catalog": CATALOGUE}, "Extra inputs"),
    ],
)
def test_settings_that_lead_nowhere(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**more)


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task, outcome = answered(bodies("12 kettles @ £38.99"))
    (good,) = outcome.columns.to_pylist()
    (line,) = good["lines"]
    changes: list[dict[str, Any]] = [
        {"lines": [line | {"end": 99}]},
        {"line_count": 7},
        {"total": 1.0},
        {"reasons": ["duplicate"]},
        {"lines": [line | {"sku": None}]},
    ]
    for rule, change in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, good | change], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}


def test_every_reason_is_told_of() -> None:
    assert all(reason in TASK.writes["reasons"] for reason in REASONS)


def test_what_was_learned_survives_the_file_beside_the_table(tmp_path: Path) -> None:
    rows = mails(("a", "C1", "2026-06-29 09:00", "12 kettles"), ("b", "C1", "2026-06-30 09:00", "12 x kettle"))
    given = settings(dates="all", **WATCHED)
    others = {"catalogue": StepInput("articles", ARTICLES.schema), "history": StepInput("mails", SCHEMA)}
    source = StepInput("mails", SCHEMA, ("id",))
    learned = TASK(given, source, NIGHT, others).learn({"catalogue": ARTICLES, "history": rows})
    url = str(tmp_path / "learned.safetensors")
    storage.write_bytes(url, to_bytes(learned))
    task = TASK(given, source, NIGHT, others, learned=load(url))
    task.open(None)  # type: ignore[arg-type]
    assert task.answer(rows).columns.to_pylist() == answered(rows, dates="all", **WATCHED)[1].columns.to_pylist()
