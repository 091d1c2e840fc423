"""What a training leaves: the model in the registry, its report, and the result that `finetune --json` prints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.jobs.training_report import failure_of, report_of
from bizllm.jobs.verdict import Verdict
from bizllm.models.card import model_card
from bizllm.models.registry import Registry
from bizllm.models.saved import read_info
from bizllm.report.training import render_training
from bizllm.tables import storage
from bizllm.tables.urls import local_path
from bizllm.train import kept
from bizllm.train.loop import Summary
from bizllm.train.progress import TrainingObserver
from bizllm.train.recipe import Recipe
from bizllm.train.trackers import METRICS_FILE, flat_params
from bizllm.train.work import Work

# Facts that a result tells where they are there.
EXTRAS = ("augmented", "replayed", "pseudo_labelled", "continual", "review", "propose")


@dataclass
class Run:
    """A run on its way. frozen: its input is whole, so that it can be resumed. stages: seconds of each part."""

    recipe: Recipe
    run_id: str
    url: str
    observer: TrainingObserver
    frozen: bool = False
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Tell and time a part of the work."""
        self.observer.stage(name)
        began = time.perf_counter()
        yield
        self.stages[name] = round(time.perf_counter() - began, 2)

    def folder(self, local: Path) -> Path:
        """The run's folder where it is on this machine, else `local`."""
        return Path(local_path(self.url)) if storage.is_local(self.url) else local


def result_of(run: Run, work: Work, summary: Summary, verdict: Verdict, facts: Mapping[str, Any]) -> dict[str, Any]:
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
        "tokens_per_s": round(summary.tokens_per_s, 1),
        "memory_mb": round(summary.memory_mb),
        **{name: facts[name] for name in ("parameters", "trainable", "rows", "warnings")},
        **{name: facts[name] for name in EXTRAS if facts.get(name)},
        "stages": run.stages,
        "seconds": round(sum(run.stages.values()), 1),
    }


def register(
    run: Run, folder: Path, verdict: Verdict, facts: Mapping[str, Any], result: Mapping[str, Any], registry: Registry
) -> dict[str, Any]:
    """Write the card, keep the model's folder in the run, register it, and move the alias where that was decided; what
    the result says of that."""
    recipe, info = run.recipe, read_info(folder)
    assert info is not None, "an exported model says what it is"
    settings = dict(flat_params(recipe.model_dump(mode="json", exclude={"data", "prices", "registry", "output"})))
    card = model_card(
        {
            **asdict(info),
            "code_version": version("bizllm"),
            "virtual_tokens": recipe.method.virtual,
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
    kept.upload(folder, result["path"])
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
    return {"model": f"registry:{recipe.name}@{made.version}", "version": made.version}


def write_result(
    run: Run,
    verdict: Verdict,
    facts: Mapping[str, Any],
    result: dict[str, Any],
    rows: Mapping[str, pa.Table],
    local: Path,
) -> None:
    """The report and the result, in the run's folder."""
    history = run.folder(local) / METRICS_FILE
    page = render_training(report_of(run.recipe, verdict, facts, result, history, rows))
    storage.write_bytes(result["report"], page.encode())
    told = json.dumps(result, ensure_ascii=False, indent=1, default=float)
    storage.write_bytes(storage.join(run.url, "result.json"), told.encode())


def write_failure(run: Run, said: str) -> None:
    """The report of a run that did not reach its end."""
    lines = Path(local_path(run.url)) / METRICS_FILE if storage.is_local(run.url) else None
    seconds = (datetime.now(UTC) - run.started_at).total_seconds()
    page = render_training(failure_of(run.recipe, run.run_id, run.started_at, seconds, said, lines))
    storage.write_bytes(storage.join(run.url, "report.html"), page.encode())


def write_table(rows: pa.Table, url: str) -> dict[str, Any]:
    """Keep rows for people as Parquet; where, and how many."""

    def write() -> None:
        with storage.open_output(url) as sink:
            pq.write_table(rows, sink)

    storage.again(url, "write", write)
    return {"path": url, "rows": len(rows)}
