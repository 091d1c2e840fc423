"""Rows that come and go beside transformers' own loop, one prompt at a time; answers of very different lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from bizllm.models import refill
from bizllm.models.generator import Generator

VOCABULARY, NEW = 97, 24
ENDS = tuple(range(0, VOCABULARY, 14))
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=96, initializer_range=0.4)
    )


def llama() -> Any:
    """Rotary positions, and fewer keys than queries."""
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, initializer_range=0.4, **SIZE)  # type: ignore[arg-type]
    )


def asked(n: int, shared: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(0)
    begin = rng.integers(0, VOCABULARY, shared).tolist()
    return [begin + rng.integers(0, VOCABULARY, rng.integers(1, 30)).tolist() for _ in range(n)]


def alone(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """transformers' own greedy search, one at a time and unpadded."""
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, eos_token_id=list(ENDS),
            pad_token_id=0,
        )  # fmt: skip
        answers.append(out[0, len(prompt) :].tolist())
    return answers


@pytest.mark.parametrize("shared", [0, 20])
@pytest.mark.parametrize("make", [gpt2, llama])
def test_answers_are_those_of_each_prompt_alone(make: Callable[[], Any], shared: int) -> None:
    torch.manual_seed(1)
    model, prompts = make().eval(), asked(60, shared)
    expected = alone(model, prompts)
    lengths = [len(answer) for answer in expected]
    assert min(lengths) <= 2 and max(lengths) > NEW // 2 and len(set(lengths)) > 8, "they end at different lengths"
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    for budget in (1, 300, 1_000, 100_000):
        for rows in (order, order[::-1]):
            found: dict[int, list[int]] = {}
            refill.Refilled(model, prompts, NEW, ENDS).write(rows, budget, found.__setitem__)
            assert [found[row] for row in range(len(prompts))] == expected


def test_a_row_that_ended_makes_room_and_the_cache_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model, prompts, budget = gpt2().eval(), asked(60), 600
    sizes: list[tuple[int, int]] = []
    step = refill.Refilled._step

    def seen(self: refill.Refilled, batch: Any) -> None:
        step(self, batch)
        assert batch.cache.get_seq_length() == batch.mask.shape[1]
        sizes.append(tuple(batch.mask.shape))

    monkeypatch.setattr(refill.Refilled, "_step", seen)
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    found: dict[int, list[int]] = {}
    refill.Refilled(model, prompts, NEW, ENDS).write(order, budget, found.__setitem__)
    assert max(rows * columns for rows, columns in sizes) <= budget
    written = sum(len(answer) - 1 for answer in found.values())
    computed = sum(rows for rows, _ in sizes)
    assert computed < 1.25 * written, "few tokens are computed for rows that had ended"
    batches = [order[i : i + 11] for i in range(0, 60, 11)]
    assert len(sizes) < 0.7 * sum(max(len(found[row]) for row in batch) - 1 for batch in batches)


def test_models_whose_rows_cannot_come_and_go() -> None:
    size = {key: value for key, value in SIZE.items() if key != "num_attention_heads"}
    slides = MistralConfig(vocab_size=VOCABULARY, num_key_value_heads=2, sliding_window=8, **SIZE)  # type: ignore[arg-type]
    assert not refill.able(MistralForCausalLM(slides))
    assert refill.able(MistralForCausalLM(MistralConfig(**slides.to_diff_dict() | {"sliding_window": None})))
    assert not refill.able(MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, **size)))  # type: ignore[arg-type]
    assert not refill.able(BartForConditionalGeneration(BartConfig(d_model=16, encoder_layers=1, decoder_layers=1)))
    assert refill.able(gpt2()) and refill.able(llama())


def test_what_memory_does_not_hold_is_written_in_smaller_batches(
    small_generator: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator.load(small_generator("causal"), "cpu", "float32")
    prompts = [f"{word} {other} so" for word in ("cat", "tea", "box") for other in ("lid", "mill", "lamp", "desk")]
    expected = generator.generate(prompts, 8).texts
    step, refused = refill.Refilled._step, []

    def narrow(self: refill.Refilled, batch: Any) -> None:
        if len(batch.rows) > 3:
            refused.append(len(batch.rows))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        step(self, batch)

    monkeypatch.setattr(refill.Refilled, "_step", narrow)
    assert generator.generate(prompts, 8).texts == expected
    assert refused and generator.generate(prompts, 8, temperature=1.0, seed=3).texts
    monkeypatch.setattr(refill.Refilled, "_step", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        generator.generate(prompts, 8)


def test_the_class_that_loads_it_does_not_matter(tmp_path: Path) -> None:
    """A folder that AutoModel loads answers as the model that was saved."""
    torch.manual_seed(1)
    model, prompts = llama().eval(), asked(10)
    model.save_pretrained(tmp_path)
    found: dict[int, list[int]] = {}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    refill.Refilled(loaded, prompts, NEW, ENDS).write(range(10), 10_000, found.__setitem__)
    assert [found[row] for row in range(10)] == alone(model, prompts)
