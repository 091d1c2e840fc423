"""Room for a training's workers: what a cluster has for them, how many start, when more are taken, when it gives up.

Workers may be lost at any moment, also while they are started, placed, joined. Whatever the moment, it is one loss: its
room is given back, and as many as there is room for begin at the newest checkpoint.

Ray Train's own policies start what a table of the cluster that is up to 20 s old has room for, other jobs' share
included, and wait a minute for workers that can't start. Here only room that is free counts, on machines that answer.
"""

from __future__ import annotations

import math
import socket
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import ray
from ray._private.state import available_resources_per_node
from ray._private.state import state as cluster_state
from ray.exceptions import RayError, RayTaskError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
    SchedulingState,
    TrainControllerState,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.util.queue import Queue

from bizllm.errors import Fault, RunError, UserError, safe_text
from bizllm.train.host import tell
from bizllm.train.loop import SECONDS_LEFT
from bizllm.train.recipe import Recipe

LOST_WORKER_RETRIES = 3  # without a checkpoint between them: machines may come and go for weeks
LOOK_S = 0.5
SETTLE_S = 3.0  # before fewer than the most start: what ended a moment ago gives its room back
SILENT_S = 60.0  # for a machine that Ray has not given up yet and that answers no more; Ray takes 15 to 25 s
ANSWER_S = 1.0


def resources(recipe: Recipe) -> dict[str, float]:
    """What each worker takes: a GPU where the cluster has any, and its share of the CPUs.

    Raises UserError where the cluster, with all that an autoscaler may add, has too little for the least of workers.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    limits = cluster_state.get_max_resources_from_cluster_config() or {}  # of an autoscaler
    on_gpu = limits.get("GPU", 0) >= 1 or any(node.get("GPU", 0) >= 1 for node in nodes)

    def room(cpus: int) -> int:
        return sum(int(min(node.get("CPU", 0) // cpus, node.get("GPU", 0) if on_gpu else math.inf)) for node in nodes)

    has, kind = limits or ray.cluster_resources(), "GPU" if on_gpu else "CPU"
    most_ever = int(limits.get(kind, 0)) if limits else room(1)
    if most_ever < recipe.least_workers:
        expected = (
            f"the cluster {'grows to' if limits else 'has'} {int(has.get('CPU', 0))} CPUs and "
            f"{int(has.get('GPU', 0))} GPUs: room for {most_ever} workers with a {kind} each"
        )
        raise UserError(Fault("workers", recipe.workers, expected, f"use at most {most_ever}" if most_ever else ""))
    most = recipe.most_workers
    free = int(ray.available_resources().get("CPU", 0)) // most
    cpus = next((cpus for cpus in range(free, 1, -1) if room(cpus) >= most), 1)
    return {"CPU": float(cpus), **({"GPU": 1.0} if on_gpu else {})}


def free(each: dict[str, float]) -> tuple[int, list[str]]:
    """(workers that could start now, addresses with room that do not answer)."""
    left, count, silent = available_resources_per_node(), 0, []
    for node in ray.nodes():
        here = left.get(node["NodeID"], {}) if node["Alive"] else {}
        fit = int(min(here.get(kind, 0.0) // amount for kind, amount in each.items()))
        if fit and _answers(node["NodeManagerAddress"], node["NodeManagerPort"]):
            count += fit
        elif fit:
            silent.append(node["NodeManagerAddress"])
    return count, silent


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


class RoomPolicy(ScalingPolicy):
    """Starts the most workers that there is room for, goes on with fewer after a loss, and takes more later.

    More are taken at a checkpoint, so that no step is lost, where the group has trained for `grow_after_s` and has
    at least as long to go: a start takes half a minute.
    """

    def __init__(self, scaling: ScalingConfig, recipe: Recipe) -> None:
        super().__init__(scaling)
        self._least, self._most, self._grow_after_s = recipe.least_workers, recipe.most_workers, recipe.grow_after_s
        self._each = dict(scaling._resources_per_worker_not_none)
        self._waits_since: float | None = None
        self._reports: Counter[int] = Counter()  # checkpoints by rank
        self._seen, self._left = 0, 0.0

    def _get_num_workers_for_resource_request(self) -> int:
        return self._most

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """As many as there is room for; none yet where that may still change."""
        cast(Any, self)._maybe_send_resource_request()  # an autoscaler hears of it
        now = time.monotonic()
        self._waits_since = self._waits_since or now
        count, silent = free(self._each)
        settle_s = SILENT_S if silent else 0.0 if count >= self._most else SETTLE_S
        if count < self._least or now - self._waits_since < settle_s:
            return NoopDecision()
        self._waits_since = None
        return self._start(count)

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """More, right after a checkpoint, where that is worth a start."""
        cast(Any, self)._maybe_send_resource_request()
        has, left = worker_group_state.num_workers, self._checkpointed(worker_group_status)
        if has >= self._most or left < self._grow_after_s:
            return NoopDecision()
        if time.monotonic() - worker_group_state.start_time < self._grow_after_s:
            return NoopDecision()
        count, silent = free(self._each)
        return NoopDecision() if silent or not count else self._start(has + count)

    def _start(self, count: int) -> ResizeDecision:
        self._reports.clear()
        self._seen = 0
        return ResizeDecision(min(count, self._most), self._each)

    def _checkpointed(self, status: WorkerGroupPollStatus) -> float:
        """The seconds that are left after a checkpoint that all workers have just told of; 0 where there is none."""
        left = 0.0
        for rank, worker in status.worker_statuses.items():
            if worker.training_report is not None:
                self._reports[rank] += 1
                self._left = worker.training_report.metrics.get(SECONDS_LEFT, self._left)
        whole = min((self._reports[rank] for rank in status.worker_statuses), default=0)
        if whole > self._seen:
            self._seen, left = whole, self._left
        return left


class LossPolicy(FailurePolicy):
    """Starts again after each loss; `Guard` says when it is enough.

    Ray Train's own policy does so for workers that train, but takes most losses while they start for faults of its
    controller, which end the training.
    """

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if not isinstance(training_failed_error, ControllerError):
            return FailureDecision.RETRY
        cause = training_failed_error.controller_failure
        lost = isinstance(cause, RayError | WorkerGroupStartupFailedError | WorkerGroupStartupTimeoutError)
        return FailureDecision.RETRY if lost else FailureDecision.RAISE


class Guard(ControllerCallback, WorkerGroupCallback):
    """Lives in the controller; ends what another start can't mend: our own errors, a wait for room without end, and
    losses that come again and again without a checkpoint between them.

    After a loss it gives back at once what room the others hold: Ray Train keeps it until the next start, and for ever
    where they were only starting. So it comes first of all callbacks: it must know of a group that others fail to join.
    """

    def __init__(self, recipe: Recipe, each: dict[str, float], queue: Queue) -> None:
        self._least, self._each, self._most_s = recipe.least_workers, each, recipe.wait_for_room_s
        self._queue = queue
        self._since: float | None = None
        self._group: WorkerGroupState | None = None
        self._losses = 0  # since the last checkpoint

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self._group = worker_group.get_worker_group_state()

    def after_worker_group_poll_status(self, worker_group_status: WorkerGroupPollStatus) -> None:
        for error in worker_group_status.errors.values():
            if isinstance(error, RunError | UserError):
                raise error
        if any(worker.training_report is not None for worker in worker_group_status.worker_statuses.values()):
            self._losses = 0

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        if isinstance(current_state, SchedulingState):
            return  # there is room
        if not isinstance(current_state, InitializingState | RestartingState | ReschedulingState):
            self._since = None
            return
        self._since = self._since or time.monotonic()
        if isinstance(current_state, RestartingState | ReschedulingState) and current_state is not previous_state:
            self._failed(current_state.training_failed_error)
        if time.monotonic() - self._since > self._most_s:
            raise RunError(no_room(self._least, self._each, self._most_s))
        if type(current_state) is type(previous_state):
            time.sleep(LOOK_S)  # a training that waits for room asks in a loop without a pause

    def _failed(self, error: TrainingFailedError) -> None:
        if self._group is not None:
            self._group.placement_group_handle.shutdown()
        self._group = None
        if isinstance(error, ControllerError) and isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
            return  # somebody else took the room: the wait for it goes on
        self._since = time.monotonic()  # what the start took was no wait
        self._losses += 1
        if self._losses > LOST_WORKER_RETRIES:
            raise error
        tell(self._queue, "lost", reason(error))


def reason(error: TrainingFailedError, told: Mapping[int, str] | None = None) -> str:
    """Why workers failed. told: what they said themselves, by rank; one that died outright explains the others' errors.

    The workers train in threads of their own: what a task of theirs raised was raised while they were joined.
    """
    if isinstance(error, WorkerGroupError):
        failures = error.worker_failures.items()
        died = [rank for rank, failure in failures if isinstance(failure, WorkerHealthCheckFailedError)]
        if died:
            return f"worker {died[0]} died: killed, out of memory, or lost with its machine"
        texts = told or {rank: safe_text(failure) for rank, failure in failures}
        return "; ".join(f"worker {rank}: {text}" for rank, text in sorted(texts.items())[:2])
    cause = error.controller_failure if isinstance(error, ControllerError) else error
    if isinstance(cause, RayTaskError):
        return (
            f"the workers could not be joined into a group ({safe_text(cause.cause)}): one died meanwhile, or a "
            "machine's name does not lead to its own address for all others (GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME "
            "name the network interface)"
        )
    return f"a worker died while they started: killed, out of memory, or lost with its machine ({type(cause).__name__})"


def no_room(least: int, each: dict[str, float], seconds: float) -> str:
    """What a cluster lacks, in numbers."""
    has, left = ray.cluster_resources(), ray.available_resources()
    counts = ", ".join(
        f"{int(has.get(kind, 0))} {kind}s of which {int(left.get(kind, 0))} are free" for kind in ("CPU", "GPU")
    )
    count, silent = free(each)
    wanted = " and ".join(f"{int(amount)} {kind}" for kind, amount in each.items())
    quiet = f"; {', '.join(silent)} does not answer" if silent else ""
    return (
        f"no room for {least} workers with {wanted} each within wait_for_room_s ({seconds:g} s): "
        f"{counts}, room for {count} of them now{quiet}"
    )
