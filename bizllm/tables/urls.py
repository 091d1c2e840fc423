"""Where files are: URLs taken apart, and a file as it was listed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_S3 = ("s3", "s3a", "s3n")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file as it was listed. etag: what changes when the content does (S3, Azure: ETag; else time and size).

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


def split(url: str) -> tuple[str, str]:
    """(bucket, key) of a URL that names an object or a folder of them; nothing in it is percent-encoded."""
    bucket, _, key = url.partition("://")[2].partition("/")
    return bucket, key


def local_path(url: str) -> str:
    """The absolute path that a local URL names. Only `file:` URLs are percent-encoded; plain paths are as they are."""
    path = unquote(urlsplit(url).path) if url.startswith("file:") else url
    return os.path.abspath(os.path.expanduser(path))


def join(url: str, *parts: str) -> str:
    """`url/part/part`, with single slashes between."""
    base = url if url.endswith("/") else url + "/"
    return base + "/".join(part.strip("/") for part in parts)
