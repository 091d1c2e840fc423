"""What benchmarks share: the machine in words, rounds in turns, medians with their spread, and results beside the last.

Systems take turns within a round, and each round begins with another one, so that a machine that slows down slows all.
Ratios are taken within a round; their median is told, with the least and the largest.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from bizllm.models.engines.base import processor

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
# Texts of mixed lengths, of one language: set → file, column.
MIXED = (
    ("banking77", "train", "text"),
    ("sentiment_sentences_en", "all", "text"),
    ("fewsum_reviews", "train", "reviews"),
    ("mts_dialog", "train", "dialogue"),
    ("policyqa", "dev_passages", "passage"),
)
QUESTION = (
    "where is my parcel the kettle leaks please call me back about order card was charged twice i want refund because "
    "it arrived late and wet can you change address of delivery to new house thank you very much today lamp broken"
)
REGRESSION = 0.15  # a ratio that is worse by more than that is shown in red
RED, PLAIN = ("\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "")


def machine(*packages: str) -> str:
    """Date, processor, cores, memory, Python, the versions of some packages, and the load before."""
    found = [f"{name} {_version(name)}" for name in packages]
    return ", ".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d}",
            hardware(),
            f"Python {platform.python_version()}",
            *found,
            f"load {os.getloadavg()[0]:.1f} before",
        ]
    )


def hardware() -> str:
    """Processor, cores and memory."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.machine()} ({processor()}), {os.cpu_count()} CPUs, {gib:.0f} GiB"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def in_turns(systems: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each system gives (seconds, or a rate), once a round."""
    names = list(systems)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        for name in [*names[shift:], *names[:shift]]:
            found[name].append(systems[name]())
            print(f"round {number + 1}, {name}: {found[name][-1]:,.2f}", flush=True)
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """`12,345 (12,001 to 12,600)`."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f} to {most:,.{digits}f})"


def times(values: Sequence[float]) -> str:
    """A ratio with its spread: `8.1× (7.9 to 8.3)`."""
    return f"{statistics.median(values):.2f}× ({min(values):.2f} to {max(values):.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def bar(name: str, value: float, least: float) -> dict[str, Any]:
    """A bar and whether it was reached, for a result's `bars`."""
    return {"name": name, "value": round(value, 6), "bar": least, "reached": value >= least}


def bars_table(bars: Sequence[Mapping[str, Any]]) -> str:
    """The bars of a result, as Markdown."""
    rows = [
        [
            b["name"],
            f"{b['value']:.{5 if 0.99 < b['bar'] < 1 else 2}f}",
            f"≥ {b['bar']:g}",
            "yes" if b["reached"] else "**no**",
        ]
        for b in bars
    ]
    return table(["what", "measured", "bar", "reached"], rows)


def write(name: str, result: Mapping[str, Any], text: str, out: Path = RESULTS) -> None:
    """Write NAME.json and NAME.md, and hold the bars against those of the last committed result."""
    out.mkdir(parents=True, exist_ok=True)
    before = _committed(name)
    (out / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if result.get("bars"):
        (out / f"{name}.svg").write_text(plot(result["bars"]))
        text = f"{text.rstrip()}\n\n![what was measured, as a share of its bar]({name}.svg)"
    (out / f"{name}.md").write_text(text.rstrip() + "\n")
    earlier = {b["name"]: b["value"] for b in before.get("bars", ())}
    for found in result.get("bars", ()):
        was = earlier.get(found["name"])
        worse = was is not None and found["value"] < was * (1 - REGRESSION)
        told = "" if was is None else f", last time {was:.2f}"
        reached = "reached" if found["reached"] else f"bar {found['bar']:g} MISSED"
        print(f"{RED if worse else ''}{found['name']}: {found['value']:.2f}{told}, {reached}{PLAIN if worse else ''}")


def plot(bars: Sequence[Mapping[str, Any]]) -> str:
    """An SVG: each bar as a share of what is asked, at most three times that, with a line where it is reached."""
    height, left, one = 24, 430, 130
    lines = []
    for i, found in enumerate(bars):
        share = max(0.0, min(3.0, found["value"] / found["bar"]))
        y, colour = 10 + height * i, "#2e7d32" if found["reached"] else "#c62828"
        said = f"{found['value']:.4g} of {found['bar']:.4g}"
        lines += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{escape(found["name"])}</text>',
            f'<rect x="{left}" y="{y}" width="{share * one:.0f}" height="16" fill="{colour}"/>',
            f'<text x="{left + share * one + 6:.0f}" y="{y + 13}">{said}</text>',
        ]
    total = 20 + height * len(bars)
    lines.append(f'<line x1="{left + one}" y1="4" x2="{left + one}" y2="{total - 8}" stroke="#333"/>')
    style = 'font-family="sans-serif" font-size="12"'
    size = f'width="{left + 3 * one + 120}" height="{total}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>"]) + "\n"


def _committed(name: str) -> dict[str, Any]:
    if not shutil.which("git"):
        return {}
    told = subprocess.run(
        ["git", "show", f"HEAD:benchmarks/results/{name}.json"], cwd=ROOT, capture_output=True, text=True
    )
    return dict(json.loads(told.stdout)) if told.returncode == 0 else {}


def flops_of_a_token(folder: Path, tokens: int) -> float:
    """Multiplications and additions of the layers for a token of a row of so many."""
    config = json.loads((folder / "config.json").read_text())
    dim, layers, wide = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    return float(layers * (2 * (4 * dim * dim + 2 * dim * wide) + 4 * tokens * dim))


def questions(rows: int, seed: int = 0) -> list[str]:
    """Made-up questions of 5 to 30 words, no two the same."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 31, rows)
    words = np.array(QUESTION.split())[rng.integers(0, len(QUESTION.split()), int(lengths.sum()))]
    ends = np.cumsum(lengths)
    return [f"{' '.join(words[end - n : end])}. {i}." for i, (n, end) in enumerate(zip(lengths, ends, strict=True))]
