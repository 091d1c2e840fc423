"""What a job and a training ask of a cluster that is made by hand, and what they cost there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bizllm.errors import UserError
from bizllm.infer.pools import ACCELERATOR, Capacity, Node, Room
from bizllm.jobs.job import load_job
from bizllm.jobs.placement import check_address, held, measured
from bizllm.jobs.training_file import load_recipe
from bizllm.jobs.training_plan import _placed
from bizllm.models.engines.choice import Choice

ROOT = Path(__file__).parents[2]
PRICES = "prices={on_demand: {cpu_hour: 0.05, gpu_hour: {H100: 3.0}}, spot: {cpu_hour: 0.02}}"


def machine(cpus: float, gpus: float = 0, kind: str = "") -> Node:
    return Node(cpus, gpus, cpus, gpus, 8e9, {ACCELERATOR: kind} if kind else {})


def placed(workers: str, room: Room) -> dict[str, Any]:
    return _placed(load_recipe(str(ROOT / "jobs/finetune_intent.yaml"), [f"workers={workers}", PRICES]), "auto", room)


def test_a_training_takes_a_gpu_a_worker_and_costs_by_the_hour() -> None:
    there = placed("[2, 8]", Room((machine(0), machine(16, 2, "H100"), machine(32, 4, "H100"))))
    assert (there["asks"]["fits"], there["asks"]["gpus"], there["asks"]["accelerator"]) == (6, 1.0, "H100")
    assert there["costs_per_hour"] == {"on_demand": 6 * 3.0, "spot": None}, "no price, no cost"
    assert there["warnings"] == []


def test_a_training_on_cpus_takes_them_all() -> None:
    there = placed("2", Room((machine(8), machine(8))))
    assert there["asks"]["gpus"] == 0
    assert there["costs_per_hour"] == pytest.approx({"on_demand": 16 * 0.05, "spot": 16 * 0.02})


def test_a_training_that_never_fits_is_a_fault_and_one_that_waits_a_warning() -> None:
    cluster = Room((machine(16, 2, "H100"),))
    with pytest.raises(
        UserError, match=r"workers: 3: the cluster at auto has room for 2 workers with a GPU each; it has"
    ):
        placed("3", cluster)
    assert "3 workers are asked for, and 2 find room now" in placed("3", Room(cluster.nodes, grows=True))["warnings"][0]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "is a dashboard's address"),
        ("127.0.0.1:9", "no Ray cluster answers there (ConnectionRefusedError)"),
        ("ray://127.0.0.1:9", "no Ray cluster answers there (ConnectionRefusedError)"),
    ],
)
def test_an_address_where_nothing_listens_is_told_at_once(address: str, said: str) -> None:
    with pytest.raises(UserError) as fault:
        check_address(address)
    assert said in str(fault.value)
    for well in (None, "auto", "local"):
        check_address(well)


def choice(machine: str, rate: float) -> Choice:
    return Choice("packed", "bfloat16", 65_536, machine, 8, rate, "")


@pytest.mark.parametrize(
    ("accelerator", "found"),
    [("H100", 3e5), ("A100-40G", 2e5), ("L40S", None), ("L4", 1e4), ("B200", None), ("", 1e4)],
)
def test_only_what_was_measured_on_such_a_gpu_counts(accelerator: str, found: float | None) -> None:
    made = [
        choice("Intel(R) Xeon(R) Processor bf16", 1e3),
        choice("NVIDIA L4", 1e4),
        choice("NVIDIA A100-SXM4-40GB", 2e5),
        choice("NVIDIA H100 80GB HBM3", 3e5),
    ]
    chosen = measured(made, Capacity(1, 8, 6.8, 1.0, accelerator=accelerator))
    assert (chosen.tokens_per_s if chosen else None) == found
    on_cpu = measured(made, Capacity(1, 8, 6.8, 0.0))
    assert on_cpu is not None and on_cpu.tokens_per_s == 1e3


def job(tmp_path: Path, runtime: str) -> str:
    (tmp_path / "j.yaml").write_text(
        "name: j\nwarehouse: {path: wh}\nsources: {t: {path: t.parquet}}\n"
        f"steps: {{s: {{task: summarize, input: t, text: body}}}}\nruntime: {runtime}\n"
    )
    return str(tmp_path / "j.yaml")


def test_cost_is_what_workers_held_as_their_pools_pay(tmp_path: Path) -> None:
    two_ways = "prices: {on_demand: {gpu_hour: {L4: 0.8}, cpu_hour: 0.05}, spot: {cpu_hour: 0.02, gpu_hour: {L4: 0.3}}}"
    runtime = load_job(job(tmp_path, f"{{pools: {{gpu: {{capacity: spot}}}}, {two_ways}}}")).job.runtime
    used = held(Capacity(3, 8, 6.8, 0.0), 1800) + held(Capacity(2, 8, 6.8, 1.0, accelerator="L4"), 3600)
    assert (used.cpu_hours, dict(used.gpu_hours)) == (12.0, {"L4": 2.0})
    assert runtime.cost(used) == pytest.approx(12 * 0.05 + 2 * 0.3)
    assert runtime.cost(used, "on_demand") == pytest.approx(12 * 0.05 + 2 * 0.8)
    assert runtime.cost(used, "spot") == pytest.approx(12 * 0.02 + 2 * 0.3)
    old = load_job(job(tmp_path, "{cpu_hour_price: 0.05}")).job.runtime
    assert old.cost(held(Capacity(3, 8, 6.8, 0.0), 1800)) == pytest.approx(12 * 0.05)


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("{cpu_hour_price: 1, prices: {on_demand: {cpu_hour: 1}}}", "they are the same"),
        ("{pools: {gpu: {acelerator: H100}}}", "j.yaml:5 runtime.pools.gpu.acelerator"),
        ("{pools: {cpu: {labels: {tier: [a]}}}}", "runtime.pools.cpu.labels.tier"),
        ("{pools: {cpu: {labels: {tier: 'not gold'}}}}", "expected a value, !value"),
        ("{prices: {spot: {gpu_hour: {H100: -1}}}}", "runtime.prices.spot.gpu_hour.H100"),
        ("{pools: {cpu: {capacity: reserved}}}", "runtime.pools.cpu.capacity"),
        ("{wait_for_room_s: 0}", "runtime.wait_for_room_s"),
    ],
)
def test_faults_have_a_place(tmp_path: Path, runtime: str, said: str) -> None:
    with pytest.raises(UserError) as fault:
        load_job(job(tmp_path, runtime))
    assert said in str(fault.value), str(fault.value)
