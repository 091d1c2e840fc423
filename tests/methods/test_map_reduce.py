"""Every character is read, no prompt is too long, whatever the text; the model here is a rule, so that all is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bizllm.methods import sentences
from bizllm.methods.map_reduce import MAX_ROUNDS, Summary, summarize


@dataclass
class Written:
    texts: list[str]
    input_tokens: np.ndarray
    output_tokens: np.ndarray
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)


@dataclass
class FirstWords:
    """A model that reads characters, and answers with the first `words` words of what it is asked about."""

    words: int = 2
    asked: list[list[str]] = field(default_factory=list)

    def count(self, prompts: Sequence[str]) -> np.ndarray:
        return np.array([len(prompt) for prompt in prompts], np.int64)

    def generate(self, prompts: Sequence[str]) -> Written:
        self.asked.append([prompt.removeprefix("Q: ") for prompt in prompts])
        texts = [" ".join(part.split()[: self.words]) for part in self.asked[-1]]
        return Written(texts, self.count(prompts), self.count(texts))


def run(model: FirstWords, texts: Sequence[str], limit: int) -> list[Summary]:
    return summarize(texts, "Q: {}".format, limit, model.count, model.generate)


ANY_TEXT = st.text(st.sampled_from("ab .,!?\n。，字é\U0001f600\t"), max_size=400)


@settings(max_examples=200, deadline=None)
@given(st.lists(ANY_TEXT, max_size=4), st.integers(4, 60))
def test_every_character_is_read_and_no_prompt_is_too_long(texts: list[str], limit: int) -> None:
    model = FirstWords()
    run(model, texts, limit)
    if texts:
        assert "".join(model.asked[0]) == "".join(texts)  # the first round's parts, joined, are the texts
    assert all(len(part) + 3 <= limit for asked in model.asked for part in asked)
    assert len(model.asked) <= MAX_ROUNDS


def test_later_rounds_read_every_summary() -> None:
    text = " ".join(f"Item{i} is in box number {i} here." for i in range(60))
    model = FirstWords()
    (summary,) = run(model, [text], 123)
    assert len(model.asked) >= 3 and len(model.asked[-1]) == 1
    for before, after in zip(model.asked, model.asked[1:], strict=False):
        assert "".join(after) == "\n".join(" ".join(part.split()[:2]) for part in before)
    assert summary.text == "Item0 is"
    assert summary.calls == sum(map(len, model.asked))
    assert summary.input_tokens == sum(len(part) + 3 for asked in model.asked for part in asked)
    assert summary.output_tokens == sum(len(" ".join(p.split()[:2])) for asked in model.asked for p in asked)


def test_parts_begin_with_sentences_and_are_about_equally_long() -> None:
    rng = random.Random(0)
    text = " ".join(f"{'word ' * rng.randint(2, 12)}end." for _ in range(300))
    model = FirstWords()
    run(model, [text], 800)
    starts = {start for start, _ in sentences.split(text)}
    parts, place = model.asked[0], 0
    for part in parts:
        assert place in starts
        place += len(part)
    assert max(map(len, parts)) < 1.3 * min(map(len, parts))
    assert len(parts) <= 1.5 * len(text) / 797


def test_texts_go_together_and_what_fits_is_asked_once() -> None:
    long = "One two three. " * 40
    model = FirstWords()
    short, other, empty = run(model, ["Short text here.", long, ""], 100)
    assert model.asked[0][0] == "Short text here." and model.asked[0][-1] == ""
    assert (short.text, short.calls, short.output_tokens) == ("Short text", 1, 10)
    assert other.text == "One two" and other.calls > 1
    assert empty.text == "" and empty.calls == 1
    assert run(FirstWords(), [long], 100) == [other]  # the others beside it change nothing


def test_summaries_that_are_no_shorter_come_to_no_end() -> None:
    model = FirstWords(words=10**9)
    (summary,) = run(model, ["Some words. " * 50], 100)
    assert summary.text is None and len(model.asked) == 2  # the first round took the blanks at the parts' ends


def test_parts_about_which_the_model_says_nothing_do_not_hide_the_others() -> None:
    class Picky(FirstWords):
        def generate(self, prompts: Sequence[str]) -> Written:
            written = super().generate(prompts)
            written.texts = [
                "" if "dull" in prompt else text for prompt, text in zip(prompts, written.texts, strict=True)
            ]
            return written

    (summary,) = run(Picky(), ["A dull day, so dull. " * 10 + "The lid broke. " * 10], 60)
    assert summary.text == "The lid"
    (summary,) = run(Picky(), ["A dull day, so dull. " * 20], 60)
    assert summary.text == ""


def test_a_limit_under_one_character_is_refused() -> None:
    with pytest.raises(ValueError, match="one character"):
        run(FirstWords(), ["abc def"], 3)


def test_a_text_whose_part_gets_no_answer_has_none() -> None:
    class Refusing(FirstWords):
        def generate(self, prompts: Sequence[str]) -> Written:
            written = super().generate(prompts)
            written.failed = {i: ("refused", "why") for i, prompt in enumerate(prompts) if "bad" in prompt}
            return written

    model = Refusing()
    long, short, fine = "A good day. " * 9 + "A bad day. ", "bad", "good"
    whole, one, other = run(model, [long, short, fine], 60)
    assert whole.failed == one.failed == ("refused", "why") and whole.text is None and other.text == "good"
    assert whole.calls == len(model.asked[0]) - 2 and len(model.asked) == 1, "and its other parts are not merged"
