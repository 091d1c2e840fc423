"""How public holidays and shopping festivals move sales, by country and date.

Dates of the moving feasts are those of the official calendars of 2024 to 2026.
"""

from __future__ import annotations

from datetime import date, timedelta

# First day of the Chinese year; the state's holiday around it; National Day week (with Mid-Autumn in 2025).
SPRING_FESTIVAL = (date(2025, 1, 29), date(2026, 2, 17))
_SPRING_HOLIDAY = ((date(2025, 1, 28), date(2025, 2, 4)), (date(2026, 2, 15), date(2026, 2, 23)))
_NATIONAL_DAY = (
    (date(2024, 10, 1), date(2024, 10, 7)),
    (date(2025, 10, 1), date(2025, 10, 8)),
)
_LABOUR_DAY = ((date(2025, 5, 1), date(2025, 5, 5)), (date(2026, 5, 1), date(2026, 5, 5)))
_DRAGON_BOAT = ((date(2025, 5, 31), date(2025, 6, 2)), (date(2026, 6, 19), date(2026, 6, 21)))
EASTER_SUNDAY = (date(2025, 4, 20), date(2026, 4, 5))
BLACK_FRIDAY = (date(2024, 11, 29), date(2025, 11, 28))
_ONE_DAY = timedelta(days=1)


def _within(day: date, spans: tuple[tuple[date, date], ...]) -> bool:
    return any(first <= day <= last for first, last in spans)


def _china(day: date) -> float:
    for feast in SPRING_FESTIVAL:
        before = (feast - day).days
        if before == 1:
            return 0.35  # New Year's Eve: shops close in the afternoon
        if 0 <= -before <= 2:
            return 0.2
        if 2 <= before <= 21:
            return 1.9 - 0.04 * before  # stocking up, more every day
    if _within(day, _SPRING_HOLIDAY):
        return 0.7
    if _within(day, _NATIONAL_DAY):
        return 1.9
    if _within(day, _LABOUR_DAY):
        return 1.5
    if _within(day, _DRAGON_BOAT):
        return 1.25
    if day.month == 11 and day.day <= 11:
        return 3.6 if day.day == 11 else 1.2 + 0.06 * day.day
    if day.month == 6 and day.day <= 18:
        return 3.0 if day.day == 18 else 1.2 + 0.03 * day.day
    if day.month == 12 and day.day == 12:
        return 1.5
    return 1.0


def _west(day: date, country: str) -> float:
    for friday in BLACK_FRIDAY:
        offset = (day - friday).days
        if offset == -1 and country == "US":
            return 0.0  # Thanksgiving: closed
        if 0 <= offset <= 3:
            return (3.4, 2.2, 1.9, 2.4)[offset]  # Friday to Cyber Monday
        if -5 <= offset < 0:
            return 1.25
    if country == "GB" and day in EASTER_SUNDAY:
        return 0.0  # large shops may not open
    if country == "GB" and any(day == sunday - 2 * _ONE_DAY for sunday in EASTER_SUNDAY):
        return 1.3
    if country == "US" and (day.month, day.day) == (7, 4):
        return 0.6
    if (day.month, day.day) == (1, 1):
        return 0.4
    if day.month == 12:
        if day.day == 25:
            return 0.0
        if day.day == 24:
            return 0.9
        if day.day == 26:
            return 1.9
        return 1.1 + 0.05 * day.day if day.day < 24 else 1.1
    return 1.0


def festival_factor(day: date, country: str) -> float:
    """What the day's sales are multiplied by; 0 where shops are closed."""
    return _china(day) if country == "CN" else _west(day, country)


def in_sale(day: date, country: str) -> bool:
    """Whether the whole chain has offers on this day (Black Friday, 11.11, 618)."""
    if country == "CN":
        return (day.month == 11 and 8 <= day.day <= 11) or (day.month == 6 and 15 <= day.day <= 18)
    return any(0 <= (day - friday).days <= 3 for friday in BLACK_FRIDAY)
