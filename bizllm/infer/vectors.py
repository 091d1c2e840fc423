"""Vectors of texts that several steps read: kept a file for each unit, so that one step computes what all of them ask.

The files are a cache: one that is lost, or can't be read, is computed again. `bizllm gc` removes old ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from bizllm import logs
from bizllm.errors import RunError, safe_text
from bizllm.models.batches import Floats, Whole
from bizllm.tables import storage
from bizllm.tables.manifest import Unit

SUFFIX = ".arrow"
_log = logs.get(__name__)


class Shelf:
    """The vectors of one backbone for the unit that is at work.

    url: the folder of the files. read, computed: windows of this unit.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._file = ""
        self._clear()

    def _clear(self) -> None:
        self.read = self.computed = 0
        self._rows: dict[bytes, int] = {}
        self._kept: list[Floats] = []

    def turn_to(self, unit: Unit) -> None:
        """Forget the last unit, and take what is kept for this one."""
        self._clear()
        self._file = storage.join(self.url, f"{_name(unit)}{SUFFIX}")
        try:
            if not storage.exists(self._file):
                return
            with pa.ipc.open_file(pa.py_buffer(storage.read_bytes(self._file))) as reader:
                table = reader.read_all().combine_chunks()
        except (RunError, OSError, pa.ArrowInvalid) as fault:
            _log.warning("vectors_not_read", error=safe_text(fault))
            return
        if not table.num_rows:
            return
        vectors = table["vector"].chunk(0)
        self._rows = {key: row for row, key in enumerate(table["window"].to_pylist())}
        self._kept = [vectors.flatten().to_numpy().reshape(len(vectors), -1)]

    def find(self, keys: Sequence[bytes]) -> tuple[Whole, Floats]:
        """As of `Memory`."""
        rows = np.array([self._rows.get(key, -1) for key in keys], np.int64)
        known = np.flatnonzero(rows >= 0)
        if not len(known):
            return known, np.zeros((0, 0), np.float32)
        self.read += len(known)
        return known, self._all()[rows[known]]

    def add(self, keys: Sequence[bytes], outputs: Floats) -> None:
        """As of `Memory`."""
        at = sum(map(len, self._kept))
        self._rows |= zip(keys, range(at, at + len(keys)), strict=True)
        self._kept.append(outputs)
        self.computed += len(keys)

    def keep(self) -> None:
        """Write what is new of this unit, with what was there."""
        if not self.computed:
            return
        vectors = self._all()[list(self._rows.values())]  # two texts may be the same tokens
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = pa.table({"window": pa.array(list(self._rows), pa.binary(16)), "vector": flat})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        try:
            storage.write_bytes(self._file, sink.getvalue().to_pybytes())
        except (RunError, OSError) as fault:  # the answers are there all the same
            _log.warning("vectors_not_kept", error=safe_text(fault))

    def _all(self) -> Floats:
        if len(self._kept) > 1:
            self._kept = [np.concatenate(self._kept)]
        return self._kept[0]


def _name(unit: Unit) -> str:
    """Of the files, as they were, and the rows of them that the unit reads."""
    said = json.dumps([asdict(part) for part in unit.parts], default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:32]
