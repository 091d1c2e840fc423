"""Files on local disk and in object stores. Callers give a URL and need not know which store it is in.

A URL is a local path, `file://`, `s3://bucket/key` (see `s3`), `abfs://container@account/key` (`azure`) or
`gs://bucket/key` (`gcs`). What a store may do better a second later is tried again (`retry`); what stays wrong is told
in one line (`refusals`). Streams are tried again only where they are opened: who reads or writes one starts anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from bizllm.errors import Fault, RunError, UserError
from bizllm.tables import azure, gcs, retry, s3
from bizllm.tables.refusals import explained, named
from bizllm.tables.s3_upload import Upload
from bizllm.tables.store_settings import KMS_KEY
from bizllm.tables.urls import FileInfo, is_local, is_s3, join, local_path, scheme, split

__all__ = [
    "FileInfo",
    "abort_upload",
    "again",
    "check_encryption",
    "create_exclusive",
    "delete",
    "delete_each",
    "delete_tree",
    "exists",
    "explained",
    "filesystem",
    "forget",
    "is_local",
    "join",
    "list_files",
    "named",
    "open_input",
    "open_output",
    "read_bytes",
    "replacing",
    "stat",
    "unfinished_uploads",
    "write_bytes",
]

_AT_ONCE = 16  # files that are deleted
Answer = TypeVar("Answer")
_STORES: dict[str, Any] = {
    **dict.fromkeys(("s3", "s3a", "s3n"), s3),
    **dict.fromkeys(("abfs", "abfss"), azure),
    **dict.fromkeys(("gs", "gcs"), gcs),
}


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem that holds the URL, and the URL's path in it. Filesystems are cached."""
    if is_local(url):
        return fs.LocalFileSystem(), local_path(url)
    store, path = again(url, "open", lambda: _store(url).filesystem(url))
    return store, path


def again(url: str, action: str, call: Callable[[], Answer]) -> Answer:
    """What `call` gives, a few times asked where the URL's store fails in a way that may pass: for whole streams.

    Raises StorageUnavailable where it does not pass, RunError, or FileNotFoundError.
    """
    if is_local(url):
        with explained(url, action):
            return call()
    return retry.retried(call, url, action, _store(url).forget)


def forget() -> None:
    """Read all credentials again at the next use."""
    for store in (s3, azure, gcs):
        store.forget()


# -- looking ------------------------------------------------------------------------------------------------------


def exists(url: str) -> bool:
    """Whether a file, or a folder with something in it, is there."""
    if is_local(url):
        return os.path.exists(local_path(url))
    store = _store(url)

    def look() -> bool:
        return store.head(url) is not None or next(iter(store.list_objects(url, recursive=True)), None) is not None

    return again(url, "look at", look)


def list_files(url: str, recursive: bool = True) -> list[FileInfo]:
    """The files under a folder, sorted by URL; the file itself where the URL names one; [] where nothing is there.

    Local files come back as absolute paths, whatever the form of `url`.
    """

    def look() -> list[FileInfo]:
        if is_local(url):
            return list(_local_list(local_path(url), recursive))
        store = _store(url)
        found = list(store.list_objects(url, recursive))
        if not found and (itself := store.head(url)):
            found = [itself]
        return found

    return sorted(again(url, "list", look), key=lambda file: file.url)


def stat(url: str) -> FileInfo | None:
    """One file's size and etag now; None where there is no such file."""
    if is_local(url):
        path = local_path(url)
        return None if os.path.isdir(path) else next(iter(list_files(path, recursive=False)), None)

    def look() -> FileInfo | None:
        found: FileInfo | None = _store(url).head(url)
        return found

    return again(url, "look at", look)


def check_encryption(url: str, place: str) -> None:
    """Hold `storage.kms_key` against what the URL's bucket does by itself. Raises UserError.

    Streams can't ask for a key, nor can other engines be made to: only the bucket's default covers every object.
    """
    key = os.environ.get(KMS_KEY)
    if not key:
        return
    if not is_s3(url):
        raise UserError(Fault("storage.kms_key", key, f"expected {place} on s3://, not {scheme(url)}://"))
    default = again(url, "look at the encryption of", lambda: s3.default_key(url))
    if default is None or not _same_key(key, default):
        found = "it has no aws:kms default" if default is None else f"it uses {default}"
        what = f"expected bucket '{split(url)[0]}' to encrypt with this key by default; {found}"
        raise UserError(Fault("storage.kms_key", key, what, "set it by `aws s3api put-bucket-encryption`"))


def _same_key(one: str, other: str) -> bool:
    """Two spellings of a key: an ARN, or its last part alone."""
    return one == other or one.rpartition(":")[2].removeprefix("key/") == other.rpartition(":")[2].removeprefix("key/")


# -- reading and writing ------------------------------------------------------------------------------------------


def open_input(url: str) -> pa.NativeFile:
    """A seekable stream of the file. Raises FileNotFoundError."""
    store, path = filesystem(url)
    return again(url, "read", lambda: store.open_input_file(path))


def open_output(url: str) -> pa.NativeFile:
    """A stream into a new file; on an object store nothing is seen before it is closed."""
    store, path = filesystem(url)

    def opened() -> pa.NativeFile:
        if is_local(url):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return store.open_output_stream(path)

    return again(url, "write", opened)


@contextmanager
def replacing(url: str, aside: str) -> Iterator[Any]:
    """A stream into a file of any size. When the block ends well it takes the place of what is there, whole; where it
    does not, nothing has changed.

    aside: another URL of the same store, which holds it meanwhile where the store does not by itself (S3 does).
    """
    if is_s3(url):
        upload = Upload(url)
        try:
            yield upload
            upload.complete()
        except BaseException:
            with suppress(RunError):
                upload.abort()
            raise
        return
    try:
        with open_output(aside) as stream:
            yield stream
        store, source = filesystem(aside)
        place = filesystem(url)[1]
        if is_local(url):
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.replace(source, place)
        else:
            again(url, "write", lambda: store.copy_file(source, place))
            delete(aside)
    except BaseException:
        with suppress(OSError, RunError):
            delete(aside)
        raise


def read_bytes(url: str) -> bytes:
    """The whole file. Raises FileNotFoundError."""
    if not is_local(url):
        return again(url, "read", lambda: bytes(_store(url).read(url)))
    with open_input(url) as stream:
        return bytes(stream.read())


def write_bytes(url: str, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one and nothing between."""

    def write() -> None:
        if not is_local(url):
            _store(url).write(url, data)
            return
        path = local_path(url)
        with _durable_copy(path, data) as written:
            os.replace(written, path)

    again(url, "write", write)


def create_exclusive(url: str, data: bytes) -> bool:
    """Create the file with that content, or return False where one is there already. One caller of many wins.

    data: unlike any other caller's. Where an answer was lost on the way, it tells whose file it is.
    """
    asked = [False]

    def create() -> bool:
        if not is_local(url):
            asked_before, asked[0] = asked[0], True
            return bool(_store(url).create(url, data, asked_before))
        path = local_path(url)
        with _durable_copy(path, data) as written:
            try:
                os.link(written, path)  # unlike rename, link never replaces; unlike O_EXCL, it is never half full
            except FileExistsError:
                return False
        return True

    return again(url, "write", create)


def delete(url: str) -> None:
    """Delete a file; no error where there is none."""

    def remove() -> None:
        if not is_local(url):
            _store(url).delete(url)
            return
        with suppress(FileNotFoundError):
            os.unlink(local_path(url))

    again(url, "delete", remove)


def delete_each(urls: Iterable[str]) -> list[str]:
    """Delete many files, some at once. Why some could not be deleted, one line each: raises nothing for it."""

    def failed(url: str) -> str | None:
        try:
            delete(url)
        except RunError as fault:
            return str(fault)
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [fault for fault in pool.map(failed, urls) if fault]


def delete_tree(url: str) -> None:
    """Delete everything under a folder; no error where there is nothing."""

    def remove() -> None:
        if not is_local(url):
            _store(url).delete_below(url)
            return
        with suppress(FileNotFoundError):
            shutil.rmtree(local_path(url))

    again(url, "delete", remove)


def _store(url: str) -> Any:
    """The module that knows the URL's store."""
    kind = scheme(url)
    if kind not in _STORES:
        raise RunError(f"{url}: can't open: expected a local path, s3://, gs:// or abfs://")
    return _STORES[kind]


def unfinished_uploads(url: str) -> list[FileInfo]:
    """What writers that died left half uploaded below a folder; etag: the upload's id, size 0. [] where a store has no
    such thing, or cleans up by itself (Azure after a week)."""
    return again(url, "list the uploads of", lambda: list(s3.unfinished_uploads(url))) if is_s3(url) else []


def abort_upload(upload: FileInfo) -> None:
    """Give up one of `unfinished_uploads`; no error where it is gone."""
    again(upload.url, "abort the upload of", lambda: s3.abort_upload(upload))


# -- local --------------------------------------------------------------------------------------------------------


def _local_list(path: str, recursive: bool) -> Iterator[FileInfo]:
    if os.path.isfile(path):
        with suppress(FileNotFoundError):
            yield _local_info(path)
        return
    seen: set[tuple[int, int]] = set()  # links to folders are followed, a circle of them once
    for folder, folders, names in os.walk(path, followlinks=True, onerror=_raise_unless_missing):
        try:
            at = os.stat(folder)
        except FileNotFoundError:  # deleted since its parent was read
            folders.clear()
            continue
        if (at.st_dev, at.st_ino) in seen or (folder != path and not recursive):
            folders.clear()
            continue
        seen.add((at.st_dev, at.st_ino))
        for name in names:
            with suppress(FileNotFoundError):  # deleted since the folder was read, or a link to nothing
                yield _local_info(os.path.join(folder, name))


def _local_info(path: str) -> FileInfo:
    at = os.stat(path)
    return FileInfo(path, at.st_size, f"{at.st_mtime_ns:x}-{at.st_size:x}", at.st_mtime)


def _raise_unless_missing(fault: OSError) -> None:
    if not isinstance(fault, FileNotFoundError | NotADirectoryError):
        raise fault


@contextmanager
def _durable_copy(path: str, data: bytes) -> Iterator[str]:
    """A temporary file beside `path` with the data on disk; what the block made of it is on disk too when it ends."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
    entries = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)
