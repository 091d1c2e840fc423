"""The engines of a step: those that an earlier night chose, or chosen now where the work is worth the asking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bizllm import logs
from bizllm.infer import engines as choosing
from bizllm.infer.kept_engines import FILE, Kept, folder_of, kept
from bizllm.infer.receipts import Receipt
from bizllm.infer.work import StepContext, TaskStage, Unit
from bizllm.jobs.prepare import PreparedStep
from bizllm.models.engines.choice import Wanted
from bizllm.models.load import ResolvedModel
from bizllm.tables import storage
from bizllm.tasks.base import Task, TaskSettings

_log = logs.get(__name__)

MANY_TOKENS = 500_000  # fewer are read before a choice is made: about ten seconds, and a conversion


def root_of(warehouse: str, job: str, step: str) -> str:
    """The folder of a step's choices."""
    return storage.join(warehouse, "_bizllm", job, "engines", step)


def urls_of(task: Task, pinned: Mapping[str, ResolvedModel], root: str) -> dict[str, str]:
    """Where the choice for each model that engines compute is kept, by the model's URI."""
    return {
        uri: folder_of(root, pinned[uri].content_hash, task.settings.engine, task.settings.precision)
        for role, uri in task.models().items()
        if role != "generator"
    }


def standing(step: PreparedStep, root: str) -> dict[str, Kept]:
    """The choices that earlier nights made, by the model's URI."""
    found = {uri: kept(url) for uri, url in urls_of(step.task, step.pinned, root).items()}
    return {uri: choice for uri, choice in found.items() if choice is not None}


def asks(settings: TaskSettings, tokens: int) -> bool:
    """Whether a step that is to read so many tokens measures its engines."""
    return tokens >= MANY_TOKENS or not settings.any_engine


def chosen(run: Any, stage: TaskStage, units: Sequence[Unit], root: str, tokens: int) -> dict[str, Kept]:
    """The engine of each of the stage's models. tokens: how many the step is to read, roughly.

    run: runs a stage's units (`stages.RunStage`). A step of few tokens leaves the choice to torch, unless one stands or
    its settings ask for an engine.
    """
    context = stage.context
    settings, urls = context.task.settings, urls_of(context.task, context.pinned, root)
    found = {uri: kept(url) for uri, url in urls.items()}
    missing = {uri: urls[uri] for uri, choice in found.items() if choice is None}
    if missing and units and asks(settings, tokens):
        (receipt,) = run(choosing.ChooseEngine(stage, Wanted(settings.engine, settings.precision), missing), units[:1])
        found |= choosing.choices_of(receipt, missing)
    return {uri: choice for uri, choice in found.items() if choice is not None}


def told(context: StepContext, engines: Mapping[str, Kept], receipts: Iterable[Receipt]) -> str | None:
    """For the ledger: what computed each model, and how far it agrees.

    A choice that did not hold on every worker, because some are other machines than it was made on, is forgotten, so
    that the next night chooses anew.
    """
    used: dict[str, set[str]] = {}
    for receipt in receipts:
        for uri, engine in receipt.extra.get("engines", {}).items():
            used.setdefault(uri, set()).add(engine)
    words = []
    for uri, names in used.items():
        choice = engines.get(uri)
        if choice is None:
            words.append(", ".join(sorted(names)))
            continue
        words.append(str(choice.choice))
        if names != {f"{choice.choice.engine} {choice.choice.precision}"}:
            words[-1] = f"{', '.join(sorted(names))}: some workers are other machines than it was chosen on"
            _log.warning("engine_forgotten", job=context.job, step=context.step, model=uri)
            storage.delete(storage.join(choice.url, FILE))
    return "; ".join(words) or None
