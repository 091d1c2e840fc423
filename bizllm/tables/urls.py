"""Where files are: URLs taken apart, a file as it was listed, and a store's refusal told in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from bizllm.errors import RunError

_S3 = ("s3", "s3a", "s3n")
_DENIED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled")
_MISSING_KEY = ("NoSuchKey", "NoSuchUpload", "404")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file as it was listed. etag: what changes when the content does (S3: ETag; local: mtime in ns and size).

    modified: seconds since 1970, on the store's clock.
    """

    url: str
    size: int
    etag: str
    modified: float = 0.0


def scheme(url: str) -> str:
    """The URL's scheme in lower case; `file` for a plain path."""
    head, sep, _ = url.partition("://")
    return head.lower() if sep else "file"


def is_local(url: str) -> bool:
    """Whether the URL names a file of this machine only."""
    return scheme(url) == "file"


def is_s3(url: str) -> bool:
    """Whether the URL names an object of S3, or of a store that speaks its protocol."""
    return scheme(url) in _S3


def local_path(url: str) -> str:
    """The absolute path that a local URL names. Only `file:` URLs are percent-encoded; plain paths are as they are."""
    path = unquote(urlsplit(url).path) if url.startswith("file:") else url
    return os.path.abspath(os.path.expanduser(path))


def join(url: str, *parts: str) -> str:
    """`url/part/part`, with single slashes between."""
    base = url if url.endswith("/") else url + "/"
    return base + "/".join(part.strip("/") for part in parts)


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
