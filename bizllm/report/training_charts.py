"""The charts of a training: its curves, how far its confidence holds, and what it foretold against what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bizllm.report.charts import finite, line, point, svg, y_axis

TRAIN, VALIDATION, MARK = "var(--history)", "var(--forecast)", "var(--new)"

Rows = list[dict[str, float | None]]


@dataclass(frozen=True)
class Curve:
    """values[i] after steps[i]; dots: few enough that each is marked."""

    steps: Sequence[float]
    values: Sequence[float | None]
    color: str = TRAIN
    dots: bool = False


def draw_curves(curves: Sequence[Curve], best_step: float | None = None) -> Markup:
    """Lines over the optimizer's steps, with an upright line at the step that was kept."""
    layers: list[dict[str, Any]] = []
    if best_step is not None:
        layers.append(_rule("x", best_step))
    numbers: list[float] = []
    for curve in curves:
        rows: Rows = [{"t": t, "value": finite(v)} for t, v in zip(curve.steps, curve.values, strict=True)]
        numbers += [row["value"] for row in rows if row["value"] is not None]
        layers.append(line(rows, "value", curve.color, 2.2 if curve.dots else 1.4))
        if curve.dots or len(rows) == 1:
            layers.append(point(rows, "value", curve.color))
    x = _axis("t", format="~s") | {"scale": {"zero": False, "nice": False}}
    return svg({"layer": layers, "encoding": {"x": x, "y": y_axis(numbers)}})


def draw_reliability(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> Markup:
    """(confidence, accuracy) of the bins before and after calibration, beside the diagonal on which they are equal."""
    layers = [_diagonal(0.0, 1.0)]
    for bins, color in ((before, TRAIN), (after, VALIDATION)):
        rows: Rows = [{"t": finite(x), "value": finite(y)} for x, y in bins]
        layers += [line(rows, "value", color, 1.4 if color == TRAIN else 2.2), point(rows, "value", color)]
    unit = {"domain": [0, 1], "nice": False}
    x, y = (_axis(name, format=".0%") | {"scale": unit} for name in ("t", "value"))
    return svg({"layer": layers, "encoding": {"x": x, "y": {**y, "axis": {**y["axis"], "grid": True}}}})


def draw_scatter(truth: Sequence[float], predicted: Sequence[float]) -> Markup:
    """Dots: true number to the right, predicted upwards; on the diagonal they are equal."""
    rows: Rows = [{"t": finite(t), "value": finite(p)} for t, p in zip(truth, predicted, strict=True)]
    numbers = [number for row in rows for number in row.values() if number is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    dots = point(rows, "value", VALIDATION)
    dots["mark"] |= {"opacity": 0.45, "size": 14}
    x, y = (_axis(name, format="~s") | {"scale": {"domain": [low, high], "nice": True}} for name in ("t", "value"))
    return svg({"layer": [_diagonal(low, high), dots], "encoding": {"x": x, "y": y}})


def _axis(field: str, **more: Any) -> dict[str, Any]:
    zero = {"scale": {"zero": more.pop("zero"), "nice": False}} if "zero" in more else {}
    return {
        "field": field,
        "type": "quantitative",
        "axis": {"title": None, "grid": False, "tickCount": 5, **more},
    } | zero


def _rule(channel: str, at: float) -> dict[str, Any]:
    return {
        "data": {"values": [{"at": at}]},
        "mark": {"type": "rule", "color": MARK, "strokeWidth": 1.4, "strokeDash": [4, 3]},
        "encoding": {channel: {"field": "at", "type": "quantitative"}, "y": None},
    }


def _diagonal(low: float, high: float) -> dict[str, Any]:
    rows: Rows = [{"t": low, "value": low}, {"t": high, "value": high}]
    layer = line(rows, "value", "var(--ink-2)", 1)
    layer["mark"]["strokeDash"] = [4, 3]
    return layer
