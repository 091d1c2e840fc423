"""Numbers, durations and row text as a person reads them, and the sentence that sums a night up."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from markupsafe import Markup, escape

from bizllm.report.data import RunReport, StepReport

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_HAN, _KANA = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[\u3040-\u30ff]")


def count(value: float) -> str:
    """12,345"""
    return f"{value:,.0f}"


def number(value: float | None) -> str:
    """About four digits that count: 12,345 · 12.35 · 0.001235; a dash for what is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = min(8, max(0, 3 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".")


def score(value: float | None) -> str:
    """A metric: 0.9000 · 12.35; four decimals below 1, so that scores in a column can be compared."""
    if value is None or not math.isfinite(value) or abs(value) >= 1 or 0 < abs(value) < 0.001:
        return number(value)
    return f"{value:.4f}"


def share(part: float, whole: float) -> str:
    """12.3 %; never 0 % for some nor 100 % for less than all."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %".replace(".0 %", " %")


def duration(seconds: float) -> str:
    """0.4 s · 42 s · 3 min 05 s · 2 h 04 min"""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02} min" if hours else f"{minutes} min {rest:02} s"


def plural(n: int, noun: str) -> str:
    return f"{count(n)} {noun}" if n == 1 else f"{count(n)} {noun}s"


def clip(value: object, limit: int) -> str:
    """Text fit for the page: no control characters or lone surrogates, and no longer than `limit` characters."""
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", "" if value is None else str(value)[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def lang(text: str) -> str:
    """The language tag by which browsers pick glyphs and break lines; empty where no CJK script is seen."""
    if _KANA.search(text):
        return "ja"
    return "zh" if _HAN.search(text) else ""


@dataclass(frozen=True)
class Verdict:
    """tone: `good`, `bad` or `idle`, the colour. sentence: what happened and where to look, with links to the steps.
    cause: the first line of the first failure's error."""

    tone: str
    sentence: Markup
    cause: str = ""


def verdict(report: RunReport) -> Verdict:
    """One sentence for somebody who was woken up."""
    by_state: dict[str, list[StepReport]] = {}
    for step in report.steps:
        by_state.setdefault(step.state, []).append(step)
    done, same, failed = by_state.get("done", []), by_state.get("unchanged", []), by_state.get("failed", [])
    skipped, stopped = by_state.get("skipped", []), by_state.get("cancelled", [])
    if failed:
        parts = [Markup("{} of {} failed: {}").format(len(failed), plural(len(report.steps), "step"), _links(failed))]
        if skipped:
            parts.append(Markup("{} skipped: {}").format(len(skipped), _links(skipped)))
        if stopped:
            parts.append(Markup("{} cancelled: {}").format(len(stopped), _links(stopped)))
        others = len(done) + len(same)
        parts.append(escape("1 step stands published" if others == 1 else f"{others} steps stand published"))
        return Verdict("bad", Markup("; ").join(parts) + ".", _cause(failed))
    if report.state == "cancelled" or stopped:
        kept = f"{plural(len(done) + len(same), 'step')} had been published before"
        names = Markup(" ({})").format(_links(stopped)) if stopped else Markup("")
        return Verdict("bad", Markup("The run was cancelled{}; {}.").format(names, kept))
    if report.state == "failed":
        return Verdict("bad", Markup("The run failed outside its steps: look for {} in the log.").format(report.run_id))
    if skipped:
        return Verdict("bad", Markup("{} skipped: {}.").format(plural(len(skipped), "step"), _links(skipped)))
    if not done:
        return Verdict("idle", Markup("Nothing to do: every step already stands as its input and settings ask."))
    records, rejected = sum(s.records_out for s in done), sum(s.rows_rejected for s in done)
    said = f"All good: {plural(len(done), 'step')} published {plural(records, 'record')}"
    said += f", {count(len(same))} unchanged" if same else ""
    said += f"; {plural(rejected, 'input')} rejected, within budget" if rejected else ", nothing rejected"
    return Verdict("good", escape(said + "."))


def anchor(step: StepReport) -> str:
    """The id of the step's section; step names are checked by the job file, but the page relies on nobody."""
    return "step-" + re.sub(r"[^a-z0-9_]", "-", step.name[:63])


def _links(steps: list[StepReport], most: int = 6) -> Markup:
    links = [Markup('<a href="#{}">{}</a>').format(anchor(s), clip(s.name, 63)) for s in steps[:most]]
    more = Markup(" and {} more").format(len(steps) - most) if len(steps) > most else Markup("")
    return Markup(", ").join(links) + more


def _cause(failed: list[StepReport]) -> str:
    lines = (failed[0].error or "").strip().splitlines()
    return clip(lines[0], 300) if lines else ""
