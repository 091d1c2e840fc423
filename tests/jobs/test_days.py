"""What last night is, by the clocks of places that change them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine

from bizllm.jobs.days import days, last_night
from bizllm.jobs.job import load_job, run_date

# Changes at 2:00, at 1:00 UTC, never, over a whole day, at midnight both times (2026), by half an hour.
YEARS = [
    ("America/New_York", 2026),
    ("Europe/Berlin", 2026),
    ("Asia/Shanghai", 2026),
    ("Pacific/Apia", 2011),
    ("Africa/Cairo", 2026),
    ("Australia/Lord_Howe", 2026),
]
HOUR = timedelta(hours=1)


def hours(year: int) -> Iterator[datetime]:
    """Every half hour that passed, in UTC, a day more on either side."""
    at, end = datetime(year, 1, 1, tzinfo=UTC) - 24 * HOUR, datetime(year + 1, 1, 1, tzinfo=UTC) + 24 * HOUR
    while at < end:
        yield at
        at += HOUR / 2


@pytest.mark.parametrize(("name", "year"), YEARS)
def test_every_day_that_passed_is_one_night(name: str, year: int) -> None:
    """The oracle walks through the year by the half hour and writes down the dates that the clocks showed."""
    zone = ZoneInfo(name)
    shown: list[date] = []
    nights: list[date] = []
    for at in hours(year):
        today = at.astimezone(zone).date()
        if not shown or shown[-1] != today:
            shown.append(today)
            nights.append(last_night(zone, at))
    assert nights[1:] == shown[:-1]
    assert list(days(zone, shown[0], shown[-1])) == shown


@pytest.mark.parametrize(
    ("name", "fires", "night"),
    [
        ("America/New_York", "2026-03-08T00:30", "2026-03-07"),  # 2:00 becomes 3:00 an hour and a half later
        ("America/New_York", "2026-03-09T00:30", "2026-03-08"),  # a day of 23 hours
        ("America/New_York", "2026-11-01T01:30", "2026-10-31"),  # the first 1:30
        ("America/New_York", "2026-11-02T00:30", "2026-11-01"),  # a day of 25 hours
        ("Europe/Berlin", "2026-03-30T00:30", "2026-03-29"),
        ("Europe/Berlin", "2026-10-26T00:30", "2026-10-25"),
        ("Asia/Shanghai", "2026-11-02T00:30", "2026-11-01"),
        ("Pacific/Apia", "2011-12-31T00:30", "2011-12-29"),  # there was no 30th
        ("Africa/Cairo", "2026-04-24T01:30", "2026-04-23"),  # there was no 0:30
        ("Africa/Cairo", "2026-10-29T23:30", "2026-10-28"),  # the first 23:30 of two
    ],
)
def test_a_scheduler_at_local_time_makes_the_night_before(name: str, fires: str, night: str) -> None:
    zone = ZoneInfo(name)
    for fold in (0, 1):  # where a local time comes twice, both are of the same day
        with time_machine.travel(datetime.fromisoformat(fires).replace(tzinfo=zone, fold=fold)):
            assert last_night(zone, datetime.now(UTC)).isoformat() == night


def test_a_job_counts_by_its_own_zone_and_not_by_the_machines(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    text = "name: j\ntimezone: {}\nwarehouse: {{path: wh}}\nsources: {{t: {{path: t}}}}\n"
    text += "steps: {{s: {{task: summarize, input: t, text: b}}}}\n"
    monkeypatch.setenv("TZ", "America/New_York")
    with time_machine.travel(datetime(2026, 6, 30, 17, tzinfo=UTC)):  # 13:00 in New York, 1:00 in Shanghai
        for zone, night in (("Asia/Shanghai", "2026-06-30"), ("America/New_York", "2026-06-29")):
            path = tmp_path / "job.yaml"
            path.write_text(text.format(zone))
            assert run_date(load_job(str(path)).job, None, datetime.now(UTC)).isoformat() == night
