"""What a person sees of the registry: models, their versions with scores, an alias that moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from bizllm.console.terminal import new_console, new_table
from bizllm.plain_text import plain


def print_models(models: Sequence[dict[str, Any]]) -> None:
    """Every registered model, with the test scores of its champion, else of its newest version."""
    console = new_console()
    if not models:
        console.print("no models yet")
        return
    table = new_table(["model", "aliases", "newest", "version", "scores"], ["newest", "version"])
    for model in models:
        table.add_row(
            plain(model["name"]),
            plain(", ".join(f"{alias} → {version}" for alias, version in model["aliases"].items())),
            *(plain(model[name]) for name in ("newest", "version")),
            plain("  ".join(f"{name} {value:.4g}" for name, value in _told(model["metrics"]).items())),
        )
    console.print(table)


def print_model(model: dict[str, Any]) -> None:
    """A registered model: what each version is, and how it scored, with intervals where they are known."""
    console = new_console()
    for version in model["versions"]:
        aliases = f"  {', '.join(version['aliases'])}" if version["aliases"] else ""
        head = (f"{plain(model['name'])} {plain(version['version'])}", "bold"), (plain(aliases), "green")
        console.print(Text.assemble(*head, f"  {plain(version['created_at'])[:16].replace('T', ' ')} UTC"))
        said = {key.replace("_", " "): value for key, value in version["tags"].items() if not key.startswith("mlflow.")}
        for name, value in _told(version["metrics"]).items():
            low_high = version["intervals"].get(name)
            said[name] = f"{value:.4g}" + (f"  [{low_high[0]:.4g}, {low_high[1]:.4g}]" if low_high else "")
        for name, value in said.items():
            console.print(Text.assemble((f"  {plain(name):<22}", "dim"), plain(value)), soft_wrap=True)
    for alias, versions in model["history"].items():
        if versions:
            console.print(plain(f"{alias} before: {', '.join(versions)}"), soft_wrap=True)


def print_moved(moved: dict[str, Any]) -> None:
    """An alias that points to another version now."""
    before = f", before it was {moved['replaced']}" if moved["replaced"] else ", which had none before"
    same = moved["replaced"] == moved["version"]
    text = f"{moved['model']}: {moved['alias']} is version {moved['version']}{', as before' if same else before}"
    new_console().print(plain(text), soft_wrap=True)


def _told(metrics: dict[str, float]) -> dict[str, float]:
    """The test scores, where there are any."""
    return {name: value for name, value in metrics.items() if name.startswith("test.")} or metrics
