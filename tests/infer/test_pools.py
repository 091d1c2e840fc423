"""What a stage takes of a cluster: arithmetic against brute force and cases made by hand; labels as Ray reads them."""

from __future__ import annotations

import random
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from bizllm.infer.pools import ACCELERATOR, Capacity, GpuPool, Node, Pool, Pools, Room, fitting
from bizllm.prices import Held, HourlyPrices

CPU, GPU = SimpleNamespace(uses_gpu=False), SimpleNamespace(uses_gpu=True)
H100 = {ACCELERATOR: "H100", "tier": "gold"}


def node(cpus: float, gpus: float = 0, free: float | None = None, **labels: str) -> Node:
    labels = {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}
    return Node(cpus, gpus, cpus if free is None else free, gpus, 8e9, labels)


def room(*nodes: Node, **more: Any) -> Room:
    return Room(nodes, **more)


def most_side_by_side(nodes: list[tuple[int, int]], cpus: int, gpus: int) -> int:
    """By putting one after the other, wherever there is room."""
    left, placed = [list(node) for node in nodes], 0
    while (at := next((n for n in left if n[0] >= cpus and n[1] >= gpus), None)) is not None:
        at[0], at[1], placed = at[0] - cpus, at[1] - gpus, placed + 1
    return placed


def test_as_many_fit_as_can_be_put_side_by_side() -> None:
    rng = random.Random(0)
    for _ in range(300):
        nodes = [(rng.randint(0, 9), rng.randint(0, 3)) for _ in range(rng.randint(0, 4))]
        for cpus, gpus in product((1, 2, 3, 5), (0, 1, 2)):
            assert fitting([node(*has) for has in nodes], cpus, gpus) == most_side_by_side(nodes, cpus, gpus)


def test_workers_take_all_that_lets_each_of_them_start() -> None:
    """Threads are as many as possible with all workers side by side: one more, and one of them would find no room."""
    rng = random.Random(1)
    for _ in range(300):
        nodes = [(rng.randint(1, 12), 0) for _ in range(rng.randint(1, 4))]
        units, wanted = rng.randint(1, 20), rng.choice([None, 1, 3, 50])
        taken = Capacity.of(CPU, units, wanted, Pools(), room(*(node(*has) for has in nodes)))
        most = sum(cpus for cpus, _ in nodes)
        assert taken.workers == min(units, wanted or most, most)
        assert most_side_by_side(nodes, taken.threads, 0) >= taken.workers
        assert most_side_by_side(nodes, taken.threads + 1, 0) < taken.workers
        assert taken.cpus == round(taken.threads * 0.85, 2), "the rest is for who reads for it"


def test_a_gpu_has_its_share_of_its_node_however_few_units_there_are() -> None:
    cluster = room(node(0), node(64), node(32, 4, **{"ray.io__accelerator_type": "H100"}))
    for units, workers in ((1, 1), (3, 3), (100, 4)):
        taken = Capacity.of(GPU, units, None, Pools(), cluster)
        assert (taken.workers, taken.threads, taken.gpus, taken.accelerator) == (workers, 8, 1.0, "H100")
    assert Capacity.of(GPU, 100, None, Pools(), room(node(2, 4))).workers == 2, "each has a CPU"
    more = Capacity.of(GPU, 100, 16, Pools(), room(node(32, 4), grows=True))
    assert (more.workers, more.threads) == (16, 8), "those that an autoscaler adds are like those that are there"
    none_yet = Capacity.of(GPU, 100, None, Pools(gpu=GpuPool(cpus=6, workers=3)), room(node(64), grows=True))
    assert (none_yet.workers, none_yet.threads, none_yet.gpus) == (3, 6, 1.0)
    assert Capacity.of(GPU, 9, 3, Pools(gpu=GpuPool()), room(node(64), grows=True)).threads == 1, "nobody knows"
    without = Capacity.of(GPU, 100, None, Pools(), room(node(8)))
    assert (without.workers, without.gpus, without.pool) == (8, 0.0, "cpu")


def test_what_asks_an_endpoint_takes_no_gpu() -> None:
    assert Capacity.of(CPU, 8, None, Pools(), room(node(8, 8))).gpus == 0


def test_pools_choose_nodes_sizes_and_numbers() -> None:
    cluster = room(node(16, tier="cpu"), node(16, tier="cpu"), node(8, 2, **H100), node(8, 2, ray_io="x"))
    pools = Pools(
        cpu=Pool(labels={"tier": "in(cpu, small)"}, workers=3, cpus=4), gpu=GpuPool(accelerator="H100", workers=9)
    )
    on_cpu, on_gpu = (Capacity.of(stage, 100, 7, pools, cluster) for stage in (CPU, GPU))
    assert (on_cpu.workers, on_cpu.threads, on_cpu.labels) == (3, 4, (("tier", "in(cpu, small)"),))
    assert (on_gpu.workers, on_gpu.threads, on_gpu.labels) == (2, 4, ((ACCELERATOR, "H100"),))
    assert on_cpu.options == {"num_cpus": 3.4, "num_gpus": 0.0, "label_selector": {"tier": "in(cpu, small)"}}
    assert on_cpu.size != on_gpu.size and on_gpu.size == Capacity.of(GPU, 1, 7, pools, cluster).size

    laptop = room(node(4), private=True)
    for stage in (CPU, GPU):
        taken = Capacity.of(stage, 100, 7, pools, laptop)
        assert (taken.gpus, taken.labels, taken.lacking(laptop)) == (0.0, (), None), "the same file runs on a laptop"


@pytest.mark.parametrize(
    ("selector", "matched"),
    [
        ("a", "a"),
        ("!a", "b-"),  # what lacks the label is not equal
        ("in(a, b)", "ab"),
        ("!in(a,b)", "-"),
    ],
)
def test_selectors_mean_what_ray_means(selector: str, matched: str) -> None:
    nodes = {"a": node(1, zone="a"), "b": node(1, zone="b"), "-": node(1)}
    assert {name for name, one in nodes.items() if one.matches([("zone", selector)])} == set(matched)


def test_what_can_never_start_is_told_with_what_there_is() -> None:
    cluster = room(node(0), node(16, tier="cpu", free=3.5), node(16, tier="cpu"), node(8, 2, **H100))

    def lacks(pools: Pools, stage: Any = GPU, within: Room = cluster) -> str | None:
        return Capacity.of(stage, 4, None, pools, within).lacking(within)

    assert lacks(Pools()) is None and lacks(Pools(gpu=GpuPool(accelerator="H100"))) is None
    told = "no node has the labels ray.io/accelerator-type=B200, and no autoscaler adds nodes"
    assert lacks(Pools(gpu=GpuPool(accelerator="B200"))) == told
    assert (
        lacks(Pools(gpu=GpuPool(labels={"tier": "cpu"}))) == "none of its nodes has a GPU, and no autoscaler adds nodes"
    )
    assert lacks(Pools(cpu=Pool(cpus=17)), CPU) == "no node is that large, and no autoscaler adds nodes"
    assert (
        lacks(Pools(gpu=GpuPool()), within=room(node(4))) == "none of its nodes has a GPU, and no autoscaler adds nodes"
    )
    grows = room(node(4), grows=True)
    assert lacks(Pools(gpu=GpuPool(accelerator="B200")), within=grows) is None, "who knows"
    never = room(node(4), grows=True, most={"CPU": 64, "GPU": 0})
    assert (
        lacks(Pools(gpu=GpuPool()), within=never) == "none of its nodes has a GPU, and no autoscaler adds one that has"
    )
    assert str(cluster) == (
        "1 × 8 CPUs and 2 GPUs (ray.io/accelerator-type=H100, tier=gold), of which 8 CPUs and 2 GPUs free; "
        "2 × 16 CPUs (tier=cpu), of which 19.5 CPUs free; 1 × 0 CPUs, of which 0 CPUs free"
    )


def test_what_fits_now_is_beside_what_runs() -> None:
    cluster = room(node(16, free=5), node(16, free=16))
    taken = Capacity.of(CPU, 100, None, Pools(cpu=Pool(cpus=4)), cluster)
    assert (taken.workers, taken.fits(cluster), taken.fits_now(cluster)) == (8, 8, 5)


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ({"gpu": {"labels": {ACCELERATOR: "L4"}, "accelerator": "L4"}}, "either `accelerator` or the label"),
        ({"cpu": {"labels": {"tier": "not gold"}}}, "expected a value, !value"),
        ({"cpu": {"labels": {"a b": "gold"}}}, "is no label"),
        ({"gpu": {"accelerator": "in(H100"}}, "such as H100"),
        ({"cpu": {"accelerator": "L4"}}, "Extra inputs"),
        ({"tpu": {}}, "Extra inputs"),
    ],
)
def test_faults(pools: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        Pools.model_validate(pools)


def test_costs() -> None:
    on_demand = HourlyPrices(cpu_hour=0.04, gpu_hour={"H100": 2.5, "L4": 0.7})
    spot = HourlyPrices(gpu_hour={"H100": 1.0})
    held = Held(10.0) + Held(2.0, {"H100": 4.0}) + Held(gpu_hours={"H100": 1.0, "L4": 2.0})
    assert held == Held(12.0, {"H100": 5.0, "L4": 2.0})
    assert held.cost(on_demand, on_demand) == pytest.approx(12 * 0.04 + 5 * 2.5 + 2 * 0.7)
    assert held.cost(on_demand, spot) is None, "an L4 has no price there: no sum is better than a wrong one"
    assert Held(12.0, {"H100": 5.0}).cost(on_demand, spot) == pytest.approx(12 * 0.04 + 5)
    assert Held().cost(on_demand, spot) == 0 and Held().cost(HourlyPrices(), HourlyPrices()) is None
    assert Held(1.0).cost(HourlyPrices(cpu_hour=0.0), spot) == 0
