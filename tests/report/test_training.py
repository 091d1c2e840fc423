"""The page of a training: what it says first, that hostile text stays text, and that it has an end."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bizllm.report import training_views as views
from bizllm.report.html import MAX_BYTES
from bizllm.report.training import render_training, verdict
from bizllm.report.training_charts import Curve, draw_curves, draw_reliability, draw_scatter
from bizllm.report.training_data import (
    Confusion,
    Cost,
    Errors,
    Metric,
    Reliability,
    Retained,
    SliceScore,
    TrainingReport,
    read_history,
)
from tests.report.trainings import HOSTILE, REASON, confusion, history, training

SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Every element with its attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in ("th", "td", "dt", "dd", "p", "li") else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)

    def shape(self) -> Counter[tuple[str, ...]]:
        return Counter((tag, *sorted(set(attributes) - {"lang"})) for tag, attributes in self.elements)


@pytest.fixture(scope="module")
def page() -> str:
    return render_training(training())


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_text_stays_text(attack: str) -> None:
    attacked = Page(render_training(training(lambda benign: benign + attack)))
    assert not {tag for tag, _ in attacked.elements} & {"script", "img", "iframe", "object", "form", "base"}
    attributes = [(name, value) for _, values in attacked.elements for name, value in values.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "style"]
    assert attacked.shape() == Page(render_training(training(lambda benign: benign + "harmless"))).shape()
    seen = attack.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    for place in (REASON, "TF-IDF + linear SVM", "reduce_on_plateau", "1–12 tokens", "encode", "train and test"):
        assert place + seen in attacked.text


def test_nothing_outside_the_page_is_asked_for(page: str) -> None:
    elements = Page(page).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        for name in ("href", "src", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "data:image/svg+xml,").startswith("data:image/svg+xml,")
    assert not re.search(r"url\(|@import|<!ENTITY", page)
    named = {attributes["aria-labelledby"] for _, attributes in elements if "aria-labelledby" in attributes}
    assert named == set(ids)
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_says_what_the_training_did(page: str) -> None:
    text = Page(page).words()
    for said in (
        "ticket_intent version 3 Promoted: version 3 is champion now in place of version 2. " + REASON,
        "this model version 3",
        "0.9123 0.8961 to 0.9265",
        "gain over version 2 paired, same rows",
        "+0.0223 +0.0081 to +0.0364",
        "2026-11-24 02:14:03 Asia/Shanghai",
        "macro_f1 0.9210 0.9123 best 0.8961 to 0.9265 0.8712 0.8900",
        "log_loss lower is better 0.3100 0.3400 0.3000 to 0.3800 0.2900 best 0.4000",
        "train and test share 4 rows word for word and 11 almost; left out of training.",
        "before: ECE 0.0810",
        "zh 200 0.8400 0.7800 to 0.9000",
        "Most memory of a worker 1,390 MB",
        "1 warning",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("changes", "tone", "sentence", "cause"),
    [
        ({}, "good", "Promoted: version 3 is champion now in place of version 2.", REASON),
        ({"champion": None}, "good", "Promoted: version 3 is champion now.", REASON),
        ({"outcome": "registered"}, "idle", "Not promoted: registered as version 3, champion stays version 2.", REASON),
        (
            {"outcome": "control_won", "metrics": [Metric("macro_f1", test=0.86, control=0.8712)]},
            "bad",
            "Not promoted, the control wins: TF-IDF + linear SVM scores 0.8712 macro_f1 on test, version 3 0.8600.",
            REASON,
        ),
        (
            {"outcome": "failed", "error": "the loss is no number at step 312\nlook at metrics.jsonl"},
            "bad",
            "The training failed.",
            "the loss is no number at step 312",
        ),
    ],
)
def test_the_verdict(changes: dict[str, Any], tone: str, sentence: str, cause: str) -> None:
    said = verdict(training(**changes))
    assert (said.tone, str(said.sentence).replace("&#43;", "+"), said.cause) == (tone, sentence, cause)


@pytest.mark.parametrize(("higher", "control", "warned"), [(True, 0.95, 1), (True, 0.5, 0), (False, 0.5, 1)])
def test_a_control_that_is_no_worse_is_told_also_of_a_promoted_model(higher: bool, control: float, warned: int) -> None:
    metric = Metric("macro_f1", test=0.9123, control=control, higher_is_better=higher)
    page = Page(render_training(training(metrics=[metric], warnings=[])))
    assert page.text.count("The control is no worse: macro_f1") == warned


def test_what_became_of_an_earlier_training() -> None:
    told = [
        Retained("before this training", 0.91, 0.42),
        Retained("trained on naively", 0.7, 0.9, -0.21),
        Retained("this model", 0.92, 0.89, 0.01),
    ]
    page = render_training(training(retained=told))
    text = Page(page).words()
    assert "Earlier training" in text and "trained on naively 0.7000 0.9000 -0.2100" in text
    assert "this model 0.9200 0.8900 +0.0100" in text
    assert '<td class="n some">-0.2100</td>' in page and '<td class="n">+0.0100</td>' in page
    assert "Earlier training" not in Page(render_training(training())).words()


def test_a_training_that_failed_at_once_is_a_page_too() -> None:
    when = datetime(2026, 11, 23, tzinfo=UTC)
    bare = TrainingReport("ticket_intent", "r1", "failed", "builtin:minilm", "classification", "full", when, 1.5)
    text = Page(render_training(bare)).words()
    assert "The training failed." in text
    assert "Nothing was scored" in text
    assert "No step was logged" in text


def test_parts_without_rows_are_pages_too() -> None:
    empty = training(
        k=0,
        labels=[],
        per_class=[],
        confusion=Confusion([], np.zeros((0, 0), np.int64)),
        reliability=Reliability([], [], 0.0, 0.0, 1.0),
        errors=Errors(np.array([]), np.array([])),
        history=[{"step": 1, "split": "train", "loss": None}, {"split": "validation", "macro_f1": 0.5}],
        metrics=[Metric("macro_f1")],
        cost=Cost(),
    )
    text = Page(render_training(empty)).words()
    assert "No test row was taken for another class" in text
    assert "No test rows to draw" in text
    assert "No step was logged" in text


def test_a_table_of_500_classes_has_an_end() -> None:
    page = Page(render_training(training(k=500)))
    text = page.words()
    assert "470 more with an F1 of" in text
    assert "480 labels between" in text
    assert "the 20 classes with most mistakes" in text
    rows = Counter(tag for tag, _ in page.elements)["tr"]
    assert rows < 30 + 21 + 22 + 13 + 40


def test_a_huge_training_keeps_its_size() -> None:
    quote = '"' * 5_000  # every character of it is five on the page
    huge = training(
        lambda _: quote,
        k=500,
        slices=[SliceScore(quote + str(i), quote, 1, 0.5, (0.4, 0.6)) for i in range(300)],
        metrics=[Metric(quote, 0.1, 0.2, 0.1, 0.3, 0.1, 0.1)] * 99,
        recipe={f"{i}{quote}": quote for i in range(300)},
        warnings=[quote] * 99,
        history=history(50_000, every=50),
        errors=Errors(np.arange(99_999.0), np.arange(99_999.0)[::-1]),
        error=quote + "\n" + quote,
    )
    assert len(render_training(huge).encode()) < MAX_BYTES


def test_folded_classes_keep_every_row_of_the_matrix() -> None:
    rng = np.random.default_rng(1)
    counts = confusion(60, rng)
    view = views.confusion(Confusion([f"c{i}" for i in range(60)], counts))
    cells = np.array([[n for n, _ in line] for line in view["rows"]])
    kept = [int(label[1:]) for label in view["labels"][:-1]]
    assert view["labels"][-1] == "(others)"
    assert (cells[:-1, :-1] == counts[np.ix_(kept, kept)]).all()
    assert cells.sum() == counts.sum()
    assert (cells.sum(axis=1)[:-1] == counts.sum(axis=1)[kept]).all()
    wrong = counts - np.diag(np.diag(counts))
    by_class = wrong.sum(axis=0) + wrong.sum(axis=1)
    assert by_class[kept].min() >= np.delete(by_class, kept).max()
    assert view["mistakes"] == wrong.sum()
    first = view["pairs"][0]
    assert first["rows"] == wrong.max() == wrong[int(first["truth"][1:]), int(first["predicted"][1:])]


def test_errors_by_fifths_of_the_true_number() -> None:
    truth = np.arange(100.0)
    bias = np.repeat([1.0, -1.0, 0.5, 0.0, 2.0], 20)
    shuffled = np.random.default_rng(0).permutation(100)
    view = views.errors(Errors(truth[shuffled], (truth + bias)[shuffled], {0.9: 0.875, 0.1: 0.12}))
    assert [row["bias"] for row in view["fifths"]] == ["+1", "−1", "+0.5000", "0", "+2"]
    assert view["fifths"][0]["range"] == "0 to 19"
    assert view["levels"] == [{"asked": "10 %", "seen": "12.0 %"}, {"asked": "90 %", "seen": "87.5 %"}]


def corners(svg: str, color: str, tag: str = "path") -> np.ndarray[Any, Any]:
    [path] = [p for p in ET.fromstring(svg).iter(f"{SVG}{tag}") if p.get("stroke") == f"var(--{color})"]
    return np.array([[float(v) for v in pair.split(",")] for pair in re.findall(r"[ML]([-\d.,]+)", path.get("d", ""))])


def test_curves_stand_where_the_values_are() -> None:
    rng = np.random.default_rng(2)
    train, steps = rng.gamma(3, 1, 50), np.arange(1, 51)
    validation, at = rng.gamma(3, 1, 5), np.arange(10, 51, 10)
    svg = draw_curves(
        [Curve(steps.tolist(), train.tolist()), Curve(at.tolist(), validation.tolist(), "var(--forecast)", dots=True)],
        best_step=30,
    )
    drawn = np.concatenate([corners(svg, "history"), corners(svg, "forecast")])
    x, y = np.concatenate([steps, at]), np.concatenate([train, validation])
    assert abs(np.corrcoef(x, drawn[:, 0])[0, 1]) == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(y, drawn[:, 1])[0, 1] == pytest.approx(-1, abs=1e-6), "SVG's y runs down"
    [rule] = [e for e in ET.fromstring(svg).iter(f"{SVG}line") if e.get("stroke") == "var(--new)"]
    moved = re.search(r"translate\(([\d.]+)", rule.get("transform", ""))
    assert moved is not None
    slope, offset = np.polyfit(x, drawn[:, 0], 1)
    assert float(moved[1]) == pytest.approx(slope * 30 + offset, abs=0.6)


def test_a_perfect_model_lies_on_the_diagonal() -> None:
    svg = draw_reliability([(0.5, 0.5), (0.7, 0.7), (0.9, 0.9)], [(0.2, 0.1), (0.9, 0.95)])
    even, drawn = corners(svg, "ink-2"), corners(svg, "history")
    slope, offset = np.polyfit(even[:, 0], even[:, 1], 1)
    assert np.allclose(slope * drawn[:, 0] + offset, drawn[:, 1], atol=0.01)
    dots = draw_scatter([1.0, 2.0, float("nan")], [1.0, 2.5, 3.0])
    assert "var(--forecast)" in dots


def test_a_long_curve_is_averaged_not_picked_from() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=30_000)
    steps, means = views._thinned([(float(i), float(v)) for i, v in enumerate(values)])
    assert (len(steps), steps[-1]) == (views.POINTS_MOST, 29_999.0)
    assert np.allclose(means, values.reshape(views.POINTS_MOST, -1).mean(axis=1))


def test_a_language_model_has_its_perplexity_drawn() -> None:
    charts = views.curves(training(objective="causal_lm", metric="perplexity", stop_metric="perplexity"))
    [curve] = [chart for chart in charts if chart.title == "perplexity"]
    assert curve.description == "validation from 36.67 to 20 after step 600; kept: step 500"


def test_the_history_is_read_from_metrics_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read_history(file) == []
    rows = history(30, every=10)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 31, "spl')
    assert read_history(file) == rows
