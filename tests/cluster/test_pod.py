"""The head as its pod has it: the image's user, no capability, nothing to write to but the volumes of the manifest.

A night is sent to it as the CronJob does. What this is not: a container, a kubelet, KubeRay. The head takes the work
itself here; in the manifests workers do, whose pods have the same rights and volumes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kustomize import ROOT, overlay
from policies import clusters, pods

INSIDE = Path(__file__).with_name("pod_inside.py")
JOB = """
name: pod
timezone: UTC
warehouse: {path: /tmp/warehouse}
sources:
  tickets: {path: /tmp/lake, key: [ticket_id], partition: dt}
steps:
  ticket_summary: {task: summarize, input: tickets, text: body, max_sentences: 1}
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "ip"))), reason="needs root, unshare, setpriv"
)


@pytest.mark.slow
@pytest.mark.ray
def test_a_night_runs_in_a_pod_as_the_manifests_describe_it(tmp_path: Path) -> None:
    manifests = overlay("standing")
    ((_, cluster),) = clusters(manifests)
    head = next(pod for pod in pods(manifests) if pod.ray == "head")
    (container,) = head.spec["containers"]
    empty = {volume["name"] for volume in head.spec["volumes"] if "emptyDir" in volume}
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in empty]
    (submit,) = next(pod for pod in pods(manifests) if not pod.ray).spec["containers"]

    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "auth_token").write_text("a-token-of-the-test-and-nobody-else-0123456789")
    asks: dict[str, Any] = {
        # KubeRay adds --block and the agent's port; the CPUs are this test's
        "start": cluster["headGroupSpec"]["rayStartParams"] | {"num-cpus": "2", "dashboard-agent-listen-port": "52365"},
        "labels": cluster["headGroupSpec"]["labels"],
        "env": {v["name"]: v["value"] for v in container["env"] if "value" in v},
        "probes": [container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")]
        + [{"path": "/api/local_raylet_healthz", "port": 52365}],
        "submit": [word.replace("bizllm-head-svc", "127.0.0.1") for word in submit["args"][1:]],
        "submit_env": {v["name"]: v["value"] for v in submit["env"]},
    }
    isolated = ["unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
    venv = Path(sys.executable).parent.parent.resolve()
    places = [str(ROOT), str(venv), sys.base_prefix, str(tmp_path / "job.yaml"), str(tmp_path / "auth_token")]
    done = subprocess.run(
        [*isolated, str(INSIDE.with_name("pod.sh")), *places, "/opt/bin/python", f"/media/{INSIDE.relative_to(ROOT)}"],
        env={"WRITABLE": " ".join(writable), "PATH": f"/opt/bin:{os.environ['PATH']}", "ASKS": json.dumps(asks)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{shlex.join(asks['submit'])}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["written"] == [], "the image can be written to"
    assert found["probes"] == [200, 200, 200]
    assert found["without_token"] == {"dashboard": 401, "metrics": 200}, "the network policy guards the metrics"
    assert found["rows"] == 40
