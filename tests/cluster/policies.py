"""What a platform team asks of manifests before it lets them in: each policy gives the faults that it finds.

`restricted` is Kubernetes' Pod Security Standard of that name (https://kubernetes.io/docs/concepts/security/
pod-security-standards/), and read-only root filesystems besides.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import typer
import typer.main
from kustomize import Manifest

from bizllm.cli import app

Policy = Callable[[list[Manifest]], Iterator[str]]

TOKEN = "bizllm-ray-token"  # the name of a Secret
VOLUMES = {"configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
UNITS = {"": 1, "m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
OUT = {443, 6443}
WRONG_WORDS: type[Exception] = typer.BadParameter.__bases__[0]  # what a command line with a fault raises


@dataclass(frozen=True)
class Pod:
    """A pod template and where it stands. ray: head, worker or nothing."""

    place: str
    template: Manifest
    ray: str = ""

    @property
    def spec(self) -> Manifest:
        found: Manifest = self.template["spec"]
        return found

    @property
    def labels(self) -> dict[str, str]:
        return self.template["metadata"].get("labels", {})

    @property
    def verb(self) -> str:
        """bizllm's, where the pod runs one."""
        return "" if self.ray else self.spec["containers"][0].get("args", ["", ""])[1]


def clusters(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every description of a Ray cluster, within whatever kind."""
    for manifest in manifests:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", spec) if manifest["kind"] == "RayCronJob" else spec
        if manifest["kind"].startswith("Ray"):
            yield f"{manifest['kind']}/{manifest['metadata']['name']}", spec.get("rayClusterSpec", spec)


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Every pod that the manifests bring about."""
    for place, cluster in clusters(manifests):
        yield Pod(f"{place} head", cluster["headGroupSpec"]["template"], "head")
        for group in cluster["workerGroupSpecs"]:
            yield Pod(f"{place} {group['groupName']}", group["template"], "worker")
    for manifest in manifests:
        if manifest["kind"] == "CronJob":
            yield Pod(f"CronJob/{manifest['metadata']['name']}", manifest["spec"]["jobTemplate"]["spec"]["template"])
        if manifest["kind"] == "Deployment":
            yield Pod(f"Deployment/{manifest['metadata']['name']}", manifest["spec"]["template"])


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, Pod]]:
    """Every container with its pod; the autoscaler too, which KubeRay puts beside the head."""
    for pod in pods(manifests):
        for container in [*pod.spec["containers"], *pod.spec.get("initContainers", [])]:
            yield f"{pod.place}: {container['name']}", container, pod
    heads = {pod.place: pod for pod in pods(manifests) if pod.ray == "head"}
    for place, cluster in clusters(manifests):
        if cluster.get("enableInTreeAutoscaling"):
            yield f"{place} autoscaler", cluster.get("autoscalerOptions", {}), heads[f"{place} head"]


def amount(quantity: str | int) -> float:
    """A quantity of Kubernetes as a number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|)", str(quantity))
    assert found, quantity
    return float(found[1]) * UNITS[found[2]]


def restricted(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        rights = pod.spec.get("securityContext", {})
        if rights.get("runAsNonRoot") is not True or rights.get("runAsUser") != 1000:
            yield f"{pod.place}: does not run as the image's user, 1000"
        if rights.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.place}: no seccomp profile"
        if {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys():
            yield f"{pod.place}: takes a namespace of the host"
        for volume in pod.spec.get("volumes", []):
            if not volume.keys() <= VOLUMES | {"name"}:
                yield f"{pod.place}: volume {volume['name']} is of the host"
    for place, container, pod in containers(manifests):
        rights = container.get("securityContext", {})
        if rights.get("allowPrivilegeEscalation") is not False or rights.get("privileged"):
            yield f"{place}: may gain privileges"
        if rights.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{place}: keeps capabilities"
        if rights.get("readOnlyRootFilesystem") is not True:
            yield f"{place}: may write to its image"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{place}: takes a port of the host"
        empty = {volume["name"] for volume in pod.spec.get("volumes", []) if "emptyDir" in volume}
        written = {mount["mountPath"] for mount in container.get("volumeMounts", []) if mount["name"] in empty}
        for path in {"/tmp", "/home/ray"} - written:  # of a container
            yield f"{place}: {path} cannot be written to"


def bounded(manifests: list[Manifest]) -> Iterator[str]:
    for place, container, pod in containers(manifests):
        asked, most = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
        needed = {"cpu", "memory"} | ({"ephemeral-storage"} if "image" in container else set())
        for lacking in needed - asked.keys() | needed - most.keys():
            yield f"{place}: no bounds of {lacking}"
        if pod.ray and "image" in container:
            if asked != most:
                yield f"{place}: Ray takes the limits for what there is, but {asked} are kept for it"
            for volume in pod.spec["volumes"]:
                if volume.get("emptyDir", {}).get("medium") != "Memory":
                    continue
                if amount(volume["emptyDir"]["sizeLimit"]) > amount(most.get("memory", 0)) / 2:
                    yield f"{place}: shared memory may take more than half of the memory"
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", []):
            if "sizeLimit" not in volume.get("emptyDir", {"sizeLimit": 0}):
                yield f"{pod.place}: volume {volume['name']} without an end"


def pinned(manifests: list[Manifest]) -> Iterator[str]:
    for place, container, _ in containers(manifests):
        image = container.get("image")
        if image and not re.fullmatch(r"[^:@]+(?::\d+)?/[^:@]+:(?!latest$)[\w.-]+(@sha256:\w{64})?", image):
            yield f"{place}: {image} names no version"


def guarded(manifests: list[Manifest]) -> Iterator[str]:
    """Who is asked for the token, and how secrets come in."""
    for place, cluster in clusters(manifests):
        if cluster.get("authOptions") != {"mode": "token", "secretName": TOKEN}:
            yield f"{place}: Ray does not ask for the token of {TOKEN}"
        head = cluster["headGroupSpec"]
        if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
            yield f"{place}: can be reached from outside"
    for pod in pods(manifests):
        for container in pod.spec["containers"]:
            for variable in container.get("env", []):
                name = variable["name"]
                secret = any(word in name.lower() for word in ("secret", "token", "password", "key_id"))
                if secret and "value" in variable and not name.endswith("_PATH"):
                    yield f"{pod.place}: {name} stands in the manifest"
            if pod.ray:
                continue
            mounts = {mount["name"]: mount for mount in container.get("volumeMounts", [])}
            held = {v["name"] for v in pod.spec["volumes"] if v.get("secret", {}).get("secretName") == TOKEN}
            if pod.verb != "submit":
                if held:
                    yield f"{pod.place}: has Ray's token and sends nothing"
                continue
            path = next((v["value"] for v in container["env"] if v["name"] == "RAY_AUTH_TOKEN_PATH"), "")
            if not any(path == f"{mounts[name]['mountPath']}/auth_token" for name in held & mounts.keys()):
                yield f"{pod.place}: has no token"
    for manifest in manifests:
        if manifest["kind"] == "Secret":
            yield f"{manifest['metadata']['name']}: a Secret in a file"


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    among = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in among), "others are not understood here"
    found = all(labels.get(one["key"]) in one["values"] for one in among)
    return found and selector.get("matchLabels", {}).items() <= labels.items()


def walled(manifests: list[Manifest]) -> Iterator[str]:
    """Nothing may talk but what a policy names: it selects somebody, and the ports are there."""
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    nothing = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if not any(policy["spec"] == nothing for policy in policies):
        yield "no policy that denies everything"
    for policy in policies:
        spec, name = policy["spec"], policy["metadata"]["name"]
        selected = [pod for pod in pods(manifests) if matches(spec["podSelector"], pod.labels)]
        for rule in spec.get("ingress", []):
            if not rule.get("from"):
                yield f"{name}: lets everybody in"
            for port in {port["port"] for port in rule.get("ports", [])}:
                ours = {
                    p["containerPort"] for pod in selected for c in pod.spec["containers"] for p in c.get("ports", [])
                }
                if selected and port not in ours:
                    yield f"{name}: nobody listens on {port}"
        for rule in spec.get("egress", []):
            ports = {port["port"] for port in rule.get("ports", [])}
            if not rule.get("to") and not (ports and ports <= OUT):
                yield f"{name}: lets everything out"
    known = {
        m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount" and "annotations" in m["metadata"]
    }
    for pod in pods(manifests):
        reached = [policy for policy in policies if matches(policy["spec"]["podSelector"], pod.labels)]
        names = {policy["metadata"]["name"] for policy in reached}
        if pod.spec.get("serviceAccountName") in known and "bizllm-identity" not in names:
            yield f"{pod.place}: the cloud knows its account, and it cannot ask for its rights"
        if pod.ray and not any(rule for policy in reached for rule in policy["spec"].get("ingress", [])):
            yield f"{pod.place}: the operator cannot reach it"
        if pod.verb == "submit" and not any(
            8265 in {port["port"] for port in rule.get("ports", [])}
            for policy in reached
            for rule in policy["spec"].get("egress", [])
        ):
            yield f"{pod.place}: cannot reach the head"


def kept(manifests: list[Manifest]) -> Iterator[str]:
    """Nobody takes the head away under a night; workers may go, and say so."""
    budgets = [manifest["spec"] for manifest in manifests if manifest["kind"] == "PodDisruptionBudget"]
    for pod in pods(manifests):
        held = any(matches(spec["selector"], pod.labels) and spec["maxUnavailable"] == 0 for spec in budgets)
        if held != (pod.ray == "head"):
            yield f"{pod.place}: {'may not' if held else 'may'} be drained away"
        if pod.ray:
            (container, *_) = pod.spec["containers"]
            path = "/api/healthz" if pod.ray == "head" else "/api/local_raylet_healthz"
            for probe in ("readinessProbe", "livenessProbe"):
                if container.get(probe, {}).get("httpGet") != {"path": path, "port": 52365}:
                    yield f"{pod.place}: no {probe} that asks Ray"
        if pod.ray == "worker":
            said = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            if said[:2] != ["ray", "stop"] or int(said[-1]) >= pod.spec.get("terminationGracePeriodSeconds", 30):
                yield f"{pod.place}: goes without a word"


def least(manifests: list[Manifest]) -> Iterator[str]:
    """Rights within Kubernetes: none of ours. The head alone may speak to it, by the Role that KubeRay makes."""
    for manifest in manifests:
        if manifest["kind"] in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
            yield f"{manifest['kind']}/{manifest['metadata']['name']}: more rights than KubeRay gives"
        if manifest["kind"] == "ServiceAccount" and manifest.get("automountServiceAccountToken") is not False:
            yield f"{manifest['metadata']['name']}: its token goes into every pod"
    for pod in pods(manifests):
        if pod.spec.get("automountServiceAccountToken", True) is not (pod.ray == "head"):
            yield f"{pod.place}: its account's token"
        if pod.spec.get("serviceAccountName") == "bizllm-head" and pod.ray != "head":
            yield f"{pod.place}: has the head's account"


def named(manifests: list[Manifest]) -> Iterator[str]:
    """What is named is there, in one namespace."""
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    (space,) = [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "Namespace"]
    for manifest in manifests:
        if manifest["kind"] != "Namespace" and manifest["metadata"].get("namespace") != space:
            yield f"{manifest['kind']}/{manifest['metadata']['name']}: not in {space}"
    for pod in pods(manifests):
        if ("ServiceAccount", pod.spec.get("serviceAccountName")) not in there:
            yield f"{pod.place}: no account {pod.spec.get('serviceAccountName')}"
        for volume in pod.spec.get("volumes", []):
            if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in there:
                yield f"{pod.place}: no ConfigMap {volume['configMap']['name']}"
    for place, container, pod in containers(manifests):
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{place}: no volume {mount['name']}"
    for pod in (pod for pod in pods(manifests) if pod.verb == "submit"):
        words = [word for container in pod.spec["containers"] for word in container.get("args", [])]
        heads = {f"http://{name}-head-svc:8265" for kind, name in there if kind == "RayCluster"}
        if not heads & set(words):
            yield f"{pod.place}: sends to no head of {heads}"


def commanded(manifests: list[Manifest]) -> Iterator[str]:
    """Commands are bizllm's, as its own command line reads them, and the job file lies where they look."""
    for place, words, mounts in _commands(manifests):
        if words[:3] == ["python", "-m", "bizllm.cli"]:
            words = words[3:]
        elif words[:1] == ["bizllm"]:
            words = words[1:]
        else:
            yield f"{place}: `{shlex.join(words)}` is not bizllm"
            continue
        command = typer.main.get_command(app).commands.get(words[0])  # type: ignore[attr-defined]
        try:
            assert command is not None, f"no verb {words[0]}"
            read = command.make_context(words[0], list(words[1:])).params
            job = read.get("job") or read.get("path") or read["jobs"][0]
        except (AssertionError, WRONG_WORDS) as fault:
            yield f"{place}: {fault}"
            continue
        maps = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
        held = {f"{path}/{file}" for path, name in mounts.items() for file in maps.get(name, {})}
        if job not in held:
            yield f"{place}: no file {job}"


def _commands(manifests: list[Manifest]) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Place, words, and which folder holds which ConfigMap where they run."""
    mounts = {}
    for place, container, pod in containers(manifests):
        maps = {volume["name"]: volume["configMap"]["name"] for volume in pod.spec["volumes"] if "configMap" in volume}
        mounts[pod.place] = {
            mount["mountPath"]: maps[mount["name"]]
            for mount in container.get("volumeMounts", [])
            if mount["name"] in maps
        } or mounts.get(pod.place, {})
        if not pod.ray:
            yield place, container.get("args", []), mounts[pod.place]
    for manifest in manifests:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", spec)
        if "entrypoint" in spec:
            place = f"{manifest['kind']}/{manifest['metadata']['name']}"
            yield place, shlex.split(spec["entrypoint"]), mounts[f"{place} head"]


def accepted(manifests: list[Manifest]) -> Iterator[str]:
    """What KubeRay itself refuses (its validation.go), and what Ray wants to be alike on all nodes."""
    for place, cluster in clusters(manifests):
        if cluster.get("rayVersion") != version("ray"):
            yield f"{place}: not our Ray, {version('ray')}"
        groups = cluster["workerGroupSpecs"]
        if len({group["groupName"] for group in groups}) != len(groups):
            yield f"{place}: two groups of one name"
        v2 = cluster.get("autoscalerOptions", {}).get("version") == "v2" and cluster.get("enableInTreeAutoscaling")
        for group in groups:
            if not 0 <= group["minReplicas"] <= group.get("replicas", 0) <= group["maxReplicas"]:
                yield f"{place} {group['groupName']}: replicas"
            if {"priority", "idleTimeoutSeconds"} & group.keys() and not v2:
                yield f"{place} {group['groupName']}: only autoscaler v2 knows priorities and idle times of groups"
        for part in [cluster["headGroupSpec"], *groups]:
            if {"labels", "resources"} & part["rayStartParams"].keys():
                yield f"{place}: labels stand in rayStartParams"
            if part["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{place}: autoscaler v2 restarts no pods"
            (container,) = part["template"]["spec"]["containers"]
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
            if str(ports.get("metrics")) != part["rayStartParams"].get("metrics-export-port"):
                yield f"{place}: no port of metrics"
    asked = {
        tuple(sorted((v["name"], v["value"]) for v in pod.spec["containers"][0]["env"] if "keepalive" in v["name"]))
        for pod in pods(manifests)
        if pod.ray
    }
    if len(asked) > 1 or any(len(settings) != 2 for settings in asked):
        yield "nodes ask silent ones differently: Ray takes their questions for abuse and ends their tasks"
    for manifest in manifests:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", spec)
        if "entrypoint" not in spec:
            continue
        place = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if len(manifest["metadata"]["name"]) > 47:
            yield f"{place}: a longer name than KubeRay takes"
        if not spec.get("shutdownAfterJobFinishes") or spec.get("ttlSecondsAfterFinished", 0) > 3600:
            yield f"{place}: machines that nobody needs stay for over an hour"
        if not spec.get("activeDeadlineSeconds") or not spec.get("preRunningDeadlineSeconds"):
            yield f"{place}: may wait for ever"


POLICIES: dict[str, Policy] = {
    policy.__name__: policy
    for policy in (restricted, bounded, pinned, guarded, walled, kept, least, named, commanded, accepted)
}


def at(manifest: Any, path: str) -> tuple[Any, Any]:
    """The container of the last key of a dotted path, and that key."""
    *way, last = [int(word) if word.isdigit() else word.replace("~", ".") for word in path.split(".")]
    for key in way:
        manifest = manifest[key]
    return manifest, last
