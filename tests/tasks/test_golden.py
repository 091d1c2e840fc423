"""Outputs move only with a new task version: a version is part of the fingerprint, and decides what is rebuilt.

A task has its function here, or `outcome()` in golden/NAME.py.
`BIZLLM_WRITE_GOLDEN=1 pytest tests/tasks/test_golden.py` writes the files of new versions; delete old ones by hand.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bizllm.models.classifier import Classifier
from bizllm.models.encoder import Encoder
from bizllm.models.engines.torch_engine import exact
from bizllm.models.tagger import Tagger
from bizllm.tasks.base import Groups, Outcome, StepInput, Task, task_class, task_names

GOLDEN = Path(__file__).parent / "golden"
NIGHT = date(2026, 3, 10)
TEXTS = [
    "The parcel came three days late. The box was wet and torn. I asked for a refund on Monday. Nobody answered me. "
    "I want my money back, or a new kettle. Please call me in the morning.",
    "快递晚了三天。箱子湿了，还破了一个角。我周一申请了退款。到现在没有人联系我。请尽快处理退款。谢谢。",
    "Customer: my lamp flickers\nAgent: which model is it\nCustomer: the tall one, bought in May\n"
    "Agent: we send a new one",
    "Short and whole.",
    None,
]


def _task(name: str, schema: pa.Schema, **settings: Any) -> Task:
    cls = task_class(name)
    return cls(cls.Settings(task=name, input="rows", **settings), StepInput("rows", schema), NIGHT)


def _whole(rows: pa.Table, keys: pa.Table, starts: list[int], prior: pa.Table | None = None) -> Groups:
    return Groups(rows, np.array(starts), keys, prior)


def summarize() -> Outcome:
    """Rows, by character n-grams: a model's last digits depend on the CPU."""
    rows = pa.table({"text": TEXTS})
    task = _task("summarize", rows.schema, text="text", max_sentences=2)
    return task.answer(task.prepare(rows))


def forecast() -> Outcome:
    """A weekly pattern with a trend, and an intermittent series."""
    days = [NIGHT - timedelta(days=119 - i) for i in range(120)]
    steady = [20 + i * 0.1 + 8 * (day.weekday() >= 5) + 3 * math.sin(i * 1.7) for i, day in enumerate(days)]
    rare = [float(i % 11 == 3) * (1 + i % 3) for i in range(120)]
    rows = pa.table({"shop": ["a"] * 120 + ["b"] * 120, "day": days * 2, "units": steady + rare})
    task = _task("forecast", rows.schema, series=["shop"], time="day", target="units", freq="D", horizon=7)
    combined = task.combine(rows).rows.sort_by("shop")
    first = combined["shop"].to_pylist().index("b")
    return task.answer(_whole(combined, pa.table({"shop": ["a", "b"]}), [0, first, len(combined)]))


def segment() -> Outcome:
    """Thirty weekly buyers, thirty monthly ones, thirty who left."""
    lines = [
        {"customer": f"c{c:02d}", "at": NIGHT - timedelta(days=back), "amount": amount + (c * 7 + back) % 9}
        for c in range(90)
        for every, stop, amount in [[(7, 0, 90.0), (30, 3, 25.0), (21, 150, 15.0)][c % 3]]
        for back in range(stop + c % 6, 300, every)
    ]
    rows = pa.Table.from_pylist(lines)
    task = _task("segment", rows.schema, entity="customer", time="at", amount="amount")
    combined = task.combine(rows).rows.sort_by("customer")
    names = combined["customer"].to_pylist()
    keys = sorted(set(names))
    starts = [*(names.index(key) for key in keys), len(names)]
    prior = pa.table({"segment": pa.nulls(len(keys), pa.string())})
    made = task.features(_whole(combined, pa.table({"customer": keys}), starts, prior))
    features = pa.table({"customer": pa.array(keys).take(pa.array(made.subject))})
    for name in made.columns.column_names:
        features = features.append_column(name, made.columns[name])
    task.fitted = task.fit(features, None)
    return task.answer(features)


class _Models:
    """Loads in float32 whatever the CPU multiplies natively; the models' weights are a formula."""

    def encoder(self, uri: str) -> Encoder:
        return Encoder.load(Path(uri.removeprefix("path:")), exact)

    def classifier(self, uri: str) -> Classifier:
        return Classifier.load(Path(uri.removeprefix("path:")), exact)

    def tagger(self, uri: str) -> Tagger:
        return Tagger.load(Path(uri.removeprefix("path:")), exact)

    def generator(self, uri: str) -> Any:
        raise AssertionError(uri)


def _read(name: str, folder: Path, **settings: Any) -> Outcome:
    """What a row task answers to TEXTS with that model."""
    rows = pa.table({"text": TEXTS})
    task = _task(name, rows.schema, text="text", model=f"path:{folder}", **settings)
    task.open(_Models())
    return task.answer(task.prepare(rows))


def embed(fine_tuned: Callable[..., Path]) -> Outcome:
    """Texts longer than the window of 32 tokens, and a short one."""
    return _read("embed", fine_tuned(objective="embedding"))


def classify(fine_tuned: Callable[..., Path]) -> Outcome:
    """Five labels; some rows are out of scope."""
    model = fine_tuned(objective="classification", labels=tuple("abcde"), temperature=1.5, threshold=0.5)
    return _read("classify", model, alternatives=2)


def tag(fine_tuned: Callable[..., Path]) -> Outcome:
    """Words of Latin script by their first token, Chinese characters each."""
    labels = ("O", "B-X", "I-X", "B-Y", "I-Y")
    return _read("tag", fine_tuned(objective="token_classification", labels=labels, pooling="native"))


def mask() -> Outcome:
    """Both languages, with the rules alone and with pseudonyms."""
    texts = [
        *TEXTS,
        "Dr. Jane Okonkwo (jane.okonkwo@example.com, 212-555-0142) lives at 12 Main Street, Apt 4. SSN 219-09-9999.",
        "我叫张伟，手机138-1234-5678，身份证11010519491231002X，住在广东省深圳市南山区科技园路12号3栋402室。",
    ]
    rows = pa.table({"text": texts, "note": [None, *texts[:-1]]})
    secret = {"mode": "pseudonym", "key": "0123456789abcdef" * 2}
    task = _task("mask", rows.schema, columns=["text", "note"], **secret)
    return task.answer(task.prepare(rows))


def of_its_own_file(name: str) -> Callable[..., Outcome]:
    """`outcome` of golden/NAME.py."""
    spec = importlib.util.spec_from_file_location(f"golden_{name}", GOLDEN / f"{name}.py")
    assert spec is not None and spec.loader is not None, f"golden/{name}.py with `outcome` is missing"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[..., Outcome] = module.outcome
    return made


def _rounded(value: Any) -> Any:
    """Six significant digits: other CPUs and library builds move the last ones."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def _near(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_near, one, other))
    return bool(one == other)


HERE: dict[str, Callable[..., Outcome]] = {
    make.__name__: make for make in (summarize, forecast, segment, embed, classify, tag, mask)
}


@pytest.mark.parametrize("name", task_names())
def test_outputs_move_only_with_the_version(name: str, fine_tuned: Callable[..., Path]) -> None:
    make = HERE.get(name) or of_its_own_file(name)
    _held(name, make(fine_tuned) if signature(make).parameters else make(), "")


@pytest.mark.parametrize("name", ["classify", "forecast", "segment"])
def test_explained_outputs_do_too(name: str, fine_tuned: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _task
    monkeypatch.setitem(globals(), "_task", lambda name, schema, **said: plain(name, schema, explain=True, **said))
    make = HERE[name]
    outcome = make(fine_tuned) if signature(make).parameters else make()
    _held(name, replace(outcome, subject=outcome.subject[:15], columns=outcome.columns.slice(0, 15)), "-explain")


def _held(name: str, outcome: Outcome, kind: str) -> None:
    """Held against the file of the task's version."""
    found = {
        "subjects": outcome.subject.tolist(),
        "rejects": [[reject.subject, reject.code] for reject in outcome.rejects],
        "rows": _rounded(outcome.columns.to_pylist()),
    }
    file = GOLDEN / f"{name}-v{task_class(name).version}{kind}.json"
    if os.environ.get("BIZLLM_WRITE_GOLDEN"):
        file.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    expected = json.loads(file.read_text())
    assert _near(found, expected), f"{name}: outputs moved; raise its version and write a new golden file"
