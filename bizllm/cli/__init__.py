"""The command line: parse, call the API, print.

Exit status: 0 done; 1 the run failed; 2 the input was wrong; 3 another run holds the lock; 130 interrupted.
Nothing heavy is imported before a verb needs it, so that help, schemas and mistakes in a YAML file answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bizllm.cli import about, cluster, consumers, models, nights, training, upkeep

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
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"bizllm {installed('bizllm')}")
        raise typer.Exit(0)


for verbs in (nights, consumers, about, models, training, cluster, upkeep):
    verbs.add_to(app)


def main() -> None:
    """The `bizllm` command."""
    app(prog_name="bizllm")
