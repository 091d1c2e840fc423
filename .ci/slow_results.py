"""The last result of tests as a page: `python .ci/slow_results.py JUNIT.xml PAGE.md [TARGET [NOTE]]`."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree


def page(report: Path, target: str = "make test-slow", note: str = "") -> str:
    """A line about the run, a note, and a row for each test, the longest first. What tests record comes as columns."""
    found = ElementTree.parse(report).iter("testcase")  # noqa: S314  # pytest wrote it a moment ago
    cases = sorted(found, key=lambda case: -float(case.get("time", 0)))
    outcomes = Counter(outcome(case) for case in cases)
    counted = ", ".join(f"{count} {what}" for what, count in sorted(outcomes.items()))
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "deepspeed"))
    seconds = sum(float(case.get("time", 0)) for case in cases)
    said = [{p.get("name", ""): p.get("value", "") for p in case.iter("property")} for case in cases]
    columns = list(dict.fromkeys(name for one in said for name in one))
    lines = [
        f"# `{target}`",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}, {packages}: {counted} in {seconds:,.0f} s.",
        *(["", note] if note else []),
        "",
        "| " + " | ".join(["seconds", "outcome", "tests of", "test", *columns]) + " |",
        "|---|---|---|---|" + "---|" * len(columns),
    ]
    for case, recorded in zip(cases, said, strict=True):
        where = case.get("classname", "").removeprefix("tests.").replace("test_", "").replace(".", "/")
        name = case.get("name", "").removeprefix("test_").replace("_", " ").replace("|", "/")
        cells = [f"{float(case.get('time', 0)):.1f}", outcome(case), where, name]
        lines.append("| " + " | ".join([*cells, *(recorded.get(column, "") for column in columns)]) + " |")
    return "\n".join(lines) + "\n"


def outcome(case: ElementTree.Element) -> str:
    """passed, failed, error or skipped."""
    return next(
        (
            said
            for tag, said in (("failure", "failed"), ("error", "error"), ("skipped", "skipped"))
            if case.find(tag) is not None
        ),
        "passed",
    )


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(page(Path(sys.argv[1]), *sys.argv[3:]))
