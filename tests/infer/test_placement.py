"""Stages on a real cluster of three nodes: each on the nodes of its pool, whatever the way; and what finds no room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from bizllm.infer.rows import AnswerRows
from bizllm.infer.work import StepContext

CLUSTER = Path(__file__).with_name("cluster_of_pools.py")
JOB: dict[str, Any] = {
    "name": "shop",
    "warehouse": {"path": "wh"},
    "sources": {"tickets": {"path": "tickets.parquet", "key": ["id"]}},
    "models": {"writer": {"endpoint": "https://llm.internal/v1", "model": "m"}},
    "steps": {
        "summary": {"task": "summarize", "input": "tickets", "text": "body"},
        "vectors": {"task": "embed", "input": "tickets", "text": "body", "model": "builtin:minilm"},
        "notes": {"task": "summarize", "input": "tickets", "text": "body", "generator": "writer"},
    },
    "runtime": {
        "unit_rows": 40,
        "pools": {"cpu": {"labels": {"tier": "cpu"}, "capacity": "spot"}, "gpu": {"accelerator": "H100", "workers": 4}},
        "prices": {"on_demand": {"cpu_hour": 0.04, "gpu_hour": {"L4": 0.7}}, "spot": {"cpu_hour": 0.015}},
    },
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `cluster_of_pools.py` saw."""
    folder = tmp_path_factory.mktemp("job")
    body = "The parcel came late. The box was wet. I want my money back."
    pq.write_table(pa.table({"id": range(400), "body": [body] * 400}), folder / "tickets.parquet")
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB, sort_keys=False))
    # No other Ray here is to see it, and Ray refuses long paths for its sockets.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as apart:
        own = os.environ | {"RAY_TMPDIR": apart}
        asked = [sys.executable, str(CLUSTER), str(folder / "job.yaml")]
        done = subprocess.run(asked, env=own, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def units(stage: dict[str, Any]) -> set[tuple[str, str, int]]:
    """(node that read, node that worked, GPUs there) of its units, of which none is missing."""
    assert "fault" not in stage, stage["fault"]
    assert len(stage["units"]) == 3
    return {(*unit["read"], unit["work"], unit["gpus"]) for unit in stage["units"]}


def test_stages_run_on_the_nodes_of_their_pool(told: dict[str, Any]) -> None:
    assert units(told["cpu"]) == {("cpu", "cpu", 0)}
    assert units(told["endpoint"]) == {("cpu", "cpu", 0)}, "a model behind an endpoint takes no GPU"
    for way in ("gpu", "kept", "streamed"):
        assert units(told[way]) == {("gpu", "gpu", 1)}, way
    pids = {way: {unit["pid"] for unit in told[way]["units"]} for way in ("gpu", "kept", "endpoint")}
    assert pids["kept"] <= pids["gpu"] and not pids["endpoint"] & pids["gpu"]


def test_what_a_stage_held_is_told(told: dict[str, Any]) -> None:
    """Two GPUs, and three CPUs, for no longer than the stage took."""
    assert told["gpu"]["cpu_hours"] == 0 and list(told["gpu"]["gpu_hours"]) == ["H100"]
    assert 0 < told["gpu"]["gpu_hours"]["H100"] <= 2 * told["gpu"]["seconds"] / 3600
    assert told["cpu"]["gpu_hours"] == {} and 0 < told["cpu"]["cpu_hours"] <= 3 * told["cpu"]["seconds"] / 3600


def test_what_can_never_start_fails_at_once(told: dict[str, Any]) -> None:
    assert told["grows"] is False
    never = told["infeasible"]
    assert never["fault"].startswith(
        "infeasible asks for 1 worker of 1 CPU and 1 GPU on nodes with ray.io/accelerator-type=B200: no node has the "
        "labels ray.io/accelerator-type=B200, and no autoscaler adds nodes; the cluster has "
        "1 × 2 CPUs and 2 GPUs (ray.io/accelerator-type=H100, tier=gpu), of which"
    )
    assert never["seconds"] < 20, "long before wait_for_room_s"


@pytest.mark.parametrize("way", ["full", "full_streamed"])
def test_a_stage_that_nothing_starts_of_ends_and_says_who_has_the_room(told: dict[str, Any], way: str) -> None:
    fault = told[way]["fault"]
    assert f"{way}: no worker could start within 2 s (runtime.wait_for_room_s): it asks for 2 workers of" in fault
    assert "(ray.io/accelerator-type=H100, tier=gpu), of which" in fault and "0 GPUs free" in fault
    assert told[way]["seconds"] < 20


def test_those_that_find_room_do_all_the_work(told: dict[str, Any]) -> None:
    assert units(told["partly"]) == {("gpu", "gpu", 1)}
    assert len({unit["pid"] for unit in told["partly"]["units"]}) == 1, "the other GPU is held by somebody"


def test_a_stage_waits_longer_while_another_one_of_the_run_works(told: dict[str, Any]) -> None:
    assert units(told["behind another"]) == {("gpu", "gpu", 1)} and told["behind another"]["seconds"] > 2


def test_plan_tells_what_is_asked_for_and_what_is_there(told: dict[str, Any]) -> None:
    plan = told["plan"]
    has = plan["cluster"]
    assert (has["nodes"], has["cpus"], has["gpus"], has["accelerators"]) == (3, 6, 2, {"H100": 2})
    steps = {step["step"]: step for step in plan["steps"]}
    assert {name: (s["asks"]["pool"], s["asks"]["workers"], s["asks"]["fits"]) for name, s in steps.items()} == {
        "summary": ("cpu", 3, 3),
        "vectors": ("gpu", 2, 2),
        "notes": ("cpu", 3, 3),
    }
    summary, vectors = steps["summary"], steps["vectors"]
    hours = 3 * summary["seconds"] / 3600
    assert summary["costs"] == pytest.approx({"on_demand": 0.04 * hours, "spot": 0.015 * hours}, abs=1e-6)
    assert summary["cost"] == summary["costs"]["spot"], "as its pool pays"
    assert (vectors["seconds"], vectors["cost"]) == (None, None), "never measured on such a GPU"
    said = "\n".join(plan["warnings"])
    assert "4 workers are wanted, and the cluster has room for 2" in said
    assert "gpu_hour has no price for H100 (it has L4)" in said and "not measured on H100 GPUs yet" in said


def test_plan_refuses_what_can_never_run_there(told: dict[str, Any]) -> None:
    assert ".runtime.pools.gpu" in told["plan fault"].replace(" ", ".")
    assert "no node has the labels ray.io/accelerator-type=B200" in told["plan fault"]


@pytest.mark.parametrize(
    ("model", "held"),
    [
        ({"generator": "openai:m@https://llm.internal/v1"}, (True, False)),
        ({"generator": "builtin:minilm"}, (True, True)),
        ({}, (False, False)),
    ],
)
def test_only_models_that_are_computed_here_want_a_gpu(
    model: dict[str, str], held: tuple[bool, bool], context: Callable[..., StepContext], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["a"]}), tmp_path / "rows.parquet")
    stage = AnswerRows(context(tmp_path / "rows.parquet", ["id"], task="summarize", text="body", **model))
    assert (stage.holds_model, stage.uses_gpu) == held
