"""What a store has of S3 beyond plain reading and writing, as a table: `features.py ENDPOINT`."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

CALLERS = 16


def features(endpoint: str) -> dict[str, str]:
    """Feature → what came of it."""
    given: dict[str, Any] = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    given |= {"endpoint_url": endpoint, "region_name": "us-east-1"}
    given |= {"config": Config(retries={"total_max_attempts": 1}, max_pool_connections=CALLERS)}
    store, bucket = boto3.client("s3", **given), f"features-{uuid.uuid4().hex[:8]}"
    store.create_bucket(Bucket=bucket)

    def create(number: int) -> bool:
        try:
            store.put_object(Bucket=bucket, Key="lock", Body=str(number).encode(), IfNoneMatch="*")
            return True
        except ClientError as fault:
            assert fault.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412), fault
            return False

    def exclusive() -> str:
        with ThreadPoolExecutor(CALLERS) as pool:
            won = sum(pool.map(create, range(CALLERS)))
        return f"{won} of {CALLERS} callers at once wrote"

    def encryption() -> str:
        answer = store.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
        return f"answers, {len(answer.get('Rules', []))} rules"

    def checksums() -> str:
        store.put_object(Bucket=bucket, Key="sum", Body=b"1", ChecksumAlgorithm="SHA256")
        return "takes SHA256"

    def versions() -> str:
        store.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return "can be switched on"

    def role() -> str:
        sts = boto3.client("sts", **given)
        sts.assume_role(RoleArn="arn:aws:iam:::role/tests", RoleSessionName="tests")
        return "gives keys"

    tried: dict[str, Callable[[], str]] = {
        "`PutObject` with `If-None-Match: *`": exclusive,
        "`GetBucketEncryption`": encryption,
        "newer checksums": checksums,
        "versions": versions,
        "`sts:AssumeRole`": role,
    }
    return {name: _came_of(call) for name, call in tried.items()}


def _came_of(call: Callable[[], str]) -> str:
    try:
        return call()
    except ClientError as fault:
        return f"refused: {fault.response.get('Error', {}).get('Code', 'without a reason')}"
    except (BotoCoreError, AssertionError) as fault:
        return type(fault).__name__


if __name__ == "__main__":
    print("\n| what of S3 | came of it |\n|---|---|")
    for name, outcome in features(sys.argv[1]).items():
        print(f"| {name} | {outcome} |")
