"""A model's answers to labelled rows, what they are worth, and whether one model is better than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.evaluate import calibration, classification, resample, retrieval, tags, texts
from bizllm.evaluate.objective_metrics import METRICS
from bizllm.models.saved import ModelInfo
from bizllm.train.objectives.base import Array, Objective, objective_class
from bizllm.train.objectives.regression import values
from bizllm.train.work import lengths, load_tokenizer

if TYPE_CHECKING:
    from bizllm.train.recipe import Recipe

Floats = npt.NDArray[np.float64]
CLASSES = ("classification", "pair")
_RESAMPLED_OF_CLASSES = ("macro_f1", "accuracy")


@dataclass(frozen=True)
class Answers:
    """What a model said of a part's rows. outputs: as `Objective.predict` gives them. metrics: of all rows.

    tokens: (examples,) what the model read of each; None where it reads otherwise.
    """

    info: ModelInfo
    outputs: Mapping[str, Array]
    metrics: dict[str, float]
    tokens: npt.NDArray[np.int64] | None = None


def answer(folder: Path, info: ModelInfo, rows: pa.Table, recipe: Recipe) -> Answers:
    """Load the model in the folder and let it answer the rows, as it would at night: bf16 where the CPU multiplies it.

    recipe: of what the objective needs; the labels and the window are the model's own. Rows of a class that the model
    does not know are answered too; `metrics` are then of no use, and `compare` is.
    """
    from bizllm.models.network import load_network

    objective = objective_class(info.objective)(recipe, load_tokenizer(folder), info)
    return ask(objective, load_network(folder, info), rows)


def ask(objective: Objective, network: Any, rows: pa.Table) -> Answers:
    """As `answer`, of a network that is loaded."""
    import torch

    from bizllm.models.batches import native_bfloat16
    from bizllm.train.validate import predict

    rows = _with_known_labels(rows, objective.info)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    examples = objective.encode(rows)
    fast = native_bfloat16(device.type)
    with torch.autocast(device.type, torch.bfloat16) if fast else nullcontext():
        outputs = predict(objective, network, examples, device)
    assert outputs is not None, "one process has all answers"
    return replace(judged(objective, outputs, rows), tokens=lengths(examples))


def judged(objective: Objective, outputs: Mapping[str, Array], rows: pa.Table) -> Answers:
    """Answers with their metrics, those that a recipe may name."""
    found = objective.scores(outputs, rows)
    return Answers(objective.info, outputs, {name: value for name, value in found.items() if np.isfinite(value)})


def calibrated(objective: Objective, outputs: Mapping[str, Array], rows: pa.Table) -> ModelInfo:
    """The model's info with temperature and threshold fitted on validation."""
    info = objective.info
    if info.objective in CLASSES:
        truth = objective.truth(rows)  # type: ignore[attr-defined]  # of objectives with classes
        temperature = calibration.fit_temperature(outputs["logits"], truth)
        probabilities = calibration.softmax(outputs["logits"], temperature)
        return replace(
            info, temperature=temperature, threshold=calibration.out_of_scope_threshold(probabilities, truth)
        )
    if info.objective == "multi_label":
        truth = objective.truth(rows)  # type: ignore[attr-defined]
        temperature = calibration.fit_temperature(outputs["logits"], truth)
        probabilities = calibration.sigmoid(outputs["logits"], temperature)
        return replace(
            info, temperature=temperature, threshold=calibration.best_threshold_multi_label(probabilities, truth)
        )
    return info


# -- resampling ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resampled:
    """What the bootstrap takes of a metric: truth and answers by row, and the metric of some of them."""

    truth: Array
    given: Array
    metric: Callable[[Any, Any], float]
    higher_is_better: bool


def resampled(metric: str, answers: Answers, rows: pa.Table, labels: tuple[str, ...]) -> Resampled | None:
    """The metric as one of rows that can be drawn; None where it is not one (ece, r2, …).

    labels: classes in which truth is told; a model that knows others is wrong where it names them.
    """
    info, outputs = answers.info, answers.outputs
    higher = METRICS[info.objective].get(metric, True)
    truth: Array
    given: Array
    measure: Callable[[Any, Any], float]
    if info.objective in CLASSES:
        truth = places(rows["label"], labels)
        probabilities = _moved(calibration.softmax(outputs["logits"], info.temperature), info.labels, labels)
        if metric in _RESAMPLED_OF_CLASSES:
            given, k = probabilities.argmax(1), probabilities.shape[1]
            measure = resample.accuracy if metric == "accuracy" else lambda t, g: resample.macro_f1(t, g, k)
        else:
            given, measure = probabilities, classification.metric("log_loss" if metric == "loss" else metric)
    elif info.objective == "multi_label":
        given = _moved(calibration.sigmoid(outputs["logits"], info.temperature), info.labels, labels)
        place = {label: i for i, label in enumerate(labels)}
        truth = np.zeros((*given.shape[:1], len(labels)), bool)
        for row, some in enumerate(rows["label"].to_pylist()):
            truth[row, [place[label] for label in some or []]] = True
        given = given[:, : len(labels)]
        threshold = 0.5 if info.threshold is None else info.threshold
        measure = lambda t, g: classification.multi_label_scores(g, t, threshold).get(metric, float("nan"))  # noqa: E731
    elif info.objective in ("regression", "quantile"):
        return _of_numbers(metric, answers, rows, higher)
    elif info.objective == "token_classification":
        if metric not in ("f1", "loss"):
            return None
        truth = given = tags.span_counts(rows["label"].to_pylist(), said_tags(answers, rows))
        measure = lambda _, g: tags.f1_of_counts(g)  # noqa: E731
    elif info.objective == "embedding":
        truth = given = retrieval.ranks(outputs["anchors"], outputs["positives"])
        best = {"recall_at_1": 1, "recall_at_10": 10}.get(metric)
        if best is None and metric != "mrr":
            return None
        measure = (lambda _, g: float((g <= best).mean())) if best else (lambda _, g: float((1 / g).mean()))
    else:
        if metric not in ("loss", "perplexity"):
            return None
        truth = given = np.stack([outputs["loss"], outputs["units"]], 1).astype(np.float64)
        nll = lambda _, g: float(g[:, 0].sum() / max(g[:, 1].sum(), 1.0))  # noqa: E731
        measure = nll if metric == "loss" else lambda t, g: texts.perplexity(float(g[:, 0].sum()), int(g[:, 1].sum()))
    return Resampled(truth, given, measure, higher)


def _of_numbers(metric: str, answers: Answers, rows: pa.Table, higher: bool) -> Resampled | None:
    from bizllm.evaluate import metrics as errors

    info, truth = answers.info, values(rows)
    given, quantiles = _numbers(answers, rows)
    if info.levels and metric in ("pinball", "loss"):
        losses = [errors.pinball(truth, quantiles[..., i], level) for i, level in enumerate(info.levels)]
        by_row = np.mean(losses, axis=0)
        return Resampled(by_row, by_row, lambda _, g: float(g.mean()), False)
    measures: dict[str, Callable[[Any, Any], float]] = {
        "mae": lambda t, g: float(np.abs(t - g).mean()),
        "rmse": lambda t, g: float(np.sqrt(((t - g) ** 2).mean())),
        "loss": lambda t, g: float(((t - g) ** 2).mean()),
        "smape": lambda t, g: float(errors.smape(t, g).mean()),
    }
    return Resampled(truth, given, measures[metric], higher) if metric in measures else None


def _numbers(answers: Answers, rows: pa.Table) -> tuple[Floats, Floats]:
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
    _, quantiles = _numbers(answers, rows)
    truth = values(rows)
    return {level: float((truth <= quantiles[..., i]).mean()) for i, level in enumerate(answers.info.levels)}


def intervals(
    answers: Answers, rows: pa.Table, labels: tuple[str, ...], confidence: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of those metrics that rows can be drawn for."""
    made = {}
    for name in answers.metrics:
        drawn = resampled(name, answers, rows, labels)
        if drawn is not None and name not in ("roc_auc", "log_loss", "ece"):
            made[name] = resample.interval(drawn.metric, (drawn.truth, drawn.given), confidence=confidence)
    return made


def compare(
    metric: str, challenger: Answers, champion: Answers, rows: pa.Table, labels: tuple[str, ...], confidence: float
) -> resample.Comparison:
    """Both models on the same rows (paired bootstrap)."""
    new, old = resampled(metric, challenger, rows, labels), resampled(metric, champion, rows, labels)
    assert new is not None and old is not None, "a metric that promotes can be resampled"
    if new.truth is new.given:  # the statistics of a row hold its truth
        rows_alone = np.zeros(len(new.given))
        return resample.paired(
            new.metric, rows_alone, new.given, old.given, higher_is_better=new.higher_is_better, confidence=confidence
        )
    return resample.paired(
        new.metric, new.truth, new.given, old.given, higher_is_better=new.higher_is_better, confidence=confidence
    )


def _with_known_labels(rows: pa.Table, info: ModelInfo) -> pa.Table:
    """The rows, where labels that the model does not have stand for ones that it has: only its answers are wanted."""
    if not info.labels or "label" not in rows.column_names:
        return rows
    known, place = set(info.labels), rows.column_names.index("label")
    labels = rows["label"].to_pylist()
    if info.objective in CLASSES:
        from bizllm.train.objectives.classification import names

        labels = [label if label in known else info.labels[0] for label in names(rows["label"])]
        return rows.set_column(place, "label", pa.array(labels))
    keep = [[x if x in known else "O" for x in some] for some in labels]
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


def _moved(probabilities: Floats, own: tuple[str, ...], labels: tuple[str, ...]) -> Floats:
    """(rows, labels + what else the model names), `labels` first; 0 for a class that the model doesn't know."""
    if own == labels:
        return probabilities
    others = [label for label in own if label not in labels]
    place = {label: i for i, label in enumerate((*labels, *others))}
    made = np.zeros((len(probabilities), len(place)))
    made[:, [place[label] for label in own]] = probabilities
    return made
