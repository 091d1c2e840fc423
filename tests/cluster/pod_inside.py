"""What tests/cluster/test_pod.py runs within its pod: a head, its probes, a night. Prints what it found, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ASKS = json.loads(os.environ.pop("ASKS"))
TOKEN = Path("/etc/bizllm-token/auth_token").read_text()
OURS = {
    "PATH": os.environ["PATH"],
    "HOME": "/home/ray",
    "PYTHONPATH": "/media",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}
IMAGE = ("/", "/etc", "/home", "/media", "/opt", "/root", "/srv", "/usr", "/var/tmp", "/run", "/etc/bizllm")


def status(port: int, path: str) -> int:
    """What a GET without a token is answered with; 0 by nobody."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return 0


def written() -> list[str]:
    """Folders of the image that take a file."""
    found = []
    for folder in IMAGE:
        try:
            Path(folder, "written").touch()
        except OSError:
            continue
        found.append(folder)
    return found


def main() -> None:
    day = Path("/tmp/lake/dt=2026-06-30")
    day.mkdir(parents=True)
    texts = [f"Parcel {number} came late. It was wet. I want my money back." for number in range(40)]
    pq.write_table(pa.table({"ticket_id": list(range(40)), "body": texts}), day / "a.parquet")

    words = [f"--{key}={value}" if value != "true" else f"--{key}" for key, value in ASKS["start"].items()]
    words.append("--labels=" + ",".join(f"{key}={value}" for key, value in ASKS["labels"].items()))
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *words]
    head = subprocess.Popen(start, env=OURS | ASKS["env"] | {"RAY_AUTH_TOKEN": TOKEN}, stdout=sys.stderr)
    ready, *_ = ASKS["probes"]
    until = time.monotonic() + 120
    while status(ready["port"], ready["path"]) != 200:
        assert head.poll() is None and time.monotonic() < until, "the head did not come up"
        time.sleep(0.5)

    sent = [sys.executable, "-m", "bizllm.cli", *ASKS["submit"], "--date", "2026-06-30"]
    done = subprocess.run(sent, env=OURS | ASKS["submit_env"], stdout=sys.stderr)
    assert done.returncode == 0, f"exit status {done.returncode}"
    rows = [sys.executable, "-m", "bizllm.cli", "show", "/etc/bizllm/job.yaml", "--json"]
    shown = subprocess.run(
        [*rows, "--sql", "select count(*) as n from ticket_summary"], env=OURS, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    found = {
        "written": written(),
        "probes": [status(probe["port"], probe["path"]) for probe in ASKS["probes"]],
        "without_token": {"dashboard": status(8265, "/api/jobs/"), "metrics": status(8080, "/metrics")},
        "rows": json.loads(shown.stdout),
    }
    head.terminate()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
