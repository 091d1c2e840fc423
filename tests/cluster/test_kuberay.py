"""cluster/kuberay as kustomize builds it: fields that exist, every policy on every overlay; and each check can fail."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kustomize import FOLDER, OVERLAYS, ROOT, Manifest, built, composed, overlay
from policies import POLICIES as OF_ALL
from policies import TOKEN, at, clusters, pods
from ray.util import accelerators
from ray_fields import KINDS
from watching import watched

from bizllm.jobs.job import load_job

POLICIES = {**OF_ALL, "watched": watched}
WATCHING = ("clouds/eks", "modes/nightly", "monitoring", "check")
KUBERNETES = ["1.32", kubernetes_validate.latest_version()]

each_overlay = pytest.mark.parametrize("name", OVERLAYS)


def of(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def unknown(manifests: list[Manifest], kubernetes: str) -> Iterator[str]:
    """Fields that do not exist or hold what they may not: Kubernetes' schemas, and ours for Ray's kinds."""
    for manifest in manifests:
        if manifest["kind"] in KINDS:
            for fault in jsonschema.Draft202012Validator(KINDS[manifest["kind"]]).iter_errors(manifest):
                yield f"{manifest['kind']} {'.'.join(map(str, fault.path))}: {fault.message[:200]}"
        else:
            yield from refused(manifest, kubernetes)
    for pod in pods(manifests):
        alone = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": pod.template}
        yield from (f"{pod.place}: {fault}" for fault in refused(alone, kubernetes))
    for place, cluster in clusters(manifests):
        options = cluster["autoscalerOptions"]
        beside = {
            key: options[key] for key in ("resources", "securityContext", "volumeMounts", "env") if key in options
        }
        pod = {"containers": [{"name": "autoscaler", **beside}]}
        alone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
        yield from (f"{place} autoscaler: {fault}" for fault in refused(alone, kubernetes))


def refused(manifest: Manifest, kubernetes: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)
    except kubernetes_validate.ValidationError as fault:
        yield f"{manifest['kind']} {'.'.join(map(str, fault.path))}: {fault.message[:200]}"


@each_overlay
@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_fields_exist_and_hold_what_they_may(name: str, kubernetes: str) -> None:
    assert list(unknown(overlay(name), kubernetes)) == []


@each_overlay
@pytest.mark.parametrize("policy", POLICIES)
def test_policies_hold(name: str, policy: str) -> None:
    assert list(POLICIES[policy](overlay(name))) == []


@pytest.mark.parametrize(
    ("machines", "mode", "groups"),
    [
        ("gpu spot", "nightly", "cpu spot gpu"),
        ("spot gpu", "standing", "cpu gpu spot"),
        ("dev gpu", "once", "cpu gpu"),
    ],
)
def test_parts_go_together(machines: str, mode: str, groups: str, tmp_path: Path) -> None:
    """What somebody may compose, with all that watches, and either cloud."""
    parts = [*(f"machines/{name}" for name in machines.split()), f"modes/{mode}", "monitoring", "check"]
    for cloud in ("eks", "gke"):
        manifests = composed(tmp_path / cloud, *parts, f"clouds/{cloud}")
        faults = [*unknown(manifests, KUBERNETES[-1]), *(f for policy in POLICIES.values() for f in policy(manifests))]
        assert faults == []
        ((_, cluster),) = clusters(manifests)
        assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == groups.split()


def test_every_file_is_used() -> None:
    """What kustomize does not read is a file that nobody applies."""
    read = set(FOLDER.rglob("kustomization.yaml"))
    for path in list(read):
        said = yaml.safe_load(path.read_text())
        files = [name for name in said.get("resources", []) if name.endswith(".yaml")]
        files += [patch["path"] for patch in said.get("patches", []) if "path" in patch]
        files += [name for maps in said.get("configMapGenerator", []) for name in maps["files"]]
        read |= {path.parent / name for name in files}
    assert read == {path for path in FOLDER.rglob("*") if path.is_file()}


# -- what each overlay is for --------------------------------------------------------------------------------------


def groups(name: str) -> dict[str, Manifest]:
    ((_, cluster),) = clusters(overlay(name))
    return {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def test_each_overlay_runs_what_it_says() -> None:
    kinds = {name: {manifest["kind"] for manifest in overlay(name)} & {"CronJob", *KINDS} for name in OVERLAYS}
    assert kinds == {
        "dev": {"RayCluster", "CronJob"},
        "standing": {"RayCluster", "CronJob"},
        "nightly": {"RayCronJob"},
        "gpu": {"RayCronJob"},
        "spot": {"RayCronJob"},
        "once": {"RayJob"},
    }
    assert of(overlay("dev"), "CronJob")["spec"]["suspend"] is True, "nothing at night"
    assert of(overlay("dev"), "Namespace")["metadata"]["name"] == "bizllm-dev"


def test_gpu_workers_are_found_and_kept_for_those_who_ask() -> None:
    cpu, gpu = groups("gpu")["cpu"]["template"]["spec"], groups("gpu")["gpu"]["template"]["spec"]
    (container,) = gpu["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1" and container["image"].endswith("-gpu")
    assert gpu["nodeSelector"]["bizllm.io/pool"] == "gpu" and gpu["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "tolerations" not in cpu and "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    name = groups("gpu")["gpu"]["labels"]["ray.io/accelerator-type"]
    assert name in {value for key, value in vars(accelerators).items() if key.isupper()}, "a name that Ray gives GPUs"
    lines = [(ROOT / f"requirements/{flavor}.lock").read_text().splitlines() for flavor in ("cpu", "gpu")]
    rays = {line for lock in lines for line in lock if line.startswith("ray==")}
    assert len(rays) == 1, "CPU and GPU images join one cluster"


def test_the_overlay_in_the_docs_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/deploy/kubernetes.md").read_text(), re.M | re.S)
    theirs = tmp_path / "kuberay" / "overlays" / "theirs"
    shutil.copytree(FOLDER, tmp_path / "kuberay")
    theirs.mkdir()
    (theirs / "kustomization.yaml").write_text(block)
    manifests = built(theirs)
    assert [fault for policy in POLICIES.values() for fault in policy(manifests)] == []
    images = {container["image"].partition("/")[0] for pod in pods(manifests) for container in pod.spec["containers"]}
    assert images == {"123456789012.dkr.ecr.eu-central-1.amazonaws.com"}


@pytest.mark.parametrize(
    ("cloud", "key"), [("eks", "eks.amazonaws.com/role-arn"), ("gke", "iam.gke.io/gcp-service-account")]
)
def test_accounts_get_the_roles_of_their_cloud(cloud: str, key: str, tmp_path: Path) -> None:
    manifests = composed(tmp_path / cloud, f"clouds/{cloud}", "modes/nightly")
    accounts = {
        m["metadata"]["name"]: m["metadata"]["annotations"][key] for m in manifests if m["kind"] == "ServiceAccount"
    }
    assert set(accounts) == {"bizllm-head", "bizllm-worker", "bizllm-watcher"}
    assert all(re.search(rf"\b{name}\b", role) for name, role in accounts.items())
    stack = (ROOT / "infra/aws/access.yaml").read_text()
    assert all(f'RoleName: !Sub "${{Prefix}}{name.removeprefix("bizllm")}"' in stack for name in accounts)


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "once"])
def test_the_schedule_and_the_job_mean_the_same_night(name: str, tmp_path: Path) -> None:
    manifests = overlay(name)
    (spec,) = [manifest["spec"] for manifest in manifests if manifest["kind"] in ("CronJob", "RayCronJob")]
    file = tmp_path / "job.yaml"
    file.write_text(of(manifests, "ConfigMap")["data"]["job.yaml"])
    job = load_job(str(file)).job
    assert spec["timeZone"] == job.timezone and ZoneInfo(spec["timeZone"])
    assert job.warehouse.path.startswith("s3://"), "pods come and go"
    if "concurrencyPolicy" in spec:
        assert spec["concurrencyPolicy"] == "Forbid"
    assert ("dev" in job.warehouse.path) == (name == "dev"), "trying things out never writes to the real tables"


def test_the_morning_asks_after_the_night_that_the_job_means(tmp_path: Path) -> None:
    manifests = composed(tmp_path / "watching", *WATCHING)
    check = of(manifests, "CronJob")["spec"]
    assert check["timeZone"] == yaml.safe_load(of(manifests, "ConfigMap")["data"]["job.yaml"])["timezone"]
    night, morning = (
        int(schedule.split()[1]) * 60 + int(schedule.split()[0])
        for schedule in (of(manifests, "RayCronJob")["spec"]["schedule"], check["schedule"])
    )
    assert night < morning


# -- every check can fail ------------------------------------------------------------------------------------------

HEAD = "spec.jobTemplate.rayClusterSpec.headGroupSpec"
WORKER = "spec.jobTemplate.rayClusterSpec.workerGroupSpecs.0"
BOX = "template.spec.containers.0"
BROKEN: list[tuple[str, str, str, str, Any]] = [
    ("restricted", "nightly", "RayCronJob", f"{HEAD}.template.spec.securityContext.runAsNonRoot", False),
    ("restricted", "nightly", "RayCronJob", f"{WORKER}.template.spec.securityContext.seccompProfile", None),
    ("restricted", "nightly", "RayCronJob", f"{WORKER}.{BOX}.securityContext.allowPrivilegeEscalation", None),
    ("restricted", "nightly", "RayCronJob", f"{WORKER}.{BOX}.securityContext.capabilities", {"drop": ["NET_RAW"]}),
    ("restricted", "nightly", "RayCronJob", f"{HEAD}.{BOX}.securityContext.readOnlyRootFilesystem", None),
    ("restricted", "nightly", "RayCronJob", f"{HEAD}.template.spec.hostNetwork", True),
    (
        "restricted",
        "nightly",
        "RayCronJob",
        f"{HEAD}.template.spec.volumes.0",
        {"name": "tmp", "hostPath": {"path": "/"}},
    ),
    ("restricted", "nightly", "RayCronJob", "spec.jobTemplate.rayClusterSpec.autoscalerOptions.securityContext", None),
    ("restricted", "standing", "CronJob", "spec.jobTemplate.spec.template.spec.containers.0.volumeMounts.0", None),
    ("bounded", "nightly", "RayCronJob", f"{WORKER}.{BOX}.resources.limits.memory", None),
    ("bounded", "nightly", "RayCronJob", f"{WORKER}.{BOX}.resources.requests.cpu", "1"),
    ("bounded", "nightly", "RayCronJob", f"{WORKER}.template.spec.volumes.2.emptyDir.sizeLimit", "12Gi"),
    ("bounded", "nightly", "RayCronJob", f"{HEAD}.template.spec.volumes.0.emptyDir", {}),
    ("bounded", "nightly", "RayCronJob", "spec.jobTemplate.rayClusterSpec.autoscalerOptions.resources", None),
    ("pinned", "nightly", "RayCronJob", f"{WORKER}.{BOX}.image", "registry.example.com/bizllm:latest"),
    ("pinned", "standing", "CronJob", "spec.jobTemplate.spec.template.spec.containers.0.image", "r.example.com/bizllm"),
    ("guarded", "nightly", "RayCronJob", "spec.jobTemplate.rayClusterSpec.authOptions", None),
    ("guarded", "nightly", "RayCronJob", "spec.jobTemplate.rayClusterSpec.authOptions.mode", "disabled"),
    ("guarded", "nightly", "RayCronJob", f"{HEAD}.serviceType", "LoadBalancer"),
    ("guarded", "nightly", "RayCronJob", f"{HEAD}.{BOX}.env.0", {"name": "RAY_AUTH_TOKEN", "value": "x"}),
    ("guarded", "standing", "CronJob", "spec.jobTemplate.spec.template.spec.volumes.3", None),
    ("walled", "nightly", "NetworkPolicy:bizllm-nothing", "spec.podSelector", {"matchLabels": {"a": "b"}}),
    ("walled", "nightly", "NetworkPolicy:bizllm-ray", "spec.ingress.1.ports.0.port", 8266),
    ("walled", "nightly", "NetworkPolicy:bizllm-ray", "spec.ingress.1.from", None),
    ("walled", "nightly", "NetworkPolicy:bizllm-out", "spec.egress.1.ports", None),
    ("walled", "nightly", "RayCronJob", f"{HEAD}.template.metadata.labels", {}),
    ("walled", "standing", "CronJob", "spec.jobTemplate.spec.template.metadata.labels", {}),
    ("kept", "nightly", "PodDisruptionBudget", "spec.selector.matchLabels", {"app.kubernetes.io/name": "bizllm"}),
    ("kept", "nightly", "PodDisruptionBudget", "spec.maxUnavailable", 1),
    ("kept", "nightly", "RayCronJob", f"{WORKER}.{BOX}.lifecycle", None),
    ("kept", "nightly", "RayCronJob", f"{HEAD}.{BOX}.livenessProbe.httpGet.port", 8265),
    ("least", "nightly", "ServiceAccount:bizllm-worker", "automountServiceAccountToken", None),
    ("least", "nightly", "RayCronJob", f"{WORKER}.template.spec.automountServiceAccountToken", True),
    ("least", "nightly", "RayCronJob", f"{WORKER}.template.spec.serviceAccountName", "bizllm-head"),
    ("named", "nightly", "RayCronJob", f"{WORKER}.template.spec.serviceAccountName", "default"),
    ("named", "nightly", "ConfigMap", "metadata.name", "bizllm-job-7f9"),
    ("named", "nightly", "RayCronJob", f"{HEAD}.template.spec.volumes.0.name", "temporary"),
    ("named", "nightly", "RayCronJob", "metadata.namespace", "default"),
    ("named", "standing", "RayCluster", "metadata.name", "ray"),
    (
        "commanded",
        "nightly",
        "RayCronJob",
        "spec.jobTemplate.entrypoint",
        "python -m bizllm.cli rnu /etc/bizllm/job.yaml",
    ),
    ("commanded", "nightly", "RayCronJob", "spec.jobTemplate.entrypoint", "python -m bizllm.cli run /etc/job.yaml"),
    ("commanded", "standing", "CronJob", "spec.jobTemplate.spec.template.spec.containers.0.args.5", "--await"),
    ("accepted", "nightly", "RayCronJob", "spec.jobTemplate.rayClusterSpec.rayVersion", "2.9.0"),
    ("accepted", "spot", "RayCronJob", "spec.jobTemplate.rayClusterSpec.autoscalerOptions.version", "v1"),
    ("accepted", "nightly", "RayCronJob", f"{WORKER}.minReplicas", 9),
    ("accepted", "nightly", "RayCronJob", f"{WORKER}.rayStartParams.labels", "a=b"),
    ("accepted", "nightly", "RayCronJob", f"{WORKER}.{BOX}.env.0.value", "1000"),
    ("accepted", "nightly", "RayCronJob", f"{WORKER}.{BOX}.ports", None),
    ("accepted", "nightly", "RayCronJob", "spec.jobTemplate.ttlSecondsAfterFinished", 86400),
    ("restricted", "watching", "Deployment", "spec.template.spec.containers.0.securityContext", {}),
    ("bounded", "watching", "Deployment", "spec.template.spec.containers.0.resources.limits", {}),
    (
        "guarded",
        "watching",
        "Deployment",
        "spec.template.spec.volumes.0",
        {"name": "tmp", "secret": {"secretName": TOKEN}},
    ),
    ("least", "watching", "Deployment", "spec.template.spec.automountServiceAccountToken", None),
    ("commanded", "watching", "Deployment", "spec.template.spec.containers.0.args.2", "/etc/bizllm/jobs.yaml"),
    ("commanded", "watching", "CronJob", "spec.jobTemplate.spec.template.spec.containers.0.args.1", "checks"),
    ("walled", "watching", "NetworkPolicy:bizllm-nights", "spec.ingress.0.from", None),
    ("walled", "watching", "NetworkPolicy:bizllm-identity", "spec.podSelector.matchExpressions.0.values", ["bizllm"]),
    ("walled", "watching", "NetworkPolicy:bizllm-nights", "spec.ingress.0.ports.0.port", 9465),
    ("watched", "watching", "NetworkPolicy:bizllm-nights", "spec.ingress.0.from.0", {"podSelector": {}}),
    ("watched", "watching", "NetworkPolicy:bizllm-nights", "spec.ingress", []),
    ("watched", "watching", "Deployment", "spec.replicas", 2),
    ("watched", "watching", "Deployment", "spec.strategy", {"type": "RollingUpdate"}),
    ("watched", "watching", "Deployment", "spec.template.metadata.labels.app~kubernetes~io/name", "bizllm"),
    ("watched", "watching", "Deployment", "spec.template.spec.serviceAccountName", "bizllm-head"),
    ("watched", "watching", "Deployment", "spec.template.spec.containers.0.args.4", "127.0.0.1"),
    ("watched", "watching", "Deployment", "spec.template.spec.containers.0.args.6", "9465"),
    ("watched", "watching", "Deployment", "spec.template.spec.containers.0.livenessProbe", None),
    ("watched", "watching", "Deployment", "spec.template.spec.containers.0.startupProbe.httpGet.path", "/metrics"),
    ("watched", "watching", "Service", "spec.selector", {"app.kubernetes.io/name": "bizllm"}),
    ("watched", "watching", "Service", "spec.ports.0.targetPort", "metrics"),
    ("watched", "watching", "Service", "metadata.labels.app~kubernetes~io/part-of", "nights"),
    ("watched", "watching", "ServiceMonitor", "spec.jobLabel", "app.kubernetes.io/name"),
    ("watched", "watching", "ServiceMonitor", "spec.endpoints.0.port", "metrics"),
    ("watched", "watching", "CronJob", "spec.jobTemplate.spec.template.spec.serviceAccountName", "bizllm-worker"),
    ("watched", "watching", "CronJob", "spec.jobTemplate.spec.template.spec.containers.0.envFrom", None),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Manifest]]:
    """Manifests to break: of an overlay, or of all that watches beside a nightly cluster."""
    folder = tmp_path_factory.mktemp("parts") / "watching"
    composed(folder, *WATCHING)
    return lambda name: built(folder) if name == "watching" else overlay(name)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_broken_below_was_whole(policy: str, broken: Callable[[str], list[Manifest]]) -> None:
    assert list(POLICIES[policy](broken("watching"))) == []


@pytest.mark.parametrize(("policy", "name", "kind", "path", "value"), BROKEN)
def test_a_policy_finds_what_breaks_it(
    policy: str, name: str, kind: str, path: str, value: Any, broken: Callable[[str], list[Manifest]]
) -> None:
    manifests = broken(name)
    sort, _, title = kind.partition(":")
    (manifest,) = [m for m in manifests if m["kind"] == sort and title in ("", m["metadata"]["name"])]
    holder, last = at(manifest, path)
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    assert list(POLICIES[policy](manifests)), path


def test_every_policy_is_broken_once() -> None:
    assert {policy for policy, *_ in BROKEN} == POLICIES.keys()


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("RayCronJob", f"{WORKER}.replica"),
        ("RayCronJob", f"{WORKER}.template.spec.securityContexts"),
        ("RayCronJob", f"{HEAD}.{BOX}.readinessProbes"),
        ("RayCronJob", "spec.concurrencyPolicy"),
        ("RayCronJob", "spec.jobTemplate.rayClusterSpec.autoscalerOptions.securityContext.privilege"),
        ("PodDisruptionBudget", "spec.minimum"),
        ("Namespace", "spec.quota"),
    ],
)
def test_a_field_that_does_not_exist_is_found(kind: str, path: str) -> None:
    manifests = overlay("nightly")
    manifest = of(manifests, kind)
    manifest.setdefault("spec", {})
    holder, last = at(manifest, path)
    holder[last] = 1
    assert len(list(unknown(manifests, KUBERNETES[-1]))) == 1
