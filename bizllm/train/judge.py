"""A model's answers to labelled rows, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import calibration
from bizllm.models.saved import ModelInfo
from bizllm.train import written
from bizllm.train.objectives.base import Array, Objective, objective_class
from bizllm.train.objectives.classification import Classification
from bizllm.train.objectives.regression import values
from bizllm.train.work import lengths, load_tokenizer

if TYPE_CHECKING:
    from bizllm.train.recipe import Recipe

Floats = npt.NDArray[np.float64]
CLASSES = ("classification", "pair")


@dataclass(frozen=True)
class Answers:
    """What a model said of a part's rows. outputs: as `Objective.predict` gives them. metrics: of all rows.

    tokens: (examples,) what the model read of each; None where it reads otherwise. written: scores of the texts that a
    language model wrote, as `written.scores` gives them.
    """

    info: ModelInfo
    outputs: Mapping[str, Array]
    metrics: dict[str, float]
    tokens: npt.NDArray[np.int64] | None = None
    written: written.Scores = field(default_factory=dict)


def answer(folder: Path, info: ModelInfo, rows: pa.Table, recipe: Recipe) -> Answers:
    """Load the model in the folder and let it answer the rows, as it would at night: bf16 where the CPU multiplies it.

    recipe: of what the objective needs; the labels and the window are the model's own. Rows of a class that the model
    does not know are answered too; `metrics` are then of no use, and `resampled` is.
    """
    from bizllm.models.network import load_network

    objective = objective_class(info.objective)(recipe, load_tokenizer(folder), info)
    return wrote(ask(objective, load_network(folder, info), rows), folder, rows, recipe.max_new_tokens)


def ask(objective: Objective, network: Any, rows: pa.Table) -> Answers:
    """As `answer`, of a network that is loaded; it writes nothing. Every row is an example of its own."""
    import torch

    from bizllm.models.batches import native_bfloat16
    from bizllm.train.validate import predict

    apart = objective.recipe.model_copy(update={"packing": False})
    objective = type(objective)(apart, objective.tokenizer, objective.info)
    rows = _with_known_labels(rows, objective.info)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    examples = objective.encode(rows)
    fast = native_bfloat16(device.type)
    with torch.random.fork_rng(), torch.autocast(device.type, torch.bfloat16) if fast else nullcontext():
        torch.manual_seed(0)  # of the tokens that masked_lm hides: the same for every model
        outputs = predict(objective, network, examples, device)
    assert outputs is not None, "one process has all answers"
    return replace(judged(objective, outputs, rows), tokens=lengths(examples))


def wrote(answers: Answers, folder: Path, rows: pa.Table, max_new_tokens: int) -> Answers:
    """The answers with what the model in the folder writes for the rows' prompts, where they have any."""
    if not written.writes(answers.info.objective, rows.schema):
        return answers
    found = written.scores(rows, written.answer(folder, rows, max_new_tokens))
    return replace(answers, written=found, metrics={**answers.metrics, **written.means(found)})


def judged(objective: Objective, outputs: Mapping[str, Array], rows: pa.Table) -> Answers:
    """Answers with their metrics, those that a recipe may name."""
    found = objective.scores(outputs, rows)
    return Answers(objective.info, outputs, {name: value for name, value in found.items() if np.isfinite(value)})


def calibrated(objective: Objective, outputs: Mapping[str, Array], rows: pa.Table) -> ModelInfo:
    """The model's info with temperature and threshold fitted on validation."""
    info, distill = objective.info, objective.recipe.distill
    if not isinstance(objective, Classification) or (distill is not None and distill.share == 1.0):
        return info  # of a pupil that no label is shown to they are its teacher's
    truth = objective.truth(rows)
    temperature = calibration.fit_temperature(outputs["logits"], truth)
    if info.objective == "multi_label":
        probabilities = calibration.sigmoid(outputs["logits"], temperature)
        threshold = calibration.best_threshold_multi_label(probabilities, truth)
    else:
        probabilities = calibration.softmax(outputs["logits"], temperature)
        threshold = calibration.out_of_scope_threshold(probabilities, truth)
    return replace(info, temperature=temperature, threshold=threshold)


# -- what outputs say -------------------------------------------------------------------------------------------------


def numbers(answers: Answers, rows: pa.Table) -> tuple[Floats, Floats]:
    """(points (rows, horizon), quantiles (rows, horizon, levels) in order) in the unit of the labels; of quantiles the
    point is the level nearest to the median."""
    from bizllm.methods.number_text import encode_history

    info = answers.info
    given = answers.outputs["numbers"].astype(np.float64)
    if info.inputs == "numbers":
        given = given * np.array([encode_history(history)[1] for history in rows["text"].to_pylist()])[:, None]
    quantiles = np.sort(given.reshape(len(rows), info.horizon, max(1, len(info.levels))), axis=-1)
    middle = int(np.argmin(np.abs(np.array(info.levels or (0.5,)) - 0.5)))
    return quantiles[..., middle], quantiles


def shares_below(answers: Answers, rows: pa.Table) -> dict[float, float]:
    """For each quantile level the share of outcomes at or below it: the level itself where quantiles are right."""
    _, quantiles = numbers(answers, rows)
    truth = values(rows)
    return {level: float((truth <= quantiles[..., i]).mean()) for i, level in enumerate(answers.info.levels)}


def _with_known_labels(rows: pa.Table, info: ModelInfo) -> pa.Table:
    """The rows, where labels that the model does not have stand for ones that it has: only its answers are wanted."""
    if not info.labels or "label" not in rows.column_names:
        return rows
    known, place = set(info.labels), rows.column_names.index("label")
    labels = rows["label"].to_pylist()
    other = "O" if "O" in known else info.labels[0]
    if info.objective in CLASSES:
        from bizllm.train.objectives.classification import names

        labels = [label if label in known else info.labels[0] for label in names(rows["label"])]
        return rows.set_column(place, "label", pa.array(labels))
    keep = [[x if x in known else other for x in some or []] for some in labels]
    if info.objective == "multi_label":
        keep = [[x for x in some or [] if x in known] for some in labels]
    return rows.set_column(place, "label", pa.array(keep, pa.list_(pa.string())))


def said_tags(answers: Answers, rows: pa.Table) -> list[list[str]]:
    """The tags that a token classifier gave each row, as many as the row has tokens."""
    return [
        [*(answers.info.labels[i] for i in found), *["O"] * (len(true) - len(found))]
        for found, true in zip(answers.outputs["tags"], rows["label"].to_pylist(), strict=True)
    ]


def places(column: pa.ChunkedArray, labels: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """(rows,) the place of each row's class among the labels."""
    from bizllm.train.objectives.classification import names

    place = {label: i for i, label in enumerate(labels)}
    return np.array([place[label] for label in names(column)], np.int64)
