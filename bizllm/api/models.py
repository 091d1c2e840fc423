"""The registry, and the trainings that fill it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bizllm.tables.store_settings import configure

if TYPE_CHECKING:
    from bizllm.models.registry import Registry
    from bizllm.train.progress import TrainingObserver


def finetune(
    train_path: str,
    *,
    address: str | None = None,
    sets: Sequence[str] = (),
    resume: str | None = None,
    registry: str | None = None,
    observer: TrainingObserver | None = None,
) -> dict[str, Any]:
    """Fine-tune a model as a training file says, register it, and promote it where it beats the one in use.

    address: a Ray cluster, else a local Ray. resume: the run_id of a run that died. registry: before the file's own.
    """
    from bizllm.jobs.training_file import load_recipe

    loaded = load_recipe(train_path, sets, registry)
    configure(loaded.recipe.storage)
    from bizllm.jobs.finetune import finetune as run_training
    from bizllm.watch.watched import watched_training

    with watched_training(loaded) as results:
        results.append(run_training(loaded, address=address, resume=resume, observer=observer))
    return results[0]


def compress(
    model: str,
    path: str,
    *,
    address: str | None = None,
    sets: Sequence[str] = (),
    registry: str | None = None,
    observer: TrainingObserver | None = None,
) -> dict[str, Any]:
    """Make smaller models that answer as a fine-tuned one does; each is measured and registered.

    model: its URI. path: the file that names the rows. The rest as of `finetune`.
    """
    from bizllm.jobs.training_file import load_compression

    loaded = load_compression(path, sets, registry)
    configure(loaded.compression.storage)
    from bizllm.jobs.compress import compress as make_pupils

    return make_pupils(model, loaded, address=address, observer=observer)


def evaluate(model: str, data_path: str, *, registry: str | None = None) -> dict[str, Any]:
    """Score a fine-tuned model on a labelled table: metrics with intervals, classes, slices."""
    from bizllm.jobs.evaluate import evaluate as score_model

    return score_model(model, data_path, registry)


def list_models(*, registry: str | None = None) -> list[dict[str, Any]]:
    """Every registered model: name, aliases, newest version, and the scores of its champion (else of the newest).

    registry: an MLflow server or a SQLite file, else MLFLOW_TRACKING_URI, else ./out/registry.db.
    """
    return [
        {
            "name": model.name,
            "aliases": model.aliases,
            "newest": model.newest,
            "version": model.shown.version,
            "metrics": model.shown.metrics,
        }
        for model in _registry(registry).models()
    ]


def show_model(name: str, *, registry: str | None = None) -> dict[str, Any]:
    """A registered model: its aliases, who held them before, and its versions, the newest first."""
    models = _registry(registry)
    versions = models.versions(name)
    aliases = {alias: version.version for version in versions for alias in version.aliases}
    return {
        "name": name,
        "aliases": aliases,
        "history": {alias: models.history(name, alias) for alias in aliases},
        "versions": [version.to_dict() for version in reversed(versions)],
    }


def promote_model(
    name: str, version: str | int, *, alias: str = "champion", registry: str | None = None
) -> dict[str, Any]:
    """Point an alias to a version, without proof. Returns model, alias, version and the version that it replaced."""
    return asdict(_registry(registry).set_alias(name, alias, str(version)))


def rollback_model(name: str, *, alias: str = "champion", registry: str | None = None) -> dict[str, Any]:
    """Point an alias back to the version that held it before. Returns the same as `promote_model`."""
    return asdict(_registry(registry).rollback(name, alias))


def _registry(given: str | None) -> Registry:
    from bizllm.models.registry import Registry, default_uri

    return Registry(default_uri(given, os.environ, "out"))
