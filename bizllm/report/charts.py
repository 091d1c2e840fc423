"""Charts as static SVG: Vega-Lite drawn by vl-convert, no browser and no JavaScript.

A chart is given numbers and times only. Names (of series, labels, columns) are hostile text and stay in the page's
HTML, where Jinja escapes them. Colours are CSS variables of the page, so that one SVG serves light, dark and print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH_PX, HEIGHT_PX = 350, 165
_VEGA_LITE = "6.1"  # pinned: another version may draw another picture
_QUANTILE = re.compile(r"q(\d{1,2}(?:_\d+)?)")
MAX_BANDS = 3


@dataclass(frozen=True)
class Points:
    """values[name][i] at times[i]; a time is milliseconds since 1970 or, where `temporal` is off, any number."""

    times: Sequence[float]
    values: dict[str, list[float | None]]


@dataclass(frozen=True)
class Band:
    """Two quantile columns, and the share of outcomes expected between them."""

    low: str
    high: str
    coverage: float


def quantile_level(column: str) -> float | None:
    """0.1 for `q10`, 0.025 for `q2_5`; None for a column that is no quantile."""
    match = _QUANTILE.fullmatch(column)
    return float(match[1].replace("_", ".")) / 100 if match else None


def bands(columns: Sequence[str]) -> list[Band]:
    """The widest few central intervals among quantile columns, widest first; a level without its mirror gives none."""
    levels = {round(level, 6): name for name in columns if (level := quantile_level(name)) is not None}
    pairs = [
        Band(name, levels[mirror], mirror - level)
        for level, name in levels.items()
        if level < 0.5 and (mirror := round(1 - level, 6)) in levels
    ]
    return sorted(pairs, key=lambda band: -band.coverage)[:MAX_BANDS]


def draw_series(history: Points, forecast: Points, intervals: Sequence[Band], *, temporal: bool) -> Markup:
    """History as a line, the forecast's mean as a line, its intervals as nested areas, behind both.

    history: `value`. forecast: `mean` and the columns that `intervals` name. Returns an `<svg>` element.
    """
    past = _rows(history, ["value"])
    ahead = _rows(forecast, ["mean", *(name for band in intervals for name in (band.low, band.high))])
    # One period has no width: an area or a line would draw nothing.
    single = len(ahead) == 1
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": ahead},
            "mark": {"type": "rule", "strokeWidth": 8} if single else {"type": "area"},
            "encoding": {
                "y": {"field": band.low, "type": "quantitative"},
                "y2": {"field": band.high},
                ("stroke" if single else "fill"): {"value": "var(--forecast)"},
                "opacity": {"value": (0.16, 0.22, 0.28)[i]},
            },
        }
        for i, band in enumerate(intervals)
    ]
    layers.append(line(past, "value", "var(--history)", 1.4))
    layers.append(point(_alone(past, "value"), "value", "var(--history)"))
    layers.append(line(ahead, "mean", "var(--forecast)", 2.2))
    layers.append(point(_alone(ahead, "mean"), "mean", "var(--forecast)"))
    numbers = [v for row in [*past, *ahead] for name, v in row.items() if name != "t" and v is not None]
    return svg({"layer": layers, "encoding": {"x": _x(temporal), "y": y_axis(numbers)}})


def _rows(points: Points, names: Sequence[str]) -> list[dict[str, float | None]]:
    return [
        {"t": time, **{name: finite(points.values[name][i]) for name in names}} for i, time in enumerate(points.times)
    ]


def finite(value: float | None) -> float | None:
    """None for what can't be drawn."""
    return None if value is None or not math.isfinite(value) else float(value)


def _alone(rows: list[dict[str, float | None]], name: str) -> list[dict[str, float | None]]:
    """Values with a gap on both sides, which a line leaves out."""
    known = [False, *(row[name] is not None for row in rows), False]
    return [row for i, row in enumerate(rows) if known[i + 1] and not known[i] and not known[i + 2]]


def line(rows: list[dict[str, float | None]], field: str, color: str, width: float) -> dict[str, Any]:
    """A layer: `field` of the rows as a line with gaps where it is None."""
    return {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": width, "strokeJoin": "round", "color": color},
        "encoding": {"y": {"field": field, "type": "quantitative"}},
    }


def point(rows: list[dict[str, float | None]], field: str, color: str) -> dict[str, Any]:
    """A layer: `field` of the rows as dots."""
    return {
        "data": {"values": rows},
        "mark": {"type": "point", "filled": True, "size": 18, "opacity": 1, "color": color},
        "encoding": {"y": {"field": field, "type": "quantitative"}},
    }


def _x(temporal: bool) -> dict[str, Any]:
    axis = {"title": None, "grid": False, "tickCount": 5, "labelFlush": True}
    if temporal:
        return {"field": "t", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}
    return {"field": "t", "type": "quantitative", "scale": {"zero": False, "nice": False}, "axis": axis}


def y_axis(numbers: Sequence[float]) -> dict[str, Any]:
    """The axis for these numbers: from zero, unless they lie far above it; large ones are labelled 4M."""
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    axis: dict[str, Any] = {"title": None, "tickCount": 4, "domain": False, "ticks": False, "labelPadding": 6}
    if max(abs(low), abs(high)) >= 10_000:
        axis["labelExpr"] = "replace(format(datum.value, '~s'), 'G', 'B')"
    elif 0 < max(abs(low), abs(high)) < 0.001:  # a learning rate: 0.00008 takes the room of the chart
        axis["labelExpr"] = "datum.value ? format(datum.value, '~e') : '0'"
    # A series far above zero would be a flat line at the top of the chart.
    return {"type": "quantitative", "scale": {"zero": low < 0.6 * high or low <= 0}, "axis": axis}


def svg(spec: dict[str, Any]) -> Markup:
    """A Vega-Lite picture as an `<svg>` that fits its column. The spec holds numbers and our own names only."""
    import vl_convert

    ink, faint = "var(--ink-2)", "var(--line)"
    config = {
        "aria": False,  # its labels repeat the data point by point; the page describes the chart in one sentence
        "background": None,
        "view": {"stroke": None},
        "axis": {
            "labelColor": ink,
            "labelFontSize": 11,
            "domainColor": faint,
            "tickColor": faint,
            "gridColor": faint,
            "labelOverlap": "greedy",
            "labelSeparation": 8,
        },
    }
    drawn = vl_convert.vegalite_to_svg(
        {
            "width": WIDTH_PX,
            "height": HEIGHT_PX,
            "autosize": {"type": "fit", "contains": "padding"},
            "padding": 2,
            "config": config,
            **spec,
        },
        vl_version=_VEGA_LITE,
        allowed_base_urls=[],
    )
    # Without a fixed size the page scales the chart by its viewBox.
    sized = f'width="{WIDTH_PX}" height="{HEIGHT_PX}" '
    assert sized in drawn, "vl-convert draws the size that it was asked for"
    return Markup(drawn.replace(sized, 'aria-hidden="true" ', 1))  # noqa: S704  numbers only, see above
