import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bizllm.report.data import AuditResult, RejectCount, RunReport, SamplesPanel, SeriesPanel, StepReport, TablePanel
from bizllm.report.html import MAX_BYTES, render

HOSTILE = [
    "<script>window.pwned = 1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "' onmouseover='window.pwned=1' x='",
    "</text></svg><svg onload=window.pwned=1>",
    "</style><script>window.pwned=1</script>",
    "--></title><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</pre></details></section>\u202egnp.exe\u0000\u2028",
]


class Page(HTMLParser):
    """Every element with its attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def shape(self) -> Counter[tuple[str, ...]]:
        """Elements with the names of their attributes; whether text is Chinese (`lang`) is no part of it."""
        return Counter((tag, *sorted(set(attributes) - {"lang"})) for tag, attributes in self.elements)


@pytest.fixture(scope="module")
def harmless(night: Callable[..., RunReport]) -> Page:
    return Page(render(night(lambda benign: benign + "harmless")))


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_text_stays_text(night: Callable[..., RunReport], harmless: Page, attack: str) -> None:
    attacked = Page(render(night(lambda benign: benign + attack)))
    kinds = {tag for tag, _ in attacked.elements}
    assert not kinds & {"script", "img", "iframe", "object", "embed", "form", "base"}
    attributes = [(tag, name, value or "") for tag, values in attacked.elements for name, value in values.items()]
    assert not [a for a in attributes if a[1].startswith("on") or a[1] == "style"]
    assert attacked.shape() == harmless.shape()
    seen = re.sub(r"[\x00]", "\N{REPLACEMENT CHARACTER}", attack)
    for place in ("quantiles in order", "too_short", "regulars", "T-10482", "上海 · 豆浆", "label", "builtin:minilm"):
        assert place + seen in attacked.text


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=50))
def test_the_page_has_the_same_elements_whatever_the_text(report: Callable[..., RunReport], text: str) -> None:
    def shape(word: str) -> Counter[tuple[str, ...]]:
        step = StepReport(
            "s",
            *(word, word, "failed"),
            error=word,
            model=word,
            audits=[AuditResult(word, 3, 1, word)],
            rejects=[RejectCount(word, word, 1, word)],
            panel=TablePanel(pa.table({word: [word]})),
        )
        return Page(render(report([step], "failed", job=word, run_id=word, versions={word: word}))).shape()

    assert shape("x" + text) == shape("x")


def test_nothing_outside_the_page_is_asked_for(page: str) -> None:
    elements = Page(page).elements
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    for tag, attributes in elements:
        for name in ("href", "src", "xlink:href", "srcset", "action", "data", "poster"):
            target = attributes.get(name)
            assert target is None or target.startswith("data:image/svg+xml,") or target[1:] in ids, (tag, target)
    assert not re.search(r"url\(|@import|<!ENTITY", page)
    # The only addresses are the names of XML namespaces, which nobody fetches.
    assert set(re.findall(r"https?://[^\"' <]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_page_says_what_the_night_did(page: str) -> None:
    text = re.sub(r"\s+", " ", Page(page).text)
    assert "retail_nightly 2026-11-22" in text
    assert "1 of 5 steps failed: ticket_label; 1 skipped: reorder; 3 steps stand published." in text
    assert "2026-11-23 02:14:03 Asia/Shanghai" in text
    assert "1 audit of 1 broken" in text
    assert "The audit passed" in text
    assert "retail_nightly.sales_forecast__rejects" in text
    assert "38 of 1,028 known before changed their segment (3.7 %), 10 are new." in text
    assert "How far to trust it: Of 77 intents 62 % right." in Page(page).text


def test_headings_go_down_one_level_at_a_time(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(page).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_id_is_given_once_and_every_chart_is_described(page: str) -> None:
    elements = Page(page).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    figures = [attributes for tag, attributes in elements if tag == "figure"]
    assert len(figures) == 3
    assert all("periods of history and 14 of forecast, mean from" in (a["aria-label"] or "") for a in figures)


def test_an_empty_night_is_a_page_too(report: Callable[..., RunReport]) -> None:
    assert "Nothing to do" in Page(render(report([], "unchanged", versions={}, warehouse=""))).text


def test_panels_without_rows_say_so(report: Callable[..., RunReport], night: Callable[..., RunReport]) -> None:
    steps = []
    for step in night().steps:
        tables = (
            {k: v.slice(0, 0) for k, v in vars(step.panel).items() if isinstance(v, pa.Table)} if step.panel else {}
        )
        steps.append(replace(step, panel=replace(step.panel, **tables) if step.panel else None))
    text = Page(render(report(steps))).text
    for words in ("No series to draw", "No earlier night", "No samples", "The table has no rows tonight"):
        assert words in text


def test_a_huge_night_keeps_its_size_and_shows_what_failed(
    report: Callable[..., RunReport], series_panel: Callable[..., SeriesPanel]
) -> None:
    quote = '"' * 7_000  # every character of it is five on the page
    word = quote[:400]  # kept short where there are many: a failing test prints its night
    samples = SamplesPanel(
        pa.table({"title": [quote] * 9, "source": [quote] * 9, "result": [quote] * 9, "score": [1.0] * 9})
    )
    table = TablePanel(pa.table({f"{quote}{i}": [quote] * 50 for i in range(40)}))
    series = series_panel([f"{i}{quote[:900]}" for i in range(12)], days=900, horizon=900)
    steps = [
        StepReport(
            f"step_{i}",
            *(word, word, "failed" if i == 309 else "done"),
            error=quote,
            model=word,
            audits=[AuditResult(word, 1, 1, word)] * 61,
            rejects=[RejectCount(word, word, 1, word)] * 31,
            panel=series if i == 0 else (samples, table)[i % 2],
        )
        for i in range(310)
    ]
    night = report(
        steps, "failed", job=quote, run_id=quote, warehouse=quote, versions={f"{i}{quote}": quote for i in range(200)}
    )
    html = render(night)
    assert len(html.encode()) < MAX_BYTES
    page = Page(html)
    assert "step-step_309" in {attributes.get("id") for _, attributes in page.elements}
    assert "10 more steps done or unchanged, not shown" in page.text
    assert "the page is at its limit of size" in page.text
