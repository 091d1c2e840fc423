"""Objects of S3 and of stores that speak its protocol; `storage` calls these where a URL is `s3://bucket/key`.

Streams go through pyarrow's filesystem; the rest through boto3, because pyarrow gives neither ETags nor
`If-None-Match`. How clients are built is decided by environment variables alone (`store_settings` names them); clients
are cached by those. The functions raise as boto3 and pyarrow do: `storage` explains it and tries again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyarrow import fs

from bizllm.errors import RunError
from bizllm.tables.s3_clients import client, environment, filesystem_of, forget
from bizllm.tables.urls import FileInfo, split

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import ObjectIdentifierTypeDef

__all__ = [
    "abort_upload",
    "create",
    "default_key",
    "delete",
    "delete_below",
    "filesystem",
    "forget",
    "head",
    "list_objects",
    "read",
    "unfinished_uploads",
    "write",
]

_DELETE_BATCH = 1000  # what one DeleteObjects request takes
_CONFLICTS = 4  # answers 409 to one conditional write before it counts as lost


def filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow filesystem of the URL's bucket, and the URL's path in it: `bucket/key`."""
    bucket, key = split(url)
    return filesystem_of(bucket), f"{bucket}/{key}".rstrip("/")


def list_objects(url: str, recursive: bool) -> Iterator[FileInfo]:
    """The objects below a folder, in S3's own order."""
    bucket, key = split(url)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    pages = client().get_paginator("list_objects_v2")
    only_this_level: Any = {} if recursive else {"Delimiter": "/"}
    for page in pages.paginate(Bucket=bucket, Prefix=prefix, **only_this_level):
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):  # the markers that consoles leave for empty folders
                place, at = f"s3://{bucket}/{item['Key']}", item["LastModified"].timestamp()
                yield FileInfo(place, item["Size"], item["ETag"].strip('"'), at)


def head(url: str) -> FileInfo | None:
    """One object as it is now; None where there is none of that key."""
    from botocore.exceptions import ClientError

    bucket, key = split(url)
    if not key or key.endswith("/"):
        return None
    try:
        answer = client().head_object(Bucket=bucket, Key=key)
    except ClientError as fault:
        if fault.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        raise
    etag, at = answer["ETag"].strip('"'), answer["LastModified"].timestamp()
    return FileInfo(f"s3://{bucket}/{key}", answer["ContentLength"], etag, at)


def read(url: str) -> bytes:
    """The whole object."""
    bucket, key = split(url)
    return client().get_object(Bucket=bucket, Key=key)["Body"].read()


def write(url: str, data: bytes) -> None:
    """Put the object; readers see the old one or the new one."""
    bucket, key = split(url)
    client().put_object(Bucket=bucket, Key=key, Body=data, **_encryption())


def create(url: str, data: bytes, asked_before: bool) -> bool:
    """Put the object where there is none of that key, or return False. One caller of many wins.

    asked_before: an earlier call with this data may have gone through although its answer was lost. Then, and where
    boto3 had to ask more than once, an object with this very content is the caller's own: it must be unlike others'.
    """
    from botocore.exceptions import ClientError

    bucket, key = split(url)
    for conflicts in range(1, _CONFLICTS + 1):
        try:
            client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", **_encryption())
            return True
        except ClientError as fault:
            answer = fault.response["ResponseMetadata"]
            asked_before |= answer.get("RetryAttempts", 0) > 0
            # 409: another conditional write of the key (perhaps our own, lost one) is under way.
            if answer["HTTPStatusCode"] == 409 and conflicts < _CONFLICTS:
                asked_before = True
                continue
            if answer["HTTPStatusCode"] not in (409, 412):
                raise
            return asked_before and _holds(url, data)
    raise AssertionError("unreachable")


def delete(url: str) -> None:
    """Delete the object; no error where there is none."""
    bucket, key = split(url)
    client().delete_object(Bucket=bucket, Key=key)


def delete_below(url: str) -> None:
    """Delete every object below a folder. Raises RunError where the store keeps some."""
    bucket, _ = split(url)
    found: list[ObjectIdentifierTypeDef] = [{"Key": split(file.url)[1]} for file in list_objects(url, True)]
    for start in range(0, len(found), _DELETE_BATCH):
        batch = found[start : start + _DELETE_BATCH]
        answer = client().delete_objects(Bucket=bucket, Delete={"Objects": batch})
        if failed := answer.get("Errors"):
            raise RunError(f"{url}: can't delete {len(failed)} objects: {failed[0].get('Code', 'unknown')}")


def unfinished_uploads(url: str) -> Iterator[FileInfo]:
    """Multipart uploads below a folder that were begun and neither completed nor aborted; etag: the upload's id."""
    bucket, key = split(url)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    pages = client().get_paginator("list_multipart_uploads")
    for page in pages.paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Uploads", []):
            yield FileInfo(f"s3://{bucket}/{item['Key']}", 0, item["UploadId"], item["Initiated"].timestamp())


def abort_upload(upload: FileInfo) -> None:
    """Give up one of `unfinished_uploads`, with the parts that were stored; no error where it is gone."""
    from botocore.exceptions import ClientError

    bucket, key = split(upload.url)
    try:
        client().abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.etag)
    except ClientError as fault:
        if fault.response["Error"]["Code"] != "NoSuchUpload":
            raise


def default_key(url: str) -> str | None:
    """The KMS key by which the bucket encrypts what is written without a word; None where it uses none of KMS."""
    from botocore.exceptions import ClientError

    bucket, _ = split(url)
    try:
        answer = client().get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
    except ClientError as fault:
        if fault.response["Error"]["Code"] == "ServerSideEncryptionConfigurationNotFoundError":
            return None
        raise
    for rule in answer.get("Rules", []):  # Ceph answers without any
        default = rule.get("ApplyServerSideEncryptionByDefault", {})
        if str(default.get("SSEAlgorithm", "")).startswith("aws:kms"):
            return str(default.get("KMSMasterKeyID", "")) or "alias/aws/s3"
    return None


def _holds(url: str, data: bytes) -> bool:
    from botocore.exceptions import ClientError

    try:
        return read(url) == data
    except ClientError as fault:
        if fault.response["Error"]["Code"] == "NoSuchKey":
            return False
        raise


def _encryption() -> Any:
    key = environment().kms_key
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
