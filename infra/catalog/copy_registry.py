"""All models of one registry into another, empty one: `python infra/catalog/copy_registry.py FROM TO`.

FROM and TO are what `registry:` takes: a SQLite file, or the http(s) address of an MLflow server. Versions keep their
numbers, metrics, tags and cards, aliases their history; weights are copied and held against their hash. MLflow's runs
of trainings (curves) are not copied. Run it again after a fault: models that are there whole are passed over.
"""

from __future__ import annotations

import os
import sys

from bizllm.errors import RunError, UserError
from bizllm.models.registry import Registry
from bizllm.models.registry_uri import checked_uri
from bizllm.models.versions import ModelVersion


def main(source: str, target: str) -> None:
    """Copy, and print a line a model."""
    old, new = Registry(checked_uri(source, "FROM")), Registry(checked_uri(target, "TO"))
    new.experiment("Default")  # makes a SQLite file that is not there
    there = {model.name for model in new.models()}
    for model in old.models():
        copied = {version.version for version in new.versions(model.name)} if model.name in there else set()
        versions = old.versions(model.name)
        for version in versions:
            if version.version not in copied:
                _copy(old, new, version)
        here = next((one.aliases for one in new.models() if one.name == model.name), {})
        for alias, now in model.aliases.items():
            wanted = [*old.history(model.name, alias), now]
            held = [*new.history(model.name, alias), here[alias]] if alias in here else []
            for number in wanted[len(held) :] if wanted[: len(held)] == held else wanted:
                new.set_alias(model.name, alias, number)
        print(f"{model.name}: {len(versions)} versions, {', '.join(sorted(model.aliases)) or 'no alias'}")


def _copy(old: Registry, new: Registry, version: ModelVersion) -> None:
    folder = old.download(version.source, version.content_hash)
    while True:
        made = new.register(
            version.name,
            folder,
            metrics=version.metrics,
            params=version.params,
            tags=version.tags,
            card=version.card,
        )
        if made.content_hash != version.content_hash:
            raise RunError(f"{version.name}@{version.version}: the copy is not what was registered")
        if made.version == version.version:
            return
        if int(made.version) > int(version.version):
            raise RunError(
                f"{version.name}: {made.version} follows in TO, {version.version} was to come; empty it first"
            )
        new.delete(version.name, made.version)  # the number of a version that was deleted in FROM


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        main(*sys.argv[1:])
    except (UserError, RunError) as fault:
        sys.exit(str(fault))
