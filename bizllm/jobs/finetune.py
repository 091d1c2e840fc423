"""One fine-tuning run: check, freeze, train, score beside the control and the model in use, register, promote.

A run lies in `<output>/<name>/<run_id>/`: `work/` is its frozen input, so that a run that died goes on with the same
rows; `model/` the new model; `report.html`; `result.json` what `finetune --json` prints.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.jobs.training_file import LoadedRecipe
from bizllm.jobs.training_report import report_of
from bizllm.jobs.verdict import Verdict, judge_model
from bizllm.models.card import model_card
from bizllm.models.registry import Registry
from bizllm.models.saved import read_info, write_info
from bizllm.report.training import render_training
from bizllm.tables import storage
from bizllm.tables.folders import at_hand, upload
from bizllm.train import control, judge, zero
from bizllm.train.export import export
from bizllm.train.frozen import freeze
from bizllm.train.judge import Answers
from bizllm.train.loop import Summary
from bizllm.train.methods import VIRTUAL
from bizllm.train.objectives.base import objective_class
from bizllm.train.prepare import Prepared, prepare, registry_uri
from bizllm.train.progress import TrainingObserver
from bizllm.train.recipe import Recipe
from bizllm.train.trackers import METRICS_FILE, flat_params, open_trackers
from bizllm.train.work import Work

FACTS = "facts.json"


@dataclass
class Run:
    """A run on its way. stages: seconds of each part of the work."""

    recipe: Recipe
    run_id: str
    url: str
    observer: TrainingObserver
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell and time a part of the work."""
        self.observer.stage(name)
        began = time.perf_counter()
        yield
        self.stages[name] = round(time.perf_counter() - began, 2)


def finetune(
    loaded: LoadedRecipe,
    *,
    address: str | None = None,
    resume: str | None = None,
    observer: TrainingObserver | None = None,
) -> dict[str, Any]:
    """Run a training file to its end; what `finetune --json` prints.

    resume: the run_id of a run that died; it goes on with its own frozen input, from its newest checkpoint.
    Raises UserError before any work where the input is wrong, RunError where the training fails.
    """
    recipe = loaded.recipe
    observer = observer or TrainingObserver()
    run_id = resume or f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    run = Run(recipe, run_id, storage.join(recipe.output, recipe.name, run_id), observer)
    os.environ.setdefault("DS_ACCELERATOR", zero.device_name())  # else DeepSpeed looks for one, and says so
    with tempfile.TemporaryDirectory(prefix="bizllm-") as temporary:
        local = Path(temporary)
        work, facts, registry = _frozen(loaded, run, local, resume)
        parts = ("validation", "test") if (work.folder / "test.arrow").exists() else ("validation",)
        rows = {name: work.rows(name) for name in parts}
        with run.stage("train"):
            summary = _trained(work, run, address, local, registry)
        with run.stage("export"):
            folder = local / "model"
            best = _best(run, local)
            trained = export(work, best, folder)
            facts |= {"parameters": trained.parameters, "trainable": trained.trainable}
        with run.stage("test"):
            answers = _answers(work, trained.network, folder, rows)
            verdict = judge_model(recipe, answers, rows, facts["control"], Registry(registry))
        result = _result(run, work, summary, verdict, facts)
        with run.stage("register"):
            _registered(run, folder, verdict, facts, result, Registry(registry))
        _written(run, verdict, facts, result, rows, local)
    observer.finished(result)
    return result


# -- the input, frozen --------------------------------------------------------------------------------------------


def _frozen(loaded: LoadedRecipe, run: Run, local: Path, resume: str | None) -> tuple[Work, dict[str, Any], str]:
    """(work, facts, registry): made now, or as the run that is resumed left it."""
    home = storage.join(run.url, "work")
    if resume is not None:
        if not storage.exists(storage.join(home, FACTS)):
            known = loaded.recipe.output
            raise UserError(
                Fault("--resume", resume, f"no such run of {run.recipe.name} in {known} that began to train")
            )
        work = Work.load(at_hand(home, local / "work"))
        facts = json.loads(storage.read_bytes(storage.join(home, FACTS)))
        _same(work.recipe, run.recipe)
        return work, facts, registry_uri(run.recipe, loaded.place)
    run.observer.stage("check")
    prepared = prepare(run.recipe, loaded.place, zero.device_name())
    Registry(prepared.registry).experiment(run.recipe.name)  # it answers, before hours of work
    folder = Path(home) if storage.is_local(home) else local / "work"
    run.observer.training_started(_said(run, prepared))
    with run.stage("encode"):
        work, facts = freeze(prepared, folder, loaded.place)
    facts |= _of_data(prepared)
    with run.stage("control"):
        facts["control"] = _control(prepared, work)
    if not storage.is_local(home):
        upload(folder, home)
        if not prepared.base.uri.startswith(("builtin:", "registry:http")):
            upload(prepared.base.folder, storage.join(home, "base"))
    storage.write_bytes(storage.join(home, FACTS), json.dumps(facts, default=float).encode())  # the work is whole
    return work, facts, prepared.registry


def _said(run: Run, prepared: Prepared) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "name": recipe.name,
        "run_id": run.run_id,
        "base": prepared.base.uri,
        "objective": recipe.objective,
        "method": recipe.method.kind,
        "workers": recipe.most_workers,
        "rows": {name: len(part.rows) for name, part in prepared.parts.items()},
        "warnings": list(prepared.warnings),
    }


def _of_data(prepared: Prepared) -> dict[str, Any]:
    """What a report and a card tell of the data; never a row."""
    cls = objective_class(prepared.recipe.objective)
    counts: dict[str, dict[str, int]] = {}
    if cls.learns_labels and prepared.recipe.objective in judge.CLASSES:
        from bizllm.train.objectives.classification import names

        for part_name, part in prepared.parts.items():
            for label in names(part.rows["label"]):
                counts.setdefault(label, {}).setdefault(part_name, 0)
                counts[label][part_name] += 1
    overlap = [dict(twins) for twins in prepared.overlap.counts()] if prepared.overlap else []
    return {
        "base": prepared.base.uri,
        "base_hash": prepared.base.content_hash,
        "fingerprints": {name: part.fingerprint for name, part in prepared.parts.items()},
        "labels": counts,
        "overlap": overlap,
        "warnings": list(prepared.warnings),
    }


def _control(prepared: Prepared, work: Work) -> dict[str, Any] | None:
    """The control's name and its scores on validation and test; None where the objective has none."""
    fitted = control.fit(prepared.parts.train.rows, prepared.info, prepared.recipe.seed)
    if fitted is None:
        return None
    info = replace(prepared.info, temperature=1.0, threshold=fitted.threshold)
    objective = type(work.objective)(work.recipe, work.tokenizer, info)
    scores = {}
    for name, part in prepared.parts.items():
        if name != "train":
            outputs = fitted.predict(part.rows)
            if "answers" not in outputs:  # of texts that are written: scored where the model's own are
                scores[name] = judge.judged(objective, outputs, part.rows).metrics
    return {"name": fitted.name, "scores": scores} if scores else None


def _same(before: Recipe, now: Recipe) -> None:
    """A run goes on with the settings that it began with; workers and trackers may change."""
    free = {"workers", "track", "registry", "promote", "output"}
    old, new = (recipe.model_dump(mode="json", exclude=free) for recipe in (before, now))
    changed = [key for key in old if old[key] != new[key]]
    if changed:
        what = f"the run began with other settings of {', '.join(changed)}"
        raise UserError(Fault("--resume", None, what, "start a new run, or put them back"))


# -- training -----------------------------------------------------------------------------------------------------


def _trained(work: Work, run: Run, address: str | None, local: Path, registry: str) -> Summary:
    """Train on Ray; figures go to the trackers from here, as the workers tell them."""
    from bizllm.jobs.job import Runtime
    from bizllm.jobs.run import cluster
    from bizllm.train import kept
    from bizllm.train.launch import launch

    before = kept.newest(run.url)
    folder = Path(run.url) if storage.is_local(run.url) else local
    if before is not None and storage.exists(earlier := storage.join(run.url, METRICS_FILE)):
        (folder / METRICS_FILE).write_bytes(storage.read_bytes(earlier))
    params = dict(flat_params(work.recipe.model_dump(mode="json")))
    resumed = before.step if before else 0
    trackers = open_trackers(run.recipe.track, folder, run.run_id, params, registry, resumed_step=resumed)
    summary: Summary | None = None
    try:
        with cluster(Runtime(), address):
            summary = launch(work, run.url, observer=run.observer, log=trackers.log)
    finally:
        trackers.finish({"best": summary.best, "best_step": summary.best_step} if summary else None)
        if not storage.is_local(run.url) and (folder / METRICS_FILE).exists():
            storage.write_bytes(storage.join(run.url, METRICS_FILE), (folder / METRICS_FILE).read_bytes())
    return summary


def _best(run: Run, local: Path) -> Path:
    """The best weights, on this machine."""
    home = storage.join(run.url, "best")
    newest = storage.read_bytes(storage.join(home, "latest")).decode()
    return at_hand(storage.join(home, newest), local / "best")


def _answers(work: Work, network: Any, folder: Path, rows: Mapping[str, pa.Table]) -> dict[str, Answers]:
    """Answers to validation and test of the model in the folder, which is loaded anew; calibrated on validation, which
    the folder then says."""
    from bizllm.models.network import load_network

    objective = work.objective
    if work.recipe.method.kind not in VIRTUAL:
        network = load_network(folder, work.info)
    raw = {name: judge.ask(objective, network, some) for name, some in rows.items()}
    info = judge.calibrated(objective, raw["validation"].outputs, rows["validation"])
    write_info(folder, info)
    told = type(objective)(work.recipe, work.tokenizer, info)
    return {name: replace(judge.judged(told, one.outputs, rows[name]), tokens=one.tokens) for name, one in raw.items()}


# -- registry, result, report -------------------------------------------------------------------------------------


def _result(run: Run, work: Work, summary: Summary, verdict: Verdict, facts: Mapping[str, Any]) -> dict[str, Any]:
    recipe, compared, test = run.recipe, verdict.comparison, verdict.test
    champion = compared and {
        "version": verdict.champion_version,
        "test": {verdict.metric: compared.champion},
        **{name: getattr(compared, name) for name in ("gain", "low", "high", "p_value")},
    }
    return {
        "name": recipe.name,
        "run_id": run.run_id,
        "started_at": run.started_at.isoformat(),
        "objective": recipe.objective,
        "base": facts["base"],
        "metric": verdict.metric,
        "stop_metric": recipe.stop.metric or work.objective.metric,
        "metrics": {"validation": verdict.validation.metrics, "test": test.metrics if test else {}},
        "intervals": {"validation": verdict.validation.intervals, "test": test.intervals if test else {}},
        "control": {"name": verdict.control_name, **verdict.control, "wins": verdict.control_wins},
        "champion": champion,
        "promoted": verdict.promoted,
        "reason": verdict.reason,
        "path": storage.join(run.url, "model"),
        "report": storage.join(run.url, "report.html"),
        **{name: getattr(summary, name) for name in ("steps", "best_step", "stopped_early", "tokens")},
        "tokens_per_s": round(summary.tokens / summary.seconds, 1) if summary.seconds else None,
        "memory_mb": round(summary.memory_mb),
        **{name: facts[name] for name in ("parameters", "trainable", "rows", "warnings")},
        "stages": run.stages,
        "seconds": round(sum(run.stages.values()), 1),
    }


def _registered(
    run: Run, folder: Path, verdict: Verdict, facts: Mapping[str, Any], result: dict[str, Any], registry: Registry
) -> None:
    """Write the card, keep the model's folder in the run, register it, and move the alias where that was decided."""
    recipe, info = run.recipe, read_info(folder)
    assert info is not None, "an exported model says what it is"
    settings = dict(flat_params(recipe.model_dump(mode="json", exclude={"data", "registry", "output"})))
    card = model_card(
        {
            **asdict(info),
            "code_version": version("bizllm"),
            "data": {
                **{f"rows of {name}": count for name, count in facts["rows"].items()},
                **{f"fingerprint of {name}": mark for name, mark in facts["fingerprints"].items()},
                "overlap": "; ".join(facts["warnings"]) or "none found",
            },
            "training": {**settings, "steps": result["steps"], "seconds": result["seconds"]},
            "metrics": result["metrics"],
            "intervals": result["intervals"],
            "control": {"name": verdict.control_name, "metrics": verdict.control.get("test", {})},
            "per_class": (verdict.test or verdict.validation).per_class,
        }
    )
    (folder / "README.md").write_text(card, "utf-8")
    upload(folder, storage.join(run.url, "model"))
    if recipe.method.kind in VIRTUAL:
        reason = f"{recipe.method.kind} tuning leaves an adapter, which nights don't load: it is not registered"
        result |= {"model": f"path:{result['path']}", "version": None, "promoted": False, "reason": reason}
        return
    made = registry.register(
        recipe.name,
        folder,
        metrics={f"{part}.{name}": value for part, some in result["metrics"].items() for name, value in some.items()},
        params=settings,
        tags={
            "run_id": run.run_id,
            "run": run.url,
            "objective": recipe.objective,
            "base": facts["base"],
            "base_hash": facts["base_hash"],
            "license": info.license or "unknown",
            "data_fingerprint": facts["fingerprints"]["train"],
            "code_version": version("bizllm"),
        },
        intervals={f"{part}.{name}": pair for part, some in result["intervals"].items() for name, pair in some.items()},
        card=card,
        run_name=run.run_id,
    )
    if verdict.promoted:
        assert recipe.promote is not None
        registry.set_alias(recipe.name, recipe.promote.alias, made.version)
    result |= {"model": f"registry:{recipe.name}@{made.version}", "version": made.version}


def _written(
    run: Run,
    verdict: Verdict,
    facts: Mapping[str, Any],
    result: dict[str, Any],
    rows: Mapping[str, pa.Table],
    local: Path,
) -> None:
    """The report and the result, in the run's folder."""
    history = (Path(run.url) if storage.is_local(run.url) else local) / METRICS_FILE
    page = render_training(report_of(run.recipe, verdict, facts, result, history, rows))
    storage.write_bytes(result["report"], page.encode())
    told = json.dumps(result, ensure_ascii=False, indent=1, default=float)
    storage.write_bytes(storage.join(run.url, "result.json"), told.encode())
