"""What a step learned, as one file: it comes back as it was, and nothing in it is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bizllm.infer.learned import load, to_bytes
from bizllm.tables import storage

TABLE = pa.table({"term": ["快递", "late", None], "idf": pa.array([1.0, 2.5, 0.0], pa.float32())})
LEARNED = {
    "names": ["退款", "refund"],
    "threshold": None,
    "deep": {"a": [1, 2.5, True]},
    "dense": np.arange(6, dtype=np.float32).reshape(2, 3),
    "counts": np.array([2**40, -1]),
    "strided": np.arange(10)[::3],
    "terms": TABLE,
    "nothing": TABLE.slice(0, 0),
    "empty": np.zeros((0, 4), np.float32),
}


def test_all_kinds_of_values_come_back(tmp_path: Path) -> None:
    url = str(tmp_path / "fit.safetensors")
    storage.write_bytes(url, to_bytes(LEARNED))
    back = load(url)
    assert back.keys() == LEARNED.keys()
    for name, value in LEARNED.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(back[name], value)
            assert back[name].dtype == value.dtype
        elif isinstance(value, pa.Table):
            assert back[name].equals(value)
        else:
            assert back[name] == value


def test_equal_things_make_equal_files() -> None:
    assert to_bytes(LEARNED) == to_bytes(dict(reversed(LEARNED.items())))


@pytest.mark.parametrize("learned", [{}, {"only": "json"}])
def test_without_arrays_it_is_a_file_all_the_same(learned: dict[str, str], tmp_path: Path) -> None:
    url = str(tmp_path / f"{len(learned)}.safetensors")
    storage.write_bytes(url, to_bytes(learned))
    assert load(url) == learned
