"""Every verb as a function. The command line prints what these return.

All raise UserError where what the user gave is wrong, and RunError where the work failed.
"""

from __future__ import annotations

from bizllm.api.about import schema, tasks, unmask
from bizllm.api.cluster import submit
from bizllm.api.models import (
    compress,
    evaluate,
    finetune,
    list_models,
    promote_model,
    rollback_model,
    show_model,
)
from bizllm.api.nights import backfill, catch_up, plan, report, run, runs, show
from bizllm.api.upkeep import gc, rollback

__all__ = [
    "backfill",
    "catch_up",
    "compress",
    "evaluate",
    "finetune",
    "gc",
    "list_models",
    "plan",
    "promote_model",
    "report",
    "rollback",
    "rollback_model",
    "run",
    "runs",
    "schema",
    "show",
    "show_model",
    "submit",
    "tasks",
    "unmask",
]
