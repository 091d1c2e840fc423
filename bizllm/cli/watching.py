"""`bizllm check` and `bizllm metrics`: whether nights are there, for people, cron and Prometheus."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import FAILED, Json, answering
from bizllm.cli.parameters import JobPath, Sets


def check(
    job: JobPath,
    by: Annotated[
        str | None, typer.Option("--by", metavar="HH:MM", help="In the job's time zone, instead of its `due`.")
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Whether last night's tables are there: status 1 where they are late, and `notify` is told, once a night."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import watching as console

        found = api.check(job, by=by, sets=sets or ())
        value = found.to_dict()
        out(value, lambda: console.print_check(value))
        if found.state == "late":
            raise typer.Exit(FAILED)


def metrics(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB.yaml", help="The job files.", show_default=False)],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0: any free one.")] = 9464,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen at; 0.0.0.0 for all of them.")
    ] = "127.0.0.1",
    every: Annotated[
        float, typer.Option("--every", min=1.0, metavar="SECONDS", help="How often the warehouses are read.")
    ] = 60.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print the metrics and end; status 1 where a warehouse can't be read.")
    ] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Serve metrics of the jobs' nights for Prometheus at /metrics, or print them once."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import watching as console

        if once:
            found = api.metrics(*jobs, sets=sets or ())
            value = [{"name": name, "labels": labels, "value": number} for name, labels, number in found.values()]
            out(value, lambda: console.print_metrics(found.text()))
            if any(one["name"] == "bizllm_exporter_job_up" and not one["value"] for one in value):
                raise typer.Exit(FAILED)
            return
        with console.until_stopped() as stop:
            api.serve_metrics(
                *jobs,
                host=host,
                port=port,
                every_s=every,
                sets=sets or (),
                stop=stop,
                ready=lambda at: out({"host": host, "port": at}, lambda: console.print_serving(host, at)),
            )


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.command()(check)
    app.command()(metrics)
