"""The templates of infra/aws: clean, least privilege, and stacks in which a night runs with the head's rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import stacks
from botocore.exceptions import ClientError
from stacks import JOB, PREFIX, TEMPLATES

from tests.listeners import listening

NIGHT = "2026-03-10"
Job = Callable[..., str]
Outputs = dict[str, dict[str, str]]

# The Describe actions of EC2 know no resources; nothing else may be for all.
WITHOUT_RESOURCE = {
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeImages",
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
}


def test_cfn_lint_has_nothing_to_say() -> None:
    asked = [str(Path(sys.executable).parent / "cfn-lint"), *map(str, sorted(TEMPLATES.glob("*.yaml")))]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of a role's policies, with the policy's name."""
    for name, resource in stacks.template("access")["Resources"].items():
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            assert resource["Properties"]["Roles"], name
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                yield name, statement
        if resource["Type"] == "AWS::IAM::Role":
            assert not {"Policies", "ManagedPolicyArns"} & resource["Properties"].keys(), "policies of their own only"


def test_no_role_may_do_all() -> None:
    for name, statement in statements():
        assert statement["Effect"] == "Allow" and isinstance(statement["Action"], list), (name, statement)
        assert not [action for action in statement["Action"] if "*" in action], (name, statement["Sid"])
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        if "*" in resources:
            assert set(statement["Action"]) <= WITHOUT_RESOURCE, (name, statement["Sid"])
            assert statement["Condition"] == {"StringEquals": {"aws:RequestedRegion": {"Ref": "AWS::Region"}}}
        assert "NotAction" not in statement and "NotResource" not in statement


def test_machines_are_started_and_ended_by_their_tag_only() -> None:
    launch = {statement["Sid"]: statement for name, statement in statements() if name == "Launch"}
    for sid in ("StartOwn", "EndOwn"):
        (condition,) = launch[sid]["Condition"]["StringEquals"].items()
        assert condition[0].endswith("/ray-cluster-name") and condition[1] == {"Ref": "ClusterName"}
    assert launch["HandOn"]["Resource"] == {"Fn::GetAtt": ["WorkerRole", "Arn"]}


# -- as created ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(own_aws: str) -> Outputs:
    """Both stacks on a server that speaks AWS's protocol: by CloudFormation, and by hand where it knows no more."""
    outputs = stacks.create()
    stacks.complete(outputs["storage"])
    stacks.watch(outputs["watch"])
    return outputs


@pytest.mark.parametrize("logical", ["Lake", "Warehouse"])
def test_buckets_are_as_the_template_says(made: Outputs, logical: str) -> None:
    store, bucket = boto3.client("s3"), made["storage"][f"{logical}Bucket"]
    assert bucket == f"{PREFIX}-{logical.lower()}-123456789012-us-east-1"
    (rule,) = store.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": made["storage"]["KeyArn"],
    }
    assert store.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    blocked = store.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(blocked.values()) == {True} and len(blocked) == 4
    rules = {rule["ID"]: rule for rule in store.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    assert rules["incomplete-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rules["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}


def test_what_is_written_is_encrypted_with_the_stacks_key_and_versioned(made: Outputs) -> None:
    store, bucket = boto3.client("s3"), made["storage"]["LakeBucket"]
    store.put_object(Bucket=bucket, Key="twice", Body=b"one")
    written = store.put_object(Bucket=bucket, Key="twice", Body=b"two")
    assert (written["ServerSideEncryption"], written["SSEKMSKeyId"]) == ("aws:kms", made["storage"]["KeyArn"])
    assert len(store.list_object_versions(Bucket=bucket, Prefix="twice")["Versions"]) == 2


def test_the_key_turns_and_has_a_name(made: Outputs) -> None:
    keys = boto3.client("kms")
    assert keys.get_key_rotation_status(KeyId=made["storage"]["KeyArn"])["KeyRotationEnabled"]
    assert f"alias/{PREFIX}" in {alias["AliasName"] for alias in keys.list_aliases()["Aliases"]}


@pytest.mark.parametrize("logical", ["Lake", "Warehouse"])
def test_plain_http_is_refused(made: Outputs, logical: str) -> None:
    """The server here is asked by plain HTTP, so that with the bucket's policy in force nobody gets anything."""
    store, bucket = boto3.client("s3"), made["storage"][f"{logical}Bucket"]
    policy = json.loads(stacks.bucket_policy(logical, bucket))
    assert [(s["Effect"], s["Principal"], s["Action"]) for s in policy["Statement"]] == [("Deny", "*", "s3:*")] * 2
    assert policy["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    store.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    try:
        with pytest.raises(ClientError) as refused:
            store.get_object(Bucket=bucket, Key="any")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    finally:
        store.delete_bucket_policy(Bucket=bucket)


def test_profiles_hold_their_roles(made: Outputs) -> None:
    access = boto3.client("iam")
    for kind in ("head", "worker"):
        profile = access.get_instance_profile(InstanceProfileName=f"{PREFIX}-{kind}")["InstanceProfile"]
        assert [role["RoleName"] for role in profile["Roles"]] == [f"{PREFIX}-{kind}"]
        assert profile["Arn"] == made["access"][f"{kind.title()}ProfileArn"]
    roles = {f"{PREFIX}-{kind}" for kind in ("head", "worker", "reader", "watcher")}
    attached = {
        role: {policy["PolicyName"] for policy in access.list_attached_role_policies(RoleName=role)["AttachedPolicies"]}
        for role in roles
    }
    assert {role: len(policies) for role, policies in attached.items()} == {
        f"{PREFIX}-head": 5,
        f"{PREFIX}-worker": 4,
        f"{PREFIX}-reader": 1,
        f"{PREFIX}-watcher": 2,
    }
    (statement,) = access.get_role(RoleName=f"{PREFIX}-reader")["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}


# -- with the roles' rights ---------------------------------------------------------------------------------------


def allowed(role: dict[str, str], call: Callable[[Any], Any]) -> bool:
    """Whether S3 lets somebody with these keys do that."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    keys = {name.lower(): role[name] for name in names}
    try:
        call(boto3.client("s3", **keys))
    except ClientError as refused:
        assert refused.response["Error"]["Code"] in ("AccessDenied", "403"), refused
        return False
    return True


def test_each_role_has_its_rights_and_no_more(made: Outputs, own_aws: str) -> None:
    store, lake, warehouse = boto3.client("s3"), made["storage"]["LakeBucket"], made["storage"]["WarehouseBucket"]
    for bucket, key in ((lake, "sales/part-0"), (warehouse, f"{JOB}/step/part-0"), (warehouse, "other/step/part-0")):
        store.put_object(Bucket=bucket, Key=key, Body=b"rows")
    calls: dict[str, Callable[[Any], Any]] = {
        "read the lake": lambda s3: s3.get_object(Bucket=lake, Key="sales/part-0"),
        "write the lake": lambda s3: s3.put_object(Bucket=lake, Key="sales/part-1", Body=b""),
        "read a table": lambda s3: s3.get_object(Bucket=warehouse, Key=f"{JOB}/step/part-0"),
        "read another job": lambda s3: s3.get_object(Bucket=warehouse, Key="other/step/part-0"),
        "stage a file": lambda s3: s3.put_object(Bucket=warehouse, Key=f"{JOB}/step/part-1", Body=b""),
        "delete a file": lambda s3: s3.delete_object(Bucket=warehouse, Key=f"{JOB}/step/part-1"),
        "open the bucket": lambda s3: s3.delete_public_access_block(Bucket=warehouse),
        "stop versions": lambda s3: s3.put_bucket_versioning(
            Bucket=warehouse, VersioningConfiguration={"Status": "Suspended"}
        ),
    }
    kinds = ("head", "worker", "reader", "watcher")
    roles = {kind: stacks.assume(made["access"][f"{kind.title()}RoleArn"]) for kind in kinds}
    stacks.check_rights(own_aws, on=True)
    try:
        may = {kind: {what for what, call in calls.items() if allowed(keys, call)} for kind, keys in roles.items()}
    finally:
        stacks.check_rights(own_aws, on=False)
    files = {"read the lake", "read a table", "read another job", "stage a file"}
    reads = {"read a table"}
    assert may == {"head": files | {"delete a file"}, "worker": files, "reader": reads, "watcher": reads}


def bizllm(role: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own that has the role's keys and nobody else's."""
    asked = [sys.executable, "-m", "bizllm.cli", *words, "--json"]
    return subprocess.run(asked, env=os.environ | role, capture_output=True, text=True, timeout=200)


def night(head: dict[str, str], path: str) -> dict[str, Any]:
    done = bizllm(head, "run", path, "--date", NIGHT)
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def lake_job(made: Outputs, job: Job, tmp_path: Path, *receivers: dict[str, str], **warehouse: str) -> str:
    """The shop's tickets in the lake's bucket, and a job over them into the warehouse's. receivers: its `notify`."""
    lake, path = made["storage"]["LakeBucket"], made["storage"]["WarehousePath"]
    for file in (tmp_path / "tickets").rglob("*.parquet"):
        boto3.client("s3").upload_file(str(file), lake, str(file.relative_to(tmp_path)))
    return job(
        steps__segments=None,
        sources__orders=None,
        sources__tickets__path=f"s3://{lake}/tickets",
        warehouse={"path": path, **warehouse},
        runtime={"num_cpus": 2, "object_store_mb": 200},
        notify=list(receivers),
    )


def test_a_night_in_the_stacks_buckets_with_the_heads_rights(
    made: Outputs, own_aws: str, job: Job, tmp_path: Path
) -> None:
    """And watched with the watcher's: a reader has not enough for that."""
    path = lake_job(made, job, tmp_path, {"url": "${HOOK}"}, catalog="sql", uri=f"sqlite:///{tmp_path}/catalog.db")
    stacks.allow_batch_deletes(made)
    head, watcher, reader = (stacks.assume(made["access"][f"{kind}RoleArn"]) for kind in ("Head", "Watcher", "Reader"))
    with listening() as pager:
        hook = {"HOOK": pager.url}
        stacks.check_rights(own_aws, on=True)
        try:
            said = night(head | hook, path)
            seen = {kind: bizllm(keys, "metrics", path, "--once") for kind, keys in (("w", watcher), ("r", reader))}
            late = [bizllm(watcher | hook, "check", path) for _ in range(2)]
        finally:
            stacks.check_rights(own_aws, on=False)
    assert seen["w"].returncode == 0, seen["w"].stderr
    assert {"name": "bizllm_missed_nights", "labels": {"job_name": JOB}} in [
        {"name": one["name"], "labels": one["labels"]} for one in json.loads(seen["w"].stdout)
    ]
    assert seen["r"].returncode == 1 and "warehouse_not_read" in seen["r"].stderr
    assert [(done.returncode, json.loads(done.stdout)["sent"]) for done in late] == [(1, [0]), (1, [])], "told once"
    assert [message["event"] for message in pager.got] == ["late"]
    assert [(step["step"], step["state"], step["rows_out"]) for step in said["steps"]] == [("summary", "done", 12)]
    store, bucket = boto3.client("s3"), made["storage"]["WarehouseBucket"]
    files = store.list_objects_v2(Bucket=bucket, Prefix=f"{JOB}/summary/data/")["Contents"]
    for file in files:
        held = store.head_object(Bucket=bucket, Key=file["Key"])
        assert (held["ServerSideEncryption"], held["SSEKMSKeyId"]) == ("aws:kms", made["storage"]["KeyArn"])


def test_a_night_with_the_stacks_glue_database(made: Outputs, job: Job, tmp_path: Path) -> None:
    """Without rights being checked: for Glue the server wants every action allowed on `*`, which no role here has."""
    path = lake_job(made, job, tmp_path, catalog="glue")
    assert night(stacks.assume(made["access"]["HeadRoleArn"]), path)["state"] == "done"
    (table,) = [t for t in boto3.client("glue").get_tables(DatabaseName=JOB)["TableList"] if t["Name"] == "summary"]
    assert table["Parameters"]["table_type"] == "ICEBERG"
    from bizllm import api

    def count() -> int:
        return int(api.show(path, sql="select count(*) n from summary").to_pylist()[0]["n"])

    assert count() == 12
    for lost in boto3.client("glue").get_tables(DatabaseName=JOB)["TableList"]:
        boto3.client("glue").delete_table(DatabaseName=JOB, Name=lost["Name"])
    assert {one["what"] for one in api.recover(path)["tables"]} == {"registered"}
    assert count() == 12
