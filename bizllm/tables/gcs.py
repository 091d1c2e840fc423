"""Objects of Google Cloud Storage; `storage` calls these where a URL is `gs://bucket/key`. Never run against a store.

All goes through pyarrow's filesystem, which finds the application default credentials, but for creating exclusively,
which takes Google's own client (`pip install 'bizllm[gcs]'`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any

from pyarrow import fs

from bizllm.errors import RunError
from bizllm.tables.retry import REQUEST_ATTEMPTS
from bizllm.tables.store_settings import timeout_s
from bizllm.tables.urls import FileInfo, split


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem, and the URL's path in it: `bucket/key`."""
    bucket, key = split(url)
    return _filesystem(timeout_s()), f"{bucket}/{key}".rstrip("/")


def list_objects(url: str, recursive: bool) -> Iterator[FileInfo]:
    """The objects below a folder. Their etags are times and sizes: pyarrow gives no generations."""
    store, path = filesystem(url)
    base = url.rstrip("/")
    for file in store.get_file_info(fs.FileSelector(path, recursive, allow_not_found=True)):
        if file.is_file:
            yield _info(f"{base}/{file.path[len(path) :].lstrip('/')}", file)


def head(url: str) -> FileInfo | None:
    """One object as it is now; None where there is none of that key."""
    store, path = filesystem(url)
    found = store.get_file_info(path)
    return _info(url, found) if found.is_file else None


def read(url: str) -> bytes:
    """The whole object."""
    store, path = filesystem(url)
    with store.open_input_stream(path) as stream:
        return bytes(stream.read())


def write(url: str, data: bytes) -> None:
    """Put the object; readers see the old one or the new one."""
    store, path = filesystem(url)
    with store.open_output_stream(path) as stream:
        stream.write(data)


def create(url: str, data: bytes, asked_before: bool) -> bool:
    """Put the object where there is none of that key, or return False. One caller of many wins.

    An object with this very content counts as the caller's own: an answer may have been lost on the way.
    """
    try:
        client = _client()
    except ImportError as fault:
        raise RunError("gs:// as a warehouse takes Google's own client: pip install 'bizllm[gcs]'") from fault
    from google.api_core.exceptions import PreconditionFailed

    bucket, key = split(url)
    try:
        client.bucket(bucket).blob(key).upload_from_string(data, if_generation_match=0, timeout=timeout_s())
        return True
    except PreconditionFailed:
        try:
            return read(url) == data
        except FileNotFoundError:
            return False


def delete(url: str) -> None:
    """Delete the object; no error where there is none."""
    store, path = filesystem(url)
    with suppress(FileNotFoundError):
        store.delete_file(path)


def delete_below(url: str) -> None:
    """Delete every object below a folder."""
    store, path = filesystem(url)
    store.delete_dir_contents(path, missing_dir_ok=True)


def forget() -> None:
    """Build all clients anew at their next use, so that credentials are read again."""
    for cache in (_client, _filesystem):
        cache.cache_clear()


def _info(url: str, file: fs.FileInfo) -> FileInfo:
    return FileInfo(url, file.size, f"{file.mtime_ns or 0:x}-{file.size:x}", (file.mtime_ns or 0) / 1e9)


@lru_cache(maxsize=1)
def _client() -> Any:
    from google.cloud import storage

    return storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT"))


@lru_cache(maxsize=8)
def _filesystem(timeout: float) -> fs.FileSystem:
    return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=timeout * REQUEST_ATTEMPTS))
