"""Each rule by itself, on made-up values in both languages: what it finds, and what it leaves alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bizllm.methods.pii import checks
from bizllm.methods.pii.engine import CHUNK, chunks, entities_of, languages
from bizllm.methods.pii.folding import folded
from bizllm.methods.pii.spans import Span, resolve
from bizllm.tables.mask_settings import ENTITIES


def found(text: str, *entities: str, threshold: float = 0.4) -> list[tuple[str, str]]:
    return [(s.type, text[s.start : s.end]) for s in entities_of(text, entities or ENTITIES, threshold=threshold)]


def cn_id(first: str) -> str:
    """Seventeen digits with their check, computed another way than the code does: sum of a_i * 2^(i-1) mod 11 = 1."""
    rest = sum(int(d) * (2 ** (17 - i) % 11) for i, d in enumerate(first)) % 11
    return first + "0123456789X"[(1 - rest) % 11]


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            checks.luhn,
            ["4111 1111 1111 1111", "378282246310005", "6222021234567890128"],
            ["4111111111111112", "0" * 16],
        ),
        (checks.iban, ["GB82 WEST 1234 5698 7654 32", "de89370400440532013000"], ["GB82WEST12345698765433", "DE8937"]),
        (checks.cn_id, [cn_id("11010519491231002"), cn_id("44030119900229123"[:6] + "19920229" + "123")], ["1" * 18]),
        (checks.us_ssn, ["219-09-9999", "219099999"], ["000-12-3456", "666-12-3456", "900-12-3456", "219-00-9999"]),
        (checks.uk_nhs, ["943 476 5919", "9434765919"], ["943 476 5918", "1111111111"]),
        (checks.uk_nino, ["AB 12 34 56 C", "ab123456c"], ["DF123456A", "GB123456A", "AB123456E"]),
        (checks.ip, ["10.0.0.1", "2001:db8::1", "10.0.0.0/8"], ["300.1.1.1", "1.2.3", "0.0.0.0"]),
    ],
    ids=["luhn", "iban", "cn_id", "us_ssn", "uk_nhs", "uk_nino", "ip"],
)
def test_checks(check, good: list[str], bad: list[str]) -> None:
    assert all(check(number) for number in good)
    assert not any(check(number) for number in bad)


def test_a_residents_number_has_a_real_date_of_birth() -> None:
    assert checks.cn_id("11010519491231002X"), "the example of the standard"
    assert not checks.cn_id(cn_id("11010520230229001")), "2023 had no 29 February"
    assert not checks.cn_id(cn_id("99010519491231002")), "no such region"
    assert sum(checks.cn_id(f"11010519491231002{c}") for c in "0123456789X") == 1


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to jane.doe+x@mail.example.co.uk, please", "EMAIL", "jane.doe+x@mail.example.co.uk"),
        ("邮箱是zhang_wei@example.com谢谢", "EMAIL", "zhang_wei@example.com"),
        ("see https://example.com/a?b=1.", "URL", "https://example.com/a?b=1"),
        ("see www.example.org/x for it", "URL", "www.example.org/x"),
        ("host 192.168.10.20 is down", "IP", "192.168.10.20"),
        ("my IP address is 192.168.10.20, I think", "IP", "192.168.10.20"),
        ("it was sent to 10.20.30.40 by me", "IP", "10.20.30.40"),
        ("IP:2001:db8::5: refused", "IP", "2001:db8::5"),
        ("I tried (03) 9123 4567 twice", "PHONE", "(03) 9123 4567"),
        ("host 2001:db8:85a3::8a2e:370:7334 is down", "IP", "2001:db8:85a3::8a2e:370:7334"),
        ("paid with 4111-1111-1111-1111 today", "CARD", "4111-1111-1111-1111"),
        ("amex 3782 822463 10005", "CARD", "3782 822463 10005"),
        ("卡号6222021234567890128，谢谢", "CARD", "6222021234567890128"),
        ("银行卡：6222 0212 3456 7890 128", "CARD", "6222 0212 3456 7890 128"),
        ("IBAN GB82 WEST 1234 5698 7654 32 is mine", "IBAN", "GB82 WEST 1234 5698 7654 32"),
        ("my SSN is 219-09-9999.", "US_SSN", "219-09-9999"),
        ("NI number AB 12 34 56 C", "UK_NINO", "AB 12 34 56 C"),
        ("NHS number 943 476 5919", "UK_NHS", "943 476 5919"),
        ("passport 533380006 expired", "PASSPORT", "533380006"),
        ("护照号码：E12345678", "PASSPORT", "E12345678"),
        ("my driver's license number is D123-4567-8901", "DRIVER_LICENSE", "D123-4567-8901"),
        ("sort code 12-34-56", "BANK_ACCOUNT", "12-34-56"),
        ("call 212-555-0142 now", "PHONE", "212-555-0142"),
        ("call (212) 555-0142 ext. 12", "PHONE", "(212) 555-0142 ext. 12"),
        ("call +44 20 7946 0958 now", "PHONE", "+44 20 7946 0958"),
        ("Mobile: 0490 39 07 81", "PHONE", "0490 39 07 81"),
        ("电话１３８１２３４５６７８联系我", "PHONE", "１３８１２３４５６７８"),
        ("手机138-1234-5678。", "PHONE", "138-1234-5678"),
        ("拨打138 1234 5678或", "PHONE", "138 1234 5678"),
        ("座机（010）6255-1234转801", "PHONE", "（010）6255-1234转801"),
        ("座机0755-86013388", "PHONE", "0755-86013388"),
        ("+86 13812345678", "PHONE", "+86 13812345678"),
        ("身份证号11010519491231002X请核对", "CN_ID", "11010519491231002X"),
        ("车牌粤B·12345在", "PLATE", "粤B·12345"),
        ("京AD12345是新能源", "PLATE", "京AD12345"),
        ("my plate is AB12 CDE", "PLATE", "AB12 CDE"),
        ("加我微信：zhang_wei88吧", "WECHAT", "zhang_wei88"),
        ("我的QQ号是123456789", "QQ", "123456789"),
        ("born on 12/03/1980 in", "BIRTH_DATE", "12/03/1980"),
        ("date of birth: March 12, 1980", "BIRTH_DATE", "March 12, 1980"),
        ("出生日期：1980年3月12日", "BIRTH_DATE", "1980年3月12日"),
        ("this 74 year old woman", "AGE", "74"),
        ("今年35岁", "AGE", "35"),
        ("I live at 12 Main Street", "ADDRESS", "12 Main Street"),
        ("send it to 350 Fifth Avenue, Apt 12B today", "ADDRESS", "350 Fifth Avenue, Apt 12B"),
        ("wohnt Hauptstraße 12 in", "ADDRESS", "Hauptstraße 12"),
        ("PO Box 123", "ADDRESS", "PO Box 123"),
        ("in SW1A 2AA there", "ADDRESS", "SW1A 2AA"),
        ("住在广东省深圳市南山区科技园路12号3栋402室", "ADDRESS", "广东省深圳市南山区科技园路12号3栋402室"),
        ("寄到朝阳区建国路88号。", "ADDRESS", "朝阳区建国路88号"),
        ("地址：杭州市西湖区文三路 90 号", "ADDRESS", "杭州市西湖区文三路"),
        ("She moved to Norway", "LOCATION", "Norway"),
        ("她在上海工作", "LOCATION", "上海"),
        ("My name is Jane Doe.", "PERSON", "Jane Doe"),
        ("ask Dr. Okonkwo", "PERSON", "Okonkwo"),
        ("Dear Priya,", "PERSON", "Priya"),
        ("my name is jane doe and i wait", "PERSON", "jane doe"),
        ("signed Faina D. Yefremova", "PERSON", "Faina D. Yefremova"),
        ("我叫张伟，", "PERSON", "张伟"),
        ("收件人：欧阳娜娜", "PERSON", "欧阳娜娜"),
        ("请联系李建国先生", "PERSON", "李建国"),
        ("王经理说", "PERSON", "王"),
        ("尼古拉·特斯拉", "PERSON", "尼古拉·特斯拉"),
    ],
)
def test_what_is_found(text: str, kind: str, value: str) -> None:
    assert any(k == kind and (v == value or v.startswith(value)) for k, v in found(text)), found(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("order 4111111111111112 came", "CARD"),
        ("the total is 1,234,567.89", "PHONE"),
        ("version 1.2.3.4.5", "IP"),
        ("on 2026-03-10 at 12:30:15", "PHONE"),
        ("call 212-555-0142", "UK_NHS"),
        ("ref 219-09-99991", "US_SSN"),
        ("invoice 123456789", "US_SSN"),
        ("订单20260310123456789", "PHONE"),
        ("价格是13元，共138件", "PHONE"),
        ("订单号110105194912310021", "CN_ID"),
        ("公司成立于1980年3月12日", "BIRTH_DATE"),
        ("delivered on 12/03/2026", "BIRTH_DATE"),
        ("非常满意，谢谢", "PERSON"),
        ("高兴得不得了，安静", "PERSON"),
        ("I want my money back. Please call on Monday.", "PERSON"),
        ("The box was wet. Thank you.", "PERSON"),
        ("道路千万条，安全第一条", "ADDRESS"),
    ],
)
def test_what_is_left_alone(text: str, kind: str) -> None:
    assert kind not in [k for k, _ in found(text)], found(text)


def test_a_surname_alone_is_found_where_the_whole_name_stands_too() -> None:
    said = found("Faina D. Yefremova wrote. I think that Yefremova is right.", "PERSON")
    assert [v for _, v in said] == ["Faina D. Yefremova", "Yefremova"]
    assert [v for _, v in found("收件人：赵敏敏。赵敏敏今天不在", "PERSON")] == ["赵敏敏", "赵敏敏"]


def test_whose_rules() -> None:
    assert languages("hello there") == ["en"] and languages("你好") == ["zh"] and languages("12 34") == ["en"]
    assert languages("请联系 Jane Doe") == ["zh", "en"]
    assert {k for k, _ in found("请联系 Jane Doe，手机13812345678")} == {"PERSON", "PHONE"}
    assert found("我叫张伟", "PHONE") == []


def test_folding_keeps_places() -> None:
    text = "电话：１３８　１２３４－５６７８，ａｂ＠ｅｘ．ｃｏｍ"
    assert len(folded(text)) == len(text)
    assert {k for k, _ in found(text)} == {"PHONE", "EMAIL"}


def test_overlaps_have_one_reading_and_nothing_of_them_is_left() -> None:
    text = "abcdef ghijkl mnop"
    spans = [Span(0, 9, "A", 0.5), Span(7, 18, "B", 0.4), Span(7, 18, "C", 0.9), Span(0, 2, "D", 1.0)]
    assert resolve(spans, text) == [Span(0, 6, "A", 0.5), Span(7, 18, "C", 0.9)]
    assert resolve(list(reversed(spans)), text) == resolve(spans, text)


def test_chunks_cover_a_text_once() -> None:
    text = ("A sentence with some words. " * 1000) + "x" * 12_000
    parts = list(chunks(text))
    assert parts[0][2] == 0 and parts[-1][3] > len(text)
    assert all(one[3] == other[2] and other[0] < one[1] for one, other in pairwise(parts))
    assert all(end - start <= CHUNK for start, end, _, _ in parts)


def test_an_entity_at_a_cut_is_found_once() -> None:
    for offset in range(CHUNK - 640, CHUNK + 40, 37):
        text = "w " * (offset // 2) + "jane.doe@example.com " + "w " * 4000
        assert found(text, "EMAIL") == [("EMAIL", "jane.doe@example.com")], offset


@pytest.mark.parametrize(
    "unit", ["1", "1 ", "12-", "a", "a ", "A", "A ", "A.", "路", "区", "张", "北京", "0:", "@a.", "1\n", "Ab "]
)
def test_no_text_takes_for_ever(unit: str) -> None:
    """A megabyte, or a tenth, of what makes expressions go back: with one that is not bounded this would not end."""
    size = 1_000_000 if unit in ("1", "1 ") else 100_000
    text = unit * (size // len(unit))
    spans = entities_of(text, ENTITIES)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
