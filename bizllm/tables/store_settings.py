"""What a file's `storage:` section says, and how it travels: as environment variables, which Ray's workers inherit.

Clients are built from those alone, so that a job without the section works with the variables that are there.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, PositiveFloat, field_validator

from bizllm.tables.settings import Closed

ROLE = "BIZLLM_S3_ROLE"
KMS_KEY = "BIZLLM_S3_KMS_KEY"
TIMEOUT = "BIZLLM_STORAGE_TIMEOUT_S"
AZURE_ENDPOINT = "BIZLLM_AZURE_ENDPOINT"
ADDRESSES = ("endpoint", "sts_endpoint", "azure_endpoint")
_TIMEOUT_S = 60.0


class StorageSettings(Closed):
    """How object stores are reached. Keys and tokens come from the environment or the usual files, never from here."""

    endpoint: str | None = Field(default=None, description="Address of an S3 store that is not AWS's own.")
    region: str | None = Field(default=None, description="Region of the buckets.")
    profile: str | None = Field(default=None, description="Profile of the AWS configuration files, on every node.")
    role: str | None = Field(default=None, description="ARN of a role that is assumed through STS, and renewed.")
    sts_endpoint: str | None = Field(default=None, description="Address of an STS that is not AWS's own.")
    kms_key: str | None = Field(
        default=None, description="KMS key that the warehouse's bucket must encrypt with by default; checked at start."
    )
    ca_bundle: str | None = Field(
        default=None, description="PEM file of the authorities to trust, on every node. TLS is always verified."
    )
    timeout_s: PositiveFloat | None = Field(
        default=None, description="Seconds without a byte after which a request is tried again; 60."
    )
    azure_account: str | None = Field(default=None, description="Storage account of `abfs://container/path`.")
    azure_endpoint: str | None = Field(default=None, description="Blob address of an account that is not Azure's own.")

    @field_validator(*ADDRESSES)
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("expected an address that starts with https:// or http://")
        return url

    @field_validator("role")
    @classmethod
    def _arn(cls, role: str | None) -> str | None:
        if role is not None and not role.startswith("arn:"):
            raise ValueError("expected an ARN such as arn:aws:iam::123456789012:role/nightly")
        return role

    @field_validator("ca_bundle")
    @classmethod
    def _pem(cls, path: str | None) -> str | None:
        if path is not None and not Path(path).is_file():
            raise ValueError("expected a PEM file that is there")
        return path

    def variables(self) -> dict[str, str]:
        """The environment variables that say the same."""
        said = {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_PROFILE": self.profile,
            ROLE: self.role,
            "AWS_ENDPOINT_URL_STS": self.sts_endpoint,
            KMS_KEY: self.kms_key,
            "AWS_CA_BUNDLE": self.ca_bundle,
            TIMEOUT: None if self.timeout_s is None else str(self.timeout_s),
            "AZURE_STORAGE_ACCOUNT": self.azure_account,
            AZURE_ENDPOINT: self.azure_endpoint,
        }
        return {name: value for name, value in said.items() if value is not None}


def configure(settings: StorageSettings | None) -> None:
    """Set the variables for this process and its children, in the place of what an earlier file has set."""
    for name, before in _before.items():
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
    _before.clear()
    for name, value in (settings.variables() if settings else {}).items():
        _before[name] = os.environ.get(name)
        os.environ[name] = value


def configured() -> dict[str, str]:
    """The variables that `configure` has set or changed: what workers on other machines need."""
    return {name: os.environ[name] for name, before in _before.items() if os.environ.get(name, before) != before}


def timeout_s() -> float:
    """Seconds without a byte after which a request is tried again."""
    return float(os.environ.get(TIMEOUT) or _TIMEOUT_S)


_before: dict[str, str | None] = {}  # what the variables were before `configure`
