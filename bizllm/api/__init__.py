"""Every verb as a function. The command line prints what these return.

All raise UserError where what the user gave is wrong, and RunError where the work failed.
"""

from __future__ import annotations

from bizllm.api.about import schema, tasks, unmask
from bizllm.api.cluster import stop, submit
from bizllm.api.consumers import contract, export
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
from bizllm.api.upkeep import gc, recover, rollback
from bizllm.api.watching import check, metrics, serve_metrics

__all__ = [
    "backfill",
    "catch_up",
    "check",
    "compress",
    "contract",
    "evaluate",
    "export",
    "finetune",
    "gc",
    "list_models",
    "metrics",
    "plan",
    "promote_model",
    "recover",
    "report",
    "rollback",
    "rollback_model",
    "run",
    "runs",
    "schema",
    "serve_metrics",
    "show",
    "show_model",
    "stop",
    "submit",
    "tasks",
    "unmask",
]
