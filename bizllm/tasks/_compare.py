"""What `compare` does with its rows: mentions of brands and aspects, their sums, and what the sums say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.methods import documents, small_samples
from bizllm.methods.polarity import aspects as aspect_words
from bizllm.methods.polarity import cues, model
from bizllm.methods.polarity.cues import Clause
from bizllm.methods.polarity.lexicon import Phrases, tokens
from bizllm.methods.series import Calendar
from bizllm.methods.small_samples import Sums
from bizllm.tasks._texts import Faults
from bizllm.tasks._trend import EXHIBIT, column_faults
from bizllm.tasks.base import Reject

if TYPE_CHECKING:
    from bizllm.tasks.compare import CompareSettings

OVERALL = "overall"
QUOTE = pa.struct([("document", pa.string()), ("quote", pa.string()), ("score", pa.float64())])
_USUAL, _PRIOR = 0.25, 5.0  # variance of scores before any is known, and how many scores that is worth
_CLEAR = 0.25  # a score beyond which a mention counts as praise or blame
_SHOWN, _QUOTE_CHARS = 8, 300
_SUMS = ("__n", "__positive", "__negative", "__sum", "__squares")
Said = tuple[str, float, str]  # aspect, score, quote


def aspect_faults(column: str, schema: pa.Schema) -> Faults:
    """The fault of a column that is not the aspects of sentiment."""
    if faults := column_faults("aspects", column, schema):
        return faults
    kind = schema.field(column).type
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        names = {field.name for field in kind.value_type}
        if {"aspect", "score", "quote"} <= names:
            return []
    expected = f"expected the column `aspects` of a sentiment step, it is {kind}"
    return [("aspects", column, expected, "")]


def mentions(
    rows: pa.Table, s: CompareSettings, names: Phrases[str], terms: Phrases[str], run_date: date
) -> tuple[pa.Table, list[Reject]]:
    """(a row for each text, brand and aspect, and one for its quote; rows that can't be used).

    What is said twice of an aspect in one text is one mention, of the mean score.
    """
    windows, rejects = _windows(rows, s, run_date)
    texts: list[list[str] | None] = [None] * len(rows)
    if s.text is not None:
        texts, unusable = documents.read(rows[s.text], s.max_input_chars)
        rejects |= {i: Reject(i, code, message) for i, code, message in unusable if i not in rejects}
    brands = _given(rows, s.brand, len(rows))
    scores = pc.fill_null(rows[s.score].cast(pa.float64(), safe=False), float("nan")).to_pylist() if s.score else []
    judged = rows[s.aspects].to_pylist() if s.aspects else [None] * len(rows)
    keys = _given(rows, s.document, len(rows))
    at: list[int] = []
    made: list[dict[str, Any]] = []
    for i in range(len(rows)):
        if i in rejects or windows[i] is None:
            continue
        brand = _canonical(brands[i], names)
        if s.brand is not None and not brand:
            rejects[i] = Reject(i, "no_key", "the brand is null or blank")
            continue
        found: list[tuple[str, list[Said]]]
        if s.text is not None:
            (text,) = texts[i] or [""]
            found = _read(text, brand, names, terms)
        elif not np.isfinite(scores[i]):
            rejects[i] = Reject(i, "no_value", "the score is null or no finite number")
            continue
        else:
            said = [(OVERALL, float(np.clip(scores[i], -1, 1)), "")]
            found = [(brand, said + [(a["aspect"], a["score"], a["quote"]) for a in judged[i] or []])]
        for name, said in found:
            for row in _counted(said):
                at.append(i)
                made.append({"brand": name, "__window": windows[i], "__document": keys[i], **row})
    schema = pa.schema(
        [("brand", pa.string()), ("__window", pa.int8()), ("__document", pa.string()), ("aspect", pa.string())]
        + [(name, pa.float64()) for name in _SUMS]
        + [("__quote", pa.string()), ("__score", pa.float64())]
    )
    table = pa.Table.from_pylist(made, schema=schema)
    for name in reversed(s.per):
        table = table.add_column(0, name, rows[name].take(pa.array(at, pa.int64())))
    return table, [rejects[i] for i in sorted(rejects)]


def summed(rows: pa.Table, per: Sequence[str], quotes: int) -> pa.Table:
    """The sums of each brand, aspect and window, and its most telling quotes on either side: doing it twice is doing it
    once, in any split of the rows."""
    keys = [*per, "brand", "aspect", "__window"]
    order = [(name, "ascending") for name in [*keys, *_SUMS]]
    counted = rows.filter(pc.greater(rows["__n"], 0)).sort_by(order)
    sums = counted.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    sums = sums.select([*keys, *(f"{name}_sum" for name in _SUMS)]).rename_columns([*keys, *_SUMS])
    for name, kind in (("__document", pa.string()), ("__quote", pa.string()), ("__score", pa.float64())):
        sums = sums.append_column(name, pa.nulls(len(sums), kind))
    kept = [sums]
    quoted = rows.filter(pc.equal(rows["__n"], 0)).select(sums.column_names)
    for way, signed in (
        ("ascending", pc.less(quoted["__score"], 0)),
        ("descending", pc.greater_equal(quoted["__score"], 0)),
    ):
        tied = [(name, "ascending") for name in ("__quote", "__document")]
        ranked = quoted.filter(signed).sort_by([*((name, "ascending") for name in keys), ("__score", way), *tied])
        ranked = ranked.filter(_first(ranked.select([*keys, "__quote"])))  # the same words once
        kept.append(ranked.filter(pa.array(_ranks(ranked.select(keys)) < quotes, pa.bool_())))
    return pa.concat_tables(kept)


def compared(rows: pa.Table, s: CompareSettings) -> list[dict[str, Any]]:
    """A row for each brand and aspect of one market, in their order."""
    found = summed(rows, [], s.quotes).to_pylist()
    cells: dict[tuple[str, str, int], dict[str, Any]] = {}
    quotes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        if row["__n"] > 0:
            cells[row["brand"], row["aspect"], row["__window"]] = row
        elif row["__window"] == 0:
            quotes.setdefault((row["brand"], row["aspect"]), []).append(row)
    if not any(window == 0 for *_, window in cells):
        return []
    pairs = sorted({(brand, aspect) for brand, aspect, _ in cells})
    totals: dict[tuple[str, int], Sums] = {}
    for (_, aspect, window), cell in cells.items():
        totals[aspect, window] = totals.get((aspect, window), Sums()) + _sums(cell)
    spread = sum(of.spread for of in totals.values()) + _PRIOR * _USUAL
    usual = spread / (sum(of.n - 1 for of in totals.values()) + _PRIOR)
    told = [_told(cells, totals, brand, aspect, usual, s) for brand, aspect in pairs]
    # Two questions, each with its own false discoveries: who is liked more, and what for.
    for family in ([r for r in told if r["aspect"] == OVERALL], [r for r in told if r["aspect"] != OVERALL]):
        for name in ("gap_p", "share_change_p", "score_change_p"):
            for row, p in zip(family, small_samples.adjusted([row[name] for row in family]), strict=True):
                row[name] = float(p) if np.isfinite(p) else None
    for row, pair in zip(told, pairs, strict=True):
        if row["gap_p"] is not None and row["gap_p"] < 1 - s.confidence:
            row["verdict"] = "strength" if row["gap"] > 0 else "weakness"
        worst = row["verdict"] == "weakness" or (row["verdict"] is None and (row["score"] or 0.0) < 0)
        row["quotes"] = _quotes(quotes.get(pair, ()), worst, s.quotes)
    return told


def _first(keys: pa.Table) -> pa.Array:
    """(rows,) whether a row's keys are others than those of the row before."""
    codes = documents.group_codes(keys)
    return pa.array(np.r_[True, codes[1:] != codes[:-1]][: len(codes)], pa.bool_())


def _ranks(keys: pa.Table) -> npt.NDArray[np.int64]:
    """(rows,) the place of each row among those of its keys, which stand together."""
    places = np.arange(keys.num_rows)
    return places - np.maximum.accumulate(np.where(_first(keys), places, 0))


def empty(group: int) -> Reject:
    """A market without a mention in the newest window."""
    return Reject(group, "empty", "no usable row in the newest window")


def shown(market: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a night's report may show: the verdicts."""
    return [
        {
            "title": f"{market}: {row['brand']}, {row['aspect']}",
            "source": " … ".join(quote["quote"] for quote in row["quotes"]),
            "result": f"{row['verdict']}: {row['score']:+.2f} of {row['mentions']:,}, {row['gap']:+.2f} to the others",
            "score": abs(row["gap"]),
        }
        for row in rows
        if row["verdict"]
    ]


def exhibit(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The widest gaps."""
    widest = sorted(rows, key=lambda row: (-row["score"], row["title"]))[:_SHOWN]
    return pa.Table.from_pylist(widest, schema=EXHIBIT)


def _windows(rows: pa.Table, s: CompareSettings, run_date: date) -> tuple[list[int | None], dict[int, Reject]]:
    """(0 for the newest window, 1 for the one before, None for neither; rows without a time)."""
    if s.time is None:
        return [0] * len(rows), {}
    calendar = Calendar("D", zone=getattr(rows.schema.field(s.time).type, "tz", None))
    day, known = calendar.periods(rows[s.time])
    last = calendar.last_complete(run_date)
    ago = last - day
    inside = known & (ago >= 0) & (ago < 2 * s.window_days)
    windows = [int(a // s.window_days) if k else None for a, k in zip(ago, inside, strict=True)]
    return windows, {int(i): Reject(int(i), "no_time", "the time is null") for i in np.flatnonzero(~known)}


def _given(rows: pa.Table, column: str | None, n: int) -> list[Any]:
    return rows[column].cast(pa.string()).to_pylist() if column is not None else [None] * n


def _canonical(brand: str | None, names: Phrases[str]) -> str:
    """The brand that a value of the brand column is a name of; the value itself where it is none."""
    plain = (brand or "").strip()
    found = tokens(plain)
    match = names.at(found, 0) if found else None
    return match[1] if match is not None and match[0] == len(found) else plain


def _read(text: str, brand: str, names: Phrases[str], terms: Phrases[str]) -> list[tuple[str, list[Said]]]:
    """(brand, what the text says of it): of the brand given by all clauses, else of every brand by those about it."""
    clauses = cues.clauses(text)
    if brand:
        return [(brand, _judged(text, clauses, terms))]
    parts: dict[str, list[Clause]] = {}
    for name, run in aspect_words.about(clauses, text, names, lasting=True):
        parts.setdefault(name, []).extend(run)
    return [(name, _judged(text, part, terms)) for name, part in parts.items()]


def _judged(text: str, clauses: Sequence[Clause], terms: Phrases[str]) -> list[Said]:
    whole = float((model.probabilities([text], [clauses]) @ model.SIGNS)[0])
    quote = text[clauses[0].start : clauses[-1].end] if clauses else text
    found = aspect_words.said(text, clauses, terms)
    return [(OVERALL, whole, quote), *((a.aspect, a.score, text[a.start : a.end]) for a in found)]


def _counted(said: Sequence[Said]) -> list[dict[str, Any]]:
    """One mention of each aspect, of the mean score, and a quote: that of the strongest part."""
    made = []
    times = Counter(aspect for aspect, *_ in said)
    for aspect in times:
        scores = [score for name, score, _ in said if name == aspect]
        mean = sum(scores) / len(scores)
        sums = (1.0, float(mean > _CLEAR), float(mean < -_CLEAR), mean, mean**2)
        made.append({"aspect": aspect, **dict(zip(_SUMS, sums, strict=True))})
        _, strongest, quote = max((one for one in said if one[0] == aspect), key=lambda one: (abs(one[1]), one[2]))
        if quote:
            made.append(
                {"aspect": aspect, **dict.fromkeys(_SUMS, 0.0), "__quote": quote[:_QUOTE_CHARS], "__score": strongest}
            )
    return made


def _sums(cell: dict[str, Any] | None) -> Sums:
    return Sums() if cell is None else Sums(cell["__n"], cell["__sum"], cell["__squares"])


def _told(
    cells: dict[tuple[str, str, int], dict[str, Any]],
    totals: dict[tuple[str, int], Sums],
    brand: str,
    aspect: str,
    usual: float,
    s: CompareSettings,
) -> dict[str, Any]:
    """One row, with p-values that are not adjusted yet; NaN where nothing is tested. usual: the scores' variance."""
    cell = cells.get((brand, aspect, 0))
    own, before = _sums(cell), _sums(cells.get((brand, aspect, 1)))
    market, market_before = totals.get((aspect, 0), Sums()), totals.get((aspect, 1), Sums())
    usual = (market + market_before).variance(usual)  # the aspect's, drawn towards that of all
    others = market - own
    row: dict[str, Any] = {"brand": brand, "aspect": aspect, "mentions": int(own.n), "verdict": None}
    row |= dict.fromkeys(("gap_p", "share_change_p", "score_change_p"), float("nan"))
    row["share"] = own.n / market.n if market.n else 0.0
    row["share_low"], row["share_high"] = small_samples.share_interval(own.n, market.n, s.confidence)
    if cell is not None:
        row |= {"positive": cell["__positive"] / own.n, "negative": cell["__negative"] / own.n, "score": own.mean}
        low, high = small_samples.mean_interval(own, usual, s.confidence)
        row |= {"score_low": max(-1.0, low), "score_high": min(1.0, high)}
    else:
        row |= {"positive": None, "negative": None, "score": None}
    if own.n and others.n:
        row["gap"] = own.mean - others.mean
        if own.n >= s.min_mentions and others.n >= s.min_mentions:
            row["gap_p"] = small_samples.mean_p(own, others, usual)
    if s.time is None:
        return row
    row["previous_mentions"] = int(before.n)
    if before.n:
        row["previous_score"] = before.mean
    if market_before.n:
        row["previous_share"] = before.n / market_before.n
        row["share_change"] = row["share"] - row["previous_share"]
        if own.n + before.n >= s.min_mentions:
            row["share_change_p"] = small_samples.share_p(own.n, market.n, before.n, market_before.n)
    if own.n and before.n:
        row["score_change"] = own.mean - before.mean
        if min(own.n, before.n) >= s.min_mentions:
            row["score_change_p"] = small_samples.mean_p(own, before, usual)
    return row


def _quotes(found: Iterable[dict[str, Any]], worst: bool, most: int) -> list[dict[str, Any]]:
    sign = -1 if worst else 1
    kept = [row for row in found if (row["__score"] < 0) == worst]
    kept.sort(key=lambda row: (-sign * row["__score"], row["__document"] or "", row["__quote"]))
    told = {row["__quote"]: row for row in reversed(kept)}  # the same words once, of the first that said them
    kept = [row for row in kept if told[row["__quote"]] is row][:most]
    return [{"document": row["__document"], "quote": row["__quote"], "score": row["__score"]} for row in kept]
