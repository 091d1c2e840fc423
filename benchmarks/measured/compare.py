"""compare: verdicts where the truth is planted, and intervals of shares of voice.

online_shopping_zh: its nine categories play the brands. Of each 8 to 150 reviews are drawn, so that three have 80 %
that people called positive, three 55 % and three 30 %; strength, none and weakness are then the truth. The words alone
decide the verdict, by the built-in sentiment. `any gap` calls every brand a strength or weakness that is 0.1 from the
others. stocknet: the shares of voice of 88 tickers in one tweet of fifty, and how often the interval holds the share in
all; `Wald` is the textbook's.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.methods import small_samples
from bizllm.tasks.base import Groups, StepInput
from bizllm.tasks.compare import Compare, CompareSettings
from measured import Line

DRAWS, SEED = 20, 0
PLANTED = {"strength": 0.8, None: 0.55, "weakness": 0.3}
REMARKS = """Nothing was chosen on these figures. The built-in sentiment is right in about 88 of 100 of these reviews,
which makes every planted difference look smaller than it is."""


def lines(data: Path) -> list[Line]:
    """Verdicts on planted truth, then intervals."""
    return [*_verdicts(data), _coverage(data)]


def compared(rows: pa.Table) -> list[dict[str, Any]]:
    """What `compare` tells of one market."""
    settings = CompareSettings(task="compare", input="r", per=["market"], brand="brand", text="text")
    task = Compare(settings, StepInput("r", rows.schema), date(2026, 1, 1))
    combined = task.combine(rows).rows
    groups = Groups(combined, np.array([0, len(combined)]), pa.table({"market": ["all"]}))
    found: list[dict[str, Any]] = task.answer(groups).columns.to_pylist()
    return [row for row in found if row["aspect"] == "overall"]


def _verdicts(data: Path) -> list[Line]:
    rows = [row for row in pq.read_table(data / "online_shopping_zh/all.parquet").to_pylist() if row["text"]]
    brands = sorted({row["category"] for row in rows})
    texts = {(b, p): [r["text"] for r in rows if (r["category"], r["label"]) == (b, p)] for b in brands for p in (0, 1)}
    rng = np.random.default_rng(SEED)
    told: list[tuple[str | None, str | None, str | None]] = []  # planted, ours, any gap
    small: list[tuple[str | None, str | None]] = []  # of brands with up to 20 reviews without a planted difference
    for _ in range(DRAWS):
        truth = dict(zip(rng.permutation(brands).tolist(), [*PLANTED] * 3, strict=True))
        drawn = []
        sizes = {brand: int(np.exp(rng.uniform(np.log(8), np.log(150)))) for brand in brands}
        for brand, planted in truth.items():
            positive = round(PLANTED[planted] * sizes[brand])
            for label, count in ((1, positive), (0, sizes[brand] - positive)):
                picks = rng.choice(len(texts[brand, label]), count, replace=False)
                drawn += [{"market": "all", "brand": brand, "text": texts[brand, label][i]} for i in picks]
        for row in compared(pa.Table.from_pylist(drawn)):
            gap = row["gap"]
            plain = "strength" if gap > 0.1 else "weakness" if gap < -0.1 else None
            told.append((truth[row["brand"]], row["verdict"], plain))
            if sizes[row["brand"]] <= 30 and truth[row["brand"]] is None:
                small.append((row["verdict"], plain))
    where = f"online_shopping_zh, 9 categories, {DRAWS} draws"
    found = []
    for metric, of in (("precision of verdicts", _precision), ("recall of verdicts", _recall)):
        ours, plain = (of([(planted, (a, b)[k]) for planted, a, b in told]) for k in (0, 1))
        found.append(Line("compare", where, metric, ours, plain, "any gap"))
    ours, plain = (float(np.mean([pair[k] is not None for pair in small])) for k in (0, 1))
    note = f"{len(small)} brands of 8 to 30 reviews, nothing planted"
    found.append(
        Line("compare", where, "verdicts on small brands", ours, plain, "any gap", note=note, less_is_better=True)
    )
    return found


def _precision(told: list[tuple[str | None, str | None]]) -> float:
    given = [planted == verdict for planted, verdict in told if verdict]
    return float(np.mean(given)) if given else 0.0


def _recall(told: list[tuple[str | None, str | None]]) -> float:
    return float(np.mean([planted == verdict for planted, verdict in told if planted]))


def _coverage(data: Path) -> Line:
    symbols = np.array(pq.read_table(data / "stocknet/tweets.parquet", columns=["symbol"])["symbol"].to_pylist())
    names, whole = np.unique(symbols, return_counts=True)
    rng = np.random.default_rng(SEED)
    wilson, wald = [], []
    for _ in range(DRAWS):
        drawn = symbols[rng.random(len(symbols)) < 0.02]
        for name, count in zip(names, whole, strict=True):
            hits, n = int((drawn == name).sum()), len(drawn)
            low, high = small_samples.share_interval(hits, n, 0.95)
            wilson.append(low <= count / len(symbols) <= high)
            half = 1.96 * (hits / n * (1 - hits / n) / n) ** 0.5
            wald.append(abs(hits / n - count / len(symbols)) <= half)
    note = f"{len(names)} tickers, a fiftieth of the tweets, {DRAWS} draws; 0.95 is right"
    return Line(
        "compare",
        "stocknet, share of voice",
        "coverage",
        float(np.mean(wilson)),
        float(np.mean(wald)),
        "Wald",
        note=note,
    )
