"""Around a run or a training: metrics and traces while it works, messages when it ends, whatever ends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from bizllm.errors import Cancelled, LockHeld, UserError, safe_text
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.notices import addresses
from bizllm.jobs.observe import Observer, Several
from bizllm.jobs.training_file import LoadedRecipe
from bizllm.watch import traces
from bizllm.watch.live import RayMetrics
from bizllm.watch.messages import Message, failed_steps
from bizllm.watch.notify import tell, told_url


class _Ended(Observer):
    """Keeps how the run ended."""

    def __init__(self) -> None:
        self.result: dict[str, Any] | None = None

    def run_finished(self, result: dict[str, Any]) -> None:
        self.result = result


@contextmanager
def watched(loaded: LoadedJob, day: date, observer: Observer | None) -> Iterator[Observer]:
    """Watch the run of a night that happens inside; it is to be given the observer that this yields.

    Raises UserError where a receiver's variable is not set: who waits for a message must not wait in vain.
    """
    receivers = addresses(loaded.job.notify, loaded.document)
    ended, live, spans = _Ended(), RayMetrics(), _spans(loaded.job.name, day)
    state = "failed"
    message: Message | None = None
    try:
        yield Several(live, *([spans] if spans else []), ended, observer or Observer())
        if ended.result is not None:
            state = ended.result["state"]
            message = _of_result(loaded, ended.result)
    except LockHeld:
        state = "locked"
        raise  # the run that holds it tells
    except BaseException as fault:
        state = "cancelled" if isinstance(fault, (KeyboardInterrupt, Cancelled)) else "failed"
        message = None if _mistyped(fault) else _of_fault(loaded, day, state, fault)
        raise
    finally:
        live.ended()
        if spans is not None:
            with suppress(Exception):
                spans.ended(state)
        if message is not None:
            tell(receivers, message, told_url(loaded.job.warehouse.path, loaded.job.name, day))
        if spans is not None:
            with suppress(Exception):
                spans.left()


@contextmanager
def watched_training(loaded: LoadedRecipe) -> Iterator[list[dict[str, Any]]]:
    """Tell of a training that happens inside; its result is to be put into the list that this yields."""
    receivers = addresses(loaded.recipe.notify, loaded.document)
    results: list[dict[str, Any]] = []
    try:
        yield results
    except BaseException as fault:
        if not _mistyped(fault):
            tell(receivers, _of_training_fault(loaded, fault))
        raise
    if results:
        tell(receivers, _of_training(loaded, results[0]))


def _spans(job: str, day: date) -> traces.Traces | None:
    with suppress(Exception):  # a variable that OpenTelemetry does not understand must not end a night
        return traces.Traces(job, day) if traces.wanted() else None
    return None


def _mistyped(fault: BaseException) -> bool:
    """Whether a flag was wrong: whoever typed it sees that."""
    return isinstance(fault, UserError) and all(one.place.startswith("--") for one in fault.faults)


# -- nights -------------------------------------------------------------------------------------------------------


def _of_result(loaded: LoadedJob, result: dict[str, Any]) -> Message | None:
    name, day, state, steps = loaded.job.name, result["date"], result["state"], result["steps"]
    whole = {step["step"] for step in steps} == set(loaded.job.steps)
    good = state in ("done", "unchanged")
    if good and not whole:
        return None  # of a part nobody waits for; `check` tells when it made the night whole
    rejected = sum(step["rows_rejected"] for step in steps)
    published = f"{sum(step['records_out'] for step in steps):,} rows in {len(steps)} tables, {rejected:,} rejected"
    said = f"{state}: {published}" if good else failed_steps(steps) if state == "failed" else "interrupted"
    return Message(
        "done" if good else "failed",
        name,
        f"{name} for {day}",
        said,
        f"bizllm runs {loaded.path} {result['run_id']}",
        date=day,
        run_id=result["run_id"],
        state=state,
        steps=steps,
        report=result["report"],
    )


def _of_fault(loaded: LoadedJob, day: date, state: str, fault: BaseException) -> Message:
    name = loaded.job.name
    said = "interrupted" if state == "cancelled" else "failed, without an entry in the ledger"
    look = f"bizllm plan {loaded.path} --date {day}"
    error = None if isinstance(fault, KeyboardInterrupt) else safe_text(fault)
    return Message("failed", name, f"{name} for {day}", said, look, day.isoformat(), state=state, error=error)


# -- trainings ----------------------------------------------------------------------------------------------------


def _of_training(loaded: LoadedRecipe, result: dict[str, Any]) -> Message:
    name, promoted = loaded.recipe.name, "promoted" if result.get("promoted") else "not promoted"
    said = f"trained: version {result.get('version')}, {promoted}"
    return Message("done", name, f"training of {name}", said, f"bizllm models show {name}", state="done")


def _of_training_fault(loaded: LoadedRecipe, fault: BaseException) -> Message:
    name = loaded.recipe.name
    interrupted = isinstance(fault, (KeyboardInterrupt, Cancelled))
    state, said = ("cancelled", "interrupted") if interrupted else ("failed", "failed")
    look = f"bizllm plan {Path(loaded.path)}"
    error = None if isinstance(fault, KeyboardInterrupt) else safe_text(fault)
    return Message("failed", name, f"training of {name}", said, look, state=state, error=error)
