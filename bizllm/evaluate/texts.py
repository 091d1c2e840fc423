"""Scores of generated text: ROUGE for texts with and without blanks between words, exact match, perplexity."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from bizllm.evaluate.calibration import Array

CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(f"[{CJK}]|(?:(?![{CJK}_])\\w)+")
_ROUGES = ["rouge1", "rouge2", "rougeL"]


class CharacterOrWordTokenizer:
    """Splits into CJK characters one by one and words of the rest, in lower case; as rouge-score itself on ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


def rouge(references: Sequence[str], candidates: Sequence[str]) -> dict[str, float]:
    """Mean F-measures rouge1, rouge2 and rougeL over the rows, 0 … 100 (Lin 2004); no stemming."""
    return {name: float(rows.mean()) for name, rows in rouge_rows(references, candidates).items()}


def rouge_rows(references: Sequence[str], candidates: Sequence[str]) -> dict[str, Array]:
    """(n,) F-measures of each row, 0 … 100, for rouge1, rouge2 and rougeL: what resampling needs of them."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(_ROUGES, tokenizer=CharacterOrWordTokenizer())
    rows = [scorer.score(*pair) for pair in zip(references, candidates, strict=True)]
    return {name: np.array([100.0 * row[name].fmeasure for row in rows]) for name in _ROUGES}


def exact_match(references: Sequence[str], candidates: Sequence[str]) -> float:
    """Share of candidates that equal their reference, 0 … 100, white space and Unicode's NFKC forms aside."""
    same = [_plain(reference) == _plain(candidate) for reference, candidate in zip(references, candidates, strict=True)]
    return 100.0 * sum(same) / len(same)


def perplexity(nll_sum: float, tokens: int) -> float:
    """exp of the mean negative log-likelihood (nats) of a token; infinity where it is past the largest float."""
    assert tokens > 0, "perplexity is of at least one token"
    mean = nll_sum / tokens
    return math.exp(mean) if mean < 709.0 else mean * math.inf  # NaN stays NaN


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
