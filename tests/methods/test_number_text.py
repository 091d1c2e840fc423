"""Histories as text: what is written can be read back, whatever the unit and the size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bizllm.methods.number_text import WINDOW, decode_history, encode_history, forecast

finite = st.floats(-1e300, 1e300, allow_nan=False)


def test_values_are_percents_of_their_mean() -> None:
    assert encode_history([8, 12, 10, 10]) == ("80 120 100 100", 10.0)
    assert encode_history([-30, 10]) == ("-150 50", 20.0)
    assert encode_history([0.0, 0.0, 0.0]) == ("0 0 0", 1.0)


@given(st.lists(finite, min_size=1, max_size=200))
def test_a_history_is_read_back_to_half_a_percent_of_its_scale(values: list[float]) -> None:
    text, scale = encode_history(values)
    recent = np.array(values[-WINDOW:])
    read = decode_history(text, scale)
    assert read.shape == recent.shape and np.isfinite(scale) and scale > 0
    np.testing.assert_allclose(read / scale, recent / scale, atol=0.00501, rtol=1e-9)


@given(st.lists(st.integers(-999, 999).map(float), min_size=1, max_size=20), st.integers(-30, 30))
def test_the_unit_changes_the_scale_and_not_the_text(values: list[float], power: int) -> None:
    (text, scale), (other, scaled) = encode_history(values), encode_history(np.array(values) * 2.0**power)
    assert text == other
    assert scaled == scale * 2.0**power or not any(values)


def test_only_the_window_is_read() -> None:
    assert encode_history([1e9] * 5 + [1.0, 3.0], window=2) == ("50 150", 2.0)


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf], [[1.0]]])
def test_what_is_no_history_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="history"):
        encode_history(values)  # type: ignore[arg-type]


def drift(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The last value plus 10 and 20 percent of the scale; NaN for a history that ends with 0. A token a number."""
    last = np.array([float(text.split()[-1]) / 100 for text in texts])
    last[last == 0] = np.nan
    return np.stack([last + 0.1, last + 0.2], axis=1), np.array([len(text.split()) for text in texts])


def test_a_longer_horizon_goes_on_from_the_models_own_numbers() -> None:
    made, tokens = forecast([np.array([5.0, 15.0]), np.array([1.0, 0.0]), np.full(99, 2.0)], 3, drift)
    assert made[0, :2] == pytest.approx([16.0, 17.0])
    scale = np.mean([5, 15, 16, 17])  # the second answer is in units of what is history by then
    assert made[0, 2] == pytest.approx(17 + 0.1 * scale, abs=0.005 * scale)
    assert np.isnan(made[1]).all()
    assert made[2, :2] == pytest.approx([2.2, 2.4])
    assert tokens == (2 + 2 + WINDOW) + (4 + 2 + WINDOW)
    assert forecast([], 3, drift)[0].shape == (0, 3)
