"""Augmentation: what a copy may never be, for any text; what each kind of noise does; what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.models.load import resolve
from bizllm.train.augment import AugmentSettings, TrainTexts, augment
from bizllm.train.synonyms import neighbours, read_synonyms

ENGLISH = "The parcel arrived broken yesterday and nobody answers my letters about the missing handle."
CHINESE = "这家外卖送得太慢了而且味道也不好下次再也不会点了"
ALL = AugmentSettings(copies=3, synonyms=0.3, characters=0.2, word_drop=0.2)
SYNONYMS = {"parcel": ("package",), "broken": ("damaged", "in pieces"), "外卖": ("快餐",)}


def made(text: str, how: AugmentSettings, seed: int = 1) -> list[str]:
    return augment(TrainTexts([text]), how, seed, SYNONYMS).texts


def one_edit_apart(one: str, other: str) -> bool:
    """Equal but for a character that is lost, added or replaced, or two neighbours in the other order."""
    n = len(one)
    lost = {one[:i] + one[i + 1 :] for i in range(n)}
    added = any(other[:i] + other[i + 1 :] == one for i in range(len(other)))
    swapped = {one[:i] + one[i + 1] + one[i] + one[i + 2 :] for i in range(n - 1)}
    replaced = len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) == 1
    return other in lost or added or other in swapped or replaced


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60) | st.sampled_from([ENGLISH, CHINESE]), max_size=6), st.integers(0, 2**40))
def test_copies_are_never_blank_never_their_row_never_twice_and_always_the_same(texts: list[str], seed: int) -> None:
    got = augment(TrainTexts(texts), ALL, seed, SYNONYMS)
    assert len(got.texts) == len(got.origin)
    assert (np.diff(got.origin) >= 0).all()
    assert all(text.strip() and text != texts[row] for text, row in zip(got.texts, got.origin, strict=True))
    counts = Counter(got.origin.tolist())
    assert max(counts.values(), default=0) <= ALL.copies
    assert len(set(zip(got.texts, got.origin.tolist(), strict=True))) == len(got.texts)
    again = augment(TrainTexts(texts), ALL, seed, SYNONYMS)
    assert again.texts == got.texts and again.origin.tolist() == got.origin.tolist()


def test_a_rows_copies_do_not_depend_on_the_rows_beside_it() -> None:
    alone = made(ENGLISH, ALL)
    beside = augment(TrainTexts([CHINESE, "x", ENGLISH]), ALL, 1, SYNONYMS)
    assert [text for text, row in zip(beside.texts, beside.origin, strict=True) if row == 2] == alone
    assert len(alone) == 3
    assert made(ENGLISH, ALL, seed=2) != alone


def test_typing_errors_are_one_edit_a_word_and_leave_short_words_and_numbers() -> None:
    how = AugmentSettings(characters=0.5, copies=200)
    words = ENGLISH.rstrip(".").split()
    copies = made(ENGLISH, how)
    changed = 0
    for copy in copies:
        for old, new in zip(words, copy.rstrip(".").split(), strict=True):
            if old != new:
                changed += 1
                assert len(old) >= 4 and new[0] == old[0] and one_edit_apart(old, new)
    long_words = sum(len(word) >= 4 for word in words)
    assert changed / (len(copies) * long_words) == pytest.approx(0.5, abs=0.05)  # a few draws change nothing in effect
    assert made("A1B2C3 12345 of the", how) == []


def test_chinese_characters_fall_out_double_or_change_places_and_negations_stay() -> None:
    copies = made(CHINESE, AugmentSettings(characters=0.1, copies=300))
    assert {len(copy) - len(CHINESE) for copy in copies} >= {-1, 0, 1}
    assert set("".join(copies)) <= set(CHINESE)
    assert all(copy.count("不") == CHINESE.count("不") for copy in copies)


def test_dropped_words_leave_a_share_out_and_never_a_negation() -> None:
    texts = [f"I did not get the card and it doesn't work without the old one {i}" for i in range(400)]
    got = augment(TrainTexts(texts), AugmentSettings(word_drop=0.3), 1)
    gone = []
    for copy, row in zip(got.texts, got.origin, strict=True):
        rest = iter(texts[row].split())
        assert all(word in rest for word in copy.split())  # the same words in the same order, some gone
        assert {"not", "doesn't", "without"} <= set(copy.split())
        assert "  " not in copy
        gone.append(15 - len(copy.split()))
    assert np.mean(gone) == pytest.approx(0.3 * 12, abs=0.3)


def test_synonyms_keep_the_case_and_find_chinese_words_without_blanks() -> None:
    how = AugmentSettings(synonyms=0.5, copies=20)
    assert set(made("Parcel lost", how)) == {"Package lost"}
    assert set(made("BROKEN", how)) == {"DAMAGED", "IN PIECES"}
    assert set(made("外卖慢", how)) == {"快餐慢"}
    assert made("nothing known here", how) == []


def test_generated_copies_come_from_the_named_models_and_are_checked() -> None:
    asked: list[tuple[str, int]] = []

    def generate(uri: str, prompts: list[str]) -> list[str]:
        asked.append((uri, len(prompts)))
        answers = {
            "path:en-de": {"good": "gut", "bad": "schlecht", "long": "lang"},
            "path:de-en": {"gut": "fine", "schlecht": "bad", "lang": "x" * 100},
            "path:para": {"say: good": "nice", "say: bad": " ", "say: long": "lengthy"},
        }
        return [answers[uri][prompt] for prompt in prompts]

    how = AugmentSettings(
        back_translate=("path:en-de", "path:de-en"), paraphrase="path:para", paraphrase_prompt="say: {text}"
    )
    got = augment(TrainTexts(["good", "bad", "long"]), how, 1, generate=generate)
    assert list(zip(got.texts, got.origin.tolist(), strict=True)) == [("fine", 0), ("nice", 0), ("lengthy", 2)]
    assert asked == [("path:en-de", 3), ("path:de-en", 3), ("path:para", 3)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"synonyms": 0.7}, "less than or equal to 0.5"),
        ({"copies": 0}, "greater than 0"),
        ({"synonyms_file": "a.csv"}, "share of words"),
        ({"paraphrase_prompt": "again"}, "{text}"),
        ({"typos": 0.1}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused(said: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        AugmentSettings.model_validate(said)


def test_synonyms_are_read_from_csv_and_yaml(tmp_path: Path) -> None:
    table, mapping = tmp_path / "s.csv", tmp_path / "s.yaml"
    table.write_text("Refund,repayment, money back\nrefund,refund\n外卖,快餐\n", "utf-8")
    mapping.write_text("refund: [repayment, money back]\n外卖: [快餐]\n", "utf-8")
    expected = {"refund": ("repayment", "money back"), "外卖": ("快餐",)}
    assert read_synonyms(table, "augment.synonyms_file") == expected
    assert read_synonyms(mapping, "augment.synonyms_file") == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.yaml", b"no: [nope]\n", "need quotes"),
        ("s.yaml", b"a: [b\n", "no YAML"),
        ("s.csv", b"alone\n", "no word with a synonym"),
        ("s.csv", b"caf\xe9,bar\n", "UTF-8"),
        ("absent.csv", None, "FileNotFoundError"),
    ],
)
def test_a_synonym_file_that_is_none_names_its_place(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"augment\.synonyms_file: .*{said}"):
        read_synonyms(tmp_path / name, "augment.synonyms_file")


def test_neighbours_in_the_encoders_own_table_are_near_words() -> None:
    import json

    from safetensors import safe_open

    folder = resolve("builtin:minilm").folder
    vocabulary: dict[str, int] = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    with safe_open(folder / "model.safetensors", "np") as weights:
        table = weights.get_tensor("embeddings.word_embeddings.weight").astype(np.float32)
    found = neighbours(["Payment", "arrived", "good", "zzqx"], sorted(vocabulary, key=vocabulary.__getitem__), table)
    assert "payments" in found["payment"] and "arrive" in found["arrived"]
    assert "good" not in found and "zzqx" not in found  # its nearest are too far: among them its opposite


def test_neighbours_of_byte_level_vocabularies_are_words_without_their_mark() -> None:
    tokens = ["\u0120card", "\u0120cards", "\u0120Card", "card", "s", "\u0120sun"]
    table = np.array([[1, 0, 0], [0.9, 0.1, 0], [1, 0.01, 0], [1, 0, 0.01], [0, 0, 1], [-1, 0, -1]], np.float32)
    assert neighbours(["card", "sun"], tokens, table) == {"card": ("cards",)}
