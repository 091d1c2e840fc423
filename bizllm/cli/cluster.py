"""`bizllm submit`: a job on a cluster, through Ray's Jobs API."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import Json, answering
from bizllm.cli.parameters import Dashboard, JobPath, RunDate, Sets


def submit(
    job: JobPath,
    address: Dashboard = None,
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
        from bizllm import api
        from bizllm.console import cluster as console

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
        out(result.to_dict(), lambda: console.print_submission_end(result))
        if result.exit_status:
            raise typer.Exit(result.exit_status)


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.command()(submit)
