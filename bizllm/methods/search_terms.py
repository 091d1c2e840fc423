"""The terms by which texts are compared: words without their plural, and of CJK scripts characters and their pairs."""

from __future__ import annotations

import re
import unicodedata

from bizllm.methods.sentences import is_cjk

# As in sentences.py; kana and Hangul run on without blanks, or nearly so, just as Chinese does.
_CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_RUN = re.compile(f"(?P<cjk>[{_CJK}]+)|(?:(?![{_CJK}])\\w)+")


def terms(text: str) -> list[str]:
    """The terms of a text, in order, as often as they occur.

    Caseless and width-less (NFKC). Single characters find what pairs miss (a word of one character, another
    segmentation), pairs find what characters confuse: together they stand for words where nobody writes blanks (Nie et
    al., On the Use of Words and N-grams for Chinese Information Retrieval, IRAL 2000). Words of other scripts and
    numbers in such a text are cut likewise, beside the whole: names are spelled in many ways.
    """
    found: list[str] = []
    cjk = is_cjk(text)
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word = run[0]
        if run["cjk"] is None:
            found.append(_singular(word))
        if cjk or run["cjk"]:
            found += word
            found += [word[i : i + 2] for i in range(len(word) - 1)]
    return found


def _singular(word: str) -> str:
    """The word without its plural: the S-stemmer (Harman, How Effective Is Suffixing?, JASIS 1991), whose errors are
    few in any Latin language."""
    if len(word) < 4 or not word.endswith("s"):
        return word
    if word.endswith("ies") and word[-4] not in "ae":
        return f"{word[:-3]}y"
    if word.endswith("es") and word[-3] not in "aeo":
        return word[:-1]
    return word if word[-2] in "us" else word[:-1]
