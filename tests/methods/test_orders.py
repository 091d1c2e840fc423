"""Order lines of mails, written out by hand with what a person reads in them."""

from __future__ import annotations

import random
import time

import pytest

from bizllm.methods.orders import layout
from bizllm.methods.orders.catalogue import Article, Catalogue
from bizllm.methods.orders.checks import Order, read_order
from bizllm.methods.orders.quantities import quantities
from bizllm.methods.orders.reasons import in_order

ARTICLES = [
    (Article("P001", "Larkfield kettle", "pcs", {"GBP": 38.99, "CNY": 349.0}), ["kettle", "云雀电热水壶", "水壶"]),
    (Article("P002", "Brackley toaster", "pcs", {"GBP": 44.99, "CNY": 399.0}), ["toaster", "布雷烤面包机", "烤面包机"]),
    (Article("P009", "Pebble night light", "pcs", {"GBP": 14.99, "CNY": 129.0}), ["night light", "lamp", "小灯"]),
    (Article("P010", "Hartwell desk lamp", "pcs", {"GBP": 48.99, "CNY": 439.0}), ["desk lamp", "lamp", "台灯", "小灯"]),
    (Article("P013", "Linden bed sheets", "sets", {"GBP": 58.99, "CNY": 529.0}), ["bed sheets", "四件套"]),
    (Article("P036", "Thistle tea sampler", "boxes", {"GBP": 27.99, "CNY": 249.0}), ["tea sampler", "茶礼盒"]),
]
CATALOGUE = Catalogue.learn(ARTICLES)


def read(text: str, currency: str | None = None, tolerance: float = 0.0) -> Order:
    return read_order(text, CATALOGUE, 0.8, currency, tolerance)


def lines(text: str) -> list[tuple[str | None, float | None]]:
    return [(p.article.sku if p.article else None, p.line.quantity) for p in read(text).lines]


KETTLE_TOASTER = [("P001", 12.0), ("P002", 4.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please send us 12 Larkfield kettles and four toasters.", KETTLE_TOASTER),
        ("kettle x12, toaster x 4", KETTLE_TOASTER),
        ("- 12 x kettle\n- 4 x toaster", KETTLE_TOASTER),
        ("1. kettle, 12 pcs\n2. toaster, 4 pcs", KETTLE_TOASTER),
        ("1) a dozen kettles\n2) 4 toasters", KETTLE_TOASTER),
        ("P001*12\nP002*4", KETTLE_TOASTER),
        ("P001: 12\nP002: 4", KETTLE_TOASTER),
        ("SKU | Item | Qty\nP001 | Larkfield kettle | 12\nP002 | toaster | 4", KETTLE_TOASTER),
        ("| Item | Qty |\n|---|---|\n| kettle | 12 |\n| toaster | 4 |", KETTLE_TOASTER),
        ("Qty\tArticle\n12\tkettle\n4\ttoaster", KETTLE_TOASTER),
        ("code,name,qty\nP001,Larkfield kettle,12\nP002,Brackley toaster,4", KETTLE_TOASTER),
        ("P001;Larkfield kettle;12;pcs\nP002;Brackley toaster;4;pcs", KETTLE_TOASTER),
        ("Item: kettle\nQty: 12\n\nItem: toaster\nQty: 4", KETTLE_TOASTER),
        ("we'd like\n\n12 kettles\nand 4 toasters\n\nto go with Thursday's van. Account no. 4471.", KETTLE_TOASTER),
        ("Kindly supply:\nkettle ........ 12\ntoaster ....... 4", KETTLE_TOASTER),
        ("1 kettle 12 38.99 467.88\n2 toaster 4 44.99 179.96\nTotal 647.84", KETTLE_TOASTER),
        ("请发12个水壶和四台烤面包机。", KETTLE_TOASTER),
        ("我们要订：水壶十二个；烤面包机4台。", KETTLE_TOASTER),
        ("货号\t品名\t数量\nP001\t云雀电热水壶\t12\nP002\t布雷烤面包机\t4", KETTLE_TOASTER),
        ("一打水壶，４台烤面包机", KETTLE_TOASTER),
        ("品名：水壶 数量：12个\n品名：烤面包机 数量：4台", KETTLE_TOASTER),
        ("12 Larkfeild kettles and 4 Brackly toaster please, send soon", KETTLE_TOASTER),
        ("I'd like to order a kettle and two toasters.", [("P001", 1.0), ("P002", 2.0)]),
        ("12 Larkfield kettles\n5 Marlow waffle irons\n4 toasters", [("P001", 12.0), (None, 5.0), ("P002", 4.0)]),
        ("Marlow waffle iron (5)\nkettle (12)", [(None, 5.0), ("P001", 12.0)]),
        ("Marlow waffle iron | 5\nkettle | 12", [(None, 5.0), ("P001", 12.0)]),
        ("Marlow waffle iron | 5 | £9.00\nkettle | 12 | £38.99", [(None, 5.0), ("P001", 12.0)]),
        ("4 toasters\nJo Ames | Buyer | +44 20 7946 0958", [("P002", 4.0)]),
        ("5 lamps\n2 desk lamps", [(None, 5.0), ("P010", 2.0)]),
        ("Please send 3 Marlow waffle irons and 2 kettles.", [(None, 3.0), ("P001", 2.0)]),
        ("- kettle\n- 4 x toaster", [("P001", None), ("P002", 4.0)]),
        ("The 2 kettles from last week were fine.\n\n4 x toaster", [("P002", 4.0)]),
        ("4 x toaster\n\nOn 3 June Fernhollow wrote:\n> 20 x kettle", [("P002", 4.0)]),
        ("4 x toaster\n\n-----Original Message-----\nFrom: x\nSent: y\n\n20 x kettle", [("P002", 4.0)]),
        ("When will you have kettles? We sold 30 of them in May.", []),
        ("", []),
        ("Call +44 20 7946 0958 before 3 July 2026, 10% off", []),
    ],
)
def test_lines(text: str, expected: list[tuple[str | None, float | None]]) -> None:
    assert lines(text) == expected


def test_each_line_says_where_it_stood_and_what_it_costs() -> None:
    text = "- 12 x kettle @ £38.99\n- Linden bed sheets, 2 sets = £117.98\n\nTotal: £585.86. Our PO number: PO-4711"
    order = read(text)
    first, second = order.lines
    assert text[first.line.start : first.line.end] == "12 x kettle @ £38.99"
    assert (first.price, first.list_price, first.amount, first.line.unit) == (38.99, 38.99, 467.88, None)
    assert (second.price, second.list_price, second.amount, second.line.unit) == (None, 58.99, 117.98, "set")
    assert (order.currency, order.total, order.stated_total, order.number) == ("GBP", 585.86, 585.86, "PO-4711")
    assert order.reasons == ()


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("Thank you for everything.", ["no_items"]),
        ("12 x kettle\n3 x flying carpet", ["unknown_item"]),
        ("12 x kettle\n3 x P117", ["unknown_item"]),
        ("12 x lamp", ["ambiguous_item"]),
        ("12 x kettle\n2 x P001", ["item_twice"]),
        ("Please send kettles and 4 toasters.", ["quantity_missing"]),
        ("0 x kettle", ["quantity_odd"]),
        ("2.5 x kettle", ["quantity_odd"]),
        ("3 cartons of kettles", ["unit_differs"]),
        ("3箱水壶", ["unit_differs"]),
        ("3 boxes of tea sampler", []),
        ("3 pcs bed sheets", []),
        ("12 x kettle @ £35.00", ["price_differs"]),
        ("12 x kettle @ €38.99", ["currency"]),
        ("12 x kettle @ £38.99 = £400.00", ["amount_differs"]),
        ("12 x kettle @ £38.99\n\nTotal: £500.00", ["total_differs"]),
        ("12 x kettle\n\n合计：¥4,188.00", []),
        ("12 x kettle\n\n合计：¥4,000.00", ["total_differs"]),
        ("Please send 3 kettles, and cancel the order of June.", ["other_request"]),
        ("Can you quote for 3 kettles?", ["other_request"]),
        ("12 x kettle\n\nPlease send 40 pcs.", ["unread_count"]),
        ("12 x kettle\n\nThe shop keeps about 40 pcs in all.", []),
        ("12 x kettle\n\nPlease quote our order number on the invoice.", []),
    ],
)
def test_reasons(text: str, reasons: list[str]) -> None:
    assert list(read(text).reasons) == reasons


def test_prices_without_a_currency_and_with_a_tolerance() -> None:
    assert read("12 x kettle @ 38.99", "GBP").total == 467.88
    assert read("12 x kettle", "CNY").total == 4188.0 and read("12 x kettle").total is None
    assert read("12 x kettle @ £38.00").reasons == ("price_differs",)
    assert read("12 x kettle @ £38.00", tolerance=0.05).reasons == ()
    plain = Catalogue.learn([(Article("A1", "tin cup", None, {"": 5.0}), [])])
    assert read_order("3 x tin cup @ £5.00", plain, 0.8, None, 0.0).reasons == ()
    priceless = Catalogue.learn([(Article("A1", "tin cup", None, {}), [])])
    order = read_order("3 x tin cup @ £7.00", priceless, 0.8, None, 0.0)
    assert order.reasons == () and order.total == 21.0


def test_a_name_alone_and_in_company() -> None:
    def skus(words: str) -> tuple[tuple[str, ...], str]:
        match = CATALOGUE.resolve(words)
        return match.skus if match.score >= 0.8 else (), match.how

    assert skus("P001") == (("P001",), "sku") and skus("larkfield KETTLES") == (("P001",), "name")
    assert skus("水壶") == (("P001",), "alias") and skus("lamp") == (("P009", "P010"), "alias")
    assert skus("Larkfield kettle in cream (P001)") == (("P001",), "part")
    assert skus("Hartwell lamp")[0] == ("P010",)
    assert skus("Larkfeild ketle") == (("P001",), "fuzzy") and skus("bedsheets")[0] == ("P013",)
    assert skus("Marlow electric travel kettle")[0] == (), "a short name of ours among another's words"
    assert skus("P01") == ((), "") and skus("") == ((), "")


def test_the_catalogue_is_the_same_when_loaded_and_in_any_order() -> None:
    again = Catalogue.of(CATALOGUE.state())
    assert again.articles == CATALOGUE.articles and again.terms == CATALOGUE.terms
    split = [
        (Article(a.sku, a.name, a.unit, {code: price}), names)
        for a, names in ARTICLES
        for code, price in a.prices.items()
    ]
    for seed in range(3):
        shuffled = Catalogue.learn(random.Random(seed).sample(split, len(split)))
        assert shuffled.articles == CATALOGUE.articles and shuffled.terms == CATALOGUE.terms


def test_the_same_order_has_the_same_content_in_any_layout() -> None:
    texts = ["12 kettles, 4 toasters", "- P002, 4 pcs\n- P001, 12 pcs", "请发4台烤面包机和十二个水壶"]
    assert len({read(text).content(text) for text in texts}) == 1
    assert read("12 kettles, 5 toasters").content("") != read(texts[0]).content(texts[0])


def test_quoted_parts_are_blanked_in_place() -> None:
    text = "5 kettles\n> 3 lamps\nthanks\nOn Monday, Jo wrote:\n4 toasters"
    own = layout.own_part(text)
    assert len(own) == len(text) and own.split() == ["5", "kettles", "thanks"]


def test_what_is_no_quantity() -> None:
    text = "PO 12345, room 4, 007, 12345678 and 一起"
    assert [q.value for q in quantities(text, 0, len(text))] == []
    text = "3km, 12pcs, x5, 2 dozen, 个P088"
    assert [(q.value, q.unit, q.strong) for q in quantities(text, 0, len(text))] == [
        (12.0, "piece", True),
        (5.0, None, True),
        (24.0, "piece", True),
    ]


def test_reasons_come_in_one_order() -> None:
    assert in_order({"duplicate", "no_items", "total_differs"}) == ("no_items", "total_differs", "duplicate")


@pytest.mark.parametrize(
    "text", ["12 x kettle\n" * 3_000, "kettle, " * 5_000, "1 " * 30_000, "| | " * 15_000, "请发" * 20_000]
)
def test_no_mail_takes_long(text: str) -> None:
    began = time.process_time()
    read(text)
    assert time.process_time() - began < 20
