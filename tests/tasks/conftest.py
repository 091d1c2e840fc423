"""What the tests of several tasks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.tables.audit import audit
from bizllm.tasks.base import Task


@pytest.fixture
def broken_rules(tmp_path: Path) -> Callable[[Task, pa.Table], dict[str, int]]:
    """Asks the audit of a night about a task's own rules: name of each broken one → rows that break it."""

    def ask(task: Task, columns: pa.Table) -> dict[str, int]:
        file = tmp_path / "staged.parquet"
        pq.write_table(columns, file)
        n = columns.num_rows
        rows = {"rows_in": n, "rows_out": n, "rows_rejected": 0, "records_out": n}
        found = audit([str(file)], [], task.rules(), rows, task.columns())
        assert {result.name for result in found} > task.rules().keys()
        return {result.name: result.broken for result in found if result.broken}

    return ask
