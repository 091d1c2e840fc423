"""bizllm: nightly AI tables from one YAML file. Every verb of the command line is a function here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bizllm.api import (
        backfill,
        catch_up,
        check,
        compress,
        contract,
        evaluate,
        export,
        finetune,
        gc,
        list_models,
        metrics,
        plan,
        promote_model,
        recover,
        report,
        rollback,
        rollback_model,
        run,
        runs,
        schema,
        serve_metrics,
        show,
        show_model,
        stop,
        submit,
        tasks,
        unmask,
    )

__version__ = "0.1.0"
__all__ = [
    "__version__",
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


def __getattr__(name: str) -> Any:
    # Verbs load what they need when they are first called: `import bizllm` alone costs nothing.
    if name in __all__:
        from bizllm import api

        return getattr(api, name)
    raise AttributeError(f"module 'bizllm' has no attribute '{name}'")
