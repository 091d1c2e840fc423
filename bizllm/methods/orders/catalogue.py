"""The articles that may be ordered, and which of them a few words mean: exactly, in part, or nearly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pyarrow as pa

from bizllm.methods.terms import Terms, tokens

_SAME = 0.03  # two articles whose likenesses differ by less are equally likely
_MOST_WORDS = 12  # of an item's words that are tried from either end
_LEAST_LIKENESS = 0.6  # what is less alike is not even a guess
_LEFT_OUT = 0.6  # how much words that are left out count against the rest
_PARTLY = 0.95  # the most that a name within further words counts


@dataclass(frozen=True)
class Article:
    """unit: what it is sold in, as the catalogue says. prices: by currency; "" where the catalogue names none."""

    sku: str
    name: str
    unit: str | None
    prices: Mapping[str, float]


@dataclass(frozen=True)
class Match:
    """What words mean. skus: the articles that they may mean, several where nothing tells them apart; none where they
    mean none. how: sku, name, alias, part or fuzzy. score: 1 for the exact words."""

    skus: tuple[str, ...]
    how: str
    score: float


NOTHING = Match((), "", 0.0)


@dataclass
class Catalogue:
    """terms: numbers, names and aliases → numbers; the kind of an entry says which of them it was."""

    articles: Mapping[str, Article]
    terms: Terms
    _resolved: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._keys = list(self.terms.entries)
        self._squeezed = [key.replace(" ", "") for key in self._keys]  # "bedsheets" and "bed sheets" are alike
        self._resolved = lru_cache(maxsize=65_536)(self._resolve)

    @classmethod
    def learn(cls, rows: Iterable[tuple[Article, Iterable[str]]]) -> Catalogue:
        """Articles, each maybe several times (a price for each currency), with their other names."""
        articles: dict[str, Article] = {}
        names: dict[tuple[str, str], str] = {}
        for article, aliases in rows:
            known = articles.get(article.sku)
            prices = {**(known.prices if known else {}), **article.prices}
            units = sorted({u for u in (known.unit if known else None, article.unit) if u})
            name = min(known.name, article.name) if known else article.name
            articles[article.sku] = Article(article.sku, name, units[0] if units else None, prices)
            for how, words in (("alias", aliases), ("name", [article.name]), ("sku", [article.sku])):
                names |= {(word, article.sku): how for word in words}
        entries = Terms.learn((word, sku, None) for word, sku in names).entries
        hows = {(" ".join(t.text for t in tokens(word)), sku): how for (word, sku), how in names.items()}
        kinds = {
            key: tuple(entry._replace(kind=hows.get((key, entry.name), "sku")) for entry in some)
            for key, some in entries.items()
        }
        return cls(dict(sorted(articles.items())), Terms(kinds))

    def state(self) -> dict[str, pa.Table]:
        """Arrow tables, of which `of` makes the same again."""
        rows = []
        for a in self.articles.values():
            about: dict[str, Any] = {"sku": a.sku, "name": a.name, "unit": a.unit}
            priced = [about | {"currency": code, "price": price} for code, price in sorted(a.prices.items())]
            rows += priced or [about]
        texts = ("sku", "name", "unit", "currency")
        schema = pa.schema([*((name, pa.string()) for name in texts), ("price", pa.float64())])
        return {"articles": pa.Table.from_pylist(rows, schema), "articles_terms": self.terms.state()["terms"]}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Catalogue:
        """What `state` told."""
        articles: dict[str, Article] = {}
        for row in state["articles"].to_pylist():
            prices = dict(articles[row["sku"]].prices) if row["sku"] in articles else {}
            prices |= {row["currency"]: row["price"]} if row["currency"] is not None else {}
            articles[row["sku"]] = Article(row["sku"], row["name"], row["unit"], prices)
        empty = pa.table({name: pa.array([], pa.string()) for name in ("subject", "relation", "object")})
        return cls(articles, Terms.of({"terms": state["articles_terms"], "facts": empty}))

    def resolve(self, words: str) -> Match:
        """The article that a line's words mean."""
        match: Match = self._resolved(words)
        return match

    def _resolve(self, words: str) -> Match:
        said = tokens(words)
        if not said:
            return NOTHING
        exact = self.terms.exactly(words)
        if exact:
            return Match(tuple(e.name for e in exact), exact[0].kind or "name", 1.0)
        part, near = self._in_part(words), self._nearly([t.text for t in said])
        if part.skus and near.skus and set(part.skus) & set(near.skus):
            both = tuple(sku for sku in near.skus if sku in part.skus)
            return Match(both, part.how if part.score >= near.score else near.how, max(part.score, near.score))
        return max(part, near, key=lambda m: m.score)

    def _in_part(self, words: str) -> Match:
        """Names among further words. Several names of one article make it surer than one; those of two are two."""
        found = self.terms.find(words)
        if not found:
            return NOTHING
        common = set.intersection(*({e.name for e in f.entries} for f in found))
        if not common and len({f.entries for f in found}) > 1:
            sure = [f for f in found if any(e.kind in ("sku", "name") for e in f.entries)]
            common = set.intersection(*({e.name for e in f.entries} for f in sure)) if sure else set()
        skus = common or {e.name for f in found for e in f.entries}
        covered = sum(len(t.text) for f in found for t in tokens(words[f.start : f.end]))
        share = covered / max(1, sum(len(t.text) for t in tokens(words)))
        whole = any(e.kind in ("sku", "name") for f in found for e in f.entries)
        # A full name or number among other words is that article; an alias may be another's ("Marlow kettle").
        return Match(tuple(sorted(skus)), "part", _PARTLY if whole else _PARTLY * (0.5 + 0.5 * share))

    def _nearly(self, said: list[str]) -> Match:
        """The likeliest by the Indel similarity of the letters (rapidfuzz's ratio), of the words or of what is left
        without some from either end. Numbers are never nearly right."""
        from rapidfuzz import fuzz, process

        if any(t.isdigit() for t in said) or not self._keys:
            return NOTHING
        cut = said[:_MOST_WORDS]
        tries = {"".join(said[i:]) for i in range(len(cut))} | {"".join(said[:i]) for i in range(1, len(cut) + 1)}
        scores: dict[str, float] = {}
        for words in sorted(tries):
            weight = 1.0 - _LEFT_OUT * (1.0 - len(words) / len("".join(said)))
            if len(words) < 2 or weight < _LEAST_LIKENESS:
                continue
            cutoff = 100 * _LEAST_LIKENESS / weight
            alike = process.extract(words, self._squeezed, scorer=fuzz.ratio, score_cutoff=cutoff, limit=8)
            for _, score, at in alike:
                for entry in self.terms.entries[self._keys[at]]:
                    scores[entry.name] = max(scores.get(entry.name, 0.0), weight * score / 100)
        if not scores:
            return NOTHING
        best = max(scores.values())
        return Match(tuple(sorted(sku for sku, score in scores.items() if score > best - _SAME)), "fuzzy", best)
