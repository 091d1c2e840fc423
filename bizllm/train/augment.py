"""Changed copies of training rows: other words, typing errors, words left out, translation there and back.

After EDA (Wei & Zou 2019) and synthetic typing noise (Belinkov & Bisk 2018). Only `TrainTexts` are taken, a type of its
own: whoever holds validation or test rows would have to say that they are train.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, NewType

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from bizllm.methods.sentences import is_cjk
from bizllm.tables.settings import Closed
from bizllm.train.synonyms import Synonyms

Share = Annotated[float, Field(ge=0.0, le=0.5)]
TrainTexts = NewType("TrainTexts", Sequence[str])
Generate = Callable[[str, list[str]], list[str]]  # (URI of a model, prompts) → its answers, one each

DRAWS = 5  # a short text is often left as it was by small shares: it is drawn again this often
LENGTHS = (1 / 3, 3.0)  # a generated text that is shorter or longer than this many times its row is no paraphrase
_PROMPT = "{text}"


class AugmentSettings(Closed):
    """How rows of train are copied with changes. Validation and test rows never are."""

    copies: PositiveInt = Field(default=1, description="Changed copies of a row, by synonyms, characters, word_drop.")
    synonyms: Share = Field(default=0.0, description="Share of words that a synonym replaces.")
    synonyms_file: str | None = Field(
        default=None,
        description="CSV (word,synonym,synonym,…) or YAML (word: [synonym, …]); without it the nearest tokens of the "
        "base model's embedding table.",
    )
    characters: Share = Field(
        default=0.0, description="Share of words with a typing error; of characters in Chinese text."
    )
    word_drop: Share = Field(default=0.0, description="Share of words left out; of characters in Chinese text.")
    back_translate: tuple[str, str] | None = Field(
        default=None, description="Two translation models, there and back: one more copy a row."
    )
    paraphrase: str | None = Field(default=None, description="A model that writes one more copy of a row.")
    paraphrase_prompt: str = Field(
        default="paraphrase: {text}", description="What that model reads; {text} stands for the row."
    )
    mixup: NonNegativeFloat = Field(
        default=0.0,
        description="Alpha of the Beta distribution by which two rows' vectors and labels are mixed (Zhang et al. "
        "2018); 0 is off.",
    )

    @model_validator(mode="after")
    def _fits(self) -> AugmentSettings:
        if self.synonyms_file is not None and not self.synonyms:
            raise ValueError("expected `synonyms`, a share of words, beside `synonyms_file`")
        if _PROMPT not in self.paraphrase_prompt:
            raise ValueError(f"expected {_PROMPT} in `paraphrase_prompt`")
        return self

    @property
    def noise(self) -> bool:
        """Whether rows are changed without a model."""
        return max(self.synonyms, self.characters, self.word_drop) > 0


@dataclass(frozen=True)
class Augmented:
    """texts: the new rows. origin: (rows,) the position of the row that each was made from, ascending."""

    texts: list[str]
    origin: npt.NDArray[np.int64]


def augment(
    texts: TrainTexts,
    settings: AugmentSettings,
    seed: int,
    synonyms: Synonyms | None = None,
    generate: Generate | None = None,
) -> Augmented:
    """New rows of train, made from its texts.

    A row's copies depend on its text, the settings and the seed alone, not on the rows beside it. A copy that is blank,
    equals its row or another copy of it is left out. synonyms: needed where `settings.synonyms` is; keys in small
    letters. generate: needed for `back_translate` and `paraphrase`.
    """
    assert synonyms is not None or not settings.synonyms, "the caller has read or looked up the synonyms"
    copies: list[list[str]] = [[] for _ in texts]
    if settings.noise:
        longest = max(map(len, synonyms), default=0) if synonyms else 0
        for row, text in enumerate(texts):
            for copy in range(settings.copies):
                _add(copies[row], text, _noisy(text, settings, synonyms or {}, longest, _random(text, seed, copy)))
    if (settings.back_translate or settings.paraphrase) and texts:
        assert generate is not None, "the caller has loaded the models"
        for answers in _generated(list(texts), settings, generate):
            for row, (text, answer) in enumerate(zip(texts, answers, strict=True)):
                if LENGTHS[0] <= len(answer.strip()) / max(1, len(text.strip())) <= LENGTHS[1]:
                    _add(copies[row], text, answer.strip())
    origin = np.repeat(np.arange(len(texts), dtype=np.int64), [len(some) for some in copies])
    return Augmented([copy for some in copies for copy in some], origin)


def _generated(texts: list[str], settings: AugmentSettings, generate: Generate) -> list[list[str]]:
    answers = []
    if settings.back_translate:
        there, back = settings.back_translate
        answers.append(generate(back, generate(there, texts)))
    if settings.paraphrase:
        prompts = [settings.paraphrase_prompt.replace(_PROMPT, text) for text in texts]
        answers.append(generate(settings.paraphrase, prompts))
    return answers


def _add(copies: list[str], text: str, copy: str) -> None:
    if copy.strip() and copy != text and copy not in copies:
        copies.append(copy)


def _random(text: str, seed: int, copy: int) -> random.Random:
    digest = hashlib.blake2b(f"{seed}\0{copy}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))


# A CJK character, a word with its apostrophes, or what stands between them.
_PIECE = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|(?:(?![\u3040-\u9fff\uac00-\ud7af])[\w'’])+|.", re.S
)
# Without these a text says the opposite.
_NEGATION = re.compile(r"no|not|never|none|nor|nothing|without|cannot|\w*n['’]t|[不没沒无無别別未非勿莫]", re.I)

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    key: "".join(
        other
        for y, line in enumerate(_KEYBOARD)
        for x, other in enumerate(line)
        if other != key and abs(y - row) <= 1 and abs(x - column) <= 1
    )
    for row, keys in enumerate(_KEYBOARD)
    for column, key in enumerate(keys)
}


def _noisy(text: str, settings: AugmentSettings, synonyms: Synonyms, longest: int, rng: random.Random) -> str:
    cjk = is_cjk(text)
    for _ in range(DRAWS):
        changed = text
        if settings.synonyms:
            changed = _replace_words(changed, settings.synonyms, synonyms, longest, cjk, rng)
        if settings.characters:
            changed = _mistype(changed, settings.characters, cjk, rng)
        if settings.word_drop:
            changed = _drop_words(changed, settings.word_drop, rng)
        if changed != text and changed.strip():
            return changed
    return text


def _replace_words(text: str, share: float, synonyms: Synonyms, longest: int, cjk: bool, rng: random.Random) -> str:
    pieces = _PIECE.findall(text)
    out: list[str] = []
    at = 0
    while at < len(pieces):
        # Chinese writes no blanks between words: the longest run of characters that is a known word is one.
        width = 1
        if cjk:
            runs = range(min(longest, len(pieces) - at), 0, -1)
            width = next((n for n in runs if "".join(pieces[at : at + n]).casefold() in synonyms), 1)
        word = "".join(pieces[at : at + width])
        known = synonyms.get(word.casefold())
        out.append(_same_case(rng.choice(known), word) if known and rng.random() < share else word)
        at += width
    return "".join(out)


def _same_case(new: str, old: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _mistype(text: str, share: float, cjk: bool, rng: random.Random) -> str:
    """Latin words of four letters or more get one error each; Chinese characters fall out, double or change places."""
    pieces = _PIECE.findall(text)
    for at, piece in enumerate(pieces):
        if _movable(piece):
            if cjk and rng.random() < share:
                beside = pieces[at + 1] if at + 1 < len(pieces) and _movable(pieces[at + 1]) else ""
                kind = rng.choice(("drop", "double", "swap")) if beside else rng.choice(("drop", "double"))
                if kind == "swap":
                    pieces[at], pieces[at + 1] = beside, piece
                else:
                    pieces[at] = piece * 2 if kind == "double" else ""
        elif len(piece) >= 4 and piece.isalpha() and rng.random() < share:
            pieces[at] = _typo(piece, rng)
    return "".join(pieces)


def _movable(piece: str) -> bool:
    return len(piece) == 1 and is_cjk(piece) and not _NEGATION.fullmatch(piece)


def _typo(word: str, rng: random.Random) -> str:
    """Two letters swapped, one left out, doubled, or the key beside it; the first letter stays, as people type it."""
    at = rng.randrange(1, len(word))
    letter = word[at]
    kind = rng.choice(("swap", "drop", "double", "beside"))
    if kind == "swap" and at + 1 < len(word):
        return word[:at] + word[at + 1] + letter + word[at + 2 :]
    if kind == "beside" and letter.lower() in _BESIDE:
        key = rng.choice(_BESIDE[letter.lower()])
        return word[:at] + (key.upper() if letter.isupper() else key) + word[at + 1 :]
    return word[:at] + letter * (2 if kind == "double" else 0) + word[at + 1 :]


def _drop_words(text: str, share: float, rng: random.Random) -> str:
    pieces = _PIECE.findall(text)
    words = [at for at, piece in enumerate(pieces) if piece[0].isalnum()]
    gone = {at for at in words if not _NEGATION.fullmatch(pieces[at]) and rng.random() < share}
    if len(gone) == len(words):
        return text
    kept: list[str] = []
    for at, piece in enumerate(pieces):
        blank_again = piece.isspace() and at - 1 in gone and (not kept or kept[-1].isspace())
        if at not in gone and not blank_again:
            kept.append(piece)
    return "".join(kept)
