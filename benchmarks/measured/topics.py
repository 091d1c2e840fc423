"""topics: how well the topics that are found agree with what people said the texts are about, and how they last.

NMI and ARI against the labels, which the task never sees; with `k` as the data choose, and with as many topics as there
are labels. `stability`: share of the texts of two nights with the same topic id on both, when one text in twenty went
and one in twenty came; beside it k-means fitted anew each night, its clusters paired in hindsight as well as can be.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import bench
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bizllm.models.load import ModelLoader
from bizllm.tasks.base import Groups, StepInput
from bizllm.tasks.topics import Topics, TopicsSettings
from measured import Line

MODELS = ModelLoader()
REMARKS = """The number of topics by nine tenths of the best silhouette, the share of outliers, and vectors as they are
instead of principal components or a mixture with terms were chosen on 4,000 of Banking77's train texts and on
multidogo's dev part; the figures are of the test parts. The Chinese reviews were not looked at before. NMI gives some
agreement to chance where there are many topics: that is what `random` tells."""
Ids = npt.NDArray[np.int64]


def bars(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Topics agree with Banking77's intents better than k-means on TF-IDF, and last."""
    found = {(line.data, line.metric): line for line in lines}
    nmi, lasting = found["banking77, k as labels", "NMI"], found["banking77", "stability"]
    return [
        bench.bar("topics, banking77: NMI more than the baseline's", nmi.ours, nmi.baseline),
        bench.bar("topics, banking77: stability", lasting.ours, 0.95),
    ]


def night(texts: list[str], previous: dict[str, Any] | None = None, **said: Any) -> tuple[Ids, dict[str, Any]]:
    """(topic id of each text, the fit)."""
    keys = pa.array(range(len(texts)))
    rows = pa.table({"id": keys, "text": texts})
    settings = TopicsSettings(task="topics", input="rows", text="text", **said)
    task = Topics(settings, StepInput("rows", rows.schema, ("id",)), date(2026, 1, 1))
    task.open(MODELS)
    found = task.features(Groups(rows, np.arange(len(texts) + 1), rows.select(["id"])))
    task.fitted = task.fit(found.columns, previous)
    ids = np.zeros(len(texts), np.int64)
    ids[found.subject] = task.answer(found.columns).columns["topic_id"].to_numpy()
    return ids, task.fitted


def lines(data: Path) -> list[Line]:
    """English intents by vectors, Chinese reviews by terms."""
    banking = pq.read_table(data / "banking77/test.parquet")
    found = _measured("banking77", banking["text"].to_pylist(), banking["intent"].to_pylist(), "builtin:minilm")
    dialogues = pq.read_table(data / "multidogo/test.parquet")
    single = pc.and_(pc.is_valid(dialogues["intents"]), pc.invert(pc.match_substring(dialogues["intents"], "<div>")))
    dialogues = dialogues.filter(single)
    for domain in ("finance", "software"):
        part = dialogues.filter(pc.equal(dialogues["domain"], domain)).to_pylist()
        part = [row for row in part if row["text"] and row["text"].strip()]
        texts, labels = [row["text"] for row in part], [row["intents"] for row in part]
        found += _measured(f"multidogo {domain}", texts, labels, "builtin:minilm")
    reviews = pq.read_table(data / "online_shopping_zh/all.parquet").to_pylist()
    reviews = [row for row in reviews if row["text"] and row["text"].strip()]
    picks = np.random.default_rng(0).choice(len(reviews), 4_000, replace=False)
    texts, labels = ([reviews[i][column] for i in picks] for column in ("text", "category"))
    return [*found, *_measured("online_shopping_zh", texts, labels, None)]


def _measured(data: str, texts: list[str], labels: list[str], model: str | None) -> list[Line]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    kinds = len(set(labels))
    began = time.perf_counter()
    chosen, fit = night(texts, model=model)
    seconds = time.perf_counter() - began
    as_labels, _ = night(texts, model=model, k=kinds, outliers=0.0)
    others = {k: _baselines(texts, k) for k in {kinds, len(fit["topics"])}}
    found = []
    for where, ids, k in ((data, chosen, len(fit["topics"])), (f"{data}, k as labels", as_labels, kinds)):
        for metric, score in (("NMI", normalized_mutual_info_score), ("ARI", adjusted_rand_score), ("purity", purity)):
            scores = {name: float(score(labels, other)) for name, other in others[k].items()}
            best = max(scores, key=scores.__getitem__)
            rest = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if name != best)
            note = f"{k} topics of {len(texts):,} texts, {kinds} labels; {rest}"
            note += f"; {np.mean(ids == 0):.1%} other; {seconds:.0f} s" if ids is chosen else ""
            found.append(Line("topics", where, metric, float(score(labels, ids)), scores[best], best, note=note))
            print(found[-1], flush=True)
    return [*found, _stability(data, texts, model)]


def _baselines(texts: list[str], k: int) -> dict[str, Ids]:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import LatentDirichletAllocation
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    from bizllm.methods.topic_terms import terms

    tf_idf = TfidfVectorizer(analyzer=terms, max_features=5_000, min_df=2).fit_transform(texts)
    counts = CountVectorizer(analyzer=terms, max_features=5_000, min_df=2).fit_transform(texts)
    lda = LatentDirichletAllocation(k, random_state=0, max_iter=10).fit_transform(counts)
    return {
        "k-means on TF-IDF": KMeans(k, n_init=2, random_state=0).fit_predict(tf_idf),
        "LDA": lda.argmax(axis=1),
        "random": np.random.default_rng(0).integers(0, k, len(texts)),
    }


def purity(labels: Sequence[str], ids: Ids) -> float:
    """Share of the texts whose label is the most frequent one of their topic; `other` is a topic here."""
    of = np.array(labels)
    return sum(Counter(of[ids == topic]).most_common(1)[0][1] for topic in np.unique(ids)) / len(of)


def _stability(data: str, texts: list[str], model: str | None) -> Line:
    from scipy.optimize import linear_sum_assignment

    order = np.random.default_rng(0).permutation(len(texts))
    twentieth = len(order) // 20
    both, gone, new = order[: -2 * twentieth], order[-2 * twentieth : -twentieth], order[-twentieth:]
    one, two = ([texts[i] for i in np.concatenate([both, more])] for more in (gone, new))
    first, fit = night(one, model=model)
    second, _ = night(two, fit, model=model)
    anew, _ = night(two, model=model)
    first, second, anew = (ids[: len(both)] for ids in (first, second, anew))
    shared = np.zeros((first.max() + 1, anew.max() + 1))
    np.add.at(shared, (first, anew), 1)
    paired = shared[linear_sum_assignment(-shared)].sum() / len(both)
    ours, moved = float((first == second).mean()), f"{len(fit['topics'])} topics on the first night"
    line = Line("topics", data, "stability", ours, float(paired), "fitted anew", note=moved)
    print(line, flush=True)
    return line
