"""The stacks of infra/aws, made through CloudFormation's API, and what of them the server at hand leaves out."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from cfnlint.decode import cfn_yaml

TEMPLATES = Path(__file__).parents[2] / "infra" / "aws"
PREFIX, JOB = "acme", "shop"


def create(**parameters: str) -> dict[str, dict[str, str]]:
    """The stacks; stack → its outputs. parameters: of access.yaml."""
    cloud = boto3.client("cloudformation")
    given = {name: {"Prefix": PREFIX, "JobName": JOB} for name in ("storage", "access", "watch")}
    given["access"] |= {"Storage": f"{PREFIX}-storage"} | parameters
    given["watch"] |= {"Email": "night@example.com"}
    outputs = {}
    for name, values in given.items():
        cloud.create_stack(
            StackName=f"{PREFIX}-{name}",
            TemplateBody=(TEMPLATES / f"{name}.yaml").read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        (stack,) = cloud.describe_stacks(StackName=f"{PREFIX}-{name}")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        outputs[name] = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return outputs


def template(name: str) -> dict[str, Any]:
    """A template as plain values; intrinsic functions in their long form."""
    loaded = cfn_yaml.load(str(TEMPLATES / f"{name}.yaml"))
    plain: dict[str, Any] = json.loads(json.dumps(loaded, default=str))
    return plain


def complete(outputs: dict[str, str]) -> None:
    """What moto's CloudFormation leaves out of the storage stack, put as the template says, through the services' APIs:
    versions, public access, ownership, lifecycle, and the Glue database. Bucket policies: `bucket_policy`."""
    store = boto3.client("s3")
    resources = template("storage")["Resources"]
    for logical in ("Lake", "Warehouse"):
        says, bucket = resources[logical]["Properties"], outputs[f"{logical}Bucket"]
        store.put_bucket_versioning(Bucket=bucket, VersioningConfiguration=says["VersioningConfiguration"])
        blocked = says["PublicAccessBlockConfiguration"]
        store.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=blocked)
        store.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=says["OwnershipControls"])
        rules = [_rule(rule) for rule in says["LifecycleConfiguration"]["Rules"]]
        store.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    database = resources["Database"]["Properties"]["DatabaseInput"]
    assert database["Name"] == {"Ref": "JobName"}
    place = f"s3://{outputs['WarehouseBucket']}/{JOB}"
    boto3.client("glue").create_database(DatabaseInput={"Name": JOB, "LocationUri": place})


def watch(outputs: dict[str, str]) -> None:
    """What moto's CloudFormation leaves out of the watch stack, put as the template says: metric filters, alarms, the
    subscription, and the log group's retention and key."""
    resources = template("watch")["Resources"]
    logs, clock = boto3.client("logs"), boto3.client("cloudwatch")
    for resource in resources.values():
        says = _resolved(resource["Properties"], outputs)
        match resource["Type"]:
            case "AWS::Logs::LogGroup":
                days = template("watch")["Parameters"]["RetentionDays"]["Default"]
                logs.put_retention_policy(logGroupName=says["LogGroupName"], retentionInDays=days)
            case "AWS::Logs::MetricFilter":
                (counts,) = says["MetricTransformations"]
                logs.put_metric_filter(
                    logGroupName=says["LogGroupName"],
                    filterName=says["FilterName"],
                    filterPattern=says["FilterPattern"],
                    metricTransformations=[{key[0].lower() + key[1:]: value for key, value in counts.items()}],
                )
            case "AWS::CloudWatch::Alarm":
                clock.put_metric_alarm(**says)
            case "AWS::SNS::Subscription":
                boto3.client("sns").subscribe(**says)


def _resolved(value: Any, outputs: dict[str, str]) -> Any:
    """A template's value with the stack's names in it."""
    names = {"Prefix": PREFIX, "JobName": JOB, "Logs": outputs["LogGroup"], "Told": outputs["TopicArn"]}
    names |= {"Email": "night@example.com", "AWS::Region": "us-east-1", "AWS::AccountId": "123456789012"}
    names |= {"AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com"}
    parameters = template("watch")["Parameters"]
    names |= {name: said["Default"] for name, said in parameters.items() if said["Type"] == "Number"}
    if isinstance(value, list):
        return [_resolved(one, outputs) for one in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"Ref": name}:
            return names[name]
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: str(names[found[1]]), text)
        case {"Fn::GetAtt": [_, attribute]}:
            return attribute  # of the key: held against the stack's own
    return {key: _resolved(one, outputs) for key, one in value.items()}


def policies(role: str) -> list[dict[str, Any]]:
    """The documents of a role's policies as IAM has them, nothing left to be filled in."""
    access = boto3.client("iam")
    assert not access.list_role_policies(RoleName=role)["PolicyNames"]
    documents = []
    for policy in access.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        version = access.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"]
        got = access.get_policy_version(PolicyArn=policy["PolicyArn"], VersionId=version)["PolicyVersion"]
        documents.append(got["Document"])
    return documents


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """A lifecycle rule of CloudFormation as S3 itself writes it."""
    said = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": ""}}
    if upload := rule.get("AbortIncompleteMultipartUpload"):
        said["AbortIncompleteMultipartUpload"] = upload
    if "NoncurrentVersionExpiration" in rule:
        default = int(template("storage")["Parameters"]["NoncurrentDays"]["Default"])
        said["NoncurrentVersionExpiration"] = {"NoncurrentDays": default}
        said["Expiration"] = {"ExpiredObjectDeleteMarker": rule["ExpiredObjectDeleteMarker"]}
    return said


def bucket_policy(logical: str, bucket: str) -> str:
    """The bucket's policy as the template says, with the names that the stack gave."""
    document = template("storage")["Resources"][f"{logical}Policy"]["Properties"]["PolicyDocument"]
    arn = f"arn:aws:s3:::{bucket}"
    text = json.dumps(document)
    text = text.replace(json.dumps({"Fn::GetAtt": [logical, "Arn"]}), json.dumps(arn))
    text = text.replace(json.dumps({"Fn::Sub": f"${{{logical}.Arn}}/*"}), json.dumps(f"{arn}/*"))
    assert "Fn::" not in text, text
    return text


def check_rights(endpoint: str, on: bool) -> None:
    """Have the server hold every request against the caller's policies (actions and resources, not conditions)."""
    asked = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=b"0" if on else b"inf", method="POST")
    asked.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(asked, timeout=10).close()


def assume(role: str) -> dict[str, str]:
    """Environment variables of somebody who has taken the role."""
    keys = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="night")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }


def allow_batch_deletes(outputs: dict[str, dict[str, str]]) -> None:
    """Let the head delete "the bucket": of a request that deletes several objects moto asks that right, where AWS asks
    for the right on each object, which the template gives."""
    statement = {
        "Effect": "Allow",
        "Action": ["s3:DeleteObject"],
        "Resource": [f"arn:aws:s3:::{outputs['storage']['WarehouseBucket']}"],
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    boto3.client("iam").put_role_policy(RoleName=f"{PREFIX}-head", PolicyName="batch", PolicyDocument=document)
