"""The page of a training in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bizllm.report.training import render_training
from bizllm.report.training_data import (
    Errors,
)
from tests.report.trainings import HOSTILE, training


@pytest.fixture(scope="module")
def page() -> str:
    return render_training(training())


@pytest.mark.parametrize("width", [400, 1280])
def test_charts_are_drawn_and_nothing_is_wider_than_the_window(visit: Callable[..., Any], width: int) -> None:
    page = render_training(training(errors=Errors(np.arange(90.0), np.arange(90.0) + 1, {0.9: 0.88})))
    script = """(() => {
        const boxes = [...document.querySelectorAll('figure svg, .axis svg, .bar svg')].map(
            svg => [svg.closest('figure') ? 100 : 30, svg.getBoundingClientRect()]);
        const {scrollWidth, clientWidth} = document.documentElement;
        return {charts: document.querySelectorAll('figure svg').length, beyond: scrollWidth - clientWidth,
                small: boxes.filter(([least, box]) => box.width < least || box.height < 8).length};
    })()"""
    seen = visit(page, script, width=width)
    assert seen.value == {"charts": 7, "beyond": 0, "small": 0}
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:image/svg+xml,")] == seen.requests[:1]


def test_the_verdict_and_the_scores_are_seen_without_scrolling(visit: Callable[..., Any], page: str) -> None:
    script = "['.verdict', '.forest'].map(name => document.querySelector(name).getBoundingClientRect().bottom)"
    verdict_bottom, forest_bottom = visit(page, script).value
    assert verdict_bottom < forest_bottom < 900


def test_hostile_text_does_nothing_in_a_browser(visit: Callable[..., Any]) -> None:
    seen = visit(
        render_training(training(lambda benign: benign + HOSTILE[1])),
        """new Promise(done => setTimeout(() => done({pwned: window.pwned ?? null,
            active: document.querySelectorAll('script, img, iframe, [onload], [onerror]').length}), 200))""",
    )
    assert seen.value == {"pwned": None, "active": 0}
    assert seen.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_both_schemes(visit: Callable[..., Any], page: str, faint: str, dark: bool) -> None:
    shown = replace(training(), outcome="failed", error="the loss is no number\nat step 312") if dark else training()
    seen = visit(render_training(shown), faint, dark=dark)
    assert seen.value["n"] > 150
    assert seen.value["found"] == []
