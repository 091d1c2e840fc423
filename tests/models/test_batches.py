"""Windows and batches, held against the tokenizer's own way of joining texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bizllm.models import batches


@pytest.fixture(scope="module")
def tokenizer(fine_tuned: Callable[..., Path]) -> Any:
    return batches.load_tokenizer(fine_tuned(objective="classification", labels=("a", "b")))


def ids_of(windows: batches.Windows) -> list[list[int]]:
    """The tokens of each window."""
    return [part.tolist() for part in np.split(windows.tokens, np.cumsum(windows.lengths)[:-1])]


def types_of(windows: batches.Windows) -> list[list[int]]:
    """The segments of each window's tokens."""
    assert windows.types is not None
    return [part.tolist() for part in np.split(windows.types, np.cumsum(windows.lengths)[:-1])]


def without(tokens: list[list[int]], around: list[list[int]]) -> list[int]:
    """The windows' tokens in a row, special ones left out."""
    special = {token for part in around for token in part}
    return [token for window in tokens for token in window if token not in special]


def test_batches_hold_the_budget_and_every_row() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 500)
    found = list(batches.by_budget(lengths, 1_000))
    assert sorted(np.concatenate(found)) == list(range(500))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= 1_000 for b in found)


def test_batches_without_padding_hold_the_budget_and_every_row() -> None:
    lengths = np.array([7, 1, 30, 2, 2, 9, 11])
    made = list(batches.by_tokens(lengths, 12))
    assert [rows.tolist() for rows in made] == [[2], [6], [5], [0, 3, 4, 1]]


def test_parts_that_are_cut_ahead_are_all_there(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    asked = [f"the kettle leaks {i}" for i in range(25)]

    def cut(texts: list[str]) -> batches.Windows:
        return batches.text_windows(tokenizer, texts, 16)

    whole = cut(asked)
    monkeypatch.setattr(batches, "AHEAD", 10)
    (once,), parts = batches.in_parts(cut, asked, ahead=False), list(batches.in_parts(cut, asked, ahead=True))
    assert [int(part.owner[-1]) + 1 for part in parts] == [10, 10, 5]
    for found in (once.tokens, np.concatenate([part.tokens for part in parts])):
        assert (found == whole.tokens).all()


def test_short_texts_are_as_the_tokenizer_frames_them(tokenizer: Any) -> None:
    texts = ["the lamp is broken", "水壶漏了", ""]
    windows = batches.text_windows(tokenizer, texts, 32)
    assert ids_of(windows) == tokenizer(texts)["input_ids"] and windows.types is None
    assert windows.owner.tolist() == [0, 1, 2]
    assert windows.tokens_read(3).tolist() == [len(ids) for ids in ids_of(windows)]


def test_short_pairs_are_as_the_tokenizer_frames_them(tokenizer: Any) -> None:
    pairs = [("the lamp", "is broken."), ("水壶", "lamp"), ("the", "")]
    windows = batches.pair_windows(tokenizer, pairs, 32)
    expected = tokenizer([a for a, _ in pairs], [b for _, b in pairs])
    assert ids_of(windows) == expected["input_ids"] and types_of(windows) == expected["token_type_ids"]


def test_a_model_without_segments_gets_none(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "model_input_names", ["input_ids", "attention_mask"])
    windows = batches.pair_windows(tokenizer, [("the lamp", "is broken")], 32)
    assert windows.types is None and set(batches.padded(windows, np.array([0]), 0)) == {
        "input_ids",
        "attention_mask",
    }


@pytest.mark.parametrize("words", [1, 30, 31, 61, 200])
def test_windows_lose_no_token_and_are_of_equal_length(tokenizer: Any, words: int) -> None:
    text = " ".join(["the", "lamp", "kettle", "is", "broken"][i % 5] for i in range(words))
    windows = batches.text_windows(tokenizer, [text], 32)
    assert len(windows) == -(-words // 30) and windows.lengths.max() <= 32
    assert windows.lengths.max() - windows.lengths.min() <= 1
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert without(ids_of(windows), batches.special_tokens(tokenizer, 1)) == plain


@pytest.mark.parametrize(("first", "second"), [(5, 100), (100, 5), (14, 15), (14, 16), (60, 100), (40, 15)])
def test_long_pairs_lose_no_token(tokenizer: Any, first: int, second: int) -> None:
    """29 tokens of both fit in a window; a side of at most 14 stands whole in every one."""
    one = tokenizer(" ".join(["lamp"] * first), add_special_tokens=False)["input_ids"]
    other = tokenizer(" ".join(["kettle"] * second), add_special_tokens=False)["input_ids"]
    windows = batches.pair_windows(tokenizer, [(" ".join(["lamp"] * first), " ".join(["kettle"] * second))], 32)
    assert windows.lengths.max() <= 32 and windows.types is not None
    in_first = [window.count(one[0]) for window in ids_of(windows)]
    in_second = [window.count(other[0]) for window in ids_of(windows)]
    whole = [set(counts) == {size} for counts, size in ((in_first, first), (in_second, second))]
    assert whole[0] or sum(in_first) == first
    assert whole[1] or sum(in_second) == second
    assert any(whole) == (min(first, second) <= 14)
    for window, types in zip(ids_of(windows), types_of(windows), strict=True):
        assert types == [0] * (window.count(one[0]) + 2) + [1] * (window.count(other[0]) + 1)


def test_padding_is_masked(tokenizer: Any) -> None:
    windows = batches.pair_windows(tokenizer, [("the lamp", "is"), ("the lamp is broken", "the kettle")], 32)
    batch = batches.padded(windows, np.array([1, 0]), 0)
    expected = tokenizer(["the lamp is broken", "the lamp"], ["the kettle", "is"], padding=True, return_tensors="pt")
    assert batch.keys() == expected.keys()
    assert all(torch.equal(torch.from_numpy(batch[name]), expected[name]) for name in batch)


def test_distinct_does_not_depend_on_the_order() -> None:
    asked = ["b", "a", "b", "水"]
    once, places = batches.distinct(asked)
    assert once == batches.distinct(asked[::-1])[0] == ["a", "b", "水"]
    assert [once[i] for i in places] == asked


def test_a_batch_that_memory_does_not_hold_is_halved() -> None:
    """The fault is the allocator's own: nothing has a petabyte."""
    asked: list[int] = []

    def run(rows: np.ndarray[Any, Any]) -> list[int]:
        asked.append(len(rows))
        if len(rows) > 3 or 7 in rows:
            torch.empty(10**15)
        return [int(row) for row in rows]

    rows = np.arange(7)
    found = list(batches.within_memory(run, rows))
    assert [row for _, made in found for row in made] == rows.tolist() and asked == [7, 3, 4, 2, 2]
    assert all(part.tolist() == made for part, made in found)
    with pytest.raises(RuntimeError, match="allocate"):
        list(batches.within_memory(run, np.arange(6, 8)))
    with pytest.raises(ValueError, match="no memory"):
        list(batches.within_memory(lambda rows: int("no memory"), rows))
