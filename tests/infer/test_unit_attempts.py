"""A unit whose store failed is tried again, a bounded number of times; any other failure is its receipt at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from bizllm.errors import RunError, StorageUnavailable
from bizllm.infer import attempts
from bizllm.infer.receipts import Receipt
from bizllm.tables import retry


@dataclass
class Unit:
    id: str = "00001"


@dataclass
class Stage:
    """Raises each fault once, then answers."""

    faults: list[Exception]
    name: str = "answer"
    holds_model: bool = False
    uses_gpu: bool = False
    calls: int = 0
    tables: list[Any] = field(default_factory=list)

    def open(self) -> None: ...

    def read(self, unit: Unit) -> list[Any]:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        return self.tables

    def work(self, unit: Unit, tables: list[Any]) -> Receipt:
        self.read(unit)
        return Receipt(self.name, unit.id, "r1")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.0)


BROKEN = OSError("When reading: AWS Error SLOW_DOWN during GetObject operation: slow down")


@pytest.mark.parametrize("fault", [BROKEN, StorageUnavailable("can't read"), ConnectionResetError(104, "reset")])
def test_a_fault_that_passes_is_forgotten(fault: Exception) -> None:
    stage = Stage([fault, fault])
    assert attempts.read(stage, Unit()) == [] and stage.calls == 3
    stage = Stage([fault])
    assert attempts.work(stage, Unit(), []).error is None and stage.calls == 2


def test_one_that_stays_ends_the_unit_after_three_attempts() -> None:
    stage = Stage([BROKEN] * 9)
    receipt = attempts.read(stage, Unit())
    assert isinstance(receipt, Receipt) and stage.calls == 3
    assert receipt.error == "the object store failed: SlowDown at GetObject"


def test_what_trying_again_can_not_mend_is_told_at_once() -> None:
    denied = OSError("part of key 'k' in bucket 'lake': AWS Error ACCESS_DENIED during UploadPart operation: no")
    for fault, said in (
        (
            denied,
            "the object store failed: bucket 'lake': access denied (AccessDenied at UploadPart); it takes s3:PutO",
        ),
        (RunError("no budget"), "no budget"),
        (ValueError("Jane Doe"), "ValueError"),
    ):
        stage = Stage([fault] * 9)
        receipt = attempts.work(stage, Unit(), [])
        assert stage.calls == 1 and receipt.error is not None and receipt.error.startswith(said)
        assert "Jane" not in receipt.error
