"""What a unit leaves behind: a receipt. A step is done when every unit has one, and only what receipts name counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from bizllm.tables import storage
from bizllm.tables.warehouse import StagedFile


@dataclass(frozen=True)
class Receipt:
    """The outcome of one attempt at one unit. Small, and never row text: this is all that the driver holds.

    rows_in, rows_out: subjects (rows, or groups) that came in and that were answered; records_out: table rows.
    rows_reused: subjects among rows_out whose answer an earlier night gave.
    rejected:   how many by (scope, code, message), as `scope|code|message`.
    broken:     how many output rows broke each of the task's rules.
    extra:      what the stage itself needs later: row groups by bucket, a fit, …
    error:      type and place of what stopped the unit; None where it is done.
    """

    stage: str
    unit: str
    run_id: str
    rows_in: int = 0
    rows_out: int = 0
    rows_skipped: int = 0
    rows_reused: int = 0
    records_out: int = 0
    tokens: int = 0
    seconds: float = 0.0
    files: tuple[StagedFile, ...] = ()
    reject_files: tuple[StagedFile, ...] = ()
    rejected: dict[str, int] = field(default_factory=dict)
    exhibit: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> str:
        """One line; `from_json` reads it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str | bytes) -> Receipt:
        """The receipt that `to_json` wrote."""
        raw = json.loads(text)
        for name in ("files", "reject_files"):
            raw[name] = tuple(StagedFile(**f) for f in raw[name])
        return Receipt(**raw)

    @property
    def rejected_subjects(self) -> int:
        """Subjects without an answer: what balances rows_in, that is, rejects of this stage's own scope."""
        return self.rows_in - self.rows_out - self.rows_skipped


class ReceiptBook:
    """The durable receipts of one stage of one step: one small object a unit; the first success wins."""

    def __init__(self, folder: str, stage: str) -> None:
        self.folder = storage.join(folder, "receipts", stage)
        self.stage = stage
        self._done: dict[str, Receipt] = {}
        for info in storage.list_files(self.folder) if storage.exists(self.folder) else ():
            if not info.url.endswith(".json"):
                continue  # a temporary file of a process that was killed while it wrote: perhaps half a receipt
            receipt = Receipt.from_json(storage.read_bytes(info.url))
            self._done[receipt.unit] = receipt

    def __contains__(self, unit: str) -> bool:
        return unit in self._done

    def __iter__(self) -> Iterator[Receipt]:
        return iter(sorted(self._done.values(), key=lambda r: r.unit))

    def __len__(self) -> int:
        return len(self._done)

    def enter(self, receipt: Receipt) -> None:
        """Make a success durable before it counts. A second success of the same unit is ignored."""
        assert receipt.error is None
        if receipt.unit not in self._done:
            storage.write_bytes(storage.join(self.folder, f"{receipt.unit}.json"), receipt.to_json().encode())
            self._done[receipt.unit] = receipt


def reject_key(scope: str, code: str, message: str) -> str:
    """The name under which a kind of reject is counted."""
    return f"{scope}|{code}|{message}"


def sum_rejects(receipts: Iterable[Receipt]) -> dict[tuple[str, str, str], int]:
    """(scope, code, message) → how many, over the receipts."""
    total: dict[tuple[str, str, str], int] = {}
    for receipt in receipts:
        for name, count in receipt.rejected.items():
            scope, code, message = name.split("|", 2)
            total[scope, code, message] = total.get((scope, code, message), 0) + count
    return total
