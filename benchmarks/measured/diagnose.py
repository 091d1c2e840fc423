"""diagnose: how often the right class of a note comes first, or among the first, how sure it is, and its evidence.

Half of mtsamples teaches, the other half is asked; its four classes are kinds of notes rather than diseases.
`faithfulness`: how far the likeliest label's probability falls without the sentences told as evidence (DeYoung et al.
2020, comprehensiveness), beside as many other sentences drawn by chance.
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.methods import sentences
from bizllm.models.load import ModelLoader
from bizllm.tables.mask_settings import MaskRules
from bizllm.tasks.base import StepInput
from bizllm.tasks.diagnose import Diagnose, DiagnoseSettings
from measured import Line

NOTES = 240  # of mtsamples
CLASSES = ["", "surgery", "medical records", "internal medicine", "other"]
REMARKS = """Of 500 notes 240 are read, and only addresses and numbers are masked, which is quicker. Nothing was
chosen on mtsamples: threshold and temperature are those that the examples give. With four classes three suggestions
are nearly all there is: top 3 says little."""


def lines(data: Path) -> list[Line]:
    """mtsamples in halves."""
    notes = pq.read_table(data / "mtsamples/sample.parquet")
    halves = np.array_split(np.random.default_rng(0).permutation(len(notes))[:NOTES], 2)
    (known, of), (asked, truth) = (
        ([notes["text"][int(i)].as_py() for i in half], [CLASSES[notes["label_raw"][int(i)].as_py()] for i in half])
        for half in halves
    )
    examples = pa.table({"text": known, "label": of})
    learned = _task(examples).learn({"examples": examples})
    rows = _rows(_task(examples, learned, threshold=0.0, evidence=0), asked)
    first = [row["suggestions"][0]["label"] for row in rows]
    right = np.array([a == b for a, b in zip(first, truth, strict=True)])
    among = np.mean([t in {s["label"] for s in row["suggestions"]} for row, t in zip(rows, truth, strict=True)])
    common = [label for label, _ in Counter(of).most_common()]
    often = float(np.mean([t == common[0] for t in truth]))
    vectors, places = ENCODER.encode(known)[0], ENCODER.encode([row["note"] for row in rows])[0]
    names = np.unique(of)
    means = np.stack([vectors[np.array(of) == name].mean(axis=0) for name in names])
    near = names[np.argsort(-(places @ means.T), axis=1)]
    against = {
        "most frequent": (often, float(np.mean([t in common[:3] for t in truth]))),
        "nearest mean": (
            float(np.mean(near[:, 0] == truth)),
            float(np.mean([t in row[:3] for t, row in zip(truth, near, strict=True)])),
        ),
    }
    sure = np.array([row["probability"] for row in rows])
    data_name, found = "mtsamples, 4 classes", []
    for place, metric, ours in ((0, "top-1 accuracy", float(right.mean())), (1, "top-3 accuracy", float(among))):
        best = max(against, key=lambda name: against[name][place])
        rest = ", ".join(f"{name} {values[place]:.3f}" for name, values in against.items())
        found.append(Line("diagnose", data_name, metric, ours, against[best][place], best, note=rest))
    constant = float(abs(np.mean([t == of_one for t, of_one in zip(truth, first, strict=True)]) - 1))
    found.append(
        Line(
            "diagnose", data_name, "calibration error", _ece(sure, right), constant, "always sure", less_is_better=True
        )
    )
    told = _rows(_task(examples, learned, evidence=0), asked)
    kept = np.array([not row["abstained"] for row in told])
    note = f"{kept.mean():.1%} of the notes get a suggestion by the examples' own threshold"
    chosen = float(right[kept].mean()) if kept.any() else 0.0
    found.append(
        Line("diagnose", data_name, "top-1 accuracy where told", chosen, float(right.mean()), "all", note=note)
    )
    task = _task(examples, learned, threshold=0.0)
    found.append(_faithful(task, _rows(task, asked[:30])))
    for line in found:
        print(line, flush=True)
    return found


def _ece(sure: Any, right: Any) -> float:
    """Expected calibration error in fifteen bins."""
    place = np.minimum((sure * 15).astype(int), 14)
    parts = [place == i for i in np.unique(place)]
    return float(sum(abs(sure[part].mean() - right[part].mean()) * part.mean() for part in parts))


class _Remembering:
    """An encoder that reads each text once."""

    def __init__(self) -> None:
        self._encoder = ModelLoader().encoder("builtin:minilm")
        self._known: dict[str, tuple[Any, Any]] = {}

    def encode_counted(self, texts: list[str]) -> tuple[Any, Any]:
        """(vectors, tokens of each text)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, zip(*self._encoder.encode_counted(new), strict=True), strict=True))
        vectors, counts = zip(*(self._known[text] for text in texts), strict=True)
        return np.stack(vectors), np.array(counts)

    def encode(self, texts: list[str]) -> tuple[Any, int]:
        """(vectors, tokens)."""
        vectors, counts = self.encode_counted(texts)
        return vectors, int(counts.sum())

    def encoder(self, _uri: str) -> Any:
        """Itself: what a task asks a loader for."""
        return self


ENCODER = _Remembering()


def _task(examples: pa.Table, learned: dict[str, Any] | None = None, **said: Any) -> Diagnose:
    settings = DiagnoseSettings(
        task="diagnose",
        input="notes",
        text="text",
        model="builtin:minilm",
        mask=MaskRules(entities=["EMAIL", "PHONE"]),  # names tell no class
        **{"examples": {"input": "known", "text": "text", "label": "label"}, **said},
    )
    step, others = StepInput("notes", pa.schema([("text", pa.string())])), {"examples": StepInput("k", examples.schema)}
    task = Diagnose(settings, step, date(2026, 1, 1), others, learned=learned)
    task.open(ENCODER)  # type: ignore[arg-type]
    return task


def _rows(task: Diagnose, texts: list[str]) -> list[dict[str, Any]]:
    outcome = task.answer(pa.table({"text": texts}))
    assert len(outcome.columns) == len(texts), "every note is usable"
    rows: list[dict[str, Any]] = outcome.columns.to_pylist()
    return rows


def _faithful(task: Diagnose, rows: list[dict[str, Any]]) -> Line:
    """Both notes are asked anew, without the evidence and without as many other sentences."""
    rng = np.random.default_rng(0)
    before, without, chance = [], [], []
    for row in rows:
        told = {(e["start"], e["end"]) for e in row["suggestions"][0]["evidence"]}
        spans = sentences.split(row["note"])
        others = [span for span in spans if span not in told]
        if not told or len(others) <= len(told):
            continue
        drawn = {others[i] for i in rng.choice(len(others), len(told), replace=False)}
        before.append(row)
        for gone, texts in ((told, without), (drawn, chance)):
            texts.append(" ".join(row["note"][a:b] for a, b in spans if (a, b) not in gone))
    assert task._labeller is not None, "opened"
    names = list(task._labeller.names)
    label = [names.index(row["suggestions"][0]["label"]) for row in before]
    was = np.array([row["probability"] for row in before])
    falls = [
        float(np.mean(was - task._labeller.probabilities([texts])[0][np.arange(len(label)), label]))
        for texts in (without, chance)
    ]
    note = f"{len(before)} notes; two sentences at most"
    return Line("diagnose", "mtsamples, 4 classes", "faithfulness", falls[0], falls[1], "other sentences", note=note)


def bars(lines: list[Line]) -> list[dict[str, Any]]:
    """Its evidence matters more than other sentences."""
    import bench

    line = next(line for line in lines if line.metric == "faithfulness")
    return [bench.bar("diagnose, evidence: fall of probability more than by chance", line.ours, max(line.baseline, 0))]
