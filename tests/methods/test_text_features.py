"""What each n-gram has in a text, put back on the text."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import text_features
from bizllm.methods.text_features import TextFeatures

WORDS = [
    "The parcel is LATE, again!",
    "Give me my   money back\n\nplease",
    "a b",
    "水壶漏了，I want 退款!!",
    "快递晚了三天",
]
TEXTS = st.text(alphabet=st.sampled_from("aB ß İΣσς\n\t\u00a0\u3000\x1c.,!'漏了水壶カ한é\u0301😀"), max_size=30)


@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_the_same_ngrams_as_scikit_learn_counts(analyzer: str, text: str) -> None:
    found = list(text_features._located(analyzer, text))
    assert Counter(term for term, _ in found) == Counter(text_features._block(analyzer).build_analyzer()(text))
    for term, at in found:
        lowered = "".join(text[i].lower() for i in dict.fromkeys(at))
        assert not any(text[i].isspace() for i in at)
        if "İ" not in text:  # whose small letter is two characters, and may be cut between them
            assert lowered.replace("σ", "ς") == "".join(term.split()).replace("σ", "ς"), "it stands where it is told"


@pytest.mark.parametrize("known", [WORDS[:3], WORDS])  # words with blanks between them, and runs of CJK characters
def test_shares_add_up_on_the_text(known: list[str]) -> None:
    terms = TextFeatures(known)
    rows = terms.matrix(WORDS)
    weights = np.random.default_rng(0).standard_normal(rows.shape[1])
    for i, text in enumerate(WORDS):
        row = rows[[i]].tocoo()
        features = row.coords[1]
        told = terms.spread(text, features.tolist(), (row.data * weights[features]).tolist())
        assert told.shape == (len(text),)
        assert not told[[c.isspace() for c in text]].any(), "white space carries nothing"
        np.testing.assert_allclose(told.sum(), (rows[[i]] @ weights)[0], rtol=1e-6)
    late = terms.matrix(["late"]).tocoo().coords[1].tolist()
    told = terms.spread("LATE or so", late, [1.0] * len(late))
    np.testing.assert_allclose(told[:4].sum(), len(late)), "small letters and large ones are the same"
    assert not told[4:].any()


def test_texts_are_read_as_far_as_features_go() -> None:
    terms = TextFeatures(["ab", "cd"])
    text = "x" * text_features.MAX_ROW_CHARACTERS + " ab"
    assert not terms.matrix([text]).nnz and not terms.spread(text, [], []).any()
