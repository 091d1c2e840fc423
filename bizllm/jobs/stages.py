"""Which stages a step runs, by its task's shape, and what of an earlier night they may copy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from bizllm.infer.buckets import pieces
from bizllm.infer.fit import AnswerFeatures, Fit, FitUnit, feature_files
from bizllm.infer.groups import AnswerGroups, Scatter, ScatterEarlier, gathered
from bizllm.infer.learn import AllTables, Learn, WholeTable
from bizllm.infer.receipts import Receipt
from bizllm.infer.reuse import (
    Carry,
    Earlier,
    EarlierFile,
    Hashes,
    Match,
    Spread,
    Waiting,
    bucket_count,
    pairs,
    row_units,
)
from bizllm.infer.rows import AnswerRows, RowUnit
from bizllm.infer.work import Stage, StepContext, Unit
from bizllm.jobs.accounting import Counts
from bizllm.tables import storage
from bizllm.tables.manifest import Manifest, freeze
from bizllm.tables.source import Source
from bizllm.tables.warehouse import Published, Slice


class RunStage(Protocol):
    """Runs a stage's units that have no receipt yet; all receipts, in the order of the units' ids."""

    def __call__(self, stage: Stage, units: Sequence[Unit]) -> list[Receipt]: ...


Asks = TypeVar("Asks", AnswerRows, AnswerGroups)


class Ready(Protocol):
    """The stage, with the engines that its models are computed by."""

    def __call__(self, stage: Asks, units: Sequence[Unit]) -> Asks: ...


def as_it_is(stage: Asks, units: Sequence[Unit]) -> Asks:
    """A stage whose engines nobody chose."""
    return stage


@dataclass(frozen=True)
class EarlierNights:
    """What a step published before.

    newest: its newest earlier date, whatever made it: `prior_columns` and the last fit come from there.
    answers, files: the night whose answers may be copied, and its files; None where there is none. Of a step that reads
        further tables whole, they are copied where what it learned of them was learned of the same rows.
    source: the step's own table as a source.
    """

    newest: Published | None
    answers: Published | None
    files: Callable[[Published], Slice]
    source: Callable[[], Source]


def work(
    run: RunStage,
    context: StepContext,
    manifest: Manifest,
    buckets: int,
    before: EarlierNights,
    fit_url: str,
    ready: Ready = as_it_is,
    tables: Mapping[str, WholeTable] | None = None,
) -> tuple[list[Receipt], Counts]:
    """Every receipt of the step's stages, and what they add up to.

    fit_url: where a table task's fit goes, without its ending. ready: gives the stage that asks the task, with the
    engines of its models. tables: that the step reads whole, by setting.
    """
    if tables:
        learned = _learned(run, context, before, fit_url, tables)
        said = learned.extra
        context = replace(context, learned=said["learned"])
        if before.answers is not None and before.answers.properties.get("learned_from") != said["learned_from"]:
            before = replace(before, answers=None)
        receipts, counts = work(run, context, manifest, buckets, before, fit_url, ready)
        return [learned, *receipts], counts
    if context.task.shape == "row":
        answers = _rows(run, context, manifest, before, ready)
        return answers, Counts.of(answers, answers, "row", manifest.rows)
    scattered = run(Scatter(context, buckets), manifest.units)
    units = gathered(scattered, _scattered_earlier(run, context, buckets, before))
    if context.task.shape == "group":
        answers = run(ready(AnswerGroups(context), units), units)
        return [*scattered, *answers], Counts.of(answers, answers, "group", manifest.rows)
    featured = run(ready(AnswerGroups(context, features=True), units), units)
    answers = _fitted(run, context, featured, before.newest, fit_url)
    return [*scattered, *featured, *answers], Counts.of(featured, answers, "group", manifest.rows)


def _learned(
    run: RunStage, context: StepContext, before: EarlierNights, fit_url: str, tables: Mapping[str, WholeTable]
) -> Receipt:
    previous = before.answers.properties if before.answers else {}  # of the same fingerprint
    (receipt,) = run(Learn(context, tables, f"{fit_url}.safetensors", previous), [AllTables()])
    return receipt


def _rows(
    run: RunStage, context: StepContext, manifest: Manifest, before: EarlierNights, ready: Ready
) -> list[Receipt]:
    kept = before.files(before.answers) if before.answers else None
    # Files beside which another engine put deletes are not read: a deleted row is no answer.
    files = [EarlierFile(i, file.url) for i, file in enumerate(kept.files)] if kept and kept.plain else []
    if len(manifest.units) == 1 and not files:
        only = [RowUnit(unit) for unit in manifest.units]
        return run(ready(AnswerRows(context), only), only)
    there = kept.files if kept else []
    buckets = bucket_count(manifest.rows + sum(file.rows for file in there), sum(file.bytes for file in there))
    hashes = run(Hashes(context, buckets), manifest.units)
    earlier = run(Earlier(context, buckets), files) if files else []
    matched = run(Match(context), pairs(hashes, earlier))
    units = row_units(manifest.units, matched)
    answers = run(ready(AnswerRows(context, buckets=buckets), units), units)
    waiting = [(number, of) for number, of in pieces(answers).items() if of.get("waiting")]
    if not waiting:
        return answers
    found = any(receipt.extra["found"] for receipt in matched)
    carried = pieces(run(Carry(context, buckets), files)) if found else {}
    left = [
        Waiting(
            number,
            tuple(of["waiting"]),
            tuple(carried.get(number, {}).get("answers", ())),
            tuple(of.get("shared", ())),
        )
        for number, of in waiting
    ]
    return [*answers, *run(Spread(context), left)]


def _scattered_earlier(run: RunStage, context: StepContext, buckets: int, before: EarlierNights) -> list[Receipt]:
    """What earlier nights said of the groups: prior columns of the newest, whole answers of the one that is copied."""
    task = context.task
    made: list[Receipt] = []
    copied = before.answers if task.shape == "group" else None
    own = tuple(name for name in context.schema.names if name not in ("run_date", "run_id"))
    for name, night, columns in (("prior", before.newest, task.prior_columns), ("kept", copied, own)):
        if night is not None and columns:
            source = before.source()
            read = list(dict.fromkeys([*task.group_by(), *columns]))
            units = freeze(source, night.run_date, "day", read).units
            made += run(ScatterEarlier(context, source, buckets, tuple(columns), name), units)
    return made


def _fitted(
    run: RunStage, context: StepContext, featured: Sequence[Receipt], newest: Published | None, fit_url: str
) -> list[Receipt]:
    files = feature_files(featured)
    if not files:
        return []
    (fit,) = run(Fit(context, f"{fit_url}.json", _fit_of(newest)), [FitUnit(tuple(files))])
    url = fit.extra["fit"]
    task = replace(context.task, fitted=json.loads(storage.read_bytes(url)))
    answers = run(AnswerFeatures(replace(context, task=task)), files)
    return [replace(r, extra={**r.extra, "fit": url}) for r in answers]


def _fit_of(published: Published | None) -> dict[str, Any] | None:
    url = published.properties.get("fit") if published else None
    if not url or not storage.exists(url):
        return None
    fit: dict[str, Any] = json.loads(storage.read_bytes(url))
    return fit
