"""The command line: parse, call the API, print.

Exit status: 0 done; 1 the run failed; 2 the input was wrong; 3 another run holds the lock; 130 interrupted.
Nothing heavy is imported before a verb needs it, so that help, schemas and mistakes in a YAML file answer at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bizllm import cli_training, cli_upkeep
from bizllm.answering import FAILED, INTERRUPTED, Json, answering
from bizllm.cli_models import models_app

if TYPE_CHECKING:
    from bizllm.jobs.observe import Observer

app = typer.Typer(
    name="bizllm",
    help="Nightly AI tables from one YAML file: summaries, forecasts and segments as checked Iceberg tables.",
    epilog="Exit status: 0 done, 1 the run failed, 2 wrong input, 3 another run holds the lock, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help starts 0.1 s sooner
    pretty_exceptions_enable=False,
)
tasks_app = typer.Typer(help="Every task with its settings and columns.", rich_markup_mode=None)
app.add_typer(tasks_app, name="tasks", invoke_without_command=True)
app.add_typer(models_app, name="models", invoke_without_command=True)

JobPath = Annotated[str, typer.Argument(metavar="JOB.yaml", help="The job file.", show_default=False)]
Run = Annotated[str | None, typer.Argument(metavar="RUN", help="A run_id; by default the newest.")]
RunDate = Annotated[
    str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Run date; yesterday in the job's time zone.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="PLACE=VALUE", help="Override a setting: steps.sales.horizon=14.")
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="auto|ray://…", help="A running Ray; by default a local one starts.")
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"bizllm {installed('bizllm')}")
        raise typer.Exit(0)


@app.command()
def plan(
    job: JobPath,
    date: RunDate = None,
    sets: Sets = None,
    address: Address = None,
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
            from bizllm.console_training import print_training_plan

            out(planned, lambda _: print_training_plan(planned))
        else:
            result = planned.to_dict()
            out(result, lambda console: console.print_plan(result))


@app.command()
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
    json: Json = False,
) -> None:
    """Run the job for one date."""
    with answering(json) as out:
        from bizllm import api

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
        out(value, lambda console: console.print_run(value, job, sets or ()))
        _exit_with([value["state"]])


@app.command()
def submit(
    job: JobPath,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="http://HEAD:8265", help="The head's dashboard; else RAY_API_SERVER_ADDRESS."
        ),
    ] = None,
    date: RunDate = None,
    sets: Sets = None,
    only: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Run this step only.")] = None,
    working_dir: Annotated[
        str | None, typer.Option("--working-dir", metavar="DIR", help="What is sent; by default the job file's folder.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show what the job prints, and end with its exit status.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the job on a cluster, through Ray's Jobs API."""
    with answering(json) as out:
        from bizllm import api, console

        result = api.submit(
            job,
            address=address,
            date=date,
            sets=sets or (),
            only=only or (),
            working_dir=working_dir,
            wait=wait,
            sent=console.print_submission,
            line=console.print_log_line,
        )
        out(result.to_dict(), lambda console: console.print_submission_end(result))
        if result.exit_status:
            raise typer.Exit(result.exit_status)


@app.command()
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

        with _progress(json) as observer:
            results = api.backfill(job, start=start, end=end, sets=sets or (), address=address, observer=observer)
        values = [result.to_dict() for result in results]

        def show(console: Any) -> None:
            for value in values:
                console.print_run(value, job, sets or ())

        out(values, show)
        _exit_with([value["state"] for value in values])


@app.command()
def runs(
    job: JobPath,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="This run only.")] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """What ran: state, rows, time, tokens and cost of each step."""
    with answering(json) as out:
        from bizllm import api

        rows = api.runs(job, run, sets=sets or ())
        out(rows, lambda console: console.print_runs(rows))


@app.command()
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

        table = api.show(job, step, date=date, limit=limit, sql=sql, sets=sets or (), reveal=reveal)
        out(table.to_pylist() if json else None, lambda console: console.print_rows(table))


@app.command()
def report(job: JobPath, run: Run = None, sets: Sets = None, json: Json = False) -> None:
    """Where the HTML report of a run lies."""
    with answering(json) as out:
        from bizllm import api

        place = api.report(job, run, sets=sets or ())
        out({"report": place}, lambda _: print(place))


@tasks_app.callback()
def tasks(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        tasks_list(json)


@tasks_app.command("list")
def tasks_list(json: Json = False) -> None:
    """Every task that a job may name."""
    with answering(json) as out:
        from bizllm import api, console_tasks

        found = api.tasks()
        out(found, lambda _: console_tasks.print_tasks(found))


@tasks_app.command("show")
def tasks_show(task: Annotated[str, typer.Argument(show_default=False)], json: Json = False) -> None:
    """A task's settings and the columns that it writes."""
    with answering(json) as out:
        from bizllm import api, console_tasks

        found = api.tasks(task)[0]
        out(found, lambda _: console_tasks.print_task(found))


@app.command()
def schema(kind: Annotated[str, typer.Argument(metavar="[job|finetune]")] = "job", json: Json = False) -> None:
    """JSON Schema of the job file, or of the training file, for editors."""
    with answering(True) as out:
        from bizllm import api

        out(api.schema(kind), lambda _: None)


cli_training.add_to(app)
cli_upkeep.add_to(app)


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[Observer]:
    from bizllm import console

    with console.progress(as_json) as observer:
        yield observer


def _exit_with(states: list[str]) -> None:
    if "cancelled" in states:
        raise typer.Exit(INTERRUPTED)
    if "failed" in states:
        raise typer.Exit(FAILED)


def main() -> None:
    """The `bizllm` command."""
    app(prog_name="bizllm")


if __name__ == "__main__":
    main()
