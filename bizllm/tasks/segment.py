"""Which kind of customer is each: recency, frequency, money and behaviour as of the run date, in named segments.

Without `rules`, the segments are clusters that the data show; they keep their ids and names from night to night. With
`rules`, the first condition that holds decides. With `text`, what customers say makes the clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.errors import nearest
from bizllm.methods import conditions, purchases, segment_fit, topics
from bizllm.methods.purchases import FEATURES
from bizllm.models.saved import ModelInfo
from bizllm.tasks import _text_clusters, _texts
from bizllm.tasks._segment_settings import SegmentSettings
from bizllm.tasks.base import Combined, Groups, Models, Outcome, Reject, Shape, Task

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
_DRIVER = [("feature", pa.string()), *((name, pa.float64()) for name in ("value", "z", "centre", "weight"))]
_DRIVERS = pa.field("drivers", pa.list_(pa.struct(_DRIVER)))


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
        "drivers": "list of {feature, value, z, centre, weight}, with `explain`: what put it into its segment, "
        "weightiest first; z and its centre in robust standard deviations from the median of all; weights add up to "
        "the squared distance to that median less that to the centre. With `rules` feature and value alone",
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
        extra = [(name, pa.float64()) for name in self.settings.features]
        return pa.schema([*_OWN, *FEATURES.items(), *extra, *([_DRIVERS] if self.settings.explain else [])])

    def rules(self) -> dict[str, str]:
        every = {
            "the segment has a name": "trim(segment) <> ''",
            "the confidence lies in [0, 1]": "confidence between 0 and 1",
            "the distance is finite and not negative": "distance >= 0 and isfinite(distance)",
        }
        if self.settings.text is not None:
            return every | {"everybody said something": "texts >= 1"}
        every |= {
            "nobody bought after the run date": "recency_days >= 0 and recency_days <= tenure_days",
            "everybody bought": "frequency >= 1",
        }
        if self.settings.explain and not self.settings.rules:
            every["drivers add up to the distances"] = (
                "abs(list_sum([d['z'] * d['z'] - d['weight'] for d in drivers]) - distance * distance) "
                "<= 1e-6 * (1 + distance * distance)"
            )
        return every

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
        own = {c.lower() for c in [*_OWN.names, *FEATURES, *(["drivers"] if s.explain else [])]}
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
        drivers = self._drivers(batch) if self.settings.explain else None
        answers = self._answers(batch, found.name, found.id, found.confidence, found.distance, drivers)
        return Outcome(np.arange(batch.num_rows), answers)

    def _drivers(self, features: pa.Table) -> list[list[dict[str, Any]]]:
        """Of each entity the features that make the clusters, weightiest first."""
        assert self.fitted is not None
        values, names = self._values(features), self.fitted["features"]
        found = segment_fit.reasons(self.fitted, values)
        plain = np.column_stack([values[name] for name in names])
        order = np.argsort(-found.weight, axis=1, kind="stable")
        return [
            [
                {
                    "feature": names[f],
                    "value": None if np.isnan(plain[i, f]) else plain[i, f],
                    "z": found.z[i, f],
                    "centre": found.centre[i, f],
                    "weight": found.weight[i, f],
                }
                for f in of
            ]
            for i, of in enumerate(order)
        ]

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
        drivers = self._named(profiles, first) if s.explain else None
        return self._answers(profiles, [labels[i] for i in first], first + 1, np.ones(n), np.zeros(n), drivers)

    def _named(self, profiles: pa.Table, first: npt.NDArray[np.int64]) -> list[list[dict[str, Any]]]:
        """The features that each entity's rule names; none where no rule takes it."""
        of_rule = [conditions.named(rule.when, self._features()) for rule in self.settings.rules] + [[]]
        values = {name: profiles.column(name).to_pylist() for name in {n for names in of_rule for n in names}}
        return [[{"feature": name, "value": values[name][i]} for name in of_rule[rule]] for i, rule in enumerate(first)]

    def _answers(
        self,
        profiles: pa.Table,
        label: list[str],
        segment_id: npt.NDArray[Any],
        confidence: npt.NDArray[np.float64],
        distance: npt.NDArray[np.float64],
        drivers: list[list[dict[str, Any]]] | None,
    ) -> pa.Table:
        own: dict[str, Any] = {"segment": label, "segment_id": segment_id.astype(np.int32)}
        own |= {"confidence": confidence, "distance": distance}
        own |= {"drivers": pa.array(drivers, _DRIVERS.type)} if drivers is not None else {}
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
