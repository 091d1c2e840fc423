"""Ray Train runs the training loop on the workers of a cluster: started, fed, watched, started again after a loss.

Ray Train's own memory of checkpoints is not used to go on: a checkpoint that is whole but was not yet told to its
controller would be lost, and a snapshot that a kill cut short would end every later start. `kept` looks at the files.
"""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import ray
from ray.exceptions import RayActorError, RayError
from ray.train.torch import TorchConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bizllm import logs
from bizllm.errors import RunError, UserError, safe_text
from bizllm.tables import storage
from bizllm.tables.store_settings import configured
from bizllm.tables.urls import local_path
from bizllm.train import kept, plain
from bizllm.train.host import work_as_one
from bizllm.train.loop import Summary
from bizllm.train.progress import TrainingObserver
from bizllm.train.recipe import Recipe
from bizllm.train.room import LOST_WORKER_RETRIES, Guard, LossPolicy, RoomPolicy, reason, resources
from bizllm.train.work import Work

STOP_WAIT_S = 5.0
LOOK_S = 0.5
WAITING_FIGURES = 10_000  # more are dropped
PLACE_S = 10  # for workers for which there is room; then that room is looked for anew

_log = logs.get(__name__)

Log = Callable[[int, Mapping[str, float], str], None]


def launch(work: Work, run_url: str, *, observer: TrainingObserver | None = None, log: Log | None = None) -> Summary:
    """Train on the cluster that Ray is connected to, or go on from the newest whole checkpoint under `run_url`.

    run_url: the run's folder, which holds the prepared `work/`; every machine must see it. observer and log hear each
    step once, from one thread, also where steps are computed again after a loss. Raises UserError where the cluster
    can't give the workers, RunError where the training fails; KeyboardInterrupt leaves the last checkpoint.
    """
    recipe = work.recipe
    run_url = local_path(run_url) if storage.is_local(run_url) else run_url  # workers have other working folders
    each = resources(recipe)
    kept.drop_old(run_url)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:4]}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(WAITING_FIGURES, actor_options={"num_cpus": 0, "scheduling_strategy": here})
    store, path = storage.filesystem(storage.join(run_url, kept.CHECKPOINTS))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "1")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(PLACE_S))
    threads = int(each["CPU"])
    config = {"run_url": run_url, "launch": name, "queue": queue, "threads": threads}
    scaling = ScalingConfig(num_workers=recipe.workers, use_gpu="GPU" in each, resources_per_worker=each)
    trainer = _Trainer(
        RoomPolicy(scaling, recipe),
        cast(Any, work_as_one),  # Ray Train's own type forbids an answer, which it passes on
        train_loop_config=config,
        scaling_config=scaling,
        torch_config=TorchConfig(backend="nccl" if "GPU" in each else "gloo"),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=store,
            checkpoint_config=CheckpointConfig(num_to_keep=kept.NEWEST),
            callbacks=[cast(Any, Guard(recipe, each, queue))],
            worker_runtime_env={"env_vars": _environment(threads)},
            logging_config=LoggingConfig(log_level="DEBUG" if os.environ.get("BIZLLM_DEBUG") else "CRITICAL"),
        ),
    )
    relay = _Relay(queue, recipe, observer, log)
    try:
        with relay.listening():
            result = trainer.fit()
    except KeyboardInterrupt:
        trainer.stop()
        raise
    except ControllerError as failed:
        cause = failed.controller_failure
        if isinstance(cause, TrainingFailedError):  # one loss too many
            raise RunError(relay.failure(cause)) from None
        if isinstance(cause, RunError | UserError):
            raise cause from None
        raise RunError(f"Ray Train failed: {safe_text(cause)}") from None
    except RayError as failed:
        raise RunError(f"Ray lost the training's controller ({type(failed).__name__})") from failed
    finally:
        queue.shutdown(force=True)
    summary = cast(Any, result).return_value
    assert isinstance(summary, Summary), "a training that ends well returns its summary"
    kept.drop_old(run_url, best=summary.best_weights)
    return summary


def _environment(threads: int) -> dict[str, str]:
    return {
        **configured(),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONDONTWRITEBYTECODE": "",  # else every worker compiles its imports again
        **dict([plain.HUGE_PAGES]),
    }


# -- Ray Train's controller ---------------------------------------------------------------------------------------


class _Trainer(TorchTrainer):
    """Asks our policies how many workers start, and when again; leaves Ctrl-C to us: Ray Train's ends with status 0."""

    def __init__(self, policy: RoomPolicy, *said: Any, **more: Any) -> None:
        super().__init__(*said, **more)
        self._policy = policy
        self._controller: Any = None

    def _initialize_and_run_controller(self, **said: Any) -> Any:
        ours = {"scaling_policy": self._policy, "failure_policy": LossPolicy(FailureConfig())}
        return super()._initialize_and_run_controller(**{**said, **ours})

    def _register_sigint_handler(self, controller: Any) -> None:
        self._controller = controller

    def _create_default_callbacks(self) -> list[Any]:
        # The cleaner outlives a controller that was killed, and cleans up what the end of our job does anyway. It asks
        # the dashboard, which a private Ray lacks, and a stop waits for its answer for ten seconds. Nothing here is of
        # Ray Data: its manager is one more process, which takes 2 s of a CPU while the workers start.
        made = super()._create_default_callbacks()
        needed = [one for one in made if not isinstance(one, PlacementGroupCleanerCallback | DatasetsCallback)]
        return sorted(needed, key=lambda one: not isinstance(one, Guard))

    def stop(self) -> None:
        """End the workers and give their room back."""
        if self._controller is None:
            return
        try:
            ray.get(self._controller.abort.remote(), timeout=STOP_WAIT_S)
        except RayActorError:
            pass  # it has ended itself
        except RayError:
            ray.kill(self._controller)  # it waits for room, and hears nothing meanwhile


# -- what workers tell --------------------------------------------------------------------------------------------


class _Relay:
    """Takes what workers tell, and passes each step's figures on once."""

    def __init__(self, queue: Queue, recipe: Recipe, observer: TrainingObserver | None, log: Log | None) -> None:
        self._queue, self._recipe = queue, recipe
        self._observer, self._log = observer or TrainingObserver(), log
        self._told: dict[str, int] = {}  # the last step, by split
        self._failures: dict[int, str] = {}
        self._last_new, self._lost = time.monotonic(), False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen in a thread until the block ends and all that was told is passed on."""
        stop = threading.Event()
        thread = threading.Thread(target=self._listen, args=(stop,), name="figures", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(STOP_WAIT_S)

    def failure(self, lost: TrainingFailedError) -> str:
        """Why workers were lost the last time."""
        return (
            f"the training failed {LOST_WORKER_RETRIES + 1} times without a checkpoint between; the last time: "
            + reason(lost, self._failures)
        )

    def _listen(self, stop: threading.Event) -> None:
        while True:
            ending = stop.is_set()
            try:
                self._take(*self._queue.get(timeout=LOOK_S))
            except Empty:
                if ending:
                    return
            except RayError:
                return

    def _take(self, kind: str, *said: Any) -> None:
        if kind == "figures":
            self._figures(*said)
        elif kind == "failed":
            rank, text = said
            self._failures[rank] = text
        elif kind == "lost":
            (why,) = said
            self._lost = True
            _log.warning("workers_lost", reason=why)
            self._observer.lost(why)
        else:
            nodes, step = said
            self._failures.clear()
            _log.info("workers_started", workers=len(nodes), step=step, nodes=", ".join(nodes))
            self._observer.workers(len(nodes), step)

    def _figures(self, step: int, values: dict[str, float], split: str) -> None:
        if step <= self._told.get(split, 0):
            return  # computed again after a loss
        self._told[split] = step
        now = time.monotonic()
        if self._lost:
            self._lost, seconds = False, now - self._last_new
            _log.info("loss_made_up", step=step, seconds=round(seconds, 1))
            self._observer.made_up(step, seconds)
        self._last_new = now
        if self._log is not None:
            self._log(step, values, split)
        if split == "validation":
            self._observer.validated(values)
        else:
            per_epoch = round(step / values["epoch"])
            self._observer.step(step, max(1, math.ceil(self._recipe.optim.epochs * per_epoch)), values)
