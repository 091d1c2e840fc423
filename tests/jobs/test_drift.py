"""Schemas that change from night to night: of the input, and of the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm import api
from bizllm.errors import UserError

FIRST, SECOND = "2026-03-09", "2026-03-10"
TEXT = "The parcel came late. The box was wet. I want my money back."


@pytest.fixture
def path(local_ray: None, job: Callable[..., str], tmp_path: Path) -> str:
    """A job whose first night is published."""
    made = job(steps__segments=None, sources__orders=None)
    tickets(tmp_path, FIRST)
    assert api.run(made, date=FIRST).state == "done"
    return made


def tickets(folder: Path, day: str, **changes: Any) -> None:
    """Four tickets; a column may be another one, or None for leaving it out."""
    rows = {"ticket_id": [f"{day}-{i}" for i in range(4)], "body": [f"{i}. {TEXT}" for i in range(4)], "shop": [1] * 4}
    rows = {name: column for name, column in {**rows, **changes}.items() if column is not None}
    pq.write_table(pa.table(rows), folder / f"tickets/dt={day}/part-0.parquet")


def test_an_added_column_is_ignored(path: str, tmp_path: Path) -> None:
    tickets(tmp_path, SECOND, channel=["mail"] * 4)
    (made,) = api.run(path, date=SECOND).steps
    assert (made.state, made.rows_out) == ("done", 4)


def test_a_column_that_no_step_reads_may_go_or_change(path: str, tmp_path: Path) -> None:
    tickets(tmp_path, SECOND, shop=None)
    assert api.run(path, date=SECOND).state == "done"
    tickets(tmp_path, SECOND, shop=["one"] * 4)
    assert api.run(path, date=SECOND).state == "done"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"body": None}, r"shop\.yaml:\d+ steps\.summary\.text: 'body': .*column 'body' is missing in the second"),
        (
            {"body": [1, 2, 3, 4]},
            r"steps\.summary\.text: 'body': .*column 'body' is string in the first and int64",
        ),
        (
            {"ticket_id": None},
            r"sources\.tickets\.key\[0\]: 'ticket_id': .*column 'ticket_id' is missing in the second",
        ),
        ({"ticket_id": [1, 2, 3, 4]}, r"sources\.tickets\.key\[0\]: 'ticket_id': .* is string in the first and int64"),
    ],
)
def test_a_column_that_is_read_may_not(path: str, tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    tickets(tmp_path, SECOND, **change)
    for verb in (api.plan, api.run):
        with pytest.raises(UserError, match=expected):
            verb(path, date=SECOND)
    assert len(api.runs(path)) == 1, "nothing was begun"


def test_a_table_takes_no_other_type(path: str, tmp_path: Path) -> None:
    """Both nights have new keys, numbers; the table of the first has texts."""
    for day in (FIRST, SECOND):
        tickets(tmp_path, day, ticket_id=[1, 2, 3, 4])
    expected = (
        r"shop\.yaml:\d+ steps\.summary: 'ticket_id': table shop\.summary: the column is string in the table and int64"
    )
    for verb in (api.plan, api.run):
        with pytest.raises(UserError, match=expected):
            verb(path, date=SECOND)
    assert len(api.runs(path)) == 1
