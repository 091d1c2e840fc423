"""Training files over tiny models and made-up tables, for tests of whole trainings."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tiny
import yaml

SEEN = 3  # words of each topic that train has; test has the others


def table(rows: int, seed: int, unseen: bool = False, topics: tuple[str, ...] = tuple(tiny.TOPICS)) -> pa.Table:
    """id, body, topic: fillers around two words of the topic; unseen: of those words that train does not have."""
    rng = random.Random(seed)
    bodies, labels = [], []
    for _ in range(rows):
        topic = rng.choice(topics)
        words = tiny.TOPICS[topic].split()
        words = words[SEEN:] if unseen else words[:SEEN]
        body = rng.choices(tiny.FILLERS, k=rng.randint(3, 9)) + rng.choices(words, k=2)
        rng.shuffle(body)
        bodies.append(" ".join(body))
        labels.append(topic)
    return pa.table({"id": list(range(rows)), "body": bodies, "topic": labels})


def knowing_base(folder: Path, **config: Any) -> Path:
    """A tiny BERT in which the words of a topic are alike, as pre-training would have it: it can tell words that
    training never showed, which no linear model can."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    tiny.bert(folder, **config)
    file, words = folder / "model.safetensors", "embeddings.word_embeddings.weight"
    weights = load_file(file)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    for topic in tiny.TOPICS.values():
        direction = torch.randn(tiny.DIM)
        for token in tokenizer.convert_tokens_to_ids(topic.split()):
            assert token != tokenizer.unk_token_id, "a topic's word is one token"
            weights[words][token] = direction + 0.2 * torch.randn(tiny.DIM)
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def classifier(folder: Path, rows: pa.Table, **config: Any) -> Path:
    """A fine-tuned model of the topics of the rows (columns body, topic): a knowing base, and a head that was fitted to
    its pooled vectors. config: of the base."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from bizllm.models import batches
    from bizllm.models.network import new_network, save_network
    from bizllm.models.saved import ModelInfo, write_info

    knowing_base(folder, **config)
    labels = tuple(sorted(tiny.TOPICS))
    info = ModelInfo(
        "own_name", "classification", labels, pooling="mean", max_tokens=32, temperature=0.8, threshold=0.1
    )
    network: Any = new_network(folder, info, 0.0).eval()
    tokenizer = batches.load_tokenizer(folder)
    made = tokenizer(rows["body"].to_pylist(), padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = network.pooled(made["input_ids"], made["attention_mask"]).numpy()
        fitted = LogisticRegression(C=10.0, max_iter=1_000).fit(vectors, rows["topic"].to_pylist())
        network.head.weight.copy_(torch.tensor(fitted.coef_))
        network.head.bias.copy_(torch.tensor(fitted.intercept_))
    save_network(network, folder)
    write_info(folder, info)
    return folder


def training_file(folder: Path, base: Path | str, **changes: Any) -> str:
    """Write the tables and `jobs/topics.yaml`; its path. `optim__epochs=2` changes a setting, None takes it out."""
    data, jobs = folder / "data", folder / "jobs"
    for made in (data, jobs):
        made.mkdir(parents=True, exist_ok=True)
    if not (data / "train.parquet").exists():
        pq.write_table(table(160, 1), data / "train.parquet")
        pq.write_table(table(120, 2, unseen=True), data / "test.parquet")
    said: dict[str, Any] = {
        "name": "topics",
        "base": base if isinstance(base, str) else f"path:{base}",
        "objective": "classification",
        "data": {
            "train": {"path": "../data/train.parquet", "text": "body", "label": "topic"},
            "validation": {"split": 0.2},
            "test": {"path": "../data/test.parquet"},
        },
        "optim": {"lr": 1e-4, "head_lr": 1e-2, "epochs": 4, "batch": 16, "dropout": 0.0},
        "pooling": "mean",
        "zero": {"stage": 2, "precision": "fp32"},
        "workers": 2,
    }
    for place, value in changes.items():
        keys = place.split("__")
        part = said
        for key in keys[:-1]:
            part = part.setdefault(key, {})
        if value is None:
            part.pop(keys[-1], None)
        else:
            part[keys[-1]] = value
    path = jobs / "topics.yaml"
    path.write_text(yaml.safe_dump(said, sort_keys=False, allow_unicode=True))
    return str(path)
