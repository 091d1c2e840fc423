"""Runs that publish to one catalog at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from bizllm import api

NIGHT, BEFORE = "2026-03-10", "2026-03-09"
Job = Callable[..., str]


def test_two_jobs_and_two_dates_of_one_catalog_at_once(job: Job, tmp_path: Path) -> None:
    """Another job, and another date of the same tables: nobody waits for anybody, all are published."""
    path = job(runtime={"num_cpus": 1, "object_store_mb": 100}, steps__segments=None, sources__orders=None)
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(yaml.safe_load(Path(path).read_text()) | {"name": "other"}))
    runs = [(path, NIGHT), (str(other), NIGHT), (path, BEFORE)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bizllm.cli", "run", job_file, "--date", night, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for job_file, night in runs
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert all(json.loads(out)["state"] == "done" for out, _ in said)
    query = "select run_date::varchar as night, count(*) as n from summary group by 1 order by 1"
    rows = {"night": NIGHT, "n": 12}
    assert api.show(path, sql=query).to_pylist() == [{"night": BEFORE, "n": 12}, rows]
    assert api.show(str(other), sql=query).to_pylist() == [rows]
    assert [len(api.runs(one)) for one in (path, str(other))] == [2, 1]
