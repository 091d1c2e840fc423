"""Prompts → texts: what a task asks of a model that writes, whatever computes it; and what those that are computed here
share: tokens, window, ends, and the answers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bizllm.errors import Fault, RunError, UserError
from bizllm.models import batches, virtual_tokens
from bizllm.models.saved import read_info

Counts = npt.NDArray[np.int64]
Failure = tuple[str, str]  # code and message of a reject; never a prompt's or an answer's text


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
    failed: why there is no answer, by the position of the prompt; its text is then empty. Only of endpoints.
    """

    texts: list[str]
    input_tokens: Counts
    output_tokens: Counts
    finished: npt.NDArray[np.bool_]
    failed: Mapping[int, Failure] = field(default_factory=dict)


class Writer(ABC):
    """A model that writes. Never truncates."""

    @abstractmethod
    def max_input_tokens(self, max_new_tokens: int) -> int:
        """The longest prompt that leaves room for an answer of `max_new_tokens`. Raises UserError where none does."""

    @abstractmethod
    def count(self, prompts: Sequence[str], *, chat: bool = True) -> Counts:
        """Tokens of each prompt (n,) as `generate` reads it: with special tokens, and the chat template if any."""

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        chat: bool = True,
        schema: Mapping[str, Any] | None = None,
    ) -> Generations:
        """An answer to each prompt, in their order. Greedy; with a `temperature` above 0 sampled, by `seed`.

        chat: put the prompt into the model's chat template, where it has one, as what the user says. schema: the JSON
        Schema that answers are held to while they are written, where the engine can do that; elsewhere it says nothing.
        Equal prompts are answered once. Raises TooLong, UserError, RunError.
        """


@dataclass(frozen=True)
class TokenWriter(Writer):
    """A model that is computed here, with its tokenizer.

    tokenizer: a fast one of transformers. max_tokens: the model's window: of prompt and answer together for causal
    models, of each for sequence-to-sequence ones. ends: tokens that end an answer.
    """

    tokenizer: Any
    max_tokens: int
    ends: tuple[int, ...]

    @property
    @abstractmethod
    def _seq2seq(self) -> bool:
        """Whether it reads by an encoder and writes by a decoder."""

    @abstractmethod
    def _write(
        self,
        ids: list[list[int]],
        max_new_tokens: int,
        temperature: float,
        seeds: list[int],
        schema: Mapping[str, Any] | None,
    ) -> list[list[int]]:
        """The new tokens of each prompt, up to and with the first end. seeds: (prompts,) where a temperature is set."""

    def max_input_tokens(self, max_new_tokens: int) -> int:
        room = self.max_tokens if self._seq2seq else self.max_tokens - max_new_tokens
        if room < 1 or max_new_tokens > self.max_tokens:
            raise UserError(
                Fault("max_new_tokens", max_new_tokens, f"the model's window has {self.max_tokens} tokens", "lower it")
            )
        return room

    def count(self, prompts: Sequence[str], *, chat: bool = True) -> Counts:
        return np.array([len(ids) for ids in self._encode(prompts, chat)], np.int64)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        chat: bool = True,
        schema: Mapping[str, Any] | None = None,
    ) -> Generations:
        """As `Writer.generate`. An answer depends on its prompt only: not on the others, their order, or the batches
        (but for the last digits of sums, which in bfloat16 may turn a near tie)."""
        limit = self.max_input_tokens(max_new_tokens)
        unique, places = batches.distinct(prompts)
        ids = self._encode(unique, chat)
        lengths = np.array([len(row) for row in ids], np.int64)
        if len(ids) and lengths.max() > limit:
            raise TooLong(np.flatnonzero(lengths[places] > limit).tolist(), int(lengths.max()), limit)

        seeds = [seed_of(prompt, seed) for prompt in unique] if temperature > 0 else []
        answers = self._write(ids, max_new_tokens, temperature, seeds, schema)
        finished = [bool(answer) and answer[-1] in self.ends for answer in answers]
        texts = [text.strip() for text in self.tokenizer.batch_decode(answers, skip_special_tokens=True)]
        lengths_out = np.array([len(answer) for answer in answers], np.int64)
        return Generations(
            [texts[place] for place in places],
            lengths[places],
            lengths_out[places],
            np.array(finished, bool)[places],
        )

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

    def until_end(self, ids: list[int]) -> list[int]:
        """New tokens up to and with the first that ends an answer."""
        return ids[: next((i + 1 for i, token in enumerate(ids) if token in self.ends), len(ids))]


def window(config: Any, tokenizer: Any, folder: Path) -> int:
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


def ends_of(own: int | list[int] | None, tokenizer: Any, kind: str) -> tuple[int, ...]:
    """Tokens that end an answer: `own`, those of the generation config, and the tokenizer's. Raises UserError.

    kind: the model's, for the message.
    """
    ends = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    known = tuple(dict.fromkeys(int(end) for end in ends if end is not None))
    if not known:
        raise UserError(Fault("generator", kind, "has no token that ends a text", "set eos_token"))
    return known


def seed_of(prompt: str, seed: int) -> int:
    """A prompt's own, so that its draws do not depend on the prompts beside it: 56 bits."""
    digest = hashlib.blake2b(f"{seed}\0{prompt}".encode("utf-8", "surrogatepass"), digest_size=7)
    return int.from_bytes(digest.digest(), "little")
