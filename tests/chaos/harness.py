"""A job with an old night, runs that are hit by a fault, and a reader that looks on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bizllm import api
from bizllm.errors import RunError, UserError

NIGHT = "2026-03-10"
ROWS, UNIT, SHOPS = 240, 40, 12
STEPS = ("summary", "shops")
HANG_S = 1.5  # after a hang has begun, the machine "is taken away"


@dataclass(frozen=True)
class Case:
    """One fault: at the nth call of a point, or of the run's own local Ray (`node`) for faults of a whole node."""

    point: str
    nth: int
    action: str

    @property
    def name(self) -> str:
        """For a test's id and the table."""
        return f"{self.action} at {self.point} {self.nth}".replace(" ", "-")

    @property
    def own_ray(self) -> bool:
        """Whether the run has a Ray of its own, because Ray does not outlive it."""
        return self.action == "kill node"


@dataclass
class Report:
    """What a case came to."""

    hit: bool = False
    first_exit: int | None = None
    again_exit: int | None = None
    looks: int = 0
    seconds: float = 0.0
    asked: int = 0
    undisturbed: int = 0
    faults: list[str] = field(default_factory=list)


class Shop:
    """The job in `folder/live`: its old night is published, its input changed since. `restore` puts both back."""

    def __init__(self, folder: Path, address: str, env: dict[str, str]) -> None:
        self.address, self.env, self.faults = address, env, Path(env["BIZLLM_FAULTS"])
        self.live, self.kept = folder / "live", folder / "kept"
        self.path = str(self.live / "shop.yaml")
        (self.live / "tickets").mkdir(parents=True)
        job = {
            "name": "shop",
            "warehouse": {"path": "wh"},
            "sources": {"tickets": {"path": "tickets", "key": ["id"]}},
            "steps": {
                "summary": {"task": "summarize", "input": "tickets", "text": "body", "max_sentences": 1},
                "shops": {"task": "summarize", "input": "tickets", "text": "body", "per": ["shop"], "max_sentences": 2},
            },
            "runtime": {"num_cpus": 2, "object_store_mb": 100, "unit_rows": UNIT, "workers": 1, "lock_lease_s": 5},
        }
        Path(self.path).write_text(yaml.safe_dump(job))
        self._write(0)
        self._run_quietly()
        self.old = self.night()
        self._write(1)
        shutil.copytree(self.live, self.kept)
        self._run_quietly()
        self.new = self.night()
        self.undisturbed = self.asked()
        assert self.old != self.new and self.accounted() == []

    def restore(self) -> None:
        """The old night, published, and the new input."""
        shutil.rmtree(self.live)
        shutil.copytree(self.kept, self.live)

    def _write(self, version: int) -> None:
        """A fourth of the rows, three whole shops among them, is the same in all versions; some are the same in each
        unit; one has no text."""

        def body(i: int) -> str | None:
            of = f"{i % UNIT if i % UNIT == 1 else i} of {version if i % 4 else 0}"
            text = f"Parcel {of} came late. The box {of} was wet. I want my money back. Call me."
            return None if i == 7 else text

        rows = [{"id": f"t{i}", "shop": f"s{i % SHOPS}", "body": body(i)} for i in range(ROWS)]
        pq.write_table(pa.Table.from_pylist(rows), self.live / "tickets/part-0.parquet", row_group_size=UNIT)

    # -- runs -----------------------------------------------------------------------------------------------------

    def start(self, own_ray: bool = False) -> subprocess.Popen[str]:
        """`bizllm run` in a session of its own."""
        where = [] if own_ray else ["--address", self.address]
        process = subprocess.Popen(
            [sys.executable, "-m", "bizllm.cli", "run", self.path, "--date", NIGHT, "--json", *where],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        (self.faults / "driver.pid").write_text(str(process.pid))
        return process

    def _run_quietly(self) -> None:
        self.clear()
        process = self.start()
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, out + err

    def asked(self) -> int:
        """How many texts tasks were asked for since `clear`."""
        calls = self.faults / "calls.log"
        return sum(map(int, calls.read_text().split())) if calls.exists() else 0

    def clear(self) -> None:
        """No fault is ordered, nothing was called."""
        for file in self.faults.iterdir():
            file.unlink()

    # -- what a reader sees ---------------------------------------------------------------------------------------

    def night(self) -> dict[str, Any]:
        """Each table's rows of the night, without what tells runs apart. Raises where a table can't be read."""
        seen = {}
        for step in STEPS:
            for view, own in ((step, "run_id, produced_at"), (f"{step}__rejects", "run_id, unit")):
                with suppress(UserError):  # there is no such table yet
                    query = f"select * exclude ({own}) from {view} where run_date = '{NIGHT}' order by all"
                    seen[view] = api.show(self.path, sql=query).to_pylist()
        return seen

    def accounted(self) -> list[str]:
        """What is wrong with the books of the published night."""
        faults = []
        ledger = api.runs(self.path)
        for step in STEPS:
            query = f"select distinct run_id from {step} where run_date = '{NIGHT}'"
            ids = {row["run_id"] for row in api.show(self.path, sql=query).to_pylist()}
            rows = [row for row in ledger if row["step"] == step and row["run_id"] in ids and row["state"] == "done"]
            if len(ids) != 1 or len(rows) != 1:
                faults.append(f"{step}: {len(ids)} runs in the table, {len(rows)} rows in the ledger")
                continue
            (row,) = rows
            expected = ROWS if step == "summary" else SHOPS
            if not expected == row["rows_in"] == row["rows_out"] + row["rows_rejected"]:
                faults.append(f"{step}: {row['rows_in']} in, {row['rows_out']} out, {row['rows_rejected']} rejected")
        names = [(row["run_id"], row["step"]) for row in ledger]
        if len(set(names)) < len(names):
            faults.append("the ledger has a row twice")
        left = [f for f in (self.live / "wh/_bizllm/shop/state").rglob("*") if f.is_file()]
        return faults + ([f"{len(left)} files of an unfinished run are left"] if left else [])

    def known(self, seen: dict[str, Any]) -> list[str]:
        """The tables of a look that are neither the old night's nor the new one's."""
        return [name for name, rows in seen.items() if rows not in (self.old.get(name), self.new.get(name))]


@contextmanager
def looking_on(shop: Shop, report: Report) -> Iterator[None]:
    """A reader polls all the time, through DuckDB; what it should not see is noted."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                torn = shop.known(shop.night())
            except (RunError, OSError):
                continue  # a catalog that is locked or gone says so
            report.looks += 1
            if torn:
                report.faults.append(f"a reader saw half a night of {', '.join(torn)}")
            stop.wait(0.1)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def play(shop: Shop, case: Case) -> Report:
    """The run that is hit, then a plain one. What is wrong is in the report's faults."""
    report, began = Report(undisturbed=shop.undisturbed), time.monotonic()
    shop.clear()
    shop.restore()
    order = {"point": case.point, "nth": case.nth, "action": case.action}
    (shop.faults / "fault.json").write_text(json.dumps(order))
    with looking_on(shop, report):
        report.first_exit = _end(shop, shop.start(case.own_ray), case)
        report.hit = (shop.faults / "acted").exists()
        (shop.faults / "fault.json").unlink()
        process = shop.start()
        out, err = process.communicate(timeout=200)
        report.again_exit = process.returncode
        if process.returncode != 0:
            report.faults.append(f"the rerun ended with {process.returncode}: {(out + err)[-300:]}")
    if shop.night() != shop.new:
        report.faults.append("the table is not that of an undisturbed run")
    report.faults += shop.accounted()
    report.asked = shop.asked()
    most = shop.undisturbed + 2 * UNIT + SHOPS  # what was under way when it was hit may be asked again
    if report.asked > most:
        report.faults.append(f"{report.asked} texts were asked, at most {most} were expected")
    if not report.hit:
        report.faults.append("the fault was never met")
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _end(shop: Shop, process: subprocess.Popen[str], case: Case) -> int | None:
    """The exit status of the run that is hit. One that hangs is killed, as a machine that is taken away."""
    if case.action != "hang":
        try:
            process.communicate(timeout=120)
            return process.returncode
        except subprocess.TimeoutExpired:
            _kill(process)
            return None
    deadline = time.monotonic() + 120
    while not (shop.faults / "acted").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(HANG_S)
    _kill(process)
    return process.returncode


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
