"""The report of a night: one HTML page that needs nothing else, for whoever is on call.

Everything on it may be hostile (row text, keys, labels, column names): Jinja escapes all of it, no script is on the
page, and a Content-Security-Policy forbids scripts and every request, with the hash of the page's own style sheet.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from markupsafe import Markup

from bizllm.report import panels, words
from bizllm.report.data import CategoryPanel, RunReport, SamplesPanel, SeriesPanel, StepReport, TablePanel

MAX_BYTES = 2_000_000
_DETAILS_BYTES = 1_300_000  # for the steps' sections; the rest is enough for the head and STEPS_MOST table rows
STEPS_MOST, AUDITS_MOST, CODES_MOST, ERROR_MOST = 300, 60, 30, 4_000

_MARKS = {"done": "✓", "unchanged": "=", "failed": "✕", "skipped": "↷", "cancelled": "■"}
_ICON = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="{}"/></svg>'
_ICON_COLORS = {"good": "#1a7f4b", "bad": "#c62f2f", "idle": "#5b6472"}


def render(report: RunReport) -> str:
    """The page as UTF-8 text, at most MAX_BYTES of it; panels, then details of steps, give way before that."""
    return render_page(
        "report.html.j2",
        ["report.css"],
        words.verdict(report),
        report=report,
        steps=_shown(report.steps),
        details=_details(report),
        started=report.started_at.astimezone(ZoneInfo(report.timezone)),
    )


def render_page(template: str, styles: Sequence[str], verdict: words.Verdict, **values: object) -> str:
    """A template that extends `page.html.j2`, with the style sheets that the page's policy lets in."""
    env = environment()
    style = "".join(env.get_template(name).render() for name in styles)
    page: str = env.get_template(template).render(
        verdict=verdict,
        style=Markup(style),  # noqa: S704  our own files
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        icon="data:image/svg+xml," + quote(_ICON.format(_ICON_COLORS[verdict.tone])),
        **values,
    )
    assert len(page.encode()) <= MAX_BYTES, "every part of the page is bounded"
    return page


@cache
def environment() -> Any:
    """Jinja with our templates, which escapes whatever it is given."""
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.PackageLoader("bizllm.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "count": words.count,
        "number": words.number,
        "score": words.score,
        "duration": words.duration,
        "clip": words.clip,
        "lang": words.lang,
        "anchor": words.anchor,
    }
    env.globals |= {"share": words.share, "plural": words.plural, "marks": _MARKS}
    return env


def _troubled_first(steps: list[StepReport]) -> list[StepReport]:
    return sorted(steps, key=lambda step: step.state in ("done", "unchanged"))


def _shown(steps: list[StepReport]) -> list[StepReport]:
    """The steps of the page, in the job's order: where there are too many, failed ones stay."""
    kept = {id(step) for step in _troubled_first(steps)[:STEPS_MOST]}
    return [step for step in steps if id(step) in kept]


def _details(report: RunReport) -> dict[str, Markup]:
    """The section of each step by its anchor; the steps that failed are the last to lose theirs."""
    zone = ZoneInfo(report.timezone)
    left = _DETAILS_BYTES
    room_for_panels = True  # after the first that finds none, drawing more would take time for nothing
    sections: dict[str, Markup] = {}
    for step in _troubled_first(_shown(report.steps)):
        section = _section(step, step.panel if room_for_panels else None, zone)
        if room_for_panels and len(section.encode()) > left:
            room_for_panels = False
            section = _section(step, None, zone)
        left -= len(section.encode())
        if left < 0:
            break
        sections[words.anchor(step)] = section
    return sections


def _section(step: StepReport, panel: object, zone: ZoneInfo) -> Markup:
    view: dict[str, Any] = {}
    kind = ""
    if isinstance(panel, SeriesPanel):
        kind, view = "series", panels.series(panel, zone)
    elif isinstance(panel, CategoryPanel):
        kind, view = "categories", panels.categories(panel)
    elif isinstance(panel, SamplesPanel):
        kind, view = "samples", {"samples": panels.samples(panel)}
    elif isinstance(panel, TablePanel):
        kind, view = "rows", panels.rows(panel)
    html = (
        environment()
        .get_template("step.html.j2")
        .render(
            step=step,
            error=words.clip(step.error, ERROR_MOST) if step.error else "",
            audits=sorted(step.audits, key=lambda audit: not audit.broken)[:AUDITS_MOST],
            broken=sum(1 for audit in step.audits if audit.broken),
            rejects=sorted(step.rejects, key=lambda r: -r.count)[:CODES_MOST],
            kind=kind,
            view=view,
            dropped=step.panel is not None and panel is None,
        )
    )
    return Markup(html)  # noqa: S704  the template escaped what it was given
