"""The page as a real browser shows it: charts drawn, nothing asked for, nothing complained about."""

from collections.abc import Callable
from typing import Any

import pytest

from bizllm.report.data import RunReport
from bizllm.report.html import render

DRAWN = """[...document.querySelectorAll('svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    const marks = [...svg.querySelectorAll('path, rect')].filter(mark => {
        const {width, height} = mark.getBoundingClientRect(), {fill, stroke} = getComputedStyle(mark);
        return width > 2 && height > 2 && (fill != 'none' || stroke != 'none');
    });
    return {width: box.width, height: box.height, marks: marks.length, figure: !!svg.closest('figure'),
            words: [...svg.querySelectorAll('text')].filter(t => t.getBoundingClientRect().width > 4).length};
})"""


@pytest.mark.parametrize("width", [400, 1280])
def test_every_chart_is_drawn_and_nothing_is_wider_than_the_window(
    visit: Callable[..., Any], page: str, width: int
) -> None:
    script = f"""(() => {{
        const {{scrollWidth, clientWidth}} = document.documentElement;
        return {{drawn: {DRAWN}, beyond: scrollWidth - clientWidth, width: innerWidth}};
    }})()"""
    seen = visit(page, script, width=width)
    assert len(seen.value["drawn"]) == 3 + 2, "three series and two bars"
    for svg in seen.value["drawn"]:
        assert svg["width"] > 100 and svg["height"] > 10
        assert svg["marks"] >= (3 if svg["figure"] else 1), "history, mean and band; or a bar"
        assert svg["words"] >= (4 if svg["figure"] else 0), "labels of the axes"
    assert (seen.value["beyond"], seen.value["width"]) == (0, width)


def test_the_browser_asks_for_nothing_and_complains_of_nothing(visit: Callable[..., Any], page: str) -> None:
    seen = visit(page, "getComputedStyle(document.querySelector('.verdict')).borderLeftWidth")
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:image/svg+xml,")] == seen.requests[:1]
    assert seen.requests[0].startswith("file:")
    assert seen.value == "5px", "the policy lets the page's own style in"


def test_hostile_text_does_nothing_in_a_browser(visit: Callable[..., Any], night: Callable[..., RunReport]) -> None:
    attack = """"'></text></svg></style></pre><script>pwned=1</script><img src=x onerror=pwned=1><svg onload=pwned=1>"""
    seen = visit(
        render(night(lambda benign: benign + attack)),
        """new Promise(done => setTimeout(() => done({pwned: window.pwned ?? null,
            active: document.querySelectorAll('script, img, iframe, [onload], [onerror]').length,
            figures: document.querySelectorAll('figure svg').length}), 200))""",
    )
    assert seen.value == {"pwned": None, "active": 0, "figures": 3}
    assert seen.complaints == []


def test_the_policy_would_stop_what_slips_through(visit: Callable[..., Any], page: str) -> None:
    slipped = (
        "<script>window.pwned = 1</script><img src='https://example.invalid/x.png'><style>body{display:none}</style>"
    )
    seen = visit(
        page.replace("<main>", "<main>" + slipped),
        "[window.pwned ?? null, getComputedStyle(document.body).display]",
    )
    assert seen.value == [None, "block"]
    assert len([text for text in seen.complaints if "Content Security Policy" in text]) == 3


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_both_schemes(visit: Callable[..., Any], page: str, faint: str, dark: bool) -> None:
    seen = visit(page, faint, dark=dark)
    assert seen.value["n"] > 150
    assert seen.value["found"] == []
    assert (seen.value["page"] == "rgb(255, 255, 255)") is not dark
