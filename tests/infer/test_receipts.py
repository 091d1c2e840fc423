"""Receipts survive their file, the first success wins, and half a file is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bizllm.infer.receipts import Receipt, ReceiptBook, reject_key, sum_rejects
from bizllm.tables.warehouse import StagedFile

DONE = Receipt(
    "answer",
    "u00001",
    "run",
    rows_in=5,
    rows_out=4,
    records_out=4,
    files=(StagedFile("/wh/a.parquet", 4, 100, {"x": {"nulls": 0}}),),
    rejected={reject_key("row", "empty", "null | or blank"): 1},
    extra={"fit": "/wh/fit.json"},
)


def test_a_receipt_reads_back_as_it_was() -> None:
    assert Receipt.from_json(DONE.to_json()) == DONE
    assert sum_rejects([DONE, DONE]) == {("row", "empty", "null | or blank"): 2}


def test_the_first_success_wins(tmp_path: Path) -> None:
    book = ReceiptBook(str(tmp_path), "answer")
    book.enter(DONE)
    book.enter(replace(DONE, run_id="later"))
    again = ReceiptBook(str(tmp_path), "answer")
    assert list(again) == [DONE] and "u00001" in again and "u00002" not in again
    assert len(ReceiptBook(str(tmp_path), "other")) == 0


def test_half_a_receipt_is_none(tmp_path: Path) -> None:
    ReceiptBook(str(tmp_path), "answer").enter(DONE)
    folder = tmp_path / "receipts" / "answer"
    (folder / ".tmp-1").write_text(replace(DONE, unit="u00002").to_json())
    (folder / ".tmp-2").write_text(DONE.to_json()[:40])
    assert [receipt.unit for receipt in ReceiptBook(str(tmp_path), "answer")] == ["u00001"]
