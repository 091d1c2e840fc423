"""What the tasks share that know a company's own words: a table of names, or a graph as triples, read whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
from pydantic import Field, model_validator

from bizllm.errors import Fault, UserError
from bizllm.methods import documents
from bizllm.methods.terms import Terms
from bizllm.tasks._texts import Faults
from bizllm.tasks.base import Learned, StepInput, TableRead

_NAMES, _TRIPLE = ("term", "means"), ("subject", "relation", "object")
_PREFIX = "knowledge_"  # of what is learned of it, beside what else a task learns


class Knowledge(TableRead):
    """What a company calls its things: `term` and `means`, or a graph of `subject`, `relation` and `object`."""

    term: str | None = Field(default=None, description="The column of other names: synonyms, aliases, abbreviations.")
    means: str | None = Field(default=None, description="The column of the names that they stand for.")
    kind: str | None = Field(default=None, description="The column of what such a name is: product, brand, place.")
    subject: str | None = Field(default=None, description="Of a graph instead: the column of names that edges leave.")
    relation: str | None = Field(default=None, description="The column of what the edges say.")
    object: str | None = Field(default=None, description="The column of names that edges lead to.")
    same: list[str] = Field(
        default=["same as", "also called", "别名", "又名", "简称"],
        description="Relations whose subject is another name of the object, and no thing of its own.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Knowledge:
        names = [key for key in (*_NAMES, "kind") if getattr(self, key) is not None]
        triple = [key for key in _TRIPLE if getattr(self, key) is not None]
        complete = {*_NAMES} <= {*names} if names else len(triple) == len(_TRIPLE)
        if (names and triple) or not complete:
            given = ", ".join([*names, *triple]) or "neither"
            raise ValueError(f"expected `term` and `means`, or `subject`, `relation` and `object`; there is {given}")
        return self


def faults(setting: str, knowledge: Knowledge, given: StepInput) -> Faults:
    """Columns of types that hold no names."""
    kinds = {field.name: field.type for field in given.schema}
    return [
        (f"{setting}.{key}", column, f"expected a string column, it is {kinds[column]}", "")
        for key, column in knowledge.columns().items()
        if column in kinds and not documents.is_text(kinds[column])
    ]


def learn(rows: pa.Table, knowledge: Knowledge) -> Learned:
    """The terms and facts of the table, to be kept among what a task learned. Rows that lack one of them are left out.

    Raises UserError where none is left.
    """
    found = Terms.learn(*_told(rows, knowledge))
    if not found.entries:
        raise UserError(Fault("knowledge", knowledge.input, f"{rows.num_rows:,} rows hold no usable name"))
    return {f"{_PREFIX}{part}": table for part, table in found.state().items()}


def names(rows: pa.Table, knowledge: Knowledge) -> list[tuple[str, str]]:
    """Each other name with what it stands for."""
    return sorted({(term, means) for term, means, _ in _told(rows, knowledge)[0]})


def terms(learned: Learned | None) -> Terms | None:
    """What `learn` kept; None where a task has no knowledge."""
    if learned is None or f"{_PREFIX}terms" not in learned:
        return None
    return Terms.of({part: learned[f"{_PREFIX}{part}"] for part in ("terms", "facts")})


def plainly(texts: Sequence[str], terms: Terms | None) -> list[str]:
    """The texts, each with the names that its terms stand for behind it."""
    return [terms.expand(text) for text in texts] if terms is not None else list(texts)


def other_names(rows: pa.Table, knowledge: Knowledge, kinds: Collection[str]) -> dict[str, list[str]]:
    """name → its other names, where the table tells no kinds, or one of these. Raises UserError where there is none."""
    found: dict[str, set[str]] = {}
    for term, name, kind in _told(rows, knowledge)[0]:
        if knowledge.kind is None or (kind or "").casefold() in kinds:
            found.setdefault(name, set()).add(term)
    if not found:
        of = f" of kind {' or '.join(kinds)}" if knowledge.kind is not None else ""
        raise UserError(Fault("knowledge", knowledge.input, f"{rows.num_rows:,} rows hold no usable name{of}"))
    return {name: sorted(terms) for name, terms in sorted(found.items())}


def _told(rows: pa.Table, knowledge: Knowledge) -> tuple[list[tuple[str, str, str | None]], list[tuple[str, str, str]]]:
    """(names with what they mean and their kind, facts) of the rows."""
    k = knowledge
    names: list[tuple[str, str, str | None]] = []
    facts: list[tuple[str, str, str]] = []
    if k.term is not None and k.means is not None:
        kinds = _texts_of(rows, k.kind) if k.kind is not None else [None] * rows.num_rows
        told = zip(_texts_of(rows, k.term), _texts_of(rows, k.means), kinds, strict=True)
        names += [(term, means, kind) for term, means, kind in told if term and means]
        return names, facts
    assert k.subject is not None and k.relation is not None and k.object is not None
    for subject, relation, other in zip(*(_texts_of(rows, c) for c in (k.subject, k.relation, k.object)), strict=True):
        if subject and relation and other:
            if relation in k.same:
                names.append((subject, other, None))
            else:
                facts.append((subject, relation, other))
    # What is said of another name is said of the name.
    own = {term: name for term, name, _ in sorted(names, reverse=True)}
    return names, [(own.get(subject, subject), relation, own.get(other, other)) for subject, relation, other in facts]


def _texts_of(rows: pa.Table, column: str) -> list[str | None]:
    found, _ = documents.read(rows[column], 1_000)  # longer than a name
    return [" ".join(text[0].split()) if text else None for text in found]
