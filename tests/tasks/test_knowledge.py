from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from bizllm.errors import UserError
from bizllm.methods.terms import Fact
from bizllm.tasks import _knowledge
from bizllm.tasks._knowledge import Knowledge
from bizllm.tasks.base import StepInput


def test_names_with_their_kinds() -> None:
    rows = pa.table({"alias": ["充电宝", None, "kettle ", "x"], "is": ["power bank", "a", "Larkfield kettle", " "]})
    rows = rows.append_column("what", pa.array(["product", "b", None, None]))
    knowledge = Knowledge(input="words", term="alias", means="is", kind="what")
    assert knowledge.columns() == {"term": "alias", "means": "is", "kind": "what"}
    terms = _knowledge.terms(_knowledge.learn(rows, knowledge))
    assert terms is not None
    assert [(f.name, f.kind) for f in terms.find("充电宝, power banks and a KETTLE")] == [
        ("power bank", "product"),
        ("power bank", "product"),
        ("Larkfield kettle", None),
    ]


def test_a_graph_and_its_other_names() -> None:
    rows = pa.table(
        {
            "s": ["BPB", "充电宝", "BPB", "Beacon", None],
            "r": ["also called", "别名", "made by", "sits in", "x"],
            "o": ["power bank", "power bank", "Beacon", "深圳", "y"],
        }
    )
    knowledge = Knowledge(input="graph", subject="s", relation="r", object="o")
    terms = _knowledge.terms(_knowledge.learn(rows, knowledge))
    assert terms is not None
    assert [f.name for f in terms.find("充电宝 BPB 深圳")] == ["power bank", "power bank", "深圳"]
    assert terms.neighbours("power bank", 2) == [Fact("made by", "Beacon"), Fact("sits in", "深圳")]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"term": "a"},
        {"means": "a"},
        {"kind": "a"},
        {"subject": "a", "object": "b"},
        {"term": "a", "means": "b", "subject": "c", "relation": "d", "object": "e"},
        {"trem": "a", "means": "b"},
    ],
)
def test_one_of_two_forms(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Knowledge(input="words", **settings)


def test_faults_and_nothing_to_learn() -> None:
    knowledge = Knowledge(input="words", term="alias", means="id")
    given = StepInput("words", pa.schema([("alias", pa.string()), ("id", pa.int64())]))
    assert _knowledge.faults("knowledge", knowledge, given) == [
        ("knowledge.means", "id", "expected a string column, it is int64", "")
    ]
    with pytest.raises(UserError, match="2 rows hold no usable name"):
        _knowledge.learn(pa.table({"alias": [None, ""], "id": ["a", "b"]}), knowledge)
    assert _knowledge.terms(None) is None and _knowledge.terms({"terms": 1}) is None
