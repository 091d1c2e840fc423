from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.report.data import RunReport, StepReport
from bizllm.report.words import clip, count, duration, lang, number, share, verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345.4, "12,345"),
        (12.3456, "12.35"),
        (0.0012345, "0.001234"),
        (-0.5, "-0.5"),
        (7.0, "7"),
        (None, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text
    assert number(float("nan")) == number(float("inf")) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7_440, "2 h 04 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_share_is_never_rounded_to_none_or_all() -> None:
    assert [share(1, 10_000), share(9_999, 10_000), share(0, 5), share(5, 5), share(1, 8), share(1, 0)] == [
        *("< 0.1 %", "> 99.9 %", "0 %", "100 %", "12.5 %", "–"),
    ]
    assert count(1_234_567) == "1,234,567"


@given(st.text(st.characters(), max_size=60), st.integers(1, 30))
def test_clipped_text_is_short_encodable_and_free_of_controls(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    assert len(clipped) <= limit
    clipped.encode()
    assert not any(ord(c) < 32 and c not in "\t\n" for c in clipped)


def test_lang() -> None:
    assert [lang("退货"), lang("返品する"), lang("café 12")] == ["zh", "ja", ""]


def step(name: str, state: str, **values: object) -> StepReport:
    return StepReport(name, "forecast", f"job.{name}", state, **values)  # type: ignore[arg-type]


def said(report: RunReport) -> tuple[str, str, str]:
    found = verdict(report)
    return found.tone, found.sentence.striptags(), found.cause


def test_a_good_night(report: Callable[..., RunReport]) -> None:
    steps = [step("a", "done", records_out=1_200, rows_rejected=3), step("b", "unchanged", records_out=9)]
    assert said(report(steps)) == (
        "good",
        "All good: 1 step published 1,200 records, 1 unchanged; 3 inputs rejected, within budget.",
        "",
    )


def test_a_failed_night_names_the_steps_and_the_first_cause(report: Callable[..., RunReport]) -> None:
    steps = [
        step("a", "done"),
        step("b", "failed", error="\nno such model\ntrace"),
        step("c", "skipped"),
        step("d", "unchanged"),
    ]
    assert said(report(steps, "failed")) == (
        "bad",
        "1 of 4 steps failed: b; 1 skipped: c; 2 steps stand published.",
        "no such model",
    )
    assert '<a href="#step-b">b</a>' in verdict(report(steps, "failed")).sentence


@pytest.mark.parametrize(
    ("states", "state", "tone", "words"),
    [
        (["unchanged"], "unchanged", "idle", "Nothing to do"),
        (["done", "cancelled"], "cancelled", "bad", "cancelled (s1); 1 step had been published before"),
        (["done"], "failed", "bad", "outside its steps"),
        ([], "failed", "bad", "outside its steps"),
        (["done", "skipped"], "done", "bad", "1 step skipped: s1"),
        (["failed", "cancelled"], "failed", "bad", "1 cancelled: s1"),
    ],
)
def test_every_other_end(
    report: Callable[..., RunReport], states: list[str], state: str, tone: str, words: str
) -> None:
    night = report([step(f"s{i}", s) for i, s in enumerate(states)], state)
    assert said(night)[0] == tone
    assert words in said(night)[1]


def test_many_failures_stay_one_sentence(report: Callable[..., RunReport]) -> None:
    assert said(report([step(f"s{i}", "failed") for i in range(40)], "failed"))[1].endswith(
        "s4, s5 and 34 more; 0 steps stand published."
    )
