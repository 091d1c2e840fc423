"""A night of bizllm as Dagster assets (1.x), one for each step, partitioned by day: `dagster dev -f bizllm_nightly.py`.

bizllm stands in an environment of its own (its libraries are not Dagster's). docs/deploy/schedule.md says what each
choice here is for.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

BIZLLM = os.environ.get("BIZLLM", "/opt/bizllm/bin/bizllm")
JOB = Path(os.environ.get("BIZLLM_JOB", "/opt/bizllm/jobs/nightly.yaml"))
ADDRESS = os.environ.get("BIZLLM_ADDRESS")  # of a Ray on this machine's cluster: auto, HOST:PORT; none starts one here
START = "2026-01-01"  # the first night

FAILED, WRONG_INPUT, LOCKED, STOPPED = 1, 2, 3, 130
AGAIN_S = float(os.environ.get("BIZLLM_AGAIN_S", "600"))  # between attempts; each wait doubles

SAID: dict[str, Any] = yaml.safe_load(JOB.read_text())
NAME, STEPS = SAID["name"], SAID["steps"]
NIGHTS = dg.DailyPartitionsDefinition(start_date=START, timezone=SAID.get("timezone", "UTC"))


def table(step: str) -> dg.AssetKey:
    """The asset of a step is its table."""
    return dg.AssetKey([NAME, step])


def reads(settings: dict[str, Any]) -> list[dg.AssetKey]:
    """The earlier steps and the sources that a step's settings name."""
    tables = [settings, *(value for value in settings.values() if isinstance(value, dict))]
    names = [named["input"] for named in tables if "input" in named]
    return [table(name) if name in STEPS else dg.AssetKey([NAME, "sources", name]) for name in dict.fromkeys(names)]


@dg.multi_asset(
    name=NAME,
    specs=[
        dg.AssetSpec(table(step), deps=reads(settings), kinds={"iceberg"}, skippable=True)
        for step, settings in STEPS.items()
    ],
    check_specs=[dg.AssetCheckSpec("rows_accounted_for", asset=table(step)) for step in STEPS],
    partitions_def=NIGHTS,
    retry_policy=dg.RetryPolicy(max_retries=3, delay=AGAIN_S, backoff=dg.Backoff.EXPONENTIAL),
    pool=NAME,  # one night at a time: `dagster instance concurrency set NAME 1`
)
def night(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    """`bizllm run` for the partition's date: what was published is told, and then what failed."""
    command = [BIZLLM, "run", str(JOB), "--date", context.partition_key, "--json"]
    command += ["--address", ADDRESS] if ADDRESS else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate()
        except BaseException:  # Dagster ends this run: so ends the night, and leaves nothing half visible
            process.terminate()
            process.wait()
            raise
    told = json.loads(out) if out.strip() else {}
    for step in told.get("steps", []):
        if step["state"] in ("done", "unchanged"):
            yield materialized(told, step)
    if process.returncode == LOCKED:  # the other run makes this night, and the retry finds it unchanged
        raise dg.RetryRequested(max_retries=6, seconds_to_wait=AGAIN_S)
    if process.returncode:
        why = told.get("error") or "; ".join(f"{s['step']}: {s['error']}" for s in told.get("steps", []) if s["error"])
        raise dg.Failure(
            f"bizllm ended with status {process.returncode}: {why}",
            allow_retries=process.returncode not in (WRONG_INPUT, STOPPED),  # the same input is as wrong again
        )


def materialized(told: dict[str, Any], step: dict[str, Any]) -> dg.MaterializeResult:
    """A step's night with its counts, and the check that each row was answered or rejected."""
    numbers = ("rows_in", "rows_out", "rows_rejected", "rows_reused", "tokens", "seconds")
    return dg.MaterializeResult(
        asset_key=table(step["step"]),
        metadata={
            **{name: step[name] for name in numbers},
            "dagster/row_count": step["records_out"],
            "state": step["state"],
            "run_id": told["run_id"],
            "report": dg.MetadataValue.path(told["report"]) if told.get("report") else None,
        },
        check_results=[
            dg.AssetCheckResult(
                asset_key=table(step["step"]),
                check_name="rows_accounted_for",
                passed=step["rows_in"] == step["rows_out"] + step["rows_rejected"],
                metadata={name: step[name] for name in numbers[:3]},
            )
        ],
    )


nightly = dg.define_asset_job(f"{NAME}_nightly", selection=[night], partitions_def=NIGHTS)
defs = dg.Definitions(
    assets=[night],
    jobs=[nightly],
    schedules=[dg.build_schedule_from_partitioned_job(nightly, hour_of_day=1, minute_of_hour=30)],  # there, not here
)
