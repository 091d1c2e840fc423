"""Choosing a step's engines, in this process and without Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.infer.receipts import Receipt
from bizllm.infer.rows import AnswerRows, RowUnit
from bizllm.infer.work import StepContext
from bizllm.jobs import engines
from bizllm.models.load import resolve
from bizllm.tables.manifest import freeze


def test_much_to_read_is_worth_the_asking(
    context: Callable[..., StepContext], fine_tuned: Callable[..., Path], tmp_path: Path
) -> None:
    """Asked in this process: one unit is read, nothing is staged, the choice stands."""
    model = f"path:{fine_tuned(objective='embedding')}"
    (tmp_path / "in").mkdir()
    rows = pa.table({"id": range(50), "body": [f"lamp {i} is broken" for i in range(50)]})
    pq.write_table(rows, tmp_path / "in/a.parquet")
    made = context(tmp_path / "in", ["id"], task="embed", text="body", model=model)
    made = replace(made, pinned={model: resolve(model)})
    stage = AnswerRows(made)
    units = [RowUnit(unit) for unit in freeze(made.source, made.run_date, "all", ["id", "body"]).units]

    def run(stage: Any, units: Any) -> list[Receipt]:
        stage.open()
        return [Receipt.from_json(stage.work(unit, stage.read(unit)).to_json()) for unit in units]

    urls = {model: str(tmp_path / "engines/a")}
    assert engines.chosen(run, stage, units, urls, engines.MANY_TOKENS - 1) == {}
    found = engines.chosen(run, stage, units, urls, engines.MANY_TOKENS)[model]
    assert len(found.choice.tried) + len(found.choice.fell_back) > 1, "others were measured too"
    assert not (tmp_path / "r1").exists(), "nothing was answered"

    asked: list[Any] = []
    again = engines.chosen(lambda *given: asked.append(given) or [], stage, units, urls, 0)
    assert again[model] == found and not asked

    answered = run(AnswerRows(replace(made, engines=again)), units)
    assert answered[0].extra["engines"] == {model: f"{found.choice.engine} {found.choice.precision}"}
    assert engines.told(made, again, answered) == str(found.choice)
    if found.choice.files:
        shutil.rmtree(Path(found.url) / found.choice.files)
        answered = run(AnswerRows(replace(made, engines=again)), units)
        assert answered[0].rows_out == 50 and answered[0].extra["engines"][model].startswith("torch")
