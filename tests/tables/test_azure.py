"""abfs:// where it differs from s3://: the forms of its URLs, credentials, faults; a warehouse and the lock on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bizllm.errors import LockHeld, RunError, StorageUnavailable
from bizllm.jobs.lock import RunLock
from bizllm.tables import azure, retry, storage
from bizllm.tables.settings import WarehouseSettings
from bizllm.tables.store_settings import AZURE_ENDPOINT, TIMEOUT
from bizllm.tables.warehouse import Warehouse, describe
from tests.fault_proxy import FaultProxy, Kind

DAY = date(2024, 1, 2)
ROWS = pa.table({"key": ["a", "小"], "value": [1.5, 2.5], "run_date": [DAY, DAY]})


def test_one_place_has_three_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECTION_STRING", "KEY", "SAS_TOKEN"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)
    monkeypatch.delenv(AZURE_ENDPOINT, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "shop")
    names = ("lake@shop.dfs.core.windows.net", "lake@shop", "lake")
    places = {azure._place(f"abfs://{name}/a/b.parquet") for name in names}
    ((account, container, key),) = places
    assert (account.endpoint, container, key) == ("https://shop.blob.core.windows.net", "lake", "a/b.parquet")
    china = azure._place("abfss://lake@shop.dfs.core.chinacloudapi.cn/a")[0]
    assert china.endpoint == "https://shop.blob.core.chinacloudapi.cn"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=other;AccountKey=a2V5PT0=;EndpointSuffix=lan")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    account = azure._place("abfs://lake/a")[0]
    assert (account.endpoint, account.key) == ("https://other.blob.lan", "a2V5PT0=")
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    with pytest.raises(RunError, match="no storage account: write abfs://container@account/path"):
        storage.read_bytes("abfs://lake/a")


def test_gs_names_the_extra_that_it_needs() -> None:
    try:
        import google.cloud.storage  # noqa: F401
    except ImportError:
        with pytest.raises(RunError, match=r"pip install 'bizllm\[gcs\]'"):
            storage.create_exclusive("gs://lake/lock", b"1")


@pytest.mark.azurite
def test_publish_and_read(azurite: str, tmp_path: Path) -> None:
    warehouse = Warehouse(WarehouseSettings(path=f"{azurite}/wh", uri=f"sqlite:///{tmp_path}/catalog.db"))
    warehouse.check_writable()
    assert storage.list_files(f"{azurite}/wh") == []
    url = storage.join(warehouse.table_location("shop", "sales"), "data", f"run_date={DAY}", "r1.parquet")
    footer: list[pq.FileMetaData] = []
    with storage.open_output(url) as stream:
        pq.write_table(ROWS, stream, metadata_collector=footer)
        size = stream.tell()
    with RunLock(f"{azurite}/wh/locks/{DAY}.json", "r1") as lock:
        with pytest.raises(LockHeld, match="r1"):
            RunLock(f"{azurite}/wh/locks/{DAY}.json", "r2").__enter__()
        staged = [describe(url, footer[0], size)]
        warehouse.publish("shop", "sales", ROWS.schema, DAY, staged, {"run_id": "r1"}, lock.check)
    found = warehouse.read("shop", "sales", ["key", "value", "run_date"])
    assert found is not None and found.equals(ROWS.cast(found.schema))


@pytest.mark.azurite
def test_a_wrong_key_and_a_missing_container_are_told_in_a_line(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "abfs://nowhere@devstoreaccount1/x"
    for look in (storage.stat, storage.delete, storage.read_bytes, lambda url: storage.write_bytes(url, b"1")):
        with pytest.raises(RunError, match="no bucket 'nowhere@devstoreaccount1'"):
            look(nowhere)
    monkeypatch.setenv("AZURE_STORAGE_KEY", "d3Jvbmc=")
    for act in (lambda: storage.write_bytes(f"{azurite}/x", b"1"), lambda: storage.open_input(f"{azurite}/x")):
        with pytest.raises(RunError, match="access denied") as caught:
            act()
        assert not isinstance(caught.value, StorageUnavailable) and "\n" not in str(caught.value)


def _write(url: str) -> None:
    storage.write_bytes(url, b"new")
    assert storage.read_bytes(url) == b"new"


def _create(url: str) -> None:
    assert storage.create_exclusive(url + ".lock", b"mine")
    assert not storage.create_exclusive(url + ".lock", b"theirs")


def _read(url: str) -> None:
    with storage.open_input(url) as stream:
        assert stream.read() == b"12345678"


def _list(url: str) -> None:
    assert [file.url for file in storage.list_files(url.rpartition("/")[0])] == [url]


@pytest.fixture
def proxy(azurite: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    import os

    address, _, account = os.environ[AZURE_ENDPOINT].rpartition("/")
    monkeypatch.setenv(TIMEOUT, "2")
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    with FaultProxy(address).serving() as running:
        monkeypatch.setenv(AZURE_ENDPOINT, f"{running.endpoint}/{account}")
        yield running


@pytest.mark.azurite
@pytest.mark.parametrize("kind", ["slow_down", "reset", "truncate", "lost"])
@pytest.mark.parametrize(
    ("call", "method"), [(_write, "PUT"), (_create, "PUT"), (storage.read_bytes, "GET"), (_read, "GET"), (_list, "GET")]
)
def test_one_fault_is_survived(
    proxy: FaultProxy, azurite: str, call: Callable[[str], None], method: str, kind: Kind
) -> None:
    url = f"{azurite}/lake/file"
    storage.write_bytes(url, b"12345678")
    rule = proxy.fail(kind, method)
    call(url)
    assert rule.seen and proxy.failed == {kind: 1}
