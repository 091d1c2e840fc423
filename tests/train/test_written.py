"""Texts that models write, scored as rouge-score does; prompts that do not fit get no answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
from rouge_score.rouge_scorer import RougeScorer

from bizllm.models.saved import ModelInfo
from bizllm.train import judge, written
from bizllm.train.recipe import Recipe
from bizllm.train.resampled import compare

# The small generator answers with the first and the last word.
PROMPTS = ["cat mill tea so", "lid box so", "rain desk lamp mill so", "tea cat so"]
ANSWERS = ["cat tea", "lid box", "rain lamp", "nothing at all"]


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_what_a_model_writes_is_scored(small_generator: Callable[[str], Path], kind: str) -> None:
    objective = "causal_lm" if kind == "causal" else "seq2seq"
    rows = pa.table({"text": PROMPTS, "label": ANSWERS})
    folder = small_generator(kind)
    said = written.answer(folder, rows, 8)
    assert said == ["cat tea", "lid box", "rain mill", "tea cat"]
    scorer = RougeScorer(["rouge1", "rougeL"])
    expected = [scorer.score(truth, text) for truth, text in zip(ANSWERS, said, strict=True)]
    info = ModelInfo("small", objective, max_tokens=40)
    recipe = Recipe.model_validate({**tiny._DEFAULTS, "objective": objective, "max_new_tokens": 8})
    found = judge.answer(folder, info, rows, recipe)
    assert found.metrics["rougeL"] == pytest.approx(100 * np.mean([row["rougeL"].fmeasure for row in expected]))
    assert found.metrics["rouge1"] == pytest.approx(100 * np.mean([row["rouge1"].fmeasure for row in expected]))
    assert found.metrics["exact_match"] == 50.0 and np.isfinite(found.metrics["loss"])
    worse = replace(found, written=written.scores(rows, ["", "", "", ""]))
    assert compare("rougeL", found, worse, rows, (), 0.95).gain == pytest.approx(found.metrics["rougeL"])


def test_a_prompt_that_does_not_fit_gets_no_answer(small_generator: Callable[[str], Path]) -> None:
    rows = pa.table({"text": ["cat tea so", "cat " * 60 + "so"], "label": ["cat tea", "cat cat"]})
    assert written.answer(small_generator("causal"), rows, 8) == ["cat tea", ""]
    assert written.answer(small_generator("causal"), rows, 128) == ["cat tea", ""], "half of the window is left"
    scores = written.scores(rows, ["cat tea", ""])
    assert scores["exact_match"].tolist() == [100.0, 0.0] and scores["rougeL"].tolist() == [100.0, 0.0]


def test_at_most_so_many_rows_are_answered_all_over_the_table() -> None:
    rows = pa.table({"text": ["x"] * 5_001})
    picked = written.asked(rows)
    assert len(picked) == written.MOST and picked[0] == 0 and picked[-1] == 5_000
    assert np.diff(picked).max() <= 11
    assert written.asked(rows.slice(0, 3)).tolist() == [0, 1, 2]


def test_only_prompts_with_answers_are_asked() -> None:
    text, chat = pa.string(), pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    assert written.writes("causal_lm", pa.schema({"text": text, "label": text}))
    assert written.writes("seq2seq", pa.schema({"text": text, "label": text}))
    assert not written.writes("causal_lm", pa.schema({"text": text}))
    assert not written.writes("causal_lm", pa.schema({"text": chat, "label": text}))
    assert not written.writes("classification", pa.schema({"text": text, "label": text}))
