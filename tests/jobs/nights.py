"""What a night left, for tests that disturb one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bizllm import api

NIGHT = "2026-03-10"
ROWS = 480  # of the job `many`


def receipts(folder: Path, night: str = NIGHT) -> set[str]:
    """Units whose answers are durable."""
    found = (folder / "wh/_bizllm/shop/state" / night / "summary/receipts/answer").glob("*.json")
    return {path.stem for path in found}


def night(path: str, *sets: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Table and rejects, without what tells one run from another."""
    own = {"summary": "* exclude (run_id, produced_at)", "summary__rejects": "* exclude (run_id)"}
    table, rejects = (
        api.show(path, sql=f"select {columns} from {view} order by all", sets=sets).to_pylist()
        for view, columns in own.items()
    )
    return table, rejects
