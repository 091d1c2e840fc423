"""From a training's figures to what its report shows of them: chosen, bounded, ready to be escaped and laid out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from bizllm.report import training_charts as charts
from bizllm.report.panels import OTHERS
from bizllm.report.training_charts import Curve
from bizllm.report.training_data import (
    ClassScore,
    Confusion,
    Errors,
    LabelCount,
    Metric,
    Reliability,
    SliceScore,
    TrainingReport,
)
from bizllm.report.words import clip, number, plural, score

CLASSES_MOST, CONFUSED_MOST, PAIRS_MOST, SLICES_MOST, LABELS_EACH = 30, 20, 12, 60, 10
POINTS_MOST, DOTS_MOST, SCATTER_MOST, FIFTHS = 300, 40, 800, 5
LABEL_CHARS = 120


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    svg: Markup
    description: str
    keys: tuple[tuple[str, str], ...] = ()  # (kind of line, what it is)


@dataclass(frozen=True)
class Whisker:
    """A score with its interval on an axis of 0 to 100."""

    name: str
    note: str
    value: str
    interval: str
    at: float
    low: float | None
    high: float | None


def whiskers(report: TrainingReport) -> dict[str, Any]:
    """{rows, gain, low, high, …}: the deciding metric of the model, the champion and the control on one axis."""
    metric = deciding(report)
    if metric is None or metric.test is None:
        return {"rows": [], "gain": None}
    named = [("this model", report.version and f"version {report.version}", metric.test, metric.low, metric.high)]
    if report.champion is not None and metric.champion is not None:
        when = "before" if report.outcome == "promoted" else "in use"
        named.append((f"{report.alias} {when}", f"version {report.champion.version}", metric.champion, None, None))
    if metric.control is not None:
        named.append(("control", report.control, metric.control, None, None))
    axis = _span([v for _, _, *values in named for v in values if v is not None])
    rows = [_whisker(name, note, value, low, high, axis, score) for name, note, value, low, high in named]
    gain = None
    if report.champion is not None:
        c = report.champion
        around = _span([c.gain, c.low, c.high, 0.0, c.min_gain])
        named_gain = f"gain over version {c.version}"
        gain = {
            "row": _whisker(named_gain, "paired, same rows", c.gain, c.low, c.high, around, signed),
            "zero": _at(c.min_gain, around),
            "asked": signed(c.min_gain) if c.min_gain else "0",
        }
    ends = {"low": score(axis[0]), "high": score(axis[1])}
    return {"rows": rows, "gain": gain, "name": metric.name, "higher_is_better": metric.higher_is_better} | ends


def deciding(report: TrainingReport) -> Metric | None:
    """The metric that decides, else the first."""
    return next((m for m in report.metrics if m.name == report.metric), next(iter(report.metrics), None))


def signed(value: float | None) -> str:
    """+0.0210 · −0.0080 · 0"""
    if value is None or not math.isfinite(value) or value == 0:
        return number(value)
    return ("−" if value < 0 else "+") + score(abs(value))


def _span(values: Sequence[float]) -> tuple[float, float]:
    known = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(known), max(known)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def _at(value: float | None, axis: tuple[float, float]) -> float:
    if value is None or not math.isfinite(value):
        return 0.0
    return 100 * (value - axis[0]) / (axis[1] - axis[0])


def _whisker(
    name: str, note: str, value: float, low: float | None, high: float | None, axis: tuple[float, float], shown: Any
) -> Whisker:
    known = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    return Whisker(
        clip(name, LABEL_CHARS),
        clip(note, LABEL_CHARS),
        shown(value),
        f"{shown(low)} to {shown(high)}" if known else "",
        _at(value, axis),
        _at(low, axis) if known else None,
        _at(high, axis) if known else None,
    )


# -- curves -------------------------------------------------------------------------------------------------------


def curves(report: TrainingReport) -> list[Chart]:
    """Loss, the metric that was watched, learning rate, gradient norm, speed: those that were logged."""
    train = [row for row in report.history if row.get("split") == "train"]
    validation = [row for row in report.history if row.get("split") == "validation"]
    best = report.best_step
    watched = report.stop_metric or report.metric
    wanted = [
        ("Loss", "", [("train", train, "loss"), ("validation", validation, "loss")], best),
        (watched, "on validation", [("validation", validation, watched)], best),
        ("Learning rate", "", [("train", train, "lr")], None),
        ("Gradient norm", "before clipping", [("train", train, "grad_norm")], None),
        ("Tokens a second", "", [("train", train, "tokens_per_s")], None),
    ]
    if watched == "loss":
        del wanted[1]
    charts_ = [_curve_chart(clip(title, LABEL_CHARS), note, lines, at) for title, note, lines, at in wanted if title]
    return [chart for chart in charts_ if chart is not None]


def _curve_chart(
    title: str, note: str, lines: Sequence[tuple[str, Sequence[Mapping[str, Any]], str]], best: int | None
) -> Chart | None:
    drawn: list[Curve] = []
    keys: list[tuple[str, str]] = []
    said: list[str] = []
    for name, rows, column in lines:
        points = [(float(row["step"]), float(row[column])) for row in rows if _logged(row, column)]
        if not points:
            continue
        validation = name == "validation"
        steps, values = _thinned(points)
        color = charts.VALIDATION if validation else charts.TRAIN
        drawn.append(Curve(steps, values, color, dots=validation and len(steps) <= DOTS_MOST))
        keys.append(("line forecast" if validation else "line", name))
        said.append(f"{name} from {number(points[0][1])} to {number(points[-1][1])} after step {points[-1][0]:,.0f}")
    if not drawn:
        return None
    marked = best is not None and any(min(c.steps) <= best <= max(c.steps) for c in drawn)
    if marked and best is not None:
        keys.append(("line best", f"kept, step {best:,}"))
        said.append(f"kept: step {best:,}")
    svg = charts.draw_curves(drawn, float(best) if marked and best is not None else None)
    return Chart(title, note, svg, "; ".join(said), tuple(keys) if len(keys) > 1 else ())


def _logged(row: Mapping[str, Any], column: str) -> bool:
    return all(isinstance(row.get(name), int | float) and math.isfinite(row[name]) for name in ("step", column))


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most POINTS_MOST points: means over equal stretches, so that a long curve is smooth, not picked from."""
    if len(points) <= POINTS_MOST:
        return [x for x, _ in points], [y for _, y in points]
    parts = np.array_split(np.array(points), POINTS_MOST)
    return [float(part[-1, 0]) for part in parts], [float(part[:, 1].mean()) for part in parts]


# -- where it errs ------------------------------------------------------------------------------------------------


def classes(rows: Sequence[ClassScore]) -> dict[str, Any]:
    """{rows, left, from}: the worst classes first; of the others their number and their least F1."""
    ordered = sorted(rows, key=lambda row: (row.f1, -row.support, row.label))
    shown, left = ordered[:CLASSES_MOST], ordered[CLASSES_MOST:]
    return {
        "rows": [
            {
                "label": clip(row.label, LABEL_CHARS),
                "f1": score(row.f1),
                "precision": score(row.precision),
                "recall": score(row.recall),
                "support": row.support,
                "width": 100 * min(1.0, max(0.0, row.f1)) if math.isfinite(row.f1) else 0.0,
            }
            for row in shown
        ],
        "left": len(left),
        "least": score(left[0].f1) if left else "",
    }


def confusion(view: Confusion) -> dict[str, Any]:
    """{pairs, labels, rows, others}: the largest mistakes, and the matrix of the classes that take part in most."""
    counts = np.asarray(view.counts, np.int64)
    names = [clip(label, LABEL_CHARS) for label in view.labels]
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    weight = mistakes.sum(axis=0) + mistakes.sum(axis=1)
    kept = np.sort(np.argsort(-weight, kind="stable")[:CONFUSED_MOST])
    rest = np.setdiff1d(np.arange(len(names)), kept)
    fold = np.zeros((len(kept) + (len(rest) > 0), len(names)), np.int64)
    fold[np.arange(len(kept)), kept] = 1
    if len(rest):
        fold[-1, rest] = 1
    small = fold @ counts @ fold.T
    # Mistakes within the folded classes are no hits: the folded diagonal is neither.
    labels = [*(names[i] for i in kept), *([OTHERS] if len(rest) else [])]
    within = len(kept) if len(rest) else None
    most = max((int(n) for (i, j), n in np.ndenumerate(small) if i != j), default=0) or 1
    return {
        "pairs": _pairs(mistakes, counts.sum(axis=1), names),
        "labels": labels,
        "rows": [
            [(int(n), _look(i, j, int(n), most, within)) for j, n in enumerate(line)] for i, line in enumerate(small)
        ],
        "folded": len(rest),
        "mistakes": int(mistakes.sum()),
        "total": int(counts.sum()),
    }


def _look(i: int, j: int, n: int, most: int, within: int | None) -> str:
    if i == j:
        return "heat0" if i == within else "stay"
    # By the root of the share, so that a few mistakes can still be told from none.
    return f"heat{max(1, round(5 * math.sqrt(n / most))) if n else 0}"


def _pairs(mistakes: Any, support: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    order = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS_MOST]
    found = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return [
        {"truth": names[t], "predicted": names[p], "rows": int(mistakes[t, p]), "of": int(support[t])}
        for t, p in found
        if mistakes[t, p]
    ]


def reliability(view: Reliability) -> Chart | None:
    before, after = (
        [(b["confidence"], b["accuracy"]) for b in bins if b.get("rows", 1)] for bins in (view.before, view.after)
    )
    if not before and not after:
        return None
    said = f"expected calibration error {number(view.ece_before)} before and {number(view.ece_after)} after"
    return Chart(
        "Accuracy by confidence",
        f"temperature {number(view.temperature)}",
        charts.draw_reliability(before, after),
        said,
        (
            ("line", f"before: ECE {score(view.ece_before)}"),
            ("line forecast", f"after: ECE {score(view.ece_after)}"),
            ("line even", "confidence as it should be"),
        ),
    )


def slices(rows: Sequence[SliceScore]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(slice, its values in the order given), at most SLICES_MOST values in all."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows[:SLICES_MOST]:
        bounds = f"{score(row.interval[0])} to {score(row.interval[1])}" if row.interval else ""
        value = {"value": clip(row.value, LABEL_CHARS), "rows": row.rows, "score": score(row.score), "interval": bounds}
        groups.setdefault(clip(row.slice, LABEL_CHARS), []).append(value)
    return list(groups.items())


def errors(view: Errors) -> dict[str, Any]:
    """{chart, fifths, levels}: dots, and the errors of each fifth of the rows by their true number."""
    truth, predicted = (np.asarray(values, np.float64).ravel() for values in (view.truth, view.predicted))
    known = np.isfinite(truth) & np.isfinite(predicted)
    truth, predicted = truth[known], predicted[known]
    levels = [{"asked": f"{100 * a:g} %", "seen": f"{100 * s:.1f} %"} for a, s in sorted(view.levels.items())]
    if not len(truth):
        return {"chart": None, "fifths": [], "levels": levels}
    order = np.argsort(truth, kind="stable")
    fifths = []
    for part in np.array_split(order, FIFTHS):
        if len(part):
            off = predicted[part] - truth[part]
            fifths.append(
                {
                    "range": f"{number(truth[part[0]])} to {number(truth[part[-1]])}",
                    "rows": len(part),
                    "mae": number(float(np.abs(off).mean())),
                    "bias": signed(float(off.mean())),
                }
            )
    picked = order[np.linspace(0, len(order) - 1, min(SCATTER_MOST, len(order))).astype(int)]
    chart = Chart(
        "Predicted by true number",
        "on test" if len(picked) == len(order) else f"{len(picked):,} of {len(order):,} test rows",
        charts.draw_scatter(truth[picked].tolist(), predicted[picked].tolist()),
        f"true from {number(truth.min())} to {number(truth.max())}, mean absolute error "
        f"{number(float(np.abs(predicted - truth).mean()))}",
        (("line even", "predicted as it came"),),
    )
    return {"chart": chart, "fifths": fifths, "levels": levels}


# -- data ---------------------------------------------------------------------------------------------------------


def labels(rows: Sequence[LabelCount]) -> dict[str, Any]:
    """{rows, left, most}: the most and the least frequent labels of train."""
    ordered = sorted(rows, key=lambda row: (-row.train, row.label))
    shown = ordered if len(ordered) <= 2 * LABELS_EACH else [*ordered[:LABELS_EACH], *ordered[-LABELS_EACH:]]
    most = max((row.train for row in rows), default=0) or 1
    return {
        "rows": [
            {
                "label": clip(row.label, LABEL_CHARS),
                "train": row.train,
                "validation": row.validation,
                "test": row.test,
                "width": 100 * row.train / most,
                "gap": len(shown) < len(ordered) and i == LABELS_EACH,
            }
            for i, row in enumerate(shown)
        ],
        "left": plural(len(ordered) - len(shown), "label"),
        "total": len(ordered),
    }
