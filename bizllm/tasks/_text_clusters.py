"""What `topics` and `segment` share where texts are put together by what they say: their features, before the fit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.methods import documents
from bizllm.methods.clusters import Matrix
from bizllm.tasks.base import Combined, Groups, Outcome, Reject

_SHORTENED = 2_000  # characters of each of an entity's texts that speak for it by their words


def combine(rows: pa.Table, group: list[str], text: str, max_chars: int, per_group: int) -> Combined:
    """Drop unusable texts, and keep a sample of so many of each group."""
    texts, unusable = documents.read(rows[text], max_chars)
    usable = np.array([i for i, found in enumerate(texts) if found is not None], np.int64)
    groups = documents.group_codes(rows.select(group))[usable]
    kept = usable[documents.sample(groups, [found[0] for found in texts if found], per_group)]
    return Combined(rows.take(pa.array(kept)), [Reject(*fault) for fault in unusable])


def features(groups: Groups, text: str, encoder: Any, per_group: int, prior: str) -> Outcome:
    """A row for each group with a text: `text`, all it says; `texts`, how many; `vector`, their mean, of length 1,
    where an encoder reads them; `previous_PRIOR`, the column `prior` of the newest earlier night."""
    every = groups.rows[text].to_pylist() if text in groups.rows.column_names else []
    said = [sorted(every[start:end]) for start, end in pairwise(groups.starts.tolist())]
    zeros = [documents.sample(np.zeros(len(of_group), np.int64), of_group, per_group) for of_group in said]
    said = [[of_group[i] for i in kept] for of_group, kept in zip(said, zeros, strict=True)]
    subject = np.array([i for i, of_group in enumerate(said) if of_group], np.int64)
    said = [of_group for of_group in said if of_group]
    whole = [of_group[0] if len(of_group) == 1 else "\n".join(t[:_SHORTENED] for t in of_group) for of_group in said]
    counts = pa.array([len(of_group) for of_group in said], pa.int32())
    before = pa.nulls(len(groups), pa.string()) if groups.prior is None else groups.prior[prior]
    columns: dict[str, Any] = {f"previous_{prior}": before.take(pa.array(subject)).cast(pa.string())}
    columns |= {"text": pa.array(whole, pa.large_string()), "texts": counts}
    tokens = 0
    if encoder is not None:
        flat = [t for of_group in said for t in of_group]
        vectors, read = encoder.encode_counted(flat) if flat else (np.zeros((0, 1), np.float32), np.zeros(0))
        tokens = int(read.sum())
        ends = np.cumsum([len(of_group) for of_group in said], dtype=np.int64)
        means = np.add.reduceat(vectors, ends - counts.to_numpy(), axis=0) if flat else vectors
        length = np.linalg.norm(means, axis=1, keepdims=True)
        means = np.divide(means, length, out=np.zeros_like(means), where=length > 0)
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(means.ravel(), pa.float32()), means.shape[1])
    empty = np.setdiff1d(np.arange(len(groups)), subject)
    rejects = [Reject(int(i), "empty", "there is no usable text") for i in empty]
    return Outcome(subject, pa.table(columns), rejects, tokens)


def points(features: pa.Table) -> tuple[list[str], Matrix | None]:
    """(what each group says, (groups, dim) its vectors where there are)."""
    texts = features["text"].to_pylist()
    if "vector" not in features.column_names:
        return texts, None
    column = features["vector"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return texts, flat.reshape(len(texts), column.type.list_size)
