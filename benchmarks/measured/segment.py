"""segment, by what customers say: whether customers of one business are put together.

Customers are multidogo's conversations; their segments, which never see it, are held against the business that they
wrote to. `first text` clusters the vector of a customer's first text alone, `k-means on TF-IDF` all of his texts.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.methods import topics
from bizllm.models.load import ModelLoader
from bizllm.tasks.base import Groups, StepInput
from bizllm.tasks.segment import Segment, SegmentSettings
from measured import Line

CUSTOMERS = 900
MODELS = ModelLoader()
REMARKS = """Segments of purchases have no right answer; how they last is in segment.json."""


def lines(data: Path) -> list[Line]:
    """By vectors and by words, with as many segments as there are businesses."""
    from sklearn.metrics import adjusted_rand_score

    table = pq.read_table(data / "multidogo/test.parquet", columns=["conversation_id", "turn", "text", "domain"])
    rows = [row for row in table.to_pylist() if row["text"] and row["text"].strip()]
    known = {row["conversation_id"]: row["domain"] for row in rows}
    names = sorted(known)
    picks = sorted(np.random.default_rng(0).choice(names, min(CUSTOMERS, len(names)), replace=False).tolist())
    chosen = set(picks)
    rows = sorted((r for r in rows if r["conversation_id"] in chosen), key=lambda r: (r["conversation_id"], r["turn"]))
    kinds = len(set(known.values()))
    truth = [known[name] for name in picks]
    first = {row["conversation_id"]: row["text"] for row in reversed(rows)}
    alone = [first[name] for name in picks]
    vectors = MODELS.encoder("builtin:minilm").encode(alone)[0]
    fit = topics.fit(alone, vectors, kinds, 0.0, 30, None)
    others = {"first text": topics.apply(fit, alone, vectors).topic, "k-means on TF-IDF": _tf_idf(rows, picks, kinds)}
    scores = {name: float(adjusted_rand_score(truth, ids)) for name, ids in others.items()}
    best = max(scores, key=scores.__getitem__)
    rest = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    found = []
    for model, said in (("builtin:minilm", "vectors"), (None, "words")):
        ids, names_of = _segments(rows, picks, kinds, model)
        ours = float(adjusted_rand_score(truth, ids))
        note = f"{len(picks)} customers, {len(rows):,} texts; {rest}; " + "; ".join(names_of)
        found.append(Line("segment", f"multidogo, by {said}", "ARI to business", ours, scores[best], best, note=note))
        print(found[-1], flush=True)
    return found


def _tf_idf(rows: list[dict[str, str]], keys: list[str], k: int) -> Any:
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    said: dict[str, list[str]] = {key: [] for key in keys}
    for row in rows:
        said[row["conversation_id"]].append(row["text"])
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=2)
    matrix = vectorizer.fit_transform([" ".join(texts) for texts in said.values()])
    return KMeans(k, n_init=8, random_state=0).fit_predict(matrix)


def _segments(rows: list[dict[str, str]], keys: list[str], k: int, model: str | None) -> tuple[list[int], list[str]]:
    """(segment of each customer, names of the segments)."""
    table = pa.table({"who": [r["conversation_id"] for r in rows], "text": [r["text"] for r in rows]})
    settings = SegmentSettings(task="segment", input="rows", entity="who", text="text", model=model, k=k)
    task = Segment(settings, StepInput("rows", table.schema), date(2026, 1, 1))
    task.open(MODELS)
    combined = task.combine(table).rows.sort_by("who")
    starts = np.append(np.searchsorted(np.array(combined["who"].to_pylist(), object), keys), len(combined))
    found = task.features(Groups(combined, starts.astype(np.int64), pa.table({"who": keys})))
    task.fitted = task.fit(found.columns, None)
    answers = task.answer(found.columns).columns
    return answers["segment_id"].to_pylist(), sorted(set(answers["segment"].to_pylist()))
