"""`bizllm submit` and `stop`: jobs, trainings and compressions on a cluster, through Ray's Jobs API."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import Json, answering
from bizllm.cli.parameters import CatchUp, Dashboard, Most, RunDate, Sets, Since


def submit(
    path: Annotated[
        str, typer.Argument(metavar="FILE.yaml", help="A job, a training or a compress file.", show_default=False)
    ],
    address: Dashboard = None,
    date: RunDate = None,
    sets: Sets = None,
    only: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Run this step only.")] = None,
    catch_up: CatchUp = False,
    since: Since = None,
    most: Most = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", help="Of a training: go on with a run that died.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="Of a compress file: what is made smaller, registry:NAME@champion."
        ),
    ] = None,
    working_dir: Annotated[
        str | None, typer.Option("--working-dir", metavar="DIR", help="What is sent; by default the file's folder.")
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Send this bizllm too, for a cluster that has its libraries alone.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show what the job prints, and end with its exit status.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a job, a training or a compression on a cluster, through Ray's Jobs API."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import cluster as console

        result = api.submit(
            path,
            address=address,
            date=date,
            sets=sets or (),
            only=only or (),
            catch_up=catch_up,
            since=since,
            most=most,
            resume=resume,
            model=model,
            working_dir=working_dir,
            code=code,
            wait=wait,
            sent=console.print_submission,
            line=console.print_log_line,
        )
        out(result.to_dict(), lambda: console.print_submission_end(result))
        if result.exit_status:
            raise typer.Exit(result.exit_status)


def stop(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="A submission, or the run_id of a night or training of it.", show_default=False
        ),
    ],
    address: Dashboard = None,
    json: Json = False,
) -> None:
    """End what a submission runs on a cluster, wait until it has ended, and say what stands."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import cluster as console

        result = api.stop(run, address=address)
        out(result, lambda: console.print_stopped(result))


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.command()(submit)
    app.command()(stop)
