"""Every verb as a function. The command line prints what these return.

All raise UserError where what the user gave is wrong, and RunError where the work failed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs.job import LoadedJob, load_job, parse_date, run_date
from bizllm.tables.store_settings import configure

if TYPE_CHECKING:
    import pyarrow as pa

    from bizllm.jobs.observe import Observer
    from bizllm.jobs.plan import Plan
    from bizllm.jobs.run import RunResult
    from bizllm.jobs.submit import Submission
    from bizllm.models.registry import Registry
    from bizllm.tables.warehouse import Warehouse
    from bizllm.train.progress import TrainingObserver

__all__ = [
    "backfill",
    "compress",
    "evaluate",
    "finetune",
    "gc",
    "list_models",
    "plan",
    "promote_model",
    "report",
    "rollback",
    "rollback_model",
    "run",
    "runs",
    "schema",
    "show",
    "show_model",
    "submit",
    "tasks",
    "unmask",
]


def plan(
    job_path: str,
    *,
    date: str | None = None,
    sets: Sequence[str] = (),
    address: str | None = None,
    max_loss: float | None = None,
) -> Plan | dict[str, Any]:
    """Check a job against its data and estimate it; a dict where the file is a training file. Runs nothing, writes
    nothing. max_loss: how much of the score a smaller model may lose to be offered (0.01)."""
    from bizllm.jobs.training_file import is_training_file, load_recipe

    if is_training_file(job_path):
        recipe = load_recipe(job_path, sets)
        configure(recipe.recipe.storage)
        from bizllm.jobs.training_plan import plan_training

        return plan_training(recipe)
    loaded = _loaded(job_path, sets)
    day = run_date(loaded.job, date, datetime.now(UTC))
    from bizllm.jobs.plan import plan as plan_night
    from bizllm.jobs.prepare import prepare

    return plan_night(prepare(loaded, day), address, *(() if max_loss is None else (max_loss,)))


def run(
    job_path: str,
    *,
    date: str | None = None,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    address: str | None = None,
    fresh: bool = False,
    retry_rejects: bool = False,
    observer: Observer | None = None,
) -> RunResult:
    """Run a job for a date: by default yesterday in its time zone.

    only: these steps; what they read of other steps must be published. address: a Ray cluster, else a local Ray.
    fresh: drop what an unfinished run left, and rebuild what stands, every row of it. retry_rejects: of a finished
    night answer what was rejected again, and nothing else. Raises LockHeld where another run has the date.
    """
    if fresh and retry_rejects:
        raise UserError(Fault("--retry-rejects", None, "expected either --fresh or --retry-rejects"))
    loaded = _loaded(job_path, sets)
    day = run_date(loaded.job, date, datetime.now(UTC))
    from bizllm.jobs.run import run as run_night

    return run_night(
        loaded, day, only=only, address=address, fresh=fresh, retry_rejects=retry_rejects, observer=observer
    )


def backfill(
    job_path: str,
    *,
    start: str,
    end: str,
    sets: Sequence[str] = (),
    address: str | None = None,
    observer: Observer | None = None,
) -> list[RunResult]:
    """Run a job for every date from `start` to `end`, oldest first, one publish each; stops after a failed one."""
    loaded = _loaded(job_path, sets)
    now = datetime.now(UTC)
    first, last = parse_date(start, "--from"), run_date(loaded.job, end, now)
    if first > last:
        raise UserError(Fault("--from", start, f"is after --to {end}"))
    from bizllm.jobs.run import cluster
    from bizllm.jobs.run import run as run_night

    results = []
    with cluster(loaded.job.runtime, address):
        for offset in range((last - first).days + 1):
            results.append(run_night(loaded, first + timedelta(days=offset), address=address, observer=observer))
            if results[-1].state in ("failed", "cancelled"):
                break
    return results


def submit(
    job_path: str,
    *,
    address: str | None = None,
    date: str | None = None,
    sets: Sequence[str] = (),
    only: Sequence[str] = (),
    working_dir: str | None = None,
    wait: bool = False,
    sent: Callable[[Submission], None] = lambda _: None,
    line: Callable[[str], None] = lambda _: None,
) -> Submission:
    """Run a job on a cluster through Ray's Jobs API: checked here first, then sent with its folder.

    address: http://HEAD:8265, else RAY_API_SERVER_ADDRESS. working_dir: what is sent; by default the job file's folder.
    wait: until the job's end, with every line that it prints to `line`. sent: called when the cluster has the job.
    Raises UserError where the job is wrong or the cluster lets nobody in, RunError where the cluster loses the job.
    """
    from bizllm.jobs.training_file import is_training_file

    if is_training_file(job_path):
        raise UserError(Fault(job_path, None, "is a training file; expected a job", f"bizllm finetune {job_path}"))
    loaded = load_job(job_path, sets)
    day = run_date(loaded.job, date, datetime.now(UTC))
    from bizllm.jobs.submit import follow, submit_job

    submission, client = submit_job(loaded, day, address, sets=sets, only=only, working_dir=working_dir)
    sent(submission)
    return follow(submission, client, line) if wait else submission


def runs(job_path: str, run: str | None = None, *, sets: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The ledger: a row for each step of each run, newest first; or the rows of one run."""
    from bizllm.jobs import ledger

    loaded = _loaded(job_path, sets)
    rows = ledger.read(_warehouse(loaded), loaded.job.name, **({"run_id": run} if run else {}))
    if run is not None and not rows:
        raise UserError(Fault("RUN", run, f"no such run of {loaded.job.name}", "`bizllm runs JOB` lists them"))
    return rows


def show(
    job_path: str,
    step: str | None = None,
    *,
    date: str | None = None,
    limit: int = 20,
    sql: str | None = None,
    sets: Sequence[str] = (),
    reveal: bool = False,
) -> pa.Table:
    """Rows of the published tables through DuckDB, where each step is a view.

    step: its newest night (or that of `date`), `limit` rows; also `STEP__rejects` and `runs`. sql: any query over the
    views, which hold every night unless `date` is given; `limit` is the query's own business. reveal: show the texts of
    steps that read a `sensitive` source too.
    """
    from bizllm.tables.query import connect, select
    from bizllm.tables.sql import quoted

    loaded = _loaded(job_path, sets)
    name = loaded.job.name
    day = parse_date(date, "--date") if date else None
    warehouse = _warehouse(loaded)
    known = set(warehouse.tables(name))
    hidden = set() if reveal else {s for s in loaded.job.steps if loaded.sensitive(s)}
    if not known:
        raise UserError(Fault("JOB", job_path, f"{name} has no published tables yet", f"bizllm run {job_path}"))
    if sql is not None:
        return select(connect(warehouse, name, loaded.job.steps, day, hidden), sql, sorted(known))
    wanted = step or next((s for s in loaded.order() if s in known), "runs")
    if wanted not in known:
        raise UserError(Fault("STEP", wanted, f"expected one of {', '.join(sorted(known))}", nearest(wanted, known)))
    base = wanted.removesuffix("__rejects")
    if day is None and wanted != "runs":
        newest = max((night.run_date for night in warehouse.history(name, base)), default=None)
        day = newest
    if not reveal and base not in loaded.job.steps and any(s.sensitive for s in loaded.job.sources.values()):
        hidden.add(base)  # a step that the job no longer has: nobody knows what it read
    connection = connect(warehouse, name, [base], day, hidden)
    return select(connection, f"select * from {quoted(wanted)} limit {int(limit)}", sorted(known))


def report(job_path: str, run: str | None = None, *, sets: Sequence[str] = ()) -> str:
    """The path or URL of a run's report; of the newest run by default."""
    from bizllm.jobs.night_report import render_run, run_folder
    from bizllm.jobs.prepare import prepare
    from bizllm.tables import storage

    loaded = _loaded(job_path, sets)
    warehouse = _warehouse(loaded)
    rows = runs(job_path, run, sets=sets)
    if not rows:
        raise UserError(Fault("JOB", job_path, f"{loaded.job.name} has no runs yet", f"bizllm run {job_path}"))
    run_id, day = rows[0]["run_id"], rows[0]["run_date"]
    page = storage.join(run_folder(warehouse.path, loaded.job.name, run_id), "report.html")
    return page if storage.exists(page) else render_run(prepare(loaded, day), run_id)


def rollback(job_path: str, step: str, *, to: str, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Make what run `to` published of a step the current night of its date again, in one snapshot.

    Returns table, run_date, run_id, replaced (the run whose night it was), rows and snapshot_id. The next `run` of that
    date builds it anew where its input or settings are not those of the restored night.
    """
    loaded = _loaded(job_path, sets)
    from bizllm.jobs.rollback import rollback as restore_night

    return restore_night(loaded, step, to).to_dict()


def gc(job_path: str, *, older_than: str = "7d", dry_run: bool = False, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Expire old snapshots by the tables' policy, and remove files older than that (12h, 7d, 2w) which no snapshot and
    no unfinished run needs, and uploads that never ended.

    Returns dry_run, before, expired (snapshots by table), files, bytes, removed (what, url, bytes) and left (folders
    that were not looked into, and why).
    """
    from bizllm.jobs.garbage import age, collect

    oldest = age(older_than)
    return collect(_loaded(job_path, sets), oldest, dry_run=dry_run).to_dict()


def tasks(name: str | None = None) -> list[dict[str, Any]]:
    """Every task (or one): name, summary, shape, version, settings as JSON Schema, output columns."""
    from bizllm.tasks.base import task_class, task_names

    return [task_class(n, "TASK").describe() for n in ([name] if name else task_names())]


def unmask(text: str, key: str, *, strict: bool = True) -> str:
    """A text with its pseudonyms (`mask` with `mode: pseudonym`) turned back to the normalised values.

    strict: a pseudonym of another key is an error; else it stays as it is.
    """
    from bizllm.methods.pii.pseudonyms import unmask as turn_back

    return turn_back(text, key, strict=strict)


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

    return run_training(loaded, address=address, resume=resume, observer=observer)


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


def schema(kind: str = "job") -> dict[str, Any]:
    """JSON Schema of a YAML file, for editors."""
    from bizllm.jobs.schema import json_schema

    return json_schema(kind)


def _loaded(job_path: str, sets: Sequence[str]) -> LoadedJob:
    """The job, with its object stores configured for this process: the newest file's `storage:` counts."""
    loaded = load_job(job_path, sets)
    configure(loaded.job.storage)
    return loaded


def _warehouse(loaded: LoadedJob) -> Warehouse:
    from bizllm.tables.warehouse import Warehouse

    return Warehouse(loaded.job.warehouse)


def _registry(given: str | None) -> Registry:
    from bizllm.models.registry import Registry, default_uri

    return Registry(default_uri(given, os.environ, "out"))
