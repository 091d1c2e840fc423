"""What tests/cluster/test_pod.py runs in its pod: a plan and the pods' own commands. Prints what it found, as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ASKS = json.loads(os.environ["ASKS"])
OURS = {"PATH": os.environ["PATH"], "HOME": "/home/ray", "PYTHONPATH": "/media", "HF_HUB_OFFLINE": "1"}
IMAGE = ("/", "/etc", "/home", "/media", "/opt", "/srv", "/usr", "/var/tmp", "/run", "/etc/bizllm", "/etc/bizllm-token")


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


def bizllm(words: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bizllm.cli", *words], env=OURS | more, capture_output=True, text=True, timeout=300
    )


def watched() -> dict[str, Any]:
    """The exporter, asked over the pod's own address, as the kubelet and Prometheus do; then told to end."""
    server = subprocess.Popen([sys.executable, "-m", "bizllm.cli", *ASKS["metrics"]], env=OURS)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                probed = asked(ASKS["probe"])
                break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.2)
        scraped = asked("/metrics")[1]
        server.terminate()
        return {"probed": probed, "scraped": scraped, "ended": server.wait(20)}
    finally:
        server.kill()


def asked(path: str) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://10.244.0.7:{ASKS['port']}{path}", timeout=5) as answer:
        return answer.status, answer.read().decode()


def make_lake(night: str) -> None:
    day = Path(f"/tmp/lake/dt={night}")
    day.mkdir(parents=True)
    texts = [f"Parcel {number} came late. It was wet. I want my money back." for number in range(40)]
    pq.write_table(pa.table({"ticket_id": list(range(40)), "body": texts}), day / "a.parquet")


def main() -> None:
    make_lake("2026-06-30")
    planned = bizllm(["plan", "/etc/bizllm/job.yaml", "--date", "2026-06-30", "--json"], {})
    assert planned.returncode == 0, planned.stderr
    (step,) = json.loads(planned.stdout)["steps"]
    check = bizllm(ASKS["check"], {})
    sent = bizllm(ASKS["submit"], ASKS["env"])
    rights = re.findall(r"^Cap(?:Prm|Eff|Bnd):\s*(\w+)$", Path("/proc/self/status").read_text(), re.M)
    found = {
        "written": written(),
        "user": os.getuid(),
        "capabilities": sum(int(bits, 16) for bits in rights),
        "rows": step["rows"],
        "submit": [sent.returncode, sent.stderr],
        "check": [check.returncode, check.stdout],
        **watched(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
