"""Red-flag symptoms in what a patient writes: phrases, in English and Chinese (red_flags.yaml beside this file).

Rules, not a model: what was found can be pointed at, and a missing phrase can be added the same day. A phrase that is
plainly denied right before it ("no chest pain", 没有胸痛) does not count, as in NegEx (Chapman et al. 2001). What is
less plain does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

_DENIED = re.compile(
    r"""(?:\b(?:no|not\ having|without|denies|denied|never\ had|(?:do|does|did)(?:n't|\ not)\ have
            |have(?:n't|\ not)\ had)
        (?:\ (?:any|a|more|real|signs?\ of|history\ of))*\s
      | (?:没有|没|无|未见|否认|并无|未出现)(?:出现|任何|明显|过|有)*
    )$""",
    re.VERBOSE,
)
_BEFORE = 40  # characters that may deny what follows


@cache
def known() -> dict[str, tuple[str, ...]]:
    """The phrases of each flag that comes with bizllm."""
    import yaml

    said = yaml.safe_load(files("bizllm.methods").joinpath("red_flags.yaml").read_text("utf-8"))
    return {flag: (*phrases["en"], *phrases["zh"]) for flag, phrases in said.items()}


def is_phrase(text: str) -> bool:
    """Whether it can be a phrase: a letter at least, brackets in pairs, and no choice that may be nothing."""
    try:
        return any(map(str.isalnum, text)) and re.fullmatch(_expression(text), "") is None
    except re.error:
        return False


class RedFlags:
    """Finds flags. more: phrases of one's own, of these flags or others; "(a|b)" in one is either."""

    def __init__(self, more: Mapping[str, Iterable[str]]) -> None:
        phrases = {flag: [*known().get(flag, ()), *more.get(flag, ())] for flag in [*known(), *more]}
        self._patterns = {flag: re.compile("|".join(map(_pattern, said))) for flag, said in phrases.items() if said}

    def find(self, text: str) -> list[str]:
        """The flags of a text, in the order of the list."""
        plain = " ".join(unicodedata.normalize("NFKC", text).casefold().replace("’", "'").split())
        return [flag for flag, pattern in self._patterns.items() if _asserted(pattern, plain)]


def _asserted(pattern: re.Pattern[str], text: str) -> bool:
    return any(not _DENIED.search(text[max(0, m.start() - _BEFORE) : m.start()]) for m in pattern.finditer(text))


def _pattern(phrase: str) -> str:
    """The expression of a phrase; a Latin one stands between word boundaries."""
    return rf"\b(?:{_expression(phrase)})\b" if phrase.isascii() else f"(?:{_expression(phrase)})"


def _expression(phrase: str) -> str:
    plain = unicodedata.normalize("NFKC", phrase).casefold().strip()
    return re.escape(plain).replace(r"\(", "(?:").replace(r"\)", ")").replace(r"\|", "|").replace(r"\ ", r"\s+")
