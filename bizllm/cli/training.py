"""`bizllm finetune`, `bizllm compress` and `bizllm evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli.answering import Json, answering
from bizllm.cli.parameters import Address, Sets

TrainPath = Annotated[str, typer.Argument(metavar="TRAIN.yaml", help="The training file.", show_default=False)]
Registry = Annotated[
    str | None, typer.Option("--registry", metavar="URI", help="MLflow server or SQLite file, before the file's own.")
]


def finetune(
    train: TrainPath,
    address: Address = None,
    sets: Sets = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="Go on with a run that died, from its last checkpoint."),
    ] = None,
    registry: Registry = None,
    json: Json = False,
) -> None:
    """Fine-tune a model, score it, register it, and promote it where it beats the one in use."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import training as console

        with console.training_progress(json) as observer:
            result = api.finetune(
                train, address=address, sets=sets or (), resume=resume, registry=registry, observer=observer
            )
        out(result, lambda: console.print_finetune(result))


def compress(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="registry:NAME@champion, path:DIR.", show_default=False)
    ],
    data: Annotated[str, typer.Argument(metavar="DATA.yaml", help="Rows like those of a night.", show_default=False)],
    address: Address = None,
    sets: Sets = None,
    registry: Registry = None,
    json: Json = False,
) -> None:
    """Make smaller models that answer as a fine-tuned one does; measure and register them."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import training as console

        with console.training_progress(json) as observer:
            made = api.compress(model, data, address=address, sets=sets or (), registry=registry, observer=observer)
        out(made, lambda: console.print_compression(made))


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="registry:NAME@champion, path:DIR.", show_default=False)
    ],
    data: Annotated[str, typer.Argument(metavar="DATA.yaml", help="A labelled table.", show_default=False)],
    registry: Registry = None,
    json: Json = False,
) -> None:
    """Score a model on a labelled table."""
    with answering(json) as out:
        from bizllm import api
        from bizllm.console import training as console

        found = api.evaluate(model, data, registry=registry)
        out(found, lambda: console.print_evaluation(found))


def add_to(app: typer.Typer) -> None:
    """The verbs, beside those of the nights."""
    app.command()(finetune)
    app.command()(compress)
    app.command()(evaluate)
