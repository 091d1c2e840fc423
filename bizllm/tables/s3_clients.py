"""How clients of S3 are built: boto3's and pyarrow's, with one region, one identity and one authority for both.

pyarrow can assume a role by itself, but asks AWS's own STS for it whatever endpoint is set, and it knows fewer kinds of
profiles. So boto3 finds the keys of a role or a profile, and pyarrow is handed them; they live an hour, hence a
filesystem that looks for newer ones at each call (`_Renewed`). Keys in variables and those of a machine pyarrow finds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from bizllm.errors import RunError
from bizllm.tables.retry import REQUEST_ATTEMPTS
from bizllm.tables.store_settings import KMS_KEY, ROLE, timeout_s

if TYPE_CHECKING:
    from botocore.session import Session
    from types_boto3_s3 import S3Client

_CONNECT_S = 10.0
_SESSION_NAME = "bizllm"


@dataclass(frozen=True, slots=True)
class Environment:
    """What decides how a client is built; the key of the caches."""

    endpoint: str
    region: str
    identity: str
    profile: str
    role: str
    sts_endpoint: str
    kms_key: str
    ca_bundle: str
    timeout_s: float


def environment() -> Environment:
    """As the variables say now."""
    said = os.environ.get
    return Environment(
        endpoint=said("AWS_ENDPOINT_URL_S3") or said("AWS_ENDPOINT_URL") or "",
        region=said("AWS_REGION") or said("AWS_DEFAULT_REGION") or "",
        identity="@".join(said(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN")),
        profile=said("AWS_PROFILE", ""),
        role=said(ROLE, ""),
        sts_endpoint=said("AWS_ENDPOINT_URL_STS") or said("AWS_ENDPOINT_URL") or "",
        kms_key=said(KMS_KEY, ""),
        ca_bundle=said("AWS_CA_BUNDLE", ""),
        timeout_s=timeout_s(),
    )


def client() -> S3Client:
    """boto3's client."""
    return _client(environment())


def filesystem_of(bucket: str) -> fs.FileSystem:
    """pyarrow's filesystem for a bucket."""
    given = environment()
    return fs.PyFileSystem(_Renewed(bucket)) if given.role or given.profile else _filesystem(bucket, given, None)


def forget() -> None:
    """Build all clients anew at their next use, so that credentials are read again."""
    for cache in (_client, _session, _filesystem):
        cache.cache_clear()


@lru_cache(maxsize=8)
def _session(given: Environment) -> Session:
    """A botocore session of its own: credentials as the usual chain finds them, or those of the role."""
    from botocore.session import get_session

    session = get_session()
    if given.role:
        from botocore.credentials import DeferredRefreshableCredentials, create_assume_role_refresher

        region, trusted = given.region or "us-east-1", given.ca_bundle or True
        sts = get_session().create_client("sts", region_name=region, verify=trusted)
        asked = {"RoleArn": given.role, "RoleSessionName": _SESSION_NAME}
        refresh = create_assume_role_refresher(sts, asked)
        assumed: Any = DeferredRefreshableCredentials(refresh, "assume-role")
        setattr(session, "_credentials", assumed)  # noqa: B010 - it has no other way in
    return session


@lru_cache(maxsize=8)
def _client(given: Environment) -> S3Client:
    import boto3
    from botocore.config import Config

    style: Any = {"addressing_style": "path"} if given.endpoint else {}
    return boto3.Session(botocore_session=_session(given)).client(
        "s3",
        endpoint_url=given.endpoint or None,
        region_name=given.region or None,
        verify=given.ca_bundle or True,
        config=Config(
            s3=style,
            max_pool_connections=32,
            connect_timeout=_CONNECT_S,
            read_timeout=given.timeout_s,
            retries={"mode": "standard", "total_max_attempts": REQUEST_ATTEMPTS},
            # Stores that speak S3 but are not AWS refuse the newer default checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@lru_cache(maxsize=32)
def _filesystem(bucket: str, given: Environment, keys: tuple[str, str, str | None] | None) -> fs.FileSystem:
    options: dict[str, Any] = {
        "connect_timeout": _CONNECT_S,
        "request_timeout": given.timeout_s,  # without a byte
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=REQUEST_ATTEMPTS),
    }
    if given.region:
        options["region"] = given.region
    elif not given.endpoint:
        options["region"] = fs.resolve_s3_region(bucket)
    if given.endpoint:
        # As for boto3 above; here an option's only way in. Ceph 16 has no other upload.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        endpoint = urlsplit(given.endpoint)
        options |= {"endpoint_override": endpoint.netloc + endpoint.path.rstrip("/"), "scheme": endpoint.scheme}
    if given.ca_bundle:
        options["tls_ca_file_path"] = given.ca_bundle
    if keys is not None:
        options |= dict(zip(("access_key", "secret_key", "session_token"), keys, strict=True))
    return fs.S3FileSystem(**options)


class _Renewed(fs.FileSystemHandler):
    """A bucket's filesystem with the keys that boto3 has, the newest at each call: a role's change every 45 minutes."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket

    def _now(self) -> fs.FileSystem:
        given = environment()
        credentials = _session(given).get_credentials()
        if credentials is None:
            raise RunError(f"s3://{self.bucket}: the profile '{given.profile}' has no credentials")
        keys = credentials.get_frozen_credentials()
        return _filesystem(self.bucket, given, (keys.access_key, keys.secret_key, keys.token))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Renewed) and other.bucket == self.bucket

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "s3"

    def normalize_path(self, path: str) -> str:
        return self._now().normalize_path(path)  # type: ignore[no-any-return]

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return self._now().get_file_info(paths)  # type: ignore[no-any-return]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        return self._now().get_file_info(selector)  # type: ignore[no-any-return]

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self._now().open_input_stream(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        return self._now().open_input_file(path)

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._now().open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._now().open_append_stream(path, metadata=metadata)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._now().create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._now().delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._now().delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError("a bucket is never emptied")

    def delete_file(self, path: str) -> None:
        self._now().delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._now().move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._now().copy_file(src, dest)
