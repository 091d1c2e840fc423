"""A training as one would write it by hand: one process, plain transformers and torch, nothing of the loop but the
order of the batches."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from bizllm.train.batches import BatchPlan
from bizllm.train.work import Work, lengths


def losses_and_weights(work: Work, rows: pa.Table) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Of a classifier with mean pooling: each step's loss, and all weights at the end under the network's names."""
    optim, labels = work.recipe.optim, work.info.labels
    tokenizer = AutoTokenizer.from_pretrained(work.base)
    model = AutoModel.from_pretrained(work.base, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    head = torch.nn.Linear(model.config.hidden_size, len(labels))
    head.load_state_dict(work.network().head.state_dict())
    named = [(f"backbone.{name}", parameter) for name, parameter in model.named_parameters()]
    named += [(f"head.{name}", parameter) for name, parameter in head.named_parameters()]
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter],
            "lr": optim.head_lr if name.startswith("head.") else optim.lr,
            "weight_decay": 0.0 if re.search(r"backbone.*(bias|LayerNorm)", name) else optim.weight_decay,
        }
        for name, parameter in named
    ]
    optimizer = torch.optim.AdamW(groups)
    plan = BatchPlan(lengths(work.examples("train")), optim.batch, work.recipe.seed, work.recipe.length_grouped)
    steps = round(optim.epochs * plan.steps_per_epoch)
    rise = round(optim.warmup * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / rise if step < rise else (steps - step) / (steps - rise)
    )
    losses = []
    for step, picked in plan.from_step(0):
        if step == steps:
            break
        batch = rows.take(pa.array(picked)).to_pylist()
        inputs = tokenizer([row["text"] for row in batch], padding=True, return_tensors="pt")
        vectors = torch.stack(
            [
                row[: int(mask.sum())].mean(0)
                for row, mask in zip(model(**inputs).last_hidden_state, inputs["attention_mask"], strict=True)
            ]
        )
        target = torch.tensor([labels.index(row["label"]) for row in batch])
        loss = functional.cross_entropy(head(vectors), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([parameter for _, parameter in named], optim.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {name: parameter.detach() for name, parameter in named}
