"""Row accounting of a step: what came in is what went out and what was rejected, and not too much was rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bizllm.errors import RunError
from bizllm.infer.receipts import Receipt, sum_rejects
from bizllm.models.endpoint import is_endpoint, parsed
from bizllm.tasks.base import DATA_CODES

Rejects = dict[tuple[str, str, str], int]  # (scope, code, message) → how many


class Refused(RunError):
    """Every unit was answered, and the whole must not be published: the data or the settings must change."""


@dataclass(frozen=True)
class Counts:
    """What a step did, in the task's subjects (`scope`): rows, or groups.

    records_out: table rows. read: input rows, whatever the subjects are.
    """

    scope: Literal["row", "group"]
    rows_in: int
    rows_out: int
    rows_rejected: int
    rows_reused: int
    records_out: int
    tokens: int
    read: int

    @staticmethod
    def of(first: Sequence[Receipt], last: Sequence[Receipt], scope: Literal["row", "group"], read: int) -> Counts:
        """first: the receipts of the stage that sees every subject; last: of the one that answers (may be the same)."""
        both = {(receipt.stage, receipt.unit): receipt for receipt in (*first, *last)}.values()
        return Counts(
            scope,
            sum(receipt.rows_in for receipt in first) - sum(receipt.rows_skipped for receipt in both),
            sum(receipt.rows_out for receipt in last),
            sum(count for (of, _, _), count in sum_rejects(both).items() if of == scope),
            sum(receipt.rows_reused for receipt in last),
            sum(receipt.records_out for receipt in last),
            sum(receipt.tokens for receipt in both),
            read,
        )

    def hold(self, rejects: Mapping[tuple[str, str, str], int], budget: float) -> None:
        """Raise Refused where rows went missing, nothing was answered, or more than `budget` of the subjects (a share)
        were rejected for other reasons than the data's own (`DATA_CODES`)."""
        if self.rows_in != self.rows_out + self.rows_rejected:
            raise Refused(f"row accounting: {self.rows_in} in, {self.rows_out} out, {self.rows_rejected} rejected")
        codes: dict[str, int] = {}
        for (_, code, _), count in rejects.items():
            codes[code] = codes.get(code, 0) + count
        listed = ", ".join(f"{code} {count:,}" for code, count in sorted(codes.items(), key=lambda c: (-c[1], c[0])))
        if self.read and not self.rows_out:
            raise Refused(f"every row was rejected ({self.read:,} read; {listed}): nothing is published")
        hard = sum(n for (of, code, _), n in rejects.items() if of == self.scope and code not in DATA_CODES)
        if hard > budget * self.rows_in:
            raise Refused(
                f"{hard:,} of {self.rows_in:,} {self.scope}s were rejected ({listed}), "
                f"over the reject_budget of {budget:.2%}"
            )


def paid(receipts: Sequence[Receipt]) -> float | None:
    """What the tokens of these receipts cost, of endpoints that have a price; None where none has one."""
    costs = []
    for receipt in receipts:
        for uri, (read, written) in receipt.extra.get("usage", {}).items():
            assert is_endpoint(uri), "nothing else tells usage"
            endpoint = parsed(uri)
            costs += [endpoint.cost(read, written)] if endpoint.priced else []
    return sum(costs) if costs else None


def cost_of(*parts: float | None) -> float | None:
    """The sum of those parts that have a price; None where none has one."""
    priced = [part for part in parts if part is not None]
    return round(sum(priced), 6) if priced else None
