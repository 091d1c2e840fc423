"""What the roles of infra/aws may do, of all that AWS knows, by IAM's rules; and what the alarms hear."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import boto3
import iam_rules
import pytest
import stacks
from log_patterns import fits
from stacks import JOB, PREFIX

from bizllm.logs import JsonLines

STATES = ("done", "unchanged", "failed", "cancelled")
Outputs = dict[str, dict[str, str]]
Probe = tuple[str, dict[str, str]]

# Access levels of the service authorization reference. kms:Decrypt counts as Write there; with one key, through S3
# alone, it reads.
READS = {
    "s3:getobject": "Read",
    "s3:listbucket": "List",
    "s3:getbucketlocation": "Read",
    "kms:decrypt": "Write",
    "glue:getdatabase": "Read",
    "glue:gettables": "Read",
    "glue:gettable": "Read",
}


@pytest.fixture(scope="module")
def made(own_aws: str) -> Outputs:
    outputs = stacks.create()
    stacks.watch(outputs["watch"])
    return outputs


def probes(made: Outputs) -> Iterator[Probe]:
    """Resources of every kind that the stacks make or that lie beside them, each as various requests name it."""
    warehouse, lake = (f"arn:aws:s3:::{made['storage'][f'{name}Bucket']}" for name in ("Warehouse", "Lake"))
    for prefix in (JOB, f"{JOB}/", f"{JOB}/sales/data/", "", "other/", f"_bizllm/{JOB}/state/"):
        yield warehouse, {"s3:prefix": prefix}
    yield warehouse, {}
    yield lake, {"s3:prefix": ""}
    for key in (f"{JOB}/sales/data/a.parquet", f"{JOB}2/sales/a", "other/sales/a", "a"):
        yield f"{warehouse}/{key}", {}
    for key in (f"{JOB}/state/a", f"{JOB}/locks/a", f"{JOB}/told/a", "other/told/a"):
        yield f"{warehouse}/_bizllm/{key}", {}
    yield f"{lake}/sales/a.parquet", {}
    key = made["storage"]["KeyArn"]
    for named in (key, f"{key[:-1]}x", made["watch"]["TopicArn"]):
        for service in ("s3.us-east-1.amazonaws.com", "s3.eu-west-1.amazonaws.com", "ec2.us-east-1.amazonaws.com", ""):
            yield named, {"kms:ViaService": service} if service else {}
    glue = "arn:aws:glue:us-east-1:123456789012"
    for what in ("catalog", f"database/{JOB}", f"table/{JOB}/sales", "database/other", "table/other/sales"):
        yield f"{glue}:{what}", {}
    group = "arn:aws:logs:us-east-1:123456789012:log-group"
    for name in (f"/{PREFIX}/{JOB}", f"/{PREFIX}/{JOB}:log-stream:head", "/aws/other"):
        yield f"{group}:{name}", {}
    for role in ("head", "worker", "reader", "watcher"):
        yield f"arn:aws:iam::123456789012:role/{PREFIX}-{role}", {"iam:PassedToService": "ec2.amazonaws.com"}
        yield f"arn:aws:iam::123456789012:role/{PREFIX}-{role}", {}
    yield "arn:aws:dynamodb:us-east-1:123456789012:table/locks", {}
    yield "arn:aws:ec2:us-east-1:123456789012:instance/i-1", {}
    yield "*", {"aws:RequestedRegion": "us-east-1"}
    yield "*", {}


def may(policies: list[dict[str, Any]], made: Outputs) -> dict[str, set[str]]:
    """Every action of AWS that is allowed on some probe → the probes."""
    allowed: dict[str, set[str]] = {}
    named = iam_rules.actions(policies)
    for action in iam_rules.every_action():
        if not any(iam_rules.like(pattern, action) for pattern in named):
            continue  # no statement speaks of it, whatever the resource
        for resource, context in probes(made):
            if iam_rules.allows(policies, action, resource, context):
                allowed.setdefault(action, set()).add(resource)
    return allowed


def test_readers_may_read_published_tables_and_nothing_else(made: Outputs) -> None:
    assert len(iam_rules.every_action()) > 10_000
    allowed = may(stacks.policies(f"{PREFIX}-reader"), made)
    assert allowed.keys() == READS.keys()
    warehouse = f"arn:aws:s3:::{made['storage']['WarehouseBucket']}"
    glue = "arn:aws:glue:us-east-1:123456789012"
    tables = {f"{glue}:{what}" for what in ("catalog", f"database/{JOB}", f"table/{JOB}/sales")}
    assert allowed == {
        "s3:getobject": {f"{warehouse}/{JOB}/sales/data/a.parquet"},
        "s3:listbucket": {warehouse},
        "s3:getbucketlocation": {warehouse},
        "kms:decrypt": {made["storage"]["KeyArn"]},
        **dict.fromkeys(("glue:getdatabase", "glue:gettables", "glue:gettable"), tables),
    }


def test_the_watcher_sees_locks_beside_the_tables_and_keeps_what_was_told(made: Outputs) -> None:
    reader, watcher = (may(stacks.policies(f"{PREFIX}-{role}"), made) for role in ("reader", "watcher"))
    files = f"arn:aws:s3:::{made['storage']['WarehouseBucket']}/_bizllm/{JOB}"
    told = {f"{files}/told/a"}
    more = {action: where - reader.get(action, set()) for action, where in watcher.items()}
    assert {action: where for action, where in more.items() if where} == {
        "s3:getobject": {f"{files}/locks/a"} | told,
        "s3:putobject": told,
        "s3:deleteobject": told,
        "kms:generatedatakey": {made["storage"]["KeyArn"]},
    }


def test_readers_list_only_their_job_and_decrypt_only_through_s3(made: Outputs) -> None:
    reader = stacks.policies(f"{PREFIX}-reader")
    warehouse, key = f"arn:aws:s3:::{made['storage']['WarehouseBucket']}", made["storage"]["KeyArn"]
    listed = {
        context.get("s3:prefix")
        for resource, context in probes(made)
        if resource == warehouse and iam_rules.allows(reader, "s3:ListBucket", resource, context)
    }
    assert listed == {JOB, f"{JOB}/", f"{JOB}/sales/data/"}
    through = {
        context.get("kms:ViaService")
        for resource, context in probes(made)
        if resource == key and iam_rules.allows(reader, "kms:Decrypt", resource, context)
    }
    assert through == {"s3.us-east-1.amazonaws.com"}


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        (["s3:PutObject"], "{warehouse}/*"),
        (["s3:Delete*"], "{warehouse}/*"),
        (["glue:UpdateTable"], "*"),
        (["kms:ScheduleKeyDeletion"], "{key}"),
        (["s3:GetObject"], "{warehouse}/*"),  # other jobs' tables, too
        (["iam:*"], "*"),
    ],
)
def test_one_right_more_would_be_seen(made: Outputs, action: Any, resource: str) -> None:
    """The test above fails for each of these."""
    reader = stacks.policies(f"{PREFIX}-reader")
    where = resource.format(
        warehouse=f"arn:aws:s3:::{made['storage']['WarehouseBucket']}", key=made["storage"]["KeyArn"]
    )
    more = {"Statement": [{"Effect": "Allow", "Action": action, "Resource": where}]}
    assert may([*reader, more], made) != may(reader, made)


def test_workers_and_heads_change_only_what_is_theirs(made: Outputs) -> None:
    warehouse, lake = (f"arn:aws:s3:::{made['storage'][f'{name}Bucket']}" for name in ("Warehouse", "Lake"))
    group = f"arn:aws:logs:us-east-1:123456789012:log-group:/{PREFIX}/{JOB}"
    reads = {action for action in READS if action != "kms:decrypt"} | {"s3:listbucketmultipartuploads"}
    reads |= {"s3:listmultipartuploadparts", "logs:describelogstreams"}
    worker = may(stacks.policies(f"{PREFIX}-worker"), made)
    assert worker.keys() - reads == {
        "kms:decrypt",
        "kms:generatedatakey",
        "s3:putobject",
        "s3:abortmultipartupload",
        "logs:createlogstream",
        "logs:putlogevents",
    }
    head = may(stacks.policies(f"{PREFIX}-head"), made)
    assert head.keys() - worker.keys() - {action for action in head if action.startswith("ec2:describe")} == {
        "s3:deleteobject",
        "glue:createdatabase",
        "glue:createtable",
        "glue:updatetable",
        "glue:deletetable",
        "iam:passrole",
    }
    for role in (worker, head):
        assert not [r for action in ("s3:putobject", "s3:deleteobject") for r in role.get(action, ()) if lake in r]
        assert all(resource.startswith(group) for resource in role["logs:putlogevents"])
        assert role["s3:getobject"] >= {f"{lake}/sales/a.parquet", f"{warehouse}/{JOB}/sales/data/a.parquet"}
    assert head["iam:passrole"] == {f"arn:aws:iam::123456789012:role/{PREFIX}-worker"}
    assert not [resource for resource in head["glue:deletetable"] if "other" in resource]


# -- alarms -------------------------------------------------------------------------------------------------------


def line(event: str, **fields: Any) -> str:
    """As the package writes it."""
    record = logging.LogRecord("bizllm", logging.INFO, "", 0, event, None, None)
    record.__dict__ |= {"logger": "bizllm.jobs.run", "fields": fields}
    return JsonLines().format(record)


def test_the_log_group_is_encrypted_and_forgets(made: Outputs) -> None:
    (group,) = boto3.client("logs").describe_log_groups(logGroupNamePrefix=f"/{PREFIX}")["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == (made["watch"]["LogGroup"], 90)
    template = stacks.template("watch")["Resources"]
    assert template["Logs"]["Properties"]["KmsKeyId"] == {"Fn::GetAtt": ["Key", "Arn"]}
    assert template["Logs"]["DeletionPolicy"] == template["Key"]["DeletionPolicy"] == "Retain"
    topic = boto3.client("sns").get_topic_attributes(TopicArn=made["watch"]["TopicArn"])["Attributes"]
    assert topic["KmsMasterKeyId"].startswith("arn:aws:kms:")
    agent = json.loads((stacks.TEMPLATES / "agent.json").read_text())
    (collected,) = agent["logs"]["logs_collected"]["files"]["collect_list"]
    assert collected["log_group_name"] == "/bizllm/retail_nightly", "the templates' default prefix, the docs' job"


def test_filters_count_nights_and_alarms_look_at_what_they_count(made: Outputs) -> None:
    filters = {
        one["filterName"]: one
        for one in boto3.client("logs").describe_metric_filters(logGroupName=made["watch"]["LogGroup"])["metricFilters"]
    }
    nights = {state: line("run_done", job=JOB, date="2026-03-10", state=state, seconds=3.2) for state in STATES}
    others = [
        line("run_done", job="other", date="2026-03-10", state="failed", seconds=3.2),
        line("step_done", job=JOB, run_id="r", step="s", state="failed", rows=1, seconds=1.0),
        "Traceback (most recent call last):",
    ]
    counted = {
        name: {state for state, said in nights.items() if fits(one["filterPattern"], said)}
        for name, one in filters.items()
    }
    assert counted == {"good-nights": {"done", "unchanged"}, "bad-nights": {"failed", "cancelled"}}
    assert not [said for said in others for one in filters.values() if fits(one["filterPattern"], said)]

    alarms = {one["AlarmName"]: one for one in boto3.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert alarms.keys() == {f"{PREFIX}-{JOB}-no-good-night", f"{PREFIX}-{JOB}-bad-night"}
    for alarm, counter in (("no-good-night", "good-nights"), ("bad-night", "bad-nights")):
        (metric,) = filters[counter]["metricTransformations"]
        told = alarms[f"{PREFIX}-{JOB}-{alarm}"]
        assert (told["Namespace"], told["MetricName"]) == (metric["metricNamespace"], metric["metricName"])
        assert told["AlarmActions"] == [made["watch"]["TopicArn"]] and metric["metricValue"] == "1"
    silent = alarms[f"{PREFIX}-{JOB}-no-good-night"]
    assert silent["TreatMissingData"] == "breaching", "a driver that is gone writes nothing"
    assert (silent["Period"] * silent["EvaluationPeriods"], silent["ComparisonOperator"]) == (
        26 * 3600,
        "LessThanThreshold",
    )
    (mail,) = boto3.client("sns").list_subscriptions_by_topic(TopicArn=made["watch"]["TopicArn"])["Subscriptions"]
    assert (mail["Protocol"], mail["Endpoint"]) == ("email", "night@example.com")
