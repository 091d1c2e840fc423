import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bizllm.report.charts import Band, Points, bands, draw_series, quantile_level

SVG = "{http://www.w3.org/2000/svg}"
DAY_MS = 86_400_000


def paths(svg: str, attribute: str, color: str) -> list[str]:
    return [p.get("d", "") for p in ET.fromstring(svg).iter(f"{SVG}path") if p.get(attribute) == f"var(--{color})"]


def corners(path: str) -> np.ndarray:
    return np.array([[float(v) for v in pair.split(",")] for pair in re.findall(r"[ML]([-\d.,]+)", path)])


def times(start: int, n: int) -> list[float]:
    return [float(1_700_000_000_000 // DAY_MS * DAY_MS + (start + i) * DAY_MS) for i in range(n)]


def test_quantile_columns_are_read_as_the_forecast_table_names_them() -> None:
    assert quantile_level("q10") == pytest.approx(0.1)
    assert quantile_level("q2_5") == pytest.approx(0.025)
    assert [quantile_level(name) for name in ("mean", "q", "q100", "quarter", "q5x")] == [None] * 5


def test_bands_pair_mirrored_levels_widest_first() -> None:
    found = bands(["mean", "q10", "q50", "q2_5", "q90", "q97_5", "q75"])
    assert [(b.low, b.high) for b in found] == [("q2_5", "q97_5"), ("q10", "q90")]
    assert [b.coverage for b in found] == pytest.approx([0.95, 0.8])
    assert bands(["q50", "q10"]) == []


def test_lines_and_bands_stand_where_the_values_are() -> None:
    rng = np.random.default_rng(0)
    value, mean = rng.normal(50, 5, 40), rng.normal(60, 5, 10)
    history = Points(times(0, 40), {"value": list(value)})
    forecast = Points(times(40, 10), {"mean": list(mean), "q10": list(mean - 7), "q90": list(mean + 9)})
    svg = draw_series(history, forecast, [Band("q10", "q90", 0.8)], temporal=True)

    [past], [ahead] = (
        (corners(p) for p in paths(svg, "stroke", "history")),
        map(corners, paths(svg, "stroke", "forecast")),
    )
    [area] = map(corners, paths(svg, "fill", "forecast"))
    drawn_x = np.concatenate([past[:, 0], ahead[:, 0]])
    drawn_y = np.concatenate([past[:, 1], ahead[:, 1]])
    # One scale for both lines: time runs right in equal steps, values run upwards (SVG's y runs down).
    assert np.allclose(np.diff(drawn_x), np.diff(drawn_x)[0], atol=0.01)
    slope, offset = np.polyfit(np.concatenate([value, mean]), drawn_y, 1)
    assert slope < 0
    assert np.allclose(slope * np.concatenate([value, mean]) + offset, drawn_y, atol=0.01)
    # The band goes along its lower edge one way and along its upper edge back.
    edges = (area[:, 1] - offset) / slope
    assert np.allclose(np.sort(edges), np.sort(np.concatenate([mean - 7, mean + 9])), atol=0.05)


def test_a_gap_in_history_is_a_gap_in_the_line_and_a_lone_value_is_a_point() -> None:
    values: list[float | None] = [1, 2, 3, None, 4, float("nan"), 5, 6]
    svg = draw_series(Points(times(0, 8), {"value": values}), Points([], {"mean": []}), [], temporal=True)
    [line] = paths(svg, "stroke", "history")
    # Vega draws a lone value as a path of no length, which shows nothing; the point beside it does.
    assert line.count("M") == 3
    assert len(paths(svg, "fill", "history")) == 1


def test_a_horizon_of_one_period_is_still_seen() -> None:
    forecast = Points(times(5, 1), {"mean": [3.0], "q10": [2.0], "q90": [5.0]})
    svg = draw_series(Points(times(0, 5), {"value": [1, 2, 3, 4, 5]}), forecast, bands(["q10", "q90"]), temporal=True)
    rules = [line for line in ET.fromstring(svg).iter(f"{SVG}line") if line.get("stroke") == "var(--forecast)"]
    assert len(rules) == 1
    assert abs(float(rules[0].get("y2", "0"))) > 5
    assert len(paths(svg, "fill", "forecast")) == 1


def test_time_may_be_a_plain_number() -> None:
    svg = draw_series(Points([1, 2, 3], {"value": [1, 2, 4]}), Points([4], {"mean": [5]}), [], temporal=False)
    labels = [text.text for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert "19" not in "".join(filter(None, labels))  # no years of the 1970s


def test_large_values_are_labelled_short() -> None:
    svg = draw_series(Points([1, 2], {"value": [1e9, 4e9]}), Points([], {"mean": []}), [], temporal=False)
    assert "4B" in {text.text for text in ET.fromstring(svg).iter(f"{SVG}text")}
