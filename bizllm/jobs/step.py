"""One step of one run: freeze the input, work through the stages, compact, audit, publish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from bizllm import logs
from bizllm.infer.finish import Audit, Compact, Slice, audits_of, merged_exhibit, piled, replaced
from bizllm.infer.kept_engines import Kept
from bizllm.infer.pipeline import run_stage
from bizllm.infer.receipts import Receipt, ReceiptBook, sum_rejects
from bizllm.infer.work import Stage, StepContext, Unit
from bizllm.infer.workers import Workers
from bizllm.jobs import engines, stages
from bizllm.jobs.accounting import Counts, Refused, Rejects, cost_of, paid
from bizllm.jobs.freezing import Freezer, Frozen, slice_source
from bizllm.jobs.ledger import StepResult
from bizllm.jobs.observe import Observer
from bizllm.jobs.prepare import Night, PreparedStep
from bizllm.jobs.sharing import Shared
from bizllm.jobs.stages import Asks, EarlierNights
from bizllm.prices import Held
from bizllm.tables import storage
from bizllm.tables.audit import AuditResult
from bizllm.tables.source import Source
from bizllm.tables.upkeep import KEPT_BESIDE
from bizllm.tables.warehouse import Published, StagedFile


@dataclass
class StepDetails:
    """What the report shows of a step beside its ledger row."""

    audits: list[AuditResult] = field(default_factory=list)
    rejects: Rejects = field(default_factory=dict)
    exhibit: pa.Table | None = None


class StepRun:
    """Runs one prepared step once.

    fresh: drop what an unfinished run left, and copy no earlier answer. retry_rejects: answer again what this very
    night rejected, and copy the rest. shared: its part in vectors that several steps read. processes: those of the run.
    """

    def __init__(
        self,
        night: Night,
        step: PreparedStep,
        run_id: str,
        *,
        check: Callable[[], None],
        observer: Observer,
        stop: threading.Event,
        processes: Workers,
        fresh: bool = False,
        retry_rejects: bool = False,
        shared: Shared | None = None,
    ) -> None:
        self.night, self.step, self.run_id, self.shared = night, step, run_id, shared
        self.check, self.observer, self.stop, self.processes = check, observer, stop, processes
        self.fresh, self.retry_rejects = fresh, retry_rejects
        self.job, self.warehouse, self.run_date = night.job, night.warehouse, night.run_date
        self.state_url = storage.join(
            self.warehouse.path, "_bizllm", self.job.name, "state", self.run_date.isoformat(), step.name
        )
        self.location = self.warehouse.table_location(self.job.name, step.name)
        self.started_at = datetime.now(UTC)
        self.started = time.perf_counter()
        self.log = logs.get(__name__, job=night.job.name, run_id=run_id, step=step.name)
        self.details = StepDetails()
        self.engines: dict[str, Kept] = {}
        self.engine: str | None = None  # in words
        self.held = Held()  # of the cluster
        self.paid: float | None = None  # for the tokens of endpoints that have a price
        self.freezer = Freezer(night, step, self.state_url, fresh=fresh, earlier=self._earlier)

    # -- the whole ------------------------------------------------------------------------------------------------

    def execute(self) -> StepResult:
        """Publish the step's night, or find that it stands. Raises RunError (or UserError) where it can't."""
        self.started_at, self.started = datetime.now(UTC), time.perf_counter()
        frozen = self.freezer.freeze()
        published = self._standing(frozen)
        if published is not None:
            self.observer.step_started(self.step.name, self.step.task.name, 0)
            return self._result("unchanged", published=published)
        if self.freezer.keep(frozen):
            self.log.info("resumed")
        context = self._context(frozen.source)
        self.observer.step_started(self.step.name, self.step.task.name, len(frozen.manifest.units))
        receipts, counts = self._worked(context, frozen)
        self.details.rejects = sum_rejects(receipts)
        try:
            counts.hold(self.details.rejects, self.step.settings.reject_budget)
            files = self._compacted(context, receipts, lambda r: r.files, rejects=False)
            rejects = self._compacted(context, receipts, lambda r: r.reject_files, rejects=True)
            self._audited(context, files, counts)
        except Refused:
            storage.delete_tree(self.state_url)  # the data must change: the next run is to freeze it anew
            raise
        self.engine = engines.told(context, self.engines, receipts, self.shared)
        self.paid = paid(receipts)
        properties = self._properties(frozen, counts, receipts)
        with self._stage("publish", 1):
            snapshot = self._publish(files, rejects, properties)
        self.details.exhibit = merged_exhibit(receipts)
        storage.delete_tree(self.state_url)
        failed = storage.delete_each(replaced(receipts, [*files, *rejects]))
        if failed:  # the night is published all the same
            self.log.warning("staged_files_stay", files=len(failed), error=failed[0])
        return self._result("done", counts, snapshot_id=snapshot)

    def _publish(self, files: Sequence[StagedFile], rejects: Sequence[StagedFile], properties: dict[str, str]) -> int:
        """The id of the table's snapshot, which is the commit point."""
        job, name, step = self.job.name, self.step.name, self.step
        self.check()
        self.warehouse.publish(
            job, f"{name}__rejects", step.reject_schema, self.run_date, rejects, properties, self.check
        )
        return self.warehouse.publish(job, name, step.schema, self.run_date, files, properties, self.check)

    @contextmanager
    def _stage(self, name: str, units: int) -> Iterator[None]:
        """Tells the observer of a stage, whatever becomes of it."""
        began = time.perf_counter()
        self.observer.stage_started(self.step.name, name, units)
        try:
            yield
        finally:
            self.observer.stage_finished(self.step.name, name, round(time.perf_counter() - began, 3))

    def elapsed(self) -> float:
        """Seconds since the step began."""
        return round(time.perf_counter() - self.started, 3)

    def _context(self, source: Source) -> StepContext:
        day = f"run_date={self.run_date}"
        rejects = self.warehouse.table_location(self.job.name, f"{self.step.name}__rejects")
        return StepContext(
            self.job.name,
            self.step.name,
            self.run_id,
            self.run_date,
            self.step.task,
            source,
            self.step.model,
            self.step.model_version,
            self.step.schema,
            self.step.reject_schema,
            storage.join(self.location, "data", day),
            storage.join(rejects, "data", day),
            self.state_url,
            self.step.pinned,
            shown=self.night.loaded.sensitive(self.step.name) is None
            and not (self.step.settings.drop and self.step.task.exhibits != "series"),
        )

    # -- whether it stands ----------------------------------------------------------------------------------------

    def stands(self) -> bool:
        """Whether nothing is to be done. Ask in the order of the steps: one that reads a step that does not stand
        must not be asked."""
        return self._standing(self.freezer.freeze()) is not None

    def finished(self) -> bool:
        """Whether the same input and fingerprint made what is published for the date. Asked as `stands`."""
        return self._published(self.freezer.freeze()) is not None

    def _standing(self, frozen: Frozen) -> Published | None:
        """What is published for the date, where nothing of it is to be made anew."""
        published = None if self.fresh else self._published(frozen)
        rejected = published is not None and int(published.properties.get("rows_rejected", 0))
        return None if self.retry_rejects and rejected else published

    def _published(self, frozen: Frozen) -> Published | None:
        published = self.warehouse.newest(self.job.name, self.step.name, self.run_date)
        said = published.properties if published else {}
        same = (said.get("fingerprint"), said.get("manifest")) == (self.step.fingerprint, frozen.hash)
        return published if same else None

    # -- the stages -----------------------------------------------------------------------------------------------

    def _worked(self, context: StepContext, frozen: Frozen) -> tuple[list[Receipt], Counts]:
        job, name = self.job.name, self.step.name
        newest = self.warehouse.newest_before(job, name, self.run_date)
        answers = next((n for n in self.warehouse.history(job, name) if n.snapshot_id == frozen.earlier), None)
        before = EarlierNights(
            newest,
            answers,
            lambda night: self.warehouse.files(job, name, night.run_date, night.snapshot_id),
            lambda: slice_source(self.night, name, self.step.task.group_by()),
        )
        fit_url, manifest = storage.join(self.location, "fits", self.run_id), frozen.manifest

        def ready(stage: Asks, units: Sequence[Unit]) -> Asks:
            tokens, _ = self.step.task.estimate(manifest.rows, manifest.bytes)
            urls, shared = engines.urls_of(self.night, self.step, self.shared), self.shared
            self.engines = engines.chosen(self._run, stage, units, urls, tokens, shared is not None)
            vectors = shared.vectors(self.warehouse.path, job, self.step) if shared else {}
            if self.fresh and shared and shared.leader == name:
                for url in vectors.values():  # made anew, once for all that share them
                    storage.delete_tree(url)
            return replace(stage, context=replace(stage.context, engines=self.engines, vectors=vectors))

        return stages.work(self._run, context, manifest, frozen.buckets, before, fit_url, ready, frozen.tables)

    def _earlier(self) -> int | None:
        """The snapshot whose answers may be copied: of this date, else of the newest earlier one, where the same
        fingerprint made it."""
        job, name, task = self.job.name, self.step.name, self.step.task
        wanted = self.retry_rejects or (self.step.settings.reuse and not self.fresh)
        if not wanted or task.shape == "table":
            return None
        nights = [self.warehouse.newest(job, name, self.run_date)]
        if not task.depends_on_date():
            nights.append(self.warehouse.newest_before(job, name, self.run_date))
        for night in nights:
            if night is not None and night.rows and night.properties.get("fingerprint") == self.step.fingerprint:
                return night.snapshot_id
        return None

    def _run(self, stage: Stage, units: Sequence[Unit], book: str | None = None) -> list[Receipt]:
        """The receipts of all units of a stage, those that an unfinished run left among them."""
        receipts = ReceiptBook(self.state_url, book or stage.name)
        total = len(units)
        seen = {"rows": sum(r.rows_in for r in receipts), "rejected": sum(r.rejected_subjects for r in receipts)}
        done = [len(receipts)]

        def taken(receipt: Receipt) -> None:
            done[0] += 1
            seen["rows"] += receipt.rows_in
            seen["rejected"] += sum(receipt.rejected.values())
            self.observer.unit_worked(self.step.name, stage.name, receipt.seconds, receipt.tokens)
            if stage.name == "answer":
                self.observer.unit_done(self.step.name, done[0], total, seen["rows"], seen["rejected"])

        runtime = self.job.runtime
        with self._stage(stage.name, total):
            self.held += run_stage(
                stage,
                units,
                receipts,
                workers=runtime.workers,
                pools=runtime.pools,
                wait_s=runtime.wait_for_room_s,
                processes=self.processes,
                stop=self.stop,
                on_receipt=taken,
                log=self.log,
            )
        return list(receipts)

    # -- the end --------------------------------------------------------------------------------------------------

    def _compacted(
        self,
        context: StepContext,
        receipts: Sequence[Receipt],
        pick: Callable[[Receipt], Sequence[StagedFile]],
        *,
        rejects: bool,
    ) -> list[StagedFile]:
        keep, piles = piled(receipts, pick, self.run_id, rejects=rejects)
        made = self._run(Compact(context), piles, f"compact-{self.run_id}-{'r' if rejects else 'p'}") if piles else []
        return [*keep, *(file for receipt in made for file in pick(receipt))]

    def _audited(self, context: StepContext, files: Sequence[StagedFile], counts: Counts) -> None:
        numbers = {
            "rows_in": counts.rows_in,
            "rows_out": counts.rows_out,
            "rows_rejected": counts.rows_rejected,
            "records_out": counts.records_out,
        }
        (receipt,) = self._run(Audit(context), [Slice(tuple(f.url for f in files), numbers)], f"audit-{self.run_id}")
        self.details.audits = audits_of(receipt)
        broken = [a for a in self.details.audits if a.broken]
        if broken:
            said = "; ".join(f"{a.name}: {a.broken:,} of {a.checked:,} broken ({a.detail})" for a in broken)
            raise Refused(f"audit failed, nothing is published: {said}")

    def _properties(self, frozen: Frozen, counts: Counts, receipts: Sequence[Receipt]) -> dict[str, str]:
        kept = (*KEPT_BESIDE, "learned_from")
        beside = {name: receipt.extra[name] for receipt in receipts for name in kept if name in receipt.extra}
        said = {
            "run_id": self.run_id,
            "fingerprint": self.step.fingerprint,
            "manifest": frozen.hash,
            "task": self.step.task.name,
            "started_at": self.started_at.isoformat(),
            "seconds": str(self.elapsed()),
            "rows_in": str(counts.rows_in),
            "rows_out": str(counts.rows_out),
            "rows_rejected": str(counts.rows_rejected),
            "rows_reused": str(counts.rows_reused),
            "records_out": str(counts.records_out),
            "tokens": str(counts.tokens),
        }
        said |= {"engine": self.engine} if self.engine else {}
        return said | beside

    def _result(
        self,
        state: Any,
        counts: Counts | None = None,
        published: Published | None = None,
        snapshot_id: int | None = None,
    ) -> StepResult:
        seconds = self.elapsed()
        said = published.properties if published else {}

        def number(name: str) -> int:
            return int(getattr(counts, name) if counts else said.get(name, 0))

        return StepResult(
            self.run_date,
            self.run_id,
            self.step.name,
            self.step.task.name,
            f"{self.job.name}.{self.step.name}",
            state,
            self.started_at,
            rows_in=number("rows_in"),
            rows_out=number("rows_out"),
            rows_rejected=number("rows_rejected"),
            rows_reused=number("rows_reused"),
            records_out=number("records_out"),
            tokens=counts.tokens if counts else 0,
            seconds=seconds,
            cost=cost_of(self.job.runtime.cost(self.held), self.paid),
            snapshot_id=published.snapshot_id if published else snapshot_id,
            fingerprint=self.step.fingerprint,
            engine=self.engine or said.get("engine"),
        )
