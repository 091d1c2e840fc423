"""bizllm with the rights that its pods have: the image's user, no capability, nothing to write to but the volumes.

What this is not: a container, a kubelet, or a Ray cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kustomize import ROOT, composed, overlay
from policies import Pod, pods

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


def test_a_job_is_planned_sent_and_watched_in_a_pod_as_the_manifests_describe_it(tmp_path: Path) -> None:
    """The pods that bizllm is run in have the same folders to write to; the head's has shared memory besides. No head
    answers here: the command gets as far as that, with the token's file and the job's behind Kubernetes' links."""
    ours = {pod.verb: pod for pod in pods(composed(tmp_path / "parts", *PARTS)) if not pod.ray}
    assert ours.keys() == {"submit", "metrics", "check"}
    assert all(set(writable(pod)) == {"/tmp", "/home/ray"} for pod in ours.values())
    submit = ours["submit"]
    (container,) = submit.spec["containers"]
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "auth_token").write_text("a-token-of-the-test-and-nobody-else-0123456789")
    asks = {
        "submit": [word.replace("bizllm-head-svc", "127.0.0.1") for word in container["args"][1:]],
        "env": {variable["name"]: variable["value"] for variable in container["env"]},
        **{verb: ours[verb].spec["containers"][0]["args"][1:] for verb in ("metrics", "check")},
        "probe": ours["metrics"].spec["containers"][0]["startupProbe"]["httpGet"]["path"],
        "port": ours["metrics"].spec["containers"][0]["ports"][0]["containerPort"],
    }
    inside = Path(__file__).with_name("pod_inside.py")
    isolated = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
    places: list[Path | str] = [ROOT, Path(sys.executable).parent.parent.resolve(), sys.base_prefix]
    places += [tmp_path / "job.yaml", tmp_path / "auth_token"]
    done = subprocess.run(
        [
            *isolated,
            str(inside.with_name("pod.sh")),
            *map(str, places),
            "/opt/bin/python",
            f"/media/{inside.relative_to(ROOT)}",
        ],
        env={
            "WRITABLE": " ".join(writable(submit)),
            "PATH": f"/opt/bin:{os.environ['PATH']}",
            "ASKS": json.dumps(asks),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
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
