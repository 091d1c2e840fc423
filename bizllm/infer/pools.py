"""What a stage may take of a cluster: the pools that a job names, and how many workers fit on which nodes.

Knows no Ray (`infer/room.py` looks at a cluster), and imports in no time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import Field, PositiveInt, field_validator, model_validator

from bizllm.prices import Kind
from bizllm.tables.settings import Closed

ACCELERATOR = "ray.io/accelerator-type"
READ_CPUS = 0.15  # a reader mostly waits for storage; odd on purpose: Ray Data fuses operators of equal CPUs
OWN_LABELS = ("ray.io/node-id", "bizllm-private")  # tell nobody anything

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:{_NAME}(?:\.{_NAME})*/)?{_NAME}")
_SELECTS = re.compile(rf"(?P<no>!?)(?:in\((?P<many>{_NAME}(?:, ?{_NAME})*)\)|(?P<one>{_NAME}))")


class Pool(Closed):
    """The nodes of a cluster that some stages run on."""

    workers: PositiveInt | None = Field(default=None, description="Most workers of a stage; `runtime.workers` if none.")
    cpus: PositiveInt | None = Field(default=None, description="CPUs of each worker; derived from the nodes.")
    labels: dict[str, str] = Field(
        default={},
        description="Only nodes with these labels of Ray: a value, `!value`, `in(a, b)` or `!in(a, b)`. Binds on a "
        "cluster, not on a local Ray.",
    )
    capacity: Kind = Field(
        default="on_demand", description="Which of the `prices` its machines have; it chooses no machines, labels do."
    )

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"{key!r} is no label: expected letters, digits, - _ . and one prefix such as team.org/"
                )
            if not _SELECTS.fullmatch(value):
                raise ValueError(f"{key}: {value!r}: expected a value, !value, in(a, b) or !in(a, b)")
        return labels

    @property
    def selects(self) -> dict[str, str]:
        """The labels that its nodes must have."""
        return dict(self.labels)


class GpuPool(Pool):
    """The nodes that models are computed on."""

    accelerator: str | None = Field(
        default=None, description=f"The kind of GPU, as Ray names it (H100, L4, A100): the label `{ACCELERATOR}`."
    )

    @model_validator(mode="after")
    def _one_accelerator(self) -> GpuPool:
        if self.accelerator is not None and ACCELERATOR in self.labels:
            raise ValueError(f"expected either `accelerator` or the label {ACCELERATOR}")
        if self.accelerator is not None and not re.fullmatch(_NAME, self.accelerator):
            raise ValueError(f"accelerator: {self.accelerator!r}: expected a name such as H100")
        return self

    @property
    def selects(self) -> dict[str, str]:
        """The labels that its nodes must have."""
        return dict(self.labels) | ({ACCELERATOR: self.accelerator} if self.accelerator else {})


class Pools(Closed):
    """Where the two kinds of stages run. Without one: anywhere, models on GPUs where the cluster has any."""

    cpu: Pool | None = Field(default=None, description="Of stages that compute no model, or ask an endpoint.")
    gpu: GpuPool | None = Field(
        default=None, description="Of stages that compute a model. On a cluster they then need GPUs."
    )


@dataclass(frozen=True)
class Node:
    """A machine of a cluster. free_…: what nothing holds."""

    cpus: float
    gpus: float
    free_cpus: float
    free_gpus: float
    memory: float  # bytes that Ray may give to work
    labels: Mapping[str, str]

    @property
    def accelerator(self) -> str:
        """The kind of its GPUs; empty where it has none, or tells none."""
        return self.labels.get(ACCELERATOR, "") if self.gpus else ""

    def matches(self, labels: Iterable[tuple[str, str]]) -> bool:
        """Whether it has these labels, as Ray reads selectors: what is not there is not equal."""
        for key, wanted in labels:
            found = _SELECTS.fullmatch(wanted)
            assert found is not None, "labels were checked when they were read"
            values = re.split(", ?", found["many"]) if found["many"] else [found["one"]]
            if (self.labels.get(key) in values) == bool(found["no"]):
                return False
        return True


@dataclass(frozen=True)
class Room:
    """A cluster at a moment. grows: an autoscaler may add nodes. most: of each resource, ever, where that is told.
    private: a local Ray of one run, on which no pool's labels bind."""

    nodes: tuple[Node, ...]
    grows: bool = False
    most: Mapping[str, float] | None = None
    private: bool = False

    def of(self, labels: Iterable[tuple[str, str]]) -> list[Node]:
        """The nodes that have these labels."""
        wanted = tuple(labels)
        return [node for node in self.nodes if node.matches(wanted)]

    @property
    def has_gpus(self) -> bool:
        """Whether any node has one."""
        return any(node.gpus >= 1 for node in self.nodes)

    def kinds(self) -> list[tuple[int, Node]]:
        """(how many, one for all of them) of each kind of node, the largest first; what is free is that of all."""
        found: dict[Any, list[Node]] = {}
        for node in self.nodes:
            labels = {key: value for key, value in sorted(node.labels.items()) if key not in OWN_LABELS}
            found.setdefault((node.gpus, node.cpus, tuple(labels.items())), []).append(replace(node, labels=labels))
        return [
            (
                len(nodes),
                replace(
                    nodes[0],
                    free_cpus=round(sum(node.free_cpus for node in nodes), 2),
                    free_gpus=round(sum(node.free_gpus for node in nodes), 2),
                ),
            )
            for _, nodes in sorted(found.items(), key=lambda item: item[0], reverse=True)
        ]

    def __str__(self) -> str:
        """For people: the nodes by kind, and what of them is free."""
        told = []
        for count, node in self.kinds():
            labels = f" ({listed(node.labels.items())})" if node.labels else ""
            free = sized(node.free_cpus, node.free_gpus, zero=bool(node.gpus))
            told.append(f"{count} × {sized(node.cpus, node.gpus)}{labels}, of which {free} free")
        return "; ".join(told) or "no nodes"


class Asks(Protocol):
    """What is known of a stage here: whether its work computes on a GPU where there is one."""

    @property
    def uses_gpu(self) -> bool: ...


@dataclass(frozen=True)
class Capacity:
    """What a stage may take: `workers` processes of `threads` threads, each `cpus` and `gpus` of Ray's resources, on
    nodes with these labels. accelerator: the kind of the GPUs, where it is known."""

    workers: int
    threads: int
    cpus: float
    gpus: float
    labels: tuple[tuple[str, str], ...] = ()
    pool: str = "cpu"
    accelerator: str = ""

    @staticmethod
    def of(stage: Asks, units: int, wanted: int | None, pools: Pools, room: Room) -> Capacity:
        """Share the nodes of the stage's pool among at most one worker a unit.

        Each GPU has its share of its node's CPUs, whatever is computed beside it. wanted: most workers, where the pool
        says nothing.
        """
        on_gpu = stage.uses_gpu and (room.has_gpus or (pools.gpu is not None and not room.private))
        pool: Pool = (pools.gpu or GpuPool()) if on_gpu else (pools.cpu or Pool())
        labels = () if room.private else tuple(sorted(pool.selects.items()))
        gpus, nodes = (1.0 if on_gpu else 0.0), room.of(labels)
        most = fitting(nodes, pool.cpus or 1, gpus)
        workers = min(units, pool.workers or wanted or most)
        workers = max(1, workers if room.grows else min(workers, most))
        at_once = max(1, most) if on_gpu else workers
        threads = pool.cpus or next(
            (cpus for cpus in range(_largest(nodes), 1, -1) if fitting(nodes, cpus, gpus) >= at_once), 1
        )
        kinds = {node.accelerator for node in nodes if node.gpus}
        accelerator = getattr(pool, "accelerator", None) or (kinds.pop() if len(kinds) == 1 else "")
        cpus = round(threads * (1 - READ_CPUS), 2)
        return Capacity(workers, threads, cpus, gpus, labels, "gpu" if on_gpu else "cpu", accelerator if on_gpu else "")

    @property
    def size(self) -> tuple[Any, ...]:
        """Processes of one size can stand for each other."""
        return self.threads, self.cpus, self.gpus, self.labels

    @property
    def selector(self) -> dict[str, Any]:
        """Ray's options that choose nodes."""
        return {"label_selector": dict(self.labels)} if self.labels else {}

    @property
    def options(self) -> dict[str, Any]:
        """Ray's options of a worker."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **self.selector}

    def fits_now(self, room: Room) -> int:
        """How many of the workers find free room."""
        return min(self.workers, fitting(room.of(self.labels), self.threads, self.gpus, free=True))

    def fits(self, room: Room) -> int:
        """How many of the workers find room where nothing else runs."""
        return min(self.workers, fitting(room.of(self.labels), self.threads, self.gpus))

    def lacking(self, room: Room) -> str | None:
        """Why not one worker can ever start; None where one can, or an autoscaler may bring a node for it."""
        if self.fits(room):
            return None
        if room.grows and (room.most is None or room.most.get("GPU" if self.gpus else "CPU", 0) >= 1):
            return None
        nodes = room.of(self.labels)
        if not nodes:
            why = f"no node has the labels {listed(self.labels)}"
        elif self.gpus and not any(node.gpus for node in nodes):
            why = "none of its nodes has a GPU"
        else:
            why = "no node is that large"
        return f"{why}, and no autoscaler adds one that has" if room.grows else f"{why}, and no autoscaler adds nodes"

    def __str__(self) -> str:
        """For people: `4 workers of 8 CPUs and 1 GPU on nodes with tier=gold`."""
        of = f"{self.workers} {'worker' if self.workers == 1 else 'workers'} of {sized(self.threads, self.gpus)}"
        return of + (f" on nodes with {listed(self.labels)}" if self.labels else "")


def fitting(nodes: Iterable[Node], cpus: float, gpus: float, *, free: bool = False) -> int:
    """How many workers of that size fit on the nodes side by side. free: beside what runs there now."""
    count = 0
    for node in nodes:
        has_cpus, has_gpus = (node.free_cpus, node.free_gpus) if free else (node.cpus, node.gpus)
        count += int(min(has_cpus // cpus, has_gpus // gpus if gpus else has_cpus // cpus))
    return count


def _largest(nodes: Iterable[Node]) -> int:
    return max((int(node.cpus) for node in nodes), default=1)


def sized(cpus: float, gpus: float, *, zero: bool = False) -> str:
    """`8 CPUs and 1 GPU`. zero: also tell that there is no GPU."""
    told = [f"{cpus:g} {'CPU' if cpus == 1 else 'CPUs'}"]
    told += [f"{gpus:g} {'GPU' if gpus == 1 else 'GPUs'}"] if gpus or zero else []
    return " and ".join(told)


def listed(labels: Iterable[tuple[str, str]]) -> str:
    """`tier=gold, zone=a`."""
    return ", ".join(f"{key}={value}" for key, value in labels)
