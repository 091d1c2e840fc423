"""What tests/cluster/test_pod.py runs in its pod: a plan and the CronJob's command. Prints what it found, as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ASKS = json.loads(os.environ.pop("ASKS"))
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
        [sys.executable, "-m", "bizllm.cli", *words], env=OURS | more, capture_output=True, text=True, timeout=100
    )


def main() -> None:
    day = Path("/tmp/lake/dt=2026-06-30")
    day.mkdir(parents=True)
    texts = [f"Parcel {number} came late. It was wet. I want my money back." for number in range(40)]
    pq.write_table(pa.table({"ticket_id": list(range(40)), "body": texts}), day / "a.parquet")
    planned = bizllm(["plan", "/etc/bizllm/job.yaml", "--date", "2026-06-30", "--json"], {})
    assert planned.returncode == 0, planned.stderr
    (step,) = json.loads(planned.stdout)["steps"]
    sent = bizllm(ASKS["submit"], ASKS["env"])
    rights = re.findall(r"^Cap(?:Prm|Eff|Bnd):\s*(\w+)$", Path("/proc/self/status").read_text(), re.M)
    found = {
        "written": written(),
        "user": os.getuid(),
        "capabilities": sum(int(bits, 16) for bits in rights),
        "rows": step["rows"],
        "submit": [sent.returncode, sent.stderr],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
