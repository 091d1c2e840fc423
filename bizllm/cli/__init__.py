"""The command line: parse, call the API, print.

Exit status: 0 done; 1 the run failed; 2 the input was wrong; 3 another run holds the lock; 130 interrupted.
Nothing heavy is imported before a verb needs it, so that help, schemas and mistakes in a YAML file answer at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bizllm import __version__
from bizllm.cli import about, cluster, consumers, models, nights, training, upkeep, watching
from bizllm.cli.answering import answering

app = typer.Typer(
    name="bizllm",
    help="Nightly AI tables from one YAML file: summaries, forecasts and segments as checked Iceberg tables.",
    epilog="Exit status: 0 done, 1 the run failed, 2 wrong input, 3 another run holds the lock, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help starts 0.1 s sooner
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _before(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    sent_by: Annotated[str | None, typer.Option("--sent-by", hidden=True)] = None,  # `bizllm submit` writes these two
    exactly: Annotated[bool, typer.Option("--exactly", hidden=True)] = False,
) -> None:
    if version:
        print(f"bizllm {__version__}")
        raise typer.Exit(0)
    if sent_by is not None:
        with answering(False):
            from bizllm.jobs.code import check_sender

            if warning := check_sender(sent_by, exactly):
                print(f"warning: {warning}", file=sys.stderr)


for verbs in (nights, consumers, about, models, training, cluster, watching, upkeep):
    verbs.add_to(app)


def main(*arguments: str) -> None:
    """The `bizllm` command, with the arguments of the command line or these; ends the process with its status."""
    app(list(arguments) or None, prog_name="bizllm")
