"""A table of passages as it is learned and searched: cleaned, indexed, and the vectors of its sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.methods import documents, retrieval, sentences
from bizllm.methods.retrieval import Index, Meaning
from bizllm.methods.search_terms import terms
from bizllm.methods.terms import Terms
from bizllm.tasks.base import Learned

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Passages:
    """What was learned of a table of passages, ready to be searched.

    rows: id, title, text, answer, and what else is cited. index: of the titles and texts; its vectors are those of
    sentences. weights: of the confidence, where it was learned. names: that a company's own words stand for; questions
    are read with them.
    """

    rows: pa.Table
    index: Index
    weights: list[float] | None
    names: Terms | None = None

    @cached_property
    def texts(self) -> list[str]:
        return list(self.rows["text"].to_pylist())

    @cached_property
    def ids(self) -> list[str]:
        return list(self.rows["id"].to_pylist())

    def best_sentences(self, passage: int, question: str, vector: Floats | None, most: int) -> str:
        """Those that lie together and answer the question best, by rare terms that they share and by their vectors."""
        text, spans = self.texts[passage], sentences.split(self.texts[passage])
        if len(spans) <= most:
            return text.strip()
        weights = self.index.lexical.weights(question)
        shares = np.array([_share(weights, text[start:end]) for start, end in spans])
        if vector is not None and self.index.meaning is not None:
            start, end = np.searchsorted(self.index.meaning.of, [passage, passage + 1])
            if end > start:
                shares = shares + retrieval.MEANING_SAY * (self.index.meaning.vectors[start:end] @ vector).round(4)
        first = int(np.argmax(np.convolve(shares, np.ones(most), "valid").round(4)))
        return text[spans[first][0] : spans[first + most - 1][1]]


class Reader:
    """Vectors of texts that the encoder reads, each text once."""

    def __init__(self, encoder: Any, multilingual: bool, known: Mapping[int, Halves] | None = None) -> None:
        self._encoder, self._multilingual, self._known = encoder, multilingual, known or {}

    def reads(self, text: str) -> bool:
        """Whether it knows the script."""
        return self._encoder is not None and (self._multilingual or sentences.is_latin([text]))

    def kept(self, texts: Sequence[str]) -> Learned:
        """The vectors of these, read or known, in half precision, with their keys, ascending; nothing of no texts."""
        keyed = {text_key(text): text for text in texts}
        if not keyed:
            return {}
        new = [key for key in keyed if key not in self._known]
        read = self._encoder.encode([keyed[key] for key in new])[0].astype(np.float16) if new else []
        vectors = {**self._known, **dict(zip(new, read, strict=True))}
        keys = sorted(keyed)
        return {"keys": np.array(keys, np.uint64), "vectors": np.stack([vectors[key] for key in keys])}

    def questions(self, texts: Sequence[str]) -> tuple[Floats | None, npt.NDArray[np.int64]]:
        """((texts, dim), 0 where it does not read one; tokens of each, words where it reads none)."""
        counts = np.array([sentences.count_words(text) for text in texts], np.int64)
        if self._encoder is None:
            return None, counts
        read = [i for i, text in enumerate(texts) if self.reads(text)]
        found, tokens = self._encoder.encode_counted([texts[i] for i in read])
        vectors = np.zeros((len(texts), self._encoder.dim), np.float32)
        vectors[read], counts[read] = found, tokens
        return vectors, counts


def read(
    rows: pa.Table, columns: Mapping[str, str], names: Sequence[str], needed: Sequence[str], most_chars: int
) -> tuple[pa.Table, dict[str, str]]:
    """(rows that can be used, each once, in the order of what they hold; the id that stands for each id).

    names: the columns that come out, as texts, `id` among them. columns: where each is read; "" where one is read
    nowhere, and a hash instead of an id. needed: those without which a row is left out. Of rows that are equal but for
    their ids the smallest stays.
    """
    found = {name: texts(rows[column], most_chars) for name, column in columns.items()}
    made: dict[tuple[str, ...], dict[str, str]] = {}
    alike: dict[str, tuple[str, ...]] = {}
    for i in range(rows.num_rows):
        if any(found[name][i] is None for name in needed):
            continue
        row = {name: (found[name][i] if name in found else None) or "" for name in names}
        row["id"] = row["id"] or f"{text_key(chr(0).join(row.values())):016x}"
        same = tuple(documents.folded(row[name]) for name in names if name != "id")
        alike[row["id"]] = same
        if same not in made or [*row.values()] < [*made[same].values()]:
            made[same] = row
    ordered = sorted(made.values(), key=lambda row: [*row.values()])
    table = pa.Table.from_pylist(ordered, schema=pa.schema([(name, pa.string()) for name in names]))
    return table, {own: made[same]["id"] for own, same in alike.items()}


def text_key(text: str) -> int:
    """What a text is known by."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def parts(reader: Reader, text: str, title: str) -> list[str]:
    """What the encoder reads of a passage: its sentences, and its title."""
    if not reader.reads(text):
        return []
    heads = [title] if title and reader.reads(title) else []
    return [text[start:end] for start, end in sentences.split(text)] + heads


def meaning(rows: pa.Table, reader: Reader, vectors: Mapping[int, Halves]) -> Meaning:
    """The vectors of all sentences, with what their titles add."""
    nothing = np.zeros_like(next(iter(vectors.values())))
    own, of, titles = [], [], []
    for i, (text, title) in enumerate(zip(rows["text"].to_pylist(), rows["title"].to_pylist(), strict=True)):
        if not reader.reads(text):
            continue
        about = vectors.get(text_key(title), nothing) if title else nothing
        for start, end in sentences.split(text):
            own.append(vectors[text_key(text[start:end])])
            of.append(i)
            titles.append(about)
    return Meaning.build(np.stack(own, dtype=np.float32), np.array(of, np.int64), np.stack(titles, dtype=np.float32))


def vectors_of(state: Learned | None) -> dict[int, Halves]:
    """The vector of each text that was read for a state; none where no encoder was."""
    if state is None or "keys" not in state:
        return {}
    return dict(zip(state["keys"].tolist(), state["vectors"], strict=True))


def _share(weights: Mapping[str, float], text: str) -> float:
    """How much of a question's terms, by their rarity, a sentence has."""
    found = set(terms(text))
    return sum(weight for term, weight in weights.items() if term in found) / max(1e-6, sum(weights.values()))


def texts(column: pa.ChunkedArray, most_chars: int) -> list[str | None]:
    """The usable texts of a column, of numbers as they are written."""
    found, _ = documents.read(column if documents.is_text(column.type) else column.cast(pa.string()), most_chars)
    return [usable[0] if usable is not None else None for usable in found]
