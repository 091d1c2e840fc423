"""Whether a stage has come to work on the cluster, and how much of it it held since.

A stage whose processes find no room would wait without end: nothing of Ray's says so to the driver.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_exists, _internal_kv_put

from bizllm.errors import RunError
from bizllm.infer.pools import Capacity, Room
from bizllm.prices import Held

Part = Literal["read", "work"]
LOOK_AGAIN_S = 5.0  # how often a stage that waits for room looks at the cluster
WAIT_S = 900.0


@dataclass(frozen=True)
class Bell:
    """Rings from any process of the cluster, and counts for all of them, through the keys that Ray's head keeps."""

    key: str = field(default_factory=lambda: f"bizllm-began-{uuid.uuid4().hex}-")

    def ring(self, part: Part) -> None:
        """Tell that a part of the stage has begun to run somewhere."""
        with suppress(Exception):  # where the head does not answer, Ray itself says so
            _internal_kv_put(self.key + part, b"1", overwrite=False)

    def rang(self, part: Part) -> bool:
        """Whether it has, anywhere."""
        return bool(_internal_kv_exists(self.key + part))

    def begun(self, what: str) -> int:
        """How often `what` was begun, this time counted; 1 where the head does not answer, which Ray itself says."""
        count = 1
        with suppress(Exception):
            while _internal_kv_put(f"{self.key}{what}-{count}", b"1", overwrite=False):  # whether it was there
                count += 1
        return count

    def ended(self, what: str) -> None:
        """Begin to count anew."""
        with suppress(Exception):
            _internal_kv_del(f"{self.key}{what}-", del_by_prefix=True)

    def forget(self) -> None:
        """Leave nothing with Ray's head."""
        with suppress(Exception):
            _internal_kv_del(self.key, del_by_prefix=True)


class Floor:
    """Which pools stages of a run are at work in: there another one that waits for room waits for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: Counter[str] = Counter()

    def busy(self, pool: str) -> bool:
        """Whether any stage is at work there."""
        return self._at_work[pool] > 0

    @contextmanager
    def taken(self, pool: str) -> Iterator[None]:
        """While a stage is at work there."""
        with self._lock:
            self._at_work[pool] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work[pool] -= 1


class Door:
    """Between a stage and the cluster: passed once a part of each kind runs.

    parts: what must run before any unit can be answered. wait_s: how long the stage waits for that, while no other
    stage of the run is at work in its pool.
    """

    def __init__(
        self, stage: str, capacity: Capacity, floor: Floor, look: Callable[[], Room], wait_s: float, *parts: Part
    ) -> None:
        self.bell, self.capacity = Bell(), capacity
        self._stage, self._floor, self._look, self._wait_s, self._parts = stage, floor, look, wait_s, parts
        self._since = self._looked = self._ticked = time.monotonic()
        self._workers: list[float] = []  # when each began
        self._passed = ExitStack()
        self.passed, self.held = False, Held()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self._passed.close()
        self.bell.forget()
        hours = sum(time.monotonic() - began for began in self._workers) / 3600
        if self.capacity.gpus:
            self.held = Held(gpu_hours={self.capacity.accelerator: hours * self.capacity.gpus})
        else:
            self.held = Held(hours * self.capacity.threads)

    def came(self) -> None:
        """One more of the workers runs, where they are told one by one."""
        self._workers.append(time.monotonic())

    def through(self) -> None:
        """The stage works."""
        if not self.passed:
            self.passed = True
            self._passed.enter_context(self._floor.taken(self.capacity.pool))
            self._workers = self._workers or [self._ticked] * self.capacity.workers

    def wait(self) -> None:
        """Called now and then while no receipt comes. Raises RunError where the wait is in vain, or was too long."""
        now = time.monotonic()
        if self.passed:
            return
        if all(self.bell.rang(part) for part in self._parts):
            self.through()
        elif self._floor.busy(self.capacity.pool):
            self._since = now
        elif now - self._since > self._wait_s:
            raise RunError(
                f"{self._stage}: no worker could start within {self._wait_s:g} s (runtime.wait_for_room_s): it asks for"
                f" {self.capacity}; the cluster has {self._look()}"
            )
        elif now - self._looked > LOOK_AGAIN_S:
            self._looked = now
            self.check(self._look())
        self._ticked = now

    def check(self, room: Room) -> None:
        """Raise RunError where no worker can ever start."""
        if (why := self.capacity.lacking(room)) is not None:
            raise RunError(f"{self._stage} asks for {self.capacity}: {why}; the cluster has {room}")
