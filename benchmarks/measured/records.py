"""records: sections, specialties and headers of medical notes, all of them masked first.

`headings`: of what stands in capitals before a colon at the start of a line, sentence or comma part of the unmasked
note, the share that becomes a section with a name, not `other`; the baseline knows the ten most frequent headings of a
first half of the notes, word for word. Specialties and headers are learned from examples:
`specialty` on halves of mtsamples, `header` on mts_dialog's own parts, beside the most frequent label and n-grams.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bizllm.models.load import ModelLoader
from bizllm.tables.mask_settings import MaskRules
from bizllm.tasks.base import StepInput
from bizllm.tasks.records import Records, RecordsSettings
from measured import Line

MODELS = ModelLoader()
NOTES = 240  # of mtsamples
REMARKS = """Of 500 notes 240 are read, half to learn from; where labels are learned only addresses and numbers are
masked, which is quicker. The lists of headings and words were written with the most frequent headings of all 500
notes in view, so that the share of named headings is a little better than on notes nobody looked at. What the lists
find of problems, medicines and tests has no labels in these sets and is not measured. Specialties are the data's four
classes: surgery, medical records, internal medicine, other."""
_CAPITALS = re.compile(r"(?:^|[.,\n])[ ]*([A-Z][A-Z /&-]{3,50}):")


def answers(texts: Sequence[str], known: pa.Table | None = None, model: str | None = None) -> list[dict[str, object]]:
    """What `records` answers; known: examples in columns text and label."""
    examples = None if known is None else {"input": "known", "text": "text", "label": "label"}
    mask = MaskRules() if known is None else MaskRules(entities=["EMAIL", "PHONE"])  # names tell no specialty
    settings = RecordsSettings(
        task="records",
        input="notes",
        text="text",
        examples=examples,
        model=model,
        mask=mask,
        threshold=None if known is None else 0.0,
    )
    step = StepInput("notes", pa.schema([("text", pa.string())]))
    others = {} if known is None else {"examples": StepInput("known", known.schema)}
    task = Records(settings, step, date(2026, 1, 1), others)
    task.open(MODELS)
    if known is not None:
        task = Records(settings, step, date(2026, 1, 1), others, learned=task.learn({"examples": known}))
        task.open(MODELS)
    outcome = task.answer(pa.table({"text": pa.array(texts, pa.string())}))
    rows: list[dict[str, object]] = [{"specialty": None}] * len(texts)
    for at, row in zip(outcome.subject.tolist(), outcome.columns.to_pylist(), strict=True):
        rows[at] = row
    return rows


def lines(data: Path) -> list[Line]:
    """mtsamples and mts_dialog."""
    notes = pq.read_table(data / "mtsamples/sample.parquet")
    order = np.random.default_rng(0).permutation(len(notes))[:NOTES]
    known, asked = (notes.take(pa.array(part)) for part in np.array_split(order, 2))
    found = _headings(known["text"].to_pylist(), asked["text"].to_pylist())
    classes = ["", "surgery", "medical records", "internal medicine", "other"]
    labels = [[classes[i] for i in part["label_raw"].to_pylist()] for part in (known, asked)]
    found += _learned(
        "mtsamples, specialty", known["text"].to_pylist(), labels[0], asked["text"].to_pylist(), labels[1]
    )
    parts = [pq.read_table(data / f"mts_dialog/{part}.parquet").to_pylist() for part in ("train", "test1")]
    texts, headers = ([[row[c] for row in part] for part in parts] for c in ("section_text", "section_header"))
    return [*found, *_learned("mts_dialog, header of a section", texts[0], headers[0], texts[1], headers[1])]


def _headings(known: list[str], asked: list[str]) -> list[Line]:
    rows = answers(asked)
    often = Counter(h.strip() for text in known for h in _CAPITALS.findall(text))
    ten = {name for name, _ in often.most_common(10)}
    there = named = simple = 0
    for text, row in zip(asked, rows, strict=True):
        sections: list[dict[str, str]] = row["sections"]  # type: ignore[assignment]
        left = Counter(part["heading"] for part in sections if part["section"] != "other")
        for heading in map(str.strip, _CAPITALS.findall(text)):
            there += 1
            simple += heading in ten
            named += left[heading] > 0
            left[heading] -= 1
    note = f"{there:,} headings in {len(asked)} notes, which are masked before they are read"
    ours, baseline = named / there, simple / there
    return [
        Line("records", "mtsamples, headings", "recall of named sections", ours, baseline, "ten headings", note=note)
    ]


def _learned(data: str, known: list[str], of: list[str], asked: list[str], truth: list[str]) -> list[Line]:
    from sklearn.metrics import f1_score

    examples = pa.table({"text": known, "label": of})
    ours = [row["specialty"] for row in answers(asked, examples, "builtin:minilm")]
    words = [row["specialty"] for row in answers(asked, examples)]
    often = [Counter(of).most_common(1)[0][0]] * len(truth)
    found = []
    for metric in ("accuracy", "macro F1"):
        scores = []
        for said in (ours, words, often):
            said = [label or "" for label in said]
            right = np.mean([a == b for a, b in zip(said, truth, strict=True)])
            macro = f1_score(truth, said, average="macro", labels=sorted(set(truth)), zero_division=0)
            scores.append(float(right if metric == "accuracy" else macro))
        best = max((1, 2), key=scores.__getitem__)
        against = ("", "n-grams", "most frequent")[best]
        note = f"{len(known)} examples, {len(set(of))} labels, {len(asked)} notes; most frequent {scores[2]:.3f}"
        found.append(Line("records", data, metric, scores[0], scores[best], against, note=note))
        print(found[-1], flush=True)
    return found
