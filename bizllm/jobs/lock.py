"""One run at a time for a job and date: a lock with a lease and an epoch, on local disk or an object store.

The lock is a folder of one small file an epoch, `{epoch}.json`; the highest epoch holds. A file is created exclusively
by the one who takes the epoch and is written only by that one afterwards, so stores without compare-and-swap will do.
A lease is renewed by counting `beat` up. Nobody compares the clocks of two machines: whoever wants a lock that is held
elsewhere watches the beat on the own monotonic clock and takes over after a whole lease without one. The epoch is the
fencing token of Kleppmann, "How to do distributed locking" (2016): a run that lost its lock fails its `check` before it
commits, however long it slept.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from bizllm import logs
from bizllm.errors import LockHeld, RunError
from bizllm.jobs.submitted import mark_in
from bizllm.tables import storage

_log = logs.get(__name__)
_EPOCH_FILE = re.compile(r"(?:^|/)(\d{8})\.json$")
_BEATS_PER_LEASE = 4
_LOOKS_PER_LEASE = 30


@dataclass(frozen=True, slots=True)
class Lease:
    """What an epoch's file says. started: of the holder's process, since a pid is used again.

    acquired_at: seconds since 1970 on the holder's clock, for people only.
    """

    epoch: int
    token: str
    holder: str
    host: str
    machine: str
    pid: int
    started: str
    lease_s: float
    acquired_at: float
    beat: int = 0
    released: bool = False


class RunLock:
    """Holds the lock at `url` (a folder, whatever its name ends in) while the block runs.

    holder: whom to name to others, a run_id. lease_s: seconds without a beat after which another may take over.
    what: is done under the lock, one at a time. Raises LockHeld where another has it, at once if that runs on this
    machine, else after at most one lease.
    """

    def __init__(
        self, url: str, holder: str = "", lease_s: float = 60.0, what: str = "run of this job and date"
    ) -> None:
        self.url = url.removesuffix(".json")
        self.what = what
        self.lease_s = lease_s
        self._holder = holder
        self._held: Lease | None = None
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def epoch(self) -> int:
        """Grows by one whenever the lock changes hands."""
        assert self._held is not None, "the lock is held"
        return self._held.epoch

    def __enter__(self) -> RunLock:
        while not self._take(self._free_epoch()):
            pass  # another took that epoch first: look at it
        self._stop.clear()
        self._beating = threading.Thread(target=self._keep, name="run-lock", daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
        held, self._held = self._held, None
        if held is None:
            return
        try:
            if self._is_newest(held):
                # The file stays, so that epochs go on growing.
                self._write(replace(held, released=True))
        except (RunError, OSError) as unreachable:
            if fault is None:
                raise
            _log.warning("lock_not_released", reason=type(unreachable).__name__)

    def is_open(self) -> bool:
        """Whether somebody took the lock and did not release it: a run that is under way, or that died."""
        newest = self._newest()
        return newest is not None and not newest.released

    def check(self) -> None:
        """Renew the lease and raise RunError if another run has taken over: to be called right before a commit."""
        with self._writing:
            if self._held is not None:
                # First the beat, then the look: whoever takes over after this look waits a whole lease first.
                if self._is_newest(self._held):
                    self._beat()
                if self._is_newest(self._held):
                    return
        raise RunError(f"{self.url}: another {self.what} has taken over; nothing more is published by this one")

    # -- taking ---------------------------------------------------------------------------------------------------

    def _free_epoch(self) -> int:
        """The epoch that may be taken next. Waits up to one lease; raises LockHeld."""
        watched: Lease | None = None
        since = 0.0
        while True:
            newest = self._newest()
            if newest is None:
                return 1
            if newest.released or _is_dead(newest):
                return newest.epoch + 1
            if newest.machine == _machine():
                raise _held_by(newest, self.what)  # its process lives
            if watched is None:
                watched, since = newest, time.monotonic()
            elif (newest.epoch, newest.beat) != (watched.epoch, watched.beat):
                raise _held_by(newest, self.what)
            elif time.monotonic() - since >= newest.lease_s:
                return newest.epoch + 1
            time.sleep(newest.lease_s / _LOOKS_PER_LEASE)

    def _take(self, epoch: int) -> bool:
        pid = os.getpid()
        host = socket.gethostname()
        mine = Lease(
            epoch, uuid4().hex, self._holder, host, _machine(), pid, _started(pid), self.lease_s, round(time.time(), 3)
        )
        if not storage.create_exclusive(self._file(epoch), _encoded(mine)):
            return False
        # An epoch that was taken, released and cleared away since we looked can be created again: a higher one tells.
        if not self._is_newest(mine):
            storage.delete(self._file(epoch))
            return False
        self._held = mine
        for old in self._epochs()[:-1]:
            storage.delete(self._file(old))
        return True

    # -- keeping --------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stop.wait(self.lease_s / _BEATS_PER_LEASE):
            try:
                with self._writing:
                    if self._held is None or not self._is_newest(self._held):
                        _log.error("lock_lost")
                        return
                    self._beat()
            except (RunError, OSError) as fault:
                # The store may come back within the lease; if not, `check` fails the run before it commits.
                _log.warning("lock_not_renewed", reason=type(fault).__name__)

    def _beat(self) -> None:
        assert self._held is not None
        self._held = replace(self._held, beat=self._held.beat + 1)
        self._write(self._held)

    # -- files ----------------------------------------------------------------------------------------------------

    def _file(self, epoch: int) -> str:
        return _file(self.url, epoch)

    def _write(self, lease: Lease) -> None:
        storage.write_bytes(self._file(lease.epoch), _encoded(lease))

    def _epochs(self) -> list[int]:
        return _epochs(self.url)

    def _newest(self) -> Lease | None:
        return newest(self.url)

    def _is_newest(self, lease: Lease) -> bool:
        newest = self._newest()
        return newest is not None and newest.token == lease.token


def lock_url(warehouse: str, job: str, of: date | str) -> str:
    """Where the lock of a job is that is for a date, or for what a word says. warehouse: its path."""
    return storage.join(warehouse, "_bizllm", job, "locks", str(of))


def newest(url: str) -> Lease | None:
    """Who holds the lock at `url`, or held it last; None where nobody ever did."""
    while epochs := _epochs(url):
        try:
            return Lease(**json.loads(storage.read_bytes(_file(url, epochs[-1]))))
        except FileNotFoundError:
            continue  # cleared away by the holder of a newer one
    return None


def _file(url: str, epoch: int) -> str:
    return storage.join(url, f"{epoch:08d}.json")


def _epochs(url: str) -> list[int]:
    while True:
        try:
            listed = storage.list_files(url, recursive=False)
        except FileNotFoundError:
            continue  # a file went while the folder was listed
        names = (_EPOCH_FILE.search(file.url) for file in listed)
        return sorted(int(name[1]) for name in names if name)


def _encoded(lease: Lease) -> bytes:
    return json.dumps(asdict(lease)).encode()


def _held_by(lease: Lease, what: str) -> LockHeld:
    age = max(0, round(time.time() - lease.acquired_at))
    end = f"end it with `bizllm stop {lease.holder}`" if mark_in(lease.holder) else "end it"
    return LockHeld(
        f"another {what} {f'({lease.holder}) ' if lease.holder else ''}is under way on {lease.host}, "
        f"pid {lease.pid}, for {age} s; wait for it, or {end}"
    )


@lru_cache(maxsize=1)
def _machine() -> str:
    """Names the system in which our pids mean something: containers on one host see other pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When the process started, in ticks since boot; empty where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_dead(lease: Lease) -> bool:
    """Whether the holder was a process of this machine that ended without releasing."""
    if lease.machine != _machine():
        return False
    if os.path.isdir("/proc/self"):
        return _started(lease.pid) != lease.started
    try:
        os.kill(lease.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
