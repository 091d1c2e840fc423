"""The fault matrix: a run is hit at a moment of its life, a plain rerun follows, and a reader looks on all the while.

Five cases run with the other tests, which lose drivers, workers and nodes elsewhere (`test_killed`, `test_pipeline`,
`test_nodes`); `make chaos` runs all and writes benchmarks/results/chaos.md.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from harness import Case, Shop, play

FAULTS = Path(__file__).parent / "faults"
SEED = int(os.environ.get("BIZLLM_CHAOS_SEED", "1"))
CLUSTER = """
import ray, sys, time
ray.init(address="local", num_cpus=2, object_store_memory=150_000_000, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
time.sleep(36_000)
"""
# A point: the calls of it that a run makes at least, and where it is (driver or worker). Two steps, six units each.
DRIVER = {
    "freeze": 2,
    "keep": 2,
    "receipt": 12,
    "publish": 4,
    "commit": 4,
    "committed": 4,
    "published": 4,
    "ledger": 1,
    "recorded": 1,
    "clean": 2,
    "write": 10,
}
WORKER = {"read": 10, "model": 8, "stage": 8, "staged": 8, "compact": 2, "audit": 2}
REUSE = {"hashes": 6, "earlier": 1, "match": 1, "carry": 1, "spread": 1}


def matrix(seed: int) -> list[Case]:
    """All cases; which call is hit follows from the seed."""
    rng = random.Random(seed)
    cases = []
    for point, calls in DRIVER.items():
        for action in ("kill driver", "error", "hang"):
            cases.append(Case(point, rng.randint(1, calls), action))
    for point, calls in WORKER.items():
        for action in ("kill driver", "kill worker", "error", "hang"):
            cases.append(Case(point, rng.randint(1, calls), action))
    for point, calls in REUSE.items():
        for action in ("kill driver", "kill worker", "error"):
            cases.append(Case(point, rng.randint(1, calls), action))
    for point, calls in {"keep": 2, "receipt": 12, "stage": 8, "output": 6, "write": 10}.items():
        cases.append(Case(point, rng.randint(1, calls), "disk full"))
    for point, calls in {"publish": 4, "commit": 4, "ledger": 1}.items():
        cases += [Case(point, rng.randint(1, calls), "locked")]
    cases += [Case("commit", nth, "lost") for nth in (1, 2, 3, 4, 5)]
    for point, calls in {"read": 10, "model": 8, "staged": 8, "audit": 2, "committed": 4}.items():
        cases.append(Case(point, rng.randint(1, calls), "kill node"))
    return cases


ALWAYS = [
    Case("stage", 3, "disk full"),
    Case("read", 4, "error"),
    Case("commit", 2, "hang"),
    Case("committed", 2, "kill driver"),
    Case("commit", 1, "locked"),
]
ALSO = [Case("receipt", 5, "kill driver"), Case("model", 4, "kill worker"), Case("model", 3, "kill node")]
MARKED = [
    pytest.param(case, marks=pytest.mark.chaos, id=case.name)
    for case in [*ALSO, *(case for case in matrix(SEED) if case not in [*ALWAYS, *ALSO])]
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("chaos")
    faults = folder / "faults"
    faults.mkdir()
    env = os.environ | {
        "PYTHONPATH": f"{FAULTS}:{os.environ.get('PYTHONPATH', '')}",
        "BIZLLM_FAULTS": str(faults),
        "BIZLLM_CATALOG": str(folder / "live/wh/catalog.db"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    cluster = subprocess.Popen([sys.executable, "-c", CLUSTER], env=env, stdout=subprocess.PIPE, text=True)
    assert cluster.stdout is not None
    try:
        yield Shop(folder, cluster.stdout.readline().strip(), env)
    finally:
        cluster.terminate()
        cluster.wait(30)


@pytest.mark.parametrize("case", [*(pytest.param(case, id=case.name) for case in ALWAYS), *MARKED])
def test_a_rerun_makes_the_night_whole(shop: Shop, case: Case, record_property: pytest.RecordProperty) -> None:
    report = play(shop, case)
    for name, value in vars(report).items():
        record_property(name, str(value))
    assert report.faults == [], report


def test_the_matrix_is_as_large_as_it_should_be() -> None:
    cases = {*ALWAYS, *ALSO, *matrix(SEED)}
    assert len(cases) >= 60 and len({case.point for case in cases}) == len({*DRIVER, *WORKER, *REUSE, "output"})
    assert {case.action for case in cases} == {
        *("kill driver", "kill worker", "kill node", "error", "hang", "disk full", "locked", "lost")
    }
