"""Days as people on the spot count them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def local_days(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """date32, of the wall clock where the times have a zone."""
    if getattr(times.type, "tz", None):
        times = pc.local_timestamp(times)
    return times.cast(pa.date32(), safe=False)
