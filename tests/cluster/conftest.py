"""The folder of these tests' own modules, and an AWS account."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # kustomize, launcher, policies and ray_fields lie beside the tests


@pytest.fixture(scope="module")
def ec2() -> Iterator[Any]:
    """An AWS account of moto's, with the profiles of infra/aws and a key pair."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws import utils as aws_utils

    for cached in (aws_utils.resource_cache, aws_utils.client_cache):
        cached.cache_clear()  # connections of other accounts
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "moto")
        for kind in ("head", "worker"):
            boto3.client("iam", "eu-central-1").create_instance_profile(InstanceProfileName=f"bizllm-{kind}")
        client = boto3.client("ec2", "eu-central-1")
        client.create_key_pair(KeyName="ray")
        yield client
