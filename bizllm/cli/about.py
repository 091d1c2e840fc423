"""`bizllm tasks` and `bizllm schema`: what a file may say."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import Json, answering

tasks_app = typer.Typer(help="Every task with its settings and columns.", rich_markup_mode=None)


@tasks_app.callback()
def tasks(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        tasks_list(json)


@tasks_app.command("list")
def tasks_list(json: Json = False) -> None:
    """Every task that a job may name."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import tasks as console

        found = api.tasks()
        out(found, lambda: console.print_tasks(found))


@tasks_app.command("show")
def tasks_show(task: Annotated[str, typer.Argument(show_default=False)], json: Json = False) -> None:
    """A task's settings and the columns that it writes."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import tasks as console

        found = api.tasks(task)[0]
        out(found, lambda: console.print_task(found))


def schema(kind: Annotated[str, typer.Argument(metavar="[job|finetune]")] = "job", json: Json = False) -> None:
    """JSON Schema of the job file, or of the training file, for editors."""
    with answering(True) as out:
        from bizllm import api

        out(api.schema(kind), lambda: None)


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.add_typer(tasks_app, name="tasks", invoke_without_command=True)
    app.command()(schema)
