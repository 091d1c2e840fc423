"""The manifests of cluster/kuberay: fields that exist, pods without root, no token or door left open."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema
import pytest
import typer.main
import yaml
from fields import KINDS

from bizllm.cli import app
from bizllm.jobs.job import load_job

FOLDER = Path(__file__).parents[2] / "cluster" / "kuberay"
FILES = ["access.yaml", "cronjob.yaml", "raycluster.yaml", "rayjob.yaml"]


def manifests() -> list[dict[str, Any]]:
    return [manifest for file in FILES for manifest in yaml.safe_load_all((FOLDER / file).read_text())]


def of(kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in manifests() if manifest["kind"] == kind]
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that the manifests describe."""
    for kind, cluster in (("RayCluster", of("RayCluster")["spec"]), ("RayJob", of("RayJob")["spec"]["rayClusterSpec"])):
        yield f"{kind} head", cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{kind} {group['groupName']}", group["template"]["spec"]
    yield "CronJob", of("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_every_file_is_looked_at() -> None:
    others = {"kustomization.yaml", "job.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == {*FILES, *others}
    kustomized = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    named = [*kustomized["resources"], *(file for maps in kustomized["configMapGenerator"] for file in maps["files"])]
    assert all((FOLDER / name).is_file() for name in named)


@pytest.mark.parametrize("manifest", manifests(), ids=lambda m: f"{m['kind']}-{next(iter(m['metadata'].values()))}")
def test_fields_exist_and_hold_what_they_may(manifest: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(KINDS[manifest["kind"]])
    assert [f"{'.'.join(map(str, e.path))}: {e.message[:200]}" for e in validator.iter_errors(manifest)] == []


@pytest.mark.parametrize("broken", ["replica", "securityContexts"])
def test_a_field_that_does_not_exist_is_found(broken: str) -> None:
    manifest = of("RayCluster")
    manifest["spec"]["workerGroupSpecs"][0][broken] = 1
    assert not jsonschema.Draft202012Validator(KINDS["RayCluster"]).is_valid(manifest)


def test_no_pod_runs_as_root() -> None:
    for name, pod in pods():
        user = pod["securityContext"]
        assert user["runAsNonRoot"] is True and user["runAsUser"] == 1000, name  # the user of the image
        assert user["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False and rights["capabilities"] == {"drop": ["ALL"]}, name


def test_every_container_has_bounds_and_every_node_probes() -> None:
    for name, pod in pods():
        for container in pod["containers"]:
            limits = container["resources"]["limits"]
            assert {"cpu", "memory"} <= limits.keys(), name
            if name != "CronJob":
                assert container["resources"]["requests"] == limits, "Ray takes the limits for what there is"
                assert {"readinessProbe", "livenessProbe"} <= container.keys(), name


def test_ray_asks_for_a_token_and_nothing_is_open() -> None:
    for cluster in (of("RayCluster")["spec"], of("RayJob")["spec"]["rayClusterSpec"]):
        assert cluster["authOptions"] == {"mode": "token", "secretName": "bizllm-ray-token"}
        head = cluster["headGroupSpec"]
        assert head["serviceType"] == "ClusterIP" and head["enableIngress"] is False
        assert cluster["rayVersion"] == version("ray")
    policy = of("NetworkPolicy")["spec"]
    (label,) = policy["podSelector"]["matchLabels"].items()
    assert all(label in pod["metadata"]["labels"].items() for pod in _templates())
    within, asking = policy["ingress"]
    assert within["from"] == [{"podSelector": policy["podSelector"]}]
    assert [port["port"] for port in asking["ports"]] == [8265]


def _templates() -> Iterator[dict[str, Any]]:
    for cluster in (of("RayCluster")["spec"], of("RayJob")["spec"]["rayClusterSpec"]):
        yield cluster["headGroupSpec"]["template"]
        yield from (group["template"] for group in cluster["workerGroupSpecs"])


def test_secrets_come_by_reference() -> None:
    for name, pod in pods():
        for container in pod["containers"]:
            for variable in container.get("env", []):
                secret = any(word in variable["name"].lower() for word in ("secret", "token", "password", "key_id"))
                assert secret == ("valueFrom" in variable), (name, variable["name"])
    assert all(manifest["kind"] != "Secret" for manifest in manifests())


def test_all_nodes_ask_silent_ones_alike() -> None:
    """Set for one node alone, Ray takes its questions for abuse and ends its tasks: see tests/jobs/test_nodes.py."""
    asked = []
    for name, pod in pods():
        if name != "CronJob":
            (container,) = pod["containers"]
            asked.append({v["name"]: v["value"] for v in container["env"] if "keepalive" in v["name"]})
    assert len(asked) == 4 and all(settings == asked[0] and len(settings) == 2 for settings in asked)


def test_the_night_is_a_command_that_exists() -> None:
    words = shlex.split(of("RayJob")["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "bizllm.cli"]
    assert words[3] in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    mounts = of("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "volumeMounts"
    ]
    assert any(words[4].startswith(mount["mountPath"] + "/") for mount in mounts)


def test_the_schedule_and_the_job_mean_the_same_night() -> None:
    cron, job = of("CronJob")["spec"], load_job(str(FOLDER / "job.yaml")).job
    assert cron["timeZone"] == job.timezone and ZoneInfo(cron["timeZone"])
    assert cron["concurrencyPolicy"] == "Forbid"
    assert of("RayJob")["metadata"]["generateName"], "a name of its own each night"


def test_the_cron_account_may_make_jobs_and_nothing_else() -> None:
    roles = {m["metadata"]["name"]: m["rules"] for m in manifests() if m["kind"] == "Role"}
    assert roles["bizllm-nightly"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]}]
    accounts = {m["metadata"]["name"] for m in manifests() if m["kind"] == "ServiceAccount"}
    assert {pod["serviceAccountName"] for _, pod in pods()} == accounts
    for _, pod in pods():
        if pod["automountServiceAccountToken"]:
            assert pod["serviceAccountName"] in ("bizllm-nightly", "bizllm-head")
