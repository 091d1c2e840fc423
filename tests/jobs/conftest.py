"""A small job on small files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # heads and networks lie beside the tests
from heads import Head, started_head
from nights import ROWS, night

NIGHT = "2026-03-10"


def tickets(day: str, rows: int = 12) -> pa.Table:
    """Tickets of a day in two languages, long enough for a summary to leave something out."""
    english = "The parcel came late. The box was wet. I want my money back. Please call me on Monday. Thank you."
    chinese = "快递晚了三天。箱子是湿的。我想退款。请周一给我打电话。谢谢。"
    return pa.table(
        {
            "ticket_id": [f"{day}-{i}" for i in range(rows)],
            "body": [f"{i}: {english if i % 2 else chinese}" for i in range(rows)],
        }
    )


def orders(days: int = 120, customers: int = 40) -> pa.Table:
    """Orders up to the night: a third buys every week, a third every month, a third stopped long ago."""
    last = date.fromisoformat(NIGHT)
    rows: list[dict[str, Any]] = []
    for c in range(customers):
        every, stop, amount = [(7, 0, 80.0), (30, 0, 20.0), (20, 80, 15.0)][c % 3]
        for back in range(stop + c % 5, days, every):
            when = datetime.combine(last - timedelta(days=back), datetime.min.time())
            rows.append({"order_id": f"{c}-{back}", "customer_id": f"c{c}", "at": when, "amount": amount + back % 7})
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray head that asks for a token, for the tests of one file."""
    with started_head() as started:
        yield started


@pytest.fixture
def inside(head: Head, monkeypatch: pytest.MonkeyPatch) -> Any:
    """This process may use the head; its client."""
    for variable in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(variable, head.env[variable])
    from bizllm.jobs import ray_jobs

    return ray_jobs.connect(head.url)


def shop(folder: Path) -> Callable[..., str]:
    """Writes the data; `shop(folder)(path=value, …)` the job file, parts of it changed, dots as double underscores."""
    for day in ("2026-03-09", NIGHT):
        (folder / f"tickets/dt={day}").mkdir(parents=True)
        pq.write_table(tickets(day), folder / f"tickets/dt={day}/part-0.parquet")
    (folder / "orders").mkdir()
    pq.write_table(orders(), folder / "orders/part-0.parquet")
    whole: dict[str, Any] = {
        "name": "shop",
        "timezone": "UTC",
        "warehouse": {"path": "wh"},
        "sources": {
            "tickets": {"path": "tickets", "key": ["ticket_id"], "partition": "dt"},
            "orders": {"path": "orders", "key": ["order_id"]},
        },
        "steps": {
            "summary": {"task": "summarize", "input": "tickets", "text": "body", "max_sentences": 2},
            "segments": {
                "task": "segment",
                "input": "orders",
                "entity": "customer_id",
                "time": "at",
                "amount": "amount",
            },
        },
    }

    def write(**changes: Any) -> str:
        for place, value in changes.items():
            keys = place.split("__")
            part = whole
            for key in keys[:-1]:
                part = part[key]
            if value is None:
                part.pop(keys[-1])
            else:
                part[keys[-1]] = value
        path = folder / "shop.yaml"
        path.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
        return str(path)

    return write


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., str]:
    """The shop in a folder of the test's own."""
    return shop(tmp_path)


@pytest.fixture(name="night")
def tickets_alone(job: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """One step of the shop's job with a warehouse that the nodes of a cluster see."""
    job(steps__segments=None, sources__orders=None, warehouse={"path": str(tmp_path / "wh")})
    return job


@pytest.fixture(scope="session")
def shop_in() -> Callable[[Path], Callable[..., str]]:
    """`shop`, for nights that many tests begin with."""
    return shop


def small_units(job: Callable[..., str], folder: Path) -> Callable[..., str]:
    """The shop's job in that folder with `units` small units of tickets, and no other step."""

    def write(units: int = 60, **changes: Any) -> str:
        text = "{}: The parcel came late on day {}. The box was wet. I want my money back. Please call me. Thank you."
        rows = {
            "ticket_id": [f"t{i}" for i in range(ROWS)],
            "body": [None if i % 160 == 7 else text.format(i, i % 30) for i in range(ROWS)],
        }
        size = ROWS // units
        pq.write_table(pa.table(rows), folder / f"tickets/dt={NIGHT}/part-0.parquet", row_group_size=size)
        runtime = {"num_cpus": 2, "object_store_mb": 200, "unit_rows": size, "workers": 1}
        return job(steps__segments=None, sources__orders=None, runtime=runtime, **changes)

    return write


@pytest.fixture
def many(job: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """`small_units` in a folder of the test's own."""
    return small_units(job, tmp_path)


@pytest.fixture(scope="session")
def many_in() -> Callable[[Path], Callable[..., str]]:
    """The same in a folder that is named, for nights that many tests are held against."""
    return lambda folder: small_units(shop(folder), folder)


@pytest.fixture
def undisturbed(local_ray: None, tmp_path: Path) -> Callable[[str], Any]:
    """The night of a run that nobody disturbed, in a warehouse of its own."""

    def run(path: str) -> Any:
        from bizllm import api

        elsewhere = f"warehouse.path={tmp_path / 'quiet'}"
        assert api.run(path, date=NIGHT, sets=[elsewhere]).state == "done"
        return night(path, elsewhere)

    return run
