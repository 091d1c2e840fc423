"""A recipe held against its data and its base model: everything is checked before any work starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bizllm.errors import Fault, UserError
from bizllm.evaluate.objective_metrics import METRICS
from bizllm.models.load import ResolvedModel, resolve
from bizllm.models.registry_uri import default_uri
from bizllm.models.saved import ModelInfo, Pooling, read_info
from bizllm.train import data, overlap, zero
from bizllm.train.recipe import Recipe
from bizllm.train.work import load_tokenizer

POOLED = ("classification", "pair", "multi_label", "regression", "quantile", "embedding")
MOST_TOKENS = 512  # of a window, where neither the recipe nor the model says less
DECODERS = ("ForCausalLM", "LMHeadModel")


@dataclass(frozen=True)
class Prepared:
    """A training that can start. info: of the model that it will make. overlap: None where texts are no texts."""

    recipe: Recipe
    base: ResolvedModel
    base_info: ModelInfo | None
    info: ModelInfo
    parts: data.Parts
    overlap: overlap.Overlap | None
    registry: str
    warnings: tuple[str, ...] = ()


def prepare(recipe: Recipe, place: Callable[..., str], device: str) -> Prepared:
    """Check settings, base model and data. device: cpu or cuda, what will be computed on. Raises UserError."""
    faults = [
        Fault(place(*s.split(".")), value, expected, hint) for s, value, expected, hint in zero.faults(recipe, device)
    ]
    for keys, metric in (
        (("stop", "metric"), recipe.stop.metric),
        (("promote", "metric"), recipe.promote and recipe.promote.metric),
    ):
        measured = METRICS[recipe.objective]
        if metric is not None and metric not in measured:
            faults.append(Fault(place(*keys), metric, f"expected one of {', '.join(measured)}"))
    if faults:
        raise UserError(*faults)
    registry = registry_uri(recipe, place)
    base = resolve(recipe.base, ".", place("base"), registry)
    config = json.loads((base.folder / "config.json").read_text("utf-8"))
    _check_base(recipe, base, config, place)
    base_info = read_info(base.folder)
    known = base_info.labels if base_info and base_info.objective == recipe.objective else ()
    parts = data.read(recipe, place, known)
    tokenizer = load_tokenizer(base.folder)
    info = ModelInfo(
        name=recipe.name,
        objective=recipe.objective,
        labels=parts.labels,
        pooling=_pooling(recipe, base.folder, base_info, config, place),
        max_tokens=_window(recipe, base.folder, config, tokenizer, place),
        levels=tuple(recipe.levels) if recipe.objective == "quantile" else (),
        horizon=parts.horizon,
        inputs=recipe.inputs or ("pair" if recipe.objective == "pair" else "text"),
        base=base.uri,
        license=recipe.license or (base_info.license if base_info else ""),
    )
    twins, parts, warnings = _without_overlap(recipe, parts)
    return Prepared(recipe, base, base_info, info, parts, twins, registry, warnings)


def registry_uri(recipe: Recipe, place: Callable[..., str]) -> str:
    """Where the model will be registered: the recipe's registry, the environment's, or beside the output."""
    output = recipe.output.rstrip("/")
    return default_uri(recipe.registry, os.environ, os.path.dirname(output), place("registry"))


def _check_base(recipe: Recipe, base: ResolvedModel, config: Mapping[str, Any], place: Callable[..., str]) -> None:
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


def _window(recipe: Recipe, folder: Path, config: Mapping[str, Any], tokenizer: Any, place: Callable[..., str]) -> int:
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or MOST_TOKENS)
    limit = min(positions, int(min(tokenizer.model_max_length, 1 << 30)))
    if recipe.max_tokens is None:
        return min(limit, MOST_TOKENS)
    if recipe.max_tokens > positions:
        raise UserError(
            Fault(place("max_tokens"), recipe.max_tokens, f"the base model reads at most {positions} tokens")
        )
    return recipe.max_tokens


def texts_of(rows: pa.Table) -> list[str] | None:
    """What overlaps are looked for in; None where rows hold numbers."""
    kind = rows["text"].type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not pa.types.is_string(kind.value_type):
            return None
        texts = [" ".join(tokens) for tokens in rows["text"].to_pylist()]
    else:
        texts = rows["text"].to_pylist()
    if "pair" in rows.column_names:
        texts = [f"{text}\n{pair}" for text, pair in zip(texts, rows["pair"].to_pylist(), strict=True)]
    return texts


def _without_overlap(recipe: Recipe, parts: data.Parts) -> tuple[overlap.Overlap | None, data.Parts, tuple[str, ...]]:
    """What the parts share; and train without the rows that it should not have, as `drop_overlap` says."""
    texts = {name: texts_of(part.rows) for name, part in parts.items()}
    if any(some is None for some in texts.values()):
        return None, parts, ()
    found = overlap.find({name: some for name, some in texts.items() if some is not None})
    warnings = []
    for twins in found.found:
        if twins.part == "train" and len(twins.rows):
            exact, near = int(twins.exact.sum()), int((~twins.exact).sum())
            warnings.append(f"train shares {exact:,} texts with {twins.other}, and {near:,} that are nearly the same")
    asked = recipe.data.drop_overlap
    if asked == "none":
        return found, parts, tuple(warnings)
    drop = [
        twins.rows[twins.exact] if asked == "exact" else twins.rows for twins in found.found if twins.part == "train"
    ]
    gone = np.unique(np.concatenate([np.empty(0, np.int64), *drop]))
    if not len(gone):
        return found, parts, tuple(warnings)
    kept = np.setdiff1d(np.arange(len(parts.train.rows)), gone)
    warnings.append(f"{len(gone):,} rows of train are left out for that")
    return found, replace(parts, train=parts.train.take(kept)), tuple(warnings)
