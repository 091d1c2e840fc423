"""Where the label of a text's sentiment comes from, and what each label means from -1 to 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from bizllm.errors import Fault, UserError
from bizllm.methods import sentences
from bizllm.methods.polarity import model as built
from bizllm.methods.polarity import taught as teaching
from bizllm.methods.polarity.taught import Taught
from bizllm.models.classifier import Classifier
from bizllm.tasks import _labels
from bizllm.tasks._labels import Examples
from bizllm.tasks._texts import Faults
from bizllm.tasks.base import Learned

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.integer[Any]]
Scale = dict[str, Annotated[float, Field(ge=-1.0, le=1.0)]]

_KNOWN = {
    **dict.fromkeys(("positive", "pos", "good", "正面", "积极", "好评", "正向"), 1.0),
    **dict.fromkeys(("neutral", "neu", "mixed", "中性", "中立", "中评"), 0.0),
    **dict.fromkeys(("negative", "neg", "bad", "负面", "消极", "差评", "负向"), -1.0),
}


@dataclass(frozen=True)
class Scaled:
    """Gives texts probabilities of labels. scale: (names,). probabilities: ((texts, names), tokens of each text)."""

    names: Sequence[str]
    scale: Sequence[float]
    probabilities: Callable[[list[str]], tuple[Floats, Counts]]


def built_in(neutral: bool) -> Scaled:
    """The built-in model, with or without its neutral label."""
    kept = [i for i, name in enumerate(built.LABELS) if neutral or name != "neutral"]

    def probabilities(texts: list[str]) -> tuple[Floats, Counts]:
        likely = built.probabilities(texts)[:, kept]
        return (likely / likely.sum(axis=1, keepdims=True)).astype(np.float32), _words(texts)

    return Scaled([built.LABELS[i] for i in kept], [float(built.SIGNS[i]) for i in kept], probabilities)


def fine_tuned(classifier: Classifier, given: Mapping[str, float]) -> Scaled:
    """A fine-tuned model's labels."""
    scale = scaled(classifier.info.labels, given)
    assert scale is not None, "checked before"
    return Scaled(classifier.info.labels, scale, classifier.probabilities)


def taught(learned: Learned, encoder: Any) -> Scaled:
    """What `learn` learned."""
    made = Taught.of(learned)

    def probabilities(texts: list[str]) -> tuple[Floats, Counts]:
        if encoder is None:
            return made.probabilities(texts, None), _words(texts)
        vectors, tokens = encoder.encode_counted(texts)
        return made.probabilities(texts, vectors), tokens

    return Scaled(made.few.names, made.scale, probabilities)


def learn(rows: pa.Table, examples: Examples, given: Mapping[str, float], encoder: Any, most_chars: int) -> Learned:
    """What labelled rows teach. Raises UserError where they have one label only, several a text, or unknown ones."""
    texts, labels = _labels.usable(rows, examples, most_chars)
    names = sorted({label for of_text in labels for label in of_text})
    if len(names) < 2:
        found = f"{rows.num_rows:,} rows hold {len(texts)} usable texts of {len(names)} labels"
        raise UserError(Fault("examples", examples.input, f"{found}; expected two labels at least"))
    if any(len(of_text) != 1 for of_text in labels):
        raise UserError(Fault("examples.label", examples.label, "expected one label a text", ""))
    scale = scaled(names, given)
    if scale is None:
        unknown = f"expected the scale of each of the {len(names)} labels, from -1 to 1"
        raise UserError(Fault("scale", dict(given), unknown, "scale: {good_label: 1, bad_label: -1}"))
    place = {name: i for i, name in enumerate(names)}
    truth = np.array([place[label] for (label,) in labels], np.int64)
    vectors = encoder.encode(texts)[0] if encoder is not None else None
    return teaching.learn(texts, truth, names, scale, vectors).state()


def scaled(names: Sequence[str], given: Mapping[str, float]) -> list[float] | None:
    """What each label means: as given, as its name is known, or by its place among numbers; None where that is open."""
    known = {**_KNOWN, **given}
    if all(name in known or name.lower() in known for name in names):
        return [known[name] if name in known else known[name.lower()] for name in names]
    try:
        numbers = np.array([float(name) for name in names])
    except ValueError:
        return None
    span = float(np.ptp(numbers))
    if given or not np.isfinite(numbers).all() or not span:
        return None
    return [float(2 * (number - numbers.min()) / span - 1) for number in numbers]


def scale_faults(names: Sequence[str], given: Mapping[str, float]) -> Faults:
    """The fault of a model whose labels say nothing of good and bad."""
    if scaled(names, given) is not None:
        return []
    open_ones = [name for name in names if name not in given and name.lower() not in _KNOWN]
    hint = f"scale: {{{', '.join(f'{name}: 0' for name in open_ones)}}}"
    return [("scale", dict(given) or None, "expected a number from -1 to 1 for each label of the model", hint)]


def _words(texts: Sequence[str]) -> Counts:
    return np.array([sentences.count_words(text) for text in texts], np.int64)
