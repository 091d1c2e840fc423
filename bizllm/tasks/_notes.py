"""What the tasks share that read medical notes: they are masked before anything else is done with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bizllm import logs
from bizllm.errors import safe_text
from bizllm.methods import documents
from bizllm.methods.pii.masker import Masker
from bizllm.tables.mask_settings import MaskRules
from bizllm.tasks import _texts
from bizllm.tasks.base import Reject

log = logs.get(__name__)

SECONDS_PER_BYTE = 2e-5  # to mask and read, one core, English
NOT_MASKED = ("not_masked", "personal data could not be masked")  # code and message of such a reject
_BY_NAME = frozenset({"PERSON", "LOCATION", "ADDRESS"})  # told by how words look, as headings in capitals look, too


@dataclass(frozen=True)
class Notes:
    """The usable notes of a batch, masked: (usable,) positions, texts; the other rows."""

    positions: npt.NDArray[np.int64]
    texts: list[str]
    rejects: list[Reject]


def read(rows: pa.Table, text: str, max_chars: int, rules: MaskRules) -> Notes:
    """The notes that can be read. None gets by that could not be masked."""
    given = _texts.read(rows, [text], max_chars)
    masker = Masker(rules)
    notes = [_masked(note, masker) for note in given.columns[0]]
    kept = [i for i, note in enumerate(notes) if note is not None]
    rejects = [Reject(int(given.positions[i]), *NOT_MASKED) for i, note in enumerate(notes) if note is None]
    return Notes(given.positions[kept], [note for note in notes if note is not None], [*given.rejects, *rejects])


def masked(rows: pa.Table, text: str, max_chars: int, rules: MaskRules) -> pa.Table:
    """The same rows, that string column masked; null where it can't be read or masked."""
    found, _ = documents.read(rows[text], max_chars)
    masker = Masker(rules)
    notes = [None if note is None else _masked(note[0], masker) for note in found]
    return rows.set_column(rows.column_names.index(text), text, pa.array(notes, pa.string()))


def _masked(note: str, masker: Masker) -> str | None:
    """None where it can't be masked. Headings and clinical words stand, although they look like names."""
    from bizllm.methods.clinical.note import is_clinical  # many long patterns
    from bizllm.methods.clinical.sections import headings

    try:
        spans = masker.spans(note)
        stand = headings(note)
        kept = [
            s
            for s in spans
            if s.type not in _BY_NAME
            or not (any(a <= s.start and s.end <= b for a, b in stand) or is_clinical(note[s.start : s.end]))
        ]
        return masker.masked(note, kept)
    except Exception as fault:
        log.warning("text_not_masked", error=safe_text(fault), chars=len(note))
        return None
