"""A change that replaces the files of a slice, in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bizllm.tables.history import summary

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.update.snapshot import _SnapshotProducer


def replacing(
    tx: Transaction, table: Table | None, where: BooleanExpression, properties: Mapping[str, str]
) -> _SnapshotProducer[Any]:
    """One that deletes every file of the slice `where`; the caller adds others. properties: of the snapshot."""
    change = tx.update_snapshot(summary(properties)).overwrite()
    change.delete_by_predicate(where)
    # PyIceberg 0.12 looks through the manifests with several threads and one evaluator, which keeps in itself which it
    # looks at: now and then a thread judges another's, and the commit fails for "missing" files.
    change._build_manifest_evaluator = _anew(change._build_manifest_evaluator)  # type: ignore[method-assign,assignment]
    for task in table.scan(where).plan_files() if table else ():
        change.delete_data_file(task.file)
    return change


def _anew(build: Callable[[int], Callable[[Any], bool]]) -> Callable[[int], Callable[[Any], bool]]:
    """The same evaluators, each made for the one manifest that it is asked about."""
    return lambda spec_id: lambda manifest: build(spec_id)(manifest)
