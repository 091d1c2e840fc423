"""A mail → its order lines. One reading for all layouts: cells of a table, values of a block, and the clauses of lists
and sentences fill a line one after the other; a new article begins a new one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import combinations

from bizllm.methods.orders import layout, wording
from bizllm.methods.orders.catalogue import NOTHING, Catalogue, Match
from bizllm.methods.orders.drafts import Draft, OrderLine, apart, inside
from bizllm.methods.orders.layout import Cell, Row
from bizllm.methods.orders.quantities import Quantity, quantities
from bizllm.methods.pii.folding import folded
from bizllm.methods.values import amounts, dates, marks, measures, numerals
from bizllm.methods.values.found import Found

_HIDDEN = "\x01"  # stands for a character that is part of something else than a quantity
_NO_COUNTS = (measures.percents, measures.durations, marks.emails, marks.urls, marks.phones)
_FIGURES = 8  # numbers beside an article that are looked at
_LINE = 80  # characters that a line of a list without marks has at most


class Reader:
    """Reads one mail. least: the score from which words mean an article."""

    def __init__(self, text: str, catalogue: Catalogue, least: float) -> None:
        self.text = folded(layout.own_part(text))
        self.catalogue, self.least = catalogue, least
        self.mentions = catalogue.terms.find(self.text)
        self.money = apart(amounts.amounts(self.text), self.mentions)
        hidden = [(m.start, m.end) for m in self.mentions]
        hidden += [(m.start, self._each(m.end)) for m in self.money]
        for found in (
            dates.dates(self.text, date(2000, 1, 1)),
            *(
                read(self.text)
                for read in (measures.percents, measures.durations, marks.emails, marks.urls, marks.phones)
            ),
        ):
            hidden += [(f.start, f.end) for f in apart(found, self.mentions)]
        quiet = list(self.text)
        for start, end in hidden:
            quiet[start:end] = _HIDDEN * (end - start)
        self.quiet = "".join(quiet)
        self.lines: list[OrderLine] = []
        self.heads: list[tuple[int, int]] = []  # of tables
        self.asides: list[tuple[int, int]] = []  # sentences of something else
        self.draft = Draft()

    def read(self) -> list[OrderLine]:
        """The mail's lines, in order."""
        asked = False  # a sentence that asks goes on in the next line
        kind, first = "", 0  # of the paragraph: its first line among `lines`
        left: list[Cell] = []  # its lines of prose in which nothing was found
        for row in layout.rows(self.text):
            if row is None or row.kind != "block" or kind != "block":
                self.flush()
            kind = row.kind if row else ""
            before = len(self.lines)
            if row is None or row.head:
                asked = False
                self.heads += [(row.cells[0].start, row.cells[-1].end)] if row and row.cells else []
            elif row.kind in ("table", "block"):
                self._cells(row)
            elif row.kind == "prose":
                asked = self._prose(row.cells[0], asked)
                left += [row.cells[0]] if len(self.lines) == before else []
            else:
                self._listed(row)
            if row is None:
                self._beside(left if len(self.lines) > first else [])
                left, first = [], len(self.lines)
        self.flush()
        self._beside(left if len(self.lines) > first else [])
        return sorted(self.lines, key=lambda line: line.start)

    def _beside(self, left: Sequence[Cell]) -> None:
        """Lines of prose among order lines that begin or end with a count: of what is not ours, most likely."""
        for part in left:
            counts = [*quantities(self.quiet, part.start, part.end)]
            said = self.text[part.start : part.end]
            if len(counts) != 1 or len(said) > _LINE or wording.PAST.search(said) or wording.SUM.search(said):
                continue
            around = self.text[part.start : counts[0].start], self.text[counts[0].end : part.end]
            if any(not wording.LETTER.search(side) for side in around):
                for clause in self._clauses(part):
                    self._clause(clause, sure=True, alone=True)
                self.flush()

    def unread(self) -> bool:
        """Whether something is counted that no line has: a line may have been missed."""
        told = bytearray(len(self.quiet))
        for start, end in (*((line.start, line.end) for line in self.lines), *self.asides, *self.heads):
            told[start:end] = b"\1" * (end - start)
        return any(q.strong and not any(told[q.start : q.end]) for q in quantities(self.quiet, 0, len(self.quiet)))

    def flush(self) -> None:
        """The draft becomes a line, where something is asked for in it."""
        draft, self.draft = self.draft, Draft()
        match = draft.match
        if match.score < self.least:
            match = Match((), match.how, match.score)
            if not (draft.sure and draft.quantity and any(map(wording.LETTER.search, draft.words))):
                return
        elif draft.quantity is None and not draft.sure:
            return
        unit = draft.unit or (draft.quantity.unit if draft.quantity else None)
        currency = next((f.unit for f in (draft.price, draft.amount) if f is not None and f.unit), None)
        self.lines.append(
            OrderLine(
                draft.start,
                draft.end,
                match,
                draft.quantity.value if draft.quantity else None,
                unit,
                float(draft.price.value) if draft.price else None,
                float(draft.amount.value) if draft.amount else None,
                currency,
            )
        )

    # -- layouts --------------------------------------------------------------------------------------------------

    def _cells(self, row: Row) -> None:
        """A row of a table, or keys with values."""
        if row.kind == "table":
            self.flush()
        for cell in row.cells:
            said = self.text[cell.start : cell.end].strip()
            if cell.role in ("sku", "item"):
                has = [c.role for c in row.cells]
                if row.kind == "block" and self.draft.words and not {"sku", "item"} <= {*has}:
                    self.flush()
                self._item(cell.start, cell.end)
                self.draft.sure = True
            elif cell.role == "quantity" and said:
                self._count(next(quantities(self.text, cell.start, cell.end), None))
            elif cell.role == "unit" and said:
                self.draft.unit = (measures.unit_of(said) or (said.lower(), 1.0))[0]
            elif cell.role in ("price", "amount") and said:
                self._worth(next(iter(self._prices(cell, bare=True)), None), cell.role)
        if row.kind == "table":
            self.flush()

    def _listed(self, row: Row) -> None:
        """A line of a list, or cells without a header."""
        if row.kind == "row" and not any(map(self._says_something, row.cells)):
            return
        self.flush()
        if row.kind == "row" and not any(inside(self.mentions, cell) for cell in row.cells):  # none of ours
            named = [cell for cell in row.cells if wording.LETTER.search(self.text, cell.start, cell.end)]
            for cell in sorted(named, key=lambda cell: cell.start - cell.end)[:1]:
                self._item(cell.start, cell.end)
                self.draft.sure = True
        for cell in row.cells:
            for clause in self._clauses(cell):
                self._clause(clause, sure=True, alone=True)
        self.flush()

    def _says_something(self, cell: Cell) -> bool:
        """Whether a cell of a row without a header names an article of ours, or is a count and nothing else."""
        counts = [*quantities(self.quiet, cell.start, cell.end)]
        alone = len(counts) == 1 and counts[0].end - counts[0].start == len(self.text[cell.start : cell.end].strip())
        return alone or bool(inside(self.mentions, cell))

    def _prose(self, cell: Cell, asked: bool) -> bool:
        """Sentences of a line. Whether the next line goes on with one that asks for something."""
        at = cell.start
        for end, last in [
            *((m.end(), False) for m in wording.SENTENCE.finditer(self.quiet, cell.start, cell.end)),
            (cell.end, True),
        ]:
            if self.text[at:end].strip():
                part = Cell(at, end)
                summed = wording.SUM.search(self.text, at, end) and not inside(self.mentions, part)
                if not summed and not wording.PAST.search(self.text, at, end):
                    asks = wording.ASKS.search(self.text, at, end)
                    short = last and at == cell.start and end - at <= _LINE and self._is_item_line(part)
                    for clause in self._clauses(part):
                        first = asked or (asks is not None and asks.start() < clause.end)
                        self._clause(clause, sure=first or short, alone=short)
                    if not (asked or short or asks):
                        self.asides.append((at, end))
                    asked = last and (asked or asks is not None)
                    self.flush()
                else:
                    asked = False
                    self.asides.append((at, end))
            if not last:
                asked = False
            at = end
        return asked and not re.search(r"[:：]\s*$", self.text[cell.start : cell.end])

    def _is_item_line(self, part: Cell) -> bool:
        """Whether the line is little else than one article, or a counted one."""
        found = inside(self.mentions, part)
        covered = sum(m.end - m.start for m in found)
        counted = any(q.strong for q in quantities(self.quiet, part.start, part.end))
        return covered >= 0.6 * len(self.text[part.start : part.end].strip()) or (
            counted and not wording.SENTENCE.search(self.text, part.start, part.end - 1)
        )

    # -- clauses --------------------------------------------------------------------------------------------------

    def _clauses(self, cell: Cell) -> Iterator[Cell]:
        """What commas and conjunctions part, and then counts of several articles that nothing parts."""
        at = cell.start
        for end, following in [
            *((m.start(), m.end()) for m in wording.BREAK.finditer(self.quiet, cell.start, cell.end)),
            (cell.end, cell.end),
        ]:
            if self.text[at:end].strip():
                yield from self._counted_apart(Cell(at, end))
            at = following

    def _counted_apart(self, part: Cell) -> Iterator[Cell]:
        counts = [q for q in quantities(self.quiet, part.start, part.end) if q.strong]
        found = inside(self.mentions, part)
        if len(counts) < 2 or len(found) < 2:
            yield part
            return
        before = counts[0].start < found[0].start
        cuts = [q.start for q in counts[1:]] if before else [q.end for q in counts[:-1]]
        for start, end in zip([part.start, *cuts], [*cuts, part.end], strict=True):
            yield Cell(start, end)

    def _clause(self, part: Cell, sure: bool, alone: bool) -> None:
        """One clause: an article, how many, what it costs, or some of these. alone: it is no part of a sentence, so
        that words without a count may be an article, too."""
        worth = self._prices(part, bare=False)
        end = min([part.end, *(f.start for f in worth)])
        counts = [*quantities(self.quiet, part.start, part.end)]
        count = max(counts, key=lambda q: (q.strong, -q.start), default=None)
        if count is not None and not count.strong and len(counts) > 1 and inside(self.mentions, part):
            self._figures(part, counts)
            return
        words = self._words(Cell(part.start, end), count, sure)
        if words is None and count is None and (sure or alone):  # a name misspelled, and its count forgotten
            side = self._after_asking(Cell(part.start, end))
            near = self.catalogue.resolve(wording.AROUND.sub("", self.text[side.start : end]))
            words = side if near.score >= self.least else None
        if words is None and count is None and wording.SUM.search(self.text, part.start, end):
            return  # the whole order's
        if words is not None and count is None and wording.ONE.search(self.text, part.start, words.start):
            count = Quantity(words.start, words.start, 1.0, None, "", True)
        if words is not None:
            if count is not None and self.draft.quantity is not None:
                self.flush()
            self._item(words.start, words.end)
        if count is not None and (self.draft.words or words is not None):
            if self.draft.quantity is None:
                self._count(count)
            elif not count.strong and re.fullmatch(r"\d+[.,]\d\d", self.text[count.start : count.end]):
                worth = [*worth, Found(count.start, count.end, numerals.value(self.text[count.start : count.end]), 0.5)]
        if self.draft.words:
            self.draft.sure |= sure
            for found in worth:
                self._worth(found, "")

    def _figures(self, part: Cell, counts: Sequence[Quantity]) -> None:
        """An article among several bare numbers, as in columns that blanks part: those of which two make the third are
        quantity, price and amount. Where none do, the quantity is not known."""
        self.flush()
        found = inside(self.mentions, part)
        self._item(found[0].start, found[-1].end)
        self.draft.sure = True
        for count, price, amount in combinations(counts[:_FIGURES], 3):
            if count.value.is_integer() and abs(count.value * price.value - amount.value) < 0.005:
                self._count(count)
                for of, role in ((price, "price"), (amount, "amount")):
                    self._worth(Found(of.start, of.end, of.value, 0.5), role)
                return
        whole = [q for q in counts if self.text[q.start : q.end].isalnum()]
        if len(whole) == 1:
            self._count(whole[0])

    def _words(self, part: Cell, count: Quantity | None, sure: bool) -> Cell | None:
        """The words of a clause that name an article: behind the count, or before it."""
        found = inside(self.mentions, part)
        if count is None:
            return Cell(found[0].start, found[-1].end) if found else None
        behind, before = Cell(min(count.end, part.end), part.end), Cell(part.start, min(count.start, part.end))
        for side in (behind, before):
            if named := inside(self.mentions, side):
                return self._whole(side, named[0].start, named[-1].end, side is behind)
        # None of ours: nearly one of ours, or another's.
        best, which = NOTHING, None
        for side in (behind, self._after_asking(before)):
            said = wording.AROUND.sub("", self.text[side.start : side.end])
            if not wording.LETTER.search(said):
                continue
            match = self.catalogue.resolve(said)
            if which is None or match.score > best.score:
                best, which = match, side
        another = which is not None and sure and len(wording.AROUND.sub("", self.text[which.start : which.end])) > 1
        return which if best.score >= self.least or another else None

    def _whole(self, side: Cell, start: int, end: int, behind: bool) -> Cell:
        """A name with the words that belong to it: "Marlow" of "Marlow kettle", so that it is told from ours."""
        if behind:
            return Cell(side.start, end)
        mark = max((self.text.rfind(c, side.start, start) + 1 for c in ":：–—"), default=0)
        return Cell(max(mark, self._after_asking(Cell(side.start, end)).start), end)

    def _after_asking(self, part: Cell) -> Cell:
        """What stands behind the last word that asks for something."""
        asks = [m.end() for m in wording.ASKS.finditer(self.quiet, part.start, part.end) if m.end() < part.end]
        return Cell(asks[-1], part.end) if asks else part

    # -- a line's parts -------------------------------------------------------------------------------------------

    def _item(self, start: int, end: int) -> None:
        said = wording.AROUND.sub("", self.text[start:end])
        if not said:
            return
        match = self.catalogue.resolve(said)
        if self.draft.words:
            common = tuple(sku for sku in match.skus if sku in self.draft.match.skus)
            if common and match.score >= self.least:
                match = replace(max(match, self.draft.match, key=lambda m: m.score), skus=common)
            elif self.draft.sure and match.score < self.least and self.draft.match.score >= self.least:
                match = self.draft.match  # a table's second column of names, misspelled
            elif self.draft.quantity is None and self.draft.match.score < self.least:
                pass  # the words before were none of ours
            else:
                self.flush()
        self.draft.words.append(said)
        self.draft.match = match
        at = self.text.index(said, start)
        self.draft.reach(at, at + len(said))

    def _count(self, count: Quantity | None) -> None:
        if count is not None:
            self.draft.quantity = count
            self.draft.reach(count.start, count.end)

    def _worth(self, found: Found | None, role: str) -> None:
        """An amount of money in the line: the price of one, or of all."""
        if found is None:
            return
        before = self.text[max(0, found.start - 12) : found.start]
        if not role:
            role = "amount" if wording.IS_AMOUNT.search(before) else "price" if wording.IS_PRICE.search(before) else ""
        if role == "amount" or (not role and self.draft.price is not None):
            self.draft.amount = self.draft.amount or found
        else:
            self.draft.price = self.draft.price or found
        self.draft.reach(found.start, found.end)

    def _prices(self, part: Cell, bare: bool) -> list[Found]:
        """The money in a part of the mail; bare: a number alone counts, too."""
        found = inside(self.money, part)
        if found or not bare:
            return found
        alone = numerals.numbers(self.text[part.start : part.end])
        return [Found(part.start + f.start, part.start + f.end, f.value, f.score) for f in alone]

    def _each(self, end: int) -> int:
        """Where a price ends, with "a piece" behind it."""
        match = wording.EACH.match(self.text, end)
        return match.end() if match else end
