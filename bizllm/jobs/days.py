"""The calendar of a time zone: what last night is there, and which days there were.

A zone's days are not always a day apart: Samoa had no 30 December 2011. What never was needs no night.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_DAY = timedelta(days=1)


def last_night(zone: ZoneInfo, now: datetime) -> date:
    """The day before today in the zone. `now` must know its own zone."""
    assert now.tzinfo is not None, "now must know its time zone"
    day = now.astimezone(zone).date() - _DAY
    while not was(zone, day):
        day -= _DAY
    return day


def days(zone: ZoneInfo, first: date, last: date) -> Iterator[date]:
    """The days of the zone from `first` to `last`."""
    for offset in range((last - first).days + 1):
        if was(zone, day := first + offset * _DAY):
            yield day


def was(zone: ZoneInfo, day: date) -> bool:
    """Whether the zone had that day: no change of its clocks jumps over noon, unless over the whole day."""
    noon = datetime.combine(day, time(12), zone)
    return noon.astimezone(UTC).astimezone(zone).date() == day
