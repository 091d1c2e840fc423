from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from bizllm.report import panels
from bizllm.report.data import CategoryPanel, SamplesPanel, SeriesPanel, TablePanel

SHANGHAI = ZoneInfo("Asia/Shanghai")
LABELS = st.sampled_from(["a", "b", "c", "大", None])


def category_panel(pairs: list[tuple[str | None, str | None]]) -> CategoryPanel:
    """Of (label before, label now), one an entity."""
    moves = Counter(pairs)
    counts = Counter(now for _, now in pairs if now is not None)
    return CategoryPanel(
        "segment",
        pa.table({"label": pa.array(list(counts), pa.string()), "count": pa.array(list(counts.values()), pa.int64())}),
        pa.table(
            {
                "previous": pa.array([before for before, _ in moves], pa.string()),
                "label": pa.array([now for _, now in moves], pa.string()),
                "count": pa.array(list(moves.values()), pa.int64()),
            }
        ),
    )


@given(st.lists(st.tuples(LABELS, LABELS).filter(any), min_size=1))
def test_every_entity_is_counted_once(pairs: list[tuple[str | None, str | None]]) -> None:
    view = panels.categories(category_panel(pairs))
    assert view["total"] == sum(bar.count for bar in view["bars"]) == sum(now is not None for _, now in pairs)
    assert all(bar.count == bar.stayed + bar.moved + bar.new for bar in view["bars"])
    assert sum(bar.stayed for bar in view["bars"]) == sum(before == now for before, now in pairs)
    assert sum(n for _, cells in view["matrix"]["rows"] for n, _ in cells) == len(pairs)
    assert view["known_before"] == sum(before is not None for before, _ in pairs)
    assert view["moved"] == sum(None not in pair and pair[0] != pair[1] for pair in pairs)
    assert (view["new"], view["gone"]) == (sum(b is None for b, _ in pairs), sum(n is None for _, n in pairs))


def test_many_labels_are_folded_and_none_is_lost() -> None:
    view = panels.categories(category_panel([(f"l{i % 40}", f"l{i % 37}") for i in range(400)]))
    assert len(view["bars"]) == panels.LABELS_MOST + 1
    assert sum(bar.count for bar in view["bars"]) == 400
    assert len(view["matrix"]["columns"]) == panels.MATRIX_MOST + 1
    assert sum(n for _, cells in view["matrix"]["rows"] for n, _ in cells) == 400


def test_a_first_night_has_sizes_only() -> None:
    panel = category_panel([(None, "a"), (None, "b")])
    view = panels.categories(CategoryPanel("segment", panel.counts, panel.moves.slice(0, 0)))
    assert view["matrix"] is None
    assert [(bar.label, bar.stayed) for bar in view["bars"]] == [("a", 1), ("b", 1)]


def test_moves_that_do_not_add_up_draw_no_split() -> None:
    panel = category_panel([("a", "a"), ("b", "a")])
    short = CategoryPanel("segment", panel.counts, panel.moves.slice(0, 1))
    assert [(bar.count, bar.moved, bar.new) for bar in panels.categories(short)["bars"]] == [(2, 0, 0)]


def test_series_are_the_largest_and_then_the_worst_of_the_rest(series_panel: Callable[..., SeriesPanel]) -> None:
    # Sizes fall and errors rise with the position.
    names = [f"s{i:02}" for i in range(15)]
    view = panels.series(series_panel(names, days=30, horizon=3), SHANGHAI)
    assert [chart.name for chart in view["largest"]] == names[:6]
    assert [chart.name for chart in view["worst"]] == names[:8:-1]
    assert (view["total"], view["coverages"]) == (15, [80])
    assert "30 periods of history and 3 of forecast" in view["largest"][0].description


def test_series_survive_missing_figures_and_forecasts(series_panel: Callable[..., SeriesPanel]) -> None:
    full = series_panel(["a", "b"], days=20, horizon=3)
    history = full.history.set_column(4, "error", pa.array([None] * 20 + [float("nan")] * 20, pa.float64()))
    view = panels.series(SeriesPanel("day", history, full.forecast.slice(0, 3)), SHANGHAI)
    assert [chart.name for chart in view["largest"]] == ["a", "b"]
    assert view["largest"][1].error == "–"
    assert view["largest"][1].description == "20 periods of history"
    empty = panels.series(SeriesPanel("day", history.slice(0, 0), full.forecast.slice(0, 0)), SHANGHAI)
    assert empty["largest"] == empty["worst"] == []


def test_instants_are_drawn_at_the_wall_clock_of_the_job() -> None:
    noon = datetime(2026, 11, 22, 4, tzinfo=UTC)
    wall = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp() * 1000
    for unit in ("s", "us", "ns"):
        assert panels._clock(pa.chunked_array([pa.array([noon], pa.timestamp(unit, "UTC"))]), SHANGHAI) == [wall]
    naive = pa.array([datetime(2026, 11, 22, 12)], pa.timestamp("us"))
    assert panels._clock(pa.chunked_array([naive]), SHANGHAI) == [wall]
    assert panels._clock(pa.chunked_array([pa.array([3, 4])]), SHANGHAI) == [3, 4]


def marked(source: str, result: str) -> list[str]:
    return [piece for piece, taken in panels.taken_over(source, result) if taken]


def test_sentences_taken_over_are_marked_in_both_languages() -> None:
    assert marked("Hello there. The parcel\n  is lost. Bye.", "The parcel is lost. It was sad.") == [
        "The parcel\n  is lost."
    ]
    assert marked("你好。我想退货，谢谢。请尽快。", "我想退货，谢谢。请尽快。") == ["我想退货，谢谢。", "请尽快。"]
    assert marked("It costs (a+b)* more.", "It costs (a+b)* more.") == ["It costs (a+b)* more."]
    assert marked("An ox.", "No.") == marked("", "Some words.") == marked("Some words.", "") == []


@given(st.text(alphabet="ab。. \n一"), st.text(alphabet="ab。. \n一"))
def test_marking_loses_no_character(source: str, result: str) -> None:
    pieces = list(panels.taken_over(source, result))
    assert "".join(piece for piece, _ in pieces) == source
    assert all(piece for piece, _ in pieces)


def explained(source: str, spans: list[tuple[int, int, float]]) -> panels.Sample:
    why = [[{"start": start, "end": end, "weight": weight} for start, end, weight in spans]]
    columns = {"title": ["a"], "source": [source], "result": [source], "score": [0.9], "why": why}
    [sample] = panels.samples(SamplesPanel(pa.table(columns)))
    assert "".join(piece for piece, _ in sample.source) == source
    return sample


def test_what_a_result_rests_on_is_marked_by_its_weight() -> None:
    sample = explained("快递晚了三天，我要退款。", [(9, 11, 3.0), (0, 2, 1.4), (2, 3, 0.2)])
    marked = [(mark.text, mark.level) for _, mark in sample.source if isinstance(mark, panels.Carried)]
    assert marked == [("快递", 2), ("晚", 1), ("退款", 3)]
    assert [(one.text, one.weight) for one in sample.why] == [("退款", "3"), ("快递", "1.4"), ("晚", "0.2")]
    assert not sample.taken, "nothing is marked as taken over beside"


def test_spans_that_lie_outside_or_overlap_mark_nothing() -> None:
    sample = explained("late parcel", [(5, 11, 2.0), (0, 6, 1.0), (8, 40, 1.0), (-3, 2, 1.0), (4, 4, 1.0)])
    assert [one.text for one in sample.why] == ["parcel"]
    assert explained("late", []).source == [("late", False)]


def test_samples_are_cut_and_say_so() -> None:
    pairs = pa.table(
        {"title": [None], "source": ["x" * 7_000], "result": [None], "score": pa.array([None], pa.float64())}
    )
    [sample] = panels.samples(SamplesPanel(pairs))
    assert (sample.cut, sample.score, sample.result) == (1_000, "", "")
    assert sample.source == [("x" * 6_000, False)]


def test_first_rows_are_bounded_and_typed() -> None:
    columns = {f"c{i}": pa.array(range(50)) for i in range(20)} | {}
    view = panels.rows(TablePanel(pa.table(columns)))
    assert (len(view["rows"]), len(view["columns"]), view["left_out"]) == (20, 16, 4)
    assert view["columns"][0] == ("c0", True)
    mixed = pa.table(
        [pa.array([None, "甲" * 500]), pa.array([b"\0\1", b""]), pa.array([0.12345, 1e6])], ["x", "x", "y"]
    )
    first, second = panels.rows(TablePanel(mixed))["rows"]
    assert first == (("null", True), ("2 bytes", False), ("0.1235", False))
    assert second[0] == ("甲" * 119 + "…", False)
    vectors = pa.table({"v": pa.array([[0.5] * 384, [0.25, 0.5]], pa.list_(pa.float32()))})
    long, short = panels.rows(TablePanel(vectors))["rows"]
    assert long == (("[0.5, 0.5, 0.5, … 384 numbers]", False),) and short == (("[0.25, 0.5]", False),)
