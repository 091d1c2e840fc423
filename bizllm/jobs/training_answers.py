"""What a trained model answers: to validation and test, and to the test of an earlier training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bizllm.models.saved import ModelInfo, write_info
from bizllm.train import earlier, judge
from bizllm.train.frozen import EARLIER_TEST
from bizllm.train.judge import Answers
from bizllm.train.work import Work

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TrainedAnswers:
    """A model in its folder, loaded anew, and its answers to the parts."""

    work: Work
    folder: Path
    network: Any
    info: ModelInfo
    parts: Mapping[str, Answers]


def trained_answers(work: Work, folder: Path, parts: Mapping[str, pa.Table]) -> TrainedAnswers:
    """Let the model in the folder answer; it is calibrated on validation, which the folder then says."""
    from bizllm.models.network import load_network

    network = load_network(folder, work.info)
    raw = {name: judge.ask(work.objective, network, rows) for name, rows in parts.items()}
    info = judge.calibrated(work.objective, raw["validation"].outputs, parts["validation"])
    write_info(folder, info)
    told = type(work.objective)(work.recipe, work.tokenizer, info)
    found = {
        name: replace(judge.judged(told, one.outputs, parts[name]), tokens=one.tokens) for name, one in raw.items()
    }
    made = TrainedAnswers(work, folder, network, info, found)
    return (
        replace(made, parts={**found, "test": _wrote(made, found["test"], parts["test"])}) if "test" in found else made
    )


def retained(
    work: Work, metric: str, parts: Mapping[str, pa.Table], models: Mapping[str, TrainedAnswers]
) -> dict[str, Any]:
    """The base and the models made from it on the earlier test, and on the new one where there is one."""
    rows = work.examples(EARLIER_TEST)
    tests = {"earlier": (rows, {name: _answered(made, rows) for name, made in models.items()})}
    if "test" in parts:
        tests["new"] = parts["test"], {name: made.parts["test"] for name, made in models.items()}
    return earlier.retained(metric, work.base, tests, work.recipe)


def _answered(made: TrainedAnswers, rows: pa.Table) -> Answers:
    objective = type(made.work.objective)(made.work.recipe, made.work.tokenizer, made.info)
    return _wrote(made, judge.ask(objective, made.network, rows), rows)


def _wrote(made: TrainedAnswers, answers: Answers, rows: pa.Table) -> Answers:
    """With what a language model writes."""
    return judge.wrote(answers, made.folder, rows, made.work.recipe.max_new_tokens)
