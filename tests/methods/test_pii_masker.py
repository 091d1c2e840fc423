"""What stands in place of personal data: symbols, pseudonyms, and nothing of what was there."""

from __future__ import annotations

import json
import pickle
import re
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import bizllm
from bizllm.errors import UserError
from bizllm.methods.pii import engine
from bizllm.methods.pii.masker import UNREADABLE, Masker
from bizllm.methods.pii.pseudonyms import PSEUDONYM, normal, pseudonym, unmask
from bizllm.tables.mask_settings import ENTITIES, MaskRules

KEY, OTHER = "k" * 32, "q" * 32
quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

digits = st.integers(0, 10**8 - 1).map(lambda n: f"{n:08d}")


def _luhn(body: str) -> str:
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(body)))
    return body + str(-total % 10)


# Sentences around a value, and the values: made up, so that each is known to be one.
VALUES = st.one_of(
    digits.map(lambda d: ("PHONE", "我的手机是{}，谢谢", f"138{d}")),
    digits.map(lambda d: ("PHONE", "call me at {} please", f"(212) {200 + int(d[:2])}-{d[4:]}")),
    digits.map(lambda d: ("EMAIL", "write to {} today", f"user.{d}@example.com")),
    digits.map(lambda d: ("CARD", "card {} was charged", _luhn("4111111" + d))),
    digits.map(lambda d: ("CARD", "卡号{}已扣款", _luhn("6222020" + d))),
    st.sampled_from(["Jane Doe", "Priya Okonkwo", "Faina D. Yefremova"]).map(lambda n: ("PERSON", "my name is {}.", n)),
    st.sampled_from(["李建国", "欧阳娜娜", "张伟"]).map(lambda n: ("PERSON", "收件人：{}，", n)),
)


def masker(**rules: object) -> Masker:
    return Masker(MaskRules(**rules))  # type: ignore[arg-type]


@quick
@given(st.lists(VALUES, min_size=1, max_size=5), st.sampled_from([" ", "\n", "。 ", ". "]))
def test_nothing_of_a_value_is_left_and_spans_say_where_it_stood(
    parts: list[tuple[str, str, str]], between: str
) -> None:
    text = between.join(sentence.format(value) for _, sentence, value in parts)
    mask = masker()
    spans = mask.spans(text)
    masked = mask.masked(text, spans)
    for kind, _, value in parts:
        assert value not in masked and f"<{kind}>" in masked
        assert any(text[s.start : s.end] == value or value in text[s.start : s.end] for s in spans)
    # What stands between the spans is what stands between the marks.
    kept, at = [], 0
    for span in spans:
        kept, at = [*kept, text[at : span.start]], span.end
    assert re.split("|".join(f"<{name}>" for name in ENTITIES), masked) == [*kept, text[at:]]


@quick
@given(st.text(max_size=300))
def test_any_text_has_spans_in_order_and_pseudonyms_of_any_text_turn_back(text: str) -> None:
    secret = masker(mode="pseudonym", key=KEY)
    spans = secret.spans(text)
    assert all(0 <= one.start < one.end <= len(text) for one in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    made = secret.masked(text, spans)
    expected, at = "", 0
    for span in spans:
        expected += text[at : span.start] + normal(span.type, text[span.start : span.end])
        at = span.end
    if not PSEUDONYM.search(text):
        assert unmask(made, KEY) == expected + text[at:]


@quick
@given(
    st.sampled_from(ENTITIES), st.text(min_size=1, max_size=60), st.text(min_size=32, max_size=40), st.integers(0, 5)
)
def test_a_pseudonym_is_one_value_and_needs_its_key(kind: str, value: str, key: str, n: int) -> None:
    made = pseudonym(kind, value, key)
    assert PSEUDONYM.fullmatch(made) and made == pseudonym(kind, value, key)
    assert unmask(f"a {made} b", key) == f"a {normal(kind, value)} b"
    assert normal(kind, normal(kind, value)) == normal(kind, value)
    other = f"{key}{n}"
    assert pseudonym(kind, value, other) != made
    with pytest.raises(UserError, match="was not made with this key"):
        unmask(made, other)
    assert unmask(made, other, strict=False) == made
    if len(value) > 3:
        assert value not in made


def test_a_pseudonym_cannot_be_given_another_type_or_changed() -> None:
    made = pseudonym("PERSON", "Jane Doe", KEY)
    for wrong in (made.replace("PERSON", "PHONE"), made[:12] + ("A" if made[12] != "A" else "B") + made[13:]):
        with pytest.raises(UserError) as caught:
            bizllm.unmask(wrong, KEY)
        assert "Jane" not in str(caught.value).replace("<", "") and KEY not in str(caught.value)
    assert bizllm.unmask(made, KEY) == "jane doe"


@pytest.mark.parametrize(
    ("kind", "ways", "one"),
    [
        ("PHONE", ["+86 138 1234 5678", "138-1234-5678", "１３８１２３４５６７８", "008613812345678"], "13812345678"),
        ("PHONE", ["+44 20 7946 0958", "0044 2079460958", "+44-20-7946-0958"], "+442079460958"),
        ("PERSON", ["Jane Doe", "JANE  DOE", "jane\ndoe"], "jane doe"),
        ("PERSON", ["李建国", "李 建国"], "李建国"),
        ("CARD", ["4111 1111 1111 1111", "4111-1111-1111-1111"], "4111111111111111"),
        ("IBAN", ["GB82 WEST 1234 5698 7654 32", "gb82west12345698765432"], "GB82WEST12345698765432"),
        ("CN_ID", ["11010519491231002x", "110105 19491231 002X"], "11010519491231002X"),
        ("EMAIL", ["Jane.Doe@Example.com"], "jane.doe@example.com"),
        ("PLATE", ["粤B·12345", "粤b12345"], "粤B12345"),
    ],
)
def test_one_value_written_in_several_ways_is_one_pseudonym(kind: str, ways: list[str], one: str) -> None:
    assert {pseudonym(kind, way, KEY) for way in ways} == {pseudonym(kind, one, KEY)}
    assert unmask(pseudonym(kind, ways[0], KEY), KEY) == one


def test_the_same_person_in_two_texts() -> None:
    secret = masker(mode="pseudonym", key=KEY)
    first, second = "My name is Jane Doe.", "Dear JANE DOE, thanks"
    marks = [PSEUDONYM.findall(secret.masked(text, secret.spans(text))) for text in (first, second)]
    assert marks[0] == marks[1] and marks[0][0][0] == "PERSON"


def test_a_symbol_instead() -> None:
    mask = masker(symbol="***")
    text = "call 212-555-0142 or jane@example.com"
    assert mask.masked(text, mask.spans(text)) == "call *** or ***"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"mode": "pseudonym"}, "needs a `key`"),
        ({"key": KEY}, "`key` is for"),
        ({"mode": "pseudonym", "key": "short"}, "at least 32 characters"),
        ({"mode": "pseudonym", "key": KEY, "symbol": "*"}, "`symbol` is for"),
        ({"symbol": "X"}, "without letters and digits"),
        ({"entities": ["NAME"]}, "Input should be"),
        ({"entities": []}, "at least 1"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_rules_that_cannot_be(rules: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        MaskRules(**rules)  # type: ignore[arg-type]


def test_a_key_is_shown_nowhere_and_changes_the_fingerprint() -> None:
    one, other = (MaskRules(mode="pseudonym", key=key) for key in (KEY, OTHER))
    for shown in (
        repr(one),
        str(one),
        json.dumps(one.model_dump(mode="json")),
        repr(masker(mode="pseudonym", key=KEY)),
    ):
        assert KEY not in shown
    assert one.model_dump(mode="json") != other.model_dump(mode="json")
    assert pickle.loads(pickle.dumps(one)).key.get_secret_value() == KEY


def test_a_column_with_nulls_and_bytes_that_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pa.array([b"call 212-555-0142", None, b"caf\xe9 jane@example.com", b"", b"boom"], pa.binary())
    text = pa.chunked_array([pa.StringArray.from_buffers(5, *raw.buffers()[1:], raw.buffers()[0])])
    find = engine.find

    def failing(text: str, *rest: object) -> object:
        if text == "boom":
            raise ValueError("quotes boom")
        return find(text, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "find", failing)
    made = masker().column(text)
    assert made.type == pa.string()
    assert made.to_pylist() == ["call <PHONE>", None, "caf\ufffd <EMAIL>", "", UNREADABLE]
