"""Prompts → texts, in bulk: longest first, as many at once as the cache of keys and values has room for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bizllm.errors import Fault, UserError
from bizllm.models import adapters, batches, refill, virtual_tokens
from bizllm.models.writer import Generations, TokenWriter, TooLong, ends_of, window

__all__ = ["Generations", "Generator", "TooLong"]

# What the keys and values of a batch may take, and how many tokens a batch may hold however small the model: a core's
# time is least at 2,000 to 4,000, and twice as much at 16,000 (10 million parameters, mixed lengths).
_CPU_CACHE_BYTES, _CPU_BATCH_TOKENS = 1 << 30, 4_096
_GPU_CACHE_BYTES, _GPU_BATCH_TOKENS = 8 << 30, 262_144
# Classes that write text. Asked for by name: transformers would load an encoder as a decoder with an untrained head.
_WRITES = re.compile("ForCausalLM|LMHeadModel|ForConditionalGeneration|MTModel")


@dataclass(frozen=True)
class Generator(TokenWriter):
    """A causal (GPT-like) or sequence-to-sequence (T5-like) model, computed by transformers.

    model: of transformers.
    prefixed: virtual tokens stand before every prompt. Behind them PEFT counts padding among the positions, so that a
        batch then holds prompts of one length.
    activate: makes this generator's adapter the one that computes, where others may share the model.
    base: of an adapter what it is put on, which is held as long as the adapter is.
    """

    model: Any
    device: str
    prefixed: bool = False
    activate: Callable[[], None] | None = None
    base: adapters.Base | None = None

    @classmethod
    def load(cls, folder: Path, device: str | None = None, dtype: str | None = None) -> Generator:
        """Load from a folder of safetensors, config and tokenizer. No code from the folder is run. Raises UserError.

        device: default cuda where there is one, else cpu. dtype: bfloat16 or float32; default the fastest that the
        device computes natively.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

        safely: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        config = AutoConfig.from_pretrained(folder, **safely)
        if not any(map(_WRITES.search, config.architectures or ())):
            expected = "expected a model that writes text: causal_lm or seq2seq"
            raise UserError(Fault("generator", config.model_type, expected))
        tokenizer = batches.load_tokenizer(folder)
        device, dtype = batches.placement(device, dtype)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(folder, **safely, use_safetensors=True, dtype=getattr(torch, dtype))
        ends = ends_of(model.generation_config.eos_token_id, tokenizer, config.model_type)
        # Of the folder's own generation settings only token ids count: the night decides how to search.
        own = model.generation_config
        model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            eos_token_id=list(ends),
            pad_token_id=ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=own.decoder_start_token_id,
            forced_bos_token_id=own.forced_bos_token_id,
        )
        model = virtual_tokens.put_before(model.eval(), folder).to(device)
        prefixed = virtual_tokens.count(folder) > 0
        return cls(tokenizer, window(config, tokenizer, folder), ends, model, device, prefixed)

    @classmethod
    def load_adapter(
        cls, folder: Path, on: Path, content_hash: str, device: str | None = None, dtype: str | None = None
    ) -> Generator:
        """A LoRA adapter on its base, which all adapters of a process share. Raises UserError, RunError.

        folder: the adapter's. on: the base's, with the hash of its content. device, dtype: as of `load`.
        """

        def load() -> tuple[Generator, Any]:
            made = cls.load(on, device, dtype)
            return made, made.model

        device, dtype = batches.placement(device, dtype)
        base = adapters.base(f"{content_hash} {device} {dtype}", load)
        plain: Generator = base.loaded
        if plain.prefixed:
            raise UserError(Fault("generator", folder.name, "its base has virtual tokens, and takes no adapter"))
        own = (folder / "tokenizer.json").is_file()
        tokenizer = batches.load_tokenizer(folder) if own else plain.tokenizer
        ends = ends_of(list(plain.ends), tokenizer, plain.model.config.model_type)
        most = min(plain.max_tokens, window(plain.model.config, tokenizer, folder))
        activate = base.put_on(folder, adapters.content_name(folder))
        return cls(tokenizer, most, ends, plain.model, device, False, activate, base)

    @property
    def _seq2seq(self) -> bool:
        return bool(self.model.config.is_encoder_decoder)

    @cached_property
    def _batch_tokens(self) -> int:
        config = self.model.config.get_text_config()
        heads = (
            getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        )  # fewer share keys and values
        width = heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        token_bytes = 2 * config.num_hidden_layers * width * self.model.dtype.itemsize
        if self.device == "cpu":
            return min(_CPU_BATCH_TOKENS, int(_CPU_CACHE_BYTES // token_bytes))
        return min(_GPU_BATCH_TOKENS, int(_GPU_CACHE_BYTES // token_bytes))

    def _write(
        self,
        ids: list[list[int]],
        max_new_tokens: int,
        temperature: float,
        seeds: list[int],
        schema: Mapping[str, Any] | None,
    ) -> list[list[int]]:
        if self.activate:
            self.activate()
        write = self._refilled if self._refills else self._in_batches
        return write(ids, max_new_tokens, lambda: _Gumbel(seeds, temperature) if seeds else None)

    @cached_property
    def _refills(self) -> bool:
        return not self.prefixed and refill.able(self.model)

    def _refilled(
        self, ids: list[list[int]], max_new_tokens: int, noise: Callable[[], _Gumbel | None]
    ) -> list[list[int]]:
        """The new tokens of each prompt, where rows that end make room for others; in less memory where it must be."""
        answers: list[list[int]] = [[] for _ in ids]
        budget = self._batch_tokens
        while left := sorted((row for row, answer in enumerate(answers) if not answer), key=lambda row: -len(ids[row])):
            writer = refill.Refilled(self.model, ids, max_new_tokens, self.ends, noise())
            try:
                writer.write(left, budget, answers.__setitem__)
            except (MemoryError, RuntimeError) as fault:
                if budget <= len(ids[left[0]]) + max_new_tokens or not batches.is_out_of_memory(fault):
                    raise
                budget //= 2
            batches.free_memory()  # outside the handler: the traceback holds the tensors that did fit
        return answers

    def _in_batches(
        self, ids: list[list[int]], max_new_tokens: int, noise: Callable[[], _Gumbel | None]
    ) -> list[list[int]]:
        """The new tokens of each prompt, in batches that end with their longest answer."""
        answers: list[list[int]] = [[] for _ in ids]
        lengths = np.array([len(row) + max_new_tokens for row in ids], np.int64)

        def write(rows: batches.Whole) -> list[list[int]]:
            return self._forward(ids, rows, max_new_tokens, noise())

        for rows in batches.by_budget(lengths, self._batch_tokens, equal=self.prefixed):
            for part, written in batches.within_memory(write, rows):
                for row, answer in zip(part, written, strict=True):
                    answers[row] = answer
        return answers

    def _forward(
        self, ids: list[list[int]], rows: batches.Whole, max_new_tokens: int, noise: _Gumbel | None
    ) -> list[list[int]]:
        """The new tokens of each prompt of one batch, up to and with the first end mark."""
        import torch

        prompts = [ids[row] for row in rows]
        width = max(map(len, prompts))
        batch = torch.full((len(prompts), width), self.model.generation_config.pad_token_id)
        mask = torch.zeros_like(batch)  # (prompts, width)
        for row, prompt in enumerate(prompts):  # a causal model goes on from the last column
            place = slice(0, len(prompt)) if self._seq2seq else slice(width - len(prompt), width)
            batch[row, place] = torch.tensor(prompt)
            mask[row, place] = 1
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=batch.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=list(self.ends),
                logits_processor=[lambda _, scores: noise(rows.tolist(), scores)] if noise else [],
            )
        # The decoder's start token comes first in a sequence-to-sequence model, the prompt in a causal one.
        new = written[:, 1 if self._seq2seq else width :].tolist()
        return [self.until_end(row) for row in new]


class _Gumbel:
    """Noise that turns the largest score into a draw from softmax(scores / temperature) (Gumbel-max: Maddison, Tarlow &
    Minka 2014). Every prompt has its own source, so that its draws do not depend on the rows beside it.

    seeds: of all prompts.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self.seeds, self.temperature = seeds, temperature
        self.sources: dict[int, Any] = {}

    def __call__(self, rows: Sequence[int], scores: Any) -> Any:
        """The scores (rows, vocabulary) of these prompts, divided by the temperature and with noise."""
        import torch

        for row in rows:
            if row not in self.sources:
                self.sources[row] = torch.Generator().manual_seed(self.seeds[row])
        size = scores.shape[1]
        drawn = torch.stack([torch.rand(size, generator=self.sources[row], dtype=torch.float64) for row in rows])
        noise = -torch.log(-torch.log(drawn.clamp(1e-300, 1 - 1e-16)))  # (rows, vocabulary)
        return scores.float() / self.temperature + noise.to(scores.device, torch.float32)
