import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.methods import sentences


def parts(text):
    return [text[start:end] for start, end in sentences.split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It broke. I want my money back!", ["It broke.", "I want my money back!"]),
        ("Dr. Smith paid $3.5 at 5 p.m. on Jan. 3. Ok.", ["Dr. Smith paid $3.5 at 5 p.m. on Jan. 3.", "Ok."]),
        ("J. Smith called. Then B. Lee did.", ["J. Smith called.", "Then B. Lee did."]),
        ("great sunglasses.I guess so", ["great sunglasses.", "I guess so"]),
        ("see example.com/a.B for v1.2.3 of it", ["see example.com/a.B for v1.2.3 of it"]),
        ('He said "stop!" Then he ran.', ['He said "stop!"', "Then he ran."]),
        ("so good. i love it. five stars", ["so good.", "i love it.", "five stars"]),
        ("Wait... what?! No.", ["Wait...", "what?!", "No."]),
        ("a line that is\nwrapped here\n\nnew one\n- item one\n- item two",
         ["a line that is\nwrapped here", "new one", "- item one", "- item two"]),
        ("1. Open the box. 2. Close it.", ["1. Open the box.", "2. Close it."]),
        ("物流很快。质量不错！下次还买？", ["物流很快。", "质量不错！", "下次还买？"]),
        ("他说：“不行。”然后走了。", ["他说：“不行。”", "然后走了。"]),
        ("提出了新方法.结果表明精度为3.5%.有效", ["提出了新方法.", "结果表明精度为3.5%.", "有效"]),
        ("   ", []),
        ("", []),
    ],
)  # fmt: skip
def test_split_finds_the_sentences_a_reader_would(text, expected):
    assert parts(text) == expected


@given(st.text(alphabet='ab .!?\n,。！，中文A1"”-:', max_size=400) | st.text(max_size=200))
def test_spans_are_ordered_trimmed_and_lose_nothing(text):
    spans = sentences.split(text)
    assert all(start < end for start, end in spans)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)
    assert re.sub(r"\s", "", text, flags=re.UNICODE) == "".join(re.sub(r"\s", "", part) for part in parts(text))


@pytest.mark.parametrize("text", ["word " * 2_000, "字" * 5_000, "a, b " * 1_000])
def test_a_run_on_is_cut(text):
    spans = sentences.split(text)
    assert len(spans) > 1
    assert max(end - start for start, end in spans) <= sentences.MAX_SENTENCE_CHARS


def test_turns_leave_the_labels_out():
    text = "Doctor: How are you? \nPatient: My back hurts. It does.\n Doctor: Since when?"
    assert [text[a:b] for a, b in sentences.turns(text)] == [
        "How are you?",
        "My back hurts. It does.",
        "Since when?",
    ]
    chinese = "客服：您好\n用户：没收到货\n客服：马上查"
    assert [chinese[a:b] for a, b in sentences.turns(chinese)] == ["您好", "没收到货", "马上查"]


@pytest.mark.parametrize(
    "text",
    [
        "Note: keep dry.\nWarning: do not eat.\nContact: the shop.",  # no label comes back
        "A: one\nB: two",
        "Plain prose. Nothing said by anyone.\nOn many lines.\nA: x\nB: y\nA: z",
    ],
)
def test_what_is_no_dialogue_has_no_turns(text):
    assert sentences.turns(text) == []


def test_scripts_and_words():
    assert sentences.is_cjk("这个 phone 的电池不好")
    assert not sentences.is_cjk("the character 中 alone")
    assert sentences.is_latin(["Größe passt, très bien"])
    assert not sentences.is_latin(["Очень хорошо"]) and not sentences.is_latin(["12345"])
    assert sentences.count_words("iPhone 15 很好用, really") == 6
