"""What the exporter and `check` find out about nights, held against pasts that were written one by one."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue
from threading import Event, Thread

import pytest
from typer.testing import CliRunner, Result

from bizllm import api
from bizllm.cli import app
from bizllm.errors import UserError
from bizllm.jobs.lock import RunLock, lock_url
from bizllm.watch import exporter
from bizllm.watch.exporter import Exporter
from bizllm.watch.metrics import OF_NIGHTS
from bizllm.watch.nights import Nights, Reader, last_due, missed
from tests.listeners import wait_for
from tests.watch.conftest import LAST, NOW, Shop

Make = Callable[..., Shop]


def read(shop: Shop, now: datetime = NOW) -> Nights:
    return Reader(shop.loaded.job).read(now)


def back(days: int) -> timedelta:
    return timedelta(days=days)


def test_a_job_that_never_ran(shop: Make, tmp_path: Path) -> None:
    nights = read(shop())
    assert (nights.newest, nights.steps, nights.last_good, nights.missed, nights.locks) == (None, {}, None, 0, ())
    assert not (tmp_path / "shop/wh").exists(), "looking leaves nothing behind"


def test_the_newest_night_and_the_last_good_one(shop: Make) -> None:
    one = shop(due="00:00")
    one.ran(LAST - back(2))
    one.ran(LAST - back(1), "failed", seconds=3.0, error="boom")
    one.ran(LAST - back(1), seconds=5.0, rows_rejected=2, rows_out=8)  # the retry
    one.ran(LAST - back(9))  # a backfill, later
    one.ran(LAST, "failed", only="summary", error="no space")
    one.ran(LAST, "skipped", only="labels")
    nights = read(one)
    assert (nights.newest, nights.state, nights.last_good, nights.missed) == (LAST, "failed", LAST - back(1), 1)
    assert {name: (s.state, s.published) for name, s in nights.steps.items()} == {
        "summary": ("failed", None),
        "labels": ("skipped", None),
    }
    assert nights.last_good_at is not None and abs(nights.last_good_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_night_counts_only_whole_and_a_new_step_makes_no_old_night_bad(shop: Make) -> None:
    one = shop(due="00:00")
    one.ran(LAST - back(3), only="summary")  # before the job had `labels`
    one.ran(LAST - back(2))
    assert read(one).last_good == LAST - back(2)
    one.ran(LAST - back(1), only="summary")
    assert (read(one).last_good, read(one).missed) == (LAST - back(2), 2)
    one.ran(LAST - back(1), only="labels")
    assert (read(one).last_good, read(one).missed) == (LAST - back(1), 1)


def test_figures_are_of_the_run_that_made_what_stands(shop: Make) -> None:
    one = shop()
    for days, seconds in ((9, 100.0), (4, 10.0), (3, 20.0), (2, 30.0)):
        one.ran(LAST - back(days), seconds=seconds, cost=0.25)
    one.ran(LAST, seconds=44.0, tokens=900, cost=0.5)
    one.ran(LAST, "unchanged", publish=False, rows_in=10, rows_out=10, seconds=0.1, cost=0.0)
    step = read(one).steps["summary"]
    assert (step.state, step.seconds, step.tokens, step.cost) == ("unchanged", 44.0, 900, 0.5)
    assert step.usual_s == 25.0, "the median of 100, 10, 20, 30"
    assert step.published is not None and step.published.rows == 10


def test_no_usual_time_of_two_nights(shop: Make) -> None:
    one = shop()
    for days in (2, 1, 0):
        one.ran(LAST - back(days))
    assert read(one).steps["summary"].usual_s is None


@pytest.mark.parametrize(
    ("due", "zone", "now", "expected"),
    [
        ("06:00", "UTC", "2026-03-11T05:59:00+00:00", "2026-03-09"),
        ("06:00", "UTC", "2026-03-11T06:00:00+00:00", "2026-03-10"),
        ("06:00", "Asia/Shanghai", "2026-03-10T21:59:00+00:00", "2026-03-09"),
        ("06:00", "Asia/Shanghai", "2026-03-10T22:00:00+00:00", "2026-03-10"),
        (None, "UTC", "2026-03-11T23:59:00+00:00", "2026-03-09"),
        (None, "UTC", "2026-03-12T00:00:00+00:00", "2026-03-10"),
        ("02:30", "Europe/London", "2026-03-29T01:31:00+00:00", "2026-03-28"),  # clocks went from 01:00 to 02:00 there
    ],
)
def test_when_a_night_is_due(shop: Make, due: str | None, zone: str, now: str, expected: str) -> None:
    job = shop(timezone=zone, **({"due": due} if due else {})).loaded.job
    assert last_due(job, datetime.fromisoformat(now)).isoformat() == expected


def test_missed_nights() -> None:
    day = LAST
    assert missed(day, day - back(5), day) == 0
    assert missed(day - back(1), day - back(5), day) == 1
    assert missed(None, day - back(5), day) == 6, "none of them was good"
    assert missed(None, None, day) == 0, "nobody has run it yet"
    assert missed(day, day, day - back(1)) == 0, "it came before it was due"


def test_an_open_lock_is_told_until_it_is_given_back(shop: Make) -> None:
    one = shop()
    with RunLock(lock_url(one.warehouse.path, "shop", LAST), holder="r"):
        (held,) = read(one).locks
        assert held.run_date == LAST and abs(held.renewed - time.time()) < 60 and held.taken <= held.renewed + 1
        later = NOW + timedelta(days=8)
        assert read(one, later).locks == (), "an old one is of no run that anybody waits for"
    assert read(one).locks == ()


# -- the exporter -------------------------------------------------------------------------------------------------


def test_the_ledger_is_read_again_only_when_it_has_changed(shop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from bizllm.watch import nights

    one = shop()
    one.ran(LAST - back(1))
    reads: list[str] = []
    whole = nights.ledger.read
    monkeypatch.setattr(nights.ledger, "read", lambda *a, **k: reads.append(a[1]) or whole(*a, **k))
    reader = Reader(one.loaded.job)
    assert [reader.read(NOW).newest for _ in range(3)] == [LAST - back(1)] * 3 and reads == ["shop"]
    one.ran(LAST)
    assert reader.read(NOW).newest == LAST and reads == ["shop"] * 2


def test_a_warehouse_that_fails_leaves_the_others_and_what_was_known(shop: Make) -> None:
    good, bad = shop("good"), shop("bad")
    good.ran(LAST)
    bad.ran(LAST)
    exporter = Exporter([good.loaded.job, bad.loaded.job])
    assert exporter.refresh()
    (Path(bad.warehouse.path) / "catalog.db").write_bytes(b"no database at all" * 400)
    assert not exporter.refresh()
    text = exporter.text()
    assert (
        'bizllm_exporter_job_up{job_name="bad"} 0.0' in text and 'bizllm_exporter_job_up{job_name="good"} 1.0' in text
    )
    assert 'bizllm_step_records{job_name="bad",step="labels"} 10.0' in text, "what was known stays"


def test_names_and_text_are_what_prometheus_wants(shop: Make, promtool: str) -> None:
    one = shop(due="00:00", budget=3)
    for days in (4, 3, 2, 1, 0):
        one.ran(LAST - back(days), cost=0.1)
    with RunLock(lock_url(one.warehouse.path, "shop", LAST)):
        exporter = api.metrics(str(one.path))
    assert {name for name, *_ in exporter.values()} == {metric.name for metric in OF_NIGHTS}, "all are there"
    checked = subprocess.run([promtool, "check", "metrics"], input=exporter.text(), text=True, capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, args)


def test_served_until_it_is_stopped(shop: Make) -> None:
    one = shop(due="00:00")
    one.ran(LAST - back(2))
    command = [sys.executable, "-m", "bizllm.cli", "metrics", str(one.path), "--port", "0", "--every", "1"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        url = server.stderr.readline().split()[-1]
        assert url.startswith("http://127.0.0.1:"), url

        def scraped() -> str:
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=")
                return str(answer.read().decode())

        assert 'bizllm_missed_nights{job_name="shop"} 2.0' in scraped()
        one.ran(LAST)
        wait_for(lambda: 'bizllm_missed_nights{job_name="shop"} 0.0' in scraped(), 20)
        with pytest.raises(UserError, match=r"--port: '127.0.0.1:\d+': can't listen there"):
            api.serve_metrics(str(one.path), port=int(url.split(":")[2].split("/")[0]))
        server.terminate()
        assert server.wait(20) == 0
    finally:
        server.kill()


def test_a_read_that_hangs_is_unhealthy_and_one_that_fails_is_not(shop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocked by hand: stores and catalogs end their own reads. What was known is served on."""
    one = shop()
    one.ran(LAST)
    monkeypatch.setattr(exporter, "HUNG_S", 2.0)
    served, ports = Exporter([one.loaded.job]), Queue[int]()
    reader = served._known[0].reader
    stop, goes_on = Event(), Event()
    really, to_come = reader.read, ["reads", "fails", "fails", "hangs"]

    def read(now: datetime) -> Nights:
        does = to_come.pop(0) if to_come else "reads"
        if does == "fails":
            raise OSError("no route to the store")
        if does == "hangs":
            assert goes_on.wait(60)
        return really(now)

    monkeypatch.setattr(reader, "read", read)
    thread = Thread(target=exporter.serve, args=(served, "127.0.0.1", 0, 1.0, stop, ports.put), daemon=True)
    thread.start()
    port = ports.get(timeout=60)

    def asked(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, str(answer.read().decode())
        except urllib.error.HTTPError as refused:
            return refused.code, str(refused.read().decode())

    try:
        assert asked("/healthz") == (200, "ok\n")
        wait_for(lambda: 'job_up{job_name="shop"} 0.0' in asked("/metrics")[1], 20)
        assert asked("/healthz")[0] == 200, "a warehouse that can't be read is told by the metrics, not by a restart"
        wait_for(lambda: asked("/healthz") == (503, "a read of a warehouse hangs\n"), 20)
        assert 'bizllm_step_records{job_name="shop",step="labels"} 10.0' in asked("/metrics")[1]
        goes_on.set()
        wait_for(lambda: asked("/healthz")[0] == 200, 20)
    finally:
        goes_on.set()
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_printed_once_and_wrong_jobs(shop: Make, tmp_path: Path) -> None:
    one = shop()
    one.ran(LAST)
    path = str(one.path)
    printed = invoke("metrics", path, "--once")
    assert printed.exit_code == 0 and printed.stdout.startswith("# HELP bizllm_night_run_date_timestamp_seconds ")
    twice = invoke("metrics", path, path, "--once")
    assert twice.exit_code == 2 and "second job of the name shop" in twice.stderr
    (Path(one.warehouse.path) / "catalog.db").write_bytes(b"no database at all" * 400)
    broken = invoke("metrics", path, "--once")
    assert broken.exit_code == 1 and 'job_up{job_name="shop"} 0.0' in broken.stdout
    assert "warehouse_not_read" in broken.stderr
