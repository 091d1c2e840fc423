"""Files on local disk and in object stores. The only module that knows which store it talks to.

A URL is a local path, `file://`, `s3://bucket/key`, `gs://bucket/key` or `abfs://container@account/key`. Streams go
through pyarrow's filesystems. Listing, small objects and conditional writes on S3 go through boto3, because pyarrow
gives neither ETags nor `If-None-Match`. AWS_ENDPOINT_URL, AWS_REGION and the usual credential chain are honoured.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from bizllm.errors import RunError

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_S3 = ("s3", "s3a", "s3n")
_DENIED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled")
_MISSING_KEY = ("NoSuchKey", "404")
_DELETE_BATCH = 1000  # what one DeleteObjects request takes


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file as it was listed. etag: what changes when the content does (S3: ETag; local: mtime in ns and size)."""

    url: str
    size: int
    etag: str


# -- URLs ---------------------------------------------------------------------------------------------------------


def is_local(url: str) -> bool:
    """Whether the URL names a file of this machine only."""
    return _scheme(url) == "file"


def join(url: str, *parts: str) -> str:
    """`url/part/part`, with single slashes between."""
    base = url if url.endswith("/") else url + "/"
    return base + "/".join(part.strip("/") for part in parts)


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem that holds the URL, and the URL's path in it. Filesystems are cached."""
    scheme = _scheme(url)
    if scheme == "file":
        return fs.LocalFileSystem(), _local(url)
    if scheme in _S3:
        bucket, key = _bucket_key(url)
        return _s3_filesystem(bucket, _environment()), f"{bucket}/{key}".rstrip("/")
    parts = urlsplit(url)
    with explained(url, "open"):
        store, root = _other_filesystem(scheme, parts.netloc)
    return store, "/".join(part for part in (root.strip("/"), parts.path.strip("/")) if part)


# -- looking ------------------------------------------------------------------------------------------------------


def exists(url: str) -> bool:
    """Whether a file, or a folder with something in it, is there."""
    if is_local(url):
        return os.path.exists(_local(url))
    if _scheme(url) in _S3:
        return _s3_head(url) is not None or next(_s3_list(url, recursive=True), None) is not None
    store, path = filesystem(url)
    with explained(url, "look at"):
        return bool(store.get_file_info(path).type != fs.FileType.NotFound)


def list_files(url: str, recursive: bool = True) -> list[FileInfo]:
    """The files under a folder, sorted by URL; the file itself where the URL names one; [] where nothing is there.

    Local files come back as absolute paths, whatever the form of `url`.
    """
    with explained(url, "list"):
        if is_local(url):
            found = list(_local_list(_local(url), recursive))
        elif _scheme(url) in _S3:
            found = list(_s3_list(url, recursive))
            if not found and (itself := _s3_head(url)):
                found = [itself]
        else:
            found = list(_other_list(url, recursive))
    return sorted(found, key=lambda file: file.url)


def stat(url: str) -> FileInfo | None:
    """One file's size and etag now; None where there is no such file."""
    if _scheme(url) in _S3:
        return _s3_head(url)
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
    if _scheme(url) in _S3:
        bucket, key = _bucket_key(url)
        with explained(url, "read"):
            return _s3_client(_environment()).get_object(Bucket=bucket, Key=key)["Body"].read()
    with open_input(url) as stream:
        return bytes(stream.read())


def write_bytes(url: str, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one and nothing between."""
    with explained(url, "write"):
        if is_local(url):
            path = _local(url)
            with _durable_copy(path, data) as written:
                os.replace(written, path)
        elif _scheme(url) in _S3:
            bucket, key = _bucket_key(url)
            _s3_client(_environment()).put_object(Bucket=bucket, Key=key, Body=data)
        else:
            with open_output(url) as stream:
                stream.write(data)


def create_exclusive(url: str, data: bytes) -> bool:
    """Create the file with that content, or return False where one is there already. One caller of many wins."""
    with explained(url, "write"):
        if is_local(url):
            path = _local(url)
            with _durable_copy(path, data) as written:
                try:
                    os.link(written, path)  # unlike rename, link never replaces; unlike O_EXCL, it is never half full
                except FileExistsError:
                    return False
            return True
        if _scheme(url) in _S3:
            return _s3_create(url, data)
    raise RunError(f"{url}: this store has no create-if-absent here; keep the warehouse on local disk or s3://")


def delete(url: str) -> None:
    """Delete a file; no error where there is none."""
    with explained(url, "delete"):
        if is_local(url):
            with suppress(FileNotFoundError):
                os.unlink(_local(url))
        elif _scheme(url) in _S3:
            bucket, key = _bucket_key(url)
            _s3_client(_environment()).delete_object(Bucket=bucket, Key=key)
        else:
            store, path = filesystem(url)
            with suppress(FileNotFoundError):
                store.delete_file(path)


def delete_tree(url: str) -> None:
    """Delete everything under a folder; no error where there is nothing."""
    with explained(url, "delete"):
        if is_local(url):
            with suppress(FileNotFoundError):
                shutil.rmtree(_local(url))
        elif _scheme(url) in _S3:
            bucket, _ = _bucket_key(url)
            keys = [_bucket_key(file.url)[1] for file in _s3_list(url, recursive=True)]
            for start in range(0, len(keys), _DELETE_BATCH):
                batch = [{"Key": key} for key in keys[start : start + _DELETE_BATCH]]
                answer = _s3_client(_environment()).delete_objects(Bucket=bucket, Delete={"Objects": batch})  # type: ignore[typeddict-item]
                if failed := answer.get("Errors"):
                    raise RunError(f"{url}: can't delete {len(failed)} objects: {failed[0].get('Code', 'unknown')}")
        else:
            store, path = filesystem(url)
            store.delete_dir_contents(path, missing_dir_ok=True)


@contextmanager
def explained(url: str, action: str) -> Iterator[None]:
    """Turn a store's refusal into one line that names the bucket (or file) and what was tried.

    A missing file stays FileNotFoundError: what that means is the caller's to say.
    """
    try:
        yield
    except FileNotFoundError as fault:
        if "NO_SUCH_BUCKET" in str(fault) or "NoSuchBucket" in str(fault):
            raise RunError(f"can't {action} {url}: no bucket '{urlsplit(url).netloc}'") from fault
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from fault
    except (RunError, FileExistsError):
        raise
    except OSError as fault:
        reason = _os_reason(fault)
        raise RunError(f"can't {action} {url}: {_where(url)}{reason}") from fault
    except Exception as fault:
        if not type(fault).__module__.startswith(("botocore", "boto3")):
            raise
        code = str(getattr(fault, "response", {}).get("Error", {}).get("Code", ""))
        if code in _MISSING_KEY:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from fault
        if code == "NoSuchBucket":
            reason = f"no bucket '{urlsplit(url).netloc}'"
        elif code in _DENIED:
            reason = f"{_where(url)}access denied ({code})"
        else:
            reason = f"{_where(url)}{code or type(fault).__name__}"
        raise RunError(f"can't {action} {url}: {reason}") from fault


# -- local --------------------------------------------------------------------------------------------------------


def _scheme(url: str) -> str:
    head, sep, _ = url.partition("://")
    return head.lower() if sep else "file"


def _local(url: str) -> str:
    path = unquote(urlsplit(url).path) if url.startswith("file:") else url
    return os.path.abspath(os.path.expanduser(path))


def _is_folder(url: str) -> bool:
    store, path = filesystem(url)
    return bool(store.get_file_info(path).type == fs.FileType.Directory)


def _local_list(path: str, recursive: bool) -> Iterator[FileInfo]:
    if os.path.isfile(path):
        yield _local_info(path)
        return
    seen: set[tuple[int, int]] = set()  # links to folders are followed, a circle of them once
    for folder, folders, names in os.walk(path, followlinks=True, onerror=_raise_unless_missing):
        at = os.stat(folder)
        if (at.st_dev, at.st_ino) in seen or (folder != path and not recursive):
            folders.clear()
            continue
        seen.add((at.st_dev, at.st_ino))
        yield from (_local_info(os.path.join(folder, name)) for name in names)


def _local_info(path: str) -> FileInfo:
    at = os.stat(path)
    return FileInfo(path, at.st_size, f"{at.st_mtime_ns:x}-{at.st_size:x}")


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


# -- S3 -----------------------------------------------------------------------------------------------------------


def _environment() -> tuple[tuple[str, str], ...]:
    """What decides how a client is built; the key of the caches."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    identity = os.environ.get("AWS_ACCESS_KEY_ID", "") + "@" + os.environ.get("AWS_PROFILE", "")
    return (("endpoint", endpoint), ("region", region), ("identity", identity))


@lru_cache(maxsize=8)
def _s3_client(environment: tuple[tuple[str, str], ...]) -> S3Client:
    import boto3
    from botocore.config import Config

    given = dict(environment)
    style: Any = {"addressing_style": "path"} if given["endpoint"] else {}
    return boto3.client(
        "s3",
        endpoint_url=given["endpoint"] or None,
        region_name=given["region"] or None,
        config=Config(
            s3=style,
            max_pool_connections=32,
            connect_timeout=10,
            retries={"mode": "standard", "max_attempts": 4},
            # Stores that speak S3 but are not AWS refuse the newer default checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@lru_cache(maxsize=32)
def _s3_filesystem(bucket: str, environment: tuple[tuple[str, str], ...]) -> fs.FileSystem:
    given = dict(environment)
    endpoint = urlsplit(given["endpoint"])
    options: dict[str, Any] = {"connect_timeout": 10.0, "request_timeout": 120.0}
    if given["region"]:
        options["region"] = given["region"]
    elif not given["endpoint"]:
        with explained(f"s3://{bucket}", "find the region of"):
            options["region"] = fs.resolve_s3_region(bucket)
    if given["endpoint"]:
        options |= {"endpoint_override": endpoint.netloc + endpoint.path.rstrip("/"), "scheme": endpoint.scheme}
    return fs.S3FileSystem(**options)


def _bucket_key(url: str) -> tuple[str, str]:
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


def _s3_list(url: str, recursive: bool) -> Iterator[FileInfo]:
    bucket, key = _bucket_key(url)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    pages = _s3_client(_environment()).get_paginator("list_objects_v2")
    only_this_level: Any = {} if recursive else {"Delimiter": "/"}
    with explained(url, "list"):
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, **only_this_level):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # the markers that consoles leave for empty folders
                    yield FileInfo(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"].strip('"'))


def _s3_head(url: str) -> FileInfo | None:
    bucket, key = _bucket_key(url)
    if not key or key.endswith("/"):
        return None
    try:
        with explained(url, "look at"):
            answer = _s3_client(_environment()).head_object(Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None
    return FileInfo(f"s3://{bucket}/{key}", answer["ContentLength"], answer["ETag"].strip('"'))


def _s3_create(url: str, data: bytes) -> bool:
    from botocore.exceptions import ClientError

    bucket, key = _bucket_key(url)
    try:
        _s3_client(_environment()).put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as fault:
        # 409: another conditional write of the key was under way, and one of the two wins.
        if fault.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
            return False
        raise
    return True


# -- other stores -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _other_filesystem(scheme: str, netloc: str) -> tuple[fs.FileSystem, str]:
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(f"{scheme}://{netloc}/")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as fault:
        raise RunError(f"{scheme}://{netloc}: can't open: expected a local path, s3://, gs:// or abfs://") from fault
    return found


def _other_list(url: str, recursive: bool) -> Iterator[FileInfo]:
    store, path = filesystem(url)
    at = store.get_file_info(path)
    found = [at] if at.is_file else store.get_file_info(fs.FileSelector(path, recursive, allow_not_found=True))
    base = url.rstrip("/")
    for file in found:
        if file.is_file:
            place = base if file.path == path else f"{base}/{file.path[len(path) :].lstrip('/')}"
            yield FileInfo(place, file.size, f"{file.mtime_ns or 0:x}-{file.size:x}")


def _where(url: str) -> str:
    return "" if is_local(url) else f"bucket '{urlsplit(url).netloc}': "


def _os_reason(fault: OSError) -> str:
    text = str(fault)
    for mark, reason in (
        ("ACCESS_DENIED", "access denied"),
        ("NO_SUCH_BUCKET", "no such bucket"),
        ("NETWORK_CONNECTION", "can't connect"),
    ):
        if mark in text:
            return reason
    return fault.strerror or " ".join(text.split())[:200]
