"""One fine-tuning run: check, freeze, train, score beside the control and the model in use, register, promote.

A run lies in `<output>/<name>/<run_id>/`: `work/` is its frozen input, so that a run that died goes on with the same
rows; `model/` the new model; `report.html`; `result.json` what `finetune --json` prints.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from bizllm.errors import Cancelled, Fault, RunError, UserError, safe_text
from bizllm.jobs.submitted import new_run_id, outside_copies, refuse_copies
from bizllm.jobs.training_answers import TrainedAnswers, retained, trained_answers
from bizllm.jobs.training_facts import control_scores, of_data
from bizllm.jobs.training_file import LoadedRecipe
from bizllm.jobs.training_result import Run, register, result_of, write_failure, write_result, write_table
from bizllm.jobs.verdict import judge_model
from bizllm.models.registry import Registry
from bizllm.tables import storage
from bizllm.tables.urls import local_path
from bizllm.train import kept, proposals, zero
from bizllm.train.export import export
from bizllm.train.frozen import UNLABELLED, freeze, without_continual
from bizllm.train.loop import Summary
from bizllm.train.prepare import prepare, registry_uri
from bizllm.train.progress import TrainingObserver
from bizllm.train.recipe import Recipe
from bizllm.train.trackers import METRICS_FILE, flat_params, open_trackers
from bizllm.train.work import FILE, Work

FACTS = "facts.json"
NAIVE = "naive"  # the folder of a second training, without what `continual` asks for


def finetune(
    loaded: LoadedRecipe,
    *,
    address: str | None = None,
    resume: str | None = None,
    observer: TrainingObserver | None = None,
) -> dict[str, Any]:
    """Run a training file to its end; what `finetune --json` prints.

    resume: the run_id of a run that died; it goes on with its own frozen input, from its newest checkpoint.
    Raises UserError where the input is wrong, RunError where the training fails, Cancelled where it is interrupted;
    the latter two say how to go on.
    """
    recipe = loaded.recipe
    refuse_copies(loaded.document)
    run_id = resume or new_run_id()
    url = storage.join(recipe.output, recipe.name, run_id)
    run = Run(recipe, run_id, url, observer or TrainingObserver())
    os.environ.setdefault("DS_ACCELERATOR", zero.device_name())  # else DeepSpeed looks for one, and says so
    try:
        with tempfile.TemporaryDirectory(prefix="bizllm-") as temporary:
            return _run(loaded, run, Path(temporary), address, resume)
    except UserError:
        raise
    except KeyboardInterrupt:
        raise Cancelled(_ended(run, "interrupted")) from None
    except Exception as error:  # its message may hold row text
        said = str(error) if isinstance(error, RunError) else f"unexpected {safe_text(error)}"
        raise RunError(_ended(run, said)) from error


def _ended(run: Run, said: str) -> str:
    """Leave a report of a run that did not reach its end; the message with the way to go on."""
    if not run.frozen:
        return said
    write_failure(run, said)
    return f"{said}; go on with: --resume {run.run_id}"


def _run(loaded: LoadedRecipe, run: Run, local: Path, address: str | None, resume: str | None) -> dict[str, Any]:
    recipe = run.recipe
    if resume is None:
        work, facts, registry = _frozen(loaded, run, local, address)
    else:
        work, facts, registry = _found(loaded, run, local)
    run.frozen = True
    parts = {"validation": work.rows("validation")}
    if (work.folder / "test.arrow").exists():
        parts["test"] = work.rows("test")
    with run.stage("train"):
        summary = _trained(work, run, address, local, registry.uri)
    with run.stage("export"):
        folder = local / "model"
        trained = export(work, _best(run.url, summary, local), folder)
        facts |= {"parameters": trained.parameters, "trainable": trained.trainable}
    with run.stage("test"):
        made = trained_answers(work, folder, parts)
        verdict = judge_model(recipe, made.parts, parts, facts["control"], registry)
    if recipe.continual.test is not None:
        models = {"model": made}
        if recipe.continual.naive:
            with run.stage("train naively"):
                models["naive"] = _naive(run, address, local, parts)
        with run.stage("earlier test"):
            facts["continual"] = retained(work, verdict.metric, parts, models)
    if recipe.propose is not None:
        with run.stage("propose"):
            rows = work.examples(UNLABELLED)
            found = proposals.propose(work, made.network, made.info, rows, recipe.propose.rows)
            facts["propose"] = write_table(found, storage.join(run.url, "propose.parquet"))
    result = result_of(run, work, summary, verdict, facts)
    with run.stage("register"):
        result |= register(run, folder, verdict, facts, result, registry)
    write_result(run, verdict, facts, result, parts, local)
    for name in (kept.CHECKPOINTS, NAIVE):
        storage.delete_tree(storage.join(run.url, name))  # several times the model, and of no use any more
    run.observer.finished(result)
    return result


# -- the input, frozen ------------------------------------------------------------------------------------------------


def _frozen(loaded: LoadedRecipe, run: Run, local: Path, address: str | None) -> tuple[Work, dict[str, Any], Registry]:
    """The run's own input, checked and written."""
    run.observer.stage("check")
    storage.check_encryption(run.url, "output")
    home = storage.join(run.url, kept.WORK)
    prepared = prepare(run.recipe, loaded.place, zero.device_name())
    registry = Registry(prepared.registry)
    registry.experiment(run.recipe.name)  # it answers, before hours of work
    remote = not storage.is_local(home)
    if _elsewhere(address) and not remote:
        everywhere = f"{run.recipe.output} is a local path: every machine of the cluster must mount it"
        prepared = replace(prepared, warnings=(*prepared.warnings, everywhere))
    folder = local / "work" if remote else Path(local_path(home))
    rows = {name: len(part.rows) for name, part in prepared.parts.items()}
    _tell(run, prepared.base.uri, rows, prepared.warnings)
    with run.stage("encode"):
        work, facts = freeze(prepared, folder, loaded.place)
        facts |= of_data(prepared)
        frozen = {home: work}
        if run.recipe.continual.naive:
            beside = storage.join(run.url, NAIVE, kept.WORK)
            naive = local / f"{kept.WORK}-{NAIVE}" if remote else Path(local_path(beside))
            frozen[beside], _ = freeze(without_continual(prepared), naive, loaded.place)
    with run.stage("control"):
        facts["control"] = control_scores(prepared, work)
    if run.recipe.review:
        with run.stage("review"):
            found = proposals.suspicious(work, prepared.parts.train.rows)
            facts["review"] = write_table(found, storage.join(run.url, "review.parquet"))
    for url, one in frozen.items():
        if remote:
            kept.upload(one.folder, url)
        if prepared.base.kind != "builtin" and (remote or _elsewhere(address)):
            kept.upload(one.base, storage.join(url, "base"))  # other machines don't have it
    storage.write_bytes(storage.join(home, FACTS), json.dumps(facts, default=float).encode())  # the work is whole
    return work, facts, registry


def _found(loaded: LoadedRecipe, run: Run, local: Path) -> tuple[Work, dict[str, Any], Registry]:
    """The input of the run that is resumed, as it left it. Raises UserError where there is no such run to resume."""
    home = storage.join(run.url, kept.WORK)
    if not storage.exists(storage.join(home, FACTS)):
        where = loaded.place("output")
        what = f"no run of {run.recipe.name} that began to train in {run.recipe.output} ({where})"
        raise UserError(Fault("--resume", run.run_id, what))
    if storage.exists(storage.join(run.url, "result.json")):
        raise UserError(Fault("--resume", run.run_id, "that run reached its end", "start a new one"))
    work = Work.load(_at_hand(home, local / "work"))
    facts = json.loads(storage.read_bytes(storage.join(home, FACTS)))
    _same(work.recipe, run.recipe)
    work = _resized(work, home, run.recipe)
    registry = Registry(registry_uri(run.recipe, loaded.place))
    registry.experiment(run.recipe.name)
    _tell(run, facts["base"], facts["rows"], facts["warnings"])
    return work, facts, registry


def _resized(work: Work, url: str, now: Recipe) -> Work:
    """With the workers that a resumed run asks for."""
    asked = {name: getattr(now, name) for name in ("workers", "wait_for_room_s", "grow_after_s")}
    if asked == {name: getattr(work.recipe, name) for name in asked}:
        return work
    work = replace(work, recipe=work.recipe.model_copy(update=asked))
    work.save()
    storage.write_bytes(storage.join(url, FILE), (work.folder / FILE).read_bytes())  # workers read it there
    return work


def _tell(run: Run, base: str, rows: Mapping[str, int], warnings: Any) -> None:
    recipe = run.recipe
    run.observer.training_started(
        {
            "name": recipe.name,
            "run_id": run.run_id,
            "base": base,
            "objective": recipe.objective,
            "method": recipe.method.kind,
            "workers": recipe.most_workers,
            "rows": dict(rows),
            "warnings": list(warnings),
        }
    )


def _same(before: Recipe, now: Recipe) -> None:
    """A run goes on with the settings that it began with; those of its surroundings may change."""
    free = {
        "workers",
        "prices",
        "notify",
        "wait_for_room_s",
        "grow_after_s",
        "track",
        "registry",
        "promote",
        "output",
        "license",
    }
    old, new = (outside_copies(recipe.model_dump(mode="json", exclude=free)) for recipe in (before, now))
    changed = [key for key in old if old[key] != new[key]]
    if changed:
        what = f"the run began with other settings of {', '.join(changed)}"
        raise UserError(Fault("--resume", None, what, "start a new run, or put them back"))


def _elsewhere(address: str | None) -> bool:
    """Whether other machines may train."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def _at_hand(url: str, copy: Path) -> Path:
    """The folder on this machine: itself, or a copy."""
    if storage.is_local(url):
        return Path(local_path(url))
    kept.download(url, copy)
    return copy


# -- training ---------------------------------------------------------------------------------------------------------


def _trained(work: Work, run: Run, address: str | None, local: Path, registry: str) -> Summary:
    """Train on Ray; figures go to the trackers from here, as the workers tell them."""
    from bizllm.jobs.run import cluster
    from bizllm.jobs.runtime import Runtime
    from bizllm.train.launch import Log, launch

    before = kept.newest(run.url)
    folder = run.folder(local)
    if before is not None and storage.exists(earlier_figures := storage.join(run.url, METRICS_FILE)):
        (folder / METRICS_FILE).write_bytes(storage.read_bytes(earlier_figures))
    params = dict(flat_params(work.recipe.model_dump(mode="json")))
    resumed = before.step if before else 0
    trackers = open_trackers(run.recipe.track, folder, run.run_id, params, registry, resumed_step=resumed)
    summary: Summary | None = None
    try:
        with cluster(Runtime(), address):
            summary = launch(work, run.url, observer=run.observer, log=cast(Log, trackers.log))
    finally:
        trackers.finish({"best": summary.best, "best_step": summary.best_step} if summary else None)
        if not storage.is_local(run.url) and (folder / METRICS_FILE).exists():
            storage.write_bytes(storage.join(run.url, METRICS_FILE), (folder / METRICS_FILE).read_bytes())
    return summary


def _naive(run: Run, address: str | None, local: Path, parts: Mapping[str, pa.Table]) -> TrainedAnswers:
    """Go on from the same base on the new rows alone, to see what remembering is worth; it is not kept."""
    from bizllm.jobs.run import cluster
    from bizllm.jobs.runtime import Runtime
    from bizllm.train.launch import launch

    url, here = storage.join(run.url, NAIVE), local / NAIVE
    home = storage.join(url, kept.WORK)
    work = _resized(Work.load(_at_hand(home, here / kept.WORK)), home, run.recipe)
    with cluster(Runtime(), address):
        summary = launch(work, url)
    export(work, _best(url, summary, here), here / "model")
    return trained_answers(work, here / "model", parts)


def _best(url: str, summary: Summary, local: Path) -> Path:
    """A run's best weights, on this machine. Raises RunError where no validation gave a number."""
    best = kept.best(url, summary.best_weights)
    if best is None:
        raise RunError("no validation gave a score that is a number: there are no best weights")
    return _at_hand(best, local / "best")
