"""`bizllm rollback`, `gc` and `recover`: what is done to published tables beside publishing."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import Json, answering
from bizllm.cli.parameters import JobPath, Sets


def rollback(
    job: JobPath,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step whose night to restore.", show_default=False)],
    to: Annotated[str, typer.Option("--to", metavar="RUN", help="The run whose night it is.", show_default=False)],
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Make what an earlier run published of a step the current night of its date again."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import upkeep as console

        done = api.rollback(job, step, to=to, sets=sets or ())
        out(done, lambda: console.print_rollback(done))


def gc(
    job: JobPath,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Leave alone what is younger: 12h, 7d, 2w.")
    ] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go; remove nothing.")] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Expire old snapshots; remove files that no snapshot and no unfinished run needs, and half uploads."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import upkeep as console

        done = api.gc(job, older_than=older_than, dry_run=dry_run, sets=sets or ())
        out(done, lambda: console.print_gc(done))


def recover(
    job: JobPath,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done; change nothing.")] = False,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Give a catalog that was lost, restored or changed the tables that lie in the warehouse's folder."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import upkeep as console

        done = api.recover(job, dry_run=dry_run, sets=sets or ())
        out(done, lambda: console.print_recover(done))


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.command()(rollback)
    app.command()(gc)
    app.command()(recover)
