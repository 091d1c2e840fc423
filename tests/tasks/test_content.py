"""The content task as the engine runs it: articles are learned of once, readers are answered from what they read."""

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
from bizllm.tasks.content import TASK, Content, ContentSettings, diverse

D = date(2026, 6, 30)
WORDS = {
    "tea": ["green tea leaves", "oolong tea and water", "tea in a clay pot", "white tea steeped slowly", "tea harvest"],
    "frost": ["frost on the roses", "roses pruned in winter", "mulch for roses", "climbing roses", "roses in pots"],
    "cha": ["绿茶冲泡的水温", "乌龙茶和紫砂壶", "白茶怎么存放", "泡茶用什么水", "春茶采摘时节"],
    "hua": ["月季的冬季修剪", "月季的病虫害防治", "盆栽月季怎么浇水", "爬藤月季的支架", "月季扦插的方法"],
}
Click = tuple[str, str | None, date | None]


def articles(days: dict[str, date] | None = None, **changes: str) -> pa.Table:
    """tea-0 … hua-4, a day apart, the later ones the newer."""
    rows = [
        {
            "id": f"{topic}-{i}",
            "body": changes.get(f"{topic}_{i}", f"{text}. {topic if topic.isascii() else ''}"),
            "headline": f"On {topic} {i}",
            "out": (days or {}).get(f"{topic}-{i}", D - timedelta(days=4 - i)),
            "section": topic,
        }
        for topic, texts in WORDS.items()
        for i, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows)


def clicks(rows: list[Click]) -> pa.Table:
    who, what, when = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "reader": pa.array(who, pa.string()),
            "article": pa.array(what, pa.string()),
            "at": pa.array(when, pa.date32()),
        }
    )


READ: list[Click] = [
    *((topic, f"{topic}-{i}", D - timedelta(days=i)) for topic in WORDS for i in range(2)),
    ("both", "tea-0", D),
    ("both", "hua-0", D),
    ("new", None, D),
]


def unopened(table: pa.Table, run_date: date = D, at: pa.DataType | None = None, **settings: Any) -> Content:
    given: dict[str, Any] = {
        "task": "content",
        "input": "clicks",
        "entity": "reader",
        "item": "article",
        "time": "at",
        "k": 3,
        "articles": {"input": "articles", "item": "id", "text": "body", "title": "headline", "published": "out"},
    }
    if "articles" in settings:
        settings["articles"] = {**given["articles"], **settings["articles"]}
    step = StepInput("clicks", clicks([]).schema)
    others = {"history": step, "articles": StepInput("articles", table.schema)}
    return Content(ContentSettings(**(given | settings)), step, run_date, others)


def task(rows: pa.Table, table: pa.Table, monkeypatch: pytest.MonkeyPatch, run_date: date = D, **said: Any) -> Content:
    """Opened, with what it learned as a worker reads it from its file."""
    step = unopened(table, run_date, **said)
    assert step.check() == []
    step.open(ModelLoader())
    learned = step.learn({"history": rows, "articles": table})
    monkeypatch.setattr(storage, "read_bytes", lambda _: to_bytes(learned))
    load.cache_clear()
    worker = unopened(table, run_date, **said)
    worker.learned = load("memory")
    worker.open(ModelLoader())
    return worker


def answered(step: Content, rows: pa.Table) -> tuple[dict[str, list[dict[str, Any]]], Outcome]:
    parts = step.combine(rows).rows.sort_by("reader")
    keys = sorted({*rows["reader"].to_pylist()})
    starts = np.append(
        np.searchsorted(np.array(parts["reader"].to_pylist(), object), np.array(keys, object)), len(parts)
    )
    outcome = step.answer(Groups(parts, starts.astype(np.int64), pa.table({"reader": pa.array(keys, pa.string())})))
    assert outcome.columns.schema == step.columns()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in keys}
    for at, row in zip(outcome.subject.tolist(), outcome.columns.to_pylist(), strict=True):
        found[keys[at]].append(row)
    assert sorted({*outcome.subject.tolist(), *(r.subject for r in outcome.rejects)}) == list(range(len(keys)))
    return found, outcome


def test_it_is_found_by_its_name() -> None:
    assert task_class("content") is TASK
    step = unopened(articles())
    assert (step.shape, step.keys(), step.reads()) == ("group", ["reader", "rank"], ["reader", "article", "at"])


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_readers_are_shown_what_they_like_in_either_language(
    model: str | None, monkeypatch: pytest.MonkeyPatch, broken_rules: Callable[..., dict[str, int]]
) -> None:
    rows = clicks(READ)
    step = task(rows, articles(), monkeypatch, model=model)
    found, outcome = answered(step, rows)
    for topic in WORDS:
        read = {f"{topic}-0", f"{topic}-1"}
        assert {row["item"] for row in found[topic]} == {f"{topic}-{i}" for i in (2, 3, 4)}, topic
        assert {row["reason"] for row in found[topic]} == {"similar"}
        assert {row["because"] for row in found[topic]} <= read
        assert found[topic][0]["title"].startswith(f"On {topic}")
        assert found[topic][0]["because_title"] == f"On {found[topic][0]['because'].replace('-', ' ')}"
    if model is None:
        assert {row["item"].split("-")[0] for row in found["both"]} == {"tea", "hua"}, "each interest has its articles"
    assert broken_rules(step, outcome.columns) == {}
    late = outcome.columns.set_column(8, "published", pa.array([D + timedelta(days=1)] * len(outcome.columns)))
    assert broken_rules(step, late) == {"it was published by the run date, and lately": len(late)}


def test_who_read_nothing_is_shown_what_is_read_most_then_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clicks([*READ, *((f"r{i}", "frost-3", D) for i in range(5))])
    found, _ = answered(task(rows, articles(), monkeypatch, k=20, diversity=0), rows)
    shown = found["new"]
    assert (shown[0]["item"], shown[0]["reason"]) == ("frost-3", "popular")
    never = [row for row in shown if row["reason"] == "new"]
    assert len(never) == 20 - 9 and all(row["score"] == 0 for row in never)
    assert [row["published"] for row in never] == sorted((row["published"] for row in never), reverse=True)


def test_only_what_is_out_and_fresh_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    days = {"tea-2": D + timedelta(days=1), "tea-3": D - timedelta(days=30), "tea-4": D - timedelta(days=29)}
    rows = clicks([("tea", "tea-0", D), ("tea", "tea-1", D), ("tea", "frost-1", D + timedelta(days=1))])
    found, _ = answered(task(rows, articles(days), monkeypatch, k=20), rows)
    shown = [row["item"] for row in found["tea"]]
    assert shown[0] == "tea-4" and not {"tea-0", "tea-1", "tea-2", "tea-3"} & set(shown)
    assert "frost-1" in shown, "a click after the run date is not known"
    every, _ = answered(task(rows, articles(days), monkeypatch, k=20, fresh_days=None), rows)
    assert {"tea-3", "tea-4"} <= {row["item"] for row in every["tea"]}
    gone, outcome = answered(task(rows, articles(), monkeypatch, run_date=D + timedelta(days=90)), rows)
    assert gone["tea"] == [] and [reject.code for reject in outcome.rejects] == ["no_answer"]


def test_an_old_interest_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clicks([("r", "tea-0", D - timedelta(days=60)), ("r", "frost-0", D)])
    found, _ = answered(task(rows, articles(), monkeypatch, half_life_days=7, diversity=0), rows)
    assert {row["item"].split("-")[0] for row in found["r"]} == {"frost"}


def test_diversity_is_that_of_the_definition() -> None:
    """Against the sum as Carbonell and Goldstein write it, candidate by candidate."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        score, vectors = rng.random(12), rng.random((12, 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        alike, weight = (vectors @ vectors.T).astype(np.float32), float(rng.random())
        chosen: list[int] = []
        while len(chosen) < 5:
            worth = {
                i: (1 - weight) * score[i] / score.max() - weight * max((alike[i, j] for j in chosen), default=0)
                for i in range(12)
                if i not in chosen
            }
            chosen.append(max(worth, key=worth.__getitem__))
        assert diverse(score, alike, 5, weight) == chosen
    assert diverse(np.array([1.0, 0.5]), np.ones((2, 2), np.float32), 5, 0.2) == [0, 1]


def test_two_articles_that_say_the_same_are_not_both_first(monkeypatch: pytest.MonkeyPatch) -> None:
    table = articles(tea_2="oolong tea and water. tea", tea_3="oolong tea and water. tea")
    rows = clicks([("r", "tea-1", D)])
    alike, _ = answered(task(rows, table, monkeypatch, diversity=0), rows)
    assert {row["item"] for row in alike["r"][:2]} == {"tea-2", "tea-3"}
    apart, _ = answered(task(rows, table, monkeypatch, diversity=0.6), rows)
    assert len({row["item"] for row in apart["r"][:2]} & {"tea-2", "tea-3"}) == 1


def test_a_topic_makes_articles_more_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    table = articles(tea_0="Nothing in common", tea_4="Ordinary words")
    rows = clicks([("r", "tea-0", D)])
    found, _ = answered(task(rows, table, monkeypatch, k=4, articles={"topic": "section"}), rows)
    assert {row["topic"] for row in found["r"]} == {"tea"}


def test_order_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, table = clicks([*READ, *READ[:3]]), articles()
    mixed = np.random.default_rng(1)
    one, _ = answered(task(rows, table, monkeypatch), rows)
    step = task(rows.take(mixed.permutation(len(rows))), table.take(mixed.permutation(len(table))), monkeypatch)
    other, _ = answered(step, rows)
    assert one == other
    for reader in ("both", "new"):  # alone in its batch
        alone, _ = answered(step, rows.filter(pa.array([name == reader for name in rows["reader"].to_pylist()])))
        assert alone[reader] == one[reader]


@pytest.mark.parametrize("table", [articles().slice(0, 0), articles().slice(0, 1), articles(tea_0="").slice(0, 1)])
def test_hardly_any_articles(table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clicks([("r", "tea-0", D), ("q", None, D)])
    found, outcome = answered(task(rows, table, monkeypatch), rows)
    usable = len(table) == 1 and table["body"][0].as_py()
    assert [row["item"] for row in found["q"]] == (["tea-0"] if usable else [])
    assert {reject.code for reject in outcome.rejects} == {"no_answer"}
    none, outcome = answered(task(clicks([]), table, monkeypatch), clicks([]))
    assert none == {} and not outcome.rejects


def test_timestamps_nulls_and_double_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    table = articles()
    out = [None, *(datetime(2026, 6, 29, 23, 59) for _ in range(len(table) - 1))]
    table = table.set_column(3, "out", pa.array(out, pa.timestamp("us", "UTC")))
    table = pa.concat_tables([table, table.slice(1, 1)])
    rows = clicks([("r", "tea-1", D), ("r", "gone", D), ("r", "tea-2", None)])
    step = task(rows, table, monkeypatch, k=30)
    assert [reject.code for reject in step.combine(rows).rejects] == ["no_time"]
    found, _ = answered(step, rows)
    shown = [row["item"] for row in found["r"]]
    assert len(shown) == len(set(shown)) == 18 and "tea-0" not in shown, "it has no date"


@pytest.mark.parametrize(
    ("settings", "setting", "said"),
    [
        ({"entity": "readr"}, "entity", "reader"),
        ({"item": "at"}, "item", "whole numbers"),
        ({"articles": {"published": "body"}}, "articles.published", "dates or timestamps, not string"),
        ({"articles": {"text": "out"}}, "articles.text", "a string column"),
        ({"articles": {"item": "out"}}, "articles.item", "expected string, as in the input"),
    ],
)
def test_faults_name_the_setting(settings: dict[str, Any], setting: str, said: str) -> None:
    faults = unopened(articles(), **settings).check()
    assert [fault[0] for fault in faults] == [setting]
    assert said in " ".join(map(str, faults[0]))


@pytest.mark.parametrize("settings", [{"k": 101}, {"diversity": 1.5}, {"fresh_days": 0}, {"halflife": 3}])
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        unopened(articles(), **settings)
