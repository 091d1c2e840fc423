"""A teacher of a distillation: what it answers to texts, each asked once; the columns that its pupil learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.models import batches
from bizllm.models.batches import Windows
from bizllm.models.classifier import CLASSES, Classifier
from bizllm.models.engines.base import summed
from bizllm.models.load import ResolvedModel, resolve
from bizllm.models.saved import ModelInfo, read_info

if TYPE_CHECKING:
    from bizllm.train.data import Place
    from bizllm.train.recipe import Recipe

Floats = npt.NDArray[np.float32]
Asked = str | tuple[str, str]

LOGITS, VECTOR = "teacher_logits", "teacher_vector"  # columns of examples


def read(recipe: Recipe, base_info: ModelInfo | None, registry: str, place: Place) -> ResolvedModel | None:
    """The recipe's teacher. Raises UserError where it can't teach this, or the base can't be pruned."""
    faults = [] if recipe.prune is None else _prune_faults(recipe, base_info, place)
    asked = recipe.distill
    if asked is None:
        if faults:
            raise UserError(*faults)
        return None
    others = {
        "pseudo_labels": recipe.pseudo_labels is not None,
        "continual.distill": bool(recipe.continual.distill),
        "optim.r_drop": bool(recipe.optim.r_drop),
        "augment.mixup": recipe.augment is not None and bool(recipe.augment.mixup),
    }
    at = place("distill", "teacher")
    if recipe.objective not in CLASSES or recipe.inputs == "numbers":
        faults.append(Fault(at, asked.teacher, f"teaches {', '.join(CLASSES)} of texts, not {recipe.objective}"))
    for name, used in others.items():
        if used:
            faults.append(
                Fault(place(*name.split(".")), None, "can't be used together with distill", "use one of them")
            )
    if faults:
        raise UserError(*faults)
    found = resolve(asked.teacher, ".", at, registry)
    info = read_info(found.folder)
    if info is None or info.objective != recipe.objective:
        what = f"expected a model that was fine-tuned for {recipe.objective}"
        raise UserError(Fault(at, asked.teacher, f"{what}; it is one of {info.objective}" if info else what))
    return found


def _prune_faults(recipe: Recipe, base_info: ModelInfo | None, place: Place) -> list[Fault]:
    at = place("prune")
    if recipe.objective not in CLASSES:
        return [Fault(at, None, f"is for {', '.join(CLASSES)}, not {recipe.objective}")]
    if base_info is None or base_info.objective != recipe.objective:
        return [Fault(at, recipe.base, f"needs a base that was fine-tuned for {recipe.objective}")]
    return []


def following(info: ModelInfo, teacher: ResolvedModel, base: Path, recipe: Recipe, place: Place) -> ModelInfo:
    """The pupil's info: where labels are not looked at, temperature and threshold are the teacher's.

    info: of the pupil. Raises UserError where the teacher has other classes, or no vectors like the pupil's although
    the recipe wants them to be learned.
    """
    theirs, asked = read_info(teacher.folder), recipe.distill
    assert theirs is not None and asked is not None, "`read` looked"
    if set(theirs.labels) != set(info.labels):
        apart = sorted(set(theirs.labels) ^ set(info.labels))
        what = f"the teacher's classes and train's differ in {', '.join(repr(label) for label in apart[:5])}"
        raise UserError(Fault(place("distill", "teacher"), teacher.uri, what))
    if asked.vectors and not _alike(info, base, theirs, teacher.folder):
        what = "both models must pool vectors of one length, without heads of transformers' own"
        raise UserError(Fault(place("distill", "vectors"), asked.vectors, what, "use 0"))
    return replace(info, temperature=theirs.temperature, threshold=theirs.threshold) if asked.share == 1.0 else info


def _alike(one: ModelInfo, folder: Path, other: ModelInfo, other_folder: Path) -> bool:
    """Whether two models' pooled vectors can be held against each other."""
    return "native" not in (one.pooling, other.pooling) and _width(folder) == _width(other_folder)


def _width(folder: Path) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).hidden_size)


def taught(
    teacher: ResolvedModel, examples: pa.Table, rows: pa.Table, info: ModelInfo, base: Path, recipe: Recipe
) -> pa.Table:
    """The examples with what the teacher says of each row, its logits in the order of the pupil's labels.

    info, base: of the pupil.
    """
    asked = recipe.distill
    assert asked is not None, "there is a teacher"
    teaches = teacher_of(teacher)
    logits, vectors = teaches.answers(asked_of(rows))
    order = [teaches.info.labels.index(label) for label in info.labels]
    examples = examples.append_column(LOGITS, _lists(logits[:, order]))
    if asked.vectors != 0.0 and vectors is not None and _alike(info, base, teaches.info, teacher.folder):
        examples = examples.append_column(VECTOR, _lists(vectors))
    return examples


def asked_of(rows: pa.Table) -> list[Asked]:
    """What a classifier is asked of rows in canonical columns."""
    texts = rows["text"].to_pylist()
    return list(zip(texts, rows["pair"].to_pylist(), strict=True)) if "pair" in rows.column_names else texts


@dataclass
class Teacher:
    """A classifier that keeps what it answered."""

    classifier: Classifier
    _place: dict[Asked, int] = field(default_factory=dict, repr=False)
    _logits: list[Floats] = field(default_factory=list, repr=False)
    _vectors: list[Floats] = field(default_factory=list, repr=False)

    @property
    def info(self) -> ModelInfo:
        """What it answers."""
        return self.classifier.info

    def answers(self, asked: Sequence[Asked]) -> tuple[Floats, Floats | None]:
        """(logits (rows, labels), pooled vectors (rows, dim), None of a model with a head of transformers' own)."""
        new: list[Any] = sorted({one for one in asked if one not in self._place})
        if new:
            self._place |= {one: len(self._place) + i for i, one in enumerate(new)}
            network = self.classifier.network
            found, tokens = summed(
                self.classifier.engine, replace(network, finish=None), batches.in_parts(self.windows, new, ahead=False)
            )
            found /= tokens.astype(np.float32)[:, None]
            self._logits.append(network.finished(found))
            if network.finish is not None:
                self._vectors.append(found)
        at = np.array([self._place[one] for one in asked], np.int64)
        self._logits = [np.concatenate(self._logits)]
        self._vectors = [np.concatenate(self._vectors)] if self._vectors else []
        return self._logits[0][at], self._vectors[0][at] if self._vectors else None

    def windows(self, asked: Sequence[Any]) -> Windows:
        """What the network reads."""
        return windows(self.classifier.tokenizer, asked, self.info)


def windows(tokenizer: Any, asked: Sequence[Any], info: ModelInfo) -> Windows:
    """What a classifier reads of texts, or of pairs."""
    cut = batches.pair_windows if info.inputs == "pair" else batches.text_windows
    return cut(tokenizer, list(asked), info.max_tokens)


def teacher_of(model: ResolvedModel) -> Teacher:
    """The model as a teacher, loaded once in a process: several pupils ask it the same."""
    return _loaded(model.content_hash, model.folder)


@lru_cache(1)
def _loaded(content_hash: str, folder: Path) -> Teacher:
    return Teacher(Classifier.load(folder))


def _lists(values: Floats) -> pa.Array:
    flat = pa.array(values.ravel(), pa.float32())
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1], flat)
