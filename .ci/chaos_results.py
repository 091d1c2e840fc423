"""`chaos_results.py JUNIT.xml OUT.md`: the table of a run of the fault matrix."""

from __future__ import annotations

import os
import platform
import sys
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

LEGEND = """
Each line is one run that was hit by one fault, and a plain rerun after it. The fault comes at the nth call of a point
(tests/chaos/faults/sitecustomize.py), counted over all processes. `exit`: of the run that was hit, then of the rerun;
−9 was killed. `looks`: how often a reader read the tables through DuckDB meanwhile. `asked`: texts that tasks were
asked for in both runs; an undisturbed run asks for {undisturbed}. Passed: the tables equal those of an undisturbed
run row by row, every row is accounted for, the ledger has each step once, nothing of the runs is left, and every look
saw the old night or the new one, whole.
"""


def main(junit: str, out: str) -> None:
    """Write the page."""
    tree = ElementTree.parse(junit)  # noqa: S314  # pytest wrote it a moment ago
    cases = [case for case in tree.iter("testcase") if "[" in case.get("name", "")]
    rows, passed, undisturbed = [], 0, None
    for case in cases:
        said = {p.get("name"): p.get("value") for p in case.iter("property")}
        failed = case.find("failure") is not None or case.find("error") is not None
        passed += not failed
        undisturbed = undisturbed or said.get("undisturbed")
        name = (case.get("name") or "").partition("[")[2].rstrip("]").replace("-", " ")
        exits = f"{said.get('first_exit')}, {said.get('again_exit')}".replace("-", "−")
        cells = [
            name,
            exits,
            said.get("looks"),
            said.get("asked"),
            said.get("seconds"),
            "**failed**" if failed else "passed",
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    seconds = sum(float(suite.get("time", 0)) for suite in tree.iter("testsuite"))
    machine = f"{date.today()}, {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    Path(out).write_text(
        f"# The fault matrix (`make chaos`)\n\n{machine}: {passed} of {len(cases)} passed in {seconds:.0f} s.\n"
        + LEGEND.format(undisturbed=undisturbed)
        + "\n| fault | exit | looks | asked | seconds | outcome |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
