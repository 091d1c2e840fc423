"""Summaries of texts longer than a model's window: summarize the parts, then the summaries, until one is left.

The hierarchical merging of Wu et al., Recursively summarizing books with human feedback (2021). Every character of a
text is in some prompt: a text is cut between sentences where that is possible, and nothing is cut off.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bizllm.methods import sentences

Counts = npt.NDArray[np.int64]

MAX_ROUNDS = 8  # a window of 1,000 tokens and summaries of 100 take a text of a million tokens in 6


class Written(Protocol):
    """What `generate` returns: a text for each prompt, and the tokens (n,) that it read and wrote.

    failed: code and message, by the position of a prompt that got no answer.
    """

    @property
    def texts(self) -> Sequence[str]: ...

    @property
    def input_tokens(self) -> Counts: ...

    @property
    def output_tokens(self) -> Counts: ...

    @property
    def failed(self) -> Mapping[int, tuple[str, str]]: ...


@dataclass
class Summary:
    """One text's. `text` is empty where the model wrote nothing, and None where it did not come to an end.

    input_tokens, output_tokens: of all its calls. calls: 1 where the text fits the window. failed: code and message,
    where a call of it got no answer.
    """

    text: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    failed: tuple[str, str] | None = None


@dataclass
class _Open:
    """A text on its way: what is left of it to be summarized, and its parts of this round."""

    summary: Summary
    left: str
    parts: list[str] = field(default_factory=list)


def summarize(
    texts: Sequence[str],
    prompt: Callable[[str], str],
    limit: int,
    count: Callable[[Sequence[str]], Counts],
    generate: Callable[[Sequence[str]], Written],
) -> list[Summary]:
    """A summary of each text, in their order.

    prompt: a text as the model is asked about it. limit: the most tokens of a prompt. count: tokens of prompts (n,).
    All texts go through a round together, so that the model gets large batches. A text that is still too long after
    MAX_ROUNDS, or whose summaries are no shorter than itself, comes to no end. Raises ValueError where not even a
    prompt about one character fits the limit.
    """
    summaries = [Summary() for _ in texts]
    todo = [_Open(summary, text) for summary, text in zip(summaries, texts, strict=True)]
    for _ in range(MAX_ROUNDS):
        if not todo:
            break
        for text, parts in zip(todo, _fitting([text.left for text in todo], prompt, limit, count), strict=True):
            text.parts = parts
        written = generate([prompt(part) for text in todo for part in text.parts])
        start = 0
        still: list[_Open] = []
        for text in todo:
            end = start + len(text.parts)
            text.summary.calls += len(text.parts)
            text.summary.input_tokens += int(written.input_tokens[start:end].sum())
            text.summary.output_tokens += int(written.output_tokens[start:end].sum())
            told = [summary for summary in written.texts[start:end] if summary]
            joined = "\n".join(told)
            text.summary.failed = next((written.failed[i] for i in range(start, end) if i in written.failed), None)
            start = end
            if text.summary.failed:
                continue
            if len(text.parts) == 1 or not told:
                text.summary.text = joined
            elif len(joined) < len(text.left):
                still.append(_Open(text.summary, joined))
        todo = still
    return summaries


def _fitting(
    texts: Sequence[str], prompt: Callable[[str], str], limit: int, count: Callable[[Sequence[str]], Counts]
) -> list[list[str]]:
    """Each text in as few parts of about equal length as fit; joined they are the text."""
    parts = [[text] for text in texts]
    unsure = [(text, 0) for text in range(len(texts))]  # (text, part) not known to fit
    own = int(count([prompt("")])[0])
    while unsure:
        counts = count([prompt(parts[text][part]) for text, part in unsure])
        long = {place: int(n) for place, n in zip(unsure, counts, strict=True) if n > limit}
        unsure = []
        for text in sorted({text for text, _ in long}):
            cut: list[str] = []
            for part, piece in enumerate(parts[text]):
                if (tokens := long.get((text, part))) is None:
                    cut.append(piece)
                    continue
                pieces = _split(piece, max(2, -(-(tokens - own) // max(1, limit - own))))
                unsure += [(text, len(cut) + i) for i in range(len(pieces))]
                cut += pieces
            parts[text] = cut
    return parts


def _split(text: str, count: int) -> list[str]:
    """The text in at most `count` parts, at least two, cut at the sentence starts nearest to equal lengths."""
    if len(text) < 2:
        raise ValueError("a prompt about one character is longer than the limit")
    starts = [start for start, _ in sentences.split(text) if start > 0]
    if not starts:  # one sentence, or none: at a blank, or hard
        middle = len(text) // 2
        blank = text.rfind(" ", 1, middle)
        starts = [blank + 1 if blank > 0 else middle]
    cuts: list[int] = []
    for part in range(1, count):
        target = len(text) * part // count
        after = bisect_left(starts, target)
        cuts.append(min(starts[max(0, after - 1) : after + 1], key=lambda start: abs(start - target)))
    edges = [0, *sorted(set(cuts)), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]
