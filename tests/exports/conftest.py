"""A shop whose nights are copied elsewhere."""

from __future__ import annotations

import pytest

from tests.published import D1, D2, Shop, ticket


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.publish("summary__rejects", D1, "r0", [{"ticket_id": "t8", "scope": "row", "code": "empty"}])
    shop.publish("summary", D1, "r0", [ticket("t1", "old")])
    shop.publish("summary__rejects", D1, "r1", [{"ticket_id": "t9", "scope": "row", "code": "empty"}])
    shop.publish("summary", D1, "r1", [ticket("t1", "One"), ticket("t2", "a 'b' \0 二\n☃", unsupported=["x\0", None])])
    shop.publish("summary", D2, "r2", [ticket("t1", "Uno"), ticket("t3", None), ticket("t4", "", unsupported=[])])
    shop.publish("demand", D2, "r2", [{"store": "s1", "day": D2, "mean": float("nan")}])
    shop.publish("secret", D2, "r2", [ticket("t1", "Jane Doe", unsupported=["Jane"])])
    shop.note(D2, "r2", 3)
    return shop
