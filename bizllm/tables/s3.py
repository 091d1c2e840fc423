"""Objects of S3 and of stores that speak its protocol; `storage` calls these where a URL is `s3://bucket/key`.

Streams go through pyarrow's filesystem; the rest through boto3, because pyarrow gives neither ETags nor
`If-None-Match`. AWS_ENDPOINT_URL, AWS_REGION and the usual credential chain are honoured; clients are cached by them.
The functions raise as boto3 and pyarrow do: callers wrap them in `urls.explained`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pyarrow import fs

from bizllm.errors import RunError
from bizllm.tables.urls import FileInfo, explained

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef

_DELETE_BATCH = 1000  # what one DeleteObjects request takes


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem of the URL's bucket, and the URL's path in it: `bucket/key`."""
    bucket, key = _bucket_key(url)
    return _filesystem(bucket, _environment()), f"{bucket}/{key}".rstrip("/")


def list_objects(url: str, recursive: bool) -> Iterator[FileInfo]:
    """The objects below a folder, in S3's own order."""
    bucket, key = _bucket_key(url)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    pages = _client(_environment()).get_paginator("list_objects_v2")
    only_this_level: Any = {} if recursive else {"Delimiter": "/"}
    with explained(url, "list"):
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, **only_this_level):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # the markers that consoles leave for empty folders
                    place, at = f"s3://{bucket}/{item['Key']}", item["LastModified"].timestamp()
                    yield FileInfo(place, item["Size"], item["ETag"].strip('"'), at)


def head(url: str) -> FileInfo | None:
    """One object as it is now; None where there is none of that key."""
    bucket, key = _bucket_key(url)
    if not key or key.endswith("/"):
        return None
    try:
        with explained(url, "look at"):
            answer = _client(_environment()).head_object(Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None
    etag, at = answer["ETag"].strip('"'), answer["LastModified"].timestamp()
    return FileInfo(f"s3://{bucket}/{key}", answer["ContentLength"], etag, at)


def read(url: str) -> bytes:
    """The whole object."""
    bucket, key = _bucket_key(url)
    return _client(_environment()).get_object(Bucket=bucket, Key=key)["Body"].read()


def write(url: str, data: bytes) -> None:
    """Put the object; readers see the old one or the new one."""
    bucket, key = _bucket_key(url)
    _client(_environment()).put_object(Bucket=bucket, Key=key, Body=data)


def create(url: str, data: bytes) -> bool:
    """Put the object where there is none of that key, or return False. One caller of many wins."""
    from botocore.exceptions import ClientError

    bucket, key = _bucket_key(url)
    try:
        _client(_environment()).put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as fault:
        # 409: another conditional write of the key was under way, and one of the two wins.
        if fault.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
            return False
        raise
    return True


def delete(url: str) -> None:
    """Delete the object; no error where there is none."""
    bucket, key = _bucket_key(url)
    _client(_environment()).delete_object(Bucket=bucket, Key=key)


def delete_below(url: str) -> None:
    """Delete every object below a folder. Raises RunError where the store keeps some."""
    bucket, _ = _bucket_key(url)
    found: list[ObjectIdentifierTypeDef] = [{"Key": _bucket_key(file.url)[1]} for file in list_objects(url, True)]
    for start in range(0, len(found), _DELETE_BATCH):
        batch = found[start : start + _DELETE_BATCH]
        answer = _client(_environment()).delete_objects(Bucket=bucket, Delete={"Objects": batch})
        if failed := answer.get("Errors"):
            raise RunError(f"{url}: can't delete {len(failed)} objects: {failed[0].get('Code', 'unknown')}")


def unfinished_uploads(url: str) -> Iterator[FileInfo]:
    """Multipart uploads below a folder that were begun and neither completed nor aborted; etag: the upload's id."""
    bucket, key = _bucket_key(url)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    pages = _client(_environment()).get_paginator("list_multipart_uploads")
    with explained(url, "list the uploads of"):
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Uploads", []):
                yield FileInfo(f"s3://{bucket}/{item['Key']}", 0, item["UploadId"], item["Initiated"].timestamp())


def abort_upload(upload: FileInfo) -> None:
    """Give up one of `unfinished_uploads`, with the parts that were stored; no error where it is gone."""
    bucket, key = _bucket_key(upload.url)
    with suppress(FileNotFoundError), explained(upload.url, "abort the upload of"):
        _client(_environment()).abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.etag)


def _bucket_key(url: str) -> tuple[str, str]:
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


def _environment() -> tuple[tuple[str, str], ...]:
    """What decides how a client is built; the key of the caches."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    identity = os.environ.get("AWS_ACCESS_KEY_ID", "") + "@" + os.environ.get("AWS_PROFILE", "")
    return (("endpoint", endpoint), ("region", region), ("identity", identity))


@lru_cache(maxsize=8)
def _client(environment: tuple[tuple[str, str], ...]) -> S3Client:
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
def _filesystem(bucket: str, environment: tuple[tuple[str, str], ...]) -> fs.FileSystem:
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
