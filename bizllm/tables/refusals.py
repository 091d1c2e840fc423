"""What a store's refusal means: one line that names bucket and action, and whether another attempt may succeed.

Three libraries speak here, each in its own way: botocore (codes and statuses), Azure's client (the same), and pyarrow,
whose errors are OSErrors with the store's answer in their text.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from bizllm.errors import RunError, StorageUnavailable
from bizllm.tables.urls import is_local, split

Kind = Literal["denied", "expired", "missing", "no_bucket", "passing", "untrusted", "no_credentials", "other"]

_DENIED = {
    *("AccessDenied", "Forbidden", "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId"),
    *("SignatureDoesNotMatch", "InvalidClientTokenId", "UnauthorizedAccess"),
    *("AuthorizationFailure", "AuthorizationPermissionMismatch", "AuthenticationFailed", "NoAuthenticationInformation"),
    *("InsufficientAccountPermissions", "PERMISSION_DENIED", "UNAUTHENTICATED"),
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound", "FilesystemNotFound"}
_MISSING = {"NoSuchKey", "BlobNotFound", "PathNotFound", "NOT_FOUND"}
_PASSING = {
    *("SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "TooManyRequestsException", "Busy"),
    *("RequestLimitExceeded", "BandwidthLimitExceeded", "InternalError", "InternalFailure", "ServiceUnavailable"),
    *("RequestTimeout", "RequestTimeoutException", "BadDigest", "IncompleteBody", "ServerBusy", "OperationTimedOut"),
    "NoSuchUpload",  # an upload that ended although its answer was lost: begin it again
    *("ConditionalRequestConflict", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"),
}
_ARROW_CODES = {  # names that pyarrow's S3 gives to codes
    "ACCESS_DENIED": "AccessDenied",
    "INVALID_ACCESS_KEY_ID": "InvalidAccessKeyId",
    "SIGNATURE_DOES_NOT_MATCH": "SignatureDoesNotMatch",
    "INVALID_SIGNATURE": "SignatureDoesNotMatch",
    "NO_SUCH_BUCKET": "NoSuchBucket",
    "NO_SUCH_KEY": "NoSuchKey",
    "NO_SUCH_UPLOAD": "NoSuchUpload",
    "SLOW_DOWN": "SlowDown",
    "THROTTLING": "Throttling",
    "INTERNAL_FAILURE": "InternalError",
    "SERVICE_UNAVAILABLE": "ServiceUnavailable",
    "REQUEST_TIMEOUT": "RequestTimeout",
    "REQUEST_EXPIRED": "RequestExpired",
    "NETWORK_CONNECTION": "network",
}
# What S3's operations are called in a policy, where that is another name.
_PERMISSIONS = {
    "HeadObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "ListObjects": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "UploadPart": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "AssumeRole": "sts:AssumeRole",
}
_ARROW_S3 = re.compile(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during (\w+) operation(.*)", re.S)
_ARROW_AZURE = re.compile(r"Azure Error: \[(\w*)\](?:\s+(\d{3}))?")
_ARROW_GCS = re.compile(r"google::cloud::Status\((\w+):")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a store (or the way to it) said. operation: as its protocol calls it, or empty."""

    kind: Kind
    code: str
    operation: str = ""


def refusal(fault: BaseException) -> Refusal | None:
    """What an exception of a store's client means; None for one that no store's client has raised."""
    module = type(fault).__module__.partition(".")[0]
    if module in ("botocore", "boto3", "s3transfer", "azure", "google", "urllib3"):
        return _of_client(fault)
    if isinstance(fault, ConnectionError | TimeoutError):
        return Refusal("passing", "network")
    if isinstance(fault, OSError) or module in ("duckdb", "_duckdb"):  # DuckDB hands on what pyarrow said
        return _of_arrow(str(fault))
    return None


@contextmanager
def explained(url: str, action: str) -> Iterator[None]:
    """Turn a store's refusal into one line that names the bucket (or file) and what was tried.

    A missing file stays FileNotFoundError: what that means is the caller's to say. What may pass is StorageUnavailable.
    """
    try:
        yield
    except (RunError, FileExistsError):
        raise
    except FileNotFoundError as fault:
        if "NO_SUCH_BUCKET" in str(fault) or "NoSuchBucket" in str(fault) or "ContainerNotFound" in str(fault):
            raise RunError(f"can't {action} {url}: no bucket '{split(url)[0]}'") from fault
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from fault
    except Exception as fault:
        if is_local(url):
            if not isinstance(fault, OSError):
                raise
            raise RunError(f"can't {action} {url}: {fault.strerror or _one_line(fault)}") from fault
        said = refusal(fault)
        if said is None:
            raise
        if said.kind == "missing":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from fault
        if said.kind == "other" and isinstance(fault, OSError):
            said = Refusal("other", said.code or fault.strerror or _one_line(fault), said.operation)
        told = f"can't {action} {url}: {_reason(said, split(url)[0])}"
        if said.kind in ("passing", "expired"):
            raise StorageUnavailable(told, stale=said.kind == "expired") from fault
        raise RunError(told) from fault


def named(fault: BaseException) -> RunError | None:
    """A store's refusal that nobody explained on the way, as an error of the run; None for any other exception."""
    said = None if isinstance(fault, RunError | FileNotFoundError) else refusal(fault)
    if said is None or not said.code or said.code == type(fault).__name__:
        return None
    found = re.search(r"in bucket '([^']+)'", str(fault))
    told = f"the object store failed: {_reason(said, found[1] if found else '')}"
    if said.kind in ("passing", "expired"):
        return StorageUnavailable(told, stale=said.kind == "expired")
    return RunError(told)


def _reason(said: Refusal, bucket: str) -> str:
    where = f"bucket '{bucket}': " if bucket else ""
    doing = f" ({said.code} at {said.operation})" if said.operation else f" ({said.code})"
    match said.kind:
        case "denied":
            permission = _permission(said.operation)
            return f"{where}access denied{doing}" + (f"; it takes {permission}" if permission else "")
        case "expired" if said.code == "400":
            return f"{where}refused without a reason, as where credentials have expired{doing}"
        case "expired":
            return f"{where}the credentials have expired{doing}"
        case "no_bucket":
            return f"no bucket '{bucket}'" if bucket else "no such bucket"
        case "untrusted":
            return f"{where}its TLS certificate is not trusted; name the authority's file in `storage.ca_bundle`"
        case "no_credentials":
            return f"{where}no usable credentials{doing}"
        case "passing" if said.code == "network":
            return f"{where}can't connect, or the connection broke{f' at {said.operation}' if said.operation else ''}"
        case _:
            return f"{where}{said.code}{f' at {said.operation}' if said.operation else ''}"


def _permission(operation: str) -> str:
    return _PERMISSIONS.get(operation, f"s3:{operation}" if operation else "")


def _of_client(fault: BaseException) -> Refusal:
    """Of botocore, Azure's and Google's clients: by code, else by status, else by what the exception is called."""
    response = getattr(fault, "response", None)
    answer = response if isinstance(response, dict) else {}
    named_code = getattr(fault, "error_code", None)
    code = str(answer.get("Error", {}).get("Code", "") or getattr(named_code, "value", named_code) or "")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(fault, "status_code", None)
    status = status or getattr(fault, "code", None)
    operation = str(getattr(fault, "operation_name", "") or "")
    if code or isinstance(status, int):
        # An answer to HEAD has no body, and so only a status.
        return _by_code("" if code.isdigit() else code, int(status or (code if code.isdigit() else 0)), operation)
    names = {base.__name__ for base in type(fault).__mro__}
    if "SSLError" in names or "CERTIFICATE_VERIFY_FAILED" in str(fault):
        return Refusal("untrusted", "SSLError")
    if names & {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ClientAuthenticationError"}:
        return Refusal("no_credentials", type(fault).__name__)
    if names & {
        *("HTTPClientError", "ConnectionError", "EndpointConnectionError", "IncompleteReadError", "HTTPError"),
        *("ResponseStreamingError", "CredentialRetrievalError", "ServiceRequestError", "ServiceResponseError"),
        *("IncompleteRead", "RetryError", "ReadTimeoutError", "ChecksumError", "FlexibleChecksumError"),
    }:
        return Refusal("passing", "network")
    return Refusal("other", type(fault).__name__)


def _of_arrow(text: str) -> Refusal:
    if found := _ARROW_S3.search(text):
        name, status, operation, message = found.groups()
        if "CERTIFICATE" in message.upper() or "curlCode: 60" in message:
            return Refusal("untrusted", "SSLError", operation)
        code = _ARROW_CODES.get(name, "")
        if name == "UNKNOWN" and (inside := re.search(r"ExceptionName: (\w+)", message)):
            code = inside[1]
        return _by_code(code, int(status or 0), operation)
    if found := _ARROW_AZURE.search(text):
        return _by_code(found[1], int(found[2] or 0), "")
    if found := _ARROW_GCS.search(text):
        return _by_code(found[1], 0, "")
    return Refusal("other", "")


def _by_code(code: str, status: int, operation: str) -> Refusal:
    shown = code or str(status or "")
    if code in _EXPIRED or (not code and status == 400):
        # Without a body nothing tells an expired token from another bad request: new credentials are worth one try.
        return Refusal("expired", code or "400", operation)
    if code in _DENIED or (not code and status in (401, 403)):
        return Refusal("denied", shown, operation)
    if code in _NO_BUCKET:
        return Refusal("no_bucket", shown, operation)
    if code in _MISSING or (not code and status == 404):
        return Refusal("missing", shown, operation)
    if code == "network" or code in _PASSING or status in (408, 429) or status >= 500:
        return Refusal("passing", shown, operation)
    return Refusal("other", shown, operation)


def _one_line(fault: BaseException) -> str:
    return " ".join(str(fault).split())[:200]
