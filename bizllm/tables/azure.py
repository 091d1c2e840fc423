"""Blobs of Azure; `storage` calls these where a URL is `abfs://container@account.dfs.core.windows.net/path`.

`abfs://container@account/path` and, with AZURE_STORAGE_ACCOUNT set, `abfs://container/path` mean the same. Streams go
through pyarrow's filesystem; the rest through Azure's own client, because pyarrow gives neither ETags nor
`If-None-Match`. Credentials: AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, else what
DefaultAzureCredential finds. The functions raise as the clients do: `storage` explains it and tries again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from pyarrow import fs

from bizllm.errors import RunError
from bizllm.tables.retry import REQUEST_ATTEMPTS
from bizllm.tables.store_settings import AZURE_ENDPOINT, timeout_s
from bizllm.tables.urls import FileInfo, split

_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Account:
    """What decides how a client is built. endpoint: of the blob service."""

    name: str
    endpoint: str
    key: str
    sas: str
    timeout_s: float


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem of the URL's account, and the URL's path in it: `container/key`."""
    account, container, key = _place(url)
    return _filesystem(account), f"{container}/{key}".rstrip("/")


def list_objects(url: str, recursive: bool) -> Iterator[FileInfo]:
    """The blobs below a folder."""
    _, _, key = _place(url)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    base = url[: len(url) - len(key)] if key else url.rstrip("/") + "/"
    container = _container(url)
    found = container.list_blobs(prefix) if recursive else container.walk_blobs(prefix, delimiter="/")
    for blob in found:
        etag = getattr(blob, "etag", None)
        # Folders: prefixes of a listing of one level; empty blobs of accounts with a hierarchical namespace.
        if etag is None or blob.name.endswith("/") or (not blob.size and _marks_folder(container, blob.name)):
            continue
        yield FileInfo(base + blob.name, blob.size, etag.strip('"'), blob.last_modified.timestamp())


def head(url: str) -> FileInfo | None:
    """One blob as it is now; None where there is none of that name."""
    from azure.core.exceptions import ResourceNotFoundError

    _, _, key = _place(url)
    if not key or key.endswith("/"):
        return None
    try:
        found = _blob(url).get_blob_properties()
    except ResourceNotFoundError as fault:
        if _no_container(fault):
            raise
        return None
    if (found.metadata or {}).get("hdi_isfolder") == "true":
        return None
    return FileInfo(url, found.size, found.etag.strip('"'), found.last_modified.timestamp())


def read(url: str) -> bytes:
    """The whole blob."""
    return cast(bytes, _blob(url).download_blob().readall())


def write(url: str, data: bytes) -> None:
    """Put the blob; readers see the old one or the new one."""
    _blob(url).upload_blob(data, overwrite=True)


def create(url: str, data: bytes, asked_before: bool) -> bool:
    """Put the blob where there is none of that name, or return False. One caller of many wins.

    asked_before: an earlier call with this data may have gone through although its answer was lost. Azure's client does
    not tell whether it asked more than once, so a blob with this very content always counts as the caller's own.
    """
    from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

    try:
        _blob(url).upload_blob(data, overwrite=False)
        return True
    except ResourceExistsError:
        try:
            return read(url) == data
        except ResourceNotFoundError:
            return False


def delete(url: str) -> None:
    """Delete the blob; no error where there is none."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        _blob(url).delete_blob(delete_snapshots="include")
    except ResourceNotFoundError as fault:
        if _no_container(fault):
            raise


def delete_below(url: str) -> None:
    """Delete every blob below a folder."""
    for file in list_objects(url, True):
        delete(file.url)


def forget() -> None:
    """Build all clients anew at their next use, so that credentials are read again."""
    for cache in (_service, _filesystem):
        cache.cache_clear()


# -- clients ------------------------------------------------------------------------------------------------------


def _place(url: str) -> tuple[_Account, str, str]:
    """(account, container, key)."""
    netloc, key = split(url)
    container, _, host = netloc.partition("@")
    said = _connection_string()
    name = host.partition(".")[0] or os.environ.get("AZURE_STORAGE_ACCOUNT") or said.get("accountname", "")
    if not name:
        raise RunError(f"{url}: no storage account: write abfs://container@account/path, or set AZURE_STORAGE_ACCOUNT")
    scheme, suffix = said.get("defaultendpointsprotocol", "https"), said.get("endpointsuffix", "core.windows.net")
    if "." in host:
        suffix = host.partition(".")[2].removeprefix("dfs.").removeprefix("blob.")
    endpoint = os.environ.get(AZURE_ENDPOINT) or said.get("blobendpoint") or f"{scheme}://{name}.blob.{suffix}"
    account = _Account(
        name,
        endpoint.rstrip("/"),
        said.get("accountkey") or os.environ.get("AZURE_STORAGE_KEY", ""),
        said.get("sharedaccesssignature") or os.environ.get("AZURE_STORAGE_SAS_TOKEN", ""),
        timeout_s(),
    )
    return account, container, key


def _connection_string() -> dict[str, str]:
    """Its parts, their names in lower case."""
    parts = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
    return {name.strip().lower(): value for name, _, value in (part.partition("=") for part in parts) if value}


def _container(url: str) -> Any:
    account, container, _ = _place(url)
    return _service(account).get_container_client(container)


def _blob(url: str) -> Any:
    account, container, key = _place(url)
    return _service(account).get_blob_client(container, key)


def _no_container(fault: Any) -> bool:
    code = getattr(fault, "error_code", None)
    return "Container" in str(getattr(code, "value", code))


def _marks_folder(container: Any, name: str) -> bool:
    metadata = container.get_blob_client(name).get_blob_properties().metadata or {}
    return bool(metadata.get("hdi_isfolder") == "true")


@lru_cache(maxsize=8)
def _service(account: _Account) -> Any:
    try:
        from azure.storage.blob import BlobServiceClient
    except ImportError as fault:
        raise RunError("abfs:// takes Azure's own client: pip install 'bizllm[azure]'") from fault
    credential: Any = account.key or account.sas
    if account.key:  # an endpoint such as http://127.0.0.1:10000/name does not tell the account's name to the client
        credential = {"account_name": account.name, "account_key": account.key}
    elif not credential:
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as fault:
            raise RunError("abfs:// without a key takes azure-identity: pip install 'bizllm[azure]'") from fault
        credential = DefaultAzureCredential()
    return BlobServiceClient(
        account.endpoint,
        credential=credential,
        connection_timeout=_CONNECT_S,
        read_timeout=account.timeout_s,
        retry_total=REQUEST_ATTEMPTS - 1,
        initial_backoff=1,
        increment_base=2,
    )


@lru_cache(maxsize=8)
def _filesystem(account: _Account) -> fs.FileSystem:
    at = urlsplit(account.endpoint)
    options: dict[str, Any] = {}
    if not account.endpoint.startswith(f"https://{account.name}.blob.core.windows.net"):
        # pyarrow puts the account's name before the authority unless that is an emulator's.
        authority = at.netloc.removeprefix(account.name)
        options |= {"blob_storage_scheme": at.scheme, "blob_storage_authority": authority}
        options |= {"dfs_storage_scheme": at.scheme, "dfs_storage_authority": authority.replace(".blob.", ".dfs.")}
    if account.key:
        options["account_key"] = account.key
    elif account.sas:
        options["sas_token"] = account.sas.removeprefix("?")
    return fs.AzureFileSystem(account.name, **options)
