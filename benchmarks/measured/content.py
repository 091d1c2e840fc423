"""content: articles for readers whose interests are known.

medquad: a reader has three diseases, and has read four answers about each; right is another answer about one of them.
online_shopping_zh: two of nine kinds of goods, six reviews of each; right is another review of these.
csl_title_zh: who has read a paper's title is shown abstracts; right is that paper's own. There are 2,000 articles
(1,000 of csl) to choose among, the right ones among them. `random`, `newest` and `popular` know nothing of texts (dates
are drawn, popular is what the other readers read of what may be shown); `Rocchio` is the mean of the TF-IDF vectors of
what was read, without recency and diversity.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import bench
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.methods.text_features import TextFeatures
from bizllm.methods.together import best
from bizllm.tasks.base import Groups, StepInput
from bizllm.tasks.content import Content, ContentSettings
from measured import Line

NIGHT, K, READERS = date(2026, 6, 30), 10, 200
REMARKS = """Latent dimensions, the share of the mean likeness and of diversity were chosen on readers drawn from other
diseases, other reviews and csl's dev part; the test readers were looked at once. Days of reading and dates of articles
are drawn: how much recency is worth is not measured here, nor is an encoder (`model`)."""


class Case(NamedTuple):
    """articles: id, text, published. clicks: reader, id, day. right: of each reader the ids."""

    articles: pa.Table
    clicks: pa.Table
    right: list[set[int]]


def lines(data: Path, part: str = "test", **settings: Any) -> list[Line]:
    """Precision of ten articles by topic, in English and Chinese, and the paper's own abstract among ten."""
    found = []
    for name, case in (
        ("medquad, answers about a reader's diseases", diseases(data, part)),
        ("online_shopping_zh, reviews of a reader's goods", goods(data, part)),
        ("csl_title_zh, the abstract of a title", papers(data, part)),
    ):
        single = name.startswith("csl")
        metric = "HR@10" if single else "precision@10"
        ours = shown(case, **settings)
        alone = {"Rocchio": rocchio(case), **ignorant(case)}
        scores = {label: _score(got, case.right, single) for label, got in alone.items()}
        note = "; ".join(f"{label} {score:.3f}" for label, score in scores.items())
        against = max(scores, key=scores.__getitem__)
        found.append(
            Line("content", name, metric, _score(ours, case.right, single), scores[against], against, note=note)
        )
        print(found[-1], flush=True)
    return found


def bars(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Above the best baseline, Rocchio."""
    return [
        bench.bar(f"content, {line.data}: {line.metric} above the best baseline", line.ours, line.baseline)
        for line in lines
    ]


def shown(case: Case, **settings: Any) -> list[list[int]]:
    """Of each reader the ids of ten articles, the best first."""
    articles = {"input": "articles", "item": "id", "text": "text", "published": "published"}
    made = ContentSettings(
        task="content", input="clicks", entity="reader", item="id", time="day", articles=articles, **settings
    )
    others = {
        "articles": StepInput("articles", case.articles.schema),
        "history": StepInput("clicks", case.clicks.schema),
    }
    task = Content(made, others["history"], NIGHT, others)
    task.learned = task.learn({"articles": case.articles, "history": case.clicks})
    task.open(None)  # type: ignore[arg-type]  # it loads no model
    combined = task.combine(case.clicks).rows.sort_by("reader")
    keys, starts = np.unique(combined["reader"].to_numpy(), return_index=True)
    outcome = task.answer(Groups(combined, np.append(starts, len(combined)), pa.table({"reader": keys})))
    found: list[list[int]] = [[] for _ in case.right]
    for reader, item in zip(outcome.subject.tolist(), outcome.columns["item"].to_pylist(), strict=True):
        found[reader].append(item)
    return found


def rocchio(case: Case) -> list[list[int]]:
    """The nearest articles to the mean TF-IDF vector of what was read."""
    texts = case.articles["text"].to_pylist()
    vectors = TextFeatures(texts).matrix(texts)
    scores = np.stack([np.asarray(vectors @ vectors[sorted(of)].sum(axis=0)[:, None]).ravel() for of in _read(case)])
    return _best(case, scores)


def ignorant(case: Case) -> dict[str, list[list[int]]]:
    """random, newest and popular."""
    rng, n = np.random.default_rng(0), len(case.articles)
    often = np.bincount(case.clicks["id"].to_numpy(), minlength=n) + rng.random(n) / 2
    newest = case.articles["published"].to_numpy().astype(np.int64) + rng.random(n)
    every = {"random": rng.random((len(case.right), n)), "newest": newest[None], "popular": often[None]}
    return {name: _best(case, np.broadcast_to(scores, (len(case.right), n))) for name, scores in every.items()}


def diseases(data: Path, part: str) -> Case:
    """medquad, by focus; those of dev and test differ."""
    rows = [row for row in pq.read_table(data / "medquad/qa.parquet").to_pylist() if row["answer"] and row["focus"]]
    focus = np.array([row["focus"] for row in rows])
    return _by_topic([f"{row['answer']}" for row in rows], focus, part, 8, interests=3, each=4)


def goods(data: Path, part: str) -> Case:
    """online_shopping_zh, by category."""
    rows = [row for row in pq.read_table(data / "online_shopping_zh/all.parquet").to_pylist() if row["text"]]
    half = rows[::2] if part == "dev" else rows[1::2]
    return _by_topic([row["text"] for row in half], np.array([row["category"] for row in half]), "", 8, 2, 6)


def papers(data: Path, part: str) -> Case:
    """csl: titles came out long ago, abstracts today."""
    rows = pq.read_table(data / f"csl_title_zh/{part}.parquet").to_pylist()
    n = len(rows)
    texts = [*(row["title"] for row in rows), *(row["abstract"] for row in rows)]
    published = [NIGHT - timedelta(days=400)] * n + [NIGHT] * n
    readers = np.arange(min(n, 2 * READERS))
    clicks = pa.table({"reader": readers, "id": readers, "day": [NIGHT] * len(readers)})
    articles = pa.table({"id": np.arange(2 * n), "text": texts, "published": published})
    return Case(articles, clicks, [{n + int(i)} for i in readers])


def _by_topic(texts: list[str], topic: Any, part: str, least: int, interests: int, each: int) -> Case:
    """2,000 articles of topics with enough of them; readers of some topics."""
    rng = np.random.default_rng({"dev": 1}.get(part, 2))
    names, counts = np.unique(topic, return_counts=True)
    names = names[counts >= least]
    if part:
        names = names[0::2] if part == "dev" else names[1::2]
    pool = rng.permutation(np.flatnonzero(np.isin(topic, names)))[:2000]
    topic, texts = topic[pool], [texts[i] for i in pool]
    names, counts = np.unique(topic, return_counts=True)
    names = names[counts >= least]
    readers, ids, days, right = [], [], [], []
    for reader in range(READERS):
        wanted: set[int] = set()
        for name in rng.choice(names, interests, replace=False):
            there = rng.permutation(np.flatnonzero(topic == name))
            readers += [reader] * each
            ids += there[:each].tolist()
            days += [NIGHT - timedelta(days=int(day)) for day in rng.integers(0, 20, each)]
            wanted |= set(there[each:].tolist())
        right.append(wanted)
    published = [NIGHT - timedelta(days=int(day)) for day in rng.integers(0, 25, len(texts))]
    clicks = pa.table({"reader": readers, "id": ids, "day": days})
    return Case(pa.table({"id": np.arange(len(texts)), "text": texts, "published": published}), clicks, right)


def _read(case: Case) -> list[set[int]]:
    read: list[set[int]] = [set() for _ in case.right]
    for reader, item in zip(case.clicks["reader"].to_pylist(), case.clicks["id"].to_pylist(), strict=True):
        read[reader].add(item)
    return read


def _best(case: Case, scores: Any) -> list[list[int]]:
    """Of what is new to the reader, and out lately."""
    scores = np.array(scores)
    old = case.articles["published"].to_numpy() <= np.datetime64(NIGHT - timedelta(days=30))
    scores[:, old] = -np.inf
    for reader, of in enumerate(_read(case)):
        scores[reader, sorted(of)] = -np.inf
    return [list(map(int, row)) for row in best(scores, K)]


def _score(found: list[list[int]], right: list[set[int]], single: bool) -> float:
    """Share of readers with a right one, or share of right ones."""
    hits = [len(right[i] & set(of[:K])) for i, of in enumerate(found)]
    return (
        float(np.mean(hits))
        if single
        else float(np.mean([h / min(K, len(r)) for h, r in zip(hits, right, strict=True)]))
    )
