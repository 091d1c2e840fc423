"""From a panel's tables to what the page shows of them: chosen, bounded, ready to be escaped and laid out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from bizllm.report import charts
from bizllm.report.data import CategoryPanel, SamplesPanel, SeriesPanel, TablePanel
from bizllm.report.words import clip, number

SERIES_EACH, POINTS_MOST = 6, 400
LABELS_MOST, MATRIX_MOST = 24, 10
SAMPLES_MOST, SOURCE_MOST, RESULT_MOST, CARRIED_MOST = 6, 6_000, 2_000, 12
ROWS_MOST, COLUMNS_MOST, CELL_MOST = 20, 16, 120
LIST_MOST, LIST_SHOWN = 8, 3  # numbers of a list: a longer one is shown by its first ones

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？；])|\n+")
OTHERS, NO_LABEL = "(others)", "(no label)"
Flows = dict[tuple[str | None, str | None], int]  # (label before, None: new; label now, None: gone): entities


@dataclass(frozen=True)
class Chart:
    name: str
    svg: Markup
    size: str
    error: str
    description: str


def series(panel: SeriesPanel, zone: ZoneInfo) -> dict[str, Any]:
    """{largest, worst: lists of Chart, bands: coverages, ...}; a series stands in one list only."""
    stats = panel.history.group_by("series").aggregate([("size", "max"), ("error", "max")])
    known = {row["series"]: row for row in stats.to_pylist() if row["series"] is not None}
    largest = _top(list(known.values()), "size_max")
    worst = _top([row for name, row in known.items() if name not in largest], "error_max")
    intervals = charts.bands(panel.forecast.column_names)
    drawn = {name: chart for name in [*largest, *worst] if (chart := _chart(panel, known[name], intervals, zone))}
    return {
        "largest": [drawn[name] for name in largest if name in drawn],
        "worst": [drawn[name] for name in worst if name in drawn],
        "coverages": [round(100 * band.coverage) for band in intervals],
        "panel": panel,
        "total": len(known),
    }


def _top(rows: list[dict[str, Any]], by: str) -> list[str]:
    scored = [row for row in rows if row[by] is not None and row[by] == row[by]]
    return [row["series"] for row in sorted(scored, key=lambda r: (-r[by], r["series"]))[:SERIES_EACH]]


def _chart(panel: SeriesPanel, stats: dict[str, Any], intervals: Sequence[charts.Band], zone: ZoneInfo) -> Chart | None:
    past = _points(panel.history, stats["series"], ["value"], zone)
    ahead = _points(
        panel.forecast, stats["series"], ["mean", *(n for b in intervals for n in (b.low, b.high))], zone, first=True
    )
    if not ahead.times and not past.times:
        return None
    # A horizon has to fill a quarter of the chart to be read, so old history gives way.
    keep = min(POINTS_MOST, max(48, 3 * len(ahead.times)))
    past = charts.Points(past.times[-keep:], {name: values[-keep:] for name, values in past.values.items()})
    temporal = pa.types.is_temporal(panel.history["time"].type)
    said = f"{len(past.times)} periods of history"
    means = [value for value in ahead.values["mean"] if value is not None]
    if means:
        said += f" and {len(means)} of forecast, mean from {number(means[0])} to {number(means[-1])}"
        said += f", lowest {number(min(means))}, highest {number(max(means))}"
    return Chart(
        clip(stats["series"], 120),
        charts.draw_series(past, ahead, intervals, temporal=temporal),
        number(stats["size_max"]),
        number(stats["error_max"]),
        said,
    )


def _points(table: pa.Table, name: str, columns: Sequence[str], zone: ZoneInfo, first: bool = False) -> charts.Points:
    """The series' rows in order of time: the last POINTS_MOST of them, or the first."""
    rows = table.filter(pc.equal(table["series"], name)).sort_by("time")
    rows = rows.slice(0, POINTS_MOST) if first else rows.slice(max(0, len(rows) - POINTS_MOST))
    values = {column: rows[column].cast(pa.float64()).to_pylist() for column in columns}
    return charts.Points(_clock(rows["time"], zone), values)


def _clock(times: pa.ChunkedArray, zone: ZoneInfo) -> list[float]:
    """Milliseconds of the wall clock, as if it stood in UTC; a number stays what it is."""
    kind = times.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        times = pc.local_timestamp(times.cast(pa.timestamp(kind.unit, zone.key)))
    if pa.types.is_temporal(kind):
        times = times.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    return [float(value) for value in times.to_pylist()]


@dataclass(frozen=True)
class Bar:
    """count = stayed + moved + new, where the night before is known."""

    label: str
    count: int
    stayed: int
    moved: int
    new: int


def categories(panel: CategoryPanel) -> dict[str, Any]:
    """{bars, most, total, matrix or None, changed, new, gone}."""
    sizes: dict[str, int] = {}
    for row in panel.counts.to_pylist():
        label = NO_LABEL if row["label"] is None else row["label"]
        sizes[label] = sizes.get(label, 0) + (row["count"] or 0)
    order = sorted(sizes, key=lambda label: (-sizes[label], label))
    shown = order[:LABELS_MOST]
    flows: Flows = {}
    for row in panel.moves.to_pylist():
        pair = (row["previous"], row["label"])
        flows[pair] = flows.get(pair, 0) + (row["count"] or 0)
    bars = [_bar(label, sizes[label], flows) for label in shown]
    if rest := sum(sizes[label] for label in order[LABELS_MOST:]):
        bars.append(Bar(f"({len(order) - LABELS_MOST} others)", rest, rest, 0, 0))
    new = sum(n for (before, _), n in flows.items() if before is None)
    gone = sum(n for (_, after), n in flows.items() if after is None)
    stayed = sum(n for (before, after), n in flows.items() if before == after)
    return {
        "column": clip(panel.column, 80),
        "bars": bars,
        "most": max((bar.count for bar in bars), default=0) or 1,
        "total": sum(sizes.values()),
        "matrix": _matrix(flows, order) if flows else None,
        "known_before": sum(flows.values()) - new,
        "moved": sum(flows.values()) - new - gone - stayed,
        "new": new,
        "gone": gone,
        "samples": samples(panel.samples) if panel.samples else [],
    }


def _bar(label: str, size: int, flows: Flows) -> Bar:
    stayed, new = flows.get((label, label), 0), flows.get((None, label), 0)
    moved = sum(n for (before, after), n in flows.items() if after == label and before not in (label, None))
    # Moves that don't add up to the size would draw a bar that lies.
    parts = (stayed, moved, new) if stayed + moved + new == size else (size, 0, 0)
    return Bar(clip(label, 80), size, *parts)


def _matrix(flows: Flows, order: list[str]) -> dict[str, Any]:
    """Rows: where entities were; columns: where they are. Labels beyond the largest few are folded into one."""
    names = [*order, *sorted({label for pair in flows for label in pair if label is not None} - set(order))]
    kept = names[:MATRIX_MOST]
    cells: Flows = {}
    for pair, n in flows.items():
        source, target = (label if label is None or label in kept else OTHERS for label in pair)
        cells[source, target] = cells.get((source, target), 0) + n
    axis: list[str | None] = [*kept, *([OTHERS] if len(names) > MATRIX_MOST else [])]
    columns = [*axis, *([None] if any(after is None for _, after in cells) else [])]
    rows = [*axis, *([None] if any(source is None for source, _ in cells) else [])]
    off = [n for (source, target), n in cells.items() if source != target] or [1]
    # Heat 1 to 5 by the root of the share, so that small flows can still be told from none.
    heat = {pair: 0 if not n else max(1, round(5 * (n / max(off)) ** 0.5)) for pair, n in cells.items()}
    return {
        "columns": ["(gone)" if label is None else clip(label, 60) for label in columns],
        "rows": [
            (
                "(new)" if source is None else clip(source, 60),
                [
                    (cells.get((source, to), 0), "stay" if source == to else f"heat{heat.get((source, to), 0)}")
                    for to in columns
                ],
            )
            for source in rows
        ],
    }


@dataclass(frozen=True)
class Carried:
    """A piece of a source that the result rests on. level: 1 to 3, of how much of the weightiest one's weight."""

    text: str
    weight: str
    level: int


@dataclass(frozen=True)
class Sample:
    """source: its pieces, each with whether the result took it over, or how it carried it; cut: characters left out at
    its end. why: what carried the result, weightiest first."""

    title: str
    source: list[tuple[str, bool | Carried]]
    result: str
    score: str
    cut: int
    taken: bool
    why: list[Carried]


def samples(panel: SamplesPanel) -> list[Sample]:
    explained = "why" in panel.pairs.column_names
    shown = []
    for row in panel.pairs.slice(0, SAMPLES_MOST).to_pylist():
        whole = row["source"] or ""
        source, result = clip(whole[:SOURCE_MOST], SOURCE_MOST), clip(row["result"], RESULT_MOST)
        found = _carried(source, row["why"] or []) if explained else {}
        marked = _marked(source, found) if explained else taken_over(source, result)
        pieces: list[tuple[str, bool | Carried]] = list(marked)
        score = "" if row["score"] is None else number(row["score"])
        cut = max(0, len(whole) - SOURCE_MOST)
        taken = any(mark is True for _, mark in pieces)
        shown.append(Sample(clip(row["title"], 160), pieces, result, score, cut, taken, list(found.values())))
    return shown


def _carried(source: str, why: list[dict[str, Any]]) -> dict[tuple[int, int], Carried]:
    """By where it stands, weightiest first; whatever stands in no such place is left out."""
    found: dict[tuple[int, int], Carried] = {}
    most = max((one["weight"] for one in why), default=0.0)
    for one in why[:CARRIED_MOST]:
        start, end = one["start"], one["end"]
        if 0 <= start < end <= len(source) and all(end <= low or high <= start for low, high in found):
            level = max(1, min(3, math.ceil(3 * one["weight"] / most))) if most > 0 else 1
            found[start, end] = Carried(source[start:end], number(one["weight"]), level)
    return found


def _marked(source: str, found: dict[tuple[int, int], Carried]) -> Iterator[tuple[str, bool | Carried]]:
    """`source` in pieces, marked where one carried the result."""
    at = 0
    for (start, end), carried in sorted(found.items()):
        if start > at:
            yield source[at:start], False
        yield source[start:end], carried
        at = end
    if at < len(source):
        yield source[at:], False


def taken_over(source: str, result: str) -> Iterator[tuple[str, bool]]:
    """`source` in pieces, marked where a sentence of `result` stands in it word for word, whatever the white space."""
    spans = []
    for sentence in _SENTENCE_END.split(result):
        words = sentence.split()
        if sum(map(len, words)) >= 4 and (found := re.search(r"\s+".join(map(re.escape, words)), source)):
            spans.append(found.span())
    at = 0
    for start, end in sorted(spans):
        start = max(start, at)
        if start >= end:
            continue
        if start > at:
            yield source[at:start], False
        yield source[start:end], True
        at = end
    if at < len(source):
        yield source[at:], False


def rows(panel: TablePanel) -> dict[str, Any]:
    """{columns: [(name, is a number)], rows: lists of (text, is null), left_out: columns not shown}."""
    table = panel.table.slice(0, ROWS_MOST)
    columns = table.column_names[:COLUMNS_MOST]
    # By position: a hostile table may have the same name twice.
    cells = [[_cell(value) for value in table.column(i).to_pylist()] for i in range(len(columns))]
    kinds = [table.schema.field(i).type for i in range(len(columns))]
    numeric = [pa.types.is_integer(k) or pa.types.is_floating(k) or pa.types.is_decimal(k) for k in kinds]
    return {
        "columns": [(clip(name, 80), is_number) for name, is_number in zip(columns, numeric, strict=True)],
        "rows": list(zip(*cells, strict=True)),
        "left_out": table.num_columns - len(columns),
    }


def _cell(value: object) -> tuple[str, bool]:
    if value is None:
        return "null", True
    if isinstance(value, float):
        return number(value), False
    if isinstance(value, date):
        return value.isoformat(), False
    if isinstance(value, bytes):
        return f"{len(value):,} bytes", False
    if isinstance(value, list) and len(value) > LIST_MOST and all(isinstance(one, float) for one in value):
        first = ", ".join(number(one) for one in value[:LIST_SHOWN])
        return f"[{first}, … {len(value):,} numbers]", False
    return clip(value, CELL_MOST), False
