"""Word vectors' gradients exchanged by row: the same numbers, fewer of them sent."""

from __future__ import annotations

from typing import Any

import pytest

WHOLE, LAYER = 500 * 8, 3 * 8


@pytest.mark.parametrize(
    ("length", "tied", "penalties", "by_row"),
    [
        pytest.param(5, False, False, True, id="few of the words are read"),
        pytest.param(200, False, False, True, id="most words are read"),
        pytest.param(5, True, False, False, id="the output layer shares them"),
        pytest.param(5, False, True, False, id="a penalty reaches all of them"),
    ],
)
def test_weights_are_those_of_the_whole_exchange(
    workers: Any, length: int, tied: bool, penalties: bool, by_row: bool
) -> None:
    for told in workers(2).call("exchange_words", words=500, length=length, tied=tied, penalties=penalties):
        assert told["same"] and told["by_row"] == by_row
        whole, rows = told["sent"]
        assert whole == 2 * (WHOLE if tied else WHOLE + LAYER)
        most = 2 * (LAYER + 8 * 40)  # two workers, two parts, two texts of five words
        assert 2 * LAYER < rows <= most if by_row and length == 5 else rows == whole
