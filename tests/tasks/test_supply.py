from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.tasks.base import Outcome, StepInput, task_class
from bizllm.tasks.supply import TASK, Supply, SupplySettings

D = date(2026, 6, 30)
PAST = {"input": "shipments", "ordered": "ordered", "promised": "promised", "arrived": "arrived"}
Rows = list[dict[str, Any]]
Broken = Callable[..., dict[str, int]]
USUAL = {"Acme": 10, "宁波海川": 20, "佛山瑞新": 40}


def shipments(seed: int = 0, n: int = 900) -> Rows:
    """Two years of them; suppliers take what USUAL says on the road, half as long by air, and promise what is usual."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(n):
        supplier, lane = str(rng.choice(list(USUAL))), str(rng.choice(["road", "空运"]))
        usual = USUAL[supplier] * (0.5 if lane == "空运" else 1.0)
        ordered = D - timedelta(days=int(rng.integers(0, 730)))
        arrived = ordered + timedelta(days=round(usual * float(np.exp(0.15 * rng.standard_normal()))))
        promised = ordered + timedelta(days=20)
        came = arrived if arrived <= D else None
        rows.append({"supplier": supplier, "lane": lane, "ordered": ordered, "promised": promised, "arrived": came})
    return rows


SHIPMENTS = shipments()


def order(supplier: str | None, lane: str | None, ago: int | None, due: int | None) -> dict[str, Any]:
    return {
        "supplier": supplier,
        "lane": lane,
        "ordered": None if ago is None else D - timedelta(days=ago),
        "promised": None if due is None else D + timedelta(days=due),
    }


OPEN = [order("Acme", "road", 5, 15), order("宁波海川", "road", 5, 15), order("佛山瑞新", "road", 5, 15)]


def task(rows: pa.Table, past: pa.Table, day: date = D, **said: Any) -> Supply:
    given = {
        "task": "supply",
        "input": "open",
        "ordered": "ordered",
        "promised": "promised",
        "factors": ["supplier", "lane"],
        "shipments": PAST,
    }
    settings = SupplySettings.model_validate(given | said)
    return TASK(settings, StepInput("open", rows.schema), day, {"shipments": StepInput("shipments", past.schema)})


def answer(rows: Rows = OPEN, past: Rows = SHIPMENTS, day: date = D, **said: Any) -> tuple[Supply, Outcome]:
    table, known = pa.Table.from_pylist(rows), pa.Table.from_pylist(past)
    made = task(table, known, day, **said)
    assert made.check() == []
    made.learned = made.learn({"shipments": known})
    outcome = made.answer(table.select(made.reads()))
    assert outcome.columns.schema == made.columns()
    assert sorted([*outcome.subject.tolist(), *(r.subject for r in outcome.rejects)]) == list(range(len(rows)))
    return made, outcome


def test_who_will_be_late(broken_rules: Broken) -> None:
    made, outcome = answer()
    assert task_class("supply") is TASK and made.depends_on_date()
    acme, haichuan, ruixin = outcome.columns.to_pylist()
    assert [row["status"] for row in (acme, ruixin)] == ["on_time", "at_risk"]
    assert acme["late_probability"] < 0.02 and ruixin["late_probability"] > 0.97
    assert haichuan["late_probability"] == pytest.approx(0.45, abs=0.12)  # half take more than 20.5 days
    for row, supplier in ((acme, "Acme"), (haichuan, "宁波海川"), (ruixin, "佛山瑞新")):
        assert row["lead_q50"] == pytest.approx(USUAL[supplier], rel=0.08)
        assert row["arrival_q50"] == D - timedelta(days=5) + timedelta(days=round(row["lead_q50"]))
        assert row["waited_days"] == 5 and 100 < row["deliveries"] < 200
    assert ruixin["late_days"] == pytest.approx(20, abs=2)
    assert ruixin["factors"][0]["factor"] == "supplier" and ruixin["factors"][0]["value"] == "佛山瑞新"
    assert ruixin["factors"][0]["days"] > 10
    assert ruixin["reason"].startswith("Ordered 5 days ago, promised in 15 days: ") and "佛山瑞新 +" in ruixin["reason"]
    assert broken_rules(made, outcome.columns) == {}


def test_reasons_in_chinese() -> None:
    reason = answer(language="zh")[1].columns["reason"].to_pylist()[2]
    assert reason.startswith("5天前下单，承诺15天后到货，晚到的概率为") and "supplier 佛山瑞新 +" in reason


def test_a_long_wait_tells(broken_rules: Broken) -> None:
    rows = [order("宁波海川", "road", ago, 20 - ago) for ago in (0, 10, 18, 20, 30, 3000)]
    made, outcome = answer(rows)
    found = outcome.columns.to_pylist()
    probabilities = [row["late_probability"] for row in found]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=0.02) and probabilities[2] > probabilities[0] + 0.1
    assert probabilities[3:] == [1, 1, 1] and [row["status"] for row in found[3:]] == ["late"] * 3
    assert all(row["arrival_q10"] > D for row in found) and found[4]["late_days"] > 10
    assert len({row["lead_q50"] for row in found}) == 1  # what one would have said on the day of the order
    assert any(of["factor"] == "waited" and of["days"] > 0 for of in found[4]["factors"])
    assert "promised 10 days ago" in found[4]["reason"] and "the wait so far 30 +" in found[4]["reason"]
    assert broken_rules(made, outcome.columns) == {}


def test_no_promise_no_lateness(broken_rules: Broken) -> None:
    rows = [order("Acme", "road", 3, None), order("Acme", "road", 3, 2)]
    made, outcome = answer(rows)
    first = outcome.columns.to_pylist()[0]
    assert first["status"] == "no_promise" and first["late_probability"] is None and first["late_days"] is None
    assert broken_rules(made, outcome.columns) == {}
    bare = {key: value for key, value in PAST.items() if key != "promised"}
    made, outcome = answer(
        [{k: v for k, v in row.items() if k != "promised"} for row in rows], promised=None, shipments=bare
    )
    assert set(outcome.columns["status"].to_pylist()) == {"no_promise"} and "promised" not in made.reads()
    assert broken_rules(made, outcome.columns) == {}


def test_new_suppliers_and_missing_ones_are_answered() -> None:
    known, new, none = (
        row
        for row in answer([OPEN[0], order("新供应商", "road", 5, 15), order(None, None, 5, 15)])[1].columns.to_pylist()
    )
    assert new["deliveries"] == 0 and none["deliveries"] == 0
    width = [(row["arrival_q90"] - row["arrival_q10"]).days for row in (known, new)]
    assert width[1] > 2 * width[0]
    assert not any(of["factor"] == "supplier" for of in new["factors"])


def test_nothing_after_the_run_date_counts() -> None:
    day = date(2026, 1, 31)
    past = [{**row, "arrived": row["arrived"] or D + timedelta(days=9)} for row in SHIPMENTS]
    rows = [{**row, "ordered": row["ordered"] - (D - day), "promised": row["promised"] - (D - day)} for row in OPEN]
    then = [row for row in past if row["ordered"] <= day]
    then = [{**row, "arrived": row["arrived"] if row["arrived"] <= day else None} for row in then]
    assert answer(rows, past, day)[1].columns == answer(rows, then, day)[1].columns
    # Another year's floods change nothing, either.
    later = [{**row, "arrived": row["arrived"] + timedelta(days=500)} if row["arrived"] > day else row for row in past]
    assert answer(rows, later, day)[1].columns == answer(rows, then, day)[1].columns


def test_rows_of_no_use_are_left_out_of_what_is_learned() -> None:
    odd = [
        {"supplier": "Acme", "lane": "road", "ordered": None, "promised": None, "arrived": D},
        {"supplier": "Acme", "lane": "road", "ordered": D, "promised": None, "arrived": D - timedelta(days=9)},
        {"supplier": "Acme", "lane": "road", "ordered": D + timedelta(days=1), "promised": None, "arrived": None},
    ]
    assert answer(past=SHIPMENTS + odd)[1].columns == answer()[1].columns
    with pytest.raises(UserError) as fault:
        answer(past=SHIPMENTS[:15] + odd)
    assert "18 rows hold" in str(fault.value) and "expected 20 at least" in str(fault.value)


def test_rejects() -> None:
    rows = [order("Acme", "road", None, 5), OPEN[0], order("Acme", "road", -1, 5)]
    outcome = answer(rows)[1]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(0, "no_time"), (2, "after_date")]
    assert outcome.subject.tolist() == [1] and outcome.columns == answer(OPEN[:1])[1].columns


def test_levels_names_and_times(broken_rules: Broken) -> None:
    made, outcome = answer(levels=[0.975, 0.025])
    assert {"arrival_q2_5", "arrival_q97_5", "lead_q2_5", "lead_q97_5"} < set(outcome.columns.column_names)
    assert broken_rules(made, outcome.columns) == {}
    other = [{"shipper": row["supplier"], "way": row["lane"]} | row for row in SHIPMENTS]
    for row in other:
        del row["supplier"], row["lane"]
    renamed = answer(past=other, shipments=PAST | {"factors": ["shipper", "way"]})[1]
    assert renamed.columns == answer()[1].columns

    def timed(rows: Rows) -> pa.Table:
        table = pa.Table.from_pylist(rows)
        for name in {"ordered", "promised", "arrived"} & set(table.column_names):
            moments = [
                datetime(v.year, v.month, v.day, 16) - timedelta(days=1) if v else None for v in table[name].to_pylist()
            ]
            zoned = pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "Asia/Shanghai"))
            table = table.set_column(table.column_names.index(name), name, zoned)
        return table

    made = task(timed(OPEN), timed(SHIPMENTS))
    assert made.check() == []
    made.learned = made.learn({"shipments": timed(SHIPMENTS)})
    assert made.answer(timed(OPEN)).columns == answer()[1].columns


def test_recent_deliveries_count_more() -> None:
    slower = [
        {**row, "arrived": row["ordered"] + timedelta(days=30)}
        for row in SHIPMENTS
        if row["supplier"] == "Acme" and (D - row["ordered"]).days in range(40, 120)
    ]
    before = [row for row in SHIPMENTS if row["ordered"] < D - timedelta(days=120) or row["supplier"] != "Acme"]
    long, short = (
        answer(past=before + slower, half_life_days=days)[1].columns["lead_q50"][0].as_py() for days in (3650, 20)
    )
    assert short > 1.5 * long


def test_answers_depend_on_nothing_but_their_row() -> None:
    rows = [order(s, lane, ago, 9) for s in USUAL for lane in ("road", "空运") for ago in (0, 7, 30)]
    whole = answer(rows)[1].columns.to_pylist()
    assert [answer([row])[1].columns.to_pylist()[0] for row in rows] == whole
    turned = np.random.default_rng(1).permutation(len(rows)).tolist()
    assert answer([rows[i] for i in turned])[1].columns.to_pylist() == [whole[i] for i in turned]


def test_nothing_in_nothing_out(broken_rules: Broken) -> None:
    known = pa.Table.from_pylist(SHIPMENTS)
    empty = pa.Table.from_pylist(OPEN).slice(0, 0)
    made = task(empty, known)
    made.learned = made.learn({"shipments": known})
    outcome = made.answer(empty)
    assert len(outcome.columns) == 0 and outcome.columns.schema == made.columns()
    assert broken_rules(made, outcome.columns) == {}


def test_audit_rules_can_fail(broken_rules: Broken) -> None:
    made, outcome = answer()
    row = outcome.columns.to_pylist()[2]
    wrong = {
        "the probability lies in [0, 1]": {"late_probability": 1.5},
        "what is late is sure to be": {"status": "late", "late_probability": 0.5},
        "only promises can be broken": {"late_probability": None},
        "late days are finite": {"late_days": -1.0},
        "nothing comes before tomorrow": {"arrival_q10": D},
        "lead times are finite": {"lead_q50": float("inf"), "lead_q90": float("inf")},
        "quantiles in order": {"lead_q50": row["lead_q90"] + 1},
    }
    assert wrong.keys() == made.rules().keys()
    for name, values in wrong.items():
        found = broken_rules(made, pa.Table.from_pylist([{**row, **values}], made.columns()))
        assert found.get(name) == 1, name


@pytest.mark.parametrize(
    ("said", "place", "expected", "hint"),
    [
        ({"ordered": "orderd"}, "ordered", "expected a column of the input", "did you mean 'ordered'?"),
        ({"ordered": "lane"}, "ordered", "expected dates or timestamps, it is string", "cast"),
        ({"factors": ["supplier", "lnae"]}, "factors[1]", "expected a column of the input", "did you mean 'lane'?"),
        ({"factors": ["supplier", "ordered"]}, "factors[1]", "expected a column of texts", "cast"),
        ({"shipments": PAST | {"arrived": "lane"}}, "shipments.arrived", "expected dates or timestamps", "cast"),
        ({"shipments": PAST | {"factors": ["lane"]}}, "shipments.factors", "expected a column for each of", ""),
        (
            {"shipments": PAST | {"factors": ["lane", "ordered"]}},
            "shipments.factors[1]",
            "expected a column of texts",
            "",
        ),
    ],
)
def test_faults(said: dict[str, Any], place: str, expected: str, hint: str) -> None:
    faults = task(pa.Table.from_pylist(OPEN), pa.Table.from_pylist(SHIPMENTS), **said).check()
    assert place in [fault[0] for fault in faults]
    fault = next(fault for fault in faults if fault[0] == place)
    assert expected in fault[2] and hint in fault[3]


@pytest.mark.parametrize(
    "said",
    [
        {"factors": []},
        {"factors": ["lane", "lane"]},
        {"levels": [0.1, 0.1]},
        {"levels": [1.0]},
        {"half_life_days": 0},
        {"at_risk": 1.0},
        {"shipments": {**PAST, "colour": "red"}},
    ],
)
def test_settings_that_mean_nothing(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task(pa.Table.from_pylist(OPEN), pa.Table.from_pylist(SHIPMENTS), **said)
