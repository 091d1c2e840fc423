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
    state = {"step": step, "workers": workers, "best": f"best-{step - 1}-abc"}
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


def _best(run_url: str) -> set[str]:
    return {path.partition("/")[0] for path in kept._paths(storage.join(run_url, kept.BEST))}


def test_a_checkpoint_counts_once_every_worker_has_marked_it(run_url: str) -> None:
    assert kept.newest(run_url) is None
    _checkpoint(run_url, "a/step-10", 10, workers=2)
    _checkpoint(run_url, "b/step-20", 20, workers=3)
    _checkpoint(run_url, "b/step-30", 30, workers=2, missing=kept.done_name(1))
    _checkpoint(run_url, "b/step-40", 40, workers=2, missing="state.json")
    _checkpoint(run_url, "b/step-50", 50, workers=2, missing=kept.done_name(0))
    assert [(c.step, c.workers, c.best) for c in kept.checkpoints(run_url)] == [
        (10, 2, "best-9-abc"),
        (20, 3, "best-19-abc"),
    ]
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


def test_best_weights_stay_while_a_checkpoint_may_name_them(run_url: str, tmp_path: Path) -> None:
    group = kept.Group.begin(run_url)
    for step in (10, 20, 30):
        group.keep_best(_folder(tmp_path, f"best-{step}", f"of {step}"), f"best-{step}-{group.name}")
    assert _best(run_url) == {f"best-20-{group.name}", f"best-30-{group.name}"}
    assert kept.best(run_url, "") is None
    target = tmp_path / "here"
    kept.download(kept.best(run_url, f"best-30-{group.name}"), target)
    assert (target / "weights.safetensors").read_text() == "of 30"
    kept.drop_old(run_url, best=f"best-20-{group.name}")
    assert _best(run_url) == {f"best-20-{group.name}"}


def test_workers_that_were_thought_lost_change_nothing_when_they_write_late(run_url: str, tmp_path: Path) -> None:
    """They were cut off while they kept the weights of step 30; others went on from the checkpoint of step 20."""
    lost = kept.Group.begin(run_url)
    for step in (10, 20):
        lost.keep_best(_folder(tmp_path, f"best-{step}", f"of {step}"), f"best-{step}-{lost.name}")
    _checkpoint(run_url, "a/step-20", 20, workers=1)
    begun = kept.Group.begin(run_url)
    begun.check()
    with pytest.raises(RunError, match="other workers have taken this training over"):
        lost.check()
    with pytest.raises(RunError, match="taken this training over"):
        lost.keep_best(_folder(tmp_path, "best-30", "late"), f"best-30-{lost.name}")
    begun.keep_best(_folder(tmp_path / "b", "best-30", "of 30"), f"best-30-{begun.name}")
    assert _best(run_url) == {f"best-10-{lost.name}", f"best-20-{lost.name}", f"best-30-{begun.name}"}
    kept.drop_old(run_url, best=f"best-30-{begun.name}")
    assert _best(run_url) == {f"best-30-{begun.name}"}
    begun.check()


def test_an_upload_that_was_under_way_when_others_began_deletes_nothing(
    run_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = kept.Group.begin(run_url)
    for step in (10, 20):
        lost.keep_best(_folder(tmp_path, f"best-{step}", f"of {step}"), f"best-{step}-{lost.name}")
    upload = kept.upload
    monkeypatch.setattr(kept, "upload", lambda folder, url: (kept.Group.begin(run_url), upload(folder, url)))
    with pytest.raises(RunError, match="taken this training over"):
        lost.keep_best(_folder(tmp_path, "best-30", "late"), f"best-30-{lost.name}")
    assert {f"best-10-{lost.name}", f"best-20-{lost.name}"} < _best(run_url)


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "best-1", "x" * 200_000)
    group = kept.Group.begin(str(tmp_path / "run"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RunError, match="no space left for a checkpoint; the one before it is whole"):
            group.keep_best(folder, "best-1-a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert group._made == []
