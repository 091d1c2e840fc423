"""Which articles to show each reader, by what they read: alike, new to them, and not all of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from bizllm.methods.documents import is_text
from bizllm.methods.likeness import Floats, Texts
from bizllm.methods.purchases import days
from bizllm.methods.together import Array, Ints, best
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _texts, _visits
from bizllm.tasks._texts import Faults
from bizllm.tasks._visits import History, Ranked
from bizllm.tasks.base import Combined, Groups, Learned, Models, Outcome, Shape, TableRead, Task, TaskSettings

MOST_ARTICLES = 50_000  # the newest that are learned of
MOST_READ = 50  # the last articles of a reader that tell what they like
MOST_CHARS = 4_000  # of an article that are compared
_POOL = 5  # times k: the articles among which diversity chooses
_POPULAR_DAYS = 3.0  # a click counts e times less after so many days
_POPULAR = 0.02  # of the score: parts articles that are equally like
_MEAN = 4.0  # say of the mean likeness to all that was read, beside 1 of the largest
_READERS = 64  # that are answered at once
_TOPIC = 0.2  # of the likeness, where there is a topic


class Articles(TableRead):
    """What may be shown."""

    item: str = Field(description="The column of the article, as in the input.")
    text: str = Field(description="Its text.")
    published: str = Field(description="Date or timestamp; nothing that came out after the run date is shown.")
    title: str | None = Field(default=None, description="Its title: read with the text, and told in the table.")
    topic: str | None = Field(default=None, description="Its topic: two articles of one topic are more alike.")


class ContentSettings(TaskSettings):
    """What `task: content` takes."""

    entity: str = Field(description="Column of the reader.")
    item: str = Field(description="Column of the article that was read.")
    time: str = Field(description="Date or timestamp of the row. Timestamps with a timezone count in UTC.")
    weight: str | None = Field(
        default=None, description="How much a row counts, such as minutes; by its logarithm. Rows of 0 or less don't."
    )
    articles: Articles = Field(description="The table of articles.")
    model: str | None = Field(default=None, description="An encoder for the texts, beside their words.")
    k: Annotated[int, Field(ge=1, le=100)] = Field(default=10, description="The most articles for each reader.")
    fresh_days: PositiveInt | None = Field(
        default=30, description="Show what came out in the last days alone, the run date's included; null: all."
    )
    half_life_days: PositiveFloat = Field(default=30, description="After so many days a read article counts half.")
    diversity: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.1, description="How much an article loses that is like one already chosen; 0: nothing."
    )
    history: History | None = Field(
        default=None, description="Rows that tell what is read most, where the input has more than 2,000,000."
    )

    @model_validator(mode="before")
    @classmethod
    def _learns_of_its_input(cls, settings: Any) -> Any:
        return _visits.history_of(settings)


class Content(Task):
    """The k articles that are likest to what a reader read of late, chosen one by one so that they differ.

    A reader's liking of an article is the mean likeness to all that was read, old reads less, with a fifth of the
    largest one, by which a single interest has its articles, too.
    """

    name = "content"
    version = 1
    Settings = ContentSettings
    shapes = ("group",)
    summary = "Which articles to show each reader, by what they read: alike, new to them, and not all of one kind."
    takes = "Rows of a reader, an article and a time; and, in a table of its own, the articles' texts and dates."
    example = (
        "to_read: {task: content, input: clicks, entity: reader_id, item: article_id, time: clicked_at, "
        "articles: {input: articles, item: article_id, text: body, title: title, published: published_at}}"
    )
    writes: ClassVar[dict[str, str]] = {
        "rank": "int: from 1, the best first",
        "item": "as in the input: the article",
        "title": "string: its title, where `articles` has one",
        "score": "double in [0, 1]: how much the reader may like it, diversity left aside",
        "reason": "string: similar (to what was read), popular, or new (nothing else is known)",
        "because": "as in the input: of similar the article read that speaks for it most",
        "because_title": "string: its title",
        "topic": "string: where `articles` has one",
        "published": "date: when it came out, in UTC",
    }
    settings: ContentSettings

    _articles: Texts | None = None
    _encoder: Any = None

    @property
    def shape(self) -> Shape:
        return "group"

    def reads(self) -> list[str]:
        s = self.settings
        return [s.entity, s.item, s.time, *([s.weight] if s.weight is not None else [])]

    def group_by(self) -> list[str]:
        return [self.settings.entity]

    def keys(self) -> list[str]:
        return [self.settings.entity, "rank"]

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
                ("topic", pa.string()),
                ("published", pa.date32()),
            ]
        )

    def rules(self) -> dict[str, str]:
        s, day = self.settings, f"date '{self.run_date.isoformat()}'"
        oldest = "true" if s.fresh_days is None else f"published > {day} - {s.fresh_days}"
        return {
            "the rank is between 1 and k": f"rank between 1 and {s.k}",
            "there is an article": "item is not null",
            "the score lies in [0, 1]": "score between 0 and 1",
            "only similar names an article": "(reason = 'similar') = (because is not null)",
            "nobody is shown what they read": "because is null or because <> item",
            "it was published by the run date, and lately": f"published <= {day} and {oldest}",
        }

    def check(self) -> Faults:
        s = self.settings
        faults = _visits.column_faults(s, self.source, "entity", self.columns().names)
        if faults:
            return faults
        there = self.others["articles"]
        named = {
            "articles.text": s.articles.text,
            "articles.title": s.articles.title,
            "articles.topic": s.articles.topic,
        }
        faults += _texts.column_faults(there.schema, {setting: column for setting, column in named.items() if column})
        faults += _visits.same_type_faults("articles.item", s.articles.item, there, self._item_type)
        _, item, *_ = _visits.columns_of(s.history)
        faults += _visits.same_type_faults("history.item", item, self.others["history"], self._item_type)
        column = s.articles.published
        kind = there.schema.field(column).type if column in there.schema.names else pa.date32()
        if not pa.types.is_date(kind) and not pa.types.is_timestamp(kind):
            wrong = f"expected a column of dates or timestamps, not {kind}"
            faults.append(("articles.published", column, wrong, "cast it in the source's `select`"))
        return faults

    def models(self) -> dict[str, str]:
        return {"encoder": self.settings.model} if self.settings.model is not None else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> Faults:
        return _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return 0, 5 + rows * 1e-4

    # -- the work -------------------------------------------------------------------------------------------------

    def open(self, models: Models) -> None:
        if self.learned is not None:
            self._articles = Texts.from_state(self.learned)
        elif self.settings.model is not None:
            self._encoder = models.encoder(self.settings.model)

    def combine(self, rows: pa.Table) -> Combined:
        s = self.settings
        return _visits.combine(rows, s.entity, s.item, s.time, s.weight, self.run_date)

    def learn(self, tables: Mapping[str, pa.Table], previous: Learned | None = None) -> Learned:
        """Articles that are out, sorted by their ids: names, days, what they are read, and what their texts hold."""
        s, a = self.settings, self.settings.articles
        table = _visits.first_of_each(tables["articles"], a.item)
        day = days(table[a.published])
        texts, titles = _visits.texts(table, a.text, 10**9), _visits.names(table, a.title)
        there = pc.fill_null(pc.less_equal(day, pa.scalar(self.run_date)), False).to_numpy()
        there &= np.array([bool(text) for text in texts], bool)
        age = np.where(there, (np.datetime64(self.run_date, "D") - day.to_numpy()).astype(np.int64), 0)
        kept = np.flatnonzero(there)
        kept = np.sort(kept[np.argsort(age[kept], kind="stable")][:MOST_ARTICLES])
        at = pa.array(kept)
        items = table[a.item].take(at).combine_chunks().cast(self._item_type)
        said = [f"{titles[i].as_py() or ''}\n{texts[i]}"[:MOST_CHARS] for i in kept.tolist()]
        catalogue = pa.table(
            {
                "item": items,
                "title": titles.take(at),
                "topic": _visits.names(table, a.topic).take(at),
                "published": day.take(at),
            }
        )
        entity, item, time, weight = _visits.columns_of(s.history)
        rows = _visits.combine(tables["history"], entity, item, time, weight, self.run_date).rows
        clicks, _ = _visits.events(rows, entity, item, self.run_date, items)
        popular = clicks.sold(_POPULAR_DAYS)
        learned: Learned = {"catalogue": catalogue, "age": age[kept], "popular": popular}
        return learned | Texts.of(said, self._encoder).state()

    def answer(self, batch: Groups) -> Outcome:
        assert self._articles is not None and self.learned is not None, "opened with what was learned"
        s, catalogue = self.settings, self.learned["catalogue"]
        items = catalogue["item"].combine_chunks()
        group = np.repeat(np.arange(len(batch)), np.diff(batch.starts))
        numbered = batch.rows.set_column(batch.rows.column_names.index(s.entity), s.entity, pa.array(group))
        events, _ = _visits.events(numbered, s.entity, s.item, self.run_date, items, pa.array(np.arange(len(batch))))
        likings = events.taste(float(s.half_life_days / np.log(2)))
        fresh = self.learned["age"] < (s.fresh_days or np.inf)
        popular = self.learned["popular"] / max(float(self.learned["popular"].max(initial=0.0)), 1e-12)
        topic = pc.dictionary_encode(catalogue["topic"].combine_chunks()).indices
        topics = pc.fill_null(topic, -1).to_numpy().astype(np.int64)
        alive, found = np.diff(batch.starts) > 0, Ranked()
        may = np.flatnonzero(fresh)
        for start in range(0, len(batch), _READERS) if len(may) else ():
            lasts = [
                _last(likings, reader) if alive[reader] else None
                for reader in range(start, min(start + _READERS, len(batch)))
            ]
            read = np.unique(np.concatenate([np.zeros(0, np.int64), *(last[0] for last in lasts if last is not None)]))
            alike = self._alike(read, may, topics)
            for reader, last in enumerate(lasts, start):
                if last is None:
                    continue
                says = alike[np.searchsorted(read, last[0])] * last[1][:, None]
                new = ~np.isin(may, likings.indices[likings.indptr[reader] : likings.indptr[reader + 1]])
                self._show(found, reader, may[new], last[0], says[:, new], popular, topics)

        def why(reader: int) -> tuple[str, str]:
            if not alive[reader]:
                return "empty", "no usable row up to the run date"
            return "no_answer", "no article is left to show"

        columns = found.columns(catalogue)
        columns |= {name: catalogue[name].take(pa.array(found.item, pa.int64())) for name in ("topic", "published")}
        return found.outcome(columns, self.columns(), len(batch), why)

    def _show(
        self, found: Ranked, reader: int, may: Ints, read: Ints, says: Floats, popular: Array, topics: Ints
    ) -> None:
        """Take down what one reader is shown of the articles that may be. says: (read, may) what each article that was
        read says of each of them."""
        assert self.learned is not None
        most, mean = (says.max(axis=0), says.mean(axis=0)) if len(read) else (np.zeros(len(may)), np.zeros(len(may)))
        score = (1 - _POPULAR) * (most + _MEAN * mean) / (1 + _MEAN) + _POPULAR * popular[may]
        newest = 1e-9 / (1 + self.learned["age"][may])  # where nothing else tells two articles apart
        (pool,) = best((score + newest)[None], self.settings.k * _POOL)
        alike = self._alike(may[pool], may[pool], topics)
        for place in diverse((score + newest)[pool], alike, self.settings.k, self.settings.diversity):
            one = int(pool[place])
            if most[one] > 0:
                found.add(reader, int(may[one]), float(score[one]), "similar", int(read[says[:, one].argmax()]))
            else:
                found.add(reader, int(may[one]), float(score[one]), "popular" if popular[may[one]] > 0 else "new")

    def _alike(self, ones: Ints, others: Ints, topics: Ints) -> Floats:
        """(ones, others) in [0, 1]."""
        assert self._articles is not None
        found = self._articles.take(ones).likeness(self._articles.take(others))
        if self.settings.articles.topic is None:
            return found
        same = (topics[ones][:, None] == topics[others]) & (topics[others] >= 0)
        return np.asarray((1 - _TOPIC) * found + _TOPIC * same, np.float32)

    @property
    def _item_type(self) -> pa.DataType:
        kind = self.source.schema.field(self.settings.item).type
        return pa.string() if is_text(kind) else kind


def _last(likings: Any, reader: int) -> tuple[Ints, Floats]:
    """(what the reader read last, sorted; what each counts, the most 1)."""
    at = slice(likings.indptr[reader], likings.indptr[reader + 1])
    read, weight = likings.indices[at].astype(np.int64), likings.data[at]
    last = np.sort(np.argsort(-weight, kind="stable")[:MOST_READ])
    return read[last], (weight[last] / weight.max(initial=1e-300)).astype(np.float32)


def diverse(score: Array, alike: Floats, k: int, diversity: float) -> list[int]:
    """Places of at most k, chosen one by one for their score less what they share with those chosen before: maximal
    marginal relevance (Carbonell and Goldstein, SIGIR 1998). alike: (places, places)."""
    chosen: list[int] = []
    nearest = np.zeros(len(score))
    left = np.full(len(score), True)
    highest = max(float(score.max(initial=0.0)), 1e-12)
    while len(chosen) < min(k, len(score)):
        worth = np.where(left, (1 - diversity) * score / highest - diversity * nearest, -np.inf)
        place = int(worth.argmax())
        chosen.append(place)
        left[place] = False
        nearest = np.maximum(nearest, alike[place])
    return chosen


TASK = Content
