"""One run of a job for one date: the steps of its DAG, in order, under the lock; then the ledger and the report."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

from bizllm import logs
from bizllm.errors import Cancelled, Fault, UserError, safe_text
from bizllm.infer.room import PRIVATE
from bizllm.infer.workers import Workers
from bizllm.jobs import ledger, night_report
from bizllm.jobs.interrupts import interruptible
from bizllm.jobs.job import LoadedJob
from bizllm.jobs.ledger import State, StepResult
from bizllm.jobs.lock import RunLock, lock_url
from bizllm.jobs.observe import Observer
from bizllm.jobs.placement import check_address
from bizllm.jobs.prepare import Night, check_tables, prepare
from bizllm.jobs.runtime import Runtime
from bizllm.jobs.sharing import shared_of
from bizllm.jobs.step import StepRun
from bizllm.jobs.submitted import new_run_id, refuse_copies
from bizllm.tables.store_settings import configured

STOP_WAIT_S = 10.0  # for the units at work when a run is interrupted


@dataclass(frozen=True)
class RunResult:
    """How a run ended. report: path or URL of its page."""

    run_id: str
    job: str
    date: date
    state: State
    steps: list[StepResult]
    warehouse: str
    report: str | None

    def to_dict(self) -> dict[str, Any]:
        """What `run --json` prints."""
        return {
            "run_id": self.run_id,
            "job": self.job,
            "date": self.date.isoformat(),
            "state": self.state,
            "steps": [step.to_dict() for step in self.steps],
            "warehouse": self.warehouse,
            "report": self.report,
        }


def run(
    loaded: LoadedJob,
    run_date: date,
    *,
    only: Sequence[str] = (),
    address: str | None = None,
    fresh: bool = False,
    retry_rejects: bool = False,
    observer: Observer | None = None,
) -> RunResult:
    """Run the job's steps for a date. A failed step fails its descendants; the others go on.

    Raises UserError before any work where the input is wrong, LockHeld where another run has the date.
    """
    started = time.monotonic()
    observer = _Serial(observer or Observer())
    night = prepare(loaded, run_date, only)
    refuse_copies(loaded.document)
    _check_upstream(night)
    check_tables(night)
    night.warehouse.check_writable()
    run_id = new_run_id()
    lease_s = night.job.runtime.lock_lease_s
    with RunLock(lock_url(night.warehouse.path, night.job.name, run_date), holder=run_id, lease_s=lease_s) as lock:
        stop, processes = threading.Event(), Workers()
        shared = shared_of(night.steps)
        runs = {
            name: StepRun(
                night,
                step,
                run_id,
                check=lock.check,
                observer=observer,
                stop=stop,
                processes=processes,
                fresh=fresh,
                retry_rejects=retry_rejects,
                shared=shared.get(name),
            )
            for name, step in night.steps.items()
        }
        _freeze(runs)
        if retry_rejects:
            _check_finished(runs)
        # A night that stands is told in seconds: Ray alone takes six to start.
        stands = all(step_run.stands() for step_run in runs.values())
        with nullcontext() if stands else cluster(night.job.runtime, address), processes:
            observer.run_started(night.job.name, run_id, run_date, list(runs))
            results = _Schedule(night, runs, run_id, observer, stop).execute()
        lock.check()
        _record(night, run_id, results)
        report = night_report.save(night, run_id, results, {name: r.details for name, r in runs.items()})
    result = RunResult(
        run_id, night.job.name, run_date, ledger.run_state(results), results, night.warehouse.path, report
    )
    log = logs.get(__name__, job=result.job, run_id=run_id)  # alarms go by this line: see infra/aws/watch.yaml
    log.info("run_done", date=run_date.isoformat(), state=result.state, seconds=round(time.monotonic() - started, 1))
    observer.run_finished(result.to_dict())
    return result


# -- before the work ----------------------------------------------------------------------------------------------


def _check_upstream(night: Night) -> None:
    """A step that runs without the step that it reads needs that one's published slice."""
    missing = [
        Fault(
            "--only",
            step.name,
            f"reads step '{upstream}', which has nothing published for {night.run_date}",
            f"add --only {upstream}",
        )
        for step in night.steps.values()
        for upstream in step.awaits
        if upstream not in night.steps
        if night.warehouse.newest(night.job.name, upstream, night.run_date) is None
    ]
    if missing:
        raise UserError(*missing)


def _freeze(runs: dict[str, StepRun]) -> None:
    """Decide the input of every step that reads only sources; what is missing is told before any work."""
    faults: list[Fault] = []
    for step_run in runs.values():
        if not step_run.step.awaits:
            try:
                step_run.freezer.freeze()
            except UserError as fault:
                faults += fault.faults
    if faults:
        raise UserError(*dict.fromkeys(faults))


def _check_finished(runs: dict[str, StepRun]) -> None:
    """Only what a finished night rejected can be tried again."""
    faults = [
        Fault(
            "--retry-rejects",
            name,
            f"has no finished night of {step_run.run_date} with this input and these settings",
            "run the job without it",
        )
        for name, step_run in runs.items()
        if not step_run.step.awaits and not step_run.finished()
    ]
    if faults:
        raise UserError(*faults)


# -- Ray ----------------------------------------------------------------------------------------------------------


@contextmanager
def cluster(runtime: Runtime, address: str | None) -> Iterator[None]:
    """Ray, for the time of a run, in which a SIGTERM interrupts like Ctrl-C: see `_ray`."""
    with interruptible(), _ray(runtime, address), interruptible():  # between, Ray puts a handler of its own
        yield


@contextmanager
def _ray(runtime: Runtime, address: str | None) -> Iterator[None]:
    """Ray, for the time of a run: the one that is up in this process, the one at `address` (or RAY_ADDRESS), or a
    private local one of the size that `runtime` says."""
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    check_address(address)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": bool(os.environ.get("BIZLLM_DEBUG"))}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default; the warning is noise
    try:
        if address and address != "local":
            carried = configured()  # workers elsewhere do not inherit them
            ray.init(address=address, runtime_env={"env_vars": carried} if carried else None, **quiet)
        else:
            store = runtime.object_store_mb * 1_000_000 if runtime.object_store_mb else 500_000_000
            ray.init(
                address="local",
                num_cpus=runtime.num_cpus,
                object_store_memory=store,
                labels=PRIVATE,
                include_dashboard=False,
                **quiet,
            )
    except (ConnectionError, ValueError, RuntimeError) as fault:
        if address is None:
            raise
        expected, hint = f"no Ray cluster answers there ({type(fault).__name__})", ""
        if isinstance(fault, ConnectionAbortedError):  # of ray://
            expected = "a Ray cluster is there, and started no server for this driver"
            hint = "the head was too busy, or its ray_client_server_*.err says why; try again"
        raise UserError(Fault("--address", address, expected, hint)) from fault
    try:
        yield
    finally:
        ray.shutdown()


# -- the DAG ------------------------------------------------------------------------------------------------------


class _Schedule:
    """Starts each step when what it reads is published, some at once, and ends with one result a step."""

    def __init__(
        self, night: Night, runs: dict[str, StepRun], run_id: str, observer: Observer, stop: threading.Event
    ) -> None:
        self.night, self.runs, self.run_id, self.observer, self.stop = night, runs, run_id, observer, stop
        self.log = logs.get(__name__, job=night.job.name, run_id=run_id)
        self.results: dict[str, StepResult] = {}

    def execute(self) -> list[StepResult]:
        """Results in the order of the job."""
        waiting = list(self.runs)
        running: dict[Future[StepResult], str] = {}
        with interruptible(), ThreadPoolExecutor(self._width()) as pool:
            try:
                while waiting or running:
                    for name in [name for name in waiting if self._ready(name)]:
                        waiting.remove(name)
                        if reason := self._blocked(name):
                            self.results[name] = self._without(name, "skipped", reason)
                            self._tell(self.results[name])
                        else:
                            running[pool.submit(self._one, name)] = name
                    if running:
                        done, _ = wait(running, return_when=FIRST_COMPLETED)
                        for future in done:
                            self.results[running.pop(future)] = future.result()
            except KeyboardInterrupt:
                self.stop.set()
                finished, _ = wait(running, timeout=STOP_WAIT_S)
                for future in finished:
                    self.results[running[future]] = future.result()
                for name in self.runs:
                    if name not in self.results:
                        self.results[name] = self._without(name, "cancelled", "interrupted")
                        self._tell(self.results[name])
                pool.shutdown(wait=False, cancel_futures=True)
        return [self.results[name] for name in self.runs]

    def _width(self) -> int:
        import ray

        cpus = int(ray.cluster_resources().get("CPU", 1)) if ray.is_initialized() else 1
        return self.night.job.runtime.concurrent_steps or max(1, cpus // 4)

    def _upstream(self, name: str) -> list[str]:
        return [upstream for upstream in self.night.steps[name].awaits if upstream in self.runs]

    def _ready(self, name: str) -> bool:
        shared = self.runs[name].shared
        leads = shared is None or shared.leader in (name, *self.results)  # it computes what this one reads
        return leads and all(upstream in self.results for upstream in self._upstream(name))

    def _blocked(self, name: str) -> str | None:
        for upstream in self._upstream(name):
            if self.results[upstream].state not in ("done", "unchanged"):
                return f"step '{upstream}', which it reads, is {self.results[upstream].state}"
        return None

    def _one(self, name: str) -> StepResult:
        result = self._outcome(name)
        self._tell(result)
        return result

    def _outcome(self, name: str) -> StepResult:
        try:
            return self.runs[name].execute()
        except Cancelled:
            return self._without(name, "cancelled", "interrupted")
        except Exception as fault:  # one step's failure is its result; the other steps go on
            if self.stop.is_set():
                return self._without(name, "cancelled", "interrupted")
            self.log.error("step_failed", step=name, error=safe_text(fault))
            if os.environ.get("BIZLLM_DEBUG"):
                logging.getLogger("bizllm").exception("step %s", name)
            return self._without(name, "failed", safe_text(fault))

    def _without(self, name: str, state: Any, error: str) -> StepResult:
        """The result of a step that published nothing."""
        step_run = self.runs[name]
        return StepResult(
            self.night.run_date,
            self.run_id,
            name,
            step_run.step.task.name,
            f"{self.night.job.name}.{name}",
            state,
            step_run.started_at,
            seconds=step_run.elapsed() if state == "failed" else 0.0,
            rows_rejected=0,
            fingerprint=step_run.step.fingerprint,
            error=error,
        )

    def _tell(self, result: StepResult) -> None:
        self.log.info("step_done", step=result.step, state=result.state, rows=result.rows_in, seconds=result.seconds)
        self.observer.step_finished(result.to_dict())


# -- after the work -----------------------------------------------------------------------------------------------


def _record(night: Night, run_id: str, results: Sequence[StepResult]) -> None:
    """The ledger rows of this run, and those that an earlier run published but could not write."""
    standing = [
        (result.step, result.task, published)
        for result in results
        if result.state == "unchanged"
        if (published := night.warehouse.newest(night.job.name, result.step, night.run_date))
    ]
    for row in ledger.missing(night.warehouse, night.job.name, standing):
        ledger.write(night.warehouse, night.job.name, f"{row.run_id}-{row.step}", row.run_date, [row])
    ledger.write(night.warehouse, night.job.name, run_id, night.run_date, results)


class _Serial(Observer):
    """Passes events on from one thread at a time, and never lets a listener's fault end a run."""

    def __init__(self, inner: Observer) -> None:
        self._inner, self._lock = inner, threading.Lock()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        call: Callable[..., None] = getattr(self._inner, name)

        def passed(*args: Any) -> None:
            with self._lock, suppress(Exception):
                call(*args)

        return passed
