"""What a run keeps, on local disk and in a real S3 server."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from bizllm.errors import RunError
from bizllm.tables import storage
from bizllm.train import kept


@pytest.fixture(params=["local", "s3"])
def run_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    import boto3

    request.getfixturevalue("s3_endpoint")
    boto3.client("s3").create_bucket(Bucket="kept")
    return f"s3://kept/{tmp_path.name}/run"


def _checkpoint(run_url: str, name: str, step: int, workers: int, missing: str = "") -> None:
    url = storage.join(run_url, kept.CHECKPOINTS, name)
    state = {"step": step, "workers": workers, "watch": {"best_step": step - 1}}
    files = {"state.json": json.dumps(state).encode(), "shards/zero_0.pt": b"0", "shards/zero_1.pt": b"1"}
    files |= {kept.done_name(rank): b"" for rank in range(workers)}
    for path, content in files.items():
        if path != missing:
            storage.write_bytes(storage.join(url, path), content)


def _folder(tmp_path: Path, name: str, content: str) -> Path:
    folder = tmp_path / "made" / name
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_text(content)
    return folder


def test_a_checkpoint_counts_once_every_worker_has_marked_it(run_url: str) -> None:
    assert kept.newest(run_url) is None
    _checkpoint(run_url, "a/step-10", 10, workers=2)
    _checkpoint(run_url, "b/step-20", 20, workers=3)
    _checkpoint(run_url, "b/step-30", 30, workers=2, missing=kept.done_name(1))
    _checkpoint(run_url, "b/step-40", 40, workers=2, missing="state.json")
    _checkpoint(run_url, "b/step-50", 50, workers=2, missing=kept.done_name(0))
    assert [(c.step, c.workers, c.best_step) for c in kept.checkpoints(run_url)] == [(10, 2, 9), (20, 3, 19)]
    assert kept.newest(run_url).url == storage.join(run_url, "ray", "b", "step-20")


def test_old_and_unfinished_checkpoints_are_dropped(run_url: str) -> None:
    for name, step in (("a/step-10", 10), ("b/step-20", 20), ("c/step-30", 30)):
        _checkpoint(run_url, name, step, workers=1)
    _checkpoint(run_url, "c/step-40", 40, workers=2, missing=kept.done_name(1))
    _checkpoint(run_url, "d/step-41", 41, workers=2, missing=kept.done_name(1))
    storage.write_bytes(storage.join(run_url, "ray", "c", "snapshot.json"), b"{}")
    kept.drop_old(run_url)
    top = storage.join(run_url, "ray")
    assert {"/".join(path.split("/")[:2]) for path in kept._paths(top)} == {"b/step-20", "c/step-30", "c/snapshot.json"}
    assert [found.step for found in kept.checkpoints(run_url)] == [20, 30]


def test_best_weights_follow_the_pointer(run_url: str, tmp_path: Path) -> None:
    assert kept.best(run_url) is None
    for step in (10, 20, 30):
        kept.keep_best(run_url, _folder(tmp_path, f"best-{step}", f"of {step}"))
    assert kept.best(run_url) == storage.join(run_url, "best", "best-30")
    assert {path.split("/")[0] for path in kept._paths(storage.join(run_url, "best"))} == {
        "best-20",
        "best-30",
        "latest",
    }
    # Training goes on from a checkpoint that knows only of step 20.
    kept.point_best(run_url, 20)
    assert kept.best(run_url) == storage.join(run_url, "best", "best-20")
    target = tmp_path / "here"
    kept.download(kept.best(run_url), target)
    assert (target / "weights.safetensors").read_text() == "of 20"


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "best-1", "x" * 200_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RunError, match="no space left for a checkpoint; the one before it is whole"):
            kept.keep_best(str(tmp_path / "run"), folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept.best(str(tmp_path / "run")) is None
