"""The texts of a column: which can be used, and why the others can't; and a bounded sample of a group's texts."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_GARBAGE = re.compile("[\ufffd\ud800-\udfff\x00-\x08\x0e-\x1f]")
_MAX_GARBAGE = 0.05  # share of replacement and control characters above which a text was decoded wrongly

_REASONS = {
    "empty": "the text is null or blank",
    "undecodable": "the text is not valid UTF-8, or was decoded with a wrong encoding",
    "too_long": "the text is longer than max_input_chars",
}


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds one text a row."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_texts(kind: pa.DataType) -> bool:
    """Whether a column of this type holds a list of texts a row."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text(kind.value_type)


def read(column: pa.ChunkedArray, max_chars: int) -> tuple[list[list[str] | None], list[tuple[int, str, str]]]:
    """(the texts of each row, None where it can't be used; (row, code, message) for each of those).

    A string column gives one text a row; a list column its items in their places, null items as "".
    """
    single = is_text(column.type)
    raw = column.cast(pa.binary() if single else pa.list_(pa.binary())).to_pylist()  # bytes: Arrow checks no UTF-8
    rows: list[list[str] | None] = []
    unusable: list[tuple[int, str, str]] = []
    for position, value in enumerate(raw):
        texts, code = _decode([value] if single else value or [], max_chars)
        rows.append(None if code else texts)
        if code:
            unusable.append((position, code, _REASONS[code]))
    return rows, unusable


def sample(groups: npt.NDArray[np.int64], texts: Sequence[str], size: int) -> npt.NDArray[np.int64]:
    """Positions, ascending, of at most `size` texts of each group: those with the smallest hashes.

    A bottom-k sketch (Cohen and Kaplan, PODC 2007): a uniform sample that does not depend on the order of the rows, and
    sampling the union of samples equals sampling everything.
    """
    if not texts:
        return np.zeros(0, np.int64)
    hashes = np.array([_hash(text) for text in texts], np.uint64)
    order = np.lexsort((hashes, groups))
    places = np.arange(len(order))
    first = np.r_[True, np.diff(groups[order]) != 0]
    rank = places - np.maximum.accumulate(np.where(first, places, 0))
    return np.sort(order[rank < size])


def group_codes(keys: pa.Table) -> npt.NDArray[np.int64]:
    """A number for each row, equal where all columns of `keys` are equal; null equals null."""
    codes = np.zeros(keys.num_rows, np.int64)
    for column in keys.columns:
        encoded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
        pair = np.stack([codes, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)])
        codes = np.unique(pair, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def folded(text: str) -> str:
    """NFKC, small letters, single blanks: what counts as the same text (Unicode 16, caseless matching, D145-D146)."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.split())


def _decode(items: Sequence[bytes | None], max_chars: int) -> tuple[list[str], str]:
    """(texts, "") or (anything, the code of what is wrong)."""
    try:
        texts = [(item or b"").decode() for item in items]
    except UnicodeDecodeError:
        return [], "undecodable"
    length = sum(map(len, texts))
    if length > max_chars:
        return texts, "too_long"
    if not any(text and not text.isspace() for text in texts):
        return texts, "empty"
    if sum(len(_GARBAGE.findall(text)) for text in texts) > _MAX_GARBAGE * length:
        return texts, "undecodable"
    return texts, ""


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
