"""What a made-up clinic gives patients to read, and what they ask tonight."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import pyarrow as pa

_LANGUAGES = ("en", "zh")


def leaflets_tables(material: list[dict[str, Any]], night: date, rng: random.Random) -> dict[str, pa.Table]:
    """Leaflets and the night's questions, by path below the output folder. leaflet_id of a question: which one answers
    it; null where none does."""
    leaflets = [
        {"leaflet_id": f"{of['id']}-{language}", "language": language, **of[language]}
        for of in material
        for language in _LANGUAGES
        if language in of
    ]
    known = {leaflet["leaflet_id"] for leaflet in leaflets}
    asked = [
        {"language": language, "body": text, "leaflet_id": f"{of['id']}-{language}"}
        for of in material
        for language in _LANGUAGES
        for text in of["asked"].get(language, ())
    ]
    rng.shuffle(asked)
    for number, question in enumerate(asked, 1):
        question["question_id"] = f"Q{night:%y%m%d}-{number:02d}"
        if question["leaflet_id"] not in known:
            question["leaflet_id"] = None
    columns = ["question_id", "language", "body", "leaflet_id"]
    return {
        "leaflets/part-0.parquet": pa.Table.from_pylist(leaflets),
        f"patient_questions/dt={night}/part-0.parquet": pa.Table.from_pylist(asked).select(columns),
    }
