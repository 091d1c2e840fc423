"""Against rouge-score itself on ASCII, by hand on Chinese, and against the definition of perplexity."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from bizllm.evaluate import texts

ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)


@settings(deadline=None, max_examples=100)
@given(ASCII, ASCII)
def test_rouge_on_ascii_is_that_of_rouge_score(reference: str, candidate: str) -> None:
    expected = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, candidate)
    for name, value in texts.rouge([reference], [candidate]).items():
        assert value == pytest.approx(100 * expected[name].fmeasure)


def test_rouge_of_chinese_is_by_characters() -> None:
    # 退 货 已 寄 出 / 退 货 没 寄 出: four of five characters, two of four pairs, the longest common subsequence four.
    scores = texts.rouge(["退货已寄出。"], ["退货没寄出"])
    assert scores == pytest.approx({"rouge1": 80.0, "rouge2": 50.0, "rougeL": 80.0})
    plain = RougeScorer(["rouge1"]).score("退货已寄出。", "退货没寄出")["rouge1"].fmeasure
    assert plain == 0.0, "rouge-score's own tokenizer drops every character, which is why there is another"


def test_rouge_of_mixed_scripts_and_accents_and_its_mean() -> None:
    assert texts.CharacterOrWordTokenizer().tokenize("iPhone手机坏了, ＣＡＦÉ_Ünder 3.5!") == [
        *("iphone", "手", "机", "坏", "了", "café", "ünder", "3", "5")
    ]
    rows = texts.rouge_rows(["a b", "a b"], ["a b", "c d"])
    np.testing.assert_allclose(rows["rouge1"], [100.0, 0.0])
    assert texts.rouge(["a b", "a b"], ["a b", "c d"])["rougeL"] == 50.0


def test_exact_match_forgives_white_space_and_unicode_forms_only() -> None:
    references = ["Refund  sent\n", "cafe\u0301", "Yes", "Ａ"]
    assert texts.exact_match(references, ["Refund sent", "caf\u00e9", "yes", "A"]) == 75.0


def test_perplexity_of_a_uniform_guess_is_the_vocabulary() -> None:
    assert texts.perplexity(12 * math.log(50), 12) == pytest.approx(50.0)
    assert texts.perplexity(0.0, 5) == 1.0
    assert texts.perplexity(1e9, 2) == math.inf
    assert math.isnan(texts.perplexity(math.nan, 2))
