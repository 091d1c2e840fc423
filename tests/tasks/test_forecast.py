"""The task as the engine calls it: combine, gather, answer; and what it must never do."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from bizllm.methods.number_text import encode_history
from bizllm.models.classifier import Classifier
from bizllm.models.engines.torch_engine import exact
from bizllm.models.network import new_network, save_network
from bizllm.models.saved import ModelInfo, write_info
from bizllm.tasks.base import Groups
from tests.tasks.forecasting import SCHEMA, TODAY, answered, gathered, new_task, rows_of, shop


def test_a_week_of_two_series() -> None:
    task = new_task()
    outcome = answered(task, rows_of({("a", 1): shop(), ("b", 2): shop(seed=1) * 3}))
    assert outcome.columns.schema == task.columns()
    assert outcome.columns["day"].to_pylist() == [TODAY + timedelta(days=k) for k in range(1, 8)] * 2
    assert outcome.subject.tolist() == [0] * 7 + [1] * 7
    assert not outcome.rejects
    for rule in task.rules().values():
        made = duckdb.from_arrow(outcome.columns)
        assert made.filter(f"({rule}) is not true").fetchall() == []
    weekend = outcome.columns["mean"].to_numpy()[:7]
    assert weekend[5] > 1.3 * weekend[1]
    assert task.keys() == ["store", "sku", "day"]


def test_names_of_the_columns() -> None:
    names = new_task(levels=[0.975, 0.5, 0.025, 0.001]).columns().names
    assert names == ["day", "mean", "q0_1", "q2_5", "q50", "q97_5", "method", "backtest_smape", "backtest_mase"]


def test_changing_rows_after_the_run_date_changes_nothing() -> None:
    past, task = rows_of({("a", 1): shop()}), new_task()
    future = rows_of({("a", 1): [9e9, float("nan"), 1.0]}, end=TODAY + timedelta(days=3))
    first, second = answered(task, past), answered(task, pa.concat_tables([past, future]))
    assert first.columns.equals(second.columns)


@pytest.mark.parametrize(
    ("freq", "run_date", "first"),
    [
        ("W", date(2024, 6, 9), date(2024, 6, 10)),
        ("W", date(2024, 6, 8), date(2024, 6, 3)),
        ("M", date(2024, 6, 30), date(2024, 7, 1)),
        ("MS", date(2024, 6, 29), date(2024, 6, 1)),
        ("Q", date(2024, 6, 30), date(2024, 7, 1)),
        ("Y", date(2024, 6, 9), date(2024, 1, 1)),
    ],
)
def test_the_first_forecast_follows_the_last_complete_period(freq: str, run_date: date, first: date) -> None:
    task = new_task(freq=freq, run_date=run_date, horizon=2)
    whole = rows_of({("a", 1): np.full(1500, 2.0)}, end=run_date)
    outcome = answered(task, whole)
    assert outcome.columns["day"][0].as_py() == first
    # The running period's rows, not all of them there yet, play no part.
    days = np.array(whole["day"].to_pylist())
    assert answered(task, whole.filter(pa.array(days < first))).columns.equals(outcome.columns)


def test_weeks_of_steady_days_forecast_their_sum() -> None:
    outcome = answered(new_task(freq="W", horizon=3), rows_of({("a", 1): np.full(140, 2.0)}))
    assert outcome.columns["mean"].to_pylist() == [14.0] * 3


def test_hours_keep_the_time_zone() -> None:
    zone = "Asia/Shanghai"
    schema = pa.schema([("store", pa.string()), ("at", pa.timestamp("ms", zone)), ("units", pa.int32())])
    task = new_task(schema, series=["store"], time="at", freq="H", horizon=3)
    start = datetime(2024, 5, 31, 16)  # midnight in Shanghai
    hours = [start + timedelta(hours=k) for k in range(24 * 9)]
    rows = pa.table(
        [["a"] * len(hours), pa.array(hours, pa.timestamp("ms")).cast(schema[1].type), np.full(len(hours), 5)],
        schema=schema,
    )
    outcome = answered(task, rows)
    assert outcome.columns.schema.field("at").type == pa.timestamp("us", zone)
    assert [t.replace(tzinfo=None) for t in outcome.columns["at"].to_pylist()] == [
        datetime(2024, 6, 10, k) for k in range(3)
    ]


def test_rows_without_time_or_number_are_rejects() -> None:
    good = rows_of({("a", 1): shop(30)})
    bad = pa.table(
        [
            ["a"] * 5,
            [1] * 5,
            [None, TODAY, TODAY, TODAY, None],
            [1.0, None, float("nan"), float("inf"), None],
            [None] * 5,
        ],
        schema=SCHEMA,
    )
    task = new_task()
    combined = task.combine(bad)
    assert [(r.subject, r.code) for r in combined.rejects] == [
        (0, "no_time"), (4, "no_time"), (1, "no_value"), (2, "no_value"), (3, "no_value"),
    ]  # fmt: skip
    assert combined.rows.num_rows == 0
    assert answered(task, good, bad).columns.equals(answered(task, good).columns)


def test_odd_series_are_answered_or_rejected_with_a_reason() -> None:
    series = {
        ("constant", 1): [4.0] * 50,
        ("grown", 2): np.arange(900.0),
        ("new", 3): [5.0, 6.0],
        ("none", 4): [0.0] * 60,
        ("rare", 5): [0, 0, 0, 0, 0, 9, 0, 0, 0, 0] * 12,
        ("returns", 6): np.random.default_rng(0).normal(0, 5, 90),
        ("huge", 7): np.random.default_rng(0).random(90) * 1e300,
    }
    outcome = answered(new_task(), rows_of(series))
    names = sorted(name for name, _ in series)
    assert [(names[r.subject], r.code) for r in outcome.rejects if names[r.subject] != "huge"] == [("new", "too_short")]
    by_name = {names[i]: outcome.columns.filter(pa.array(outcome.subject == i)) for i in set(outcome.subject.tolist())}
    assert by_name["constant"]["q10"].to_pylist() == [4.0] * 7
    assert by_name["none"]["mean"].to_pylist() == [0.0] * 7
    assert by_name["grown"]["mean"].to_numpy() == pytest.approx(np.arange(900, 907), rel=0.05)
    assert min(by_name["rare"]["q10"].to_pylist()) >= 0
    assert min(by_name["returns"]["q10"].to_pylist()) < 0
    everyone = {*outcome.subject.tolist(), *(r.subject for r in outcome.rejects)}
    assert everyone == set(range(len(series)))


def test_a_group_without_usable_rows_is_empty() -> None:
    task = new_task()
    groups = gathered(task, [rows_of({("a", 1): shop(30)})])
    keys = pa.table({"store": ["a", "b"], "sku": [1, 2]})
    outcome = task.answer(Groups(groups.rows, np.append(groups.starts, groups.starts[-1]), keys))
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty")]


def test_a_series_that_ended_forecasts_the_coming_days_all_the_same() -> None:
    task = new_task(fill="missing", horizon=2)
    outcome = answered(task, rows_of({("a", 1): np.full(60, 3.0)}, end=TODAY - timedelta(days=9)))
    assert outcome.columns["day"].to_pylist() == [TODAY + timedelta(days=1), TODAY + timedelta(days=2)]
    assert outcome.columns["mean"].to_pylist() == [3.0, 3.0]
    (reject,) = answered(task, rows_of({("a", 1): np.full(6, 3.0)}, end=TODAY - timedelta(days=90))).rejects
    assert reject.code == "too_short"


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(-9, 9)), min_size=1, max_size=40),
    st.integers(0, 40),
    st.sampled_from(["sum", "mean", "max", "min", "last", "count"]),
)
def test_combining_is_the_same_in_any_split(rows: list[tuple[str, int, int]], cut: int, agg: str) -> None:
    task = new_task(agg=agg)
    table = pa.table(
        [
            [r[0] for r in rows],
            [1] * len(rows),
            [TODAY - timedelta(days=r[1]) for r in rows],
            [float(r[2]) for r in rows],
            [None] * len(rows),
        ],
        schema=SCHEMA,
    )
    parts = pa.concat_tables([task.combine(t).rows for t in (table.slice(0, cut), table.slice(cut))])
    order = [(name, "ascending") for name in ("store", "__period")]
    whole = task.combine(table).rows.sort_by(order)
    assert task.combine(parts).rows.sort_by(order).equals(whole)


def test_only_the_largest_series_are_asked_for() -> None:
    series = {("a", k): shop(40, seed=k) * (k + 1) for k in range(5)}
    task = new_task(top=2)
    assert task.shape == "table"
    groups = gathered(task, [rows_of(series)])
    made = task.features(groups)
    features = made.columns
    for name in ("store", "sku"):
        features = features.append_column(name, groups.keys[name].take(pa.array(made.subject)))
    task.fitted = task.fit(features, None)
    outcome = task.answer(features)
    assert sorted(set(outcome.subject.tolist())) == [3, 4]
    assert outcome.skipped.tolist() == [0, 1, 2]
    plain = answered(new_task(), rows_of({k: v for k, v in series.items() if k[1] >= 3}))
    assert outcome.columns.equals(plain.columns)


# -- with a trained model -----------------------------------------------------------------------------------------

EVERY_FIFTH = [1.0, 1.0, 1.0, 1.0, 3.0]  # what seasons of a week can't tell, and the small model was taught


@pytest.fixture(scope="module", params=["regression", "quantile"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A small BERT that reads 64 numbers of that rhythm, whatever its phase, and tells the next four."""
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("taught")
    words = ["[PAD]", "[UNK]", *sorted({word for k in range(5) for word in _rhythm(k)[0].split()})]
    plain = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    plain.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(base)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    size["initializer_range"] = 0.5  # so that the mean over the tokens tells the phases apart from the start
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **size)).save_pretrained(base)
    levels = (0.1, 0.5, 0.9) if request.param == "quantile" else ()
    info = ModelInfo("rhythm", request.param, pooling="mean", max_tokens=64, levels=levels, horizon=4, inputs="numbers")
    network = new_network(base, info, dropout=0.0)
    texts, answers = zip(*map(_rhythm, range(5)), strict=True)
    batch = tokenizer(list(texts), return_tensors="pt", return_token_type_ids=False)
    target = torch.tensor(np.array(answers), dtype=torch.float32)  # (5, 4)
    if levels:  # the outer quantiles of what is certain, drawn apart so that a mix-up of the axes shows
        target = torch.stack([target - 1, target, target + 1], dim=2).reshape(5, 12)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        loss = torch.nn.functional.mse_loss(network(**batch), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.002
    save_network(network, folder)
    write_info(folder, info)
    return Classifier.load(folder, exact)


def _rhythm(phase: int) -> tuple[str, np.ndarray]:
    """(64 numbers of the rhythm as text, the next four in units of its scale)."""
    values = np.resize(np.roll(EVERY_FIFTH, phase), 68)
    text, scale = encode_history(values[:64])
    return text, values[64:] / scale


def test_a_trained_model_takes_part_in_the_series_where_it_wins(taught: Classifier) -> None:
    rhythm = np.resize(EVERY_FIFTH, 167) * 10
    series = {("rhythm", 1): rhythm[:160], ("shop", 2): shop(160), ("flat", 3): np.full(160, 3.0), ("new", 4): [1.0]}
    plain = answered(new_task(), rows_of(series))
    task = new_task(model="path:taught")
    task.open(SimpleNamespace(classifier={"path:taught": taught}.__getitem__))
    outcome = answered(task, rows_of(series))
    assert task.models() == {"model": "path:taught"}
    by_store = {store: outcome.columns.slice(7 * i, 7) for i, store in enumerate(["flat", "rhythm", "shop"])}
    old = {store: plain.columns.slice(7 * i, 7) for i, store in enumerate(["flat", "rhythm", "shop"])}
    assert by_store["shop"].equals(old["shop"]) and by_store["flat"].equals(old["flat"])
    assert "model" in by_store["rhythm"]["method"][0].as_py() and "model" not in old["rhythm"]["method"][0].as_py()
    truth = rhythm[160:]  # seven periods, of which the model tells four at once
    errors = [np.abs(columns["rhythm"]["mean"].to_numpy() - truth).mean() for columns in (by_store, old)]
    assert errors[0] < 0.6 * errors[1]
    assert by_store["rhythm"]["backtest_mase"][0].as_py() < 0.6 * old["rhythm"]["backtest_mase"][0].as_py()
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "too_short")]
    assert outcome.tokens > 2 * 13 * 64 and plain.tokens == 0


def test_a_model_of_another_kind_is_refused() -> None:
    task = new_task(model="path:m")
    numbers = ModelInfo("m", "quantile", levels=(0.5,), inputs="numbers")
    assert task.check_models({"model": numbers}) == []
    for wrong in (None, ModelInfo("m", "classification", labels=("a", "b")), replace(numbers, inputs="text")):
        (fault,) = task.check_models({"model": wrong})
        assert fault[0] == "model"
    assert new_task().check_models({}) == [] and new_task().models() == {}


def test_the_exhibit_shows_history_of_the_largest_and_the_worst() -> None:
    series = {("s", k): np.full(200, k + 1.0) for k in range(9)} | {("s", 99): shop(30) / 1000}
    outcome = answered(new_task(), rows_of(series))
    exhibit = outcome.exhibit
    assert exhibit is not None
    assert exhibit.column_names == ["series", "time", "value", "size", "error"]
    assert {f"s · {k}" for k in (*range(3, 9), 99)} <= set(exhibit["series"].to_pylist())
    one = exhibit.filter(pa.array([s == "s · 8" for s in exhibit["series"].to_pylist()]))
    assert one.num_rows == 120 and one["time"][-1].as_py() == TODAY
    assert one["value"].to_pylist() == series["s", 8][-120:].tolist()
    worst = exhibit.filter(pa.array([s == "s · 99" for s in exhibit["series"].to_pylist()]))
    mase = outcome.columns["backtest_mase"][-1].as_py()  # series come by their keys: 99 is the last
    assert mase > 0 and set(worst["error"].to_pylist()) == {mase}


@pytest.mark.parametrize(
    ("changes", "setting", "hint"),
    [
        ({"time": "dya"}, "time", "did you mean 'day'?"),
        ({"series": ["shop"]}, "series", ""),
        ({"target": "note"}, "target", "cast in `select`"),
        ({"time": "units", "target": "sku"}, "time", "cast in `select`"),
        ({"series": ["store", "day"]}, "series", ""),
    ],
)
def test_wrong_columns_are_faults(changes: dict[str, Any], setting: str, hint: str) -> None:
    faults = new_task(**changes).check()
    assert any(fault[0] == setting and hint in fault[3] for fault in faults)


def test_a_good_step_has_no_fault() -> None:
    assert new_task().check() == []


@pytest.mark.parametrize(
    "changes",
    [{"horizon": 0}, {"levels": [1.0]}, {"levels": []}, {"levels": [0.5, 0.5]}, {"freq": "X"}, {"series": []}],
)
def test_wrong_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        new_task(**changes)


def test_an_output_column_is_no_series() -> None:
    schema = pa.schema([("Mean", pa.string()), ("day", pa.date32()), ("units", pa.float64())])
    assert new_task(schema, series=["Mean"]).check()[0][0] == "series"
