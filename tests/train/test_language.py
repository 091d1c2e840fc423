"""Padding, packing, windows and chats of language models change nothing in the loss but what they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny
import torch

from bizllm.train.objectives.base import IGNORED
from bizllm.train.work import Work


def loss_and_gradients(work: Work, examples: pa.Table, **config: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Of all examples in one batch, the mean over what counts."""
    network = work.network().train()
    for name, value in config.items():
        network.model.set_attn_implementation(value) if name == "attention" else None
    loss = work.objective.loss(network, work.objective.collate(examples)) / work.objective.units(examples).sum()
    loss.backward()
    return loss.item(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def by_row(work: Work, examples: pa.Table) -> float:
    """The same, each example alone, so that nothing is padded."""
    network, total = work.network().eval(), 0.0
    with torch.no_grad():
        for i in range(len(examples)):
            total += float(work.objective.loss(network, work.objective.collate(examples.slice(i, 1))))
    return total / work.objective.units(examples).sum()


@pytest.mark.parametrize(
    ("objective", "kind", "pooling"),
    [
        *(("classification", kind, pooling) for kind in ("bert", "gpt2") for pooling in ("mean", "last", "native")),
        ("token_classification", "bert", "native"),
        ("causal_lm", "gpt2", "native"),
        ("causal_lm", "llama", "native"),
        ("seq2seq", "t5", "native"),
    ],
)
def test_padding_changes_nothing(objective: str, kind: str, pooling: str, base: Any, tmp_path: Path) -> None:
    rows = tiny.table(12, longest=14)
    if objective == "token_classification":
        words = [text.split() for text in rows["text"].to_pylist()]
        rows = pa.table({"text": words, "label": [["A" if len(w) > 3 else "O" for w in ws] for ws in words]})
    work = tiny.work(tmp_path, base(kind), rows, objective=objective, pooling=pooling, packing=False)
    examples = work.examples("train")
    assert len(set(map(len, examples["input_ids"].to_pylist()))) > 4
    assert loss_and_gradients(work, examples)[0] == pytest.approx(by_row(work, examples), abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("labels", [True, False])
def test_packing_changes_no_loss_and_no_gradient(
    kind: str, attention: str, labels: bool, base: Any, tmp_path: Path
) -> None:
    rows = tiny.table(20) if labels else tiny.table(20).select(["text"])
    made = {
        packing: tiny.work(
            tmp_path / str(packing), base(kind), rows, objective="causal_lm", packing=packing, max_tokens=48
        )
        for packing in (True, False)
    }
    packed, apart = (made[packing].examples("train") for packing in (True, False))
    assert len(packed) < len(apart) / 2
    assert made[True].objective.units(packed).sum() == made[False].objective.units(apart).sum()
    one = loss_and_gradients(made[True], packed, attention=attention)
    other = loss_and_gradients(made[False], apart, attention="eager")
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    for name, gradient in other[1].items():
        torch.testing.assert_close(one[1][name], gradient, atol=2e-5, rtol=1e-4)


def test_only_the_answers_tokens_count(base: Any, tmp_path: Path) -> None:
    rows = tiny.table(6)
    work = tiny.work(tmp_path, base("gpt2"), rows, objective="causal_lm", packing=False)
    work.tokenizer.chat_template = None
    for row, example in zip(rows.to_pylist(), work.objective.encode(rows).to_pylist(), strict=True):
        counted = [token for token in example["target"] if token != IGNORED]
        answer = work.tokenizer(row["label"])["input_ids"]
        assert counted == [*answer, work.tokenizer.eos_token_id]
        prompt = work.tokenizer(row["text"])["input_ids"]
        assert example["input_ids"] == [*prompt, *answer]
        assert example["target"][: len(prompt) - 1] == [IGNORED] * (len(prompt) - 1)


def test_a_prompt_is_asked_as_at_night(base: Any, tmp_path: Path) -> None:
    rows = tiny.table(6)
    work = tiny.work(tmp_path, base("gpt2"), rows, objective="causal_lm", packing=False, max_tokens=60)
    for row, example in zip(rows.to_pylist(), work.examples("train").to_pylist(), strict=True):
        user = [{"role": "user", "content": row["text"]}]
        asked = work.tokenizer.apply_chat_template(user, add_generation_prompt=True, return_dict=False)
        assert example["input_ids"][: len(asked)] == asked
        counted = [token for token in example["target"] if token != IGNORED]
        assert work.tokenizer.decode(counted).replace(" ", "") == f"{row['label'].replace(' ', '')}<end>"


def test_only_the_assistants_turns_count(base: Any, tmp_path: Path) -> None:
    turns = [("system", "the old"), ("user", "my lamp is"), ("assistant", "very new"), ("user", "coin")]
    turns.append(("assistant", "rent"))
    chat = [{"role": role, "content": content} for role, content in turns]
    rows = pa.table({"text": [chat, chat[:3], chat[1:2]]})
    work = tiny.work(tmp_path, base("gpt2"), rows, objective="causal_lm", packing=False, max_tokens=60)
    counted = [
        work.tokenizer.decode([token for token in example["target"] if token != IGNORED])
        for example in work.examples("train").to_pylist()
    ]
    assert [text.replace(" ", "") for text in counted] == ["verynew<end>rent<end>", "verynew<end>", ""]
    whole = work.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    assert work.examples("train")["input_ids"][0].as_py() == whole[:-1]


@pytest.mark.parametrize("packing", [True, False])
def test_a_long_text_is_predicted_once_in_every_token(packing: bool, base: Any, tmp_path: Path) -> None:
    texts = ["lamp " * 70, "coin", "the old hotel " * 11, ""]
    rows = pa.table({"text": texts})
    work = tiny.work(tmp_path, base("gpt2"), rows, objective="causal_lm", max_tokens=16, packing=packing)
    examples = work.examples("train").to_pylist()
    assert all(0 < len(example["input_ids"]) <= 16 for example in examples)
    end = work.tokenizer.eos_token_id
    expected = sorted(token for text in texts for token in [*work.tokenizer(text)["input_ids"], end][1:])
    assert sorted(token for example in examples for token in example["target"] if token != IGNORED) == expected


def test_a_prompt_that_fills_the_window_is_left_out(base: Any, tmp_path: Path) -> None:
    rows = pa.table({"text": ["lamp " * 40, "coin"], "label": ["desk", "desk"]})
    work = tiny.work(tmp_path, base("gpt2"), rows, objective="causal_lm", max_tokens=16)
    examples = work.examples("train")
    assert len(examples) == 1 and work.objective.units(examples).sum() == 2
    assert examples["cut"].to_pylist() == [True], "the cut row is told"
