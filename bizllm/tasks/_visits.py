"""What recommend and content share: rows of who took what on which day, and the texts and names of what is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from bizllm.errors import nearest
from bizllm.methods import documents
from bizllm.methods.purchases import days
from bizllm.methods.together import Events
from bizllm.tables.types import text_or_null
from bizllm.tasks._texts import Faults
from bizllm.tasks.base import Combined, Outcome, Reject, StepInput, TableRead

DAY, WEIGHT = "__day", "__weight"  # of combined rows
WhyNot = Callable[[int], tuple[str, str]]

NO_TIME = "the row has no date"
NO_VALUE = "the weight is null or no finite number"


class History(TableRead):
    """Rows to learn from; its columns are called as the step's, unless said."""

    entity: str | None = Field(default=None, description="The column of who; by default as the step's.")
    item: str | None = Field(default=None, description="The column of what; by default as the step's.")
    time: str | None = Field(default=None, description="The column of when; by default as the step's.")
    weight: str | None = Field(default=None, description="The column of weights; by default as the step's.")


def history_of(settings: Any) -> Any:
    """Raw settings of a step, with `history` filled in: by default the step's own input."""
    if not isinstance(settings, Mapping) or not isinstance(settings.get("history") or {}, Mapping):
        return settings
    own = {name: settings[name] for name in ("input", "dates", "entity", "item", "time", "weight") if name in settings}
    given = settings.get("history") or {}
    if "input" in given:
        own.pop("dates", None)
    return {**settings, "history": {**own, **{name: value for name, value in given.items() if value is not None}}}


@dataclass
class Ranked:
    """What is recommended, a record each, a subject's best first. item, because: numbers; −1 where there is none."""

    subject: list[int] = field(default_factory=list)
    rank: list[int] = field(default_factory=list)
    item: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    because: list[int] = field(default_factory=list)

    def add(self, subject: int, item: int, score: float, reason: str, because: int = -1) -> None:
        """The next one of the subject."""
        again = bool(self.subject) and self.subject[-1] == subject
        self.rank.append(self.rank[-1] + 1 if again else 1)
        self.subject.append(subject)
        self.item.append(item)
        self.score.append(score)
        self.reason.append(reason)
        self.because.append(because)

    def columns(self, catalogue: pa.Table) -> dict[str, Any]:
        """Columns of the table. catalogue: `item` and `title`, by number."""
        item = pa.array(self.item, pa.int64())
        because = pa.array(self.because, pa.int64(), mask=np.array(self.because, np.int64) < 0)
        return {
            "rank": self.rank,
            "item": catalogue["item"].take(item),
            "title": catalogue["title"].take(item),
            "score": self.score,
            "reason": self.reason,
            "because": catalogue["item"].take(because),
            "because_title": catalogue["title"].take(because),
        }

    def outcome(self, columns: Mapping[str, Any], schema: pa.Schema, subjects: int, why: WhyNot) -> Outcome:
        """With a reject for each subject that got nothing; why: its code and message."""
        made = [
            pa.chunked_array([columns[f.name]], f.type) if isinstance(columns[f.name], list) else columns[f.name]
            for f in schema
        ]
        left = sorted(set(range(subjects)) - set(self.subject))
        rejects = [Reject(subject, *why(subject)) for subject in left]
        return Outcome(np.array(self.subject, np.int64), pa.table(made, schema=schema), rejects)


def columns_of(history: History | None) -> tuple[str, str, str, str | None]:
    """entity, item, time, weight of a history that `history_of` filled in."""
    assert history is not None and history.entity and history.item and history.time
    return history.entity, history.item, history.time, history.weight


def combine(rows: pa.Table, entity: str, item: str, time: str, weight: str | None, run_date: date) -> Combined:
    """One row for each entity, item and day up to the run date, with the largest weight.

    A row without an item, or with a weight of 0 or less (a return), tells no more than that the entity is known: its
    item is null. Combining twice equals combining once.
    """
    if DAY in rows.column_names:
        return Combined(_distinct(rows, entity, item))
    rows = rows.set_column(rows.column_names.index(item), item, text_or_null(rows[item]))
    day = days(rows[time]).combine_chunks()
    numbers = pa.chunked_array([np.ones(len(rows))]) if weight is None else rows[weight].cast(pa.float64(), safe=False)
    values = pc.fill_null(numbers, float("nan")).to_numpy()
    there = _has_name(rows[item])
    dated = day.is_valid().to_numpy(zero_copy_only=False)
    unusable = dated & there & ~np.isfinite(values)
    rejects = [Reject(int(i), "no_time", NO_TIME) for i in np.flatnonzero(~dated)]
    rejects += [Reject(int(i), "no_value", NO_VALUE) for i in np.flatnonzero(unusable)]
    past = pc.fill_null(pc.less_equal(day, pa.scalar(run_date)), False).to_numpy(zero_copy_only=False)
    taken = there & np.isfinite(values) & (np.nan_to_num(values) > 0)
    made = pa.table(
        {
            entity: rows[entity],
            item: pc.if_else(pa.array(taken), rows[item], pa.scalar(None, rows[item].type)),
            DAY: day,
            WEIGHT: pa.array(np.where(taken, np.log2(1 + np.where(taken, values, 0.0)), 0.0)),
        }
    )
    return Combined(_distinct(made.filter(pa.array(past & ~unusable)), entity, item), rejects)


def events(
    rows: pa.Table, entity: str, item: str, run_date: date, known: pa.Array, entities: pa.Array | None = None
) -> tuple[Events, pa.Array]:
    """(events of combined rows whose item is known, the entities by number). known: items by number."""
    at = pc.index_in(rows[item], value_set=known, skip_nulls=True)
    rows = rows.append_column("__item", at).filter(at.is_valid())
    who = entities if entities is not None else sorted_values(rows[entity])
    age = (np.datetime64(run_date, "D") - rows[DAY].to_numpy()).astype(np.int64)
    number = pc.index_in(rows[entity], value_set=who).to_numpy().astype(np.int64)
    items = rows["__item"].to_numpy().astype(np.int64)
    order = np.lexsort((age, items, number))
    weight = rows[WEIGHT].to_numpy()
    made = Events(number[order], items[order], age[order], weight[order], len(who), len(known))
    return made, who


def sorted_values(column: pa.ChunkedArray) -> pa.Array:
    """Its distinct values that are not null, in order."""
    values = pc.drop_null(pc.unique(column))
    return values.take(pc.sort_indices(values))


def texts(table: pa.Table, column: str, most_chars: int) -> list[str]:
    """(rows,) texts, "" where one can't be used."""
    found, _ = documents.read(table[column], most_chars)
    return ["" if text is None else text[0] for text in found]


def names(table: pa.Table, column: str | None) -> pa.Array:
    """(rows,) a column of names as text, null without one."""
    if column is None:
        return pa.nulls(len(table), pa.string())
    return pa.array([text or None for text in texts(table, column, 10_000)], pa.string())


def first_of_each(table: pa.Table, item: str) -> pa.Table:
    """The rows with an item, sorted by it; of rows with the same one the first."""
    table = table.filter(pa.array(_has_name(table[item])))
    at = pa.array(np.arange(len(table)))
    first = table.select([item]).append_column("__at", at).group_by(item).aggregate([("__at", "min")])
    return table.take(first.sort_by(item)["__at_min"])


def column_faults(settings: Any, source: StepInput, group: str, own: Sequence[str]) -> Faults:
    """Faults of entity, item, time and weight against the input. group: the setting that names the key of the answers.
    own: the task's output columns."""
    faults: Faults = []
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    plain = (documents.is_text, pa.types.is_integer)
    times = (pa.types.is_date, pa.types.is_timestamp)
    wanted: list[tuple[str, Any, str]] = [
        ("entity", (), ""),
        ("item", plain, "a column of string or whole numbers"),
        ("time", times, "a column of dates or timestamps"),
        ("weight", numbers, "a column of numbers"),
    ]
    for setting, kinds, expected in wanted:
        column = getattr(settings, setting)
        if column is None:
            continue
        if column not in source.schema.names:
            there = f"expected a column of {source.name}: {', '.join(source.schema.names)}"
            faults.append((setting, column, there, nearest(column, source.schema.names)))
        elif kinds and not any(fits(source.schema.field(column).type) for fits in kinds):
            wrong = f"expected {expected}, not {source.schema.field(column).type}"
            faults.append((setting, column, wrong, "cast it in the source's `select`"))
    if settings.entity == settings.item:
        faults.append(("item", settings.item, "expected another column than the entity's", ""))
    if getattr(settings, group).lower() in own:
        name = getattr(settings, group)
        faults.append((group, name, "expected a name that no output column has", "rename it in the source's `select`"))
    return faults


def same_type_faults(setting: str, column: str, there: StepInput, wanted: pa.DataType) -> Faults:
    """The fault of a further table's column of items that can't be found in the input's."""
    found = there.schema.field(column).type if column in there.schema.names else wanted
    if _loose(found) == _loose(wanted):
        return []
    return [(setting, column, f"expected {wanted}, as in the input; it is {found}", "cast it in the source's `select`")]


def _loose(kind: pa.DataType) -> pa.DataType:
    return pa.string() if documents.is_text(kind) else kind


def _has_name(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """(rows,) whether the item is neither null nor blank."""
    there = column.is_valid()
    if documents.is_text(column.type):
        there = pc.and_(there, pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(column), ""), False))
    found: npt.NDArray[np.bool_] = there.to_numpy(zero_copy_only=False).astype(bool)
    return found


def _distinct(rows: pa.Table, entity: str, item: str) -> pa.Table:
    made = rows.group_by([entity, item, DAY]).aggregate([(WEIGHT, "max")])
    return made.select([entity, item, DAY, f"{WEIGHT}_max"]).rename_columns([entity, item, DAY, WEIGHT])
