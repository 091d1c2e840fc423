"""The report of a night that really ran, in a real browser: hostile rows in, a harmless page out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bizllm import api

NIGHT = "2026-03-10"
LAST = date.fromisoformat(NIGHT)
HOSTILE = [
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned = 2">',
    "</style></script><svg onload='window.pwned = 3'>",
    "{{ 7 * 7 }} <!-- \u202e --> ${alert(1)}",
]

SEEN = """({
    pwned: window.pwned ?? null,
    scripts: document.querySelectorAll('script').length,
    images: document.querySelectorAll('img').length,
    charts: [...document.querySelectorAll('figure svg')].filter(svg => {
        const {width, height} = svg.getBoundingClientRect();
        const marks = [...svg.querySelectorAll('path')].filter(mark => mark.getBoundingClientRect().width > 2);
        return width > 100 && height > 50 && marks.length >= 3;
    }).length,
    marked: document.querySelectorAll('.sample mark[class^=why]').length,
    text: document.body.innerText,
    beyond: document.documentElement.scrollWidth - document.documentElement.clientWidth,
})"""


@pytest.fixture(scope="module")
def night(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """(job, result): a night of tickets, sales and orders with hostile text in rows, series and names of customers."""
    folder = tmp_path_factory.mktemp("shop")
    tickets = {
        "ticket_id": [f"t{i}" for i in range(8)],
        "body": [f"Ticket {i}. {HOSTILE[i % 4]} Late. 我想退款。{HOSTILE[i % 4]} Please call." for i in range(8)],
    }
    days = [LAST - timedelta(days=back) for back in range(90)]
    sales = [
        {"sku": sku, "day": day, "units": 20 + 5 * (day.weekday() > 4) + n}
        for n, sku in enumerate(["socks", HOSTILE[0], HOSTILE[1]])
        for day in days
    ]
    orders = [
        {
            "order_id": f"{c}-{back}",
            "customer": f"{c} {HOSTILE[c % 4]}",
            "at": datetime.combine(LAST - timedelta(days=back), datetime.min.time()),
            "amount": float(20 + c + back % 7),
        }
        for c in range(30)
        for back in range(c % 5, 120, [7, 30, 45][c % 3])
    ]
    labelled = {
        "said": ["Late again.", "It is late. <script>", "我想退款。", "退款 please"] * 3,
        "kind": ["late", "late", HOSTILE[0], HOSTILE[0]] * 3,
    }
    given = (("tickets", pa.table(tickets)), ("labelled", pa.table(labelled)), ("sales", sales), ("orders", orders))
    for name, rows in given:
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
        pq.write_table(table, folder / f"{name}.parquet")
    job = {
        "name": "shop",
        "warehouse": {"path": "wh"},
        "sources": {
            "tickets": {"path": "tickets.parquet", "key": ["ticket_id"]},
            "sales": {"path": "sales.parquet", "key": ["sku", "day"]},
            "orders": {"path": "orders.parquet", "key": ["order_id"]},
            "labelled": {"path": "labelled.parquet"},
        },
        "steps": {
            "summary": {"task": "summarize", "input": "tickets", "text": "body", "max_sentences": 2, "dates": "all"},
            "demand": {
                "task": "forecast",
                "input": "sales",
                "series": ["sku"],
                "time": "day",
                "target": "units",
                "freq": "D",
                "horizon": 7,
            },
            "kinds": {
                "task": "classify",
                "input": "tickets",
                "text": "body",
                "examples": {"input": "labelled", "text": "said", "label": "kind"},
                "explain": True,
            },
            "segments": {
                "task": "segment",
                "input": "orders",
                "entity": "customer",
                "time": "at",
                "amount": "amount",
            },
        },
    }
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(job, allow_unicode=True))
    result = api.run(str(path), date=NIGHT)
    assert result.state == "done", result.to_dict()
    return str(path), result


def test_a_real_night_in_a_browser(night: tuple[str, Any], visit: Callable[..., Any]) -> None:
    path, result = night
    assert result.report == api.report(path)
    page = Path(result.report).read_text(encoding="utf-8")
    seen = visit(page, SEEN)
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:image/svg+xml,")] == seen.requests[:1]
    value = seen.value
    assert (value["pwned"], value["scripts"], value["images"], value["beyond"]) == (None, 0, 0, 0)
    assert value["charts"] == 3, "a chart for each series"
    assert "<script>window.pwned = 1</script>" in value["text"], "shown as the text that it is"
    assert value["marked"] >= 2, "words that carried a label"
    for step in ("summary", "demand", "segments", "kinds"):
        assert step in value["text"]
    assert result.run_id in value["text"] and NIGHT in value["text"]


def test_the_report_of_an_unchanged_night_shows_the_same(night: tuple[str, Any], visit: Callable[..., Any]) -> None:
    """What stands is shown as the run that made it left it."""
    path, first = night
    again = api.run(path, date=NIGHT)
    assert again.state == "unchanged" and again.report != first.report
    seen = visit(Path(again.report or "").read_text(encoding="utf-8"), SEEN)
    assert seen.complaints == [] and seen.value["pwned"] is None
    assert seen.value["charts"] == 3 and "unchanged" in seen.value["text"].lower()
    Path(again.report or "").unlink()
    assert api.report(path) == again.report and Path(again.report or "").exists(), "made again from what was kept"
