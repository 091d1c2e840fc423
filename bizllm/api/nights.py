"""Nights: planned, run, read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bizllm.api.opened import loaded_job, warehouse_of
from bizllm.errors import Fault, UserError, nearest
from bizllm.jobs.job import parse_date, run_date
from bizllm.tables.store_settings import configure

if TYPE_CHECKING:
    from datetime import date as Date

    import pyarrow as pa

    from bizllm.infer.pools import Room
    from bizllm.jobs.catch_up import NotRun
    from bizllm.jobs.job import LoadedJob
    from bizllm.jobs.observe import Observer
    from bizllm.jobs.plan import Plan
    from bizllm.jobs.run import RunResult


def plan(
    job_path: str,
    *,
    date: str | None = None,
    sets: Sequence[str] = (),
    address: str | None = None,
    max_loss: float | None = None,
) -> Plan | dict[str, Any]:
    """Check a job against its data and estimate it; a dict where the file is a training file. Runs nothing, writes
    nothing.

    address: of a Ray cluster, for which it is then planned: what the job asks for, and whether the cluster has it.
    max_loss: how much of the score a smaller model may lose to be offered (0.01).
    """
    from bizllm.jobs.training_file import is_training_file, load_recipe

    if is_training_file(job_path):
        recipe = load_recipe(job_path, sets)
        configure(recipe.recipe.storage)
        from bizllm.jobs.training_plan import plan_training

        return plan_training(recipe, address, _room(address))
    loaded = loaded_job(job_path, sets)
    day = run_date(loaded.job, date, datetime.now(UTC))
    from bizllm.jobs.offers import MAX_LOSS
    from bizllm.jobs.plan import plan as plan_night
    from bizllm.jobs.prepare import prepare

    night = prepare(loaded, day)
    return plan_night(night, address, MAX_LOSS if max_loss is None else max_loss, _room(address))


def _room(address: str | None) -> Room | None:
    """What the cluster there has; None without one. Nothing is started, but for a process of the cluster that looks."""
    if not address or address == "local":
        return None
    from bizllm.infer.room import look
    from bizllm.jobs.run import cluster
    from bizllm.jobs.runtime import Runtime

    with cluster(Runtime(), address):
        return look()


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
    loaded = loaded_job(job_path, sets)
    day = run_date(loaded.job, date, datetime.now(UTC))
    from bizllm.jobs.run import run as run_night
    from bizllm.watch.watched import watched

    with watched(loaded, day, observer) as watching:
        return run_night(
            loaded, day, only=only, address=address, fresh=fresh, retry_rejects=retry_rejects, observer=watching
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
    loaded = loaded_job(job_path, sets)
    now = datetime.now(UTC)
    first, last = parse_date(start, "--from"), run_date(loaded.job, end, now)
    if first > last:
        raise UserError(Fault("--from", start, f"is after --to {end}"))
    from bizllm.jobs.run import cluster
    from bizllm.jobs.run import run as run_night
    from bizllm.watch.watched import watched

    results = []
    with cluster(loaded.job.runtime, address):
        for offset in range((last - first).days + 1):
            day = first + timedelta(days=offset)
            with watched(loaded, day, observer) as watching:
                results.append(run_night(loaded, day, address=address, observer=watching))
            if results[-1].state in ("failed", "cancelled"):
                break
    return results


def catch_up(
    job_path: str,
    *,
    since: str | None = None,
    most: int | None = None,
    sets: Sequence[str] = (),
    address: str | None = None,
    observer: Observer | None = None,
) -> list[RunResult | NotRun]:
    """Run the nights that are missing up to last night, oldest first: an entry for each missing date, run or not.

    since: the first date that may be missing; by default a step's dates begin with the first that it published or was
    tried for. most: so many nights at most (14). Raises LockHeld where another catch-up of the job is under way.
    """
    loaded = loaded_job(job_path, sets)
    first, last = catch_up_dates(loaded, since, most)
    from bizllm.jobs.catch_up import MOST
    from bizllm.jobs.catch_up import catch_up as catch_up_nights
    from bizllm.jobs.run import run as run_night
    from bizllm.watch.watched import watched

    def one(day: Date, lacking: UserError | None) -> RunResult:
        with watched(loaded, day, observer) as watching:
            if lacking is not None:
                raise lacking
            return run_night(loaded, day, address=address, observer=watching)

    return catch_up_nights(loaded, last, one, since=first, most=most or MOST, address=address)


def check_catch_up(catch_up: bool, night: Mapping[str, object], bounds: Mapping[str, object]) -> None:
    """Raises UserError where flags of one night are given beside --catch-up, or its bounds without it."""
    wrong, why = bounds, "goes with --catch-up"
    if catch_up:
        wrong, why = night, "goes without --catch-up, which finds its dates itself and runs all steps"
    faults = [Fault(flag, None, why) for flag, value in wrong.items() if value is not None]
    if faults:
        raise UserError(*faults)


def catch_up_dates(loaded: LoadedJob, since: str | None, most: int | None) -> tuple[Date | None, Date]:
    """(the first date that may be missing, last night) of a catch-up. Raises UserError."""
    last = run_date(loaded.job, None, datetime.now(UTC))
    first = parse_date(since, "--since") if since else None
    if first and first > last:
        raise UserError(Fault("--since", since, f"is after last night, {last} in {loaded.job.timezone}"))
    if most is not None and most < 1:
        raise UserError(Fault("--most", most, "expected at least 1"))
    return first, last


def runs(job_path: str, run: str | None = None, *, sets: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The ledger: a row for each step of each run, newest first; or the rows of one run."""
    from bizllm.jobs import ledger

    loaded = loaded_job(job_path, sets)
    rows = ledger.read(warehouse_of(loaded), loaded.job.name, **({"run_id": run} if run else {}))
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

    loaded = loaded_job(job_path, sets)
    name = loaded.job.name
    day = parse_date(date, "--date") if date else None
    warehouse = warehouse_of(loaded)
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
    if not reveal and loaded.hides(base):
        hidden.add(base)
    connection = connect(warehouse, name, [base], day, hidden)
    return select(connection, f"select * from {quoted(wanted)} limit {int(limit)}", sorted(known))


def report(job_path: str, run: str | None = None, *, sets: Sequence[str] = ()) -> str:
    """The path or URL of a run's report; of the newest run by default."""
    from bizllm.jobs.night_report import render_run, run_folder
    from bizllm.jobs.prepare import prepare
    from bizllm.tables import storage

    loaded = loaded_job(job_path, sets)
    warehouse = warehouse_of(loaded)
    rows = runs(job_path, run, sets=sets)
    if not rows:
        raise UserError(Fault("JOB", job_path, f"{loaded.job.name} has no runs yet", f"bizllm run {job_path}"))
    run_id, day = rows[0]["run_id"], rows[0]["run_date"]
    page = storage.join(run_folder(warehouse.path, loaded.job.name, run_id), "report.html")
    return page if storage.exists(page) else render_run(prepare(loaded, day), run_id)
