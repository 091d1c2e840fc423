"""bizllm with the rights that its pods have: the image's user, no capability, nothing to write to but the volumes.

What this is not: a container, a kubelet, KubeRay.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kustomize import ROOT, Manifest, composed, overlay
from policies import Pod, clusters, pods

JOB = """
name: pod
timezone: UTC
warehouse: {path: /tmp/warehouse}
sources:
  tickets: {path: /tmp/lake, key: [ticket_id], partition: dt}
steps:
  ticket_summary: {task: summarize, input: tickets, text: body, max_sentences: 1}
"""

PARTS = ("modes/standing", "monitoring", "check")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "ip"))), reason="needs root, unshare, setpriv"
)


def writable(pod: Pod) -> list[str]:
    """Where the pod's one container may write."""
    (container,) = pod.spec["containers"]
    empty = {volume["name"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
    return [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in empty]


def plain_env(container: Manifest) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def inside(script: str, pod: Pod, asks: dict[str, Any], folder: Path, timeout_s: float = 120) -> dict[str, Any]:
    """What a script of this folder found in such a pod."""
    (folder / "job.yaml").write_text(JOB)
    (folder / "auth_token").write_text("a-token-of-the-test-and-nobody-else-0123456789")
    here = Path(__file__).parent
    isolated = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
    places: list[Path | str] = [ROOT, Path(sys.executable).parent.parent.resolve(), sys.base_prefix]
    places += [folder / "job.yaml", folder / "auth_token"]
    command = [*isolated, here / "pod.sh", *places, "/opt/bin/python", f"/media/{here.relative_to(ROOT)}/{script}"]
    done = subprocess.run(
        [str(word) for word in command],
        env={
            "WRITABLE": " ".join(writable(pod)),
            "PATH": f"/opt/bin:{os.environ['PATH']}",
            "ASKS": json.dumps(asks),
        },
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_job_is_planned_sent_and_watched_in_a_pod_as_the_manifests_describe_it(tmp_path: Path) -> None:
    """The pods that bizllm is run in have the same folders to write to; the head's has shared memory besides. No head
    answers here: the command gets as far as that, with the token's file and the job's behind Kubernetes' links."""
    ours = {pod.verb: pod for pod in pods(composed(tmp_path / "parts", *PARTS)) if not pod.ray}
    assert ours.keys() == {"submit", "metrics", "check"}
    assert all(set(writable(pod)) == {"/tmp", "/home/ray"} for pod in ours.values())
    (container,) = ours["submit"].spec["containers"]
    asks = {
        "submit": container["args"][1:],
        "env": plain_env(container),
        **{verb: ours[verb].spec["containers"][0]["args"][1:] for verb in ("metrics", "check")},
        "probe": ours["metrics"].spec["containers"][0]["startupProbe"]["httpGet"]["path"],
        "port": ours["metrics"].spec["containers"][0]["ports"][0]["containerPort"],
    }
    found = inside("pod_inside.py", ours["submit"], asks, tmp_path)
    assert found["written"] == [], "the image can be written to"
    assert found["user"] == 1000 and found["capabilities"] == 0
    assert found["rows"] == 40
    assert found["submit"][0] == 2 and "no Ray cluster answers there" in found["submit"][1]
    assert found["probed"] == [200, "ok\n"]
    assert 'bizllm_exporter_job_up{job_name="pod"} 1.0' in found["scraped"].splitlines()
    assert found["ended"] == 0
    assert found["check"][0] == 1 and "there is no good night yet" in found["check"][1]


def test_what_the_submitting_pod_may_write_to_the_head_may_too() -> None:
    for name in ("standing", "nightly", "gpu", "spot"):
        manifests = overlay(name)
        heads = [set(writable(pod)) for pod in pods(manifests) if pod.ray]
        assert heads and all(folders == {"/tmp", "/home/ray", "/dev/shm"} for folders in heads)
        assert all(set(writable(pod)) == {"/tmp", "/home/ray"} for pod in pods(manifests) if not pod.ray)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_night_is_sent_to_a_head_and_a_worker_as_the_manifests_describe_them(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Both in one pod here, so that the worker's ports are other ones, and its processes are the head's neighbours."""
    manifests = overlay("standing")
    ((_, cluster),) = clusters(manifests)
    head, worker, submit = pods(manifests)
    parts = (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0])
    by_kuberay = (
        {"head": "true", "dashboard-agent-listen-port": "52365"},
        {"address": "10.244.0.7:6379", "dashboard-agent-listen-port": "52366", "metrics-export-port": "8081"},
    )
    # Of this test: less memory, and folders of the worker's own, as a pod has them. Ray's nodes unpack a job's folder
    # anew, and would pull it away from under each other.
    few: tuple[dict[str, str], dict[str, str]] = (
        {"object-store-memory": "100000000"},
        {"object-store-memory": "100000000", "num-cpus": "2", "temp-dir": "/tmp/worker"},
    )
    nodes: list[dict[str, Any]] = []
    for pod, part, own, small in zip((head, worker), parts, by_kuberay, few, strict=True):
        (container,) = pod.spec["containers"]
        port = own["dashboard-agent-listen-port"]
        ready = container["readinessProbe"]["httpGet"] | {"port": int(port)}
        start = part["rayStartParams"] | own | small
        nodes.append({"start": start, "labels": part["labels"], "env": plain_env(container), "ready": ready})
    (sends,) = submit.spec["containers"]
    asks = {
        "head": nodes[0],
        "worker": nodes[1],
        "probes": [
            *(head.spec["containers"][0][probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe")),
            worker.spec["containers"][0]["livenessProbe"]["httpGet"] | {"port": 52366},
        ],
        "submit": sends["args"][1:],
        "env": plain_env(sends),
        "bye": worker.spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"],
    }
    found = inside("pod_head.py", head, asks, tmp_path, timeout_s=540)
    record_property("start_s", found["seconds"])
    assert found["written"] == [], "the image can be written to"
    assert found["probes"] == [200, 200, 200]
    assert found["without_token"] == {"jobs": 401, "metrics": 200}, "the network policy guards the metrics"
    assert (found["night"], found["rows"]) == ("done", [{"n": 40, "s": 40}])
    assert found["nodes_after_the_night"] == [None, None] and found["bye"] == [0, 0, 0]
