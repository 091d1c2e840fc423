"""What tests/cluster/test_pod.py runs in the pod of a head: Ray as KubeRay starts it, its probes, a night sent by the
CronJob's command, a worker's goodbye. Prints what it found, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pod_inside import OURS, bizllm, make_lake, written

ASKS = json.loads(os.environ["ASKS"])
RAY = OURS | {
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": Path("/etc/bizllm-token/auth_token").read_text(),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def status(port: int, path: str) -> int:
    """What a GET without a token is answered with, over the pod's address; 0 by nobody."""
    try:
        with urllib.request.urlopen(f"http://10.244.0.7:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0


def started(node: dict[str, Any]) -> tuple[subprocess.Popen[bytes], float]:
    """A node of Ray, and how long it took until its readiness probe was content."""
    began = time.monotonic()
    words = [f"--{key}" if value == "true" else f"--{key}={value}" for key, value in node["start"].items()]
    words.append("--labels=" + ",".join(f"{key}={value}" for key, value in node["labels"].items()))
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *words],
        env=RAY | node["env"],
        stdout=sys.stderr,
    )
    while status(node["ready"]["port"], node["ready"]["path"]) != 200:
        assert process.poll() is None, f"ray start ended with status {process.returncode}"
        assert time.monotonic() < began + 180, "it did not come up"
        time.sleep(0.5)
    return process, time.monotonic() - began


def main() -> None:
    last_night = datetime.now(ZoneInfo("Asia/Shanghai")).date() - timedelta(days=1)
    make_lake(last_night.isoformat())
    (head, head_s), (worker, worker_s) = started(ASKS["head"]), started(ASKS["worker"])
    probes = [status(probe["port"], probe["path"]) for probe in ASKS["probes"]]
    sent = bizllm([*ASKS["submit"], "--json"], ASKS["env"])
    assert sent.returncode == 0, sent.stdout + sent.stderr
    count = "select count(*) n, count(summary) s from ticket_summary"
    shown = bizllm(["show", "/etc/bizllm/job.yaml", "--sql", count, "--json"], {})
    assert shown.returncode == 0, shown.stderr
    found = {
        "written": written(),
        "probes": probes,
        "without_token": {"jobs": status(8265, "/api/jobs/"), "metrics": status(8080, "/metrics")},
        "seconds": [round(head_s, 1), round(worker_s, 1)],
        "night": json.loads(sent.stdout)["state"],
        "rows": json.loads(shown.stdout),
        "nodes_after_the_night": [head.poll(), worker.poll()],
    }
    # Of all nodes whose processes it sees: in a pod the worker's alone, here the head's too. `ray start` itself stays
    # until the kubelet ends it.
    bye = subprocess.run([str(Path(sys.executable).with_name("ray")), *ASKS["bye"][1:]], env=RAY, stdout=sys.stderr)
    asked = [ASKS[node]["ready"] for node in ("worker", "head")]
    found["bye"] = [bye.returncode, *(status(ready["port"], ready["path"]) for ready in asked)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
