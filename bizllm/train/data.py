"""Labelled tables → rows in canonical columns (`text`, `pair`, `label`), checked before any work starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bizllm.errors import Fault, UserError, nearest
from bizllm.tables.manifest import freeze
from bizllm.tables.source import Source
from bizllm.train.objectives.base import NUMBER, STRING, Objective, is_list_of, objective_class
from bizllm.train.objectives.classification import text_faults
from bizllm.train.recipe import Recipe, TableSettings, UnlabelledSettings

Place = Callable[..., str]
Ints = npt.NDArray[np.int64]

ROLES = ("text", "pair", "label")
ROW = "row"  # where in its table a row stood, from 0


@dataclass(frozen=True)
class Part:
    """A part's rows: canonical columns, `row`, and the columns of its slices. fingerprint: of its frozen files."""

    rows: pa.Table
    fingerprint: str
    slices: tuple[str, ...] = ()

    def take(self, positions: Ints) -> Part:
        """Some of its rows, in that order."""
        return Part(self.rows.take(pa.array(positions)), self.fingerprint, self.slices)


@dataclass(frozen=True)
class Parts:
    """The rows of a training. seen: labels as `Objective.labels` gives them, of train."""

    train: Part
    validation: Part
    test: Part | None
    labels: tuple[str, ...] = ()
    horizon: int = 1

    def items(self) -> list[tuple[str, Part]]:
        """The parts that are there, by name."""
        named = [("train", self.train), ("validation", self.validation), ("test", self.test)]
        return [(name, part) for name, part in named if part is not None]

    def held_out(self) -> list[pa.Table]:
        """The rows that nothing may be learned from."""
        return [part.rows for name, part in self.items() if name != "train"]


def read(recipe: Recipe, place: Place, known: tuple[str, ...] = ()) -> Parts:
    """Read and check every table, and split validation off where it has none of its own. Raises UserError.

    known: classes that the base model answers already; train need not have them.
    """
    data = recipe.data
    cls = objective_class(recipe.objective)
    tables: dict[str, TableSettings] = {"train": data.train}
    own = data.validation.table()
    if own is not None:
        tables["validation"] = own
    if data.test is not None:
        tables["test"] = data.test
    found = {name: read_table(name, table, recipe, _below(place, "data", name)) for name, table in tables.items()}
    train = found["train"]
    labels = (*known, *(label for label in cls.labels(train.rows) if label not in known))
    _check_train(cls, train, labels, place)
    if own is None:
        train, found["validation"] = _split(cls, train, data.validation.split or 0.1, data.validation.seed, place)
    horizon = cls.horizon(train.rows)
    for name in ("validation", "test"):
        if name in found:
            _check_held_out(cls, found[name], name, labels, horizon, place)
    return Parts(train, found["validation"], found.get("test"), labels, horizon)


def _below(place: Place, *keys: str) -> Place:
    return lambda *more: place(*keys, *more)


def read_table(name: str, table: TableSettings, recipe: Recipe, at: Place, roles: tuple[str, ...] = ROLES) -> Part:
    """One table's rows in canonical columns. Raises UserError where columns are missing or rows can't be used.

    at: the place of one of the table's settings, such as `label`. roles: without `label` for rows that have none.
    """
    source = Source(name, table.source(), lambda *keys: at(*keys[2:]))  # a source says ("sources", name, key)
    schema = source.schema()
    cls = objective_class(recipe.objective)
    columns: dict[str, str] = {}
    faults: list[Fault] = []
    for role in roles:
        column = getattr(table, role) or getattr(recipe.data.train, role)
        if column is None:
            if role in cls.needs:
                faults.append(Fault(at(role), None, f"'{role}' is missing: {recipe.objective} needs that column"))
        elif column not in schema.names:
            known = ", ".join(n for n in schema.names if n not in ("file", "row"))
            faults.append(Fault(at(role), column, f"no such column; there are {known}", nearest(column, schema.names)))
        else:
            columns[role] = column
    slices = tuple(dict.fromkeys(table.slices or (recipe.data.train.slices if name == "test" else ())))
    for column in slices:
        if column not in schema.names:
            faults.append(Fault(at("slices"), column, "no such column", nearest(column, schema.names)))
    if faults:
        raise UserError(*faults)
    canonical = pa.schema([pa.field(role, schema.field(column).type) for role, column in columns.items()])
    wrong = cls.check(recipe, canonical) if "label" in roles else text_faults(canonical, recipe.inputs == "numbers")
    if wrong:
        raise UserError(
            *(
                Fault(at(role), columns.get(role), f"{expected}; it is {kind}", hint)
                for role, kind, expected, hint in wrong
            )
        )
    wanted = list(dict.fromkeys([*columns.values(), *slices]))
    manifest = freeze(source, date.today(), "all", wanted)
    tables = [source.read(unit, wanted) for unit in manifest.units]
    rows = pa.concat_tables(tables) if tables else pa.schema([schema.field(c) for c in wanted]).empty_table()
    made = pa.table({role: rows[column] for role, column in columns.items()})
    for column in slices:
        made = made.append_column(f"slice.{column}", pc.cast(rows[column], pa.string()))
    made = made.append_column(ROW, pa.array(np.arange(len(made))))
    _check_rows(made, at, columns)
    return Part(made.combine_chunks(), manifest.hash, slices)


def read_unlabelled(asked: UnlabelledSettings, key: str, recipe: Recipe, place: Place) -> Part:
    """Rows in canonical columns without a label. key: where the recipe asks for them. Raises UserError."""
    table = TableSettings(path=asked.path, filter=asked.filter, select=asked.select)

    def at(*keys: str) -> str:
        return place("data", "train", *keys) if keys[0] in ROLES else place(key, *keys)

    return read_table("unlabelled", table, recipe, at, ("text", "pair"))


def _check_rows(rows: pa.Table, at: Place, columns: Mapping[str, str]) -> None:
    """Every row has a text and an answer. Raises UserError that counts those that don't; never what they say."""
    if not len(rows):
        raise UserError(Fault(at("path"), None, "the table has no rows", "look at `filter`"))
    faults = []
    for role, column in columns.items():
        bad = np.flatnonzero(_unusable(rows[role], role))
        if len(bad):
            kind = "no answer" if role == "label" else "no text"
            what = f"{len(bad):,} of {len(rows):,} rows have {kind} (the first is row {bad[0]})"
            faults.append(Fault(at(role), column, what, f'leave them out: filter: "{_condition(rows, role, column)}"'))
    if "label" in rows.column_names and is_list_of(rows["text"].type, (pa.types.is_string, pa.types.is_large_string)):
        apart = pc.not_equal(pc.list_value_length(rows["text"]), pc.list_value_length(rows["label"])).to_numpy()
        if apart.any():
            what = (
                f"{int(apart.sum()):,} rows have another number of tags than tokens (the first is row {apart.argmax()})"
            )
            faults.append(Fault(at("label"), columns["label"], what))
    if faults:
        raise UserError(*faults)


def _unusable(column: pa.ChunkedArray, role: str) -> npt.NDArray[np.bool_]:
    """(rows,) whether there is nothing to read: null, blank, an empty list, or a number that is none."""
    kind = column.type
    bad = column.is_null().to_numpy()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        bad |= pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0), False).to_numpy()
    elif pa.types.is_floating(kind):
        bad |= ~np.isfinite(pc.fill_null(column, 0.0).to_numpy())
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        words = is_list_of(kind, STRING)
        if not (role == "label" and words):  # a row may have none of several labels
            bad |= pc.fill_null(pc.equal(pc.list_value_length(column), 0), False).to_numpy()
        if words:
            bad |= np.array([any(not (word or "").strip() for word in row or ()) for row in column.to_pylist()], bool)
        if any(test(kind.value_type) for test in NUMBER):
            values = np.array(
                [v is not None and all(x is not None and np.isfinite(x) for x in v) for v in column.to_pylist()]
            )
            bad |= ~values
    made: npt.NDArray[np.bool_] = bad
    return made


def _condition(rows: pa.Table, role: str, column: str) -> str:
    kind = rows[role].type
    return (
        f"length(trim({column})) > 0"
        if pa.types.is_string(kind) or pa.types.is_large_string(kind)
        else f"{column} is not null"
    )


def _check_train(cls: type[Objective], train: Part, labels: tuple[str, ...], place: Place) -> None:
    at = place("data", "train", "label")
    if cls.learns_labels and not labels:
        raise UserError(Fault(at, None, "no row of train has a label"))
    if cls.learns_labels and cls.name != "multi_label" and len(labels) < 2:
        raise UserError(Fault(at, None, f"train has one class only: '{labels[0]}'; there is nothing to tell apart"))
    _check_lengths(train, at)


def _check_held_out(
    cls: type[Objective], part: Part, name: str, labels: tuple[str, ...], horizon: int, place: Place
) -> None:
    at = place("data", name, "label")
    if cls.learns_labels:
        new = [label for label in cls.labels(part.rows) if label not in labels]
        if new:
            known = nearest(new[0], labels)
            raise UserError(Fault(at, None, f"{name} has labels that train never had: {some_of(new)}", known))
        return
    _check_lengths(part, at)
    if cls.horizon(part.rows) != horizon:
        raise UserError(Fault(at, None, f"{name} has {cls.horizon(part.rows)} numbers a row, train has {horizon}"))


def some_of(labels: Sequence[str]) -> str:
    """The first labels of a list, in quotes."""
    return ", ".join(f"'{label}'" for label in labels[:5]) + (", …" if len(labels) > 5 else "")


def _check_lengths(part: Part, at: str) -> None:
    """Lists of numbers to foretell have one length."""
    if "label" in part.rows.column_names and is_list_of(part.rows["label"].type, NUMBER):
        sizes = pc.unique(pc.list_value_length(part.rows["label"])).to_pylist()
        if len(sizes) > 1:
            what = f"expected lists of one length; they have {min(sizes)} to {max(sizes)} numbers"
            raise UserError(Fault(at, None, what))


def _split(cls: type[Objective], train: Part, share: float, seed: int, place: Place) -> tuple[Part, Part]:
    """(train, validation): a share of each class to within one row, but never all of its rows. Equal texts are not
    kept together: the overlap is looked for after."""
    count = len(train.rows)
    rng = np.random.default_rng(seed)
    codes = cls.strata(train.rows)
    order = rng.permutation(count)
    if codes is None:
        taken = order[: max(1, round(share * count))]
    else:
        # Systematic sampling along the classes.
        by_class = order[np.argsort(codes[order], kind="stable")]
        step = 1 / share
        taken = by_class[np.unique((np.arange(rng.uniform(0, step), count, step)).astype(np.int64))]
        whole = np.bincount(codes) == np.bincount(codes[taken], minlength=int(codes.max()) + 1)
        found, first = np.unique(codes[taken], return_index=True)
        taken = np.delete(taken, first[whole[found]])
    kept = np.setdiff1d(np.arange(count), taken)
    if not len(taken) or not len(kept):
        raise UserError(
            Fault(place("data", "validation", "split"), share, f"leaves no row of {count} for one of the parts")
        )
    return train.take(kept), train.take(np.sort(taken))
