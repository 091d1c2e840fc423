"""`bizllm models`: what the registry holds, and which version an alias points to."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import Json, answering

models_app = typer.Typer(help="Registered models: versions, scores, and who is the champion.", rich_markup_mode=None)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model's name.", show_default=False)]
Alias = Annotated[str, typer.Option("--alias", metavar="ALIAS", help="The alias to move.")]
Where = Annotated[
    str | None,
    typer.Option("--registry", metavar="URI", help="MLflow server or SQLite file; else MLFLOW_TRACKING_URI, or ./out."),
]


@models_app.callback()
def models(context: typer.Context, registry: Where = None, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        models_list(registry, json)
    elif registry or json:
        raise typer.BadParameter(f"write flags behind it: bizllm models {context.invoked_subcommand} … --registry URI")


@models_app.command("list")
def models_list(registry: Where = None, json: Json = False) -> None:
    """Every registered model with its aliases."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import models as console

        found = api.list_models(registry=registry)
        out(found, lambda: console.print_models(found))


@models_app.command("show")
def models_show(model: Model, registry: Where = None, json: Json = False) -> None:
    """A model's versions: scores, data, base, licence."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import models as console

        found = api.show_model(model, registry=registry)
        out(found, lambda: console.print_model(found))


@models_app.command("promote")
def models_promote(
    model: Model,
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False)],
    alias: Alias = "champion",
    registry: Where = None,
    json: Json = False,
) -> None:
    """Point the alias to a version, by hand and without asking for proof."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import models as console

        moved = api.promote_model(model, version, alias=alias, registry=registry)
        out(moved, lambda: console.print_moved(moved))


@models_app.command("rollback")
def models_rollback(model: Model, alias: Alias = "champion", registry: Where = None, json: Json = False) -> None:
    """Point the alias back to the version that held it before."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import models as console

        moved = api.rollback_model(model, alias=alias, registry=registry)
        out(moved, lambda: console.print_moved(moved))


def add_to(app: typer.Typer) -> None:
    """Give the verbs to the application."""
    app.add_typer(models_app, name="models", invoke_without_command=True)
