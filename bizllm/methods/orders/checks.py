"""What a person should look at before an order is entered: articles, quantities, prices and totals that do not fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bizllm.methods import fields
from bizllm.methods.fields import FieldRule
from bizllm.methods.orders import wording
from bizllm.methods.orders.catalogue import Article, Catalogue
from bizllm.methods.orders.drafts import OrderLine
from bizllm.methods.orders.reading import Reader
from bizllm.methods.orders.reasons import in_order
from bizllm.methods.values import measures

CENT = 0.005

_TOTALS = ["total", "in all", "altogether", "amount due", "comes to", "sum"]
_TOTALS += ["合计", "总共", "总金额", "总价", "总额", "一共", "共计", "总计", "应付"]
_TOTAL = FieldRule("amount", near=fields.cue_words(_TOTALS))
_DECIMALS = re.compile(r"[.,]\d\d$")
_NUMBER = re.compile(
    r"(?:(?<![A-Za-z])(?:purchase order|order (?:no|nr|number|ref)|p\.?o\.?|(?:our |your )?ref(?:erence)?)(?![a-z])"
    r"|采购单号?|订单编?号|订单|单号)(?: ?(?:number|no|nr|is|号|为|是)){0,2}[\s.:：#]{0,4}"
    r"(?P<number>[A-Z0-9][A-Z0-9-]{3,24})"
    r"(?![A-Za-z0-9-])",
    re.I,
)


@dataclass(frozen=True)
class Priced:
    """An order line beside the catalogue. article: None where it is not one of ours, or may be several. list_price: in
    the order's currency; None where the catalogue has none. reasons: what is wrong with the line."""

    line: OrderLine
    article: Article | None
    price: float | None
    list_price: float | None
    amount: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """What a mail orders. currency: of its amounts. total: of the lines; None where it can't be told. stated_total,
    number: as the mail states them. reasons: everything that is wrong, once each."""

    lines: tuple[Priced, ...]
    currency: str | None
    total: float | None
    stated_total: float | None
    number: str | None
    reasons: tuple[str, ...]

    def content(self, text: str) -> str:
        """The same for two mails that order the same: articles and quantities, whatever their order."""
        named = (
            (p.article.sku if p.article else " ".join(text[p.line.start : p.line.end].split()), p.line.quantity)
            for p in self.lines
        )
        return repr(sorted(named, key=repr))


def read_order(text: str, catalogue: Catalogue, least: float, currency: str | None, tolerance: float) -> Order:
    """Read a mail and check it. currency: where the mail names none. tolerance: share by which a price may differ."""
    reader = Reader(text, catalogue, least)
    lines = reader.read()
    stated, stated_in = _total(reader, lines)
    named = Counter(code for code in (*(line.currency for line in lines), stated_in) if code)
    used = min(named, key=lambda code: (-named[code], code)) if named else currency
    priced = [_priced(line, catalogue, used, tolerance) for line in lines]
    amounts = [p.amount for p in priced]
    total = round(sum(a for a in amounts if a is not None), 2) if priced and None not in amounts else None
    wrong = {reason for p in priced for reason in p.reasons} | (set() if lines else {"no_items"})
    if lines and reader.unread():
        wrong.add("unread_count")
    if lines and wording.OTHER.search(reader.text):
        wrong.add("other_request")
    named_twice = Counter(p.article.sku for p in priced if p.article is not None)
    if max(named_twice.values(), default=0) > 1:
        wrong.add("item_twice")
    if total is not None and stated is not None and abs(total - stated) > CENT + tolerance * abs(total):
        wrong.add("total_differs")
    return Order(tuple(priced), used, total, stated, _number(reader), in_order(wrong))


def _priced(line: OrderLine, catalogue: Catalogue, currency: str | None, tolerance: float) -> Priced:
    wrong = set()
    article = catalogue.articles[line.match.skus[0]] if len(line.match.skus) == 1 else None
    if article is None:
        wrong.add("ambiguous_item" if line.match.skus else "unknown_item")
    count = line.quantity
    if count is None:
        wrong.add("quantity_missing")
    elif count <= 0 or (not count.is_integer() and _counted(line.unit)):
        wrong.add("quantity_odd")
    price, amount, asked = line.price, line.amount, None
    if article is not None:
        if not _same_unit(line.unit, article.unit):
            wrong.add("unit_differs")
        asked = _list_price(article, currency, price)
        if article.prices and asked is None and currency is not None:
            wrong.add("currency")
    if price is not None and asked is not None and count is not None:
        off = abs(price - asked) > CENT + tolerance * asked
        if off and amount is None and abs(price - asked * count) <= CENT + tolerance * asked * count:
            price, amount = None, price  # what stood there was for all of them
        elif off:
            wrong.add("price_differs")
    worth = price if price is not None else asked
    whole = round(worth * count, 2) if worth is not None and count is not None else None
    if amount is not None and whole is not None and abs(amount - whole) > CENT + tolerance * abs(whole):
        wrong.add("amount_differs")
    return Priced(line, article, price, asked, whole, in_order(wrong))


def _list_price(article: Article, currency: str | None, stated: float | None) -> float | None:
    if "" in article.prices:
        return article.prices[""]
    if currency is not None:
        return article.prices.get(currency)
    if len(article.prices) == 1:
        return next(iter(article.prices.values()))
    # A mail that names no currency: the price that it states tells which it means.
    return next((p for _, p in sorted(article.prices.items()) if stated is not None and abs(p - stated) <= CENT), None)


def _same_unit(said: str | None, sold: str | None) -> bool:
    """A piece of what is sold by the set is a set; a box of it is another matter."""
    known = measures.unit_of(sold) if sold else None
    return said is None or known is None or said in (known[0], "piece")


def _counted(unit: str | None) -> bool:
    return unit not in ("kilogram", "gram", "tonne", "litre", "metre")


def _total(reader: Reader, lines: Sequence[OrderLine]) -> tuple[float | None, str | None]:
    """(the total that the mail states outside its lines, its currency)."""
    rest = list(reader.text)
    for start, end in (*((line.start, line.end) for line in lines), *reader.heads):
        rest[start:end] = " " * (end - start)
    text = "".join(rest)
    found = fields.read(text, replace(_TOTAL, many=True), None, True)
    sure = [f for f in found if f.score >= 0.3 and (f.unit or _DECIMALS.search(text[f.start : f.end]))]
    best = max(sure, key=lambda f: (f.score, f.start), default=None)
    return (float(best.value), best.unit) if best else (None, None)


def _number(reader: Reader) -> str | None:
    """The customer's number of the order."""
    found = (m["number"].upper() for m in _NUMBER.finditer(reader.text))
    return next((n for n in found if any(c.isdigit() for c in n)), None)
