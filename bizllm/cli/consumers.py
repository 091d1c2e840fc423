"""`bizllm export` and `bizllm contract`: for the systems and people that read the tables."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import FAILED, Json, answering
from bizllm.cli.parameters import JobPath, Sets


def export(
    job: JobPath,
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="The step; also STEP__rejects and runs.", show_default=False)
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="SYSTEM",
            help="parquet, duckdb, postgres, snowflake, bigquery, clickhouse.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="URI", help="Where: a path or URI, as the system wants it; ${VAR} for secrets."
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="SCHEMA.TABLE", help="The table there; JOB.STEP by default.")
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="This night; the newest by default.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every published night, the oldest first.")] = False,
    reveal: Annotated[bool, typer.Option("--reveal", help="Copy the texts of sensitive sources too.")] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Copy published nights of a table into another system; a night that is there is replaced."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import consumers as console

        done = api.export(
            job,
            step,
            to=to,
            target=target,
            table=table,
            date=date,
            every=every,
            reveal=reveal,
            sets=sets or (),
            told=(lambda night: None) if json else console.print_night,
        )
        out(done.to_dict(), lambda: console.print_export(done))


def contract(
    job: JobPath,
    write: Annotated[str | None, typer.Option("--write", metavar="FILE", help="Write it to this YAML file.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="FILE", help="Check that this file still holds; status 1 if not.")
    ] = None,
    planned: Annotated[
        bool, typer.Option("--planned", help="Of what the job would write, not of what is published.")
    ] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """What readers of the tables may rely on, as YAML; or whether a file of it still holds."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import consumers as console

        found = api.contract(job, write=write, against=against, planned=planned, sets=sets or ())
        text = found.pop("text", "")
        out(found, lambda: console.print_contract(found, text, write, against))
        if not found.get("holds", True):
            raise typer.Exit(FAILED)


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.command()(export)
    app.command()(contract)
