"""What a topic is about, in a few words: terms of texts in English and Chinese, and those that set a topic apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

MAX_CHARACTERS = 4_000  # of a text that are read

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff"
_WORD = re.compile(rf"[{_HAN}]+|(?:(?![{_HAN}])[^\W\d_])+(?:['’](?:(?![{_HAN}])[^\W\d_])+)?")
# Characters that hold sentences together: no term of a topic begins or ends with one, or runs over one.
_GLUE = frozenset("的了是我你您他她它们这那哪吗呢吧啊呀哦嗯么把被让给跟很太也都还就没又不在有一二三四五六七八九十")
_LONGEST = 4  # characters of a Chinese term
_SAME = 0.6  # share of a term's texts that a longer term has, too, from which the longer one speaks for both
_OWN_STOPS = "don doesn didn isn wasn won can't i'm i've it's let's lets im ive dont got get like just want need know"


@lru_cache(maxsize=1)
def _stops() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | frozenset(_OWN_STOPS.split())


def terms(text: str) -> list[str]:
    """Words in small letters, without stop words and numbers; of Chinese the runs of two to four characters between
    those that hold sentences together."""
    found: list[str] = []
    for match in _WORD.finditer(text[:MAX_CHARACTERS]):
        word = match[0]
        if "\u3040" <= word[0] <= "\u9fff":
            for run in _runs(word):
                found += [run[i : i + n] for n in range(2, _LONGEST + 1) for i in range(len(run) - n + 1)]
            continue
        word = word.lower().replace("’", "'").removesuffix("'s")
        if len(word) > 1 and word not in _stops() and word.partition("'")[0] not in _stops():
            found.append(word)
    return found


def telling(of_texts: Sequence[list[str]], labels: npt.NDArray[np.int64], topics: int, most: int) -> list[list[str]]:
    """For each topic at most so many terms that set it apart, the most telling first, by class-based TF-IDF.

    Grootendorst (2022), equation 3, where a term counts once a text: its texts in the topic times log(1 + A / its
    texts), A the mean number of terms a topic has. Of terms that say the same ("card" and "cards", a Chinese term and
    its longer one) one is kept. labels: (texts,) topics; -1 counts for none.
    """
    within: list[Counter[str]] = [Counter() for _ in range(topics)]
    for said, label in zip(of_texts, labels.tolist(), strict=True):
        if label >= 0:
            within[label].update(set(said))
    anywhere: Counter[str] = Counter()
    for counts in within:
        anywhere.update(counts)
    mean = sum(anywhere.values()) / max(1, topics)
    return [_best(counts, anywhere, mean, most) for counts in within]


def _best(counts: Counter[str], anywhere: Counter[str], mean: float, most: int) -> list[str]:
    # What a single text of many says is no topic's word.
    least = 2 if counts and max(counts.values()) > 1 else 1
    weights = {term: n * np.log1p(mean / anywhere[term]) for term, n in counts.items() if n >= least}
    chosen: list[str] = []
    for term in sorted(weights, key=lambda t: (-weights[t], -len(t), t)):
        if len(chosen) == most:
            break
        if not any(_alike(term, other) for other in chosen) and not _covered(term, counts):
            chosen.append(term)
    return chosen


def _covered(term: str, counts: Counter[str]) -> bool:
    """Whether a longer Chinese term stands in most texts where this one does."""
    if not "\u3040" <= term[0] <= "\u9fff" or len(term) == _LONGEST:
        return False
    longer = (n for other, n in counts.items() if len(other) == len(term) + 1 and term in other)
    return max(longer, default=0) >= _SAME * counts[term]


def _alike(one: str, other: str) -> bool:
    if "\u3040" <= one[0] <= "\u9fff":
        pieces, others = set(pairwise(one)), set(pairwise(other))
        return 2 * len(pieces & others) > min(len(pieces), len(others))
    return _stem(one) == _stem(other)


def _stem(word: str) -> str:
    """Roughly: enough to see that two English words are one."""
    for suffix in ("ing", "ed", "es", "s"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word.removesuffix(suffix).rstrip("e")
    return word.rstrip("e")


def _runs(text: str) -> list[str]:
    return re.split("|".join(_GLUE), text)
