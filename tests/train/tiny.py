"""Tiny base models, toy tables and work folders. Everything is random by a seed and made in milliseconds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa

from bizllm.models.saved import ModelInfo
from bizllm.train.objectives.base import objective_class
from bizllm.train.recipe import Recipe
from bizllm.train.work import Work

TOPICS = {
    "home": "lamp kettle desk chair stove curtain",
    "money": "coin bank loan price invoice rent",
    "travel": "hotel train ticket beach map luggage",
}
FILLERS = ["the", "a", "is", "my", "with", "of", "and", "to", "was", "very", "old", "new", "big", "small", "on", "in"]
WORDS = [*FILLERS, *" ".join(TOPICS.values()).split(), *(str(n) for n in range(10))]
LINES = [" ".join(WORDS), " ".join(reversed(WORDS))] * 4
DIM = 32


def texts(rows: int, seed: int = 0, longest: int = 12) -> list[tuple[str, str]]:
    """(text, topic): fillers with a word or two of the topic, 2 to `longest` words."""
    rng = random.Random(seed)
    made = []
    for _ in range(rows):
        topic = rng.choice(list(TOPICS))
        words = rng.choices(FILLERS, k=rng.randint(1, longest - 2)) + rng.choices(TOPICS[topic].split(), k=2)
        rng.shuffle(words)
        made.append((" ".join(words), topic))
    return made


def table(rows: int, seed: int = 0, longest: int = 12) -> pa.Table:
    """Rows of canonical columns `text` and `label`."""
    made = texts(rows, seed, longest)
    return pa.table({"text": [text for text, _ in made], "label": [topic for _, topic in made]})


def bert(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A random BERT with a WordPiece tokenizer of the toy words and of letters; `[SEP]` ends a text."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    # Written down, not trained: the trainer of word pieces numbers them anew in each process.
    letters = sorted(set("".join(WORDS)))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *WORDS]
    tokenizer = BertTokenizerFast(vocab={piece: number for number, piece in enumerate(dict.fromkeys(pieces))})
    size = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    size |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "initializer_range": 0.2}
    return _written(folder, tokenizer, seed, lambda: BertModel(BertConfig(**{**size, **config})))


def gpt2(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A random GPT-2 with a byte-pair tokenizer; `<end>` ends a text and nothing pads."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _byte_pairs()
    end = tokenizer.eos_token_id
    size = {"n_embd": DIM, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
    size |= {"vocab_size": len(tokenizer), "eos_token_id": end, "bos_token_id": end}
    return _written(folder, tokenizer, seed, lambda: GPT2LMHeadModel(GPT2Config(**{**size, **config})))


def llama(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A random Llama: rotary positions, grouped keys, an output layer of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_pairs()
    end = tokenizer.eos_token_id
    size = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    size |= {"intermediate_size": 48, "max_position_embeddings": 64, "initializer_range": 0.2}
    size |= {"vocab_size": len(tokenizer), "eos_token_id": end, "bos_token_id": end}
    return _written(folder, tokenizer, seed, lambda: LlamaForCausalLM(LlamaConfig(**{**size, **config})))


def t5(folder: Path, seed: int = 0, **config: Any) -> Path:
    """A random T5; its tokenizer ends every text with `<end>`."""
    from tokenizers.processors import TemplateProcessing
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = _byte_pairs(pad="<pad>")
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", end)])
    size = {"d_model": DIM, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": len(tokenizer)}
    size |= {"eos_token_id": end, "pad_token_id": pad, "decoder_start_token_id": pad}
    return _written(folder, tokenizer, seed, lambda: T5ForConditionalGeneration(T5Config(**{**size, **config})))


BASES = {"bert": bert, "gpt2": gpt2, "llama": llama, "t5": t5}
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def work(folder: Path, base: Path, rows: pa.Table, validation: pa.Table | None = None, **said: Any) -> Work:
    """A work folder as the driver makes it. said: of the recipe; `pooling` and `max_tokens` of the model's info."""
    info = {name: said.pop(name) for name in ("pooling", "max_tokens", "levels", "inputs") if name in said}
    recipe = Recipe.model_validate({**_DEFAULTS, **said})
    cls = objective_class(recipe.objective)
    info = {"pooling": "mean", "max_tokens": 32, **info}
    if recipe.objective in ("token_classification", "causal_lm", "seq2seq", "masked_lm"):
        info["pooling"] = "native"
    labels = cls.labels(rows) if cls.learns_labels else ()
    made = Work(folder, recipe, ModelInfo("tiny", recipe.objective, labels, horizon=cls.horizon(rows), **info), base)
    made.save()
    validation = rows if validation is None else validation
    made.write("train", made.objective.encode(rows))
    made.write("validation", made.objective.encode(validation), validation)
    return made


_DEFAULTS: dict[str, Any] = {
    "name": "tiny",
    "base": "path:base",
    "objective": "classification",
    "data": {"train": {"path": "rows.parquet", "text": "text", "label": "label"}},
    "optim": {"lr": 1e-3, "head_lr": 5e-3, "epochs": 2, "batch": 8, "dropout": 0.0},
    "zero": {"stage": 1, "precision": "fp32"},
    "seed": 3,
}


def optim(**said: Any) -> dict[str, Any]:
    """`optim` of the recipe: the tests' defaults with these over them."""
    return {**_DEFAULTS["optim"], **said}


def _byte_pairs(pad: str | None = None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE(unk_token="<unk>"))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "<end>", "<user>", "<assistant>", "<system>", *([pad] if pad else [])]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    plain.train_from_iterator(LINES, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", eos_token="<end>", pad_token=pad)
    tokenizer.chat_template = CHAT
    return tokenizer


def _written(folder: Path, tokenizer: Any, seed: int, model: Any) -> Path:
    import torch

    torch.manual_seed(seed)
    made = model()
    # Biases and norms begin at 0 and 1: moved, so that one that is lost shows.
    for parameter in made.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
