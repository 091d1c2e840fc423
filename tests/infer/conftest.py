"""The context of a step whose source and task a test brings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bizllm.infer.work import StepContext
from bizllm.tables.contract import output_schema, reject_schema
from bizllm.tables.settings import SourceSettings
from bizllm.tables.source import Source
from bizllm.tasks.base import StepInput, task_class

NIGHT = date(2026, 3, 10)


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., StepContext]:
    """context(folder, key, task=…, setting=…): a step over the Parquet files of a folder; staged below tmp_path."""

    def made(folder: Path, key: list[str], *, run: str = "r1", **settings: Any) -> StepContext:
        source = Source("input", SourceSettings(path=str(folder), key=key), lambda *keys: ".".join(keys))
        cls = task_class(settings["task"])
        task = cls(cls.Settings(input="input", **settings), StepInput("input", source.schema(), source.key), NIGHT)
        fields = {field.name: field for field in source.schema()}
        rejects = dict.fromkeys([*task.group_by(), *source.key])
        return StepContext(
            job="shop",
            step="step",
            run_id=run,
            run_date=NIGHT,
            task=task,
            source=source,
            model=None,
            model_version=None,
            schema=output_schema([fields[name] for name in task.keys() if name in fields], task.columns()),
            reject_schema=reject_schema([fields[name] for name in rejects]),
            data_url=str(tmp_path / run / "data"),
            reject_url=str(tmp_path / run / "rejects"),
            state_url=str(tmp_path / run / "state"),
        )

    return made
