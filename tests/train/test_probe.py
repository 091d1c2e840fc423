"""A head that is fitted before training: against scikit-learn's logistic regression on the same vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression

from bizllm.train import probe
from bizllm.train.vectors import vectors


def test_the_head_is_that_of_a_logistic_regression(base: Any, tmp_path: Path) -> None:
    work = tiny.work(tmp_path, base("bert"), tiny.table(90), optim=tiny.optim(probe=True))
    network: Any = work.network()
    examples = work.examples("train")
    plain = tiny.work(tmp_path / "plain", base("bert"), tiny.table(90)).network()
    for (name, mine), (_, theirs) in zip(
        network.backbone.named_parameters(), plain.backbone.named_parameters(), strict=True
    ):
        assert torch.equal(mine, theirs), f"{name}: the base is as it was"

    seen = vectors(work.objective, network, examples)
    scale = np.linalg.norm(seen, axis=1).mean()
    truth = examples["target"].to_numpy()
    asked = LogisticRegression(C=probe.C, max_iter=5_000, tol=1e-8).fit(seen / scale, truth)
    expected = asked.decision_function(seen / scale)
    with torch.no_grad():
        logits = network.eval().logits(torch.from_numpy(seen)).numpy()
    centred = logits - logits.mean(1, keepdims=True)
    np.testing.assert_allclose(centred, expected - expected.mean(1, keepdims=True), atol=0.05)


@pytest.mark.parametrize("objective", ["multi_label", "pair"])
def test_other_objectives_with_classes_begin_near_their_loss(objective: str, base: Any, tmp_path: Path) -> None:
    rows = tiny.table(60)
    if objective == "multi_label":
        rows = rows.set_column(1, "label", pa.array([[label] for label in rows["label"].to_pylist()]))
    else:
        rows = rows.append_column("pair", pa.array(["kettle"] * len(rows)))
    losses = {}
    for probing in (False, True):
        said = {"objective": objective, "pooling": "mean", "optim": tiny.optim(probe=probing)}
        work = tiny.work(tmp_path / str(probing), base("bert"), rows, **said)
        network: Any = work.network()
        examples = work.examples("train")
        work.objective.prepare(np.ones(len(examples)), examples)
        with torch.no_grad():
            losses[probing] = float(work.objective.loss(network.eval(), work.objective.collate(examples)))
    assert losses[True] < 0.7 * losses[False]


def test_a_head_that_goes_on_is_left_alone(fine_tuned: Any, tmp_path: Path) -> None:
    folder = fine_tuned(objective="classification", labels=("home", "money", "travel"), words=" ".join(tiny.WORDS))
    heads = []
    for probing in (False, True):
        work = tiny.work(tmp_path / str(probing), folder, tiny.table(30), optim=tiny.optim(probe=probing))
        heads.append(work.network().head.weight)
    assert torch.equal(*heads)
