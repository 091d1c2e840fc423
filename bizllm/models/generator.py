"""Prompts → texts, in bulk: longest first, as many at once as the cache of keys and values has room for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.errors import Fault, RunError, UserError
from bizllm.models import adapters, batches, refill, virtual_tokens
from bizllm.models.saved import read_info

Counts = npt.NDArray[np.int64]

# What the keys and values of a batch may take, and how many tokens a batch may hold however small the model: a core's
# time is least at 2,000 to 4,000, and twice as much at 16,000 (10 million parameters, mixed lengths).
_CPU_CACHE_BYTES, _CPU_BATCH_TOKENS = 1 << 30, 4_096
_GPU_CACHE_BYTES, _GPU_BATCH_TOKENS = 8 << 30, 262_144
# Classes that write text. Asked for by name: transformers would load an encoder as a decoder with an untrained head.
_WRITES = re.compile("ForCausalLM|LMHeadModel|ForConditionalGeneration|MTModel")


class TooLong(RunError):
    """Prompts that do not fit the model's window; nothing was generated.

    positions: which of the prompts.
    """

    def __init__(self, positions: Sequence[int], longest: int, limit: int) -> None:
        super().__init__(f"{len(positions)} prompts have up to {longest} tokens; the model reads at most {limit}")
        self.positions = tuple(positions)


@dataclass(frozen=True)
class Generations:
    """What a model wrote: n texts, without special tokens and surrounding blanks.

    input_tokens: (n,) tokens that were read, special ones included.
    output_tokens: (n,) tokens that were written, the end mark included.
    finished: (n,) False where the text stops because it reached `max_new_tokens`.
    """

    texts: list[str]
    input_tokens: Counts
    output_tokens: Counts
    finished: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Generator:
    """A causal (GPT-like) or sequence-to-sequence (T5-like) model with its tokenizer. Never truncates.

    model, tokenizer: of transformers; the tokenizer a fast one.
    max_tokens: the model's window: of prompt and answer together for causal models, of each for the others.
    ends: tokens that end an answer.
    prefixed: virtual tokens stand before every prompt. Behind them PEFT counts padding among the positions, so that
        a batch then holds prompts of one length.
    """

    model: Any
    tokenizer: Any
    max_tokens: int
    ends: tuple[int, ...]
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
        ends = _ends(model, tokenizer)
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
        return cls(model, tokenizer, _window(config, tokenizer, folder), ends, device, prefixed)

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
        window = min(plain.max_tokens, _window(plain.model.config, tokenizer, folder))
        activate = base.put_on(folder, adapters.content_name(folder))
        return cls(plain.model, tokenizer, window, _ends(plain.model, tokenizer), device, False, activate, base)

    def max_input_tokens(self, max_new_tokens: int) -> int:
        """The longest prompt that leaves room for an answer of `max_new_tokens`. Raises UserError where none does."""
        room = self.max_tokens if self._seq2seq else self.max_tokens - max_new_tokens
        if room < 1 or max_new_tokens > self.max_tokens:
            raise UserError(
                Fault("max_new_tokens", max_new_tokens, f"the model's window has {self.max_tokens} tokens", "lower it")
            )
        return room

    def count(self, prompts: Sequence[str], *, chat: bool = True) -> Counts:
        """Tokens of each prompt (n,) as `generate` reads it: with special tokens, and the chat template if any."""
        return np.array([len(ids) for ids in self._encode(prompts, chat)], np.int64)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        chat: bool = True,
    ) -> Generations:
        """An answer to each prompt, in their order. Greedy; with a `temperature` above 0 sampled, by `seed`.

        chat: put the prompt into the tokenizer's chat template, where it has one, as what the user says.
        An answer depends on its prompt only: not on the others, their order, or the batches (but for the last digits of
        sums, which in bfloat16 may turn a near tie). Equal prompts are answered once. Raises TooLong, UserError.
        """
        limit = self.max_input_tokens(max_new_tokens)
        unique, places = batches.distinct(prompts)
        ids = self._encode(unique, chat)
        lengths = np.array([len(row) for row in ids], np.int64)
        if len(ids) and lengths.max() > limit:
            raise TooLong(np.flatnonzero(lengths[places] > limit).tolist(), int(lengths.max()), limit)

        seeds = [_seed(prompt, seed) for prompt in unique] if temperature > 0 else []
        if self.activate:
            self.activate()
        write = self._refilled if self._refills else self._in_batches
        answers = write(ids, max_new_tokens, lambda: _Gumbel(seeds, temperature) if seeds else None)
        finished = [bool(answer) and answer[-1] in self.ends for answer in answers]
        texts = [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]
        lengths_out = np.array([len(answer) for answer in answers], np.int64)
        return Generations(
            [texts[place] for place in places],
            lengths[places],
            lengths_out[places],
            np.array(finished, bool)[places],
        )

    @property
    def _seq2seq(self) -> bool:
        return bool(self.model.config.is_encoder_decoder)

    @cached_property
    def _batch_tokens(self) -> int:
        config = self.model.config.get_text_config()
        token_bytes = 2 * config.num_hidden_layers * config.hidden_size * self.model.dtype.itemsize
        if self.device == "cpu":
            return min(_CPU_BATCH_TOKENS, int(_CPU_CACHE_BYTES // token_bytes))
        return min(_GPU_BATCH_TOKENS, int(_GPU_CACHE_BYTES // token_bytes))

    def _encode(self, prompts: Sequence[str], chat: bool) -> list[list[int]]:
        """Token ids of each prompt. What looks like a control token in it is read as text."""
        if not prompts:
            return []
        if chat and self.tokenizer.chat_template:
            said = [[{"role": "user", "content": prompt}] for prompt in prompts]
            ids = self.tokenizer.apply_chat_template(said, add_generation_prompt=True, sanitize_control_tokens=True)
        else:
            ids = self.tokenizer(list(prompts), truncation=False, verbose=False, split_special_tokens=True)
        rows: list[list[int]] = ids["input_ids"]
        if not self._seq2seq:  # some tokenizers close every text; an answer must go on
            for row in rows:
                while len(row) > 1 and row[-1] in self.ends:
                    row.pop()
        return [row or [self._start] for row in rows]

    @property
    def _start(self) -> int:
        start = self.tokenizer.bos_token_id
        return int(self.ends[0] if start is None else start)

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
        return [self._until_end(row) for row in new]

    def _until_end(self, ids: list[int]) -> list[int]:
        return ids[: next((i + 1 for i, token in enumerate(ids) if token in self.ends), len(ids))]


def _window(config: Any, tokenizer: Any, folder: Path) -> int:
    """The smallest of the limits that the config, the tokenizer and the fine-tuning set. Raises UserError for none."""
    info = read_info(folder)
    text = config.get_text_config()
    positions = [getattr(text, "max_position_embeddings", None), getattr(config, "n_positions", None)]
    said = [
        *(count - virtual_tokens.count(folder) for count in positions if count),
        tokenizer.model_max_length if tokenizer.model_max_length < 1e9 else None,  # 1e30 stands for none
        info.max_tokens if info else None,
    ]
    limits = [int(limit) for limit in said if limit]
    if not limits:
        hint = "set model_max_length in tokenizer_config.json"
        raise UserError(Fault("generator", folder.name, "its config tells no window", hint))
    return min(limits)


def _ends(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens that end an answer: those of the generation config, and the tokenizer's."""
    own = model.generation_config.eos_token_id
    ends = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    known = tuple(dict.fromkeys(int(end) for end in ends if end is not None))
    if not known:
        raise UserError(Fault("generator", model.config.model_type, "has no token that ends a text", "set eos_token"))
    return known


def _seed(prompt: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{prompt}".encode("utf-8", "surrogatepass"), digest_size=7)
    return int.from_bytes(digest.digest(), "little")


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
