"""An engine that reads no window twice: what another step computed, or another night, is given again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from bizllm.models.batches import Floats, Whole, Windows
from bizllm.models.engines.base import CPU_BUDGET, Engine, Name, Precision


class Memory(Protocol):
    """Outputs by the keys of their windows."""

    def find(self, keys: Sequence[bytes]) -> tuple[Whole, Floats]:
        """(the places in `keys` of those that are known, ascending; their outputs (known, dim))."""

    def add(self, keys: Sequence[bytes], outputs: Floats) -> None:
        """Remember outputs (rows, dim), each under its key."""


class Remembering:
    """Computes what its memory does not hold. The engine inside is made, and its model loaded, when it is first needed.

    made: whether it was; name, precision and budget tell nothing before.
    """

    name: Name = "torch"
    precision: Precision = "float32"
    budget = CPU_BUDGET

    def __init__(self, make: Callable[[], Engine], memory: Memory, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self._make, self._memory = make, memory
        self._inner: Engine | None = None

    @property
    def made(self) -> bool:
        """Whether something had to be computed."""
        return self._inner is not None

    def outputs(self, windows: Windows) -> Iterator[tuple[Whole, Floats]]:
        """As of `Engine`; what is known first."""
        keys = window_keys(windows)
        known, found = self._memory.find(keys)
        if len(known):
            yield known, found
        missing = np.setdiff1d(np.arange(len(windows)), known, assume_unique=True)
        if not len(missing):
            return
        for rows, outputs in self.inner.outputs(windows.take(missing)):
            self._memory.add([keys[i] for i in missing[rows]], outputs)
            yield missing[rows], outputs

    @property
    def inner(self) -> Engine:
        """What computes, without the memory."""
        if self._inner is None:
            self._inner = self._make()
            self.name, self.precision, self.budget = self._inner.name, self._inner.precision, self._inner.budget
        return self._inner


def unremembered(engine: Engine) -> Engine:
    """The engine for windows that nobody asks about again."""
    return engine.inner if isinstance(engine, Remembering) else engine


def window_keys(windows: Windows) -> list[bytes]:
    """BLAKE2b (RFC 7693), 16 bytes, of the tokens of each window, and of their types where it has them."""
    ends = np.cumsum(windows.lengths)
    tokens = memoryview(np.ascontiguousarray(windows.tokens).view(np.uint8).data)
    types = b"" if windows.types is None else np.ascontiguousarray(windows.types, np.int32).tobytes()
    keys = []
    for start, end in zip((4 * (ends - windows.lengths)).tolist(), (4 * ends).tolist(), strict=True):
        digest = hashlib.blake2b(tokens[start:end], digest_size=16)
        if types:
            digest.update(types[start:end])
        keys.append(digest.digest())
    return keys
