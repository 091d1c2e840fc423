from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.tasks.base import Groups, Outcome, StepInput, task_class
from bizllm.tasks.compare import TASK, CompareSettings
from bizllm.tasks.sentiment import ASPECT

NIGHT = date(2026, 6, 30)
SCORED = pa.schema(
    [
        ("market", pa.string()), ("id", pa.int64()), ("day", pa.date32()), ("brand", pa.string()),
        ("score", pa.float32()), ("aspects", pa.list_(ASPECT)),
    ]
)  # fmt: skip
TEXTS = pa.schema([("market", pa.string()), ("id", pa.int64()), ("day", pa.date32()), ("body", pa.string())])
OF_SCORES = {"brand": "brand", "score": "score", "aspects": "aspects"}
BRANDS = {"Aldermoor": ["桤野"], "Birchline": ["Birchline Home", "桦线"]}


def make(schema: pa.Schema = SCORED, **settings: Any) -> TASK:
    given = {"task": "compare", "input": "r", "per": ["market"], "document": "id", "time": "day", **settings}
    return TASK(CompareSettings(**given), StepInput("r", schema), NIGHT)


def answered(task: TASK, rows: pa.Table, markets: str = "m") -> Outcome:
    combined = task.combine(rows).rows.sort_by("market")
    names = np.array(combined["market"].to_pylist(), object)
    starts = np.r_[0, np.cumsum([(names == market).sum() for market in markets])].astype(np.int64)
    outcome = task.answer(Groups(combined, starts, pa.table({"market": list(markets)})))
    assert outcome.columns.schema == task.columns()
    return outcome


def row_of(outcome: Outcome, brand: str, aspect: str = "overall", market: int = 0) -> dict[str, Any]:
    rows = zip(outcome.subject.tolist(), outcome.columns.to_pylist(), strict=True)
    (found,) = [r for at, r in rows if (at, r["brand"], r["aspect"]) == (market, brand, aspect)]
    return found


def said(aspect: str, score: float, quote: str) -> dict[str, Any]:
    return {"aspect": aspect, "label": "x", "score": score, "start": 0, "end": len(quote), "quote": quote}


def scored(of: dict[str, list[float]], ago: int = 3, market: str = "m", **more: Any) -> list[dict[str, Any]]:
    return [
        {"market": market, "id": i, "day": NIGHT - timedelta(days=ago), "brand": brand, "score": score, **more}
        for brand, scores in of.items()
        for i, score in enumerate(scores)
    ]


def table(rows: list[dict[str, Any]], schema: pa.Schema = SCORED) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema)


def test_shares_and_means_by_hand(broken_rules: Callable[..., dict[str, int]]) -> None:
    task = make(**OF_SCORES)
    assert task_class("compare") is TASK and task.check() == [] and task.keys() == ["market", "brand", "aspect"]
    rows = scored({"a": [0.5] * 6, "b": [-0.5] * 3}) + scored({"a": [0.1, 0.3]}, ago=30) + scored({"b": [1.0]}, ago=99)
    outcome = answered(task, table(rows + scored({"a": [1.0]}, ago=-1)))
    a, b = row_of(outcome, "a"), row_of(outcome, "b")
    assert (a["mentions"], b["mentions"], a["share"], b["share"]) == (6, 3, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (a["score"], a["gap"], b["gap"], a["positive"], b["negative"]) == pytest.approx((0.5, 1.0, -1.0, 1, 1))
    assert (a["previous_mentions"], b["previous_mentions"]) == (2, 0) and b["previous_score"] is None
    assert a["previous_score"] == pytest.approx(0.2) and a["score_change"] == pytest.approx(0.3)
    assert a["share_change"] == pytest.approx(-1 / 3) and b["score_change"] is None
    assert a["verdict"] is None and b["verdict"] is None, "three mentions of the other are too few"
    assert broken_rules(task, outcome.columns) == {}
    assert [row["brand"] for row in outcome.columns.to_pylist()] == ["a", "b"]


def test_planted_strengths_are_found_and_small_brands_show_no_noise() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(8):
        brand, size = f"b{number}", 60 if number < 4 else 2
        for i in range(size):
            good = {"b0": ("delivery", 0.6), "b1": ("price", -0.6)}.get(brand)
            aspects = [
                said(
                    name,
                    float(np.clip(rng.normal(good[1] if good and good[0] == name else 0, 0.4), -1, 1)),
                    f"{name} {i}",
                )
                for name in ("delivery", "price", "taste")
            ]
            rows += scored({brand: [0.0]}, aspects=aspects)
    outcome = answered(make(**OF_SCORES), table(rows))
    told = {(r["brand"], r["aspect"]): r["verdict"] for r in outcome.columns.to_pylist() if r["verdict"]}
    assert told[("b0", "delivery")] == "strength" and told[("b1", "price")] == "weakness"
    assert all(verdict == ("weakness" if aspect == "delivery" else "strength") or brand in ("b0", "b1")
               for (brand, aspect), verdict in told.items())  # fmt: skip
    assert not any(brand in told for brand in ("b4", "b5", "b6", "b7"))
    worst = [quote["score"] for quote in row_of(outcome, "b1", "price")["quotes"]]
    assert worst == sorted(worst) and len(worst) == 3 and worst[0] < -0.6
    assert outcome.exhibit is not None and outcome.exhibit.num_rows == len(told)


def test_brands_are_found_in_texts() -> None:
    texts = [
        "Aldermoor has great delivery. It is also cheap and friendly. Birchline Home was slow and awful.",
        "桤野的快递很快，很满意。桦线的质量太差了！",
        "No brand is named here, and all is bad.",
    ]
    rows = [{"market": "m", "id": i, "day": NIGHT, "body": text} for i, text in enumerate(texts)]
    outcome = answered(make(TEXTS, text="body", brands=BRANDS), table(rows, TEXTS))
    found = {(r["brand"], r["aspect"]): r for r in outcome.columns.to_pylist()}
    assert {brand for brand, _ in found} == {"Aldermoor", "Birchline"}
    assert found["Aldermoor", "overall"]["mentions"] == found["Birchline", "overall"]["mentions"] == 2
    assert found["Aldermoor", "overall"]["score"] > 0.4 > -0.4 > found["Birchline", "overall"]["score"]
    assert found["Birchline", "quality"]["quotes"][0] == {
        "document": "1", "quote": "桦线的质量太差了", "score": pytest.approx(found["Birchline", "quality"]["score"]),
    }  # fmt: skip
    assert found["Aldermoor", "delivery"]["mentions"] == 2 and ("Birchline", "delivery") not in found


def test_values_of_the_brand_column_are_put_together() -> None:
    rows = scored({"桤野": [0.1], "ALDERMOOR": [0.2], " Aldermoor ": [0.3], "Aldermoor Two": [0.4], "x": [0.5]})
    outcome = answered(make(**OF_SCORES, brands=BRANDS), table(rows))
    assert [(r["brand"], r["mentions"]) for r in outcome.columns.to_pylist()] == [
        ("Aldermoor", 3), ("Aldermoor Two", 1), ("x", 1),
    ]  # fmt: skip


def test_a_text_counts_once_and_the_same_words_are_quoted_once() -> None:
    aspects = [said("price", 0.8, "fair"), said("price", 0.4, "ok")]
    rows = scored({"a": [0.5] * 4, "b": [0.0] * 4}, aspects=aspects)
    found = row_of(answered(make(**OF_SCORES), table(rows)), "a", "price")
    assert found["mentions"] == 4 and found["score"] == pytest.approx(0.6)
    assert [quote["quote"] for quote in found["quotes"]] == ["fair"]
    none = row_of(answered(make(**OF_SCORES, quotes=0), table(rows)), "a", "price")
    assert none["quotes"] == []


def test_a_change_is_told_where_it_is_one() -> None:
    rng = np.random.default_rng(3)
    before, now = rng.normal(0.5, 0.3, 50).clip(-1, 1), rng.normal(-0.2, 0.3, 50).clip(-1, 1)
    rows = scored({"a": now.tolist(), "b": before.tolist()}) + scored(
        {"a": before.tolist(), "b": before.tolist()}, ago=30
    )
    outcome = answered(make(**OF_SCORES), table(rows))
    a, b = row_of(outcome, "a"), row_of(outcome, "b")
    assert a["score_change"] < -0.5 and a["score_change_p"] < 0.001 and b["score_change_p"] > 0.5
    assert a["share_change_p"] == 1.0
    timeless = row_of(answered(make(**OF_SCORES, time=None), table(rows)), "a")
    assert timeless["mentions"] == 100 and timeless["previous_mentions"] is None


def test_order_and_halves_decide_nothing() -> None:
    rng = np.random.default_rng(4)
    rows = []
    for market in "mn":
        for brand in "abc":
            for score in rng.normal(0, 0.5, 30).clip(-1, 1).tolist():
                quote = f"q{len(rows)}"
                rows += scored({brand: [score]}, market=market, aspects=[said("price", round(score, 1), quote)])
                rows[-1]["id"] = len(rows)
    whole, task = table(rows), make(**OF_SCORES)
    expected = answered(task, whole, "mn").columns
    order = rng.permutation(len(whole))
    assert answered(task, whole.take(pa.array(order)), "mn").columns.equals(expected)
    halves = pa.concat_tables([task.combine(whole.slice(0, 77)).rows, task.combine(whole.slice(77)).rows])
    found = answered(task, halves, "mn").columns
    assert found.drop_columns([n for n in found.column_names if pa.types.is_floating(found[n].type)]).equals(
        expected.drop_columns([n for n in found.column_names if pa.types.is_floating(found[n].type)])
    )
    for name in ("score", "gap_p", "share"):
        assert found[name].to_pylist() == pytest.approx(expected[name].to_pylist())


def test_unusable_rows_and_markets() -> None:
    rows = [
        *scored({"a": [0.5]}),
        {**scored({"a": [0.5]})[0], "day": None},
        {**scored({"a": [0.5]})[0], "brand": " "},
        {**scored({"a": [0.5]})[0], "score": None},
        {**scored({"a": [0.5]})[0], "score": float("nan")},
        *scored({"a": [0.5]}, market="n", ago=30),
    ]
    task = make(**OF_SCORES)
    rejects = [(r.subject, r.code) for r in task.combine(table(rows)).rejects]
    assert rejects == [(1, "no_time"), (2, "no_key"), (3, "no_value"), (4, "no_value")]
    outcome = answered(task, table(rows), "mn")
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty")] and outcome.subject.tolist() == [0]
    alone = row_of(outcome, "a")
    assert alone["share"] == 1.0 and alone["gap"] is None and alone["verdict"] is None
    assert alone["score_high"] - alone["score_low"] > 1.0, "one score tells little"
    assert task.combine(SCORED.empty_table()).rows.num_rows == 0
    assert answered(task, SCORED.empty_table(), "").columns.num_rows == 0
    texts = [{"market": "m", "id": 1, "day": NIGHT, "body": body} for body in (None, " ", "Aldermoor is good")]
    assert [r.code for r in make(TEXTS, text="body", brands=BRANDS).combine(table(texts, TEXTS)).rejects] == [
        "empty"
    ] * 2


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({**OF_SCORES, "brand": "brnad"}, "brand", "no such column"),
        ({**OF_SCORES, "brand": "id"}, "brand", "expected a string column"),
        ({**OF_SCORES, "score": "day"}, "score", "expected a column of numbers"),
        ({**OF_SCORES, "aspects": "score"}, "aspects", "expected the column `aspects` of a sentiment step"),
        ({**OF_SCORES, "time": "id"}, "time", "expected a date"),
        ({**OF_SCORES, "per": ["brand"]}, "per", "not the brand"),
        ({**OF_SCORES, "per": ["score"]}, "per", "no output column has"),
        ({**OF_SCORES, "document": "key"}, "document", "no such column"),
    ],
)
def test_faults(settings: dict[str, Any], place: str, said: str) -> None:
    faults = make(**settings).check()
    assert [fault[0] for fault in faults] == [place] and said in faults[0][2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"brand": "brand"}, "either `text`, or the `score`"),
        ({"brand": "brand", "text": "body", "score": "score"}, "either `text`, or the `score`"),
        ({"brand": "brand", "text": "body", "aspects": "aspects"}, "expected its `score`"),
        ({"text": "body"}, "a `brand` column, or `brands`"),
        ({"score": "score", "brands": BRANDS}, "a `brand` column, or `brands`"),
        ({"text": "body", "brands": {"a": ["x"], "b": ["x"]}}, "each name under one brand"),
        ({**OF_SCORES, "per": []}, "at least 1"),
    ],
)
def test_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make(**settings)


def test_rules_see_what_is_wrong(broken_rules: Callable[..., dict[str, int]]) -> None:
    task = make(**OF_SCORES)
    good = row_of(answered(task, table(scored({"a": [0.5] * 9, "b": [-0.5] * 9}))), "a")
    assert good["verdict"] == "strength"
    changes: list[dict[str, Any]] = [
        {"brand": " "},
        {"share": 2.0},
        {"score": 1.1},
        {"mentions": 2},
        {"gap_p": 0.2},
        {"gap": -0.1},
    ]
    for rule, change in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}


ALIASES = pa.table({"alias": ["桤野", "桦线", "Moor", "lamp"], "name": ["Aldermoor", "Birchline", "Aldermoor", "Lamp"],
                    "kind": ["brand", "品牌", "Brand", "product"]})  # fmt: skip
KNOWN = {"input": "names", "term": "alias", "means": "name"}


def knowing(rows: pa.Table, **settings: Any) -> Outcome:
    """As a night does: learned once, then combined and answered by tasks that know it."""
    given = {"text": "body", "knowledge": {**KNOWN, "kind": "kind"}, **settings}
    task = make(TEXTS, **given)
    task.others = {"knowledge": StepInput("names", ALIASES.schema)}
    assert task.check() == []
    task.learned = task.learn({"knowledge": ALIASES})
    return answered(task, rows)


def test_names_of_brands_may_come_from_a_table() -> None:
    bodies = ["桤野的质量很好。", "Moor is great.", "桦线太贵了。", "The lamp is great."]
    rows = table([{"market": "m", "id": i, "day": NIGHT, "body": body} for i, body in enumerate(bodies)], TEXTS)
    outcome = knowing(rows)
    assert {row["brand"] for row in outcome.columns.to_pylist()} == {"Aldermoor", "Birchline"}
    assert row_of(outcome, "Aldermoor")["mentions"] == 2
    both = knowing(rows, brands={"Lamp & Co": ["lamp"]})
    assert row_of(both, "Lamp & Co")["mentions"] == 1 and row_of(both, "Birchline")["mentions"] == 1


def test_a_name_of_two_brands_and_a_table_without_brands_are_refused() -> None:
    task = make(TEXTS, text="body", knowledge=KNOWN, brands={"Other": ["桤野"]})
    with pytest.raises(UserError, match="knowledge: 'names': expected each name under one brand"):
        task.learn({"knowledge": ALIASES})
    task = make(TEXTS, text="body", knowledge={**KNOWN, "kind": "kind"})
    with pytest.raises(UserError, match="1 rows hold no usable name of kind brand"):
        task.learn({"knowledge": ALIASES.slice(3)})
