"""What a person may get wrong: one clear line a fault, before any work, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError
from bizllm.jobs.lock import RunLock

NIGHT = "2026-03-10"
Job = Callable[..., str]


def faults(path: str, date: str = NIGHT) -> list[str]:
    """What `plan` and `run` say, which must be the same, and leave nothing behind."""
    with pytest.raises(UserError) as planned:
        api.plan(path, date=date)
    with pytest.raises(UserError) as ran:
        api.run(path, date=date)
    assert str(planned.value) == str(ran.value)
    assert not list((Path(path).parent / "wh").rglob("*.parquet")), "nothing is written"
    return str(planned.value).splitlines()


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"sources__tickets__path": "nowhere"}, "sources.tickets.path", "nowhere"),
        ({"steps__summary__text": "bdy"}, "steps.summary.text", "did you mean 'body'?"),
        ({"steps__segments__amount": "customer_id"}, "steps.segments.amount", "number"),
        ({"steps__summary__task": "sumarize"}, "steps.summary.task", "did you mean 'summarize'?"),
        ({"steps__summary__max_sentenses": 3}, "steps.summary.max_sentenses", "did you mean 'max_sentences'?"),
        ({"steps__summary__model": "builtin:minilmm"}, "steps.summary.model", "builtin"),
        ({"steps__summary__input": "ticket"}, "steps.summary.input", "did you mean 'tickets'?"),
        ({"sources__tickets__key": ["ticket"]}, "sources.tickets.key", "did you mean 'ticket_id'?"),
        ({"timezone": "Asia/Shanghia"}, "timezone", "did you mean 'Asia/Shanghai'?"),
    ],
)
def test_one_line_names_place_and_way_out(job: Job, changes: dict[str, Any], place: str, said: str) -> None:
    path = job(**changes)
    (line,) = faults(path)
    assert line.startswith(path) and place in line, line
    assert said in line, line


def test_horizon_zero(job: Job) -> None:
    step = {"task": "forecast", "input": "orders", "series": ["customer_id"], "time": "at", "target": "amount"}
    (line,) = faults(job(steps__demand={**step, "freq": "D", "horizon": 0}))
    assert "steps.demand.horizon" in line and "0" in line


def test_a_cycle_is_named(job: Job) -> None:
    one = {"task": "summarize", "input": "two", "text": "summary"}
    lines = faults(job(steps__one=one, steps__two={**one, "input": "one"}))
    assert any("one" in line and "two" in line and "→" in line for line in lines), lines


def test_every_fault_at_once(job: Job) -> None:
    lines = faults(job(steps__summary__text="bdy", steps__segments__time="when"))
    assert len(lines) == 2


def test_files_that_are_wrong(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "orders"
    (folder / "part-0.parquet").unlink()
    (line,) = faults(job())
    assert "sources.orders.path" in line and "Parquet" in line  # an empty folder
    (folder / "part-0.parquet").write_text("order_id,amount\n1,2\n")
    (line,) = faults(job())
    assert "part-0.parquet" in line and "Parquet" in line
    rows = {"order_id": ["1"], "customer_id": ["c"], "at": [datetime(2026, 3, 9)]}
    for name, amount in (("part-0", 1.0), ("part-1", "x")):
        pq.write_table(pa.table({**rows, "amount": [amount]}), folder / f"{name}.parquet")
    (line,) = faults(job())
    assert "part-0.parquet" in line and "part-1.parquet" in line and "amount" in line


def test_a_date_without_a_partition_names_those_there_are(job: Job) -> None:
    (line,) = faults(job(), date="2026-03-11")
    assert "2026-03-10" in line and "2026-03-11" in line


def test_a_date_in_the_future(job: Job) -> None:
    later = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
    (line,) = faults(job(), date=later)
    assert "--date" in line and "future" in line


def test_a_warehouse_that_cannot_be_written(job: Job, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = job(warehouse__path="file/wh")
    with pytest.raises(UserError, match=r"warehouse.path.*can't write"):
        api.run(path, date=NIGHT)


def test_a_source_column_that_clashes_with_the_contract(job: Job) -> None:
    (line,) = faults(job(sources__orders__rename={"customer_id": "Run_ID"}, steps__segments__entity="Run_ID"))
    assert "clashes" in line and "rename" in line


def test_only_needs_what_it_reads(job: Job) -> None:
    again = {"task": "summarize", "input": "summary", "text": "summary"}
    path = job(steps__again=again)
    with pytest.raises(UserError, match="nothing published"):
        api.run(path, date=NIGHT, only=["again"])
    with pytest.raises(UserError, match="did you mean 'summary'"):
        api.run(path, date=NIGHT, only=["sumary"])


def test_a_second_run_of_the_same_night_is_refused(job: Job, tmp_path: Path) -> None:
    from bizllm.errors import LockHeld

    path = job()
    with (
        RunLock(str(tmp_path / f"wh/_bizllm/shop/locks/{NIGHT}.json"), "other"),
        pytest.raises(LockHeld, match="other"),
    ):
        api.run(path, date=NIGHT)
