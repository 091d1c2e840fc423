"""The next token: chats, prompts with answers, or plain text; several short rows packed in one sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from bizllm.evaluate import texts
from bizllm.train.objectives.base import IGNORED, STRING, Array, Batch, Faults, Forward, Objective, is_kind, mean_loss
from bizllm.train.objectives.token_classification import counted

if TYPE_CHECKING:
    import torch

    from bizllm.train.recipe import Recipe

Piece = tuple[list[int], list[int]]  # token ids, and for each the token to predict or IGNORED


class CausalLm(Objective):
    """`text` is a prompt and `label` its answer; or `text` is a chat, a list of {role, content}; or plain text.

    Only answers count: the label's tokens, the assistant's turns, or all of a plain text. A packed sequence keeps the
    documents apart: positions begin anew and attention stays within a document.
    """

    name = "causal_lm"
    summary = "A language model that goes on: chats, answers, plain text."
    metric = "loss"
    needs: ClassVar[tuple[str, ...]] = ("text",)
    tokens_at_once: ClassVar[int] = 2_048  # each has a logit for every word

    @classmethod
    def check(cls, recipe: Recipe, schema: pa.Schema) -> Faults:
        faults: Faults = []
        kind = schema.field("text").type
        if not (is_kind(kind, STRING) or is_chat(kind)):
            faults.append(("text", str(kind), "expected text, or a chat: a list of {role, content}", ""))
        if "label" in schema.names and not is_kind(schema.field("label").type, STRING):
            faults.append(("label", str(schema.field("label").type), "expected a column of text", "cast in `select`"))
        return faults

    @property
    def packs(self) -> bool:
        return True

    def encode(self, rows: pa.Table) -> pa.Table:
        pieces, cut = self._pieces(rows)
        # Virtual tokens stand before a sequence, not before each of its documents.
        apart = not self.recipe.packing or bool(self.recipe.method.virtual)
        packs = [[piece] for piece in pieces] if apart else self._packed(_counting(pieces))
        from bizllm.train.objectives.tensors import ids_of

        return pa.table(
            {
                "input_ids": ids_of([[i for ids, _ in pack for i in ids] for pack in packs]),
                "target": ids_of([[t for _, targets in pack for t in targets] for pack in packs]),
                "parts": ids_of([[len(ids) for ids, _ in pack] for pack in packs]),
                "cut": pa.array([i < cut for i in range(len(packs))]),
            }
        )

    def _pieces(self, rows: pa.Table) -> tuple[list[Piece], int]:
        """Each row's tokens and targets, within the window: a plain text in windows, an answer cut at its end; and how
        many were cut."""
        end, limit = [self.tokenizer.eos_token_id], self.info.max_tokens
        plain = rows["text"].to_pylist()
        if is_chat(rows["text"].type):
            return _cut([self._chat(chat) for chat in plain], limit)
        if "label" in rows.column_names:
            return _cut(self._answered(plain, rows["label"].to_pylist()), limit)
        ids = self.tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"]
        whole = [[*text, *end] for text in ids]
        # Windows overlap by one token, so that each token but the first is predicted once.
        windows = [
            text[start : start + limit + 1] for text in whole for start in range(0, max(1, len(text) - 1), limit)
        ]
        return [_shifted(window, [True] * len(window)) for window in windows], 0

    def _answered(self, prompts: Sequence[str], answers: Sequence[str]) -> list[tuple[list[int], list[bool]]]:
        """Prompts as `models.generator` asks them at night: by the chat template where the tokenizer has one."""
        if self.tokenizer.chat_template:
            return [
                self._chat([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
                for prompt, answer in zip(prompts, answers, strict=True)
            ]
        end = self.tokenizer.eos_token_id
        asked = self.tokenizer(list(prompts), split_special_tokens=True, verbose=False)["input_ids"]
        said = self.tokenizer(list(answers), add_special_tokens=False, split_special_tokens=True, verbose=False)
        told = []
        for prompt, answer in zip(asked, said["input_ids"], strict=True):
            while len(prompt) > 1 and prompt[-1] == end:  # some tokenizers close every text; the answer goes on
                prompt.pop()
            told.append(([*prompt, *answer, end], [False] * len(prompt) + [True] * (len(answer) + 1)))
        return told

    def _chat(self, chat: Sequence[dict[str, str]]) -> tuple[list[int], list[bool]]:
        """The template's tokens, and which of them the assistant says."""
        made: list[int] = []
        said: list[bool] = []
        for turn, message in enumerate(chat):
            if message["role"] != "assistant":
                continue
            for upto, answer in ((turn, False), (turn + 1, True)):
                ids = self.tokenizer.apply_chat_template(
                    list(chat[:upto]),
                    tokenize=True,
                    add_generation_prompt=not answer,
                    return_dict=False,
                    sanitize_control_tokens=True,
                )
                said += [answer] * (len(ids) - len(made))
                made = list(ids)
        return made, said[: len(made)]

    def _packed(self, pieces: list[Piece]) -> list[list[Piece]]:
        """Sequences of at most `max_tokens`, by first fit of the longest first among the last hundred open ones."""
        order = sorted(range(len(pieces)), key=lambda i: -len(pieces[i][0]))
        packs: list[list[Piece]] = []
        room: list[tuple[int, int]] = []  # (tokens left, pack)
        for i in order:
            size = len(pieces[i][0])
            fit = next((k for k, (left, _) in enumerate(room) if left >= size), None)
            if fit is None:
                packs.append([pieces[i]])
                room = [*room[-99:], (self.info.max_tokens - size, len(packs) - 1)]
            else:
                left, pack = room[fit]
                packs[pack].append(pieces[i])
                room[fit] = (left - size, pack)
        return packs

    def units(self, examples: pa.Table) -> Array:
        return counted(examples["target"])

    def collate(self, examples: pa.Table) -> Batch:
        import torch

        from bizllm.train.objectives.tensors import mask_of, padded

        ids = padded(examples["input_ids"], self.tokenizer.pad_token_id or 0)
        batch = {"input_ids": ids, "target": padded(examples["target"], IGNORED)}
        parts = examples["parts"].to_pylist()
        if all(len(lengths) == 1 for lengths in parts):
            return {**batch, "attention_mask": mask_of(examples["input_ids"])}
        rows, width = ids.shape
        document = torch.zeros((rows, width), dtype=torch.long)  # 0: padding
        position = torch.zeros((rows, width), dtype=torch.long)
        for row, lengths in enumerate(parts):
            at = 0
            for number, length in enumerate(lengths, start=1):
                document[row, at : at + length] = number
                position[row, at : at + length] = torch.arange(length)
                at += length
        causal = torch.ones((width, width), dtype=torch.bool).tril()
        seen = (document[:, :, None] == document[:, None, :]) & causal  # (rows, query, key)
        return {**batch, "attention_mask": seen[:, None], "position_ids": position}

    def loss(self, network: Forward, batch: Batch) -> torch.Tensor:
        return self._token_loss(network(**_inputs(batch)), batch["target"]).sum()

    def _token_loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        from bizllm.train.objectives.tensors import token_loss

        return token_loss(logits, target, self.recipe.optim.label_smoothing)

    def predict(self, network: Forward, batch: Batch) -> dict[str, Array]:
        logits, target = network(**_inputs(batch)), batch["target"]
        counts = target != IGNORED
        right = ((logits.argmax(-1) == target) & counts).sum(1)
        return {
            "loss": self._token_loss(logits, target).sum(1).cpu().numpy(),
            "units": counts.sum(1).double().cpu().numpy(),
            "right": right.cpu().numpy(),
        }

    def scores(self, outputs: Mapping[str, Array], rows: pa.Table) -> dict[str, float]:
        tokens = int(outputs["units"].sum())
        nll = float(np.sum(outputs["loss"], dtype=np.float64))
        accuracy = float(outputs["right"].sum() / max(1, tokens))
        return {"loss": mean_loss(outputs), "perplexity": texts.perplexity(nll, tokens), "token_accuracy": accuracy}


def is_chat(kind: pa.DataType) -> bool:
    """Whether a type is a list of {role, content}."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    return {"role", "content"} <= {kind.value_type.field(i).name for i in range(kind.value_type.num_fields)}


def _cut(said: list[tuple[list[int], list[bool]]], limit: int) -> tuple[list[Piece], int]:
    """Tokens and which of them count → pieces of at most `limit` tokens, and how many lost their end."""
    pieces = [_shifted(ids[: limit + 1], counts[: limit + 1]) for ids, counts in said]
    return pieces, sum(len(ids) > limit + 1 for ids, _ in said)


def _shifted(ids: list[int], counts: list[bool]) -> Piece:
    """Inputs without the last token and, for each, the next token where that one counts."""
    if len(ids) == 1:  # of an empty text its end: attention wants a token
        return ids, [IGNORED]
    return ids[:-1], [token if count else IGNORED for token, count in zip(ids[1:], counts[1:], strict=True)]


def _counting(pieces: list[Piece]) -> list[Piece]:
    """Those with something to predict; one where none has."""
    return [piece for piece in pieces if any(target != IGNORED for target in piece[1])] or pieces[:1]


def _inputs(batch: dict[str, Any]) -> Batch:
    return {name: value for name, value in batch.items() if name != "target"}


OBJECTIVE = CausalLm
