"""Words that may stand for each other: a user's list, or neighbours in a model's own table of token embeddings."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bizllm.errors import Fault, UserError

Synonyms = Mapping[str, Sequence[str]]  # a word in small letters → what may replace it

LEAST_COSINE = (
    0.6  # of MiniLM's centred table: above it inflections and near words, below it antonyms (good, bad: 0.54)
)
MOST = 3
_BEGINS = ("\u0120", "\u2581")  # Ġ and ▁
_CHUNK = 512  # words compared with the whole table at once: 60 MB for 30,000 tokens


def read_synonyms(path: Path, place: str) -> dict[str, tuple[str, ...]]:
    """A CSV file (word, synonym, synonym, …; no header) or a YAML mapping of words to lists. Raises UserError."""
    yaml_like = path.suffix.lower() in (".yaml", ".yml")
    try:
        entries = _yaml_entries(path, place) if yaml_like else _csv_entries(path)
    except OSError as error:
        raise UserError(Fault(place, str(path), f"can't be read: {type(error).__name__}")) from error
    except UnicodeDecodeError as error:
        raise UserError(Fault(place, str(path), "expected a file in UTF-8")) from error
    found: dict[str, tuple[str, ...]] = {}
    for word, others in entries:
        key = word.strip().casefold()
        known = [other.strip() for other in others if other.strip() and other.strip().casefold() != key]
        if key and known:
            found[key] = tuple(dict.fromkeys([*found.get(key, ()), *known]))
    if not found:
        raise UserError(Fault(place, str(path), "holds no word with a synonym", "a line of CSV: word,synonym,synonym"))
    return found


def neighbours(
    words: Iterable[str], tokens: Sequence[str], table: npt.NDArray[np.float32], least: float = LEAST_COSINE
) -> dict[str, tuple[str, ...]]:
    """For each of the words that is a token of its own, up to MOST tokens of a cosine of at least `least`.

    tokens: (tokens,) a tokenizer's vocabulary, in the order of table (tokens, dim), the model's input embeddings. The
    table is centred first: its mean direction says how rare a token is, not what it means. Only whole words of letters
    take part, so no piece of a word and no number comes back.
    """
    names = _whole_words(tokens)
    whole = np.array([i for i, name in enumerate(names) if name.isalpha() and len(name) > 1], dtype=np.int64)
    if not len(whole):
        return {}
    place = {names[i].casefold(): row for row, i in enumerate(whole)}
    unit = table[whole] - table.mean(axis=0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    asked = sorted({word.casefold() for word in words} & place.keys())
    rows = np.array([place[word] for word in asked], dtype=np.int64)
    found: dict[str, tuple[str, ...]] = {}
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        cosine = unit[some] @ unit.T  # (words, tokens)
        cosine[np.arange(len(some)), some] = -1.0
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :MOST]
        for word, near, values in zip(asked[start:], best, np.take_along_axis(cosine, best, 1), strict=False):
            known = [names[whole[i]] for i, value in zip(near, values, strict=True) if value >= least]
            known = [name for name in known if name.casefold() != word]
            if known:
                found[word] = tuple(known)
    return found


def _whole_words(tokens: Sequence[str]) -> list[str]:
    """Each token as the word that it is; "" for a piece of one. WordPiece marks what goes on in a word (##), byte-level
    BPE and SentencePiece what begins one."""
    marked = sum(token[:1] in _BEGINS for token in tokens) > len(tokens) / 10
    if marked:
        return [token[1:] if token[:1] in _BEGINS else "" for token in tokens]
    return list(tokens)  # "##ing" is not of letters alone


def _csv_entries(path: Path) -> list[tuple[str, list[str]]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [(line[0], line[1:]) for line in csv.reader(stream) if line]


def _yaml_entries(path: Path, place: str) -> list[tuple[str, list[str]]]:
    import yaml

    try:
        said = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise UserError(Fault(place, str(path), "is no YAML")) from error
    right = isinstance(said, dict) and all(
        isinstance(word, str) and isinstance(others, list) and all(isinstance(other, str) for other in others)
        for word, others in said.items()
    )
    if not right:
        hint = "words such as `no` and `on` need quotes"
        raise UserError(Fault(place, str(path), "expected a mapping of words to lists of words", hint))
    return list(said.items())
