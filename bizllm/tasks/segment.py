"""Which kind of customer is each: recency, frequency, money and behaviour as of the run date, in named segments.

Without `rules`, the segments are clusters that the data show; they keep their ids and names from night to night. With
`rules`, the first condition that holds decides. With `text`, what customers say makes the clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ConfigDict, Field, PositiveInt, model_validator

from bizllm.errors import nearest
from bizllm.methods import conditions, purchases, segment_fit, topics
from bizllm.methods.purchases import FEATURES
from bizllm.models.saved import ModelInfo
from bizllm.tables.settings import Closed
from bizllm.tasks import _text_clusters, _texts
from bizllm.tasks.base import Combined, Groups, Models, Outcome, Reject, Shape, Task, TaskSettings

Clusters = Annotated[int, Field(ge=1, le=30)]
Name = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]


class Rule(Closed):
    """One rule-based segment."""

    name: Name = Field(description="What the segment is called.")
    when: str = Field(description="An SQL condition over the features, e.g. `recency_days <= 30 and money > 500`.")


class ExtraFeature(Closed):
    """A further feature, made of the lines of an entity."""

    column: str = Field(description="Where it comes from: a column of numbers, or any column with `agg: share`.")
    agg: purchases.Aggregate = Field(description="sum, mean, min, max; share: of lines whose value is `equals`.")
    equals: bool | int | str | None = Field(default=None, description="The value that `agg: share` counts, as text.")

    @model_validator(mode="after")
    def _share_of_what(self) -> ExtraFeature:
        if (self.agg == "share") != (self.equals is not None):
            raise ValueError("expected `equals` with `agg: share`, and only there")
        return self


class SegmentSettings(TaskSettings):
    """What `task: segment` takes."""

    entity: str = Field(description="Column of the customer (or shop, or product) that is put into a segment.")
    time: str | None = Field(
        default=None,
        description="Date or timestamp of the line; needed without `text`. Timestamps with a timezone count in UTC.",
    )
    amount: str | None = Field(
        default=None, description="Money of the line, negative for a return; needed without `text`."
    )
    text: str | None = Field(
        default=None,
        description="Column of what the entity says, wants or needs: that makes the segments, not purchases.",
    )
    model: str | None = Field(
        default=None, description="With `text`: an encoder that reads its language. Without one, words decide."
    )
    max_texts: PositiveInt = Field(default=50, description="With `text`: a sample of so many of an entity's texts.")
    max_input_chars: PositiveInt = Field(default=200_000, description="Longer texts are rejected as too_long.")
    order: str | None = Field(default=None, description="Column that lines of one order share; without it, the day.")
    returned: str | None = Field(default=None, description="Boolean column: the line is a return, whatever its sign.")
    window_days: PositiveInt = Field(default=730, description="Days of history, the run date included.")
    features: dict[str, ExtraFeature] = Field(default={}, description="Further features, by name.")
    cluster_by: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Features that make the clusters; by default recency_days, frequency, money, return_share and "
        "all of `features`.",
    )
    k: Literal["auto"] | Clusters = Field(default="auto", description="Number of clusters; auto: the silhouette says.")
    k_range: tuple[Clusters, Clusters] = Field(default=(3, 8), description="Fewest and most clusters of `auto`.")
    min_entities: PositiveInt = Field(default=30, description="With fewer, last night's clusters stay as they are.")
    language: Literal["en", "zh"] = Field(default="en", description="Of the names of clusters.")
    rules: list[Rule] = Field(default=[], description="Segments by conditions instead of clusters; the first holds.")
    otherwise: Name = Field(default="other", alias="else", description="Segment of entities that no rule takes.")

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _one_way(self) -> SegmentSettings:
        if self.text is None:
            missing = [name for name in ("time", "amount") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"expected `{missing[0]}`, or `text` for segments by what customers say")
            if self.model is not None or "max_texts" in self.model_fields_set:
                raise ValueError("expected `text` beside `model` and `max_texts`")
        elif self.model_fields_set & _OF_PURCHASES:
            raise ValueError(f"expected none of {', '.join(sorted(_OF_PURCHASES))} beside `text`")
        if self.rules and {"k", "k_range", "cluster_by"} & self.model_fields_set:
            raise ValueError("expected either `rules` or clusters (`k`, `k_range`, `cluster_by`)")
        if self.otherwise != "other" and not self.rules:
            raise ValueError("expected `rules` beside `else`")
        if self.k_range[0] > self.k_range[1]:
            raise ValueError("expected `k_range` as [fewest, most]")
        return self


_OF_PURCHASES = {"time", "amount", "order", "returned", "window_days", "features", "cluster_by", "rules"}
_CLUSTER_BY = ["recency_days", "frequency", "money", "return_share"]
_SKEWED = {"recency_days", "frequency", "money", "average_order", "tenure_days", "interval_days"}
_OF_TEXTS = pa.schema([("words", pa.list_(pa.string())), ("texts", pa.int32())])
_OWN = pa.schema(
    [
        ("segment", pa.string()),
        ("segment_id", pa.int32()),
        ("confidence", pa.float64()),
        ("distance", pa.float64()),
        ("previous_segment", pa.string()),
    ]
)


class Segment(Task):
    """Each entity's segment: a cluster that lasts from night to night, or the first rule that holds.

    segment_id: of a cluster, kept from night to night and never reused; of a rule its place in the list from 1, 0 for
        `else`.
    confidence: 1 - distance / distance to the second nearest centroid; 1 for rules.
    distance: to the centroid, in robust standard deviations of the features; of texts in unit vectors; 0 for
        rules.
    """

    name = "segment"
    version = 1
    Settings = SegmentSettings
    shapes = ("table", "group")  # group with `rules`
    writes: ClassVar[dict[str, str]] = {
        "segment": "string: its name, for people",
        "segment_id": "int: the same from night to night, never used again",
        "confidence": "double in [0, 1]: how much nearer its own centre is than the next; of texts a probability",
        "distance": "double: to its centre, in robust standard deviations; of texts between unit vectors",
        "previous_segment": "string: the segment on the newest earlier night; null for new entities",
        **{name: f"{kind}: as of the run date" for name, kind in FEATURES.items()},
        "<feature>": "double: each of `features`",
        "words": "list of string, with `text` instead of the features: what sets the segment apart",
        "texts": "int, with `text`: how many of the entity's texts were read",
    }
    summary = "Puts every customer into a named segment: by purchases (clusters or rules), or by what customers say."
    takes = (
        "Purchases: rows with a customer, a time and an amount; maybe an order and an item. Or, with `text`, rows with "
        "a customer and what was said."
    )
    example = (
        "customer_segment: {task: segment, input: orders, entity: customer_id, time: ordered_at, "
        "amount: amount, order: order_id}"
    )
    exhibits = "categories"
    category_column = "segment"
    prior_columns: ClassVar[tuple[str, ...]] = ("segment",)
    settings: SegmentSettings

    _encoder: Any = None

    @property
    def shape(self) -> Shape:
        return "group" if self.settings.rules else "table"

    def reads(self) -> list[str]:
        s = self.settings
        named = [s.entity, s.text, s.time, s.amount, s.order, s.returned, *(f.column for f in s.features.values())]
        return list(dict.fromkeys(c for c in named if c is not None))

    def group_by(self) -> list[str]:
        return [self.settings.entity]

    def columns(self) -> pa.Schema:
        if self.settings.text is not None:
            return pa.schema([*_OWN, *_OF_TEXTS])
        return pa.schema([*_OWN, *FEATURES.items(), *((name, pa.float64()) for name in self.settings.features)])

    def rules(self) -> dict[str, str]:
        every = {
            "the segment has a name": "trim(segment) <> ''",
            "the confidence lies in [0, 1]": "confidence between 0 and 1",
            "the distance is finite and not negative": "distance >= 0 and isfinite(distance)",
        }
        if self.settings.text is not None:
            return every | {"everybody said something": "texts >= 1"}
        return every | {
            "nobody bought after the run date": "recency_days >= 0 and recency_days <= tenure_days",
            "everybody bought": "frequency >= 1",
        }

    def check(self) -> list[tuple[str, object, str, str]]:
        s, schema = self.settings, self.source.schema
        faults: list[tuple[str, object, str, str]] = []

        def needs(setting: str, column: str | None, expected: str, *kinds: Any) -> None:
            if column is None:
                return
            if column not in schema.names:
                there = f"expected a column of {s.input}: {', '.join(schema.names)}"
                faults.append((setting, column, there, nearest(column, schema.names)))
            elif kinds and not any(is_kind(schema.field(column).type) for is_kind in kinds):
                wrong = f"expected {expected}, not {schema.field(column).type}"
                faults.append((setting, column, wrong, "cast it in the source's `select`"))

        numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        needs("entity", s.entity, "")
        needs("text", s.text, "")
        needs("time", s.time, "a column of dates or timestamps", pa.types.is_date, pa.types.is_timestamp)
        needs("amount", s.amount, "a column of numbers", *numbers)
        needs("order", s.order, "")
        needs("returned", s.returned, "a boolean column", pa.types.is_boolean)
        for name, extra in s.features.items():
            kinds = () if extra.agg == "share" else numbers
            needs(f"features.{name}.column", extra.column, "a column of numbers", *kinds)

        if s.text is not None and s.text in schema.names:
            faults += _texts.column_faults(schema, {"text": s.text})
        own = {c.lower() for c in [*_OWN.names, *FEATURES]}
        if s.entity.lower() in {c.lower() for c in self.columns().names}:
            faults.append(("entity", s.entity, "expected another name than an output column's", "rename it"))
        for name in s.features:
            if name.lower() in own or not name.isidentifier() or name.startswith("_"):
                faults.append((f"features.{name}", None, "expected a new name of letters, digits and _", ""))
        if len({name.lower() for name in s.features}) < len(s.features):
            faults.append(("features", list(s.features), "expected names that differ by more than case", ""))
        for i, name in enumerate(s.cluster_by or []):
            if name not in self._features():
                known = ", ".join(self._features())
                faults.append((f"cluster_by[{i}]", name, f"expected one of {known}", nearest(name, self._features())))
        faults += self._rule_faults()
        return faults

    def _rule_faults(self) -> list[tuple[str, object, str, str]]:
        faults: list[tuple[str, object, str, str]] = []
        seen = {self.settings.otherwise} if self.settings.rules else set()
        for i, rule in enumerate(self.settings.rules):
            wrong = conditions.fault(rule.when, self._features())
            if wrong:
                faults.append((f"rules[{i}].when", rule.when, wrong, ""))
            if rule.name in seen:
                faults.append((f"rules[{i}].name", rule.name, "expected a name that no other segment has", ""))
            seen.add(rule.name)
        return faults

    def models(self) -> dict[str, str]:
        return {"encoder": self.settings.model} if self.settings.model else {}

    def check_models(self, infos: Mapping[str, ModelInfo | None]) -> list[tuple[str, object, str, str]]:
        return _texts.encoder_faults(self.name, self.settings.model, infos.get("encoder"))

    def estimate(self, rows: int, text_bytes: int) -> tuple[int, float]:
        return _texts.model_cost(rows, text_bytes) if self.settings.model else super().estimate(rows, text_bytes)

    def open(self, models: Models) -> None:
        if self.settings.model is not None and self.fitted is None:  # what is fitted has its vectors already
            self._encoder = models.encoder(self.settings.model)

    # -- the work -------------------------------------------------------------------------------------------------

    def combine(self, rows: pa.Table) -> Combined:
        s = self.settings
        if s.text is not None:
            return _text_clusters.combine(rows, self.group_by(), s.text, s.max_input_chars, s.max_texts)
        columns = self._columns()
        if purchases.is_partial(rows):
            return Combined(purchases.combine_partials(rows, columns, self._extras()))
        parts, unusable = purchases.partials(rows, columns, self._extras(), self.run_date, self.settings.window_days)
        no_time = [Reject(int(i), "no_time", "the line has no date") for i in unusable.no_time]
        no_value = [Reject(int(i), "no_value", "the amount is no finite number below 1e18") for i in unusable.no_value]
        return Combined(parts, [*no_time, *no_value])

    def features(self, groups: Groups) -> Outcome:
        if self.settings.text is not None:
            return _text_clusters.features(
                groups, self.settings.text, self._encoder, self.settings.max_texts, "segment"
            )
        found, which = purchases.profiles(groups.rows, groups.starts, self._extras(), self.run_date)
        prior = pa.nulls(len(groups), pa.string()) if groups.prior is None else groups.prior.column("segment")
        table = found.append_column("previous_segment", prior.take(pa.array(which)).cast(pa.string()))
        message = f"no purchase in the {self.settings.window_days} days up to the run date"
        without = np.setdiff1d(np.arange(len(groups)), which)
        return Outcome(which, table, [Reject(int(i), "empty", message) for i in without])

    def fit(self, features: pa.Table, previous: dict[str, Any] | None) -> dict[str, Any]:
        s = self.settings
        if s.text is not None:
            k = s.k_range if s.k == "auto" else s.k
            return topics.fit(*_text_clusters.points(features), k, 0.0, s.min_entities, previous)
        by = s.cluster_by or [*_CLUSTER_BY, *s.features]
        sums = {name for name, extra in s.features.items() if extra.agg == "sum"}
        return segment_fit.fit_segments(
            self._values(features),
            by,
            [f in _SKEWED or f in sums for f in by],
            range(s.k_range[0], s.k_range[1] + 1) if s.k == "auto" else [s.k],
            s.language,
            s.min_entities,
            previous,
        )

    def answer(self, batch: Any) -> Outcome:
        if isinstance(batch, Groups):  # by rules: nothing to fit, so groups come as they are
            profiled = self.features(batch)
            return Outcome(profiled.subject, self._by_rules(profiled.columns), profiled.rejects)
        assert self.fitted is not None, "the engine fits before it answers"
        if self.settings.text is not None:
            return self._by_texts(self.fitted, batch)
        found = segment_fit.apply_fit(self.fitted, self._values(batch))
        answers = self._answers(batch, found.name, found.id, found.confidence, found.distance)
        return Outcome(np.arange(batch.num_rows), answers)

    def _by_texts(self, fitted: dict[str, Any], batch: pa.Table) -> Outcome:
        found = topics.apply(fitted, *_text_clusters.points(batch))
        told = [fitted["topics"][i] for i in found.topic]
        own = {
            "segment": [topic["name"] for topic in told],
            "segment_id": pa.array([topic["id"] for topic in told], pa.int32()),
            "confidence": found.probability,
            "distance": found.distance,
            "previous_segment": batch["previous_segment"],
            "words": pa.array([topic["words"] for topic in told], pa.list_(pa.string())),
            "texts": batch["texts"],
        }
        return Outcome(np.arange(batch.num_rows), pa.table(own, schema=self.columns()))

    def _by_rules(self, profiles: pa.Table) -> pa.Table:
        s, n = self.settings, profiles.num_rows
        first = conditions.first_match(profiles, [rule.when for rule in s.rules], self._features())
        labels = [*(rule.name for rule in s.rules), s.otherwise]  # -1, no rule, is the last
        return self._answers(profiles, [labels[i] for i in first], first + 1, np.ones(n), np.zeros(n))

    def _answers(
        self,
        profiles: pa.Table,
        label: list[str],
        segment_id: npt.NDArray[Any],
        confidence: npt.NDArray[np.float64],
        distance: npt.NDArray[np.float64],
    ) -> pa.Table:
        own: dict[str, Any] = {"segment": label, "segment_id": segment_id.astype(np.int32)}
        own |= {"confidence": confidence, "distance": distance}
        rest = {c: profiles.column(c) for c in ["previous_segment", *self._features()]}
        return pa.table(own | rest).select(self.columns().names).cast(self.columns())

    def _features(self) -> list[str]:
        return [*FEATURES, *self.settings.features]

    def _values(self, features: pa.Table) -> segment_fit.Values:
        found = {f: features.column(f).cast(pa.float64()).to_numpy(zero_copy_only=False) for f in self._features()}
        return {f: np.where(np.isnan(v), np.nan, v) for f, v in found.items()}

    def _columns(self) -> purchases.Columns:
        s = self.settings
        assert s.time is not None and s.amount is not None, "checked with the settings"
        return purchases.Columns(s.entity, s.time, s.amount, s.order, s.returned)

    def _extras(self) -> dict[str, purchases.Extra]:
        return {
            name: purchases.Extra(f.column, f.agg, None if f.equals is None else _as_text(f.equals))
            for name, f in self.settings.features.items()
        }


def _as_text(value: bool | int | str) -> str:
    """As Arrow writes a value of a column as text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


TASK = Segment
