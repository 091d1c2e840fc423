"""Against scikit-learn, and against the forecasting metrics row by row."""

import numpy as np
import pytest
from sklearn import metrics as sk

from bizllm.errors import RunError
from bizllm.evaluate import metrics, regression

RNG = np.random.default_rng(0)
TRUTH = RNG.gamma(2.0, 30.0, (40, 6))
PREDICTION = TRUTH + RNG.normal(0, 9, TRUTH.shape)


def test_points_are_those_of_scikit_learn() -> None:
    scores = regression.scores(PREDICTION, TRUTH)
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(TRUTH, PREDICTION))
    assert scores["rmse"] == pytest.approx(sk.mean_squared_error(TRUTH.ravel(), PREDICTION.ravel()) ** 0.5)
    assert scores["r2"] == pytest.approx(sk.r2_score(TRUTH, PREDICTION))
    assert scores["smape"] == pytest.approx(
        2 * 100 * np.mean(np.abs(TRUTH - PREDICTION) / (TRUTH + np.abs(PREDICTION)))
    )
    assert "mase" not in scores


def test_r2_leaves_out_steps_at_which_all_rows_are_the_same() -> None:
    truth, prediction = TRUTH.copy(), PREDICTION
    truth[:, 2] = 7.0
    others = [0, 1, 3, 4, 5]
    assert regression.scores(prediction, truth)["r2"] == pytest.approx(
        sk.r2_score(truth[:, others], prediction[:, others])
    )
    assert "r2" not in regression.scores(prediction[:1], truth[:1])


def test_mase_is_the_mean_over_the_rows_that_have_a_scale() -> None:
    histories = [RNG.gamma(2.0, 30.0, length) for length in range(10, 50)]
    histories[3] = np.full(20, 5.0)  # constant: no scale
    histories[5] = histories[5][:2]  # shorter than a season
    expected = [
        np.abs(TRUTH[i] - PREDICTION[i]).mean() / np.abs(np.diff(history.reshape(-1))).mean()
        if i not in (3,)
        else np.nan
        for i, history in enumerate(histories)
    ]
    scores = regression.scores(PREDICTION, TRUTH, histories, season=1)
    assert scores["mase"] == pytest.approx(np.nanmean(expected))
    seasonal = [float(metrics.mase(TRUTH[i], PREDICTION[i], histories[i], 7)) for i in range(40)]
    assert np.isnan(seasonal[5])
    assert regression.scores(PREDICTION, TRUTH, histories, season=7)["mase"] == pytest.approx(np.nanmean(seasonal))
    assert "mase" not in regression.scores(PREDICTION[3:4], TRUTH[3:4], histories[3:4])


def test_quantiles_are_scored_as_scikit_learn_does() -> None:
    levels = (0.1, 0.5, 0.9)
    quantiles = np.stack([PREDICTION - 12, PREDICTION, PREDICTION + 12], axis=-1)
    scores = regression.quantile_scores(quantiles, TRUTH, levels)
    losses = [
        sk.mean_pinball_loss(TRUTH.ravel(), quantiles[..., q].ravel(), alpha=level) for q, level in enumerate(levels)
    ]
    assert scores["pinball"] == pytest.approx(np.mean(losses))
    assert scores["coverage"] == pytest.approx(np.mean(np.abs(TRUTH - PREDICTION) <= 12))
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(TRUTH, PREDICTION))


def test_without_a_median_or_a_band_their_scores_are_missing() -> None:
    assert set(regression.quantile_scores(PREDICTION[..., None], TRUTH, (0.9,))) == {"pinball"}
    assert "coverage" not in regression.quantile_scores(PREDICTION[..., None], TRUTH, (0.5,))


def test_rows_without_a_number_fail_with_their_count() -> None:
    broken = PREDICTION.copy()
    broken[:3, 1] = np.inf
    with pytest.raises(RunError, match="3 of 40 rows"):
        regression.scores(broken, TRUTH)
    with pytest.raises(RunError, match="3 of 40 rows"):
        regression.quantile_scores(broken[..., None], TRUTH, (0.5,))
