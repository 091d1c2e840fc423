"""A prepared training → the frozen input of its workers: rows augmented and mixed, encoded, and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.models.load import resolve
from bizllm.train import data
from bizllm.train.augment import Generate, TrainTexts, augment
from bizllm.train.data import ROLES, ROW
from bizllm.train.prepare import Prepared
from bizllm.train.recipe import TableSettings
from bizllm.train.synonyms import neighbours, read_synonyms
from bizllm.train.work import Work, lengths

Facts = dict[str, Any]


def freeze(prepared: Prepared, folder: Path, place: Callable[..., str]) -> tuple[Work, Facts]:
    """Write the work folder; (it, what a report tells of the rows: counts of rows, tokens, cut and added ones)."""
    recipe = prepared.recipe
    work = Work(folder, recipe, prepared.info, prepared.base.folder)
    work.save()
    facts: Facts = {"rows": {}, "tokens": {}, "cut": {}, "augmented": 0, "replayed": 0}
    earlier = _earlier(prepared, place)
    for name, part in prepared.parts.items():
        rows = part.rows
        if name == "train":
            facts["rows"]["train"] = len(rows)
            if earlier is not None and recipe.continual.replay:
                old = _replayed(earlier, len(rows), recipe.continual.replay, recipe.seed)
                facts["replayed"] = len(old)
                rows = pa.concat_tables([rows, old], promote_options="default")
            if recipe.augment is not None:
                more = _augmented(prepared, rows, place)
                facts["augmented"] = len(more)
                rows = pa.concat_tables([rows, more])
        examples = work.objective.encode(rows)
        if name == "train" and recipe.continual.distill:
            examples = _taught(prepared, rows, examples, place)
        facts["rows"].setdefault(name, len(rows))
        facts["tokens"][name] = int(lengths(examples).sum())
        facts["cut"][name] = int(np.sum(examples["cut"].to_numpy()))
        work.write(name, examples, None if name == "train" else rows)
    if earlier is not None:
        work.write("replay", work.objective.encode(earlier))
    return work, facts


def _earlier(prepared: Prepared, place: Callable[..., str]) -> pa.Table | None:
    """Rows of the earlier training, where the recipe wants some. Raises UserError."""
    recipe = prepared.recipe
    asked = recipe.continual
    if not (asked.replay or asked.ewc):
        return None
    if asked.path is None:
        raise UserError(Fault(place("continual", "path"), None, "'path' is missing: rows of the earlier training"))
    train = recipe.data.train
    table = TableSettings(path=asked.path, text=train.text, pair=train.pair, label=train.label, select=train.select)

    def at(*keys: str) -> str:
        return place("continual", *keys[2:])

    rows = data.read_table("train", table, recipe, at).rows
    return rows.select([name for name in (*ROLES, ROW) if name in rows.column_names])


def _replayed(earlier: pa.Table, new: int, share: float, seed: int) -> pa.Table:
    """So many earlier rows that they are that share of all."""
    count = min(len(earlier), round(new * share / (1 - share)))
    kept = np.random.default_rng(seed).permutation(len(earlier))[:count]
    return earlier.take(pa.array(np.sort(kept)))


def _augmented(prepared: Prepared, rows: pa.Table, place: Callable[..., str]) -> pa.Table:
    """Changed copies of train's rows, with the labels of what they were made from."""
    recipe = prepared.recipe
    settings = recipe.augment
    assert settings is not None
    if not (settings.noise or settings.back_translate or settings.paraphrase):
        return rows.slice(0, 0)  # mixup alone
    if not pa.types.is_string(rows["text"].type):
        raise UserError(Fault(place("augment"), None, "changes texts; these rows hold tokens or numbers"))
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

    from bizllm.train.work import load_tokenizer

    tokenizer = load_tokenizer(prepared.base.folder)
    model = AutoModel.from_pretrained(prepared.base.folder, local_files_only=True, use_safetensors=True)
    table = model.get_input_embeddings().weight.detach().float().numpy()
    words = sorted({word for text in texts for word in text.lower().split()})
    return neighbours(words, tokenizer.convert_ids_to_tokens(range(len(table))), table)


def _generate(prepared: Prepared, place: Callable[..., str]) -> Generate:
    from bizllm.models.generator import Generator

    loaded: dict[str, Generator] = {}

    def generate(uri: str, prompts: list[str]) -> list[str]:
        if uri not in loaded:
            loaded[uri] = Generator.load(resolve(uri, ".", place("augment"), prepared.registry).folder)
        return list(loaded[uri].generate(prompts, prepared.recipe.max_new_tokens).texts)

    return generate


def _taught(prepared: Prepared, rows: pa.Table, examples: pa.Table, place: Callable[..., str]) -> pa.Table:
    """The examples with the base model's own answers to them, over the new model's classes."""
    from bizllm.evaluate import calibration
    from bizllm.train import judge

    before = prepared.base_info
    if before is None or before.objective != prepared.recipe.objective:
        expected = f"needs a base that was fine-tuned for {prepared.recipe.objective}: its answers are the teacher"
        raise UserError(Fault(place("continual", "distill"), prepared.recipe.continual.distill, expected))
    logits = judge.answer(prepared.base.folder, before, rows, prepared.recipe).outputs["logits"]
    many = prepared.recipe.objective == "multi_label"
    told = calibration.sigmoid(logits) if many else calibration.softmax(logits)
    made = np.zeros((len(told), len(prepared.info.labels)), np.float32)
    made[:, [prepared.info.labels.index(label) for label in before.labels]] = told
    return examples.append_column("teacher", pa.array(made.tolist(), pa.list_(pa.float32())))
