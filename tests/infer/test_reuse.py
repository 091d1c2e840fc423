"""What is copied and what is asked, for any rows in any units: the stages one after the other, without Ray."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bizllm.errors import RunError
from bizllm.infer import reuse
from bizllm.infer.groups import Scatter
from bizllm.infer.receipts import Receipt
from bizllm.infer.reuse import Hashes
from bizllm.infer.rows import AnswerRows, RowUnit
from bizllm.infer.work import StepContext
from bizllm.jobs.stages import EarlierNights, work
from bizllm.tables.manifest import freeze
from bizllm.tables.source import Source
from bizllm.tables.warehouse import DataFile, Slice
from bizllm.tasks.summarize import Summarize

TEXTS = [None, "", *(f"Parcel {i} came late. The box was wet. I want my money back." for i in range(5))]
ROWS = st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=24)


class Night:
    """A row step over texts, in units of so many rows; copies from an earlier one."""

    def __init__(self, folder: Path, context: Callable[..., StepContext], run: str, texts: Sequence[int], size: int):
        shutil.rmtree(folder / run, ignore_errors=True)
        (folder / run / "in").mkdir(parents=True)
        rows = {
            "id": [f"{run}{i}" for i in range(len(texts))],
            "body": pa.array([TEXTS[t] for t in texts], pa.string()),
        }
        pq.write_table(pa.table(rows), folder / run / "in/a.parquet", row_group_size=size)
        self.context = context(folder / run / "in", ["id"], run=run, task="summarize", text="body", max_sentences=1)
        self.manifest = freeze(self.context.source, self.context.run_date, "all", ["id", "body"], size, 10**9)
        self.texts = {f"{run}{i}": TEXTS[t] for i, t in enumerate(texts)}

    def work(self, earlier: Night | None = None) -> None:
        files = [DataFile(f.url, f.rows, f.bytes) for r in earlier.receipts for f in r.files] if earlier else []
        slice_ = Slice(self.context.schema, files, 1, plain=True)
        published: Any = object() if earlier else None
        before = EarlierNights(None, published, lambda _: slice_, lambda: self.context.source)

        def run(stage: Any, units: Any) -> list[Receipt]:
            stage.open() if stage.holds_model else None
            return [Receipt.from_json(stage.work(unit, stage.read(unit)).to_json()) for unit in units]

        self.receipts, self.counts = work(run, self.context, self.manifest, 1, before, "")

    def rows(self, rejects: bool = False) -> list[dict[str, Any]]:
        files = [file for r in self.receipts for file in (r.reject_files if rejects else r.files)]
        return [row for file in files for row in pq.read_table(file.url, partitioning=None).to_pylist()]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.none() | ROWS, now=ROWS, size=st.integers(1, 9), bucket_bytes=st.sampled_from([1 << 30, 700]))
def test_every_row_has_its_answer_and_every_text_is_asked_once(
    tmp_path: Path,
    context: Callable[..., StepContext],
    monkeypatch: Any,
    before: Any,
    now: list[int],
    size: int,
    bucket_bytes: int,
) -> None:
    asked: Counter[str] = Counter()
    answer = Summarize.answer

    def counted(self: Summarize, batch: Any) -> Any:
        asked.update(text for text in batch["body"].to_pylist() if text)
        return answer(self, batch)

    earlier = None
    if before is not None:
        earlier = Night(tmp_path, context, "e", before, 4)
        earlier.work()
    with monkeypatch.context() as patch:
        patch.setattr(Summarize, "answer", counted)
        patch.setattr(reuse, "BUCKET_BYTES", bucket_bytes)  # of an earlier night, 700: several buckets
        night = Night(tmp_path, context, "n", now, size)
        night.work(earlier)

    answered = {row["id"]: row for row in night.rows()}
    rejected = {row["id"]: row for row in night.rows(rejects=True)}
    assert len(night.rows()) == len(answered) and len(night.rows(rejects=True)) == len(rejected), "each once"
    assert answered.keys() == {key for key, text in night.texts.items() if text}
    assert rejected.keys() == {key for key, text in night.texts.items() if not text}
    for key, row in answered.items():
        assert row["summary"] == str(night.texts[key]).partition(".")[0] + "." and row["run_id"] == "n"
    known = {text for text in earlier.texts.values() if text} if earlier else set()
    assert asked == Counter({text for text in night.texts.values() if text} - known), "what is new, once"
    counts = night.counts
    assert counts.rows_in == len(now) == counts.rows_out + counts.rows_rejected
    assert counts.rows_out == len(answered)
    assert counts.rows_reused == sum(text in known for text in night.texts.values() if text)
    when = {row["input_hash"]: row["produced_at"] for row in earlier.rows()} if earlier else {}
    assert all(row["produced_at"] == when.get(row["input_hash"], row["produced_at"]) for row in answered.values())


@pytest.mark.parametrize("stage", [lambda c: AnswerRows(c), lambda c: Hashes(c, 1), lambda c: Scatter(c, 1)])
def test_a_file_that_changes_in_the_midst_of_its_reading_is_named(
    tmp_path: Path, context: Callable[..., StepContext], monkeypatch: pytest.MonkeyPatch, stage: Callable[..., Any]
) -> None:
    """Whatever was read then, half of the old file and half of the new, goes nowhere."""
    night = Night(tmp_path, context, "n", [2, 3, 4], 3)
    (unit,) = night.manifest.units
    read = Source.read

    def disturbed(self: Source, *args: Any) -> pa.Table:
        rows = read(self, *args)
        file = tmp_path / "n/in/a.parquet"
        pq.write_table(pq.read_table(file, partitioning=None).slice(1), file)
        return rows

    monkeypatch.setattr(Source, "read", disturbed)
    made = stage(night.context)
    with pytest.raises(RunError, match=r"a\.parquet: the file changed since the input was frozen"):
        made.read(RowUnit(unit) if isinstance(made, AnswerRows) else unit)
