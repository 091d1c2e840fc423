"""What each customer may want next, or what goes with each item, from who bought what and when.

Which mix of neighbours, factors, trend and habit recommends is decided each night by what customers bought in the last
weeks, when only the weeks before were known (`bizllm.methods.together`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from bizllm.methods import together
from bizllm.methods.documents import is_text
from bizllm.methods.likeness import Texts
from bizllm.methods.together import BLOCK, Array, Ints, Mix, Together
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _texts, _visits
from bizllm.tasks._texts import Faults
from bizllm.tasks._visits import History, Ranked
from bizllm.tasks.base import Combined, Groups, Learned, Models, Outcome, Shape, TableRead, Task, TaskSettings

Bools = npt.NDArray[np.bool_]

MOST_NEW = 20_000  # items that nobody bought, and that are reached through their texts
NEAREST = 3  # known items that speak for such a one
LEAST_LIKE = 0.2  # under this likeness nothing is said
_MOST_CHARS = 4_000


class Items(TableRead):
    """What may be recommended: nothing that does not stand here."""

    item: str = Field(description="The column of items, as in the input.")
    text: str | None = Field(default=None, description="A text on the item, by which new items are like known ones.")
    title: str | None = Field(default=None, description="Its name, which is told beside each recommendation.")


class RecommendSettings(TaskSettings):
    """What `task: recommend` takes."""

    entity: str = Field(description="Column of the customer.")
    item: str = Field(description="Column of what was bought or clicked.")
    time: str = Field(description="Date or timestamp of the row. Timestamps with a timezone count in UTC.")
    weight: str | None = Field(
        default=None,
        description="How much a row counts, such as a quantity, or 1 for a click and 5 for an order; by its logarithm. "
        "Rows of 0 or less (returns) don't.",
    )
    per: Literal["customer", "item"] = Field(
        default="customer", description="Items for each customer, or for each item those that are bought with it."
    )
    k: Annotated[int, Field(ge=1, le=100)] = Field(default=10, description="The most items for each.")
    repurchase: bool = Field(default=False, description="Whether what a customer bought may be recommended again.")
    new_places: NonNegativeInt = Field(
        default=0,
        description="The last of the k places, kept for items that nobody bought; they would seldom come first.",
    )
    horizon_days: PositiveInt = Field(
        default=28, description="The last days of the history, by which the mix is chosen that recommends best."
    )
    items: Items | None = Field(default=None, description="The catalogue; without it, whatever was ever bought.")
    model: str | None = Field(default=None, description="An encoder for the items' texts, beside their words.")
    history: History | None = Field(
        default=None,
        description="Rows to learn from, where the input has more than 2,000,000: the last year's, or a sample of the "
        "customers. By default the input.",
    )

    @model_validator(mode="before")
    @classmethod
    def _learns_of_its_input(cls, settings: Any) -> Any:
        return _visits.history_of(settings)

    @model_validator(mode="after")
    def _model_reads_texts(self) -> RecommendSettings:
        if self.model is not None and (self.items is None or self.items.text is None):
            raise ValueError("expected `items` with a `text` beside `model`")
        if self.new_places > self.k or (self.new_places and (self.items is None or self.items.text is None)):
            raise ValueError("expected `new_places` of at most `k`, and `items` with a `text` beside it")
        return self


class Recommend(Task):
    """The k items with the highest scores for each customer, or the k most alike for each item."""

    name = "recommend"
    version = 1
    Settings = RecommendSettings
    shapes = ("group",)
    summary = "What each customer may want next, or what is bought with each item, with the reason."
    takes = (
        "Rows of a customer, an item and a time: orders or clicks; maybe a catalogue with texts, in a table of its own."
    )
    example = (
        "next_items: {task: recommend, input: order_lines, entity: customer_id, item: product_id, time: ordered_at, "
        "items: {input: products, item: product_id, text: description, title: name}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "rank": "int: from 1, the best first",
        "item": "as in the input: what is recommended",
        "title": "string: its name, where `items` has one",
        "score": "double: comparable within one customer, or one item",
        "reason": "string: bought_together, bought_before, similar (by text, to an item that nobody bought) or popular",
        "because": "as in the input: of bought_together and similar the item that speaks for it most",
        "because_title": "string: its name",
        "together": "int: how many customers bought both",
        "method": "string: neighbours, factors, neighbours and factors, or popular; item_neighbours per item",
        "backtest_ndcg": "double in [0, 1]: NDCG@k of it in the last `horizon_days`; null with too few customers",
        "backtest_popular": "double in [0, 1]: the same of the items that sold most",
    }
    settings: RecommendSettings

    _model: Together | None = None
    _mix: Mix
    _encoder: Any = None

    @property
    def shape(self) -> Shape:
        return "group"

    def reads(self) -> list[str]:
        s = self.settings
        return [s.entity, s.item, s.time, *([s.weight] if s.weight is not None else [])]

    def group_by(self) -> list[str]:
        return [self.settings.entity if self.settings.per == "customer" else self.settings.item]

    def keys(self) -> list[str]:
        return [*self.group_by(), "rank"]

    def columns(self) -> pa.Schema:
        item = self._item_type
        return pa.schema(
            [
                ("rank", pa.int32()),
                ("item", item),
                ("title", pa.string()),
                ("score", pa.float64()),
                ("reason", pa.string()),
                ("because", item),
                ("because_title", pa.string()),
                ("together", pa.int32()),
                ("method", pa.string()),
                ("backtest_ndcg", pa.float64()),
                ("backtest_popular", pa.float64()),
            ]
        )

    def rules(self) -> dict[str, str]:
        return {
            "the rank is between 1 and k": f"rank between 1 and {self.settings.k}",
            "there is an item": "item is not null",
            "the score is finite and not negative": "isfinite(score) and score >= 0",
            "a reason that names an item has one": "(reason in ('bought_together', 'similar')) = (because is not null)",
            "no item speaks for itself": "because is null or item <> because",
            "the backtest lies in [0, 1]": "coalesce(backtest_ndcg, 0) between 0 and 1",
        }

    def check(self) -> Faults:
        s = self.settings
        group = "entity" if s.per == "customer" else "item"
        faults = _visits.column_faults(s, self.source, group, self.columns().names)
        if faults:
            return faults
        if s.per == "item" and s.repurchase:
            faults.append(("repurchase", True, "is for `per: customer`", "leave it out"))
        entity, item, *_ = _visits.columns_of(s.history)
        faults += _visits.same_type_faults("history.item", item, self.others["history"], self._item_type)
        kind = self.source.schema.field(s.entity).type
        faults += _visits.same_type_faults("history.entity", entity, self.others["history"], kind)
        if s.items is not None:
            there = self.others["items"]
            faults += _visits.same_type_faults("items.item", s.items.item, there, self._item_type)
            named = {"items.text": s.items.text, "items.title": s.items.title}
            faults += _texts.column_faults(there.schema, {k: column for k, column in named.items() if column})
        return faults

    def models(self) -> dict[str, str]:
        return {"encoder": self.settings.model} if self.settings.model is not None else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> Faults:
        return _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return 0, 20 + rows * 3e-5

    # -- the work -------------------------------------------------------------------------------------------------

    def open(self, models: Models) -> None:
        if self.learned is not None:
            names = ("likeness", "both", "factors", "popular", "trend")
            self._mix = Mix(**self.learned["mix"])
            self._model = Together(self._mix.memory, *(self.learned[name] for name in names))
        elif self.settings.model is not None:
            self._encoder = models.encoder(self.settings.model)

    def combine(self, rows: pa.Table) -> Combined:
        s = self.settings
        found = _visits.combine(rows, s.entity, s.item, s.time, s.weight, self.run_date)
        if s.per == "customer":
            return found
        return Combined(found.rows.filter(found.rows[s.item].is_valid()), found.rejects)  # a return is of no group

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        """The mix, what it needs, and the names and likenesses of items; of nothing that came after the run date."""
        s = self.settings
        entity, item, time, weight = _visits.columns_of(s.history)
        rows = _visits.combine(tables["history"], entity, item, time, weight, self.run_date).rows
        known = _most_bought(rows, entity, item)
        events, _ = _visits.events(rows, entity, item, self.run_date, known)
        chosen = (
            together.Backtest(Mix("neighbours"))
            if s.per == "item"
            else together.backtest(events, s.horizon_days, s.k, s.repurchase)
        )
        model = together.learn(events, chosen.mix.memory)
        said: Learned = {"mix": vars(chosen.mix) | {}, "ndcg": chosen.ndcg, "popular_ndcg": chosen.popular}
        said |= {name: getattr(model, name) for name in ("likeness", "both", "factors", "popular", "trend")}
        return said | self._catalogue(known, tables.get("items"))

    def _catalogue(self, known: pa.Array, table: pa.Table | None) -> Learned:
        """`catalogue`: known items, then new ones, with titles, and which may be recommended; `_nearest` of the new."""
        s = self.settings
        if s.items is None or table is None:
            names = pa.nulls(len(known), pa.string())
            every = pa.table({"item": known, "title": names, "listed": pa.array(np.full(len(known), True))})
            return {"catalogue": every, **_nearest(Texts.of([], None), Texts.of([], None))}
        table = _visits.first_of_each(table, s.items.item)
        items = table[s.items.item].combine_chunks().cast(known.type)
        place = pc.index_in(known, value_set=items)
        new = pc.invert(pc.is_in(items, value_set=known))
        fresh = np.flatnonzero(new.to_numpy(zero_copy_only=False))[: MOST_NEW if s.items.text is not None else 0]
        titles = _visits.names(table, s.items.title)
        every = pa.table(
            {
                "item": pa.concat_arrays([known, items.take(pa.array(fresh))]),
                "title": pa.concat_arrays([titles.take(place), titles.take(pa.array(fresh))]),
                "listed": pa.concat_arrays([place.is_valid(), pa.array(np.full(len(fresh), True))]),
            }
        )
        if s.items.text is None or not len(fresh):
            return {"catalogue": every, **_nearest(Texts.of([], None), Texts.of([], None))}
        said = _visits.texts(table, s.items.text, _MOST_CHARS)
        of_known = [said[i] if i is not None else "" for i in place.to_pylist()]
        both = Texts.of([*of_known, *(said[i] for i in fresh)], self._encoder)
        return {
            "catalogue": every,
            **_nearest(both.take(np.arange(len(known), len(both))), both.take(np.arange(len(known)))),
        }

    def answer(self, batch: Groups) -> Outcome:
        assert self._model is not None and self.learned is not None, "opened with what was learned"
        catalogue = self.learned["catalogue"]
        known = catalogue["item"].combine_chunks().slice(0, len(self._model.popular))
        if self.settings.per == "item":
            return self._by_item(batch, catalogue, known)
        s, group = self.settings, np.repeat(np.arange(len(batch)), np.diff(batch.starts))
        numbered = batch.rows.set_column(batch.rows.column_names.index(s.entity), s.entity, pa.array(group))
        every = catalogue["item"].combine_chunks()  # what was bought is barred, whether it was learned of or not
        events, _ = _visits.events(numbered, s.entity, s.item, self.run_date, every, pa.array(np.arange(len(batch))))
        tastes, days = events.taste(self._model.memory)[:, : len(known)], events.days()
        found, alive = Ranked(), np.diff(batch.starts) > 0
        for rows, parts in self._model.parts(tastes, self._mix.method):
            often = days[rows].toarray()
            scores = self._model.mixed(self._mix, parts, often[:, : len(known)])
            self._rank(found, np.flatnonzero(alive[rows]), rows.start, scores, tastes[rows], often > 0)
        return self._outcome(found, batch, catalogue)

    def _rank(self, found: Ranked, alive: Ints, start: int, scores: Array, tastes: Any, bought: Bools) -> None:
        """Take down the best of a block of customers, those `alive` alone, with what speaks for each. scores:
        (customers, known items). bought: (customers, all items)."""
        assert self._model is not None and self.learned is not None
        every = np.concatenate([scores, _of_new(self.learned, scores)], axis=1)
        listed = self.learned["catalogue"]["listed"].to_numpy(zero_copy_only=False)
        barred = np.tile(~listed, (len(every), 1))
        if not self.settings.repurchase:
            barred |= bought
        every = np.where(barred, -np.inf, every)
        top = together.best(every, self.settings.k)
        known, places = scores.shape[1], self.settings.new_places
        kept = known + together.best(every[:, known:], places) if places else top[:, :0]
        for row in alive.tolist():
            new = kept[row][every[row, kept[row]] > 0]
            ranked = np.r_[top[row][~np.isin(top[row], new)][: self.settings.k - len(new)], new]
            at = slice(tastes.indptr[row], tastes.indptr[row + 1])
            held, weights = tastes.indices[at], tastes.data[at]
            for item in ranked[every[row, ranked] > -np.inf].tolist():
                reason, because = self._reason(item, held, weights, bought[row])
                found.add(start + row, item, float(every[row, item]), reason, because)

    def _reason(self, item: int, held: npt.NDArray[Any], weights: Array, bought: Bools) -> tuple[str, int]:
        """(the reason; the item that speaks for it, −1 where none does)."""
        assert self._model is not None and self.learned is not None
        known = len(self._model.popular)
        if bought[item]:
            return "bought_before", -1
        if item >= known:
            return "similar", self._like(item - known, bought)
        if len(held) and self._mix.method != "popular":
            says = weights * self._model.likeness[held, item].astype(np.float64)
            if says.max() > 0:
                return "bought_together", int(held[says.argmax()])
        return "popular", -1

    def _like(self, new: int, bought: Bools) -> int:
        """Of the known items that a new one is like the likest that was bought, or the likest."""
        assert self.learned is not None
        near = self.learned["nearest"][new]
        mine = near[bought[near]]
        return int(mine[0] if len(mine) else near[0])

    def _by_item(self, batch: Groups, catalogue: pa.Table, known: pa.Array) -> Outcome:
        assert self._model is not None
        listed = catalogue["listed"].to_numpy(zero_copy_only=False)[: len(known)]
        at = pc.index_in(batch.keys[self.settings.item], value_set=known).to_pylist()
        found = Ranked()
        alive = np.diff(batch.starts) > 0
        for row, number in enumerate(at):
            if number is None or not alive[row]:
                continue
            likeness = self._model.likeness[number].astype(np.float64)
            scores = np.where(listed & (likeness > 0), likeness, -np.inf)
            (ranked,) = together.best(scores[None], self.settings.k)
            for item in ranked[scores[ranked] > -np.inf].tolist():
                found.add(row, item, float(scores[item]), "bought_together", number)
        return self._outcome(found, batch, catalogue, "item_neighbours")

    def _outcome(self, found: Ranked, batch: Groups, catalogue: pa.Table, method: str | None = None) -> Outcome:
        assert self._model is not None and self.learned is not None
        known, many = len(self._model.popular), len(found.item)
        pairs = zip(found.because, found.item, strict=True)
        columns = found.columns(catalogue) | {
            "together": [int(self._model.both[b, i]) if b >= 0 and i < known else None for b, i in pairs],
            "method": [method or self._mix.method] * many,
            "backtest_ndcg": [self.learned["ndcg"]] * many,
            "backtest_popular": [self.learned["popular_ndcg"]] * many,
        }
        alive = np.diff(batch.starts) > 0

        def why(group: int) -> tuple[str, str]:
            if not alive[group]:
                return "empty", "no usable row up to the run date"
            if self.settings.per == "item":
                return "too_short", "no customer bought it with another item"
            return "no_answer", "no item is left to recommend"

        return found.outcome(columns, self.columns(), len(batch), why)

    @property
    def _item_type(self) -> pa.DataType:
        kind = self.source.schema.field(self.settings.item).type
        return pa.string() if is_text(kind) else kind


def _most_bought(rows: pa.Table, entity: str, item: str) -> pa.Array:
    """The items, sorted; of more than MOST_ITEMS those that most customers bought."""
    buyers = rows.select([entity, item]).group_by([entity, item]).aggregate([])
    counted = buyers.group_by(item).aggregate([(entity, "count")])
    counted = counted.sort_by([(f"{entity}_count", "descending"), (item, "ascending")])
    return _visits.sorted_values(counted.slice(0, together.MOST_ITEMS)[item])


def _nearest(new: Texts, known: Texts) -> Learned:
    """`nearest`, `nearness`: (new, NEAREST) numbers of the likest known texts and how alike they are, 0 for hardly."""
    near = np.zeros((len(new), min(NEAREST, len(known))), np.int64)
    alike = np.zeros(near.shape, np.float32)
    for start in range(0, len(new), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(new)))
        likeness = new.take(rows).likeness(known).astype(np.float64)
        near[rows] = together.best(likeness, near.shape[1])
        alike[rows] = np.take_along_axis(likeness, near[rows], axis=1)
    return {"nearest": near, "nearness": np.where(alike >= LEAST_LIKE, alike, 0)}


def _of_new(learned: Learned, scores: Array) -> Array:
    """(customers, new) scores of items that nobody bought: those of the known ones they are like, times the likeness.

    A new item that is like none is barred.
    """
    near, alike = learned["nearest"], learned["nearness"].astype(np.float64)
    found = np.zeros((len(scores), len(near)))
    for place in range(near.shape[1]):
        found += scores[:, near[:, place]] * alike[:, place] / near.shape[1]
    return np.where((alike > 0).any(axis=1), found, -np.inf) if len(near) else found


TASK = Recommend
