"""What storage survives: every fault of the proxy in every operation, once each; and what it says where it does not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from bizllm.errors import RunError, StorageUnavailable, UserError
from bizllm.tables import retry, s3_clients, storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.store_settings import TIMEOUT
from bizllm.tables.warehouse import Warehouse
from tests.fault_proxy import FaultProxy, Kind

pytestmark = pytest.mark.objectstore
BUCKET = "faulty"
TOP = f"s3://{BUCKET}/lake"
NO_RETRIES = {"ResponseMetadata": {"HTTPStatusCode": 404, "RetryAttempts": 0}}
ROWS = pa.table({"n": range(50_000)})
BIG = b"0123456789abcdef" * (11 << 16)  # 11 MiB: more than one part


@pytest.fixture(scope="module")
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=BUCKET)
    with FaultProxy(s3_endpoint, stall_s=3.0).serving() as running:
        yield running


@pytest.fixture(autouse=True)
def through_it(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    monkeypatch.setenv(TIMEOUT, "1")
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("bizllm.tables.s3_upload.PART_BYTES", 5 << 20)
    yield
    proxy.clear()


def read_bytes(url: str) -> None:
    assert storage.read_bytes(url) == b"12345678"


def write_bytes(url: str) -> None:
    storage.write_bytes(url, b"new")
    assert storage.read_bytes(url) == b"new"


def create(url: str) -> None:
    assert storage.create_exclusive(url + ".lock", b"mine")
    assert not storage.create_exclusive(url + ".lock", b"theirs")
    assert storage.read_bytes(url + ".lock") == b"mine"


def listing(url: str) -> None:
    assert [file.url for file in storage.list_files(url.rpartition("/")[0])] == [url]


def stat(url: str) -> None:
    found = storage.stat(url)
    assert found is not None and found.size == 8


def delete(url: str) -> None:
    storage.delete(url)
    assert storage.stat(url) is None


def delete_tree(url: str) -> None:
    storage.delete_tree(url.rpartition("/")[0])
    assert not storage.exists(url.rpartition("/")[0])


def stream_in(url: str) -> None:
    """A Parquet file, as `parquet` and the stages read one: again from its start where it breaks."""

    def read() -> pa.Table:
        with storage.open_input(url + ".parquet") as stream:
            return pq.read_table(stream)

    assert storage.again(url, "read", read).equals(ROWS)


def stream_out(url: str) -> None:
    """More than one part."""

    def write() -> None:
        with storage.open_output(url + ".big") as stream:
            for start in range(0, len(BIG), 1 << 20):
                stream.write(BIG[start : start + (1 << 20)])

    storage.again(url, "write", write)
    assert storage.read_bytes(url + ".big") == BIG


def replacing(url: str) -> None:
    """More than one part, put in place at the end."""
    with storage.replacing(url, url + ".aside") as stream:
        for start in range(0, len(BIG), 1 << 20):
            stream.write(BIG[start : start + (1 << 20)])
    assert storage.read_bytes(url) == BIG


# Each with the requests of its that fail: method, and what is in the request's target.
OPERATIONS: dict[str, tuple[Callable[[str], None], str, str]] = {
    "read_bytes": (read_bytes, "GET", ""),
    "write_bytes": (write_bytes, "PUT", ""),
    "create_exclusive": (create, "PUT", ""),
    "list": (listing, "GET", "list-type"),
    "stat": (stat, "HEAD", ""),
    "delete": (delete, "DELETE", ""),
    "delete_tree": (delete_tree, "POST", "delete"),
    "open_input": (stream_in, "GET", ""),
    "open_output, begin": (stream_out, "POST", "uploads"),
    "open_output, part": (stream_out, "PUT", "partNumber=2"),
    "open_output, end": (stream_out, "POST", "uploadId"),
    "replacing, begin": (replacing, "POST", "uploads"),
    "replacing, part": (replacing, "PUT", "partNumber=2"),
    "replacing, end": (replacing, "POST", "uploadId"),
}
PERMISSIONS = {
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    **dict.fromkeys(("read_bytes", "stat", "open_input"), "s3:GetObject"),
}


@pytest.fixture
def url(proxy: FaultProxy, s3_endpoint: str) -> str:
    """A file of 8 bytes alone in its folder, and one of Parquet in another's."""
    made = f"{TOP}/{time.monotonic_ns()}/file"
    storage.write_bytes(made, b"12345678")
    return made


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "kind",
    [
        *("slow_down", "reset", "truncate", "expired", "lost"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("too_many", "error_500", "stall")),
    ],
)
def test_one_fault_is_survived(proxy: FaultProxy, url: str, operation: str, kind: Kind) -> None:
    call, method, path = OPERATIONS[operation]
    if call is stream_in:
        with storage.open_output(url + ".parquet") as sink:
            pq.write_table(ROWS, sink, row_group_size=10_000)
    rule = proxy.fail(kind, method, path)
    call(url)
    assert rule.seen and proxy.failed == {kind: 1}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_denied_access_ends_at_once_and_names_bucket_action_and_permission(
    proxy: FaultProxy, url: str, operation: str
) -> None:
    call, method, path = OPERATIONS[operation]
    if call is stream_in:
        with storage.open_output(url + ".parquet") as sink:
            pq.write_table(ROWS, sink, row_group_size=10_000)
    proxy.fail("denied", method, path, times=0)
    with pytest.raises(RunError) as caught:
        call(url)
    said = str(caught.value)
    permission = PERMISSIONS.get(operation, "s3:DeleteObject" if "delete" in operation else "s3:PutObject")
    assert f"bucket '{BUCKET}': access denied" in said and permission in said and "\n" not in said
    assert proxy.failed["denied"] <= 2, "an upload that fails is aborted, which may be denied too"
    assert not isinstance(caught.value, StorageUnavailable)


@pytest.mark.parametrize("kind", ["slow_down", "error_500", "reset", "expired"])
def test_an_outage_ends_in_bounded_time_with_one_line(
    proxy: FaultProxy, url: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(s3_clients, "REQUEST_ATTEMPTS", 2)
    s3_clients.forget()
    proxy.fail(kind, times=0)
    began = time.monotonic()
    for call, verb in ((read_bytes, "read"), (write_bytes, "write"), (stat, "look at")):
        with pytest.raises(StorageUnavailable, match=rf"^can't {verb} {url}: bucket '{BUCKET}': .+$"):
            call(url)
    assert time.monotonic() - began < 30
    s3_clients.forget()


def test_a_lock_whose_answer_was_lost_is_ours_and_another_is_not(proxy: FaultProxy, url: str) -> None:
    proxy.fail("lost", "PUT", "one.lock")
    assert storage.create_exclusive(f"{url}/one.lock", b"mine")
    storage.write_bytes(f"{url}/two.lock", b"theirs")
    proxy.fail("reset", "PUT", "two.lock")
    assert not storage.create_exclusive(f"{url}/two.lock", b"mine")
    assert storage.read_bytes(f"{url}/two.lock") == b"theirs"
    assert not storage.create_exclusive(f"{url}/one.lock", b"mine"), "no answer was lost: an equal one is another's"


def test_an_upload_that_is_gone_was_ours_where_its_object_is(url: str) -> None:
    """Stores that forget an upload once it is complete, such as older Ceph: the answer is lost, and asked for again."""
    asked: list[int] = []

    def lost(**_: object) -> None:
        asked.append(1)
        if len(asked) == 1:
            raise ConnectionClosedError(endpoint_url="http://lost")

    def gone(**_: object) -> object:
        return (SimpleNamespace(status_code=404), {"Error": {"Code": "NoSuchUpload"}, **NO_RETRIES}) if asked else None

    s3_clients.forget()
    events = s3_clients.client().meta.events
    events.register("after-call.s3.CompleteMultipartUpload", lost)
    events.register("before-call.s3.CompleteMultipartUpload", gone)
    replacing(url)
    assert len(asked) == 2
    with pytest.raises(StorageUnavailable, match="NoSuchUpload"):
        replacing(url + ".other")
    s3_clients.forget()
    assert storage.stat(url + ".other") is None


def test_a_store_without_conditional_writes_is_refused_as_a_warehouse(proxy: FaultProxy, tmp_path: Path) -> None:
    if "BIZLLM_TEST_S3" in os.environ:
        pytest.skip("a store that checks signatures sees that the header is gone")
    proxy.without = frozenset({"if-none-match"})
    warehouse = Warehouse(WarehouseSettings(path=f"s3://{BUCKET}/wh", uri=f"sqlite:///{tmp_path}/catalog.db"))
    with pytest.raises(UserError, match=r"warehouse.path: .*ignores `If-None-Match: \*`.*docs/storage.md"):
        warehouse.check_writable()
    assert storage.list_files(f"s3://{BUCKET}/wh") == []


def test_expired_credentials_are_read_again(proxy: FaultProxy, url: str) -> None:
    before = s3_clients.client()
    proxy.fail("expired", "GET")
    storage.read_bytes(url)
    assert s3_clients.client() is not before


def test_other_refusals_are_told_at_once(proxy: FaultProxy, url: str) -> None:
    began = time.monotonic()
    with (
        pytest.raises(RunError, match="bucket 'lake': InvalidRequest at PutObject"),
        storage.explained("s3://lake/x", "write"),
    ):
        refused = {"Error": {"Code": "InvalidRequest"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
        raise ClientError(refused, "PutObject")  # type: ignore[arg-type]
    assert time.monotonic() - began < 1
