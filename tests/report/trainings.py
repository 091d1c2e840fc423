"""A training to tell of, with everything that a page can show."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from bizllm.report.training_data import (
    Champion,
    ClassScore,
    Confusion,
    Cost,
    LabelCount,
    Metric,
    Overlap,
    Reliability,
    SliceScore,
    SplitFacts,
    TrainingReport,
)

REASON = "0.9123 against 0.8900 on 1,200 rows: a gain of +0.0223, with 95 % confidence above +0.0081"


def history(steps: int = 600, every: int = 100) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = 3.2 * np.exp(-step / (steps / 5)) + 0.35 + 0.08 * rng.standard_normal()
        lr = 1e-4 * min(step / (0.1 * steps), (steps - step) / (0.9 * steps))
        train = {"loss": float(loss), "lr": lr, "grad_norm": float(rng.gamma(8, 0.2)), "tokens_per_s": 21_000.0}
        rows.append({"step": step, "epoch": step / 100, "split": "train", **train})
        if step % every == 0:
            score = 0.93 - 0.3 * float(np.exp(-step / 120))
            figures = {"loss": 0.5 + 0.9 * float(np.exp(-step / 120)), "macro_f1": score, "perplexity": 40 - step / 30}
            rows.append({"step": step, "split": "validation", **figures})
    return rows


def confusion(k: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    counts = np.diag(rng.integers(30, 45, k)) + (rng.random((k, k)) < 0.06) * rng.integers(1, 9, (k, k))
    return counts.astype(np.int64)


def training(text: Callable[[str], str] = lambda benign: benign, k: int = 24, **changes: Any) -> TrainingReport:
    """A promoted classifier; `text` may turn each string on the page into another."""
    rng = np.random.default_rng(5)
    names = ["card_arrival", "lost_card", "退款请求", "wrong_amount", "top_up_failed"]
    labels = [text(f"{names[i % 5]}_{i:03d}") for i in range(k)]
    bins = [{"confidence": c, "accuracy": c**1.6, "rows": 80.0} for c in np.linspace(0.35, 0.97, 9)]
    after = [{"confidence": c, "accuracy": c + 0.01, "rows": 80.0} for c in np.linspace(0.3, 0.95, 9)]
    values: dict[str, Any] = {
        "name": "ticket_intent",
        "run_id": text("20261124T021403-7f3a"),
        "outcome": "promoted",
        "base": text("builtin:minilm"),
        "objective": "classification",
        "method": text("full"),
        "started_at": datetime(2026, 11, 23, 18, 14, 3, tzinfo=UTC),
        "seconds": 167.2,
        "timezone": "Asia/Shanghai",
        "version": "3",
        "alias": "champion",
        "reason": text(REASON),
        "metric": "macro_f1",
        "stop_metric": "macro_f1",
        "best_step": 500,
        "recipe": {"optim.lr": "0.0001", text("optim.schedule"): text("reduce_on_plateau"), "zero.stage": "2"},
        "splits": [
            SplitFacts("train", 9_003, 212_000, 12),
            SplitFacts("validation", 1_000, 23_800),
            SplitFacts("test", 1_200),
        ],
        "overlaps": [Overlap(text("train and test"), 4, 11)],
        "labels": [LabelCount(label, 400 - 13 * i % 391, 40, 50) for i, label in enumerate(labels)],
        "metrics": [
            Metric("macro_f1", 0.921, 0.9123, 0.8961, 0.9265, 0.8712, 0.89),
            Metric("accuracy", 0.93, 0.92, 0.905, 0.934, 0.881, 0.902),
            Metric("log_loss", 0.31, 0.34, 0.3, 0.38, 0.29, 0.4, higher_is_better=False),
        ],
        "control": text("TF-IDF + linear SVM"),
        "champion": Champion("2", 0.0223, 0.0081, 0.0364),
        "history": history(),
        "per_class": [ClassScore(label, 50, 0.9, 0.8, 0.99 - i / 40) for i, label in enumerate(labels)],
        "confusion": Confusion(labels, confusion(k, rng)),
        "reliability": Reliability(bins, after, 0.081, 0.013, 1.42),
        "slices": [
            SliceScore(text("length"), text("1–12 tokens"), 310, 0.93, (0.9, 0.96)),
            SliceScore(text("length"), "13–40 tokens", 890, 0.905, (0.88, 0.92)),
            SliceScore("language", text("zh"), 200, 0.84, (0.78, 0.9)),
        ],
        "cost": Cost(2, text("CPU"), 600, 21_000.0, 800.0, 1_390.0, [(text("encode"), 3.2), ("train", 140.0)]),
        "warnings": [text("12 rows of train are longer than 128 tokens and were cut")],
        "versions": {"bizllm": "0.1.0", text("torch"): text("2.13.0")},
    }
    return TrainingReport(**values | changes)


HOSTILE = [
    "<script>window.pwned = 1</script>",
    "\"'></text></svg></style></pre><img src=x onerror=window.pwned=1><svg onload=window.pwned=1>",
    "</title><iframe src=javascript:alert(1)>{{ 7 * 7 }}{% raw %}\u202egnp.exe\x00\u2028",
]
