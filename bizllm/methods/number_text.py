"""A history of numbers as text that a language model reads, the same in training and at night.

A value is written in percent of the history's own mean absolute value, as a whole number: `"98 103 120 97"`. So a
series of cents and one of millions read alike, a value near the mean keeps three digits, and most values are one token.
What the model answers is in units of the same scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

WINDOW = 64  # periods that are written; with digits and signs of any size still within 256 tokens of most tokenizers


def encode_history(values: npt.ArrayLike, window: int = WINDOW) -> tuple[str, float]:
    """(text of the last `window` values, scale: their mean absolute value) of a history (n,), oldest first.

    A trained model's targets are divided by `scale`, and its answers multiplied by it. The scale of nothing but zeros
    is 1. Raises ValueError for an empty history and for values that are no finite numbers.
    """
    recent = np.asarray(values, np.float64)[-window:]
    if recent.ndim != 1 or not recent.size or not np.isfinite(recent).all():
        raise ValueError("expected a history of finite numbers, at least one")
    largest = float(np.abs(recent).max())
    if largest < np.finfo(np.float64).tiny:
        return " ".join("0" * len(recent)), 1.0
    share = recent / largest  # first, so that the mean of the largest floats does not overflow
    mean = float(np.abs(share).mean())
    percents = np.rint(100 * share / mean).astype(np.int64)
    return " ".join(map(str, percents.tolist())), mean * largest


def decode_history(text: str, scale: float) -> Array:
    """The values (n,) that `encode_history` wrote, to within half a percent of the scale."""
    return np.array(text.split(), np.float64) * (scale / 100)


def forecast(
    histories: Sequence[Array], horizon: int, answer: Callable[[Sequence[str]], tuple[Array, Counts]]
) -> tuple[Array, int]:
    """((histories, horizon) the numbers that a trained model expects after each, NaN where it fails; tokens it read).

    answer: texts → (the next numbers (texts, any) in units of each text's scale, tokens (texts,)). Where it gives fewer
    numbers than `horizon`, they are taken for history and it is asked again, as often as needed.
    """
    known = [np.asarray(history, np.float64)[-WINDOW:] for history in histories]
    made, tokens = np.zeros((len(known), 0)), 0
    while known and made.shape[1] < horizon:
        texts, scales = zip(*map(encode_history, known), strict=True)
        numbers, read = answer(texts)
        numbers = numbers * np.array(scales)[:, None]
        tokens += int(read.sum())
        sound = np.isfinite(numbers).all(axis=1)
        made = np.where(sound[:, None], np.hstack([made, numbers]), np.nan)
        known = [
            np.concatenate([history, row])[-WINDOW:] if fine else history
            for history, row, fine in zip(known, numbers, sound, strict=True)
        ]
    return made[:, :horizon] if known else np.zeros((0, horizon)), tokens
