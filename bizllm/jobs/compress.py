"""`bizllm compress MODEL FILE.yaml`: smaller models that answer as a fine-tuned one does, each measured and registered.

The teacher answers unlabelled rows; each pupil begins as a part of it (`models/prune.py`), learns its logits and
vectors as any training (`jobs/finetune.py`), and becomes a version that says how much smaller, faster and worse it is.
`plan` offers the smallest that a night could use.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.evaluate import calibration
from bizllm.evaluate.objective_metrics import default_metric
from bizllm.jobs.finetune import finetune
from bizllm.jobs.submitted import refuse_copies
from bizllm.jobs.training_file import LoadedCompression, LoadedRecipe
from bizllm.jobs.training_result import write_table
from bizllm.models.classifier import CLASSES, Classifier
from bizllm.models.engines.choice import Choice, Wanted, choose
from bizllm.models.load import ResolvedModel, resolve
from bizllm.models.prune import layer_count
from bizllm.models.registry import Registry
from bizllm.models.registry_uri import default_uri
from bizllm.models.saved import ModelInfo, read_info
from bizllm.tables import storage
from bizllm.train import data, judge, resampled, teacher
from bizllm.train.prepare import registry_uri
from bizllm.train.progress import TrainingObserver
from bizllm.train.recipe import PruneSettings, Recipe
from bizllm.train.teacher import Teacher, asked_of, teacher_of

APART = 2_000  # rows at most, a tenth of them, that tell how often a pupil answers as its teacher; never learned
SAMPLE = 4_096  # of them or of train, by which speed is measured


@dataclass(frozen=True)
class Measured:
    """A model's size, and what the engine reads that a night would choose."""

    parameters: int
    size_mb: float
    engine: Choice
    int8: Choice | None

    @classmethod
    def of(cls, folder: Path, asked: list[Any], int8: bool) -> Measured:
        """Measure it on some texts, or pairs."""
        import torch
        from safetensors import safe_open

        files, parameters = list(folder.glob("*.safetensors")), 0
        for file in files:
            with safe_open(file, "np") as weights:
                parameters += sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())
        model = Classifier.load(folder)
        windows = teacher.windows(model.tokenizer, asked, model.info)
        found: list[Choice] = []
        for precision in ("auto", "int8") if int8 else ("auto",):
            with tempfile.TemporaryDirectory(prefix="bizllm-") as work:
                wanted = Wanted(precision=precision)
                found.append(choose(model.network, windows, wanted, Path(work), torch.get_num_threads()))
        low = next((choice for choice in found[1:] if choice.precision == "int8"), None)
        return cls(parameters, sum(file.stat().st_size for file in files) / 1e6, found[0], low)

    def told(self) -> dict[str, Any]:
        """For a result."""
        return {
            "parameters": self.parameters,
            "size_mb": round(self.size_mb, 1),
            "engine": str(self.engine),
            "tokens_per_s": self.engine.tokens_per_s,
            "int8": None if self.int8 is None else {"engine": str(self.int8), "tokens_per_s": self.int8.tokens_per_s},
        }


def compress(
    model: str,
    loaded: LoadedCompression,
    *,
    address: str | None = None,
    observer: TrainingObserver | None = None,
) -> dict[str, Any]:
    """Make, measure and register every pupil; what `compress --json` prints. Raises UserError, RunError.

    model: the teacher's URI; a relative `path:` starts from the working directory.
    """
    refuse_copies(loaded.document)
    asked, place = loaded.compression, loaded.place
    found, info, pupils = _teacher(model, loaded)
    run = f"compress-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    name = asked.name or info.name
    rows_url = storage.join(asked.output, name, run, "rows.parquet")
    recipe = asked.recipe(found.uri, info, None, rows_url)
    metric = default_metric(recipe.objective)
    test = _test(recipe, place)
    train, apart = _rows(loaded, recipe)
    teaches = teacher_of(found)
    write_table(_labelled(train, teaches), rows_url)
    some = asked_of(pa.concat_tables([apart, train]).slice(0, SAMPLE))
    theirs = Measured.of(found.folder, some, int8=False)
    told: dict[str, Any] = {"model": found.uri, "layers": layer_count(found.folder), **theirs.told()}
    if test is not None:
        answers = judge.answer(found.folder, info, test, recipe)
        told["score"] = answers.metrics.get(metric)
    registry = Registry(registry_uri(recipe, place))
    made = []
    for prune in pupils:
        result = finetune(
            LoadedRecipe(asked.recipe(found.uri, info, prune, rows_url), loaded.path, loaded.document),
            address=address,
            observer=observer,
        )
        folder = registry.fetch(name, result["version"])
        own = read_info(folder)
        assert own is not None, "a model that was registered says what it is"
        pupil = {"model": result["model"], "version": result["version"], "layers": layer_count(folder)}
        pupil |= {"feed_forward": prune.feed_forward, **Measured.of(folder, some, int8=True).told()}
        pupil["times"] = round(pupil["tokens_per_s"] / theirs.engine.tokens_per_s, 2)
        pupil["agreement"] = _agreement(teaches, Teacher(Classifier.load(folder)), asked_of(apart))
        if test is not None:
            compared = resampled.compare(
                metric, judge.answer(folder, own, test, recipe), answers, test, info.labels, 0.95
            )
            pupil |= {
                "score": compared.challenger,
                "loss": -compared.gain,
                "low": -compared.high,
                "high": -compared.low,
            }
        pupil["offered"] = test is not None and pupil["loss"] <= asked.max_loss
        registry.tag(name, result["version"], _tags(found, metric, pupil, told))
        made.append(pupil)
    offered = [pupil for pupil in made if pupil["offered"]]
    return {
        "name": name,
        "teacher": told,
        "metric": metric,
        "rows": {"train": len(train), "apart": len(apart), "test": 0 if test is None else len(test)},
        "students": made,
        "max_loss": asked.max_loss,
        "smallest": min(offered, key=lambda pupil: pupil["parameters"])["model"] if offered else None,
    }


def _teacher(model: str, loaded: LoadedCompression) -> tuple[ResolvedModel, ModelInfo, list[PruneSettings]]:
    """The teacher and what is to be made of it. Raises UserError."""
    asked, place = loaded.compression, loaded.place
    where = default_uri(asked.registry, os.environ, os.path.dirname(asked.output.rstrip("/")), place("registry"))
    found = resolve(model, os.getcwd(), "MODEL", where)
    info = read_info(found.folder)
    if info is None or info.objective not in CLASSES or info.inputs == "numbers":
        is_one = f"it is one of {info.objective}" if info else "it has no bizllm.json"
        expected = f"expected a model of texts that was fine-tuned for {', '.join(CLASSES)}; {is_one}"
        raise UserError(Fault("MODEL", model, expected))
    if found.kind == "registry":  # which may call it otherwise than it does itself
        info = replace(info, name=found.uri.removeprefix("registry:").partition("@")[0])
    if (info.inputs == "pair") != (asked.data.train.pair is not None):
        expected = "the model reads pairs: name both columns" if info.inputs == "pair" else "the model reads no pairs"
        raise UserError(Fault(place("data", "train", "pair"), asked.data.train.pair, expected))
    layers = layer_count(found.folder)
    for i, pupil in enumerate(asked.students):
        if pupil.layers is not None and pupil.layers > layers:
            raise UserError(
                Fault(
                    place("students", i, "layers"), pupil.layers, f"the model has {layers} layers", f"use 1 to {layers}"
                )
            )
    usual = sorted({max(1, layers // 2), max(1, layers // 3)}, reverse=True)
    return found, info, asked.students or [PruneSettings(layers=count) for count in usual]


def _test(recipe: Recipe, place: data.Place) -> pa.Table | None:
    """The labelled rows. Raises UserError."""
    table = recipe.data.test
    if table is None:
        return None
    return data.read_table("test", table, recipe, lambda *keys: place("data", "test", *keys)).rows


def _rows(loaded: LoadedCompression, recipe: Recipe) -> tuple[pa.Table, pa.Table]:
    """(rows to learn from, rows kept apart), each text once, none of test. Raises UserError."""
    asked = loaded.compression
    wanted = asked.data.train

    def at(*keys: str) -> str:
        return loaded.place("data", "train", *keys)

    table = recipe.data.train.model_copy(update=wanted.model_dump() | {"label": None})
    roles = ("text", "pair") if wanted.pair else ("text",)
    columns = list(roles)
    rows = data.read_table("train", table, recipe, at, roles).rows.select(columns)
    rows = rows.group_by(columns, use_threads=False).aggregate([])
    drawn = np.random.default_rng(asked.seed).permutation(len(rows))[: asked.rows]
    count = min(APART, len(drawn) // 10)
    if not count:
        raise UserError(Fault(at("path"), wanted.path, f"has {len(rows)} different texts; expected at least 10"))
    return rows.take(pa.array(drawn[count:])), rows.take(pa.array(drawn[:count]))


def _labelled(rows: pa.Table, teaches: Teacher) -> pa.Table:
    """The rows with what the teacher calls them: classes for splits, scores while training, and the control."""
    said = _said(teaches, asked_of(rows))
    labels = teaches.info.labels
    if said.ndim == 1:
        return rows.append_column("label", pa.array([labels[i] for i in said], pa.string()))
    several = [[labels[i] for i in np.flatnonzero(row)] for row in said]
    return rows.append_column("label", pa.array(several, pa.list_(pa.string())))


def _said(model: Teacher, asked: list[Any]) -> Any:
    """(rows,) places of labels; of a model that gives several (rows, labels) whether it gives each."""
    logits, _ = model.answers(asked)
    if model.info.objective != "multi_label":
        return logits.argmax(1)
    threshold = model.classifier.threshold
    assert threshold is not None, "of several labels each has one"
    return calibration.sigmoid(logits, model.info.temperature) >= threshold


def _agreement(one: Teacher, other: Teacher, asked: list[Any]) -> float:
    """The share of rows that both answer alike."""
    first, second = _said(one, asked), _said(other, asked)
    order = [other.info.labels.index(label) for label in one.info.labels]
    if first.ndim == 2:
        return float((first == second[:, order]).all(axis=1).mean())
    return float((np.array(one.info.labels)[first] == np.array(other.info.labels)[second]).mean())


def _tags(found: ResolvedModel, metric: str, pupil: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, object]:
    """What a registered pupil says of itself; `plan` reads it."""
    tags: dict[str, object] = {"teacher": found.uri, "teacher_hash": found.content_hash, "metric": metric}
    tags |= {key: pupil[key] for key in ("layers", "feed_forward", "parameters", "size_mb", "times", "agreement")}
    tags |= {f"teacher_{key}": told[key] for key in ("size_mb", "parameters")}
    if "loss" in pupil:
        tags |= {"score": pupil["score"], "score_loss": pupil["loss"], "teacher_score": told["score"]}
    return tags
