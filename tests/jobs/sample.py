"""The committed sample data."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

JOBS = Path(__file__).parents[2] / "jobs"


DATA = JOBS / "data"


RUN_DATE = date(2026, 6, 30)


FILES = sorted(str(path.relative_to(DATA)) for path in DATA.rglob("*.parquet"))


def read(name: str) -> pa.Table:
    return pq.ParquetFile(DATA / name).read()
