"""Rows that train shares with held-out rows, left out of it; and rows of train that contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.train import data, overlap
from bizllm.train.recipe import Recipe

WITH_CLASSES = ("classification", "pair", "multi_label")


def texts_of(rows: pa.Table) -> list[str] | None:
    """What overlaps are looked for in; None where rows hold numbers."""
    kind = rows["text"].type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not pa.types.is_string(kind.value_type):
            return None
        texts = [" ".join(tokens) for tokens in rows["text"].to_pylist()]
    else:
        texts = rows["text"].to_pylist()
    if "pair" in rows.column_names:
        texts = [f"{text}\n{pair}" for text, pair in zip(texts, rows["pair"].to_pylist(), strict=True)]
    return texts


def without_overlap(
    recipe: Recipe, parts: data.Parts, place: Callable[..., str]
) -> tuple[overlap.Overlap | None, data.Parts, tuple[str, ...]]:
    """What the parts share; and train without the rows that it should not have, as `drop_overlap` says."""
    texts = {name: texts_of(part.rows) for name, part in parts.items()}
    if any(some is None for some in texts.values()):
        return None, parts, ()
    found = overlap.find({name: some for name, some in texts.items() if some is not None})
    warnings = []
    for twins in found.found:
        if twins.part == "train" and len(twins.rows):
            exact, near = int(twins.exact.sum()), int((~twins.exact).sum())
            warnings.append(f"train shares {exact:,} texts with {twins.other}, and {near:,} that are nearly the same")
    gone = shared_rows(found, recipe.data.drop_overlap)
    if not len(gone):
        return found, parts, tuple(warnings)
    kept = np.setdiff1d(np.arange(len(parts.train.rows)), gone)
    if not len(kept):
        what = "nothing is left of train: validation and test hold all its texts"
        raise UserError(Fault(place("data", "drop_overlap"), recipe.data.drop_overlap, what))
    warnings.append(f"{len(gone):,} rows of train are left out for that")
    return found, replace(parts, train=parts.train.take(kept)), tuple(warnings)


def apart(rows: pa.Table, others: list[pa.Table], drop: str) -> pa.Table:
    """The rows whose text is in none of the other tables, equal or nearly, as `drop_overlap` says."""
    if drop == "none":
        return rows
    texts = {"train": texts_of(rows), **{str(i): texts_of(other) for i, other in enumerate(others)}}
    if any(some is None for some in texts.values()):
        return rows
    found = overlap.find({name: some for name, some in texts.items() if some is not None})
    return rows.take(pa.array(np.setdiff1d(np.arange(len(rows)), shared_rows(found, drop))))


def shared_rows(found: overlap.Overlap, drop: str) -> data.Ints:
    """Positions in train of the rows that `drop_overlap` leaves out."""
    if drop == "none":
        return np.empty(0, np.int64)
    some = [t.rows[t.exact] if drop == "exact" else t.rows for t in found.found if t.part == "train"]
    return np.unique(np.concatenate([np.empty(0, np.int64), *some]))


def contradictions(recipe: Recipe, parts: data.Parts) -> tuple[str, ...]:
    """A warning where one text has several answers in train."""
    rows = parts.train.rows
    texts = (
        texts_of(rows)
        if "label" in rows.column_names and recipe.objective in ("classification", "pair", "multi_label")
        else None
    )
    if texts is None:
        return ()
    labels = [tuple(sorted(one)) if isinstance(one, list) else one for one in rows["label"].to_pylist()]
    groups = overlap.conflicts(texts, labels)
    if not groups:
        return ()
    count = sum(map(len, groups))
    return (f"{count:,} rows of train contradict each other: {len(groups):,} texts stand there with different labels",)
