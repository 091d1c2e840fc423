"""`bizllm plan`, `run`, `backfill`, and what reads their results: `runs`, `show`, `report`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bizllm.cli.answering import FAILED, INTERRUPTED, LOCKED, WRONG_INPUT, Json, Out, answering
from bizllm.cli.parameters import Address, CatchUp, JobPath, Most, Run, RunDate, Sets, Since

if TYPE_CHECKING:
    from bizllm.jobs.observe import Observer


def plan(
    job: JobPath,
    date: RunDate = None,
    sets: Sets = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="auto|ray://…", help="A running Ray: also tell what it has for the job."),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option("--max-loss", min=0.0, help="Of the score, of smaller models that are offered; 0.01 by default."),
    ] = None,
    json: Json = False,
) -> None:
    """Check a job (or a training file) and show what it would do; run nothing."""
    with answering(json) as out:
        from bizllm import api

        planned = api.plan(job, date=date, sets=sets or (), address=address, max_loss=max_loss)
        if isinstance(planned, dict):
            from bizllm.console.training import print_training_plan

            out(planned, lambda: print_training_plan(planned))
        else:
            from bizllm.console.nights import print_plan

            result = planned.to_dict()
            out(result, lambda: print_plan(result))


def run(
    job: JobPath,
    date: RunDate = None,
    sets: Sets = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Run this step only, on what is published for its input.")
    ] = None,
    address: Address = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Compute every row anew: resume nothing, copy nothing.")
    ] = False,
    retry_rejects: Annotated[
        bool, typer.Option("--retry-rejects", help="Of a finished night, try the rejected rows again and no others.")
    ] = False,
    catch_up: CatchUp = False,
    since: Since = None,
    most: Most = None,
    json: Json = False,
) -> None:
    """Run the job for one date, or with --catch-up for every night that is missing."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.api.nights import check_catch_up
        from bizllm.console import nights as console

        of_a_night = {"--date": date, "--only": only or None, "--fresh": fresh or None}
        of_a_night["--retry-rejects"] = retry_rejects or None
        check_catch_up(catch_up, of_a_night, {"--since": since, "--most": most})
        if catch_up:
            return _catch_up(out, job, since, most, sets, address, json)

        with _progress(json) as observer:
            result = api.run(
                job,
                date=date,
                sets=sets or (),
                only=only or (),
                address=address,
                fresh=fresh,
                retry_rejects=retry_rejects,
                observer=observer,
            )
        value = result.to_dict()
        out(value, lambda: console.print_run(value, job, sets or ()))
        _exit_with([value["state"]])


def backfill(
    job: JobPath,
    start: Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="The first run date.", show_default=False)],
    end: Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="The last run date.", show_default=False)],
    sets: Sets = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Run the job for every date of a range, the oldest first."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import nights as console

        with _progress(json) as observer:
            results = api.backfill(job, start=start, end=end, sets=sets or (), address=address, observer=observer)
        values = [result.to_dict() for result in results]

        def print_all() -> None:
            for value in values:
                console.print_run(value, job, sets or ())

        out(values, print_all)
        _exit_with([value["state"] for value in values])


def _catch_up(
    out: Out, job: str, since: str | None, most: int | None, sets: list[str] | None, address: str | None, json: bool
) -> None:
    from bizllm import api
    from bizllm.console import nights as console

    with _progress(json) as observer:
        entries = api.catch_up(job, since=since, most=most, sets=sets or (), address=address, observer=observer)
    values = [entry.to_dict() for entry in entries]
    out(values, lambda: console.print_catch_up(values, job, sets or ()))
    _exit_with([value["state"] for value in values if value["run_id"]])
    reasons = {value.get("reason") for value in values}
    if reasons & {"late_input", "wrong_input"}:
        raise typer.Exit(WRONG_INPUT)
    if "locked" in reasons:
        raise typer.Exit(LOCKED)


def runs(
    job: JobPath,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="This run only.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """What ran: state, rows, time, tokens and cost of each step."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import nights as console

        rows = api.runs(job, run, sets=sets or ())
        out(rows, lambda: console.print_runs(rows))


def show(
    job: JobPath,
    step: Annotated[str | None, typer.Argument(metavar="STEP", help="The step whose table to show.")] = None,
    date: Annotated[
        str | None,
        typer.Option("--date", metavar="YYYY-MM-DD", help="This night only; else the newest, with --sql all."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many rows.")] = 20,
    sql: Annotated[str | None, typer.Option(help="DuckDB SQL in which every step is a view.")] = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show the texts of sensitive sources too.")] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Rows of the published tables."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console.rows import print_rows

        table = api.show(job, step, date=date, limit=limit, sql=sql, sets=sets or (), reveal=reveal)
        out(table.to_pylist() if json else None, lambda: print_rows(table))


def report(job: JobPath, run: Run = None, sets: Sets = None, json: Json = False) -> None:
    """Where the HTML report of a run lies."""
    with answering(json) as out:
        from bizllm import api

        place = api.report(job, run, sets=sets or ())
        out({"report": place}, lambda: print(place))


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[Observer]:
    from bizllm.console.progress import progress

    with progress(as_json) as observer:
        yield observer


def _exit_with(states: list[str]) -> None:
    if "cancelled" in states:
        raise typer.Exit(INTERRUPTED)
    if "failed" in states:
        raise typer.Exit(FAILED)


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.command()(plan)
    app.command()(run)
    app.command()(backfill)
    app.command()(runs)
    app.command()(show)
    app.command()(report)
