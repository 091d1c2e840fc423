"""trend: alerts and changes of level planted in real series; what tweets foretell of share prices.

online_retail: order lines a day of the forty most ordered articles. A fifth of the days, drawn at random, one at a
time, is tripled, and the recall is the share that raises an alert; the alarm rate is that of days as they are, of which
some are unusual. A level is planted by multiplying all days from one on by 1.7 or 0.6, each in its turn; it counts as
found where a change is told within a week of it. `3 sigma` alerts at three standard deviations from the mean of the 28
days before; its change of level is a two-sample t between 28 days and the 28 before, at two thresholds: where it tells
as many changes of the series as they are as we do, and where it tells as few of noise.

stocknet: the built-in sentiment of tweets, by share and day. Direction: whether a share rises on the next trading day
(moves of -0.5 to 0.55 % left out, as published), by a logistic regression on the z of score and volume and the last
return, learned of the days before August 2015, scored from October 2015 on.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bizllm.methods.polarity import model
from bizllm.tasks._trend import Measure, judged
from bizllm.tasks.base import Groups, StepInput
from bizllm.tasks.trend import Trend, TrendSettings
from measured import Line

Array = npt.NDArray[np.float64]

ARTICLES, WINDOW, ALERT = 40, 28, 3.5
SEED, NOISE_YEARS = 0, 100
TRAIN_END, TEST_START, LAST = date(2015, 8, 1), date(2015, 10, 1), date(2015, 12, 31)
REMARKS = """The price of a change (3 s² log n) was set on simulated noise. A first version held days against medians,
on the roots of counts: on these articles it found 0.22 of the tripled days, 3 sigma 0.57. What alerts are made of now
was then chosen on the articles ranked 41 to 80, where 3 sigma was still as good as we are. So was the shortest level of
14 days, after one of 7 had found 0.43 of the planted levels here, and the t test 0.56. stocknet's published figures are
those of models that were trained on the tweets."""


def lines(data: Path) -> list[Line]:
    """Planted shifts in sales, then tweets and prices."""
    return [*_planted(data), *_stocknet(data)]


# -- planted shifts --------------------------------------------------------------------------------------------------


def _planted(data: Path) -> list[Line]:
    series = _articles(data)
    rng = np.random.default_rng(SEED)
    plain = {name: np.concatenate([of(values)[2 * WINDOW :] for values in series]) for name, of in _Z.items()}
    tripled: dict[str, list[float]] = {name: [] for name in _Z}
    for values in series:
        days = rng.choice(np.arange(2 * WINDOW, len(values)), len(values) // 5, replace=False)
        for day in days[values[days] > 0]:
            changed = values[: day + 1].copy()
            changed[day] *= 3
            for name, of in _Z.items():
                tripled[name].append(float(of(changed)[day]))
    limit = {"ours": ALERT, "3 sigma": 3.0}
    share = {name: float(np.mean(np.array(tripled[name]) >= limit[name])) for name in _Z}
    alarms = {name: float(np.mean(np.abs(plain[name]) >= limit[name])) for name in _Z}
    alike = float(np.quantile(np.abs(plain["ours"]), 1 - alarms["3 sigma"]))
    equal = float(np.mean(np.array(tripled["ours"]) >= alike))

    noise = [rng.poisson(size, 365).astype(np.float64) for size in rng.uniform(1, 15, NOISE_YEARS)]
    usual, made_up = (sum(len(_changes(values)) for values in part) for part in (series, noise))
    alike_told = _t_threshold(series, usual)
    limits = {"as many told": alike_told, "as few of noise": _t_threshold(noise, made_up)}
    t_made_up = sum(len(_t_changes(values, alike_told)) for values in noise) / NOISE_YEARS
    found: dict[str, list[bool]] = {"ours": [], **{name: [] for name in limits}}
    for values in series:
        for factor in (1.7, 0.6):
            start = int(rng.integers(2 * WINDOW, len(values) - WINDOW))
            changed = values.copy()
            changed[start:] = np.round(changed[start:] * factor)
            told = {"ours": _changes(changed), **{name: _t_changes(changed, t) for name, t in limits.items()}}
            for name, places in told.items():
                found[name].append(bool((np.abs(places - start) <= 7).any()))
    where = f"online_retail, {ARTICLES} articles"
    days_told = f"{len(tripled['ours']):,} tripled days; at z {alike:.1f}, which has 3 sigma's alarm rate, {equal:.3f}"
    years = sum(map(len, series)) / 365
    levels = f"{len(found['ours'])} levels, x1.7 or x0.6; {usual / years:.1f} changes a year are told of what is there"
    recall = {name: float(np.mean(hits)) for name, hits in found.items()}
    return [
        Line("trend", where, "recall of tripled days", share["ours"], share["3 sigma"], "3 sigma", note=days_told),
        Line("trend", where, "alerts on other days", alarms["ours"], alarms["3 sigma"], "3 sigma", less_is_better=True),
        *(
            Line(
                "trend",
                where,
                "recall of planted levels",
                recall["ours"],
                recall[name],
                f"t of 28 days, {name}",
                note=levels,
            )
            for name in limits
        ),
        Line(
            "trend",
            f"{NOISE_YEARS} years of Poisson noise",
            "changes told a year",
            made_up / NOISE_YEARS,
            t_made_up,
            "t of 28 days, as many told",
            note="no change is there",
            less_is_better=True,
        ),
    ]


def _t_threshold(series: list[Array], changes: int) -> float:
    """The highest one at which the t test tells at least so many changes."""
    return max(t for t in np.arange(1.0, 9.0, 0.1) if sum(len(_t_changes(values, t)) for values in series) >= changes)


def _articles(data: Path) -> list[Array]:
    table = pq.read_table(
        data / "online_retail/transactions.parquet", columns=["stock_code", "quantity", "invoice_date"]
    )
    table = table.filter(pc.greater(table["quantity"], 0))
    days = table["invoice_date"].cast(pa.date32()).cast(pa.int32()).to_numpy()
    code = np.array(table["stock_code"].to_pylist(), object)
    names, sizes = np.unique(code.astype(str), return_counts=True)
    first, last = int(days.min()), int(days.max())
    most = names[np.argsort(-sizes, kind="stable")[:ARTICLES]]
    return [np.bincount(days[code == name] - first, minlength=last - first + 1).astype(np.float64) for name in most]


def _judged(values: Array) -> list[dict[str, Any]]:
    counts = values.astype(np.int64)
    return judged(Measure("volume", 0, values, counts, np.sqrt(np.maximum(values, 1)), low=0.0), "D", ALERT, 1)


def _z(values: Array) -> Array:
    return np.array([row["z"] for row in _judged(values)], np.float64)


def _sigma(values: Array) -> Array:
    past = np.lib.stride_tricks.sliding_window_view(values, WINDOW)[:-1]
    z = (values[WINDOW:] - past.mean(axis=1)) / np.maximum(past.std(axis=1), 1e-9)
    return np.concatenate([np.full(WINDOW, np.nan), z])


_Z = {"ours": _z, "3 sigma": _sigma}


def _changes(values: Array) -> npt.NDArray[np.int64]:
    return np.array([i for i, row in enumerate(_judged(values)) if row["change"] is not None], np.int64)


def _t_changes(values: Array, least: float) -> npt.NDArray[np.int64]:
    views = np.lib.stride_tricks.sliding_window_view(values, WINDOW)
    before, after = views[:-WINDOW], views[WINDOW:]
    t = np.abs(after.mean(axis=1) - before.mean(axis=1)) / np.sqrt(
        (before.var(axis=1) + after.var(axis=1)) / WINDOW + 1e-9
    )
    found: list[int] = []
    for i in np.argsort(-t):
        if t[i] <= least:
            break
        if all(abs(i + WINDOW - other) >= WINDOW for other in found):
            found.append(int(i) + WINDOW)
    return np.array(found, np.int64)


# -- tweets ----------------------------------------------------------------------------------------------------------


def _stocknet(data: Path) -> list[Line]:
    tweets = pq.read_table(data / "stocknet/tweets.parquet", columns=["symbol", "date", "text"])
    scores = model.probabilities(tweets["text"].to_pylist()) @ model.SIGNS
    rows = (
        tweets.drop_columns(["text"])
        .append_column("score", pa.array(scores))
        .rename_columns(["symbol", "day", "score"])
    )
    returns = _returns(data)
    table = trended(rows, returns)
    best = {row["symbol"]: row for row in table if row["measure"] == "score" and row["lead_p"] is not None}
    early = [row for row in best.values() if row["lead_p"] < 0.05 and row["lead"] > 0]
    any_lag = [row for row in best.values() if row["lead_p"] < 0.05]
    note = f"{len(any_lag)} of {len(best)} at any lag, {len(early)} of them ahead of the price"
    share = len(any_lag) / max(1, len(best))
    right, often, days = _direction(table, returns)
    published = "from memory: random 0.509, ARIMA 0.514, HAN 0.576, StockNet 0.582"
    return [
        Line("trend", "stocknet, 88 shares", "share with lead_p < 0.05", share, 0.05, "chance", note=note),
        Line("trend", "stocknet, next day", "direction accuracy", right, often, "most frequent", published,
             f"{days:,} moves; z of score and volume, last return"),
    ]  # fmt: skip


def _returns(data: Path) -> pa.Table:
    prices = pq.read_table(data / "stocknet/prices_daily.parquet", columns=["symbol", "date", "adj_close"])
    prices = prices.sort_by([("symbol", "ascending"), ("date", "ascending")])
    symbol, close = np.array(prices["symbol"].to_pylist(), object), prices["adj_close"].to_numpy()
    change = np.r_[np.nan, close[1:] / close[:-1] - 1]
    change[np.r_[True, symbol[1:] != symbol[:-1]]] = np.nan
    table = pa.table({"symbol": prices["symbol"], "day": prices["date"], "change": pa.array(change)})
    return table.filter(pa.array(np.isfinite(change)))


def trended(rows: pa.Table, returns: pa.Table) -> list[dict[str, Any]]:
    """What `trend` tells of each share and day."""
    target = {"input": "prices", "time": "day", "value": "change", "series": "symbol"}
    settings = TrendSettings(
        task="trend", input="tweets", per=["symbol"], time="day", value="score", target=target, horizon=0, periods=1000
    )
    others = {"target": StepInput("prices", returns.schema)}
    task = Trend(settings, StepInput("tweets", rows.schema), LAST, others)
    task.learned = task.learn({"target": returns})
    combined = task.combine(rows).rows.sort_by("symbol")
    names = np.array(combined["symbol"].to_pylist())
    keys, starts = np.unique(names, return_index=True)
    groups = Groups(combined, np.r_[starts, len(names)].astype(np.int64), pa.table({"symbol": keys.tolist()}))
    outcome = task.answer(groups)
    symbols = pa.array(keys.tolist()).take(pa.array(outcome.subject))
    found: list[dict[str, Any]] = outcome.columns.append_column("symbol", symbols).to_pylist()
    return found


def _direction(table: list[dict[str, Any]], returns: pa.Table) -> tuple[float, float, int]:
    """(accuracy on the test part, that of the more frequent direction, moves)."""
    from sklearn.linear_model import LogisticRegression

    z: dict[tuple[str, date], dict[str, float]] = {}
    for row in table:
        z.setdefault((row["symbol"], row["day"]), {})[row["measure"]] = row["z"] or 0.0
    parts: dict[str, list[tuple[list[float], bool]]] = {"train": [], "test": []}
    before: dict[str, tuple[date, float]] = {}
    for symbol, day, change in zip(*(returns[c].to_pylist() for c in ("symbol", "day", "change")), strict=True):
        last = before.get(symbol)
        before[symbol] = (day, change)
        if last is None or not (change <= -0.005 or change > 0.0055) or (symbol, last[0]) not in z:
            continue
        known = z[symbol, last[0]]
        features = [float(np.clip(known.get(m, 0.0), -5, 5)) for m in ("score", "volume")] + [100 * last[1]]
        part = "train" if day < TRAIN_END else "test" if TEST_START <= day <= LAST else ""
        if part:
            parts[part].append((features, change > 0))
    matrix, up = ([np.array(column) for column in zip(*parts[p], strict=True)] for p in ("train", "test"))
    fitted = LogisticRegression().fit(*matrix)
    often = matrix[1].mean() > 0.5
    return float((fitted.predict(up[0]) == up[1]).mean()), float((up[1] == often).mean()), len(up[1])
