from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.infer.learned import load, to_bytes
from bizllm.models.classifier import Classifier
from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.tasks.answer import TASK, AnswerSettings
from bizllm.tasks.base import Learned, StepInput, task_class

ARTICLES = [
    (
        "a1",
        "Refunds",
        "Send the parcel back within 30 days. Refunds take five working days. Vouchers are not refunded.",
    ),
    ("a2", "Delivery", "We deliver within three days. The courier calls before. Islands take a week."),
    ("a3", "Warranty", "Every kettle has a warranty of two years. Keep the receipt. Damage by lime is not covered."),
    ("a4", "退款", "收到退货后五个工作日内退款。优惠券不予退款。"),
    ("a5", "配送", "下单后三天内送达。快递员会提前打电话。偏远地区需要一周。"),
    ("a6", "保修", "电热水壶保修两年。请保留收据。水垢造成的损坏不在保修范围内。"),
]
ASKED = ["How long does a refund take?", None, "快递员会打电话吗？", " ", "is lime damage under warranty", "qwxz vbnm"]
SOURCE = StepInput("asked", pa.schema([("body", pa.string()), ("n", pa.int64())]))
COLUMNS = {"input": "articles", "id": "id", "title": "title", "text": "text"}


def table(rows: list[tuple[Any, ...]] = ARTICLES, names: tuple[str, ...] = ("id", "title", "text")) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    return pa.table([pa.array(column, pa.string()) for column in columns], names=list(names))


def make(tables: dict[str, pa.Table] | None = None, learned: Learned | None = None, **settings: Any) -> TASK:
    given = {"task": "answer", "input": "asked", "text": "body", "passages": COLUMNS, **settings}
    others = {name: StepInput(name, one.schema) for name, one in (tables or {"passages": table()}).items()}
    return TASK(AnswerSettings(**given), SOURCE, date(2026, 1, 1), others, learned=learned)


def answer(
    asked: list[str | None] = ASKED, tables: dict[str, pa.Table] | None = None, **settings: Any
) -> tuple[TASK, Any]:
    """A task that learned, on this side as on a worker's, and what it says."""
    tables = {"passages": table()} | (tables or {})
    task = make(tables, **settings)
    assert task.check() == []
    task.open(ModelLoader())
    task = make(tables, task.learn(tables), **settings)
    task.open(ModelLoader())
    outcome = task.answer(task.prepare(pa.table({"body": pa.array(asked, pa.string())})))
    assert outcome.columns.schema == task.columns()
    return task, outcome


@pytest.mark.parametrize("model", [None, "builtin:minilm"])
def test_questions_of_two_languages_cite_their_passage(model: str | None, broken_rules: Any) -> None:
    task, outcome = answer(model=model)
    assert task_class("answer") is TASK
    assert outcome.subject.tolist() == [0, 2, 4, 5]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty"), (3, "empty")]
    refund, courier, lime, nonsense = outcome.columns.to_pylist()
    assert (refund["passage_id"], refund["answer"]) == ("a1", "Refunds take five working days.")
    assert (courier["passage_id"], courier["answer"]) == ("a5", "快递员会提前打电话。")
    assert (lime["passage_id"], lime["answer"]) == ("a3", "Damage by lime is not covered.")
    assert refund["passage"] == ARTICLES[0][2]
    assert nonsense["escalate"] and nonsense["confidence"] < 0.5
    if model is None:
        assert nonsense["answer"] is None and nonsense["candidates"] == [] and nonsense["confidence"] == 0.0
    for row in (refund, courier, lime):
        assert row["escalate"] is (row["confidence"] < 0.5) and row["confidence"] > nonsense["confidence"]
        assert row["candidates"][0] == {"passage_id": row["passage_id"], "score": row["score"]}
        assert len({c["passage_id"] for c in row["candidates"]}) == len(row["candidates"]) <= 5
    assert outcome.tokens == sum(row["input_tokens"] for row in outcome.columns.to_pylist())
    assert broken_rules(task, outcome.columns) == {}
    assert task.models() == ({"encoder": model} if model else {})


def test_a_faq_answers_by_its_column() -> None:
    rows = [
        ("1", "Where is my parcel?", "Track it."),
        ("2", "May I pay later?", "Yes, in 14 days."),
        ("3", "Hm?", None),
    ]
    faq = table(rows, ("id", "question", "reply"))
    columns = {"input": "faq", "id": "id", "title": "question", "text": "question", "answer": "reply"}
    task, outcome = answer(["can i pay later", "parcel?"], {"passages": faq}, passages=columns)
    assert outcome.columns["answer"].to_pylist() == ["Yes, in 14 days.", "Track it."]
    assert task.learned is not None and task.learned["passages"]["id"].to_pylist() == ["1", "2"]


def test_a_longer_answer_is_of_neighbouring_sentences() -> None:
    _, outcome = answer(["How long does a refund take?"], max_sentences=2)
    assert outcome.columns["answer"].to_pylist() == [ARTICLES[0][2].removesuffix(" Vouchers are not refunded.")]
    _, whole = answer(["How long does a refund take?"], max_sentences=9)
    assert whole.columns["answer"].to_pylist() == [ARTICLES[0][2]]


def test_duplicates_count_once_and_passages_without_an_id_are_cited_by_a_hash() -> None:
    rows = [
        *ARTICLES,
        ("a0", "refunds", ARTICLES[0][2].upper()),
        ("a7", "", None),
        ("a8", None, " "),
        (None, "x", "x y"),
    ]
    task, _ = answer(tables={"passages": table(rows)})
    assert task.learned is not None
    assert task.learned["passages"]["id"].to_pylist() == ["a0", "a2", "a3", "a4", "a5", "a6"]
    bare = {"input": "articles", "text": "text"}
    _, one = answer(passages=bare)
    _, other = answer(tables={"passages": table(ARTICLES[::-1])}, passages=bare)
    assert one.columns.equals(other.columns)
    assert len(one.columns["passage_id"][0].as_py()) == 16


def test_order_and_company_decide_nothing() -> None:
    _, whole = answer()
    _, turned = answer(ASKED[::-1], {"passages": table(ARTICLES[::-1])})
    rows = dict(zip(whole.subject.tolist(), whole.columns.to_pylist(), strict=True))
    last = len(ASKED) - 1
    for at, row in zip(turned.subject.tolist(), turned.columns.to_pylist(), strict=True):
        assert row == rows[last - at] == answer([ASKED[last - at]])[1].columns.to_pylist()[0]


def test_vectors_of_unchanged_passages_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tables = {"passages": table()}
    task = make(tables, model="builtin:minilm")
    task.open(ModelLoader())
    (tmp_path / "learned").write_bytes(to_bytes(task.learn(tables)))
    before = load(str(tmp_path / "learned"))
    changed = {
        "passages": table([*ARTICLES[1:], ("a9", "Gift cards", "Cards never expire. We deliver within three days.")])
    }
    fresh = task.learn(changed)
    read: list[str] = []
    encode = task._encoder.encode

    def spy(texts: list[str]) -> Any:
        read.extend(texts)
        return encode(texts)

    object.__setattr__(task, "_encoder", type("Spy", (), {"encode": staticmethod(spy), "dim": task._encoder.dim})())
    copied = task.learn(changed, before)
    assert sorted(read) == ["Cards never expire.", "Gift cards"], "one of its sentences was known from another passage"
    assert copied.keys() == fresh.keys() and copied["keys"].tolist() == fresh["keys"].tolist()
    np.testing.assert_allclose(copied["vectors"], fresh["vectors"], atol=2e-3)
    assert copied["passages"].equals(fresh["passages"])


def test_a_chinese_text_is_not_asked_of_an_english_encoder_unless_it_reads_it() -> None:
    tables = {"passages": table(ARTICLES[3:])}
    task = make(tables, model="builtin:minilm")
    task.open(ModelLoader())
    assert "keys" not in task.learn(tables)
    every = make(tables, model="builtin:minilm", multilingual=True)
    every.open(ModelLoader())
    assert len(every.learn(tables)["keys"]) > 6


def test_checked_questions_teach_the_confidence() -> None:
    """Of questions that words can't tell apart half are right: sure must be about a half."""
    rows = [(f"p{i}", "", f"the same words about {'abcdefghij'[i // 2]}{i % 2}x and nothing") for i in range(20)]
    questions = [f"same words {'abcdefghij'[i // 2]}{i % 2}x" for i in range(20)] + [
        "the same words about nothing"
    ] * 40
    ids = [f"p{i}" for i in range(20)] + ["p7"] * 40
    checked = pa.table({"asked": questions, "is": ids})
    tables = {"passages": table(rows), "checked": checked}
    columns = {"input": "checked", "text": "asked", "id": "is"}
    task, outcome = answer(["same words c1x", "the same words about nothing"], tables, checked=columns)
    assert task.learned is not None and len(task.learned["weights"]) == 4
    sure = outcome.columns["confidence"].to_pylist()
    assert sure[0] > 0.7 and sure[1] < 0.3
    twins = table([(f"q{id_}", title, text.upper()) for id_, title, text in rows])
    both = {**tables, "passages": pa.concat_tables([tables["passages"], twins])}
    as_twins = pa.table({"asked": questions, "is": [f"q{id_}" for id_ in ids]})
    again, _ = answer(["x"], {**both, "checked": as_twins}, checked=columns)
    assert again.learned is not None and again.learned["weights"] == task.learned["weights"], "an equal is as right"
    with pytest.raises(UserError, match="30 at least"):
        answer(["x"], {**tables, "checked": checked.slice(0, 29)}, checked=columns)


def test_a_reranker_decides_the_order(fine_tuned: Callable[..., Path], broken_rules: Any) -> None:
    folder = fine_tuned(objective="pair", labels=("no", "yes"), inputs="pair")
    asked = "is there a refund or a warranty of the parcel"
    task, outcome = answer([asked, "qwxz"], reranker=f"path:{folder}", candidates=3)
    row, nothing = outcome.columns.to_pylist()
    by_id = {id_: f"{title}\n{text}" for id_, title, text in ARTICLES}
    found = [candidate["passage_id"] for candidate in row["candidates"]]
    likely = Classifier.load(folder).probabilities([asked] * 3, [by_id[i] for i in found])[0][:, 1]
    assert [c["score"] for c in row["candidates"]] == pytest.approx(likely.tolist(), abs=1e-6)
    assert likely.tolist() == sorted(likely.tolist(), reverse=True) and row["confidence"] == pytest.approx(likely[0])
    assert nothing["answer"] is None and nothing["confidence"] == 0.0
    assert broken_rules(task, outcome.columns) == {}
    assert outcome.tokens > 20


@pytest.mark.parametrize("info", [None, ModelInfo("m", "classification", ("no", "yes"))])
def test_which_rerankers_fit(info: ModelInfo | None) -> None:
    task = make(reranker="path:m")
    ((setting, _, said, _),) = task.check_models({"reranker": info})
    assert setting == "reranker" and "objective pair" in said
    assert task.check_models({"reranker": ModelInfo("m", "pair", ("no", "yes"), inputs="pair")}) == []
    ((setting, value, said, _),) = task.check_models({"reranker": ModelInfo("m", "pair", ("0", "1"), inputs="pair")})
    assert (setting, value) == ("relevant", "yes") and "0, 1" in said


@pytest.mark.parametrize("rows", [[], [("a", "b", None), (None, "b", "c"), ("d", "e", " \n")]])
def test_nothing_to_learn_is_told_without_a_row(rows: list[tuple[Any, ...]]) -> None:
    with pytest.raises(UserError, match="expected passages to answer from"):
        answer(tables={"passages": table(rows)})


def test_one_passage_and_odd_ones() -> None:
    _, outcome = answer(["refund"], {"passages": table([("1", "", "Refund.")])})
    assert outcome.columns["answer"].to_pylist() == ["Refund."]
    odd = [("1", "", "!!!"), ("2", "", "refund " * 20_000)]
    _, outcome = answer(["refund", "???", "why " * 3000], {"passages": table(odd)})
    assert outcome.columns["passage_id"].to_pylist() == ["2", None, None]
    assert len(answer([])[1].columns) == 0


def test_too_long_and_broken_questions_are_rejected() -> None:
    _, outcome = answer(["x" * 500, "\ufffd\ufffd broken"], max_input_chars=200)
    assert [reject.code for reject in outcome.rejects] == ["too_long", "undecodable"]


def test_whole_numbers_are_ids() -> None:
    numbered = table().set_column(0, "id", pa.array(range(6), pa.int64()))
    _, outcome = answer(["How long does a refund take?"], {"passages": numbered})
    assert outcome.columns["passage_id"].to_pylist() == ["0"]


def test_an_exhibit_goes_from_unsure_to_sure() -> None:
    _, outcome = answer()
    scores = outcome.exhibit["score"].to_pylist()
    assert scores == sorted(scores) and outcome.exhibit["title"].to_pylist()[0] == "for people"


def test_settings_are_checked() -> None:
    assert make(text="bdy").check()[0][3] == "did you mean 'body'?"
    wrong = pa.table({"id": [1.5], "title": [1], "text": ["x"]})
    assert [fault[0] for fault in make({"passages": wrong}).check()] == ["passages.title", "passages.id"]
    checked = {"input": "checked", "text": "asked", "id": "is"}
    tables = {"passages": table(), "checked": pa.table({"asked": [1], "is": [0.5]})}
    bare = {"input": "articles", "text": "text"}
    faults = make(tables, checked=checked, passages=bare).check()
    assert [fault[0] for fault in faults] == ["checked.text", "checked.id", "checked.id"]
    assert "name `passages.id`" in faults[-1][2]
    for bad in (
        {"threshold": 1.2},
        {"candidates": 0},
        {"max_sentences": 0},
        {"multilingual": True},
        {"reranker": "path:m", "checked": checked},
        {"passages": {"input": "articles"}},
    ):
        with pytest.raises(ValidationError):
            make(**bad)


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task = make()
    good = {
        "answer": "a",
        "passage_id": "p",
        "passage": "a b",
        "score": 0.5,
        "confidence": 0.7,
        "escalate": False,
        "candidates": [{"passage_id": "p", "score": 0.5}, {"passage_id": "q", "score": 0.25}],
        "input_tokens": 3,
    }
    nothing = {**good, "answer": None, "passage_id": None, "passage": None, "escalate": True, "candidates": []}
    assert broken_rules(task, pa.Table.from_pylist([good, nothing], schema=task.columns())) == {}
    changes: list[dict[str, Any]] = [
        {"passage_id": None, "candidates": []},
        {"confidence": float("nan")},
        {"candidates": [{"passage_id": "q", "score": 0.5}]},
        {"answer": None, "passage_id": None, "candidates": []},
    ]
    for rule, change in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, {**good, **change}], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}


def test_a_company_s_own_words_find_what_they_mean() -> None:
    names = pa.table({"alias": ["Zephyr 3000", "西风"], "thing": ["kettle", "电热水壶"]})
    tables = {"passages": table(), "knowledge": names}
    asked: list[str | None] = ["what about my zephyr 3000", "西风怎么样"]
    knowledge = {"input": "names", "term": "alias", "means": "thing"}
    _, knowing = answer(asked, tables, knowledge=knowledge)
    assert knowing.columns["passage_id"].to_pylist() == ["a3", "a6"]
    _, plain = answer(asked, {"passages": table()})
    assert "a3" not in plain.columns["passage_id"].to_pylist()
    # The other way round: what the passage calls by its own name is found by what it means.
    rows = [*ARTICLES[:2], ("a9", "Zephyr 3000", "Fill the Zephyr 3000 with cold water."), *ARTICLES[3:]]
    _, turned = answer(
        ["is there something on a kettle"], {"passages": table(rows), "knowledge": names}, knowledge=knowledge
    )
    assert turned.columns["passage_id"].to_pylist() == ["a9"]
    wrong = {"passages": table(), "knowledge": pa.table({"alias": [1], "thing": ["kettle"]})}
    (fault,) = make(wrong, knowledge=knowledge).check()
    assert fault[0] == "knowledge.term"
