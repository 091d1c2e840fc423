"""The engines of a step: those that an earlier night chose, or chosen now where the work is worth the asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bizllm import logs
from bizllm.infer import engines as choosing
from bizllm.infer.kept_engines import FILE, Kept, folder_of, kept
from bizllm.infer.receipts import Receipt
from bizllm.infer.work import StepContext, TaskStage, Unit
from bizllm.jobs.prepare import Night, PreparedStep
from bizllm.jobs.sharing import Shared
from bizllm.models.engines.choice import Wanted
from bizllm.tables import storage
from bizllm.tasks.base import TaskSettings

_log = logs.get(__name__)

MANY_TOKENS = 500_000  # fewer are read before a choice is made: about ten seconds, and a conversion


def urls_of(night: Night, step: PreparedStep, shared: Shared | None) -> dict[str, str]:
    """Where the choice for each model that engines compute is kept, by the model's URI: below the step's name, or that
    of the step that computes the vectors which it shares."""
    owner = shared.leader if shared else step.name
    root = storage.join(night.warehouse.path, "_bizllm", night.job.name, "engines", owner)
    settings = step.settings
    return {
        uri: folder_of(
            root, shared.backbone if shared else step.pinned[uri].content_hash, settings.engine, settings.precision
        )
        for role, uri in step.task.models().items()
        if role != "generator"
    }


def standing(urls: Mapping[str, str]) -> dict[str, Kept]:
    """The choices that earlier nights, or steps, made, by the model's URI."""
    found = {uri: kept(url) for uri, url in urls.items()}
    return {uri: choice for uri, choice in found.items() if choice is not None}


def asks(settings: TaskSettings, tokens: int) -> bool:
    """Whether a step that is to read so many tokens measures its engines."""
    return tokens >= MANY_TOKENS or not settings.any_engine


def chosen(
    run: Any, stage: TaskStage, units: Sequence[Unit], urls: Mapping[str, str], tokens: int, shared: bool = False
) -> dict[str, Kept]:
    """The engine of each of the stage's models. tokens: how many the step is to read, roughly.

    run: runs a stage's units (`stages.RunStage`). shared: other steps take its vectors. A step of few tokens leaves
    the choice to torch, unless one stands or its settings ask for an engine.
    """
    settings, found = stage.context.task.settings, standing(urls)
    missing = {uri: url for uri, url in urls.items() if uri not in found}
    if missing and units and asks(settings, tokens):
        assert settings.engine != "vllm", "it computes generators, for which nothing is chosen"
        wanted = Wanted(settings.engine, settings.precision)
        (receipt,) = run(choosing.ChooseEngine(stage, wanted, missing, shared), units[:1])
        found |= choosing.choices_of(receipt, missing)
    return found


def told(
    context: StepContext, engines: Mapping[str, Kept], receipts: Sequence[Receipt], shared: Shared | None = None
) -> str | None:
    """For the ledger: what computed each model, and how far it agrees; how many vectors other steps had computed.

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
    taken = [receipt.extra["vectors"] for receipt in receipts if "vectors" in receipt.extra]
    read, computed = sum(r for r, _ in taken), sum(c for _, c in taken)
    if shared is not None and read:
        whose = "kept before" if shared.leader == context.step else f"of step '{shared.leader}'"
        words.append(f"{read:,} of {read + computed:,} vectors are those {whose}")
    return "; ".join(words) or None
