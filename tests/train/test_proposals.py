"""Rows for people: planted wrong labels are found, and the rows proposed are those that the model can't tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from transformers import AutoModel

from bizllm.evaluate import calibration
from bizllm.train import judge, proposals
from bizllm.train.optim import is_head
from bizllm.train.work import Work


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("bert"))


def test_wrong_labels_are_found_by_their_row(base: Path, tmp_path: Path) -> None:
    rows = tiny.table(300, seed=4)
    labels = rows["label"].to_pylist()
    other = dict(zip(tiny.TOPICS, [*list(tiny.TOPICS)[1:], "home"], strict=True))
    wrong = [10, 77, 150, 222]
    for row in wrong:
        labels[row] = other[labels[row]]
    at = np.arange(300) + 1_000  # rows of a table that others were left out of
    rows = rows.set_column(1, "label", pa.array(labels)).append_column("row", pa.array(at))
    work = tiny.work(tmp_path / "work", base, rows)
    found = proposals.suspicious(work, rows)
    assert found.column_names == ["row", "given", "suggested", "quality"]
    told = found.to_pylist()
    assert len(told) >= 3 and {row["row"] - 1_000 for row in told} <= set(wrong), "nearly all of them, nothing else"
    assert all(row["suggested"] == tiny.table(300, seed=4)["label"][row["row"] - 1_000].as_py() for row in told)


@pytest.mark.parametrize("pooling", ["mean", "native"])
@pytest.mark.parametrize("objective", ["classification", "multi_label"])
def test_rows_are_proposed_where_the_model_is_unsure(base: Path, tmp_path: Path, objective: str, pooling: str) -> None:
    rows = tiny.table(60, seed=5)
    if objective == "multi_label":
        rows = rows.set_column(1, "label", pa.array([[label] for label in rows["label"].to_pylist()]))
    work = tiny.work(tmp_path / "work", base, rows, objective=objective, pooling=pooling)
    network = work.network().eval()
    for name, parameter in network.named_parameters():  # a fresh head is sure of nothing
        if is_head(name):
            parameter.data *= 50
    asked = tiny.table(200, seed=6).select(["text"]).append_column("row", pa.array(np.arange(200)))
    found = proposals.propose(work, network, work.info, asked, 20)
    picked = found["row"].to_numpy()
    assert len(picked) == len(set(picked.tolist())) == 20
    labelled = asked.append_column("label", rows["label"].slice(0, 1).take(pa.array([0] * 200)))
    logits = judge.ask(work.objective, network, labelled).outputs["logits"]
    if objective == "classification":
        p = calibration.softmax(logits)
        entropy = -(p * np.log(p)).sum(1) / np.log(3)
        np.testing.assert_allclose(found["score"].to_numpy(), entropy[picked], rtol=1e-6)
        assert entropy[picked].mean() > entropy.mean()


@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_vectors_are_the_base_s_own(base: Path, tmp_path: Path, pooling: str) -> None:
    rows = tiny.table(9, seed=7)
    work: Work = tiny.work(tmp_path / "work", base, rows, pooling=pooling)
    network = work.network().eval()
    reader = proposals._Reader(work.objective)
    with torch.no_grad():
        batch = work.objective.collate(work.objective.encode(rows))
        found = reader.predict(network, batch)["vectors"]
        plain = AutoModel.from_pretrained(base).eval()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        hidden = plain(**inputs).last_hidden_state
    mask = batch["attention_mask"][..., None]
    np.testing.assert_allclose(found, ((hidden * mask).sum(1) / mask.sum(1)).numpy(), atol=1e-5)
