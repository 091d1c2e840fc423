"""Scores of parts of the test rows: by length, by script, by any column."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.evaluate.calibration import Ints
from bizllm.evaluate.resample import Rows, interval
from bizllm.evaluate.texts import CJK

_CJK_CHAR = re.compile(f"[{CJK}]")
_LATIN_LETTER = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
_LEADING_NUMBER = re.compile(r"\d+")
_NO_VALUE = "(none)"


def slice_scores(
    metric: Callable[..., float],
    arrays: Sequence[Rows],
    groups: Mapping[str, Sequence[str | None] | npt.NDArray[Any]],
    *,
    samples: int = 500,
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """The metric on the rows of each value of each slice: slice, value, rows, score and bootstrap interval (low, high).

    groups: a name for every row, by slice; None is a value too. Values that begin with a number (lengths) are in its
    order, the others by their number of rows.
    """
    table = []
    for slice_, names in groups.items():
        values, of_row = np.unique([_NO_VALUE if name is None else str(name) for name in names], return_inverse=True)
        rows = {value: np.flatnonzero(of_row == v) for v, value in enumerate(values.tolist())}
        for value in sorted(rows, key=lambda value: (_number(value), -len(rows[value]))):
            part = [array[rows[value]] for array in arrays]
            table.append(
                {
                    "slice": slice_,
                    "value": value,
                    "rows": len(rows[value]),
                    "score": float(metric(*part)),
                    "interval": interval(metric, part, samples=samples, confidence=confidence),
                }
            )
    return table


def length_bins(lengths: Ints) -> list[str]:
    """For each row the quartile that its length in tokens is in, as `1–12 tokens`; fewer bins where lengths repeat."""
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf"))
    bin_of = np.searchsorted(edges, lengths)
    names = {b: _span(lengths[bin_of == b]) for b in np.unique(bin_of)}
    return [names[b] for b in bin_of]


def script_of(text: str) -> str:
    """`cjk` where at least three in ten letters are Chinese, Japanese or Korean, `latin` where at least half are Latin,
    else `other`; `other` without letters."""
    letters = sum(map(str.isalpha, text))
    if letters and len(_CJK_CHAR.findall(text)) >= 0.3 * letters:
        return "cjk"
    return "latin" if letters and len(_LATIN_LETTER.findall(text)) >= 0.5 * letters else "other"


def _number(value: str) -> float:
    match = _LEADING_NUMBER.match(value)
    return float(match[0]) if match else float("inf")


def _span(lengths: Ints) -> str:
    low, high = int(lengths.min()), int(lengths.max())
    return f"{low}–{high} tokens" if low < high else f"{low} token{'s' * (low != 1)}"
