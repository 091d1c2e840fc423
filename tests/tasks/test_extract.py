from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.methods.values import amounts
from bizllm.models.load import ModelLoader
from bizllm.models.saved import ModelInfo
from bizllm.tasks.base import StepInput, task_class
from bizllm.tasks.extract import TASK, ExtractSettings

NIGHT = date(2026, 6, 30)
SCHEMA = pa.schema([("body", pa.string()), ("at", pa.timestamp("us", "UTC")), ("n", pa.int64())])
NAMES = pa.table(
    {
        "alias": ["充电宝", "power bank", "Beacon"],
        "name": ["P024", "P024", "Beacon Ltd"],
        "kind": ["sku", "sku", "maker"],
    }
)
FIELDS: dict[str, Any] = {
    "order_no": {"type": "code", "near": ["order", "PO", "订单"], "required": True},
    "total": {"type": "amount", "near": ["total", "in all", "合计", "总共"], "required": True},
    "deliver_by": {"type": "date", "near": ["deliver", "before", "by", "送到", "交货"]},
    "discount": {"type": "percent"},
    "warranty": {"type": "duration", "near": ["warranty", "保修"]},
    "people": {"type": "integer", "near": ["guests", "人"]},
    "email": {"type": "email"},
    "phone": {"type": "phone"},
    "link": {"type": "url"},
    "mood": {"type": "choice", "choices": {"angry": ["furious", "生气"], "glad": ["happy", "满意"]}},
    "ship_to": {"type": "text", "near": ["ship to", "收货地址"]},
    "product": {"type": "term", "kind": "sku", "many": True},
    "amounts": {"type": "amount", "many": True},
}
ENGLISH = (
    "Order PO-48063 of 12 June.\nTwo power banks at £33.99, total £67.98, please deliver by next Friday.\n"
    "5% discount, warranty 2 years, for 20 guests. I am happy!\nShip to: 27 Mill Lane, Leeds\n"
    "Mail Shop@Example.com, call +44 20 7946 0958, see https://example.com/a."
)
CHINESE = (
    "订单 KD2026001，两个充电宝，￥309一个，合计：六百一十八元，请下周五之前送到。打折10%，保修两年，20人用。我很满意。"
    "收货地址：上海市建设路27号。邮箱 caigou@example.cn，电话13812345678。"
)


def make(schema: pa.Schema = SCHEMA, names: pa.Table = NAMES, **settings: Any) -> TASK:
    said = {"task": "extract", "input": "mails", "text": "body", "fields": FIELDS}
    knowledge = {"input": "names", "term": "alias", "means": "name", "kind": "kind"}
    given = ExtractSettings(**{**said, "knowledge": knowledge, **settings})
    others = {"knowledge": StepInput("names", names.schema)} if given.knowledge else {}
    task = TASK(given, StepInput("mails", schema), NIGHT, others)
    task.open(ModelLoader())
    if given.knowledge is None:
        return task
    learned = task.learn({"knowledge": names})
    ready = TASK(given, StepInput("mails", schema), NIGHT, others, learned=learned)
    ready.open(ModelLoader())
    return ready


def extracted(texts: list[str | None], at: list[datetime | None] | None = None, **settings: Any) -> tuple[TASK, Any]:
    task = make(**settings)
    rows = pa.table({"body": texts, "at": at or [None] * len(texts), "n": [0] * len(texts)}, schema=SCHEMA)
    outcome = task.answer(task.prepare(rows.select(task.reads())))
    assert outcome.columns.schema == task.columns()
    return task, outcome


def one(text: str, field: dict[str, Any], **settings: Any) -> Any:
    (row,) = extracted([text], fields={"it": field}, knowledge=None, **settings)[1].columns.to_pylist()
    return row["it"]


def test_a_mail_in_english_and_in_chinese(broken_rules: Any) -> None:
    task, outcome = extracted([ENGLISH, CHINESE])
    assert task_class("extract") is TASK and task.check() == [] and task.depends_on_date()
    english, chinese = outcome.columns.to_pylist()
    expected: dict[str, list[Any]] = {
        "order_no": ["PO-48063", "KD2026001"],
        "total": [67.98, 618.0],
        "total_currency": ["GBP", "CNY"],
        "deliver_by": [date(2026, 7, 10)] * 2,
        "discount": [5.0, 10.0],
        "warranty": [730.0, 730.0],
        "people": [20, 20],
        "email": ["shop@example.com", "caigou@example.cn"],
        "phone": ["+442079460958", "13812345678"],
        "link": ["https://example.com/a", None],
        "mood": ["glad", "glad"],
        "ship_to": ["27 Mill Lane, Leeds", "上海市建设路27号"],
        "product": [["P024"], ["P024"]],
        "missing": [[], []],
        "complete": [True, True],
    }
    for name, (first, second) in expected.items():
        assert (english[name], chinese[name]) == (first, second), name
    assert (english["amounts"], english["amounts_currency"]) == ([33.99, 67.98], ["GBP", "GBP"])
    for text, row in ((ENGLISH, english), (CHINESE, chinese)):
        assert row["spans"] == sorted(row["spans"], key=lambda s: (s["start"], s["end"], s["field"]))
        for span in row["spans"]:
            assert text[span["start"] : span["end"]] == span["text"] and 0 < span["confidence"] <= 1
    assert broken_rules(task, outcome.columns) == {}


def test_cue_words_choose_and_doubt_lowers_the_confidence() -> None:
    text = "Deposit £50. Rent £900, that is £950."
    near = {"type": "amount", "near": ["rent"]}
    assert one(text, near) == 900.0
    assert one(text, {"type": "amount", "near": ["fee"]}) is None
    assert one("Fee paid.\n\n£50", {"type": "amount", "near": ["fee"]}) is None, "another paragraph"

    def sure(text: str) -> float:
        (row,) = extracted([text], fields={"it": {"type": "amount"}}, knowledge=None)[1].columns.to_pylist()
        return float(row["spans"][0]["confidence"])

    assert sure("It is £50.") == sure("£50, I said £50") > sure("£50 or £60")
    assert one("£50 or £60", {"type": "amount"}, min_confidence=0.9) is None


def test_days_are_told_from_when_the_text_was_written() -> None:
    field = {"when": {"type": "date"}}
    times = [datetime(2026, 3, 2, 9, tzinfo=UTC), datetime(2026, 3, 31, 23, 59, tzinfo=UTC), None]
    task, outcome = extracted(["tomorrow"] * 3, times, fields=field, knowledge=None, time="at")
    assert outcome.columns["when"].to_pylist() == [date(2026, 3, 3), date(2026, 4, 1), None]
    assert not task.depends_on_date() and task.reads() == ["body", "at"]
    assert not make(fields={"a": {"type": "amount"}}, knowledge=None).depends_on_date()
    assert one("03/07/2026", {"type": "date"}) == date(2026, 7, 3)
    assert one("03/07/2026", {"type": "date"}, day_first=False) == date(2026, 3, 7)


def test_patterns_take_their_group_as_the_type() -> None:
    assert one("size: 42 cm, weight: 7", {"type": "number", "pattern": r"weight: (\S+)"}) == 7.0
    assert one("ref A-1; ref B-2", {"type": "text", "pattern": r"ref (\S+-\d)", "many": True}) == ["A-1", "B-2"]
    assert one("Ｎｏ．１２３", {"type": "text", "pattern": r"No\.(\d+)"}) == "１２３", "as it stands, found folded"
    assert one("x", {"type": "text", "pattern": "(y)?x"}) is None


def test_nothing_found_and_nothing_to_read() -> None:
    _, outcome = extracted(["nothing of that kind", None, " ", "x" * 50], max_input_chars=40)
    assert outcome.subject.tolist() == [0]
    assert [(r.subject, r.code) for r in outcome.rejects] == [(1, "empty"), (2, "empty"), (3, "too_long")]
    (row,) = outcome.columns.to_pylist()
    assert row["missing"] == ["order_no", "total"] and row["complete"] is False
    assert row["product"] == [] and row["amounts_currency"] == [] and row["spans"] == [] and row["total"] is None
    assert extracted([])[1].columns.num_rows == 0


def test_the_batch_and_its_order_change_nothing() -> None:
    texts: list[str | None] = [ENGLISH, CHINESE, None, "￥5 or $6"]
    alone = [row for text in texts for row in extracted([text])[1].columns.to_pylist()]
    assert extracted(texts)[1].columns.to_pylist() == alone
    assert extracted(texts[::-1])[1].columns.to_pylist() == alone[::-1]


def test_huge_numbers_fit_or_are_left_out() -> None:
    assert one("9" * 15, {"type": "integer"}) == int("9" * 15)
    assert one("9" * 40, {"type": "integer"}) is None
    assert one("1 " * 3_000, {"type": "integer", "many": True}) == [1] * 3_000


def test_a_tagger_may_mark_texts(fine_tuned: Callable[..., Path]) -> None:
    model = fine_tuned(objective="token_classification", labels=("O", "B-X", "I-X", "B-Y", "I-Y"), pooling="native")
    settings: dict[str, Any] = {"model": f"path:{model}", "knowledge": None}
    task, outcome = extracted(
        [ENGLISH, CHINESE], fields={"x": {"type": "text", "tag": "X", "many": True}}, min_confidence=0.0, **settings
    )
    tagger = task_class("tag")
    tag = tagger(tagger.Settings(task="tag", input="mails", text="body", model=f"path:{model}"), task.source, NIGHT)
    tag.open(ModelLoader())
    theirs = tag.answer(pa.table({"body": [ENGLISH, CHINESE]})).columns["spans"].to_pylist()
    expected = [[s["text"] for s in spans if s["type"] == "X"] for spans in theirs]
    assert outcome.columns["x"].to_pylist() == expected and any(expected) and outcome.tokens > 0
    assert task.models() == {"tagger": f"path:{model}"}
    info = ModelInfo("m", "token_classification", ("O", "B-PER"))
    assert task.check_models({"tagger": info}) == [("fields.x.tag", "X", "the model tags PER", "")]
    assert "this one is classification" in task.check_models({"tagger": ModelInfo("m", "classification")})[0][2]


def test_faults() -> None:
    faults = make(text="bdy", time="n").check()
    assert [(f[0], f[1]) for f in faults] == [("text", "bdy"), ("time", "n")]
    assert faults[0][3] == "did you mean 'body'?" and "int64" in faults[1][2]
    assert make(time="att").check()[0][3] == "did you mean 'at'?"
    fields = {"spans": {"type": "url"}, "a": {"type": "amount"}, "a_currency": {"type": "url"}, "t": {"type": "term"}}
    said = make(fields=fields | {"g": {"type": "text", "tag": "X"}}, knowledge=None).check()
    assert [f[0] for f in said] == ["fields.spans", "fields.a_currency", "fields.t.type", "fields.g.tag"]
    wrong = pa.table({"alias": [1], "name": ["a"], "kind": ["b"]})
    given = make().settings
    task = TASK(given, StepInput("mails", SCHEMA), NIGHT, {"knowledge": StepInput("names", wrong.schema)})
    assert task.check()[0][:2] == ("knowledge.term", "alias")


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"type": "texxt"}, "Input should be"),
        ({"type": "text"}, "expected `pattern`, `near` or `tag`"),
        ({"type": "text", "pattern": "("}, "is no regular expression"),
        ({"type": "choice"}, "expected `choices`"),
        ({"type": "amount", "choices": {"a": ["b"]}}, "expected `choices`"),
        ({"type": "amount", "kind": "sku"}, "`kind` is for"),
        ({"type": "amount", "tag": "X"}, "`tag` is for"),
        ({"type": "amount", "nere": ["x"]}, "Extra inputs"),
    ],
)
def test_fields_that_cannot_be(field: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make(fields={"it": field}, knowledge=None)


def test_rules_see_what_is_wrong(broken_rules: Any) -> None:
    task = make(fields={"a": {"type": "email"}}, knowledge=None)
    span = {"field": "a", "start": 0, "end": 3, "text": "a@b", "confidence": 0.5}
    good: dict[str, Any] = {"a": "a@b", "spans": [span], "missing": [], "complete": True}
    changes = [{"spans": [span | {"end": 9}]}, {"spans": [span | {"confidence": 1.5}]}, {"complete": False}]
    for rule, change in zip(task.rules(), changes, strict=True):
        columns = pa.Table.from_pylist([good, good | change], schema=task.columns())
        assert broken_rules(task, columns) == {rule: 1}


def test_against_a_table_of_amounts_in_many_forms() -> None:
    """A grid of currencies and forms, each written by a format of its own."""
    forms = {"GBP": "£{:,.2f}", "USD": "USD {:.2f}", "EUR": "{:.2f} euros", "CNY": "{:.2f}元"}
    for value in (0.05, 7, 39.99, 1_250.5, 98_765.43):
        for code, form in forms.items():
            text = f"It cost {form.format(value)} then."
            assert one(text, {"type": "amount"}) == pytest.approx(value)
            assert amounts.amounts(text)[0].unit == code
