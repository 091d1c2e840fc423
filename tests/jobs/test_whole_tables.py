"""Steps that read further tables whole: what they learned is kept, and answers stand as long as it was the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import RunError, UserError
from bizllm.jobs.step import StepRun

FIRST, SECOND = "2026-03-09", "2026-03-10"
Job = Callable[..., str]

WORDS = {"refund": ["money", "back", "refund"], "delivery": ["parcel", "late", "courier"]}


def bodies(rows: int, start: int = 0) -> list[str]:
    """Texts of the two labels in turns; no two alike."""
    said = [*WORDS.values()]
    return [f"{said[i % 2][i % 3]} number {start + i} {said[i % 2][(i + 1) % 3]}" for i in range(rows)]


def examples(rows: int = 12) -> pa.Table:
    """Labelled texts, one of them without a label and one without a text."""
    labels: list[str | None] = [[*WORDS][i % 2] for i in range(rows)]
    table = pa.table({"said": bodies(rows, 500), "is": labels})
    return pa.concat_tables([table, pa.table({"said": ["what", None], "is": [None, "refund"]}, schema=table.schema)])


@pytest.fixture
def intents(job: Job, tmp_path: Path) -> Callable[..., str]:
    """A job of one step `intent` that learns from the source `labelled`."""
    (tmp_path / "labelled").mkdir()
    pq.write_table(examples(), tmp_path / "labelled/a.parquet")
    for day, start in ((FIRST, 0), (SECOND, 30)):
        rows = {"ticket_id": [f"{day}-{i}" for i in range(60)], "body": bodies(60, start)}
        pq.write_table(pa.table(rows), tmp_path / f"tickets/dt={day}/part-0.parquet", row_group_size=20)

    def write(step: dict[str, Any] | None = None, **changes: Any) -> str:
        said = {
            "task": "classify",
            "input": "tickets",
            "text": "body",
            "examples": {"input": "labelled", "text": "said", "label": "is"},
        }
        steps = {"intent": said | (step or {})}
        labelled = {"path": "labelled"}
        runtime = {"unit_rows": 20, "workers": 1}
        return job(
            **{"steps": steps, "sources__orders": None, "sources__labelled": labelled, "runtime": runtime, **changes}
        )

    return write


def labels(path: str, day: str) -> list[tuple[str, str]]:
    query = f"select ticket_id, label from intent where run_date = '{day}' order by all"
    return [(row["ticket_id"], row["label"]) for row in api.show(path, sql=query).to_pylist()]


@pytest.mark.usefixtures("local_ray")
def test_a_night_learns_once_and_copies_while_the_examples_are_the_same(
    intents: Callable[..., str], tmp_path: Path
) -> None:
    path = intents()
    (first,) = api.run(path, date=FIRST).steps
    assert (first.state, first.rows_in, first.rows_out, first.rows_reused) == ("done", 60, 60, 0)
    assert all(label == [*WORDS][int(key.rsplit("-", 1)[1]) % 2] for key, label in labels(path, FIRST))
    kept = list((tmp_path / "wh").rglob("fits/*.safetensors"))
    assert len(kept) == 1

    # The same rows in other files, in another order: nothing is learned anew.
    table = examples()
    pq.write_table(table.take(list(range(len(table)))[::-1]), tmp_path / "labelled/b.parquet")
    (tmp_path / "labelled/a.parquet").unlink()
    (again,) = api.run(path, date=FIRST).steps
    assert (again.state, again.rows_reused) == ("done", 60), "the files changed, their rows did not"
    (second,) = api.run(path, date=SECOND).steps
    assert (second.rows_in, second.rows_reused) == (60, 30), "half of the texts were there the night before"
    assert [*(tmp_path / "wh").rglob("fits/*.safetensors")] == kept, "what the first night learned stands"

    # Another label for one of them: every answer is another matter.
    changed = table.set_column(1, "is", pa.array(["delivery", *table["is"].to_pylist()[1:]]))
    pq.write_table(changed, tmp_path / "labelled/b.parquet")
    (last,) = api.run(path, date=SECOND).steps
    assert (last.state, last.rows_reused) == ("done", 0)
    assert len([*(tmp_path / "wh").rglob("fits/*.safetensors")]) == 2
    (stands,) = api.run(path, date=SECOND).steps
    assert stands.state == "unchanged"


@pytest.mark.usefixtures("local_ray")
def test_an_earlier_step_is_read_whole_as_it_was_published(intents: Callable[..., str]) -> None:
    """The labels of one step teach another, which waits for it; where the first fails, the second is skipped."""
    first = {
        "task": "classify",
        "input": "tickets",
        "text": "body",
        "examples": {"input": "labelled", "text": "said", "label": "is"},
    }
    texts = {"task": "mask", "input": "tickets", "text": "body"}
    counted = {"input": "texts", "text": "body", "label": "entity_count"}
    second = {**first, "examples": counted, "labels": {"many": "many names"}}
    path = intents(steps={"second": second, "texts": texts, "first": first})
    run = api.run(path, date=FIRST)
    done = [(step.step, step.state, step.rows_out) for step in run.steps]
    assert done == [("texts", "done", 60), ("second", "done", 60), ("first", "done", 60)]
    failed = api.run(path, date=SECOND, sets=["steps.texts.max_input_chars=3"])
    states = {step.step: step.state for step in failed.steps}
    assert states == {"second": "skipped", "texts": "failed", "first": "done"}
    with pytest.raises(UserError, match="reads step 'texts', which has nothing published"):
        api.run(path, date=SECOND, only=["second"])


@pytest.mark.usefixtures("local_ray")
def test_a_run_that_died_goes_on_with_what_it_learned(
    intents: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is that of the first run; the examples, frozen then, may not have changed since; gc leaves it alone."""
    path, table = intents(), tmp_path / "labelled/a.parquet"
    with monkeypatch.context() as patched:
        patched.setattr(StepRun, "_audited", lambda *_: (_ for _ in ()).throw(RunError("the machine is gone")))
        (died,) = api.run(path, date=FIRST).steps
    assert died.state == "failed"
    (kept,) = (tmp_path / "wh").rglob("fits/*.safetensors")
    pq.write_table(examples(14), table)
    (changed,) = api.run(path, date=FIRST).steps
    assert changed.state == "done", "every unit had its receipt, so nothing was read again"
    assert [*(tmp_path / "wh").rglob("fits/*.safetensors")] == [kept]
    os.utime(kept, (0, 0))
    assert api.gc(path, older_than="1h")["removed"] == [] and kept.exists()

    # With the night published, the input is looked at again.
    (again,) = api.run(path, date=FIRST).steps
    assert (again.state, again.rows_reused) == ("done", 0)


@pytest.mark.usefixtures("local_ray")
def test_too_few_examples_fail_the_step_in_words(intents: Callable[..., str], tmp_path: Path) -> None:
    pq.write_table(examples().slice(0, 1), tmp_path / "labelled/a.parquet")
    (step,) = api.run(intents(), date=FIRST).steps
    assert step.state == "failed" and step.error is not None
    assert "1 usable texts of 1 labels; expected two labels at least" in step.error


@pytest.mark.parametrize(
    ("table", "at", "said"),
    [
        ({"input": "labeled"}, "examples.input", "did you mean 'labelled'?"),
        ({"input": "intent"}, "examples.input", "these steps read each other in a circle: intent → intent"),
        ({"label": "ist"}, "examples.label", "no such column in 'labelled'; there are said, is"),
        ({"label": None}, "examples.label", "is missing"),
        ({"dates": "always"}, "examples.dates", "'day', 'to_date' or 'all'"),
        ({"columns": []}, "examples.columns", "known are input, dates, text, label"),
    ],
)
def test_faults_of_a_further_table_are_told_by_place(
    table: dict[str, Any], at: str, said: str, intents: Callable[..., str]
) -> None:
    whole = {"input": "labelled", "text": "said", "label": "is", **table}
    path = intents(step={"examples": {key: value for key, value in whole.items() if value is not None}})
    with pytest.raises(UserError) as told:
        api.plan(path, date=FIRST)
    assert len(told.value.faults) == 1
    assert f"steps.intent.{at}" in told.value.faults[0].place and said in str(told.value)


def test_a_plan_tells_the_further_tables(intents: Callable[..., str]) -> None:
    (step,) = api.plan(intents(), date=FIRST).steps
    assert step.tables == {"examples": "labelled"}


def test_a_column_of_the_steps_own_input_is_told_once(job: Job) -> None:
    """A step that reads its input whole, too, tells of a column by the setting that names it."""
    step = {"task": "recommend", "input": "orders", "entity": "custmer", "item": "order_id", "time": "at"}
    with pytest.raises(UserError) as told:
        api.plan(job(steps={"next": step}), date=FIRST)
    (fault,) = told.value.faults
    assert fault.place.endswith("steps.next.entity") and "did you mean 'customer_id'?" in str(told.value)
