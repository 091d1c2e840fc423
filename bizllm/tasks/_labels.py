"""Where the labels of a text come from: a fine-tuned model, labelled examples, or descriptions of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import types
from pydantic import Field

from bizllm.errors import Fault, UserError
from bizllm.methods import attribution, documents, few_shot, sentences
from bizllm.methods.attribution import Weighed
from bizllm.methods.few_shot import FewShot
from bizllm.methods.terms import Terms
from bizllm.models.classifier import Classifier
from bizllm.tasks._knowledge import plainly
from bizllm.tasks._texts import Faults
from bizllm.tasks.base import Learned, StepInput, TableRead

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.integer[Any]]


class Examples(TableRead):
    """Labelled rows to learn from."""

    text: str = Field(description="The column of texts.")
    label: str = Field(description="The column of labels; a list of string where a text may have several.")


class Labeller(Protocol):
    """Gives each text the probability of each label.

    several: a text may have several labels, or none. threshold: from which probability a label is given.
    """

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def several(self) -> bool: ...

    @property
    def threshold(self) -> float | None: ...

    def probabilities(self, columns: Sequence[list[str]]) -> tuple[Floats, Counts]:
        """((texts, labels), tokens of each text (texts,)). columns: the texts, and their pairs where there are."""

    def weighed(self, texts: Sequence[str], likely: Floats) -> tuple[list[Weighed], int]:
        """(what the pieces of each text add to the log-odds of its likeliest label, tokens read for it). The odds are
        those against the next likely label; where several may hold, those of the label itself.

        likely: (texts, labels) probabilities. Of a longer text the first `attribution.LONGEST` characters are weighed.
        """


@dataclass(frozen=True)
class FineTunedLabels:
    """Those of a fine-tuned model."""

    classifier: Classifier

    @property
    def names(self) -> Sequence[str]:
        return self.classifier.info.labels

    @property
    def several(self) -> bool:
        return self.classifier.info.objective == "multi_label"

    @property
    def threshold(self) -> float | None:
        return self.classifier.threshold

    def probabilities(self, columns: Sequence[list[str]]) -> tuple[Floats, Counts]:
        return self.classifier.probabilities(*columns)

    def weighed(self, texts: Sequence[str], likely: Floats) -> tuple[list[Weighed], int]:
        cut = [text[: attribution.LONGEST] for text in texts]
        towards = np.zeros(likely.shape, np.float32)
        for row, chosen, rival in zip(towards, *_rivals(likely, self.several), strict=True):
            row[chosen] = 1 / self.classifier.info.temperature
            if rival != attribution.NO_RIVAL:
                row[rival] = -row[chosen]
        added = self.classifier.gradients.added(cut, towards)
        found = [Weighed.of_characters(text, of) for text, of in zip(cut, added.characters, strict=True)]
        return found, added.tokens


@dataclass(frozen=True)
class FewShotLabels:
    """Those of examples or descriptions. encoder: None where n-grams alone decide. terms: names that a company's own
    words stand for, which texts are read with."""

    few: FewShot
    encoder: Any
    terms: Terms | None = None

    @property
    def names(self) -> Sequence[str]:
        return self.few.names

    @property
    def several(self) -> bool:
        return self.few.several

    @property
    def threshold(self) -> float | None:
        return 0.5 if self.few.several and self.few.threshold is None else self.few.threshold

    def probabilities(self, columns: Sequence[list[str]]) -> tuple[Floats, Counts]:
        texts = plainly(columns[0], self.terms)
        if self.encoder is None:
            return self.few.probabilities(texts, None), np.array([sentences.count_words(t) for t in texts], np.int64)
        vectors, tokens = self.encoder.encode_counted(texts)
        return self.few.probabilities(texts, vectors), tokens

    def weighed(self, texts: Sequence[str], likely: Floats) -> tuple[list[Weighed], int]:
        encode = None if self.encoder is None else self.encoder.unremembered().encode_counted
        read = plainly(texts, self.terms)
        found, tokens = attribution.of_few_shot(self.few, read, *_rivals(likely, self.several), encode)
        return [weighed.within(len(text)) for weighed, text in zip(found, texts, strict=True)], tokens


def _rivals(likely: Floats, several: bool) -> tuple[Counts, Counts]:
    """((texts,) the likeliest label, (texts,) the next; NO_RIVAL where each label is asked for itself)."""
    order = np.argsort(-likely, axis=1, kind="stable")
    return order[:, 0], np.full(len(likely), attribution.NO_RIVAL) if several else order[:, 1]


def learn(
    rows: pa.Table,
    examples: Examples,
    described: Mapping[str, str],
    encoder: Any,
    most_chars: int,
    terms: Terms | None = None,
) -> Learned:
    """What there is to learn of labelled rows, and of the descriptions of labels, which count as a text of theirs.

    Rows without a text or a label are left out. Raises UserError where fewer than two labels are left.
    """
    texts, labels = usable(rows, examples, most_chars)
    several = pa.types.is_list(rows[examples.label].type) or pa.types.is_large_list(rows[examples.label].type)
    texts = plainly([*texts, *described.values()], terms)
    labels += [[name] for name in described]
    names = sorted({label for of_text in labels for label in of_text})
    if len(names) < 2:
        found = f"{rows.num_rows:,} rows hold {len(texts)} usable texts of {len(names)} labels"
        raise UserError(Fault("examples", examples.input, f"{found}; expected two labels at least"))
    place = {name: i for i, name in enumerate(names)}
    if several:
        truth = np.zeros((len(texts), len(names)), bool)
        for row, of_text in enumerate(labels):
            truth[row, [place[label] for label in of_text]] = True
    else:
        truth = np.array([place[label] for (label,) in labels], np.int64)
    vectors = encoder.encode(texts)[0] if encoder is not None else None
    return few_shot.learn(texts, truth, names, vectors).state()


def described(names: Mapping[str, str], encoder: Any, terms: Terms | None = None) -> FewShot:
    """Labels of which only descriptions are known."""
    return few_shot.of_descriptions(list(names), encoder.encode(plainly([*names.values()], terms))[0])


def example_faults(examples: Examples, given: StepInput) -> Faults:
    """Columns of types that can't be learned from."""
    kinds: dict[str, Any] = {field.name: field.type for field in given.schema}
    text, label = kinds.get(examples.text, pa.string()), kinds.get(examples.label, pa.string())
    faults: Faults = []
    if not documents.is_text(text):
        faults.append(("examples.text", examples.text, f"expected a string column, it is {text}", ""))
    if not any(fits(label) for fits in (documents.is_text, documents.is_texts, types.is_integer, types.is_boolean)):
        expected = f"expected a column of string, list of string, integer or boolean; it is {label}"
        faults.append(("examples.label", examples.label, expected, ""))
    return faults


def single_label_faults(examples: Examples, given: StepInput) -> Faults:
    """As `example_faults`, and labels of which a text has several."""
    kinds: dict[str, Any] = {field.name: field.type for field in given.schema}
    if documents.is_texts(kinds.get(examples.label, pa.string())):
        return [("examples.label", examples.label, "expected one label a text, not a list", "")]
    return example_faults(examples, given)


def usable(rows: pa.Table, examples: Examples, most_chars: int) -> tuple[list[str], list[list[str]]]:
    """(texts, the labels of each)."""
    found, _ = documents.read(rows[examples.text], most_chars)
    column = rows[examples.label]
    if not documents.is_texts(column.type):
        column = column.cast(pa.string())
    texts, labels = [], []
    for text, value in zip(found, column.to_pylist(), strict=True):
        given = [value] if isinstance(value, str) else value
        if text is None or given is None or any(not label or label.isspace() for label in given):
            continue
        texts.append(text[0])
        labels.append(list(dict.fromkeys(given)))
    return texts, labels
