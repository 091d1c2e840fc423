"""Every figure that a report tells of a task stands in the committed results."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from bizllm.tasks.base import Task, task_class, task_names

RESULTS = Path(__file__).parents[2] / "benchmarks/results/tasks.json"
TOLD = [name for name in task_names() if task_class(name).caveat is not Task.caveat]
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?: ?%)?")


def value(written: str) -> float:
    """A number as it is written, of a percentage its share."""
    number = float(written.rstrip(" %"))
    return number / 100 if written.endswith("%") else number


def figures(name: str) -> list[float]:
    """What was measured of a task, and the numbers in what is said of it."""
    lines = json.loads(RESULTS.read_text())["tasks"][name]["lines"]
    said = " ".join(f"{line['data']} {line['note']}" for line in lines)
    told = [value(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)? ?%?", said)]
    return [*(line[side] for line in lines for side in ("ours", "baseline")), *told]


@pytest.mark.parametrize("name", TOLD)
def test_a_caveat_tells_what_was_measured(name: str) -> None:
    known = figures(name)
    texts = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', inspect.getsource(task_class(name).caveat)))
    texts = re.sub(r"(\d+) to (\d+ ?%)", r"\1 % to \2", texts.replace("Banking77", ""))
    for written in NUMBER.findall(texts):
        digits = len(written.rstrip(" %").partition(".")[2]) + (2 if written.endswith("%") else 0)
        # Half a unit of the last digit: what was rounded once, from the results.
        near = [figure for figure in known if abs(figure - value(written)) <= 0.5 * 10**-digits + 1e-9]
        assert near, f"{name}: {written} stands nowhere in the results"


def test_there_are_caveats() -> None:
    assert {"sentiment", "answer", "consult", "diagnose"} <= set(TOLD)
