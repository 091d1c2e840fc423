"""Segments of online_retail's customers over a week of nights: k, silhouette, how much moves, seconds.

    BIZLLM_DATA=... python benchmarks/segment.py      writes benchmarks/results/segment.json

Each night fits with the fit of the night before, as the nightly job does, and once without it, which shows what the
continuation is worth. Stability is the adjusted Rand index of the customers that both nights know.
"""

from __future__ import annotations

import json
import os
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.metrics import adjusted_rand_score

from bizllm.tasks.base import Groups, StepInput
from bizllm.tasks.segment import Segment, SegmentSettings

NIGHTS = [date(2011, 12, 3) + timedelta(days=i) for i in range(7)]


def main() -> None:
    lines = pq.read_table(Path(os.environ["BIZLLM_DATA"]) / "online_retail" / "transactions.parquet")
    amount = pc.multiply(lines["quantity"].cast(pa.float64()), lines["unit_price_gbp"])
    lines = lines.append_column("amount", amount)
    results = {"rows": lines.num_rows, "nights": [str(n) for n in NIGHTS]}
    for name, extra in {"auto": {}, "five": {"k": 5}}.items():
        results[name] = {
            "continued": week(lines, extra, continued=True),
            "each night anew": week(lines, extra, continued=False),
        }
    Path(__file__).with_name("results").joinpath("segment.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


def week(lines: pa.Table, extra: dict[str, Any], continued: bool) -> dict[str, Any]:
    columns = {"entity": "customer_id", "time": "invoice_date", "amount": "amount", "order": "invoice_no"}
    settings = SegmentSettings(task="segment", input="sales", **columns, **extra)
    fit: dict[str, Any] | None = None
    before: dict[int, tuple[int, str]] = {}
    stability, renamed, kept, seconds = [], [], [], []
    for night in NIGHTS:
        step = Segment(settings, StepInput("sales", lines.schema), night)
        start = time.perf_counter()
        combined = step.combine(lines).rows
        mid = time.perf_counter()
        parts = combined.filter(pc.is_valid(combined["customer_id"])).sort_by("customer_id")
        customers, starts = np.unique(parts["customer_id"].to_numpy(), return_index=True)
        groups = Groups(parts, np.append(starts, parts.num_rows), pa.table({"customer_id": customers}))
        features = step.features(groups)
        featured = time.perf_counter()
        fit = json.loads(json.dumps(step.fit(features.columns, fit if continued else None)))
        fitted = time.perf_counter()
        step.fitted = fit
        found = step.answer(features.columns).columns
        seconds.append([mid - start, featured - mid, fitted - featured, time.perf_counter() - fitted])
        pairs = zip(found["segment_id"].to_pylist(), found["segment"].to_pylist(), strict=True)
        now = dict(zip(customers[features.subject].tolist(), pairs, strict=True))
        both = [c for c in now if c in before]
        if both:
            stability.append(adjusted_rand_score([before[c][0] for c in both], [now[c][0] for c in both]))
            kept.append(float(np.mean([before[c][0] == now[c][0] for c in both])))
            renamed.append(float(np.mean([before[c][1] != now[c][1] for c in both])))
        before = now
    assert fit is not None
    return {
        "segments": [{key: s[key] for key in ("id", "name", "size", "typical")} for s in fit["segments"]],
        "silhouette": fit["silhouette"],
        "adjusted_rand_index": [round(v, 4) for v in stability],
        "share_with_the_same_id": [round(v, 4) for v in kept],
        "share_with_another_name": [round(v, 4) for v in renamed],
        "seconds": dict(
            zip(("combine", "features", "fit", "answer"), np.median(seconds, axis=0).round(3), strict=True)
        ),
    }


if __name__ == "__main__":
    main()
