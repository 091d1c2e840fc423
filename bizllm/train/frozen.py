"""A prepared training → the frozen input of its workers: rows augmented and mixed, encoded, and written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.models.load import resolve
from bizllm.train import earlier, pseudo_labels
from bizllm.train import teacher as teachers
from bizllm.train.augment import Generate, TrainTexts, augment
from bizllm.train.prepare import Prepared, changes_texts
from bizllm.train.recipe import ContinualSettings
from bizllm.train.synonyms import neighbours, read_synonyms
from bizllm.train.work import BASE, Work, lengths, load_tokenizer

EARLIER_TEST, UNLABELLED = "earlier_test", "unlabelled"  # parts that are scored, not trained on
CALIBRATION = 512  # rows by which the units of a base are told apart that do least
_WORD = re.compile(r"[^\W\d_]+")

Facts = dict[str, Any]


def freeze(prepared: Prepared, folder: Path, place: Callable[..., str]) -> tuple[Work, Facts]:
    """Write the work folder; (it, what a report tells of the rows: counts of rows, tokens, cut and added ones)."""
    recipe = prepared.recipe
    base = prepared.base.folder
    if recipe.prune is not None:
        base = folder / BASE
        _prune(prepared, base, place)
    work = Work(folder, recipe, prepared.info, base)
    work.save()
    facts: Facts = {"rows": {}, "tokens": {}, "cut": {}, "augmented": 0, "replayed": 0}
    for name, part in prepared.parts.items():
        if name == "train":
            examples = _train_examples(prepared, work, _train_rows(prepared, part.rows, place, facts), facts)
        else:
            examples = work.objective.encode(part.rows)
        facts["rows"][name] = len(part.rows)
        facts["tokens"][name] = int(lengths(examples).sum())
        facts["cut"][name] = int(np.sum(examples["cut"].to_numpy()))
        work.write(name, examples, None if name == "train" else part.rows)
    if recipe.continual.ewc:
        assert prepared.earlier.rows is not None, "`prepare` wants rows of the earlier training"
        work.write("replay", work.objective.encode(prepared.earlier.rows))
    for name, some in ((EARLIER_TEST, prepared.earlier.test), (UNLABELLED, prepared.unlabelled)):
        if some is not None:
            work.write(name, some)  # rows as they are, in the place of examples
    return work, facts


def without_continual(prepared: Prepared) -> Prepared:
    """The same training as if nothing were to be remembered."""
    recipe = prepared.recipe.model_copy(update={"continual": ContinualSettings()})
    return replace(prepared, recipe=recipe, earlier=earlier.Earlier(), unlabelled=None)


def _train_rows(prepared: Prepared, rows: pa.Table, place: Callable[..., str], facts: Facts) -> pa.Table:
    """Train's rows with replayed ones among them and changed copies behind them."""
    recipe, before = prepared.recipe, prepared.earlier.rows
    if before is not None and recipe.continual.replay:
        new = len(rows)
        rows = earlier.replayed(before, rows, recipe)
        facts["replayed"] = len(rows) - new
    if recipe.augment is None:
        return rows
    more = _augmented(prepared, rows, place)
    facts["augmented"] = len(more)
    return pa.concat_tables([rows, more])


def _train_examples(prepared: Prepared, work: Work, rows: pa.Table, facts: Facts) -> pa.Table:
    """Train's rows encoded, unlabelled ones behind them; with what an earlier model or labelled rows nearby say."""
    recipe, teacher = prepared.recipe, None
    if recipe.continual.distill:
        assert prepared.base_info is not None, "`prepare` wants a teacher"
        teacher = earlier.teacher(prepared.base.folder, prepared.base_info, prepared.info, rows, recipe)
        trust = np.full(len(rows), recipe.continual.distill)
    elif recipe.pseudo_labels is not None:
        assert prepared.near is not None, "`prepare` read them"
        told = pseudo_labels.of_rows(
            prepared.near, prepared.parts.train.rows, prepared.info.labels, recipe.pseudo_labels.label_names
        )
        rows = pseudo_labels.behind(rows, prepared.near, told, prepared.info.labels)
        facts["pseudo_labelled"] = {"rows": len(told), "teachers": [model.uri for model in prepared.near.teachers]}
        teacher = np.zeros((len(rows), told.shape[1]), np.float32)
        trust = np.zeros(len(rows))
        teacher[-len(told) :], trust[-len(told) :] = told, 1.0
    examples = work.objective.encode(rows)
    if prepared.teacher is not None:
        return teachers.taught(prepared.teacher, examples, rows, prepared.info, work.base, recipe)
    if teacher is None:
        return examples
    examples = examples.append_column("teacher", pa.array(teacher.tolist(), pa.list_(pa.float32())))
    return examples.append_column("trust", pa.array(trust, pa.float32()))


def _prune(prepared: Prepared, folder: Path, place: Callable[..., str]) -> None:
    """Write the part of the base that training begins with. Raises UserError."""
    from bizllm.models.prune import pruned

    asked, info = prepared.recipe.prune, prepared.base_info
    assert asked is not None and info is not None, "`prepare` wants a base that was fine-tuned"
    some = prepared.parts.train.rows.slice(0, CALIBRATION)
    windows = teachers.windows(load_tokenizer(prepared.base.folder), teachers.asked_of(some), info)
    pruned(prepared.base.folder, info, folder, asked.layers, asked.feed_forward, windows, place("prune"))


def _augmented(prepared: Prepared, rows: pa.Table, place: Callable[..., str]) -> pa.Table:
    """Changed copies of train's rows, with the labels of what they were made from."""
    recipe = prepared.recipe
    settings = recipe.augment
    assert settings is not None
    if not changes_texts(recipe):
        return rows.slice(0, 0)  # mixup alone
    texts = rows["text"].to_pylist()
    synonyms = None
    if settings.synonyms:
        if settings.synonyms_file:
            synonyms = read_synonyms(Path(settings.synonyms_file), place("augment", "synonyms_file"))
        else:
            synonyms = _near_tokens(prepared, texts)
    generate = _generate(prepared, place) if settings.back_translate or settings.paraphrase else None
    made = augment(TrainTexts(texts), settings, recipe.seed, synonyms, generate)
    copies = rows.take(pa.array(made.origin))
    return copies.set_column(copies.column_names.index("text"), "text", pa.array(made.texts))


def _near_tokens(prepared: Prepared, texts: list[str]) -> dict[str, tuple[str, ...]]:
    from transformers import AutoModel

    tokenizer = load_tokenizer(prepared.base.folder)
    model = AutoModel.from_pretrained(prepared.base.folder, local_files_only=True, use_safetensors=True)
    table = model.get_input_embeddings().weight.detach().float().numpy()
    words = sorted({word for text in texts for word in _WORD.findall(text.lower())})
    return neighbours(words, tokenizer.convert_ids_to_tokens(range(len(table))), table)


def _generate(prepared: Prepared, place: Callable[..., str]) -> Generate:
    from bizllm.models.generator import Generator

    loaded: dict[str, Generator] = {}

    def generate(uri: str, prompts: list[str]) -> list[str]:
        if uri not in loaded:
            loaded[uri] = Generator.load(resolve(uri, ".", place("augment"), prepared.registry).folder)
        return list(loaded[uri].generate(prompts, prepared.recipe.max_new_tokens).texts)

    return generate
