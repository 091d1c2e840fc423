"""A recipe held against its data and its base model: everything is checked before any work starts. Nothing is
written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from bizllm.errors import Fault, UserError, nearest
from bizllm.evaluate.objective_metrics import METRICS
from bizllm.models import virtual_tokens
from bizllm.models.load import ResolvedModel, resolve
from bizllm.models.registry_uri import default_uri
from bizllm.models.saved import ModelInfo, Pooling, read_info
from bizllm.train import data, earlier, leaks, overlap, pseudo_labels, resampled, teacher, written, zero
from bizllm.train.objectives.base import STRING, is_kind
from bizllm.train.recipe import Recipe
from bizllm.train.work import load_tokenizer

POOLED = ("classification", "pair", "multi_label", "regression", "quantile", "embedding")
MOST_TOKENS = 512  # of a window, where neither the recipe nor the model says less
DECODERS = ("ForCausalLM", "LMHeadModel")
PADDED_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "esm")


@dataclass(frozen=True)
class Prepared:
    """A training that can start. info: of the model that it will make. overlap: None where texts are no texts.

    earlier: rows and test rows of the earlier training, those that the recipe names. near: unlabelled rows to learn
    with pseudo-labels. teacher: whose answers are learned. unlabelled: rows to propose from.
    """

    recipe: Recipe
    base: ResolvedModel
    base_info: ModelInfo | None
    info: ModelInfo
    parts: data.Parts
    overlap: overlap.Overlap | None
    earlier: earlier.Earlier
    near: pseudo_labels.Near | None
    teacher: ResolvedModel | None
    unlabelled: pa.Table | None
    registry: str
    warnings: tuple[str, ...] = ()


def prepare(recipe: Recipe, place: Callable[..., str], device: str) -> Prepared:
    """Check settings, base model and data. device: cpu or cuda, what will be computed on. Raises UserError."""
    faults = [
        Fault(place(*s.split(".")), value, expected, hint) for s, value, expected, hint in zero.faults(recipe, device)
    ]
    faults += _metric_faults(recipe, place) + _class_faults(recipe, place) + pseudo_labels.faults(recipe, place)
    if faults:
        raise UserError(*faults)
    registry = registry_uri(recipe, place)
    base = resolve(recipe.base, ".", place("base"), registry)
    config = _config(recipe, base, place)
    _check_base(recipe, base, config, place)
    base_info = read_info(base.folder)
    known = base_info.labels if base_info and base_info.objective == recipe.objective else ()
    earlier.check(recipe, base_info, place)
    taught_by = teacher.read(recipe, base_info, registry, place)
    parts = data.read(recipe, place, known)
    tokenizer = _tokenizer(recipe, base, place)
    info = ModelInfo(
        name=recipe.name,
        objective=recipe.objective,
        labels=parts.labels,
        pooling=_pooling(recipe, base.folder, base_info, config, place),
        max_tokens=_window(recipe, config, tokenizer, place),
        levels=tuple(recipe.levels) if recipe.objective == "quantile" else (),
        horizon=parts.horizon,
        inputs=recipe.inputs or ("pair" if recipe.objective == "pair" else "text"),
        base=base.uri,
        license=recipe.license or (base_info.license if base_info else ""),
    )
    if taught_by is not None:
        info = teacher.following(info, taught_by, base.folder, recipe, place)
    if recipe.augment is not None and recipe.augment.mixup and info.pooling == "native":
        expected = "mixes pooled vectors; this base has transformers' own head, which doesn't let them through"
        raise UserError(Fault(place("augment", "mixup"), recipe.augment.mixup, expected, "use `pooling: mean`"))
    _check_answers(recipe, info, parts, place)
    _check_augment(recipe, parts, registry, place)
    twins, parts, warnings = leaks.without_overlap(recipe, parts, place)
    warnings += leaks.contradictions(recipe, parts)
    before = earlier.read(recipe, info, parts, place)
    near, said = pseudo_labels.read(recipe, base, parts, registry, place)
    proposed = data.read_unlabelled(recipe.propose, "propose", recipe, place).rows if recipe.propose else None
    return Prepared(
        recipe, base, base_info, info, parts, twins, before, near, taught_by, proposed, registry, (*warnings, *said)
    )


def _metric_faults(recipe: Recipe, place: Callable[..., str]) -> list[Fault]:
    """Metrics that validation does not measure, or that models can't be compared by."""
    unmeasured = {*written.METRICS, *(() if recipe.inputs == "numbers" else ("mase",))}
    if recipe.objective == "quantile" and 0.5 not in recipe.levels:
        unmeasured |= {"mae", "rmse", "smape", "mase", "r2"}  # of the median
    measured = [name for name in METRICS[recipe.objective] if name not in unmeasured]
    asked = [(("stop", "metric"), recipe.stop.metric, measured)]
    if recipe.promote is not None:
        asked.append((("promote", "metric"), recipe.promote.metric, list(resampled.DRAWN[recipe.objective])))
    return [
        Fault(place(*keys), metric, f"expected one of {', '.join(known)}", nearest(metric, known))
        for keys, metric, known in asked
        if metric is not None and metric not in known
    ]


def _class_faults(recipe: Recipe, place: Callable[..., str]) -> list[Fault]:
    """Settings for classes, where there are none."""
    if recipe.objective in leaks.WITH_CLASSES:
        return []
    asked = {"review": recipe.review or None, "propose": recipe.propose and recipe.propose.path}
    what = f"is for {', '.join(leaks.WITH_CLASSES)}"
    return [Fault(place(key), value, what) for key, value in asked.items() if value is not None]


def registry_uri(recipe: Recipe, place: Callable[..., str]) -> str:
    """Where the model will be registered: the recipe's registry, the environment's, or beside the output."""
    output = recipe.output.rstrip("/")
    return default_uri(recipe.registry, os.environ, os.path.dirname(output), place("registry"))


def _config(recipe: Recipe, base: ResolvedModel, place: Callable[..., str]) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING

    try:
        config: dict[str, Any] = json.loads((base.folder / "config.json").read_text("utf-8"))
        kind = config.get("model_type")
    except (ValueError, AttributeError):
        raise UserError(Fault(place("base"), recipe.base, "its config.json can't be read")) from None
    if kind not in CONFIG_MAPPING:
        said = f"is of the type '{kind}'" if kind else "tells no model_type in its config.json"
        raise UserError(Fault(place("base"), recipe.base, f"{said}; transformers knows no such model"))
    return config


def _tokenizer(recipe: Recipe, base: ResolvedModel, place: Callable[..., str]) -> Any:
    try:
        return load_tokenizer(base.folder)
    except Exception as error:  # tokenizers raises bare Exceptions
        what = f"its tokenizer can't be loaded ({type(error).__name__})"
        raise UserError(Fault(place("base"), recipe.base, what, "save it with save_pretrained")) from None


def _check_base(recipe: Recipe, base: ResolvedModel, config: Mapping[str, Any], place: Callable[..., str]) -> None:
    if virtual_tokens.count(base.folder):
        what = "virtual tokens stand before its texts, from which training can't go on"
        raise UserError(Fault(place("base"), recipe.base, what, "name the base that it was made from"))
    decoder = _is_decoder(config)
    encoder_decoder = bool(config.get("is_encoder_decoder"))
    asked = recipe.objective
    wrong = {
        "causal_lm": not decoder and "a GPT-type model",
        "seq2seq": not encoder_decoder and "an encoder with a decoder, such as T5",
        "masked_lm": (decoder or encoder_decoder) and "a BERT-type model",
    }.get(asked)
    if wrong:
        kind = config.get("model_type", "unknown")
        raise UserError(Fault(place("base"), recipe.base, f"{asked} needs {wrong}; this one is of type {kind}"))


def _is_decoder(config: Mapping[str, Any]) -> bool:
    named = any(str(name).endswith(DECODERS) for name in config.get("architectures") or ())
    return named or config.get("model_type") in ("gpt2", "llama", "qwen2", "qwen3", "mistral", "gpt_neox", "opt", "phi")


def _pooling(
    recipe: Recipe, folder: Path, base_info: ModelInfo | None, config: Mapping[str, Any], place: Callable[..., str]
) -> Pooling:
    if recipe.objective not in POOLED:
        return "native"
    native = recipe.objective != "embedding" and not config.get("is_encoder_decoder")
    if recipe.pooling != "auto":
        if recipe.pooling == "native" and not native:
            raise UserError(Fault(place("pooling"), "native", "expected mean, cls or last here"))
        return recipe.pooling
    if base_info is not None and base_info.objective in POOLED:
        return base_info.pooling
    said = folder / "1_Pooling/config.json"
    if said.is_file():
        return "cls" if json.loads(said.read_text("utf-8")).get("pooling_mode_cls_token") else "mean"
    if native:
        return "native"
    return "last" if _is_decoder(config) else "mean"


def _window(recipe: Recipe, config: Mapping[str, Any], tokenizer: Any, place: Callable[..., str]) -> int:
    """Tokens of the longest row that the model reads: what is asked for, or at most MOST_TOKENS."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")  # T5 has none: any number
    if positions:
        positions -= recipe.method.virtual
    if positions and config.get("model_type") in PADDED_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1  # the first positions stand for padding
    if recipe.max_tokens is None:
        return min(positions or MOST_TOKENS, int(min(tokenizer.model_max_length, MOST_TOKENS)))
    if positions and recipe.max_tokens > positions:
        what = f"the base model reads at most {positions} tokens"
        raise UserError(Fault(place("max_tokens"), recipe.max_tokens, what))
    if recipe.max_tokens <= tokenizer.num_special_tokens_to_add(pair=recipe.objective == "pair"):
        what = "leaves no room for a text beside the special tokens"
        raise UserError(Fault(place("max_tokens"), recipe.max_tokens, what))
    return recipe.max_tokens


def _check_answers(recipe: Recipe, info: ModelInfo, parts: data.Parts, place: Callable[..., str]) -> None:
    """Settings of answers that are written: their length, and metrics of them."""
    writes = parts.test is not None and written.writes(recipe.objective, parts.test.rows.schema)
    asked = recipe.promote and recipe.promote.metric
    if asked in written.METRICS and parts.test is not None and not writes:
        raise UserError(Fault(place("promote", "metric"), asked, "needs prompts with answers: `data.train.label`"))
    if writes and "max_new_tokens" in recipe.model_fields_set and recipe.max_new_tokens >= info.max_tokens:
        what = f"the model's window has {info.max_tokens} tokens"
        raise UserError(Fault(place("max_new_tokens"), recipe.max_new_tokens, what, "lower it"))


def changes_texts(recipe: Recipe) -> bool:
    """Whether rows of train get copies with other texts."""
    asked = recipe.augment
    return asked is not None and bool(asked.noise or asked.back_translate or asked.paraphrase)


def _check_augment(recipe: Recipe, parts: data.Parts, registry: str, place: Callable[..., str]) -> None:
    if not changes_texts(recipe):
        return
    assert recipe.augment is not None
    if not is_kind(parts.train.rows["text"].type, STRING):
        raise UserError(Fault(place("augment"), None, "changes texts; these rows hold tokens, chats or numbers"))
    for key, uris in (
        (("augment", "back_translate"), recipe.augment.back_translate or ()),
        (("augment", "paraphrase"), (recipe.augment.paraphrase,) if recipe.augment.paraphrase else ()),
    ):
        for uri in uris:
            resolve(uri, ".", place(*key), registry)
