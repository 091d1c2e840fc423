"""Nights that copy what did not change: counted by the tokens that models read, equal to nights that compute all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError

FIRST, SECOND = "2026-03-09", "2026-03-10"
Job = Callable[..., str]
Make = Callable[..., Path]
WORDS = ["the", "lamp", "kettle", "is", "broken"]

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def embed(job: Job, fine_tuned: Make) -> Callable[..., str]:
    """A job of one step `vectors`, in units of 50 rows; `embed(step={…})` changes the step, `more` adds such steps."""
    model = fine_tuned(objective="embedding")

    def write(step: dict[str, Any] | None = None, more: Any = None, **changes: Any) -> str:
        said = {"task": "embed", "input": "tickets", "text": "body", "model": f"path:{model}", **(step or {})}
        steps = {"vectors": said} | {name: said | other for name, other in (more or {}).items()}
        runtime = {"unit_rows": 50, "workers": 1}
        return job(steps=steps, sources__orders=None, runtime=runtime, **changes)

    return write


def text(i: int) -> str:
    return f"{WORDS[i % 5]} {i} {WORDS[i * 7 % 5]}"


def write(folder: Path, day: str, bodies: list[str | None], files: int = 1, keys: str = "k") -> None:
    """Tickets of a day, in row groups of 50."""
    place = folder / f"tickets/dt={day}"
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("*.parquet"):
        old.unlink()
    for number in range(files):
        part = range(number, len(bodies), files)
        rows = {"ticket_id": [f"{keys}{i}" for i in part], "body": pa.array([bodies[i] for i in part], pa.string())}
        pq.write_table(pa.table(rows), place / f"part-{number}.parquet", row_group_size=50)


def rows(path: str, step: str, day: str, *sets: str) -> list[dict[str, Any]]:
    """A night's rows but for what tells runs apart."""
    query = f"select * exclude (run_id, produced_at) from {step} where run_date = '{day}' order by all"
    return api.show(path, sql=query, sets=sets).to_pylist()


def test_a_night_computes_what_changed(embed: Callable[..., str], tmp_path: Path) -> None:
    """One row in a hundred is new; the others come in another order, in other files, under other keys."""
    bodies: list[str | None] = [text(i) for i in range(300)]
    bodies[7] = bodies[299] = None
    path = embed()
    write(tmp_path, FIRST, bodies)
    (first,) = api.run(path, date=FIRST).steps
    assert (first.rows_in, first.rows_out, first.rows_rejected, first.rows_reused) == (300, 298, 2, 0)
    changed = [text(1000 + i) if i % 100 == 3 else body for i, body in enumerate(bodies)]
    write(tmp_path, SECOND, changed[::-1], files=3, keys="other")
    (second,) = api.run(path, date=SECOND).steps
    assert (second.rows_in, second.rows_out, second.rows_rejected, second.rows_reused) == (300, 298, 2, 295)
    assert 0 < second.tokens <= 0.05 * first.tokens, "three rows of three hundred were asked"

    every = [f"warehouse.path={tmp_path / 'whole'}", "steps.vectors.reuse=false"]
    (whole,) = api.run(path, date=SECOND, sets=every).steps
    assert whole.tokens > 0.9 * first.tokens and whole.rows_reused == 0
    assert _close(rows(path, "vectors", SECOND), rows(path, "vectors", SECOND, *every))
    copied = api.show(path, sql="select run_date, run_id, produced_at from vectors").to_pylist()
    made = {row["produced_at"] for row in copied if str(row["run_date"]) == FIRST}
    tonight = [row for row in copied if str(row["run_date"]) == SECOND]
    assert sum(row["produced_at"] in made for row in tonight) == 295, "a copied answer keeps when it was produced"
    assert len({row["run_id"] for row in tonight}) == 1
    ledger = {row["run_id"]: row for row in api.runs(path)}
    assert ledger[tonight[0]["run_id"]]["rows_reused"] == 295


@pytest.mark.slow  # four nights
def test_other_settings_compute_all(embed: Callable[..., str], tmp_path: Path, fine_tuned: Make) -> None:
    write(tmp_path, FIRST, [text(i) for i in range(60)])
    write(tmp_path, SECOND, [text(i) for i in range(60)])
    path = embed()
    api.run(path, date=FIRST)
    other = fine_tuned(objective="embedding", weights=lambda name, value: value * 0.5)
    assert api.run(path, date=SECOND, sets=[f"steps.vectors.model=path:{other}"]).steps[0].rows_reused == 0
    assert api.run(path, date=SECOND).steps[0].rows_reused == 60, "the night before had that model"
    assert api.run(path, date=SECOND, fresh=True).steps[0].rows_reused == 0
    assert api.run(path, date=SECOND).state == "unchanged"


def test_a_rebuilt_night_copies_its_own_rows(embed: Callable[..., str], tmp_path: Path) -> None:
    write(tmp_path, SECOND, [text(i) for i in range(60)])
    path = embed()
    api.run(path, date=SECOND)
    write(tmp_path, SECOND, [text(i) for i in range(80)], files=2)
    (again,) = api.run(path, date=SECOND).steps
    assert (again.rows_out, again.rows_reused) == (80, 60)
    gone = [file for file in (tmp_path / "wh").rglob("*.parquet") if "vectors" in file.parts and "data" in file.parts]
    assert gone
    for file in gone:
        file.unlink()
    write(tmp_path, SECOND, [text(i) for i in range(81)], files=2)
    (failed,) = api.run(path, date=SECOND).steps
    assert failed.state == "failed" and re.search("file of the earlier night is gone; --fresh", failed.error or "")


def test_identical_rows_are_answered_once(embed: Callable[..., str], tmp_path: Path) -> None:
    """One text, and four, over three units; what is rejected is rejected for every row."""
    bodies = {n: [None if i % 10 == 9 else text(i % n) for i in range(150)] for n in (1, 4)}
    write(tmp_path, SECOND, bodies[1])
    write(tmp_path / "others", SECOND, bodies[4])
    others = {"path": "others/tickets", "key": ["ticket_id"], "partition": "dt"}
    path = embed(step={"reject_budget": 0.0}, more={"four": {"input": "others"}}, sources__others=others)
    one, four = api.run(path, date=SECOND).steps
    for made, each in ((one, bodies[1]), (four, bodies[4])):
        assert (made.rows_in, made.rows_out, made.rows_rejected, made.rows_reused) == (150, 135, 15, 0)
        found = rows(path, made.step, SECOND)
        texts = {f"k{i}": body for i, body in enumerate(each)}
        assert {row["ticket_id"] for row in found} == {key for key, body in texts.items() if body}
        asked = {texts[row["ticket_id"]]: row["input_tokens"] for row in found}
        assert made.tokens == sum(asked.values()), "each different text was read once"
        vectors = {(texts[row["ticket_id"]], tuple(row["vector"])) for row in found}
        assert len(vectors) == len(asked) == len({body for body in each if body})
        rejected = api.show(path, f"{made.step}__rejects", limit=1000).to_pylist()
        assert {row["ticket_id"] for row in rejected} == {key for key, body in texts.items() if not body}
        assert {row["code"] for row in rejected} == {"empty"}


def test_groups_that_did_not_change_are_copied(job: Job, tmp_path: Path) -> None:
    lines = [f"The parcel {i} came late. The box was wet. I want my money back {i}. Call me." for i in range(40)]

    def tickets(day: str, changed: bool) -> None:
        bodies = [line + " It is urgent." if changed and i == 11 else line for i, line in enumerate(lines)]
        table = pa.table(
            {"ticket_id": [f"{i}" for i in range(40)], "shop": [f"s{i % 8}" for i in range(40)], "body": bodies}
        )
        pq.write_table(table, tmp_path / f"tickets/dt={day}/part-0.parquet")

    tickets(FIRST, False)
    tickets(SECOND, True)
    step = {
        "task": "summarize",
        "input": "tickets",
        "text": "body",
        "per": ["shop"],
        "max_sentences": 2,
        "dates": "day",
    }
    path = job(steps={"shops": step}, sources__orders=None)
    assert api.run(path, date=FIRST).steps[0].rows_reused == 0
    (made,) = api.run(path, date=SECOND).steps
    assert (made.rows_in, made.rows_out, made.rows_reused) == (8, 8, 7)
    whole = [f"warehouse.path={tmp_path / 'whole'}"]
    api.run(path, date=SECOND, sets=whole)
    assert rows(path, "shops", SECOND) == rows(path, "shops", SECOND, *whole)


def test_rejected_rows_are_tried_again(embed: Callable[..., str], tmp_path: Path) -> None:
    """Into the same night, in one more snapshot; a night without rejects stands."""
    write(tmp_path, SECOND, [None if i in (3, 33) else text(i) for i in range(60)])
    path = embed(step={"reuse": False})
    with pytest.raises(UserError, match=r"--retry-rejects.*vectors.*no finished night of 2026-03-10"):
        api.run(path, date=SECOND, retry_rejects=True)
    api.run(path, date=SECOND)
    before = rows(path, "vectors", SECOND)
    (again,) = api.run(path, date=SECOND, retry_rejects=True).steps
    assert (again.state, again.rows_out, again.rows_rejected, again.rows_reused) == ("done", 58, 2, 58)
    assert again.tokens == 0 and rows(path, "vectors", SECOND) == before
    with pytest.raises(UserError, match="either --fresh or --retry-rejects"):
        api.run(path, date=SECOND, retry_rejects=True, fresh=True)
    write(tmp_path, SECOND, [text(i) for i in range(60)])
    with pytest.raises(UserError, match="no finished night"):
        api.run(path, date=SECOND, retry_rejects=True)
    api.run(path, date=SECOND)
    assert api.run(path, date=SECOND, retry_rejects=True).state == "unchanged"


def _close(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Equal but for the noise of floating point: other rows were beside them in a batch."""
    if [{**row, "vector": None} for row in mine] != [{**row, "vector": None} for row in theirs]:
        return False
    return all(a["vector"] == pytest.approx(b["vector"], abs=1e-6) for a, b in zip(mine, theirs, strict=True))
