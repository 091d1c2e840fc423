"""What a training will make of its base: window, pooling, classes, licence, registry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import trainings

from bizllm.errors import UserError
from bizllm.jobs.training_file import load_recipe
from bizllm.train.prepare import Prepared, prepare

Ready = Callable[..., Prepared]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in tiny.BASES.items()}


@pytest.fixture
def ready(tmp_path: Path, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Ready:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(base: Any = "bert", device: str = "cpu", **changes: Any) -> Prepared:
        changes = {"pooling": None, **changes}
        loaded = load_recipe(trainings.training_file(tmp_path, bases.get(base, base), **changes))
        return prepare(loaded.recipe, loaded.place, device)

    return run


def copied(base: Path, folder: Path, **config: Any) -> Path:
    shutil.copytree(base, folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, **config}))
    return folder


def test_the_window_is_what_the_base_reads(ready: Ready, bases: dict[str, Path], tmp_path: Path) -> None:
    assert ready().info.max_tokens == 64
    assert ready(max_tokens=20).info.max_tokens == 20
    assert ready("gpt2").info.max_tokens == 64
    # T5 tells positions by their distance: any window is right.
    assert ready("t5").info.max_tokens == 512
    assert ready("t5", max_tokens=1_000).info.max_tokens == 1_000
    # RoBERTa's first positions are for padding.
    roberta = copied(bases["bert"], tmp_path / "roberta", model_type="roberta", pad_token_id=1)
    assert ready(roberta).info.max_tokens == 62
    with pytest.raises(UserError, match="reads at most 62 tokens"):
        ready(roberta, max_tokens=64)


def test_pooling_is_that_of_the_base_s_training(ready: Ready, bases: dict[str, Path], tmp_path: Path) -> None:
    assert ready().info.pooling == "native"
    assert ready(pooling="cls").info.pooling == "cls"
    assert ready("t5").info.pooling == "mean"
    assert ready("gpt2", objective="embedding", data__train__pair="body").info.pooling == "last"
    assert ready(objective="token_classification", **tagged(tmp_path)).info.pooling == "native"
    for cls, pooling in ((False, "mean"), (True, "cls")):
        folder = copied(bases["bert"], tmp_path / pooling)
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": cls}))
        assert ready(folder).info.pooling == pooling
    with pytest.raises(UserError, match=r"pooling: 'native': expected mean, cls or last here"):
        ready(objective="embedding", data__train__pair="body", pooling="native")


def tagged(tmp_path: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "data").mkdir(exist_ok=True)
    rows = pa.table({"tokens": [["lamp", str(i)] for i in range(20)], "tags": [["O", "B-x"]] * 20})
    pq.write_table(rows, tmp_path / "data/tags.parquet")
    return {"data": {"train": {"path": "../data/tags.parquet", "text": "tokens", "label": "tags"}}}


def test_a_fine_tuned_base_goes_on_with_its_classes(ready: Ready, fine_tuned: Any) -> None:
    base = fine_tuned(objective="classification", labels=("money", "zoo"), pooling="cls", license="MIT")
    made = ready(base)
    assert made.info.labels == ("money", "zoo", "home", "travel")
    assert (made.info.pooling, made.info.license) == ("cls", "MIT")
    assert ready(base, license="Apache-2.0").info.license == "Apache-2.0"
    other = fine_tuned(objective="multi_label", labels=("money", "zoo"))
    assert ready(other).info.labels == ("home", "money", "travel"), "of another objective nothing goes on"


def test_the_registry_is_named_or_lies_beside_the_output(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ready().registry == f"sqlite:///{tmp_path}/out/registry.db"
    assert ready(registry="own.db").registry == f"sqlite:///{tmp_path}/jobs/own.db"
    with pytest.raises(UserError, match="can't lie in object storage"):
        ready(output="s3://bucket/models")
    assert ready(output="s3://bucket/models", registry="own.db").registry == f"sqlite:///{tmp_path}/jobs/own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert ready().registry == "http://mlflow.example:5000"


def test_answers_must_fit_the_window(ready: Ready) -> None:
    lm = {"objective": "causal_lm"}
    assert ready("gpt2", **lm).info.max_tokens == 64, "the default gives way"
    with pytest.raises(UserError, match=r"max_new_tokens: 64: the model's window has 64 tokens; lower it"):
        ready("gpt2", **lm, max_new_tokens=64)
    assert ready("gpt2", **lm, promote={"metric": "rougeL"}).recipe.promote is not None
    with pytest.raises(UserError, match=r"promote\.metric: 'rougeL': needs prompts with answers"):
        ready("gpt2", **lm, promote={"metric": "rougeL"}, data__train__label=None)


def test_offload_is_for_a_gpu(ready: Ready) -> None:
    assert ready(device="cuda", zero={"stage": 3, "offload": "cpu"}).recipe.zero.offload == "cpu"
    with pytest.raises(UserError, match="there is no GPU memory to spare"):
        ready(zero={"stage": 3, "offload": "cpu"})


def test_mixup_needs_pooled_vectors_that_are_ours(ready: Ready) -> None:
    """`pooling: auto` of a plain BERT is transformers' own head; said outright, `zero.faults` refuses it."""
    assert ready().info.pooling == "native"
    with pytest.raises(UserError, match=r"augment\.mixup: 0\.2: mixes pooled vectors.*use `pooling: mean`"):
        ready(augment={"mixup": 0.2})
    assert ready(augment={"mixup": 0.2}, pooling="mean").info.pooling == "mean"
