"""Files on local disk and in object stores. Callers give a URL and need not know which store it is in.

A URL is a local path, `file://`, `s3://bucket/key` (see `s3`), `gs://bucket/key` or `abfs://container@account/key`;
the last two go through pyarrow's filesystems alone.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from bizllm.errors import RunError
from bizllm.tables import s3
from bizllm.tables.urls import FileInfo, explained, is_local, is_s3, join, local_path, scheme

__all__ = [
    "FileInfo",
    "abort_upload",
    "create_exclusive",
    "delete",
    "delete_tree",
    "exists",
    "explained",
    "filesystem",
    "is_local",
    "join",
    "list_files",
    "open_input",
    "open_output",
    "read_bytes",
    "stat",
    "unfinished_uploads",
    "write_bytes",
]


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem that holds the URL, and the URL's path in it. Filesystems are cached."""
    if is_local(url):
        return fs.LocalFileSystem(), local_path(url)
    if is_s3(url):
        return s3.filesystem(url)
    parts = urlsplit(url)
    with explained(url, "open"):
        store, root = _other_filesystem(scheme(url), parts.netloc)
    return store, "/".join(part for part in (root.strip("/"), parts.path.strip("/")) if part)


# -- looking ------------------------------------------------------------------------------------------------------


def exists(url: str) -> bool:
    """Whether a file, or a folder with something in it, is there."""
    if is_local(url):
        return os.path.exists(local_path(url))
    if is_s3(url):
        return s3.head(url) is not None or next(s3.list_objects(url, recursive=True), None) is not None
    store, path = filesystem(url)
    with explained(url, "look at"):
        return bool(store.get_file_info(path).type != fs.FileType.NotFound)


def list_files(url: str, recursive: bool = True) -> list[FileInfo]:
    """The files under a folder, sorted by URL; the file itself where the URL names one; [] where nothing is there.

    Local files come back as absolute paths, whatever the form of `url`.
    """
    with explained(url, "list"):
        if is_local(url):
            found = list(_local_list(local_path(url), recursive))
        elif is_s3(url):
            found = list(s3.list_objects(url, recursive))
            if not found and (itself := s3.head(url)):
                found = [itself]
        else:
            found = list(_other_list(url, recursive))
    return sorted(found, key=lambda file: file.url)


def stat(url: str) -> FileInfo | None:
    """One file's size and etag now; None where there is no such file."""
    if is_s3(url):
        return s3.head(url)
    return next(iter(list_files(url, recursive=False)), None) if not _is_folder(url) else None


# -- reading and writing ------------------------------------------------------------------------------------------


def open_input(url: str) -> pa.NativeFile:
    """A seekable stream of the file. Raises FileNotFoundError."""
    store, path = filesystem(url)
    with explained(url, "read"):
        return store.open_input_file(path)


def open_output(url: str) -> pa.NativeFile:
    """A stream into a new file; on an object store nothing is seen before it is closed."""
    store, path = filesystem(url)
    with explained(url, "write"):
        if is_local(url):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return store.open_output_stream(path)


def read_bytes(url: str) -> bytes:
    """The whole file. Raises FileNotFoundError."""
    if is_s3(url):
        with explained(url, "read"):
            return s3.read(url)
    with open_input(url) as stream:
        return bytes(stream.read())


def write_bytes(url: str, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one and nothing between."""
    with explained(url, "write"):
        if is_local(url):
            path = local_path(url)
            with _durable_copy(path, data) as written:
                os.replace(written, path)
        elif is_s3(url):
            s3.write(url, data)
        else:
            with open_output(url) as stream:
                stream.write(data)


def create_exclusive(url: str, data: bytes) -> bool:
    """Create the file with that content, or return False where one is there already. One caller of many wins."""
    with explained(url, "write"):
        if is_local(url):
            path = local_path(url)
            with _durable_copy(path, data) as written:
                try:
                    os.link(written, path)  # unlike rename, link never replaces; unlike O_EXCL, it is never half full
                except FileExistsError:
                    return False
            return True
        if is_s3(url):
            return s3.create(url, data)
    raise RunError(f"{url}: this store has no create-if-absent here; keep the warehouse on local disk or s3://")


def delete(url: str) -> None:
    """Delete a file; no error where there is none."""
    with explained(url, "delete"):
        if is_local(url):
            with suppress(FileNotFoundError):
                os.unlink(local_path(url))
        elif is_s3(url):
            s3.delete(url)
        else:
            store, path = filesystem(url)
            with suppress(FileNotFoundError):
                store.delete_file(path)


def delete_tree(url: str) -> None:
    """Delete everything under a folder; no error where there is nothing."""
    with explained(url, "delete"):
        if is_local(url):
            with suppress(FileNotFoundError):
                shutil.rmtree(local_path(url))
        elif is_s3(url):
            s3.delete_below(url)
        else:
            store, path = filesystem(url)
            store.delete_dir_contents(path, missing_dir_ok=True)


def unfinished_uploads(url: str) -> list[FileInfo]:
    """What writers that died left half uploaded below a folder; etag: the upload's id, size 0. [] where a store has no
    such thing, or cleans up by itself (Azure after a week)."""
    return list(s3.unfinished_uploads(url)) if is_s3(url) else []


def abort_upload(upload: FileInfo) -> None:
    """Give up one of `unfinished_uploads`; no error where it is gone."""
    s3.abort_upload(upload)


# -- local --------------------------------------------------------------------------------------------------------


def _is_folder(url: str) -> bool:
    store, path = filesystem(url)
    return bool(store.get_file_info(path).type == fs.FileType.Directory)


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
    if not isinstance(fault, FileNotFoundError):
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


# -- other stores -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _other_filesystem(kind: str, netloc: str) -> tuple[fs.FileSystem, str]:
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(f"{kind}://{netloc}/")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as fault:
        raise RunError(f"{kind}://{netloc}: can't open: expected a local path, s3://, gs:// or abfs://") from fault
    return found


def _other_list(url: str, recursive: bool) -> Iterator[FileInfo]:
    store, path = filesystem(url)
    at = store.get_file_info(path)
    found = [at] if at.is_file else store.get_file_info(fs.FileSelector(path, recursive, allow_not_found=True))
    base = url.rstrip("/")
    for file in found:
        if file.is_file:
            place = base if file.path == path else f"{base}/{file.path[len(path) :].lstrip('/')}"
            etag = f"{file.mtime_ns or 0:x}-{file.size:x}"
            yield FileInfo(place, file.size, etag, (file.mtime_ns or 0) / 1e9)
