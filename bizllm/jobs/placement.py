"""What a job asks of a cluster, whether the cluster has it, and what work costs there."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bizllm.errors import Fault, UserError
from bizllm.infer.pools import Capacity, Room
from bizllm.jobs.prepare import Night, PreparedStep
from bizllm.models.endpoint import computed_here
from bizllm.models.engines.choice import Choice
from bizllm.prices import KINDS, Held, Kind

CONNECT_S = 10.0
MANY = 1_000_000  # units of a step whose input an earlier one decides
GPU_MAKERS = ("NVIDIA", "AMD Instinct", "Intel Data Center GPU")  # in the names of GPUs, not of processors


@dataclass(frozen=True)
class Answers:
    """What is known of a step's answering stage before it runs."""

    uses_gpu: bool


@dataclass(frozen=True)
class Cluster:
    """A cluster that a night is planned for. address: as it was typed."""

    address: str
    room: Room

    def facts(self) -> dict[str, Any]:
        """What `plan --json` says of it."""
        room = self.room
        kinds = [
            {
                "nodes": count,
                "cpus": node.cpus,
                "gpus": node.gpus,
                "memory": node.memory,
                "labels": dict(node.labels),
                "free_cpus": node.free_cpus,
                "free_gpus": node.free_gpus,
            }
            for count, node in room.kinds()
        ]
        accelerators: dict[str, float] = {}
        for node in room.nodes:
            if node.gpus:
                accelerators[node.accelerator] = accelerators.get(node.accelerator, 0.0) + node.gpus
        return {
            "address": self.address,
            "nodes": len(room.nodes),
            "cpus": sum(node.cpus for node in room.nodes),
            "gpus": sum(node.gpus for node in room.nodes),
            "memory": sum(node.memory for node in room.nodes),
            "accelerators": accelerators,
            "kinds": kinds,
            "may_grow": room.grows,
            "grows_to": dict(room.most) if room.most is not None else None,
        }

    def asked(self, night: Night, step: PreparedStep, units: int | None) -> Capacity:
        """What the step's answers ask for."""
        runtime = night.job.runtime
        answers = Answers(computed_here(step.task.models().values()))
        return Capacity.of(answers, MANY if units is None else units, runtime.workers, runtime.pools, self.room)

    def told(self, asked: Capacity) -> dict[str, Any]:
        """What `plan --json` says of what a step asks for."""
        return {
            "pool": asked.pool,
            "workers": asked.workers,
            "cpus": asked.threads,
            "gpus": asked.gpus,
            "accelerator": asked.accelerator or None,
            "labels": dict(asked.labels),
            "fits": asked.fits(self.room),
            "fits_now": asked.fits_now(self.room),
        }

    def faults(self, night: Night, asked: dict[str, Capacity]) -> list[Fault]:
        """What of the job can never run there: each pool once. asked: by step."""
        runtime = night.job.runtime
        passive = Capacity.of(
            Answers(False), 1, runtime.workers, runtime.pools, self.room
        )  # every step has such stages
        found: dict[str, Fault] = {}
        for step, capacity in [("", passive), *asked.items()]:
            why = capacity.lacking(self.room)
            if why is None or capacity.pool in found:
                continue
            named = getattr(runtime.pools, capacity.pool) is not None
            place = ("runtime", "pools", capacity.pool) if named else ("steps", step) if step else ("steps",)
            told = f"asks for {capacity}: {why}; the cluster at {self.address} has {self.room}"
            found[capacity.pool] = Fault(night.loaded.place(*place), None, told)
        return list(found.values())

    def warnings(self, night: Night, asked: dict[str, Capacity]) -> list[str]:
        """What would have to wait, or is less than the job says; and prices that are missing."""
        runtime, told = night.job.runtime, []
        for step, capacity in asked.items():
            place, now = night.loaded.place("steps", step), capacity.fits_now(self.room)
            pool = getattr(runtime.pools, capacity.pool)
            wanted = (pool.workers if pool else None) or runtime.workers
            if now < capacity.workers:
                rest = "an autoscaler may add nodes for the others" if self.room.grows else "the others wait for room"
                none = f": without any within {runtime.wait_for_room_s:g} s (runtime.wait_for_room_s) the step fails"
                told.append(f"{place}: asks for {capacity}, of which {now} fit now; {rest}{'' if now else none}")
            most = capacity.fits(self.room)
            if wanted and capacity.workers == most < wanted and not self.room.grows:
                told.append(f"{place}: {wanted} workers are wanted, and the cluster has room for {most}")
        told += _unpriced(night, list(asked.values()))
        return told


def check_address(address: str | None) -> None:
    """Raise UserError where nothing listens there: Ray itself tries for ten minutes. None, auto and local are well."""
    found = re.fullmatch(r"(?P<scheme>\w+://)?(?P<host>[^/?]+):(?P<port>\d+)(?:/.*)?", address or "")
    if found is None:
        return
    if found["scheme"] in ("http://", "https://"):
        expected = "is a dashboard's address, which `submit` takes; expected auto, HOST:6379 or ray://HOST:10001"
        raise UserError(Fault("--address", address, expected))
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), CONNECT_S).close()
    except (OSError, OverflowError) as fault:
        expected = f"no Ray cluster answers there ({type(fault).__name__})"
        raise UserError(Fault("--address", address, expected)) from fault


def held(asked: Capacity, seconds: float) -> Held:
    """What workers hold that work so long."""
    hours = asked.workers * seconds / 3600
    return Held(gpu_hours={asked.accelerator: hours * asked.gpus}) if asked.gpus else Held(hours * asked.threads)


def measured(choices: Sequence[Choice], asked: Capacity) -> Choice | None:
    """The choice of engine that stands for such workers: on a GPU one that was measured on that kind of GPU."""
    for choice in choices:
        made_on_gpu = any(maker in choice.machine for maker in GPU_MAKERS)
        kind = asked.accelerator.partition("-")[0]  # A100-40G is called NVIDIA A100-SXM4-40GB by its driver
        same = not kind or re.search(rf"\b{re.escape(kind)}\b", choice.machine)
        if made_on_gpu == bool(asked.gpus) and (same or not asked.gpus):
            return choice
    return None


def costs(night: Night, held: Held, tokens: float | None) -> dict[str, float | None]:
    """By each way to pay for machines. tokens: what an endpoint's cost."""
    runtime = night.job.runtime
    by_kind: dict[Kind, float | None] = {kind: runtime.cost(held, kind) for kind in KINDS}
    return {kind: None if cost is None else round(cost + (tokens or 0.0), 6) for kind, cost in by_kind.items()}


def _unpriced(night: Night, asked: Sequence[Capacity]) -> list[str]:
    runtime, told = night.job.runtime, dict[str, None]()
    priced = {kind: runtime.hourly(kind) for kind in KINDS}
    kinds = [kind for kind, prices in priced.items() if prices.cpu_hour is not None or prices.gpu_hour]
    for kind in kinds:
        place = night.loaded.place("runtime", "prices", kind)
        for capacity in asked:
            name = capacity.accelerator
            if capacity.gpus and name not in priced[kind].gpu_hour:
                has = f" (it has {', '.join(priced[kind].gpu_hour)})" if priced[kind].gpu_hour else ""
                told[f"{place}: gpu_hour has no price for {name or 'GPUs whose kind no label tells'}{has}"] = None
            elif not capacity.gpus and priced[kind].cpu_hour is None:
                told[f"{place}: no cpu_hour: what runs on CPUs has no cost"] = None
    return list(told)
