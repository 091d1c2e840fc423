"""Reading and working a unit, wherever it runs: a failure inside is a failed receipt, never an exception through Ray.
Where the store failed, it is tried again; a new attempt stages new files."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from bizllm import logs
from bizllm.errors import StorageUnavailable, safe_text
from bizllm.infer.receipts import Receipt
from bizllm.infer.work import Stage, Unit
from bizllm.tables import refusals, retry, storage

_log = logs.get(__name__)
_Made = TypeVar("_Made")


def read(stage: Stage, unit: Unit) -> list[pa.Table] | Receipt:
    """What `stage.read` gives, or the failed receipt."""
    return _attempted(stage, unit, lambda: stage.read(unit))


def work(stage: Stage, unit: Unit, tables: list[pa.Table] | Receipt) -> Receipt:
    """The receipt of a unit, failed or not."""
    if isinstance(tables, Receipt):
        return tables
    return _attempted(stage, unit, lambda: stage.work(unit, tables))


def _attempted(stage: Stage, unit: Unit, call: Callable[[], _Made]) -> _Made | Receipt:
    """What `call` gives, tried again where the store failed under it; at last the failed receipt."""
    began = time.monotonic()
    for attempt in range(1, retry.UNIT_ATTEMPTS + 1):
        try:
            return call()
        except Exception as raised:
            fault = refusals.named(raised) or raised
            last = attempt == retry.UNIT_ATTEMPTS or time.monotonic() - began > retry.LONGEST_S
            if last or not isinstance(fault, StorageUnavailable):
                return Receipt(stage.name, unit.id, "", error=safe_text(fault))
            if fault.stale:
                storage.forget()
            _log.warning("unit_retried", stage=stage.name, unit=unit.id, attempt=attempt, error=str(fault))
            retry.wait(attempt)
    raise AssertionError("unreachable")
