"""Storage: one behaviour on local disk and on S3."""

from __future__ import annotations

import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bizllm.errors import RunError
from bizllm.tables import storage


@pytest.fixture(
    params=[
        "local",
        pytest.param("s3", marks=pytest.mark.objectstore),
        pytest.param("abfs", marks=pytest.mark.azurite),
    ]
)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on each kind of store."""
    if request.param == "local":
        return str(tmp_path / "lake")
    if request.param == "abfs":
        return f"{request.getfixturevalue('azurite')}/lake"
    return _bucket(request)


def _bucket(request: pytest.FixtureRequest) -> str:
    import boto3

    endpoint: str = request.getfixturevalue("s3_endpoint")
    name = f"lake-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=name)
    return f"s3://{name}/lake"


def test_what_is_written_is_read_and_listed(folder: str) -> None:
    assert not storage.exists(folder)
    assert storage.list_files(folder) == []
    storage.write_bytes(storage.join(folder, "b", "two.txt"), b"22")
    with storage.open_output(storage.join(folder, "a=1 ü%20", "one.txt")) as stream:
        stream.write(b"1")
    found = storage.list_files(folder)
    assert [(file.url, file.size) for file in found] == [
        (f"{folder}/a=1 ü%20/one.txt", 1),
        (f"{folder}/b/two.txt", 2),
    ]
    assert storage.exists(folder)
    assert storage.list_files(folder, recursive=False) == []
    assert storage.list_files(found[1].url) == [found[1]]
    assert storage.stat(found[1].url) == found[1]
    assert storage.stat(folder) is None
    assert storage.read_bytes(found[1].url) == b"22"
    with storage.open_input(found[0].url) as stream:
        assert stream.read() == b"1"


def test_an_etag_tells_a_change_of_equal_size(folder: str) -> None:
    url = storage.join(folder, "x")
    storage.write_bytes(url, b"11")
    before = storage.stat(url)
    storage.write_bytes(url, b"22")
    after = storage.stat(url)
    assert before is not None and after is not None
    assert before.size == after.size and before.etag != after.etag


def test_one_of_many_creates_and_the_file_is_whole(folder: str) -> None:
    url = storage.join(folder, "lock")
    contents = [f"{i}".encode() * 1000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda data: storage.create_exclusive(url, data), contents))
    assert sum(won) == 1
    assert storage.read_bytes(url) == contents[won.index(True)]
    assert [file.url for file in storage.list_files(folder)] == [url]  # no temporary file is left


def test_delete_takes_a_file_or_a_tree_and_forgives_absence(folder: str) -> None:
    for name in ("x/1", "x/2", "xy/3"):
        storage.write_bytes(storage.join(folder, name), b"")
    storage.delete(storage.join(folder, "x/1"))
    storage.delete(storage.join(folder, "x/1"))
    storage.delete_tree(storage.join(folder, "x"))
    storage.delete_tree(storage.join(folder, "x"))
    assert [file.url for file in storage.list_files(folder)] == [storage.join(folder, "xy/3")]


def test_a_missing_file_is_file_not_found_and_names_the_url(folder: str) -> None:
    for read in (storage.read_bytes, storage.open_input):
        with pytest.raises(FileNotFoundError) as caught:
            read(storage.join(folder, "nothing"))
        assert caught.value.filename == storage.join(folder, "nothing")


def test_a_missing_bucket_is_named_at_once(request: pytest.FixtureRequest) -> None:
    _bucket(request)
    for act, verb in (
        (storage.list_files, "list"),
        (storage.read_bytes, "read"),
        (lambda url: storage.write_bytes(url, b""), "write"),
    ):
        with pytest.raises(RunError, match=rf"can't {verb} s3://no-such-lake/x: .*no-such-lake"):
            act("s3://no-such-lake/x")


def test_denied_access_names_bucket_and_action() -> None:
    from botocore.exceptions import ClientError

    # No store here denies anything, so the refusal itself is made by hand.
    refusal = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "PutObject")
    with (
        pytest.raises(RunError, match=r"can't write s3://lake/x: bucket 'lake': access denied"),
        storage.explained("s3://lake/x", "write"),
    ):
        raise refusal
    with (
        pytest.raises(RunError, match=r"can't read s3://lake/x: bucket 'lake': access denied"),
        storage.explained("s3://lake/x", "read"),
    ):
        raise OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation")


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "state.json")
    storage.write_bytes(url, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        storage.write_bytes(url, b"new")
    monkeypatch.undo()
    assert storage.read_bytes(url) == b"old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"1")
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "lake" / "loop").symlink_to(tmp_path / "lake")
    assert [file.url for file in storage.list_files(str(tmp_path / "lake"))] == [str(tmp_path / "lake/link/x")]


def test_files_that_vanish_while_they_are_listed_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process deletes a file, and a whole folder, after their names were read and before they are looked at."""
    for name in ("a/gone", "a/stays", "b/gone", "c/stays"):
        storage.write_bytes(str(tmp_path / name), b"1")
    real = os.stat
    doomed = {str(tmp_path / "a/gone"): os.unlink, str(tmp_path / "b"): shutil.rmtree}

    def stat(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if path in doomed:
            doomed.pop(path)(path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    found = storage.list_files(str(tmp_path))
    monkeypatch.undo()
    assert doomed == {}
    assert [file.url for file in found] == [str(tmp_path / "a/stays"), str(tmp_path / "c/stays")]


def test_urls() -> None:
    assert storage.join("s3://b", "a/", "/c") == "s3://b/a/c"
    assert storage.join("/", "a") == "/a"
    assert storage.is_local("a/b") and storage.is_local("file:///a") and not storage.is_local("s3://b/a")
    assert storage.filesystem("file:///a%20b")[1] == "/a b"
    with pytest.raises(RunError, match="expected a local path, s3://, gs:// or abfs://"):
        storage.open_input("hdfs2://b/x")
