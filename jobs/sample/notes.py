"""Medical notes of a made-up clinic, English and Chinese, with personal data planted in them; and labelled ones."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import pyarrow as pa

NIGHT_NOTES, LABELLED_EACH = 8, 6  # of each diagnosis and language
_HEADS = {
    "en": ("CHIEF COMPLAINT", "HISTORY OF PRESENT ILLNESS", "PHYSICAL EXAMINATION", "LABORATORY DATA", "PLAN"),
    "zh": ("主诉", "现病史", "查体", "辅助检查", "医嘱"),
}
_PARTS = ("complaint", "history", "exam", "tests", "plan")
_PEOPLE = {
    "en": (["Mary", "Robert", "Linda", "James", "Susan"], ["Whitfield", "Harlow", "Pemberton", "Okafor", "Lindqvist"]),
    "zh": (["张", "李", "王", "陈", "刘"], ["建国", "秀英", "晓明", "丽华", "志强"]),
}


def notes_tables(material: dict[str, Any], day: date, rng: random.Random) -> dict[str, pa.Table]:
    """The night's notes, two of them without a body, and labelled notes; by path below the output folder."""
    night, labelled = [], []
    seen: set[str] = set()
    for language, of in material.items():
        for diagnosis, fragments in of.items():
            for number in range(NIGHT_NOTES + LABELLED_EACH):
                while (body := _note(language, fragments, rng)) in seen:
                    pass
                seen.add(body)
                row = {"language": language, "diagnosis": diagnosis, "specialty": fragments["specialty"], "body": body}
                (night if number < NIGHT_NOTES else labelled).append(row)
    for rows in (night, labelled):
        rng.shuffle(rows)
    unusable: list[dict[str, Any]] = [
        {"language": "en", "diagnosis": None, "specialty": None, "body": b} for b in (None, " ")
    ]
    return {
        f"notes/dt={day}/part-0.parquet": _table("N", [*night, *unusable]),
        "labelled_notes/part-0.parquet": _table("L", labelled),
    }


def _note(language: str, fragments: dict[str, Any], rng: random.Random) -> str:
    """With headings on lines of their own, with headings in one line, or without any."""
    told = [rng.choice(fragments[part]).replace("DAYS", str(rng.randint(2, 7))) for part in _PARTS]
    first, last = (rng.choice(names) for names in _PEOPLE[language])
    number = f"{rng.randint(100, 999)}-555-{rng.randint(100, 199):04d}"
    mobile = f"138{rng.randint(10_000_000, 99_999_999)}"
    if language == "en":
        who = f"Patient: {first} {last}, phone {number}. Seen by Dr. {rng.choice(_PEOPLE['en'][1])}."
    else:
        who = f"患者：{first}{last}，电话{mobile}。"
    form = rng.choice(("lines", "lines", "run-on", "plain"))
    if form == "plain":
        stop = ". " if language == "en" else "。"
        return (
            who + (" " if language == "en" else "") + told[0] + stop + ("" if language == "zh" else " ").join(told[1:])
        )
    colon = ": " if language == "en" else "："
    parts = [f"{head}{colon}{text}" for head, text in zip(_HEADS[language], told, strict=True)]
    between = "\n" if form == "lines" else (" " if language == "en" else "")
    ends = (text if text[-1] in ".。" else text + (". " if language == "en" else "。").strip() for text in parts)
    return between.join([who, *ends])


def _table(prefix: str, rows: list[dict[str, Any]]) -> pa.Table:
    kinds = pa.schema([(name, pa.string()) for name in ("note_id", "language", "diagnosis", "specialty", "body")])
    return pa.Table.from_pylist(
        [{"note_id": f"{prefix}{i + 1:04d}", **row} for i, row in enumerate(rows)], schema=kinds
    )
