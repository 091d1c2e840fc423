from __future__ import annotations

import pyarrow as pa

from bizllm.tables import dropped

SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("text", pa.string())])
COLUMNS = pa.schema([("spans", pa.list_(SPAN)), ("one", SPAN), ("n", pa.int64())])


def test_what_can_be_left_out() -> None:
    named = ["spans", "spans.start", "spans.end", "spans.text", "one", "one.start", "one.end", "one.text", "n"]
    assert dropped.names(COLUMNS) == named
    assert dropped.without(COLUMNS, []) == COLUMNS
    kept = dropped.without(COLUMNS, ["spans.text", "one", "n"])
    assert kept == pa.schema([("spans", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())])))])
    assert dropped.without(COLUMNS, ["one.start", "one.end", "one.text"]).names == ["spans", "n"]


def test_values_lose_their_fields() -> None:
    kind = dropped.without(COLUMNS, ["spans.text"]).field("spans").type
    given = pa.chunked_array([pa.array([[{"start": 0, "end": 1, "text": "x"}], [], None], pa.list_(SPAN))])
    assert dropped.narrowed(given, kind).to_pylist() == [[{"start": 0, "end": 1}], [], None]
    assert dropped.narrowed(pa.chunked_array([[1]]), pa.int32()).type == pa.int32()


def test_rules_that_can_still_be_asked() -> None:
    rules = {"holds its text": "length(s['text']) > 0", "in order": "s['start'] < s['end']", "texts": "texts > 0"}
    assert list(dropped.rules_of(rules, ["spans.text"])) == ["in order", "texts"]
    assert dropped.rules_of(rules, []) == rules
