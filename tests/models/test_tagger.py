"""Models whose tags are known by construction: of a token, or of its position in the window."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import AutoModelForTokenClassification, AutoTokenizer

from bizllm.errors import UserError
from bizllm.models.engines.torch_engine import TorchEngine, exact
from bizllm.models.tagger import Tagger, words

Make = Callable[..., Path]
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
# `doe` is not in the vocabulary: d, ##o, ##e, of which only the first may decide.
KNOWN = {"jane": 1, "d": 2, "paris": 3, "张": 1, "三": 2, "北": 3, "京": 4, "##o": 3, "##e": 3}


def spans_of(tagged: list[Any]) -> list[tuple[int, int, str]]:
    return [(word.start, word.end, word.tag) for word in tagged if word.tag != "O"]


@pytest.fixture(scope="module")
def known(fine_tuned: Make) -> Tagger:
    """No layers; the tag of a token is that of KNOWN, else O."""
    vocabulary = {"words": "the lamp jane paris"}
    plain = fine_tuned(objective="classification", labels=("a", "b"), layers=0, **vocabulary)
    ids = AutoTokenizer.from_pretrained(plain).get_vocab()

    def weights(name: str, data: torch.Tensor) -> torch.Tensor | None:
        if "word_embeddings" in name:
            tags = torch.zeros(len(data), dtype=torch.long)
            for token, tag in KNOWN.items():
                tags[ids[token]] = tag
            return torch.nn.functional.one_hot(tags, data.shape[1]) * 10.0
        if "embeddings" in name and "LayerNorm" not in name:
            return torch.zeros_like(data)
        return torch.eye(*data.shape) if name.endswith("classifier.weight") else None

    settings = {"objective": "token_classification", "labels": TAGS, "pooling": "native", "layers": 0}
    return Tagger.load(fine_tuned(weights=weights, **vocabulary, **settings), exact)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Jane doe, of the (paris) lamp", [("Jane", "B-PER"), ("doe", "I-PER"), ("paris", "B-LOC")]),
        ("我是张三，在北京。", [("张", "B-PER"), ("三", "I-PER"), ("北", "B-LOC"), ("京", "I-LOC")]),
        ("😀👩‍👩‍👧 jane 🇫🇷paris🎉 e\u0301 doe!", [("jane", "B-PER"), ("paris", "B-LOC"), ("doe", "I-PER")]),
        ("🎉 paris 🎉 张三", [("paris", "B-LOC"), ("张", "B-PER"), ("三", "I-PER")]),
        ("  jane\n\n\tparis  ", [("jane", "B-PER"), ("paris", "B-LOC")]),
        ("the", []),
        ("\u200b\x07", []),
        (" ", []),
    ],
)
def test_words_stand_where_the_text_has_them(known: Tagger, text: str, expected: list[tuple[str, str]]) -> None:
    ((tagged,), tokens) = known.tags([text])
    assert [(text[start:end], tag) for start, end, tag in spans_of(tagged)] == expected
    apart = " ".join(text[start:end] for start, end in words(text))  # an emoji at a word makes no unknown word of it
    assert tokens.tolist() == [len(known.tokenizer(apart)["input_ids"])]


def test_padded_equals_unpadded_and_order_changes_nothing(fine_tuned: Make) -> None:
    folder = fine_tuned(objective="token_classification", labels=TAGS, pooling="native", temperature=1.7)
    tagger = Tagger.load(folder, exact)
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(folder).eval(), tagger.tokenizer
    texts = ["a b c d", "lamp", "the kettle is broken", "a", "水壶漏了", "lamp", "b " * 28]
    found, _ = tagger.tags(texts)
    for text, tagged in zip(texts, found, strict=True):  # every word here is one token
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, 1:-1].numpy()
        expected = softmax(logits / 1.7, axis=1)
        assert [word.tag for word in tagged] == [TAGS[i] for i in expected.argmax(1)]
        np.testing.assert_allclose([word.probability for word in tagged], expected.max(1), atol=1e-5)
    assert len({word.tag for tagged in found for word in tagged}) > 1
    assert tagger.tags(texts[::-1])[0] == found[::-1]
    assert tagger.tags([])[0] == []


def circle(places: int, dim: int) -> torch.Tensor:
    """(places, dim): points on a circle, of mean 0 and equal length, so that a layer norm leaves them what they are."""
    turns = torch.arange(places) * (2 * math.pi / 64)
    points = torch.zeros(places, dim)
    points[:, :4] = torch.stack([turns.cos(), turns.sin(), -turns.cos(), -turns.sin()], 1)
    return points


@pytest.mark.parametrize("length", [29, 30, 31, 52, 53, 54, 75, 200])
def test_a_word_is_answered_where_it_is_farthest_from_a_cut(fine_tuned: Make, length: int) -> None:
    """The tag is the position in the window, from which the window's place in the text follows."""

    def weights(name: str, data: torch.Tensor) -> torch.Tensor | None:
        if "position_embeddings" in name or name.endswith("classifier.weight"):
            return circle(*data.shape) * 50
        return torch.zeros_like(data) if "LayerNorm" not in name else None

    labels = tuple(f"at-{i}" for i in range(32))
    folder = fine_tuned(
        objective="token_classification", labels=labels, pooling="native", layers=0, weights=weights, max_tokens=32
    )
    text = " ".join("abcdefg"[i % 7] for i in range(length))
    (tagged,), tokens = Tagger.load(folder, exact).tags([text])
    assert [text[word.start : word.end] for word in tagged] == text.split()
    places = [int(word.tag.removeprefix("at-")) - 1 for word in tagged]  # [CLS] is at 0
    starts = [t - place for t, place in enumerate(places)]
    windows = sorted(set(starts))
    assert windows[0] == 0 and windows[-1] == max(0, length - 30) and starts == sorted(starts)

    def distance(t: int, start: int) -> float:
        """Tokens between this one and the nearest cut; -1 outside of the window."""
        left = math.inf if start == 0 else t - start
        right = math.inf if start + 30 >= length else start + 29 - t
        return min(left, right) if 0 <= t - start < 30 else -1

    for t, start in enumerate(starts):
        assert distance(t, start) == max(distance(t, other) for other in windows) >= 3
    assert tokens[0] == sum(min(length, 30) + 2 for _ in windows)


def test_words() -> None:
    text = '"U.S.-based" (don\'t!) 3.5% 水壶 ひと a水b 안녕 мир। ...'
    found = [text[start:end] for start, end in words(text)]
    expected = ['"', "U.S.-based", '"', "(", "don't", "!", ")", "3.5", "%"]
    expected += ["水", "壶", "ひ", "と", "a", "水", "b", "안녕", "мир", "।", ".", ".", "."]
    assert found == expected


def test_a_text_is_tokenized_as_the_words_of_a_training_row(fine_tuned: Make) -> None:
    """Also where the tokenizer marks the beginnings of words, which raw text has only after spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder = fine_tuned(objective="token_classification", labels=TAGS, pooling="native")
    pieces = ["<s>", "</s>", "<unk>", "▁jane", "▁", "▁,", "▁水", "▁壶", "水壶", ",", "s", "p"]
    plain = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    plain.pre_tokenizer = pre_tokenizers.Metaspace()
    plain.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", pad_token="</s>").save_pretrained(folder)
    tagger = Tagger.load(folder, exact)
    (tagged,), tokens = tagger.tags(["jane,水壶"])
    row = tagger.tokenizer(["jane", ",", "水", "壶"], is_split_into_words=True, return_tensors="pt")
    assert row["input_ids"].tolist() == [[0, 3, 5, 6, 7, 1]] and tokens.tolist() == [6]
    assert isinstance(tagger.engine, TorchEngine)
    with torch.no_grad():
        logits = tagger.engine.network.module(input_ids=row["input_ids"], attention_mask=row["attention_mask"])[
            0, 1:-1
        ].numpy()
    np.testing.assert_allclose([word.probability for word in tagged], softmax(logits, axis=1).max(1), atol=1e-5)
    assert [(word.start, word.end) for word in tagged] == [(0, 4), (4, 5), (5, 6), (6, 7)]


def test_other_models_are_refused(fine_tuned: Make) -> None:
    with pytest.raises(UserError, match="'classification': expected a model that was fine-tuned for token_class"):
        Tagger.load(fine_tuned(objective="classification", labels=("a", "b")))
