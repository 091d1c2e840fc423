"""The segment task as the engine runs it: combine in batches, features, fit, answer, night after night."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from sklearn.metrics import adjusted_rand_score

from bizllm.tasks.base import Groups, Outcome, StepInput, task_class
from bizllm.tasks.segment import TASK, Segment, SegmentSettings

D = date(2024, 6, 30)
PER_KIND = 60
KINDS = ["loyal", "once", "lapsed", "returner"]


def shop(seed: int = 0, until: date = D) -> pa.Table:
    """Lines of four kinds of customers, 60 each; the customer's number // 60 is the kind."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, datetime, float, str]] = []

    def order(who: int, ago: float, money: float) -> None:
        when = datetime.combine(D, datetime.min.time()) + timedelta(hours=12) - timedelta(days=int(ago))
        share = rng.uniform(0.2, 0.8)
        name = f"o{len(rows)}"
        rows.extend((who, when, round(part, 2), name) for part in (money * share, money * (1 - share)))

    for i in range(PER_KIND):
        for ago in np.arange(rng.integers(0, 9), 300, 12) + rng.integers(-2, 3):
            order(i, max(ago, 0), rng.normal(400, 40))
        order(PER_KIND + i, rng.integers(1, 20), rng.normal(40, 5))
        for ago in range(260, 500, 30):
            order(2 * PER_KIND + i, ago + rng.integers(0, 8), rng.normal(120, 15))
        for ago in range(10, 250, 40):
            order(3 * PER_KIND + i, ago + rng.integers(0, 8), rng.normal(100, 10))
            order(3 * PER_KIND + i, max(ago - 4, 0), -rng.normal(50, 6))
    who, when, money, name = zip(*rows, strict=True)
    table = pa.table(
        {
            "customer": pa.array(who, pa.int64()),
            "at": pa.array(when, pa.timestamp("us")),
            "paid": money,
            "order_no": name,
        }
    )
    return table.filter(pa.array([w.date() <= until for w in when]))


def task(run_date: date = D, schema: pa.Schema | None = None, **settings: Any) -> Segment:
    given = {"task": "segment", "input": "sales", "entity": "customer", "time": "at", "amount": "paid"}
    made = SegmentSettings(**(given | {"order": "order_no"} | settings))
    return Segment(made, StepInput("sales", schema or shop().schema), run_date)


def grouped(step: Segment, rows: pa.Table, prior: dict[int, str] | None = None, batches: int = 1) -> Groups:
    size = -(-rows.num_rows // batches)
    parts = pa.concat_tables([step.combine(rows.slice(i * size, size)).rows for i in range(batches)]).sort_by(
        "customer"
    )
    keys = np.unique(rows["customer"].to_numpy())
    starts = np.append(np.searchsorted(parts["customer"].to_numpy(), keys), parts.num_rows)
    before = (
        None if prior is None else pa.table({"segment": pa.array([prior.get(k) for k in keys.tolist()], pa.string())})
    )
    return Groups(parts, starts.astype(np.int64), pa.table({"customer": keys}), before)


def night(
    rows: pa.Table, previous: dict[str, Any] | None = None, prior: dict[int, str] | None = None, **settings: Any
) -> tuple[pa.Table, dict[str, Any], Outcome]:
    """One night: (answers with the key and the audit passed, the fit after JSON, what features() said)."""
    step = task(**settings)
    assert step.check() == []
    groups = grouped(step, rows, prior, batches=3)
    found = step.features(groups)
    features = found.columns.append_column("customer", groups.keys["customer"].take(pa.array(found.subject)))
    fit = json.loads(json.dumps(step.fit(features, previous)))
    answers = replace(step, fitted=fit).answer(features)
    assert answers.subject.tolist() == list(range(features.num_rows))
    audit(step, answers.columns)
    return answers.columns.append_column("customer", features["customer"]), fit, found


def audit(step: Segment, answers: pa.Table) -> None:
    assert answers.schema == step.columns()
    with duckdb.connect() as con:
        con.register("answers", answers)
        for condition in step.rules().values():
            assert con.sql(f"select count(*) from answers where not coalesce(({condition}), false)").fetchall() == [
                (0,)
            ]


def by_customer(answers: pa.Table, column: str) -> dict[int, Any]:
    return dict(zip(answers["customer"].to_pylist(), answers[column].to_pylist(), strict=True))


def test_it_is_found_by_its_name() -> None:
    assert task_class("segment") is TASK
    step = task()
    assert (step.shape, step.keys(), step.reads()) == ("table", ["customer"], ["customer", "at", "paid", "order_no"])


def test_planted_kinds_are_found_and_named() -> None:
    answers, fit, _ = night(shop())
    kind = answers["customer"].to_numpy() // PER_KIND
    assert adjusted_rand_score(kind, answers["segment_id"].to_numpy()) >= 0.95
    said = [Counter(answers.filter(pa.array(kind == i))["segment"].to_pylist()).most_common(1)[0][0] for i in range(4)]
    assert said == [
        "loyal big spenders",
        "recent one-time buyers",
        "lapsed regulars",
        "returns-heavy occasional buyers",
    ]
    assert len({s["name"] for s in fit["segments"]}) == len(fit["segments"]) == 4
    assert answers["confidence"].to_numpy().mean() > 0.6


def test_chinese_names() -> None:
    answers, _, _ = night(shop(), language="zh")
    assert "忠诚大客户" in set(answers["segment"].to_pylist())


def test_ids_and_names_last_from_night_to_night() -> None:
    first, fit, _ = night(shop(until=D - timedelta(days=3)), run_date=D - timedelta(days=3))
    rows = shop()
    for order in (rows, rows.take(np.random.default_rng(1).permutation(rows.num_rows))):
        second, again, _ = night(order, fit, by_customer(first, "segment"))
        for column in ("segment_id", "segment"):
            before, after = by_customer(first, column), by_customer(second, column)
            assert np.mean([before[c] == after[c] for c in before]) > 0.97
        assert by_customer(second, "previous_segment") == {
            c: by_customer(first, "segment").get(c) for c in second["customer"].to_pylist()
        }
        assert again["next_id"] == fit["next_id"]


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = shop()
    one, fit, _ = night(rows)
    other, same, _ = night(rows.take(np.random.default_rng(2).permutation(rows.num_rows)))
    assert fit == same
    assert one.equals(other)


def test_ids_of_clusters_that_are_gone_never_come_back() -> None:
    _, fit, _ = night(shop())
    gone = shop().filter(pa.array(shop()["customer"].to_numpy() // PER_KIND != 3))
    _, without, _ = night(gone, fit, k=3)
    _, back, _ = night(shop(), without)
    ids = [{s["id"] for s in f["segments"]} for f in (fit, without, back)]
    assert ids[1] < ids[0]
    assert ids[2] & ids[0] == ids[1] & ids[2]
    assert max(ids[2]) == back["next_id"] - 1 > max(ids[0])


def test_nothing_after_the_run_date_is_seen() -> None:
    earlier = D - timedelta(days=40)
    later = shop()
    assert later.num_rows > shop(until=earlier).num_rows
    step = task(earlier)
    seen, alone = grouped(step, later), grouped(step, shop(until=earlier))
    one, other = step.features(seen).columns, step.features(alone).columns
    assert one.equals(other)
    assert step.fit(one, None) == step.fit(other, None)


def test_customers_without_a_purchase_are_rejected_as_empty() -> None:
    more = pa.table(
        {
            "customer": [900, 901],
            "at": pa.array([datetime(2024, 6, 1), datetime(2020, 1, 1)], pa.timestamp("us")),
            "paid": [-10.0, 10.0],
            "order_no": ["x", "y"],
        }
    )
    answers, _, found = night(pa.concat_tables([shop(), more]))
    assert [(r.subject, r.code) for r in found.rejects] == [(240, "empty"), (241, "empty")]
    assert sorted([*found.subject.tolist(), *(r.subject for r in found.rejects)]) == list(range(242))
    assert answers.num_rows == 240


def test_unusable_lines_are_rejects_and_combining_again_changes_nothing() -> None:
    bad = pa.table(
        {
            "customer": [1, 1, 1],
            "at": pa.array([None, datetime(2024, 6, 1), datetime(2024, 6, 1)], pa.timestamp("us")),
            "paid": [1.0, float("nan"), 2.0],
            "order_no": ["a", "b", "c"],
        }
    )
    combined = task().combine(bad)
    assert [(r.subject, r.code) for r in combined.rejects] == [(0, "no_time"), (1, "no_value")]
    again = task().combine(combined.rows)
    assert again.rows.equals(combined.rows) and not again.rejects


@pytest.mark.parametrize("customers", [1, 2, 29])
def test_few_customers_are_one_segment_or_last_nights(customers: int) -> None:
    few = shop().filter(pa.array(shop()["customer"].to_numpy() < customers))
    answers, _, _ = night(few)
    assert set(answers["segment"].to_pylist()) == {"all customers"}
    _, whole, _ = night(shop())
    answers, kept, _ = night(few, whole)
    assert kept == whole
    assert set(answers["segment"].to_pylist()) == {"loyal big spenders"}


def test_equal_customers_are_one_segment() -> None:
    n = 100
    rows = pa.table(
        {
            "customer": np.arange(n),
            "at": pa.array([datetime(2024, 6, 1)] * n, pa.timestamp("us")),
            "paid": np.full(n, 5.0),
            "order_no": [f"o{i}" for i in range(n)],
        }
    )
    answers, _, _ = night(rows, k=5)
    assert set(answers["segment"].to_pylist()) == {"all customers"}
    assert set(answers["confidence"].to_pylist()) == {1.0}


def test_no_customers_at_all() -> None:
    answers, fit, _ = night(shop().slice(0, 0))
    assert answers.num_rows == 0
    assert len(fit["segments"]) == 1


def test_other_features_start_anew_without_reusing_ids() -> None:
    _, fit, _ = night(shop())
    _, other, _ = night(shop(), fit, cluster_by=["recency_days", "money"])
    assert min(s["id"] for s in other["segments"]) == fit["next_id"]


def test_features_of_the_users_own_join_the_clusters() -> None:
    extra = {"largest": {"column": "paid", "agg": "max"}, "odd": {"column": "order_no", "agg": "share", "equals": "o0"}}
    answers, fit, _ = night(shop(), features=extra)
    assert fit["features"][-2:] == ["largest", "odd"]
    top = by_customer(answers, "largest")
    rows = shop().filter(pa.array(shop()["customer"].to_numpy() == 7))
    assert top[7] == max(rows["paid"].to_pylist())


RULES = [
    {"name": "champions", "when": "recency_days <= 30 and money > 2000"},
    {"name": "sleeping", "when": "recency_days > 200"},
]


def test_rules_decide_without_a_fit() -> None:
    step = task(rules=RULES, **{"else": "the rest"})
    assert step.shape == "group" and step.check() == []
    groups = grouped(step, shop(), {0: "sleeping"})
    got = step.answer(groups)
    audit(step, got.columns)
    assert sorted(got.subject.tolist()) == list(range(len(groups)))
    for row in got.columns.to_pylist():
        champion = row["recency_days"] <= 30 and row["money"] > 2000
        place = 1 if champion else 2 if row["recency_days"] > 200 else 0
        assert (row["segment"], row["segment_id"]) == (["the rest", "champions", "sleeping"][place], place)
        assert (row["confidence"], row["distance"]) == (1.0, 0.0)
    assert set(got.columns["segment"].to_pylist()) == {"champions", "sleeping", "the rest"}
    assert got.columns["previous_segment"].to_pylist()[:2] == ["sleeping", None]


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"entity": "custmer"}, "entity", "did you mean 'customer'?"),
        ({"time": "paid"}, "time", "dates or timestamps"),
        ({"amount": "order_no"}, "amount", "numbers"),
        ({"order": "orderno"}, "order", "did you mean 'order_no'?"),
        ({"returned": "paid"}, "returned", "boolean"),
        ({"features": {"money": {"column": "paid", "agg": "max"}}}, "features.money", "new name"),
        ({"features": {"x": {"column": "order_no", "agg": "max"}}}, "features.x.column", "numbers"),
        ({"cluster_by": ["mony"]}, "cluster_by[0]", "did you mean 'money'?"),
        ({"rules": [{"name": "a", "when": "money in (select 1)"}]}, "rules[0].when", "no subquery"),
        ({"rules": [{"name": "a", "when": "read_text('x') = ''"}]}, "rules[0].when", "no function read_text"),
        ({"rules": [RULES[0], RULES[0]]}, "rules[1].name", "no other segment"),
        ({"rules": RULES, "else": "sleeping"}, "rules[1].name", "no other segment"),
    ],
)
def test_faults_of_the_settings(settings: dict[str, Any], place: str, said: str) -> None:
    ((where, _, expected, hint),) = task(**settings).check()
    assert where == place
    assert said in f"{expected} {hint}"


def test_an_entity_named_as_an_output_column_is_refused() -> None:
    schema = shop().rename_columns(["Segment", "at", "paid", "order_no"]).schema
    ((where, *_),) = task(schema=schema, entity="Segment").check()
    assert where == "entity"


@pytest.mark.parametrize(
    "settings",
    [
        {"k": 0},
        {"k": "many"},
        {"k_range": [5, 3]},
        {"rules": RULES, "k": 4},
        {"else": "x"},
        {"rules": [{"name": " ", "when": "true"}]},
        {"features": {"x": {"column": "paid", "agg": "share"}}},
        {"features": {"x": {"column": "paid", "agg": "sum", "equals": 1}}},
        {"colour": "red"},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task(**settings)


# -- explain ------------------------------------------------------------------------------------------------------


def explained(**settings: Any) -> tuple[Segment, pa.Table]:
    step = task(explain=True, **settings)
    groups = grouped(step, shop())
    made = step.features(groups)
    if step.shape == "group":
        return step, step.answer(groups).columns
    features = made.columns.append_column("customer", groups.keys["customer"].take(pa.array(made.subject)))
    step.fitted = step.fit(features, None)
    return step, step.answer(features).columns


def test_drivers_add_up_to_the_distances() -> None:
    step, columns = explained()
    assert columns.schema == step.columns()
    for row in columns.to_pylist():
        weights = [driver["weight"] for driver in row["drivers"]]
        assert weights == sorted(weights, reverse=True)
        to_the_median = sum(driver["z"] ** 2 for driver in row["drivers"])
        assert sum(weights) == pytest.approx(to_the_median - row["distance"] ** 2, rel=1e-6, abs=1e-9)
        away = [driver["z"] - driver["centre"] for driver in row["drivers"]]
        assert np.linalg.norm(away) == pytest.approx(row["distance"], abs=1e-9)
        assert {d["feature"]: d["value"] for d in row["drivers"]} == {
            name: row[name] for name in ("recency_days", "frequency", "money", "return_share")
        }
    for rule in step.rules().values():
        assert duckdb.from_arrow(columns).filter(f"({rule}) is not true").fetchall() == []


def test_what_a_kind_of_customer_is_known_by() -> None:
    _, columns = explained()
    rows = columns.to_pylist()
    for kind, feature in (("lapsed", "recency_days"), ("returner", "return_share")):
        first = KINDS.index(kind) * PER_KIND
        found = Counter(row["drivers"][0]["feature"] for row in rows[first : first + PER_KIND])
        assert found.most_common(1)[0][0] == feature


def test_one_segment_for_all_has_drivers_too() -> None:
    step, columns = explained(k=1)
    assert columns["drivers"].null_count == 0
    for rule in step.rules().values():
        assert duckdb.from_arrow(columns).filter(f"({rule}) is not true").fetchall() == []


def test_drivers_of_a_rule_are_the_features_that_it_names() -> None:
    rules = [{"name": "gold", "when": "Money > 2000 and recency_days <= 60"}, {"name": "once", "when": "frequency = 1"}]
    step, columns = explained(rules=rules)
    assert columns.schema == step.columns()
    named = {"gold": ["recency_days", "money"], "once": ["frequency"], "other": []}
    assert set(columns["segment"].to_pylist()) == named.keys()
    for row in columns.to_pylist():
        assert [driver["feature"] for driver in row["drivers"]] == named[row["segment"]]
        assert all(driver["value"] == row[driver["feature"]] for driver in row["drivers"])
        assert all(driver["z"] is driver["weight"] is driver["centre"] is None for driver in row["drivers"])
