"""The model card: what hubs read of it, what people do, and that its code loads the model."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertTokenizerFast,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from bizllm.models.card import model_card, snippet
from bizllm.models.saved import ModelInfo, write_info

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "text", "another", "longer", ",", "the", "lid", "leaks"]
BERT: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BERT |= {"vocab_size": len(WORDS), "max_position_embeddings": 64}
GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": len(WORDS), "n_positions": 128}
GPT |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": len(WORDS)}
T5 |= {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}

FACTS: dict[str, Any] = {
    "name": "ticket_intent",
    "objective": "classification",
    "labels": ("refund", "delivery", "a|b\n<script>"),
    "pooling": "mean",
    "max_tokens": 128,
    "temperature": 1.3,
    "threshold": 0.4,
    "base": "builtin:minilm",
    "license": "Apache-2.0",
    "language": ["en", "zh"],
    "code_version": "0.1.0",
    "data": {"fingerprint": "f00dcafe", "rows": {"train": 12_000, "validation": 1_300, "test": 3_000}},
    "training": {"method": "full", "lr": 1e-4, "epochs": 6, "stopped_early": True},
    "metrics": {
        "validation": {"macro_f1": 0.951},
        "test": {"macro_f1": 0.9432, "accuracy": 0.95},
    },
    "intervals": {"test": {"macro_f1": (0.931, 0.954)}},
    "control": {"name": "TF-IDF + linear", "metrics": {"macro_f1": 0.911}},
    "per_class": [
        {"label": "refund", "support": 10, "precision": 0.9, "recall": 1.0, "f1": 0.947},
        {"label": "a|b\n<script>", "support": 20, "precision": 0.5, "recall": 0.5, "f1": 0.5},
    ],
    "limits": ["Trained on English and Chinese tickets."],
}


# -- what it says -------------------------------------------------------------------------------------------------


def test_the_hub_reads_its_front_matter() -> None:
    data = ModelCard(model_card(FACTS)).data.to_dict()
    assert data["language"] == ["en", "zh"] and data["license"] == "apache-2.0"
    assert data["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert data["pipeline_tag"] == "text-classification" and data["library_name"] == "transformers"
    assert data["metrics"] == ["macro_f1", "accuracy"]


@pytest.mark.parametrize(("base", "hub"), [("hf:org/name@main", "org/name"), ("path:/models/x", None)])
def test_only_bases_of_the_hub_are_named_there(base: str, hub: str | None) -> None:
    assert ModelCard(model_card({**FACTS, "base": base})).data.to_dict().get("base_model") == hub


def test_people_read_scores_data_and_limits() -> None:
    card = model_card(FACTS)
    for line in (
        "| metric | validation | test | control: TF-IDF + linear |",
        "| macro_f1 | 0.951 | 0.9432 [0.931, 0.954] | 0.911 |",
        "| accuracy |  | 0.95 |  |",
        "- fingerprint: f00dcafe",
        "- rows: train 12,000, validation 1,300, test 3,000",
        "- stopped early: yes",
        "| refund | 10 | 0.9 | 1 | 0.947 |",
        "- Trained on English and Chinese tickets.",
    ):
        assert line in card.splitlines()
    assert "below 0.4" in card and "95% bootstrap interval" in card


def test_labels_stay_in_their_cells() -> None:
    card = model_card(FACTS)
    assert "<script>" not in card
    assert "| a\\|b &lt;script> | 20 | 0.5 | 0.5 | 0.5 |" in card.splitlines()


def test_little_known_makes_a_short_card() -> None:
    card = model_card({"name": "m", "objective": "masked_lm"})
    assert "## Data" not in card and "## Scores" not in card and "None" not in card
    assert ModelCard(card).data.to_dict()["pipeline_tag"] == "fill-mask"


def test_a_thousand_classes_are_cut_to_the_largest() -> None:
    classes = [{"label": f"c{i}", "support": i, "precision": 1.0, "recall": 1.0, "f1": 1.0} for i in range(1000)]
    labels = [row["label"] for row in classes]
    card = model_card({**FACTS, "labels": labels, "per_class": classes})
    assert "| c999 |" in card and "| c899 |" not in card and "900 more are left out" in card
    assert len(card) < 10_000


# -- its code -----------------------------------------------------------------------------------------------------


def saved(folder: Path, model: PreTrainedModel, info: ModelInfo, head: int = 0) -> dict[str, torch.Tensor]:
    """Save a model with random weights, its tokenizer and maybe a pooled head; gives the head."""
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if isinstance(model.config, BertConfig) else [])]
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_input_names=inputs)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    write_info(folder, info)
    weights = {"weight": torch.randn(head, 32), "bias": torch.randn(head)} if head else {}
    if weights:
        save_file(weights, folder / "head.safetensors")
    return weights


def run_card(folder: Path, info: ModelInfo, **more: Any) -> dict[str, Any]:
    """Take the code out of the card as a reader would, and run it in the model's folder."""
    facts = {**asdict(info), **more}
    code = model_card(facts).split("```python\n")[1].split("```")[0]
    assert code == snippet(facts)
    names: dict[str, Any] = {}
    before = os.getcwd()
    os.chdir(folder)
    try:
        exec(compile(code, "README.md", "exec"), names)
    finally:
        os.chdir(before)
    return names


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("objective", ["classification", "multi_label", "regression", "pair"])
def test_a_mean_pooled_head_as_in_the_card(objective: str, tmp_path: Path) -> None:
    labels = ("x", "y", "z") if objective != "regression" else ()
    info = ModelInfo("m", objective, labels, pooling="mean", max_tokens=32, temperature=1.7, horizon=3)
    model = BertModel(BertConfig(**BERT)).eval()
    head = saved(tmp_path, model, info, head=3)
    found = run_card(tmp_path, info)
    batch = found["batch"]
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    for row, (vectors, mask) in enumerate(zip(hidden, batch["attention_mask"], strict=True)):
        mean = vectors[mask == 1].mean(0)  # each row by itself, without its padding
        logits = head["weight"] @ mean + head["bias"]
        torch.testing.assert_close(found["logits"][row], logits, atol=1e-5, rtol=1e-5)
        if objective in ("classification", "pair"):
            torch.testing.assert_close(found["probabilities"][row], (logits / 1.7).softmax(0), atol=1e-5, rtol=1e-5)
        if objective == "multi_label":
            torch.testing.assert_close(found["probabilities"][row], (logits / 1.7).sigmoid(), atol=1e-5, rtol=1e-5)
    if objective == "pair":
        assert set(batch["token_type_ids"].flatten().tolist()) == {0, 1}, "two segments"
    else:
        assert batch["attention_mask"].min() == 0, "one of the rows is padded"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_first_and_last_token_whatever_the_padding(pooling: Any, side: str, tmp_path: Path) -> None:
    info = ModelInfo("m", "classification", ("x", "y"), pooling=pooling, max_tokens=32)
    model = GPT2Model(GPT2Config(**GPT)).eval()
    saved(tmp_path, model, info, head=2)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", f'{{"padding_side": "{side}",', 1))
    found = run_card(tmp_path, info)
    assert found["tokenizer"].padding_side == side
    for row, mask in enumerate(found["batch"]["attention_mask"]):
        own = found["hidden"][row][mask == 1]
        torch.testing.assert_close(found["pooled"][row], own[0 if pooling == "cls" else -1])


def test_an_embedding_model_as_in_the_card(tmp_path: Path) -> None:
    info = ModelInfo("m", "embedding", pooling="mean", max_tokens=32)
    model = BertModel(BertConfig(**BERT)).eval()
    saved(tmp_path, model, info)
    vectors = run_card(tmp_path, info)["vectors"]
    assert vectors.shape == (2, 32)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(
    ("objective", "cls"),
    [
        ("classification", BertForSequenceClassification),
        ("token_classification", BertForTokenClassification),
        ("masked_lm", BertForMaskedLM),
    ],
)
def test_transformers_own_heads_as_in_the_card(objective: str, cls: Any, tmp_path: Path) -> None:
    info = ModelInfo("m", objective, () if objective == "masked_lm" else ("x", "y", "z"), max_tokens=32)
    model = cls(BertConfig(**BERT, num_labels=3)).eval()
    saved(tmp_path, model, info)
    found = run_card(tmp_path, info)
    with torch.inference_mode():
        torch.testing.assert_close(found["logits"], model(**found["batch"]).logits)


def test_virtual_tokens_as_in_the_card(tmp_path: Path) -> None:
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model, info = GPT2LMHeadModel(GPT2Config(**GPT)).eval(), ModelInfo("m", "causal_lm")
    saved(tmp_path, model, info)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    found = run_card(tmp_path, info, virtual_tokens=4)
    assert isinstance(found["model"], peft.PeftModel) and len(found["written"]) == 1
    assert not isinstance(run_card(tmp_path, info)["model"], peft.PeftModel)


@pytest.mark.parametrize("objective", ["causal_lm", "seq2seq"])
def test_a_writing_model_as_in_the_card(objective: str, tmp_path: Path) -> None:
    made = {"causal_lm": (GPT2LMHeadModel, GPT2Config(**GPT)), "seq2seq": (T5ForConditionalGeneration, T5Config(**T5))}
    cls, config = made[objective]
    model = cls(config).eval()
    saved(tmp_path, model, ModelInfo("m", objective))
    found = run_card(tmp_path, ModelInfo("m", objective))
    assert len(found["written"]) == 1 and "[CLS]" not in found["written"][0]
    if objective == "causal_lm":
        assert not found["written"][0].startswith("a text"), "the prompt is not part of what was written"
